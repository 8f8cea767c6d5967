"""Letterbox and pillarbox bars: borders of one dark colour that never changes (supplement 1.1)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Bars are black (16 in video range), and coding noise stirs them by a few levels.
_BLACK, _NOISE = 40, 8

# Bars that leave less than this share of a side are no bars: the shot is dark.
_LEAST_PICTURE = 0.4

# The scaled edge of a bar is mixed with the picture.
_SOFT_EDGE = 1


@dataclass(frozen=True)
class Crop:
    """Part of a frame, in pixels: rows top to bottom and columns left to right, ends excluded."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.bottom - self.top, self.right - self.left

    def of(self, image: np.ndarray) -> np.ndarray:
        """Cut the part out of ``[H, W, ...]``."""
        return image[self.top:self.bottom, self.left:self.right]


class BarFinder:
    """Watches the frames of a shot and finds the bars that all of them have."""

    def __init__(self, height: int, width: int) -> None:
        """Expect frames of a size in pixels."""
        self._rows = _Range(height)
        self._columns = _Range(width)

    def add(self, image: np.ndarray) -> None:
        """Look at a frame, uint8 ``[H, W, 3]``."""
        brightness = image.max(2)
        self._rows.add(brightness)
        self._columns.add(brightness.T)

    def crop(self) -> Crop:
        """Part of the frames that isn't bars; all of it if none were seen."""
        top, bottom = self._rows.inside()
        left, right = self._columns.inside()
        return Crop(top, bottom, left, right)


class _Range:
    """Darkest and brightest pixel of each line, over all frames."""

    def __init__(self, count: int) -> None:
        self._low = np.full(count, 255, np.uint8)
        self._high = np.zeros(count, np.uint8)

    def add(self, lines: np.ndarray) -> None:
        np.minimum(self._low, lines.min(1), out=self._low)
        np.maximum(self._high, lines.max(1), out=self._high)

    def inside(self) -> tuple[int, int]:
        """First line and the one after the last that aren't bars."""
        spread = self._high.astype(int) - self._low
        lively = np.flatnonzero((self._high > _BLACK) | (spread > _NOISE))
        count = len(spread)
        if not len(lively) or lively[-1] + 1 - lively[0] < _LEAST_PICTURE * count:
            return 0, count
        first, last = int(lively[0]), int(lively[-1]) + 1
        return first + _SOFT_EDGE * (first > 0), last - _SOFT_EDGE * (last < count)
