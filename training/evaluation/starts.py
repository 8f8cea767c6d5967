"""Starts: the photos and clips that flights of an evaluation begin with, and where they lead.

The papers' protocol: a clip's own poses as far as there are real frames to compare with, then its
last motion again and again, then the autopilot; from a photo the autopilot alone. Clips whose
extrapolated flight would end inside the scene are not used.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
import math
from pathlib import Path
from typing import Any, Protocol
import zlib

import numpy as np
import torch
from torch import Tensor

from infinite_nature_ros import Autopilot, camera
from infinite_nature_ros.flight import Flight
from infinite_nature_ros.frame import Frame
from infinite_nature_ros.skyline import detect_sky
from infinite_nature_training.bags import ClipError, find_clips
from infinite_nature_training.camera_speed import CameraSpeed
from infinite_nature_training.datasets import SequenceDataset, to_float
from infinite_nature_training.evaluation.results import Settings
from infinite_nature_training.sources.joining import IMAGE_SUFFIXES
from infinite_nature_training.sources.photos import bare_name, choose, find_photos

COMPARED = 10
"""Frames of a clip that flights are compared with (paper, section 6.1)."""

# Angle between a clip's motion and its view that counts as forward (paper, section 6.1).
_FORWARD = math.radians(45)

# Swing of the autopilot's look target, as a share of the image's width, and steps of a period:
# the ranges that they are drawn from.
_SWINGS, _PERIODS = (0.05, 0.25), (80.0, 160.0)


@dataclass(frozen=True)
class Scene:
    """What a flight begins with.

    Attributes:
        frame: the start, a batch of 1.
        truth: ``[N, 3, H, W]`` the real frames 1 to N.
        poses: ``[M, 3, 4]`` of the frames 1 to M, where they are given.
    """

    frame: Frame
    truth: Tensor
    poses: Tensor


class Start(Protocol):
    """A photo or a clip; small enough to be sent to another process.

    Attributes:
        name: by which flights from it are known.
    """

    name: str

    def load(self, settings: Settings) -> Scene:
        """Read it at the size, and with the disparity and sky, of the settings.

        Raises:
            ValueError: if it can't be used.
        """


@dataclass(frozen=True)
class PhotoStart:
    """A photo, level with its skyline."""

    name: str
    path: Path

    def load(self, settings: Settings) -> Scene:
        """See ``Start``."""
        frame = Flight.from_photo(
            self.path, model='no-refine', size=settings.size, disparity=settings.disparity,
            sky=settings.sky, backend=settings.backend, device='cpu').start
        return Scene(frame, frame.image[:0], frame.pose[:0])


@dataclass(frozen=True, eq=False)
class ClipStart:
    """A sequence of a clip, sampled at the flights' speed, as ``SequenceDataset`` has it."""

    name: str
    sample: dict[str, Any]

    def load(self, settings: Settings) -> Scene:
        """See ``Start``."""
        sample = to_float(self.sample)
        image, disparity = sample['image'][:1], sample['disparity'][:1]
        poses = _ahead(extrapolate(self.sample['pose'], _led(settings))).float()
        frame = Frame(image, disparity, torch.ones_like(disparity), poses[:1],
                      sample['intrinsics'][:1], detect_sky(image) if settings.sky else None)
        return Scene(frame, sample['image'][1:], poses[1:])


class Route:
    """Pilot of a flight: the scene's own poses, and where they end an autopilot that swings.

    The swing of its look target, to the left or the right first, is drawn by the seed and the
    start's name: the same for all variants.
    """

    def __init__(self, poses: Tensor, intrinsics: Tensor, speed: float, draw: tuple[int, str]
                 ) -> None:
        """Plan it.

        Args:
            poses: ``[M, 3, 4]`` to fly first.
            intrinsics: ``[1, 4]`` of the frames.
            speed: of the autopilot, scene units a step.
            draw: seed and name of the start.
        """
        seed, name = draw
        random = np.random.default_rng((seed, zlib.crc32(name.encode())))
        swing = random.uniform(*_SWINGS) * random.choice([-1, 1])
        period = random.uniform(*_PERIODS)
        self._coming: Iterator[Tensor] = iter(poses[:, None])
        self._autopilot = Autopilot(intrinsics, speed=speed, meander_magnitude=(swing, 0.0),
                                    meander_period=(period, period))

    def next_pose(self, frame: Frame) -> Tensor:
        """``[1, 3, 4]`` to fly to from a frame."""
        pose = next(self._coming, None)
        return self._autopilot.next_pose(frame) if pose is None else pose.to(frame.pose)


def find_starts(sources: Sequence[Path], settings: Settings, *, names: Path | None = None,
                limit: int = 0) -> list[Start]:
    """Photos and sequences of clips that can be flown from.

    Args:
        sources: photos, bags, and folders of either.
        settings: of the run; ``starts`` isn't read.
        names: text file of photos (``sources.photos.choose``): others are out.
        limit: how many photos and how many sequences at most, spread evenly; 0: all photos, and
            a sequence of each clip.

    Raises:
        ClipError: if a source holds neither, or no clip can be flown from.
        ValueError: if two photos have one name, or photos and clips have.
        OSError: if a file can't be read.
    """
    photos: dict[str, Path] = {}
    bags: list[Path] = []
    for source in sources:
        if not source.exists():
            raise ClipError(f'{source} does not exist; give photos, bags, or folders of them')
        if source.suffix.lower() in IMAGE_SUFFIXES:
            found = {source.name: source}
        elif _holds_clips(source):
            bags.append(source)
            continue
        else:
            found = find_photos(source)
        for name in found.keys() & photos.keys():
            raise ValueError(f'{found[name]} and {photos[name]} have one name; give the folder '
                             'above both')
        photos |= found
    chosen = choose(photos, only=names) if photos else []
    starts: list[Start] = [PhotoStart(_file_name(bare_name(name)), photos[name])
                           for name in _spread(chosen, limit)]
    starts += find_sequences(bags, settings, limit) if bags else []
    for name, count in Counter(start.name for start in starts).items():
        if count > 1:
            raise ValueError(f'{count} starts are named {name!r}; leave out all but one of them')
    return starts


