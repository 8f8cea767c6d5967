"""Disparity from the skyline alone: a level ground, upright mountains, sky at the far end.

Works offline on any outdoor photo, without weights. A level ground seen by a pinhole camera has a
disparity that grows linearly from 0 at the horizon towards the bottom of the picture. What rises
above the horizon stands upright, each column of it on ground of its own distance. The taller it
looks, the nearer it is taken to be.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from infinite_nature_ros.camera import MAX_DISPARITY, MIN_DISPARITY, pixel_grid
from infinite_nature_ros.depth_sources.registry import register_source
from infinite_nature_ros.skyline import detect_sky, find_skyline, Skyline

# Disparity of the ground at the bottom of the picture. With it the camera is about one unit above
# the ground, where the autopilot likes to fly: flights stay as high as they begin.
_NEAREST = 0.4

# Disparity of relief that barely rises above the horizon, and how much nearer it is taken to be
# per picture height that it rises. A single picture doesn't tell; some 50 units are far enough for
# a flight to keep it as its backdrop (``sky.FAR_DISPARITY``), but for what towers over the camera.
_FAR_RELIEF, _NEARER_PER_RISE = 0.012, 0.025

# Relief that rises less than this (picture heights) is the line of the horizon itself.
_LEAST_RISE = 0.01

# The ground's disparity grows by no more than this from row to row: a little more (0.015), and the
# renderer takes level ground for one break between surfaces and drops all of it (``mesh``).
_STEEPEST = 0.0125

# Under a lower horizon than this the ground isn't drawn together any further.
_LOWEST_HORIZON = 0.75

# Silhouettes are smoothed over this share of the width: trees and crags don't each get a depth.
_SMOOTHING = 0.04


@register_source('horizon', takes_sky=True)
def horizon_disparity(image: Tensor, sky: Tensor | None = None) -> Tensor:
    """Disparity of images from their skylines.

    Args:
        image: ``[B, 3, H, W]`` RGB in [0, 1].
        sky: ``[B, 1, H, W]`` of ``detect_sky``, if it is at hand.

    Returns:
        ``[B, 1, H, W]`` in [0.01, 1].
    """
    sky = (detect_sky(image) if sky is None else sky) > 0.5
    skyline = find_skyline(image, sky.to(image.dtype))
    below = _below_horizon(skyline, *image.shape[2:])
    scale = _NEAREST / (1 - skyline.row.clamp(max=_LOWEST_HORIZON))
    ground = scale.clamp(max=_STEEPEST * image.shape[2])[:, None, None, None] * below
    rise = _silhouette(sky, below)
    upright = (_FAR_RELIEF + _NEARER_PER_RISE * rise) * (rise > _LEAST_RISE)
    disparity = torch.maximum(ground, upright).clamp(MIN_DISPARITY, MAX_DISPARITY)
    return torch.where(sky, torch.full_like(disparity, MIN_DISPARITY), disparity)


def _below_horizon(skyline: Skyline, height: int, width: int) -> Tensor:
    """``[B, 1, H, W]`` how far each pixel lies below the horizon, in picture heights."""
    x, y = pixel_grid(height, width, skyline.row.device)
    slope = skyline.tilt.tan()[:, None, None] * (width / height)
    return (y - skyline.row[:, None, None] + slope * (x - 0.5))[:, None]


def _silhouette(sky: Tensor, below: Tensor) -> Tensor:
    """``[B, 1, 1, W]`` how far the land rises above the horizon, in picture heights."""
    height, width = sky.shape[2:]
    horizon = 0.5 / height - below[:, :, :1]
    rise = (horizon - sky.sum(2, keepdim=True) / height).clamp(min=0)
    reach = math.ceil(width * _SMOOTHING / 2)
    padded = functional.pad(rise[:, 0], (reach, reach), mode='replicate')
    # The median keeps the edge of a cliff where it is.
    return padded.unfold(-1, 2 * reach + 1, 1).median(-1).values[:, None]
