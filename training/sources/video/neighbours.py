"""Which frames to look at beside a frame: far enough to see depth, near enough to see the same."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TypeVar

import numpy as np

# Median motion of a frame's points, without that of turning, over the picture's width.
_PARALLAX = 0.012

_SHORTEST, _LONGEST = 2, 15

REACH = 2 * _LONGEST
"""No neighbour is further away than this many frames."""

_T = TypeVar('_T')


def choose_gap(frame: int, poses: np.ndarray, points: np.ndarray,
               intrinsics: np.ndarray) -> int:
    """Distance in frames to where a frame's points have clearly moved; at least 2, at most 15.

    Args:
        frame: number of the frame.
        poses: ``[F, 3, 4]`` world to camera.
        points: ``[K, 3]`` seen in the frame, camera axes; K > 0.
        intrinsics: ``[4]`` fx, fy, cx, cy, normalised.
    """
    for gap in range(_SHORTEST, _LONGEST):
        other = frame + gap if frame + gap < len(poses) else frame - gap
        if other < 0 or _parallax(poses[frame], poses[other], points, intrinsics) > _PARALLAX:
            return gap
    return _LONGEST


def _parallax(source: np.ndarray, target: np.ndarray, points: np.ndarray,
              intrinsics: np.ndarray) -> float:
    """Median motion in widths that the change of place causes."""
    rotation = target[:, :3] @ source[:, :3].T
    turned = points @ rotation.T
    moved = turned + target[:, 3] - rotation @ source[:, 3]
    visible = (turned[:, 2] > 0) & (moved[:, 2] > 0)
    if not visible.any():
        return np.inf
    flat = [some[visible, :2] / some[visible, 2:] for some in (turned, moved)]
    return float(np.median(np.linalg.norm(flat[1] - flat[0], axis=1)) * intrinsics[0])


def list_neighbours(frame: int, gap: int, count: int) -> list[int]:
    """Frames at half the gap, the gap and twice the gap on both sides, the nearest first."""
    near = (frame + side * distance for distance in (gap // 2, gap, 2 * gap) for side in (-1, 1))
    return [other for other in near if 0 <= other < count]


def slide(items: Iterable[_T]) -> Iterator[tuple[int, dict[int, _T]]]:
    """Yield each number with the items within ``REACH`` of it, without keeping more."""
    window: dict[int, _T] = {}
    current = 0
    ended = ((None, None) for _ in range(REACH))
    for number, item in chain(enumerate(items), ended):
        if number is not None:
            window[number] = item
        if number is None or number >= REACH:
            if current not in window:
                return
            yield current, window
            window.pop(current - REACH, None)
            current += 1
