"""From a shot's structure to frames with aligned disparity, each of them checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import torch

from infinite_nature_ros.camera import MIN_DISPARITY
from infinite_nature_ros.depth_sources import estimate_disparity
from infinite_nature_ros.frame import Frame
from infinite_nature_ros.pixels import from_pixels
from infinite_nature_training.bags import ClipError, encode_jpeg
from infinite_nature_training.bags.consistency import frame_errors
from infinite_nature_training.sources.video.alignment import (
    find_down,
    find_sky_edge,
    fit_disparity,
)
from infinite_nature_training.sources.video.decoding import read_frames
from infinite_nature_training.sources.video.densify import DenseTriangulation
from infinite_nature_training.sources.video.neighbours import (
    choose_gap,
    list_neighbours,
    slide,
)
from infinite_nature_training.sources.video.shots import Shot
from infinite_nature_training.sources.video.structure import Structure
from infinite_nature_training.sources.video.tracking import resize_to_area

DENSE = 'dense'
"""First-guess disparity from the video itself, by triangulation."""

# Disparity is estimated at about this many pixels.
_AREA = 448 * 252

# Disparity is rounded to the precision of 16-bit floats, 0.05 %: it isn't better than that, and
# packs to a third.
_STORED = np.float16

_MOST_PEOPLE = 0.1

# Of the points followed into a frame, waves and what lies on edges go astray, but not half.
_LEAST_FIT = 0.6

# A frame passes if its warp misses another frame by this share less than standing still does.
_LEAST_GAIN = 0.1

Detector = Callable[[np.ndarray], float]
"""Takes a picture, uint8 ``[H, W, 3]`` RGB, and returns the share of it that people fill."""


@dataclass(frozen=True, eq=False)
class MadeFrame:
    """A frame of a shot with all that a bag wants of it, or the reason why it is left out.

    Attributes:
        number: number within the structure.
        stamp: nanoseconds.
        jpeg: picture of the wanted height.
        disparity: float16 of the same size, 1 / scene units.
        down: direction of gravity in camera axes, of ``find_down``.
        edge: the same, of ``find_sky_edge``.
        warp_error: photometric error on land of the warp to another frame.
        static_error: the same of the frame as it stands.
        flaw: why the frame failed; '' for a good one.
    """

    number: int
    stamp: int
    jpeg: bytes = b''
    disparity: np.ndarray | None = None
    down: np.ndarray | None = None
    edge: np.ndarray | None = None
    warp_error: float = 0.0
    static_error: float = 0.0
    flaw: str = ''


@dataclass(frozen=True, eq=False)
class _Picture:
    """A decoded frame within the sliding window."""

    stamp: int
    kept: np.ndarray
    small: np.ndarray
    grey: np.ndarray
    sky: np.ndarray


@dataclass(frozen=True, eq=False)
class FrameMaker:
    """Makes the frames of one shot, streaming through the video.

    Attributes:
        path: video file.
        shot: where the shot is.
        structure: poses and points, in scene units.
        skies: sky of each frame of the shot, bool ``[h, w]``.
        height: height of the pictures to keep; smaller ones stay as they are.
        source: first-guess disparity, 'dense' or a source of ``estimate_disparity``.
        detector: finds people; ``None`` drops no frame for people.
    """

    path: Path
    shot: Shot
    structure: Structure
    skies: Sequence[np.ndarray]
    height: int
    source: str
    detector: Detector | None

    def frames(self, stride: int) -> Iterator[MadeFrame]:
        """Yield every stride-th frame that has a pose, good or with its flaw."""
        for number, window in slide(self._pictures()):
            if (self.structure.first + number) % stride == 0:
                picture = window[number]
                try:
                    yield self._make(number, window)
                except ClipError as flaw:
                    yield MadeFrame(number, picture.stamp, flaw=str(flaw))

    def _pictures(self) -> Iterator[_Picture]:
        structure, shot = self.structure, self.shot
        first = shot.first + structure.first
        for frame in read_frames(self.path, first, first + len(structure) - 1):
            picture = shot.crop.of(frame.image)
            small = resize_to_area(picture, _AREA)
            sky = cv2.resize(self.skies[frame.number - shot.first].astype(np.float32),
                             small.shape[1::-1]) > 0.5
            yield _Picture(frame.stamp, shrink(picture, self.height), small,
                           cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), sky)

    def _make(self, number: int, window: dict[int, _Picture]) -> MadeFrame:
        picture, structure = window[number], self.structure
        points = structure.points[number]
        if self.detector is not None and (share := self.detector(picture.kept)) > _MOST_PEOPLE:
            raise ClipError(f'people fill {share:.0%} of the picture')
        if not len(points):
            raise ClipError('no tracked points')
        if (fit := structure.fits[number]) < _LEAST_FIT:
            raise ClipError(f'only {fit:.0%} of the tracked points are seen where its pose says')
        gap = choose_gap(number, structure.poses, points, structure.intrinsics)
        guess = self._first_guess(number, gap, window)
        scale, shift = fit_disparity(guess, points, structure.intrinsics)
        disparity = np.where(picture.sky, MIN_DISPARITY, scale * guess + shift)
        disparity = disparity.clip(MIN_DISPARITY).astype(np.float32)
        warp_error, static_error = self._check(number, gap, disparity, window)
        size = picture.kept.shape[1::-1]
        kept = cv2.resize(disparity, size, interpolation=cv2.INTER_LINEAR).astype(_STORED)
        down = find_down(picture.small, picture.sky, structure.intrinsics)
        edge = find_sky_edge(picture.sky, structure.intrinsics)
        return MadeFrame(number, picture.stamp, encode_jpeg(picture.kept), kept, down, edge,
                         warp_error, static_error)

    def _first_guess(self, number: int, gap: int, window: dict[int, _Picture]) -> np.ndarray:
        """``[h, w]`` disparity, for a source other than 'dense' up to scale and shift."""
        picture = window[number]
        if self.source != DENSE:
            sky = torch.from_numpy(picture.sky)[None, None].float()
            image = from_pixels(picture.small)[None]
            return estimate_disparity(image, self.source, sky)[0, 0].numpy()
        neighbours = list_neighbours(number, gap, len(self.structure))
        pictures = {other: window[other].grey for other in (number, *neighbours)}
        return self._triangulation.disparity(number, neighbours, pictures, picture.sky)

    @cached_property
    def _triangulation(self) -> DenseTriangulation:
        return DenseTriangulation(self.structure.poses, self.structure.intrinsics)

    def _check(self, number: int, gap: int, disparity: np.ndarray,
               window: dict[int, _Picture]) -> tuple[float, float]:
        """Errors of the warp to another frame, and without it.

        Raises:
            ClipError: if the warp explains the other frame no better than standing still does.
        """
        other = number + gap if number + gap in window else number - gap
        if other not in window:
            raise ClipError('no other frame near enough to check the warp with')
        poses = torch.from_numpy(self.structure.poses)
        source = Frame(
            image=from_pixels(window[number].small)[None], pose=poses[number][None],
            disparity=torch.from_numpy(disparity)[None, None],
            known=torch.ones(1, 1, *disparity.shape),
            intrinsics=torch.from_numpy(self.structure.intrinsics)[None].float())
        # Of the other frame only picture and place count, its disparity isn't known yet.
        target = source.replace(image=from_pixels(window[other].small)[None],
                                pose=poses[other][None])
        land = torch.from_numpy(~window[other].sky)[None, None]
        errors, = frame_errors(source, target, land)
        if not errors.photometric <= (1 - _LEAST_GAIN) * errors.static:
            raise ClipError(
                f'warped to frame {other} of the shot it misses by {errors.photometric:.4f}, as it '
                f'stands by {errors.static:.4f}: pose or disparity is wrong')
        return errors.photometric, errors.static


def shrink(picture: np.ndarray, height: int) -> np.ndarray:
    """Bring a picture, uint8 ``[H, W, 3]``, to a height; lower ones stay as they are."""
    if picture.shape[0] <= height:
        return np.ascontiguousarray(picture)
    width = round(picture.shape[1] * height / picture.shape[0])
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
