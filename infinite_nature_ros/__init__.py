"""Infinite Nature for ROS 2: fly forever into one landscape photo."""

from __future__ import annotations

import importlib
from typing import Any, TYPE_CHECKING

if TYPE_CHECKING:
    from infinite_nature_ros.autopilot import Autopilot
    from infinite_nature_ros.flight import Flight
    from infinite_nature_ros.frame import Frame

__all__ = ['Autopilot', 'Flight', 'Frame']

_MODULES = {'Autopilot': 'autopilot', 'Flight': 'flight', 'Frame': 'frame'}


def __getattr__(name: str) -> Any:
    """Import the public classes when they are asked for: torch takes seconds, --help needn't."""
    if name not in _MODULES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(importlib.import_module(f'{__name__}.{_MODULES[name]}'), name)
