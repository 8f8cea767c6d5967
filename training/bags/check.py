"""Check of a bag: it is what the schema says, and pictures, poses and disparity agree."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
import math
from pathlib import Path

import numpy as np

from infinite_nature_ros.camera import position, relative_pose, rotation_angle
from infinite_nature_ros.frame import Frame
from infinite_nature_training.bags.clip import ClipError, ClipFrame
from infinite_nature_training.bags.consistency import (
    frame_errors,
    frame_of,
    pixel_motion,
    WarpErrors,
)
from infinite_nature_training.bags.reader import Clip, DEFAULT_SLOP, read_clip
from infinite_nature_training.bags.report import Finding, Report
from infinite_nature_training.bags.schema import absolute_name, OPTICAL, TYPES

# docs/acid_bags.md says these.
_FOV = (5.0, 170.0)
_CENTRE = (0.3, 0.7)
_ZOOM = 0.01
_JUMP = 5.0
_JUMP_NEIGHBOURS = 4
_MIN_JUMP = (0.05, math.radians(2))
_DISPARITY = (1e-3, 100.0)
_POINT_RATIO = (0.8, 1.25)
_MIN_MOTION, _WANTED_MOTION = 0.5, 2.0
_MAX_STRIDE = 30
_DISPARITY_ERROR = (0.1, 0.25)

# Pairs of frames that are warped, evenly spaced over the clip, and frames that are looked at to
# find out how far they are apart.
_PAIRS = 24
_PROBES = 5


def check_clip(path: str | Path, *, stride: int = 0, topics: Mapping[str, str] | None = None,
               slop: float = DEFAULT_SLOP) -> Report:
    """Check a bag; whatever is wrong with it is in the report.

    Args:
        path: the bag.
        stride: frames from the source to the target of a warp; 0 chooses it so that the pictures
            move by 2 pixels.
        topics: see :func:`read_clip`.
        slop: see :func:`read_clip`.
    """
    path = Path(path)
    try:
        clip = read_clip(path, topics=topics, slop=slop)
        findings = [*_check_schema(clip), *_check_poses(clip), *_check_intrinsics(clip)]
        stride = stride or _stride(clip)
        tour = _Tour(clip, stride)
        for frame in clip.frames:
            tour.take(frame)
    except ClipError as error:
        return Report(path, findings=(Finding(str(error)),))
    errors = tour.errors()
    return Report(
        path=path, frames=len(clip.stamps), seconds=float(np.ptp(clip.stamps)) / 1e9,
        size=tour.size, with_disparity=tour.with_disparity, with_points=tour.with_points,
        stride=stride if errors else 0, errors=errors,
        findings=(*findings, *tour.findings()))


def _check_schema(clip: Clip) -> Iterator[Finding]:
    """Topics, frames and stamps."""
    yield from (Finding(note, fails=False) for note in clip.notes)
    for role, topic in clip.topics.items():
        if TYPES.get(topic.name.removeprefix(absolute_name(''))) != topic.type:
            yield Finding(f'{role} is {topic.name} ({topic.type}), '
                          'which is not a topic of the schema', fails=False)
        backward = int((np.diff(topic.stamps) < 0).sum())
        if backward:
            yield Finding(f'stamps of {topic.name} go back {backward} times')
        yield from _check_frame_ids(clip, role)
    if 'pose' not in clip.topics:
        yield Finding('poses are on /tf only', fails=False)
    yield from _check_stamps(clip)
    if not clip.info.licence:
        yield Finding('the licence is not known', fails=False)


def _check_frame_ids(clip: Clip, role: str) -> Iterator[Finding]:
    if role == 'pose':
        return
    topic, frame_ids = clip.topics[role], clip.topics['image'].frame_ids
    names = ' and '.join(map(repr, sorted(topic.frame_ids)))
    if role != 'camera_info' and topic.frame_ids != frame_ids or len(topic.frame_ids) > 1:
        yield Finding(f'{topic.name} is in frame {names}, '
                      f'pictures in {" and ".join(map(repr, sorted(frame_ids)))}')
    elif topic.frame_ids != {OPTICAL}:
        yield Finding(f'{topic.name} is in frame {names}, not {OPTICAL!r}', fails=False)


def _check_stamps(clip: Clip) -> Iterator[Finding]:
    """Everything of a frame has its stamp."""
    for role, topic in clip.topics.items():
        missing = len(np.setdiff1d(clip.stamps, topic.stamps))
        if missing:
            yield Finding(f'{missing} of {len(clip.stamps)} frames have no {role} at their very '
                          'stamp', fails=False)


def _check_poses(clip: Clip) -> Iterator[Finding]:
    """No jumps against the motion around."""
    if len(clip.stamps) < 2:
        return
    seconds = np.diff(clip.stamps) / 1e9
    shift = (position(clip.poses[1:]) - position(clip.poses[:-1])).norm(dim=1).numpy()
    turn = rotation_angle(relative_pose(clip.poses[:-1], clip.poses[1:])[..., :3]).numpy()
    for name, unit, steps, smallest in (('moves', 'scene units', shift, _MIN_JUMP[0]),
                                        ('turns', 'rad', turn, _MIN_JUMP[1])):
        jumps = np.flatnonzero((steps > smallest) & _is_jump(steps / seconds))
        if len(jumps):
            yield Finding(f'the camera {name} by {steps[jumps[0]]:.3g} {unit} from frame '
                          f'{jumps[0]} to the next, over {_JUMP:g} times the motion around; '
                          f'{len(jumps)} such jumps')


def _is_jump(speeds: np.ndarray) -> np.ndarray:
    """Whether a speed stands out among those around it and of the clip."""
    padded = np.pad(speeds, _JUMP_NEIGHBOURS, mode='reflect' if len(speeds) > _JUMP_NEIGHBOURS
                    else 'edge')
    around = np.median(np.lib.stride_tricks.sliding_window_view(
        padded, 2 * _JUMP_NEIGHBOURS + 1), axis=1)
    return speeds > _JUMP * np.maximum(around, 0.2 * np.median(speeds))


def _check_intrinsics(clip: Clip) -> Iterator[Finding]:
    sizes = clip.topics['camera_info'].sizes
    if len(sizes) > 1:
        yield Finding(f'the size in camera_info changes: {_sizes(sizes)}')
    focal, centre = clip.intrinsics[:, :2].numpy(), clip.intrinsics[:, 2:].numpy()
    fov = np.degrees(2 * np.arctan(0.5 / focal))
    for values, (low, high), name in ((fov, _FOV, 'field of view, degrees,'),
                                      (centre, _CENTRE, 'principal point, of the size,')):
        if values.min() < low or values.max() > high:
            yield Finding(f'the {name} goes from {values.min():.3g} to {values.max():.3g}; '
                          f'plausible is {low:g} to {high:g}')
    if (np.ptp(focal, axis=0) > _ZOOM * focal.mean(axis=0)).any():
        yield Finding(f'the focal length changes from {focal[:, 0].min():.4g} to '
                      f'{focal[:, 0].max():.4g} of the width', fails=False)


def _sizes(sizes: frozenset[tuple[int, int]] | set[tuple[int, int]]) -> str:
    return ', '.join(f'{width} x {height}' for height, width in sorted(sizes))


def _stride(clip: Clip) -> int:
    """Frames to go until the pictures have moved as far as is wanted."""
    most = min(_MAX_STRIDE, max(len(clip.stamps) - 1, 1))
    apart = max(1, (len(clip.stamps) - 1) // _PROBES)
    numbers = range(0, len(clip.stamps) - 1, apart)
    motion = [pixel_motion(frame_of(frame), clip.poses[number + 1:number + 2]).item()
              for number, frame in zip(numbers, clip.frames[:-1:apart], strict=True)
              if _is_disparity(frame)]
    if not motion or not np.median(motion) > 0:
        return most
    return max(1, min(math.ceil(_WANTED_MOTION / np.median(motion)), most))


def _is_disparity(frame: ClipFrame) -> bool:
    """Whether there is disparity, and all of it can be."""
    return frame.disparity is not None and bool(np.isfinite(frame.disparity).all()
                                                and (frame.disparity > 0).all())


class _Tour:
    """One pass over the frames of a clip."""

    def __init__(self, clip: Clip, stride: int) -> None:
        self.with_disparity = 0
        self.with_points = 0
        self._clip = clip
        self._stride = stride
        self._number = 0
        self._sizes: set[tuple[int, int]] = set()
        self._bad: dict[str, list[int]] = defaultdict(list)
        self._nearest: list[float] = []
        self._ratios: list[float] = []
        self._waiting: dict[int, Frame] = {}
        self._pairs: list[WarpErrors] = []
        last = len(clip.stamps) - 1 - stride
        self._sources = set(np.linspace(0, last, min(_PAIRS, last + 1), dtype=int).tolist()
                            if last >= 0 else [])

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the pictures."""
        return min(self._sizes)

    def take(self, frame: ClipFrame) -> None:
        """Look at the next frame.

        Raises:
            ClipError: if its picture is damaged.
        """
        frame = replace(frame, picture=frame.image())
        self._sizes.add(frame.size)
        if frame.disparity is not None:
            self._take_disparity(frame)
        if frame.points is not None:
            self.with_points += 1
            self._take_points(frame)
        self._number += 1

    def _take_disparity(self, frame: ClipFrame) -> None:
        self.with_disparity += 1
        if not _is_disparity(frame):
            self._bad['disparity that is not finite and positive'].append(self._number)
            return
        height, width = frame.disparity.shape
        if abs(width / height * frame.size[0] / frame.size[1] - 1) > 0.02:
            self._bad["disparity of another shape than the picture's"].append(self._number)
        self._nearest.append(float(frame.disparity.max()))
        source = self._waiting.pop(self._number - self._stride, None)
        if source is None and self._number not in self._sources:
            return
        target = frame_of(frame)
        if source is not None:
            self._pairs += frame_errors(source, target)
        if self._number in self._sources:
            self._waiting[self._number] = target

    def _take_points(self, frame: ClipFrame) -> None:
        points = frame.points
        if not (np.isfinite(points).all() and (points[:, 2] > 0).all()):
            self._bad['points that are not finite and in front of the camera'].append(
                self._number)
        elif _is_disparity(frame):
            self._ratios += _depth_ratios(frame).tolist()

    def errors(self) -> WarpErrors | None:
        """Means over the pairs that have something in common; ``None`` if there are no pairs."""
        if not self._pairs:
            return None
        pairs = [pair for pair in self._pairs if pair.covered] or self._pairs
        return WarpErrors(**{field.name: float(np.mean([getattr(pair, field.name)
                                                        for pair in pairs]))
                             for field in fields(WarpErrors)})

    def findings(self) -> Iterator[Finding]:
        """Say what is wrong with the frames."""
        for name, numbers in self._bad.items():
            yield Finding(f'{len(numbers)} of {self._number} frames have {name}, the first is '
                          f'{numbers[0]}')
        sizes = self._sizes | self._clip.topics['camera_info'].sizes
        if len(sizes) > 1:
            yield Finding(f'pictures and camera_info have several sizes: {_sizes(sizes)}')
        if 0 < self.with_disparity < self._number:
            yield Finding(f'{self._number - self.with_disparity} of {self._number} frames have '
                          'no disparity', fails=False)
        if self._nearest and not (_DISPARITY[0] <= np.median(self._nearest) <= _DISPARITY[1]):
            yield Finding(f'the nearest disparity is {np.median(self._nearest):.3g} / scene unit; '
                          f'plausible is {_DISPARITY[0]:g} to {_DISPARITY[1]:g}; '
                          'is scene_scale right?')
        yield from self._check_points()
        yield from _check_errors(self.errors())

    def _check_points(self) -> Iterator[Finding]:
        if self.with_points and self.with_disparity and not self._ratios:
            yield Finding('no point is in the picture of its frame')
        if self._ratios and not (_POINT_RATIO[0] <= np.median(self._ratios) <= _POINT_RATIO[1]):
            yield Finding(f'points are at {np.median(self._ratios):.3g} times the depth that the '
                          f'disparity says (median); {_POINT_RATIO[0]:g} to {_POINT_RATIO[1]:g} '
                          'is plausible')


