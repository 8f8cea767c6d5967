"""Rendering: warp an RGB-D frame to another camera, as the official release does it."""

from infinite_nature_ros.rendering.backends import list_backends
from infinite_nature_ros.rendering.render import render, Rendered

__all__ = ['list_backends', 'render', 'Rendered']
