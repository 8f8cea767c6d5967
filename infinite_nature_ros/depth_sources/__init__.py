"""First-frame disparity: where a flight's geometry comes from, by name or from a file."""

from infinite_nature_ros.depth_sources.file import load_official_sample
from infinite_nature_ros.depth_sources.registry import (
    estimate_disparity,
    is_ready,
    list_sources,
    register_source,
)

__all__ = [
    'estimate_disparity',
    'is_ready',
    'list_sources',
    'load_official_sample',
    'register_source',
]
