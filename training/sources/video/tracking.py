"""Points followed through a shot: corners on land, carried from frame to frame (Lucas-Kanade)."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from infinite_nature_ros.pixels import from_pixels
from infinite_nature_ros.skyline import detect_sky

WORK_WIDTH = 854
"""Pictures are shrunk to this width for following points: enough for a tenth of a pixel."""

_MOST_POINTS = 900

# Corners keep this distance (pixels), so that points spread over the land.
_DISTANCE = 8

# Weakest corner against the strongest one of the picture.
_CORNER_QUALITY = 0.005

# A point that doesn't come back to where it was (pixels) was lost on the way.
_RETURN_ERROR = 0.5

# Points this near to the border (pixels) see too little around them.
_MARGIN = 3

# The sky is looked for at about this many pixels.
_SKY_AREA = 160 * 284

_FLOW = {'winSize': (21, 21), 'maxLevel': 4,
         'criteria': (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_COUNT, 30, 0.01)}


@dataclass(frozen=True, eq=False)
class Tracks:
    """Where points were seen, sorted by frame.

    Attributes:
        size: height and width of the pictures they were followed in.
        start: ``[F + 1]`` observations ``start[i]:start[i + 1]`` are those of frame i.
        point: ``[M]`` number of the point.
        xy: float64 ``[M, 2]`` in pixels; the centre of the first pixel is (0.5, 0.5).
    """

    size: tuple[int, int]
    start: np.ndarray
    point: np.ndarray
    xy: np.ndarray

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.start) - 1

    def of(self, frame: int) -> tuple[np.ndarray, np.ndarray]:
        """Points ``[K]`` seen in a frame, in ascending order, and where ``[K, 2]``."""
        part = slice(self.start[frame], self.start[frame + 1])
        return self.point[part], self.xy[part]

    def shared(self, first: int, second: int) -> tuple[np.ndarray, np.ndarray]:
        """Where ``[K, 2]`` the points seen in both of two frames lie in each."""
        a, b = self.of(first), self.of(second)
        _, in_first, in_second = np.intersect1d(a[0], b[0], assume_unique=True,
                                                return_indices=True)
        return a[1][in_first], b[1][in_second]


class PointFollower:
    """Follows points from picture to picture; what is lost is replaced by new corners."""

    def __init__(self) -> None:
        """Start without points."""
        self._previous: np.ndarray | None = None
        self._xy = np.zeros((0, 2), np.float32)
        self._point = np.zeros(0, np.int64)
        self._next_point = 0
        self._seen: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, grey: np.ndarray, sky: np.ndarray) -> None:
        """Follow the points into the next picture.

        Args:
            grey: uint8 ``[H, W]``, all of one size.
            sky: bool ``[h, w]`` of any size, where no points are wanted.
        """
        if self._previous is not None and len(self._xy):
            self._xy, alive = follow(self._previous, grey, self._xy)
            self._xy, self._point = self._xy[alive], self._point[alive]
        self._refill(grey, sky)
        self._previous = grey
        self._seen.append((self._point, self._xy))

    def _refill(self, grey: np.ndarray, sky: np.ndarray) -> None:
        """Find corners on land, away from the points there are."""
        missing = _MOST_POINTS - len(self._xy)
        if missing <= 0:
            return
        height, width = grey.shape
        land = cv2.resize((~sky).astype(np.uint8), (width, height),
                          interpolation=cv2.INTER_NEAREST)
        land = cv2.erode(land, np.ones((5, 5), np.uint8))
        for x, y in self._xy.round().astype(int).tolist():
            cv2.circle(land, (x, y), _DISTANCE, 0, -1)
        found = cv2.goodFeaturesToTrack(grey, missing, _CORNER_QUALITY, _DISTANCE, mask=land)
        if found is None:
            return
        self._xy = np.concatenate([self._xy, found[:, 0]])
        numbers = np.arange(self._next_point, self._next_point + len(found))
        self._point = np.concatenate([self._point, numbers])
        self._next_point += len(found)

    def tracks(self) -> Tracks:
        """All that was seen so far, at least one picture."""
        counts = [len(point) for point, _ in self._seen]
        return Tracks(self._previous.shape, np.concatenate([[0], np.cumsum(counts)]),
                      np.concatenate([point for point, _ in self._seen]),
                      np.concatenate([xy for _, xy in self._seen]).astype(np.float64) + 0.5)


def follow(before: np.ndarray, after: np.ndarray,
           xy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Follow points from one picture to another and back.

    Args:
        before: uint8 ``[H, W]``.
        after: uint8 ``[H, W]``.
        xy: float32 ``[K, 2]``, K > 0, OpenCV's pixels (the first has its centre at 0).

    Returns:
        float32 ``[K, 2]`` where they went, and bool ``[K]`` which of that can be trusted.
    """
    there, seen, _ = cv2.calcOpticalFlowPyrLK(before, after, xy, None, **_FLOW)
    back, seen_back, _ = cv2.calcOpticalFlowPyrLK(after, before, there, None, **_FLOW)
    height, width = after.shape
    inside = ((there > _MARGIN) & (there < (width - 1 - _MARGIN, height - 1 - _MARGIN))).all(1)
    returned = np.abs(back - xy).max(1) < _RETURN_ERROR
    return there, (seen[:, 0] > 0) & (seen_back[:, 0] > 0) & inside & returned


def find_sky(image: np.ndarray) -> np.ndarray:
    """Find the sky of a picture, uint8 ``[H, W, 3]``: bool ``[h, w]``, smaller than that."""
    small = resize_to_area(image, _SKY_AREA)
    return detect_sky(from_pixels(small)[None])[0, 0].numpy() > 0.5


def resize_to_area(image: np.ndarray, area: float) -> np.ndarray:
    """Shrink a picture to about so many pixels; smaller ones stay as they are."""
    height, width = image.shape[:2]
    scale = min((area / (height * width)) ** 0.5, 1)
    return cv2.resize(image, (round(width * scale), round(height * scale)),
                      interpolation=cv2.INTER_AREA)


def resize_to_width(image: np.ndarray, width: int) -> np.ndarray:
    """Shrink a picture to a width; narrower ones stay as they are."""
    if image.shape[1] <= width:
        return image
    height = round(image.shape[0] * width / image.shape[1])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