def find_sequences(bags: Sequence[Path], settings: Settings, limit: int = 0) -> list[ClipStart]:
    """Sequences of clips that fly forward and whose motion can be gone on with.

    Clips take turns, in an order that is always the same; those whose turn doesn't come aren't
    decoded.

    Args:
        bags: ACID bags and folders of them.
        settings: of the run.
        limit: how many at most; 0: one of each clip.

    Raises:
        ClipError: if there is none.
    """
    paths = find_clips(bags)
    reasons: Counter[str] = Counter()
    waiting = deque(_sequences_of(paths[number], settings, reasons)
                    for number in np.random.default_rng(0).permutation(len(paths)))
    starts: list[ClipStart] = []
    while waiting and not 0 < limit <= len(starts):
        sequences = waiting.popleft()
        start = next(sequences, None)
        if start is not None:
            starts.append(start)
            if limit:
                waiting.append(sequences)
    if not starts:
        found = '; '.join(f'{count} times: {reason}' for reason, count in reasons.most_common(3))
        raise ClipError(f'no clip has a sequence that can be flown on from ({found})')
    return sorted(starts, key=lambda start: start.name)


def _sequences_of(bag: Path, settings: Settings, reasons: Counter[str]) -> Iterator[ClipStart]:
    """Yield what can be flown from of a clip, in any order; count why the rest can't."""
    try:
        samples = SequenceDataset(
            [bag], steps=min(COMPARED, settings.frames), size=settings.size,
            stride=CameraSpeed(settings.speed), augmentation=None, disparity=settings.disparity,
            shuffle=False)
    except ClipError as error:
        reasons[str(error)] += 1
        return
    # Neighbouring sequences look alike.
    for index in np.random.default_rng(0).permutation(len(samples)):
        sample = samples[int(index)]
        reason = why_not(to_float(sample, torch.float64), _led(settings))
        if reason:
            reasons[reason] += 1
        else:
            yield ClipStart(_file_name(f'{sample["clip"]}-{sample["frames"][0]:04}'), sample)


def why_not(sample: dict[str, Tensor], frames: int) -> str:
    """Why the paper's protocol leaves a sequence out; '' if it doesn't (paper, section 6.1).

    Args:
        sample: of a ``SequenceDataset``, as floats.
        frames: number of the last frame whose pose is given or extrapolated.
    """
    poses = sample['pose']
    steps = camera.position(poses).diff(dim=0)
    along = (steps * poses[:-1, 2, :3]).sum(1) / steps.norm(dim=1)
    if (along < math.cos(_FORWARD)).any():
        return f'the camera does not fly forward, within {math.degrees(_FORWARD):g} degrees'
    end = camera.position(extrapolate(poses, frames)[-1:])
    seen = poses[-1, :, :3] @ end[0] + poses[-1, :, 3]
    place = seen[:2] / seen[2] * sample['intrinsics'][-1, :2] + sample['intrinsics'][-1, 2:]
    if seen[2] <= 0 or not ((place >= 0) & (place < 1)).all():
        return f'frame {frames} would be taken from outside the last real frame'
    disparity = sample['disparity'][-1, 0]
    column, row = (place * place.new_tensor(disparity.shape[::-1])).long().tolist()
    if seen[2] * disparity[row, column] >= 1:
        return f'frame {frames} would be taken from inside the scene'
    return ''


def extrapolate(poses: Tensor, last: int) -> Tensor:
    """Go on with the motion between the last two poses.

    Args:
        poses: ``[N + 1, 3, 4]`` world to camera of the frames 0 to N, N at least 1.
        last: number of the last frame that is wanted; given poses are never cut.

    Returns:
        ``[max(N, last) + 1, 3, 4]``.
    """
    flown = list(poses.split(1))
    motion = camera.relative_pose(*flown[-2:])
    while len(flown) <= last:
        flown.append(camera.compose(motion, flown[-1]))
    return torch.cat(flown)


def _ahead(poses: Tensor) -> Tensor:
    """Poses in a world turned so that the first camera heads along its Z axis, as photos' do.

    The dome of the sky is told of there, and nowhere else (``sky.SkyDome``).
    """
    x, _, z = poses[0, 2, :3] / torch.hypot(poses[0, 2, 0], poses[0, 2, 2])
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    turn = torch.stack([z, zero, x, zero, zero, one, zero, zero, -x, zero, z, zero])
    return camera.compose(poses, turn.reshape(1, 3, 4).expand_as(poses))


def _led(settings: Settings) -> int:
    """Last frame of a clip's flight that the autopilot doesn't choose."""
    return max(min(COMPARED, settings.frames), min(settings.extrapolated, settings.frames))


def _holds_clips(source: Path) -> bool:
    """Whether there are bags at or below a path; what is a file is taken for one."""
    try:
        return bool(find_clips([source]))
    except ClipError:
        return False


def _spread(names: Sequence[str], limit: int) -> list[str]:
    """At most so many of the names, evenly spaced."""
    count = min(limit, len(names)) if limit else len(names)
    return [names[place * len(names) // count] for place in range(count)]


def _file_name(name: str) -> str:
    """Name without what doesn't belong into names of files."""
    return ''.join(letter if letter.isalnum() or letter in '.+-' else '-' for letter in name)