def _depth_ratios(frame: ClipFrame) -> np.ndarray:
    """Depth of points over that of the disparity, for those in the picture."""
    fx, fy, cx, cy = frame.intrinsics[0].tolist()
    x, y, z = frame.points.T.astype(np.float64)
    height, width = frame.disparity.shape
    column = np.floor((fx * x / z + cx) * width)
    row = np.floor((fy * y / z + cy) * height)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    return z[inside] * frame.disparity[row[inside].astype(int), column[inside].astype(int)]


def _check_errors(errors: WarpErrors | None) -> Iterator[Finding]:
    """Warping must be better than standing still, where there is motion."""
    if errors is None:
        return
    if errors.motion < _MIN_MOTION:
        yield Finding('the camera hardly moves, so disparity and poses cannot be compared',
                      fails=False)
        return
    if not errors.photometric < errors.static:
        yield Finding(f'warped pictures differ by {errors.photometric:.4f}, more than pictures '
                      f'that stand still ({errors.static:.4f}): disparity and poses do not '
                      'belong together')
    limit = float(np.clip(errors.static_disparity, *_DISPARITY_ERROR))
    if not errors.disparity <= limit:
        yield Finding(f'warped disparity differs by {errors.disparity:.1%} from that of the frame '
                      f'there; plausible is {limit:.1%}, for what stands still differs by '
                      f'{errors.static_disparity:.1%}')
