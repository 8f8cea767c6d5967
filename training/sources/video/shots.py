"""Shots of a video: where the camera changes, and which part of the frame is picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from infinite_nature_training.bags import ClipError
from infinite_nature_training.sources.video.decoding import read_frames, VideoFrame
from infinite_nature_training.sources.video.letterbox import BarFinder, Crop
from infinite_nature_training.sources.video.tracking import follow, resize_to_width

# Corners are followed from frame to frame at this width. Within a shot nearly all of them are
# found again, whatever the camera does; across a cut only what looks alike by chance.
_WIDTH, _CORNERS, _SURVIVORS = 320, 200, 0.25

# A picture with fewer corners says nothing by them; then the share of brightnesses that two
# pictures have in common decides, which is high even for different pictures of one place.
_FEWEST_CORNERS, _OVERLAP = 20, 0.5


@dataclass(frozen=True)
class Shot:
    """Frames that one camera took in one go.

    Attributes:
        first: number of the first frame.
        last: number of the last frame.
        size: height and width of the frames in pixels.
        crop: the part without letterbox.
    """

    first: int
    last: int
    size: tuple[int, int]
    crop: Crop

    def __len__(self) -> int:
        """Return the number of frames."""
        return self.last - self.first + 1


def find_shots(path: Path, longest: int) -> list[Shot]:
    """Split a video at its shot changes.

    Args:
        path: video file.
        longest: longer shots are divided, so that neither memory nor drift grow without bound.

    Returns:
        Shots in order; they cover the whole video.

    Raises:
        ClipError: if the video can't be decoded or has no frames.
    """
    shots: list[_Watched] = []
    previous = None
    for frame in read_frames(path):
        grey = cv2.cvtColor(resize_to_width(frame.image, _WIDTH), cv2.COLOR_RGB2GRAY)
        if not shots or len(shots[-1]) == longest or _is_cut(previous, grey):
            shots.append(_Watched(frame))
        shots[-1].add(frame)
        previous = grey
    if not shots:
        raise ClipError(f'{path.name} holds no frame that can be decoded; copy it again')
    return [shot.shot() for shot in shots]


class _Watched:
    """A shot while its frames go by."""

    def __init__(self, frame: VideoFrame) -> None:
        """Begin with a frame, which is yet to be added."""
        self._first, self._last = frame.number, frame.number - 1
        self._size = frame.image.shape[:2]
        self._bars = BarFinder(*self._size)

    def __len__(self) -> int:
        return self._last - self._first + 1

    def add(self, frame: VideoFrame) -> None:
        self._last = frame.number
        self._bars.add(frame.image)

    def shot(self) -> Shot:
        return Shot(self._first, self._last, self._size, self._bars.crop())


def _is_cut(before: np.ndarray, after: np.ndarray) -> bool:
    """Tell whether two consecutive pictures, uint8 ``[h, w]``, are of different shots."""
    if before.shape != after.shape:
        return True
    corners = cv2.goodFeaturesToTrack(before, _CORNERS, 0.01, 5)
    if corners is None or len(corners) < _FEWEST_CORNERS:
        return _common_brightness(before, after) < _OVERLAP
    _, found = follow(before, after, corners[:, 0])
    return bool(found.mean() < _SURVIVORS)


def _common_brightness(before: np.ndarray, after: np.ndarray) -> float:
    """Share of the pixels whose brightness (of 16) both pictures have."""
    counts = [np.bincount(picture.reshape(-1) >> 4, minlength=16) for picture in (before, after)]
    return float(np.minimum(*counts).sum() / before.size)
