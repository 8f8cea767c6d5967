"""Datasets: sequences of posed RGB-D frames out of ACID bags, the same ones on any machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
import warnings

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from infinite_nature_ros.camera import pose_at, position
from infinite_nature_ros.parallel import Outcome, run_jobs
from infinite_nature_training.augmentation import Augmentation
from infinite_nature_training.bags.clip import ClipError, ClipInfo
from infinite_nature_training.bags.reader import find_clips, read_clip
from infinite_nature_training.camera_speed import CameraSpeed, FixedStride
from infinite_nature_training.clip_cache import CachedClip, ClipCache
from infinite_nature_training.epochs import EpochDataset

CLIP = 'clip_'
"""In front of names that tell of a sequence, in samples of photos that come with one."""

DEFAULT_SPEED = CameraSpeed()
DEFAULT_AUGMENTATION = Augmentation()


@dataclass(frozen=True)
class _Starts:
    """A clip's frames that sequences can start with, and their strides (``valid_strides``)."""

    path: Path
    clip: CachedClip
    frames: np.ndarray
    strides: np.ndarray

    @property
    def name(self) -> str:
        """Name of the bag."""
        return self.path.stem if self.path.is_file() else self.path.name


class SequenceDataset(EpochDataset):
    """Sequences of T + 1 frames, from every frame of the clips that one can start with.

    In each epoch every start frame comes once, with a stride and an augmentation drawn anew.
    """

    def __init__(self, bags: str | Path | Iterable[str | Path], *, steps: int = 5,
                 size: tuple[int, int] = (160, 256),
                 stride: CameraSpeed | int = DEFAULT_SPEED,
                 augmentation: Augmentation | None = DEFAULT_AUGMENTATION,
                 split: str | Sequence[str] | None = None, include: Sequence[str] = (),
                 exclude: Sequence[str] = (), frames: tuple[int, int | None] = (0, None),
                 disparity: str | None = None, shuffle: bool = True, seed: int = 0,
                 cache: str | Path | None = None, workers: int = 1, strict: bool = False) -> None:
        """Find the clips; those that aren't in the cache are decoded into it first.

        Args:
            bags: ACID bags and folders of them.
            steps: T, one less than the frames of a sequence.
            size: height and width; frames are cropped around their centres and averaged down.
            stride: range of camera speeds that strides are chosen for, or a stride in frames.
            augmentation: what is changed at random; ``None`` for nothing.
            split: only clips that say they are of it, or of one of these; ``None`` for all.
            include: only clips whose path ends in one of these patterns ('karma*', 'coast/*');
                none for all.
            exclude: no clips whose path ends in one of these patterns.
            frames: begin and end (exclusive, ``None`` for the clip's) of the frames used.
            disparity: source of disparity for frames without, as ``estimate_disparity`` takes it;
                ``None`` skips a clip that has such frames.
            shuffle: an order of its own for each epoch; otherwise always that of the clips.
            seed: draws order, strides and augmentation; at least 0.
            cache: folder of decoded clips (:class:`ClipCache`); ``None`` for the user's.
            workers: processes that decode clips into the cache; 1 for this one, 0 for one a core.
            strict: raise for a clip that can't be used, instead of skipping it with a warning.

        Raises:
            ClipError: if no clip can be used, or, with ``strict``, the first that can't.
            ValueError: for a setting that can't be.
        """
        if steps < 1:
            raise ValueError(f'steps is {steps}; give at least 1')
        super().__init__(shuffle=shuffle, seed=seed)
        self._steps = steps
        self._rule = FixedStride(stride) if isinstance(stride, int) else stride
        self._augmentation = augmentation
        self._window = frames
        self._strict = strict
        self.skipped: dict[str, str] = {}
        """Why clips aren't used, by path."""
        paths = find_clips([bags] if isinstance(bags, str | Path) else bags)
        chosen = [path for path in paths if (not include or _matches(path, include))
                  and not _matches(path, exclude)]
        splits = (split,) if isinstance(split, str) else split
        fetch = partial(_fetch, ClipCache(cache, size, disparity), splits)
        self._clips = [starts for path, clip in self._fetched(fetch, chosen, workers)
                       if (starts := self._starts(path, clip)) is not None]
        if not self._clips:
            raise ClipError(self._nothing(len(paths), len(chosen), splits))
        self._ends = np.cumsum([len(starts.frames) for starts in self._clips])

    @property
    def infos(self) -> dict[str, ClipInfo]:
        """Facts of the clips that are used, by path."""
        return {str(starts.path): starts.clip.info for starts in self._clips}

    def __len__(self) -> int:
        """Count the start frames: the sequences of an epoch."""
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Sample of a global index, 0 or more; those from ``len(self)`` on are of later epochs.

        Returns:
            A dictionary: image, uint8 ``[T + 1, 3, H, W]`` RGB; disparity, float16
            ``[T + 1, 1, H, W]`` in [0.01, 1]; pose, float64 ``[T + 1, 3, 4]`` world to camera, the
            world moved so that the first camera is at its origin; intrinsics, float64
            ``[T + 1, 4]``; frames, int64 ``[T + 1]``, which frames of the clip they are; clip,
            its name; index, the given one. A third of the bytes has to come from worker to
            trainer that way; there, :func:`to_float` makes batches of it as the core has them.

        Raises:
            IndexError: for a negative index.
        """
        number, random = self._draw(index)
        which = int(np.searchsorted(self._ends, number, side='right'))
        starts = self._clips[which]
        row = number - int(self._ends[which])  # counted from the clip's end
        stride = int(random.choice(np.flatnonzero(starts.strides[row]))) + 1
        first = int(starts.frames[row])
        frames = slice(first, first + self._steps * stride + 1, stride)
        sample = starts.clip.read(frames)
        if self._augmentation is not None:
            sample = self._augmentation.apply(sample, random)
        return sample | {'image': sample['image'].contiguous(), 'pose': _from_first(sample['pose']),
                         'frames': torch.arange(frames.start, frames.stop, stride),
                         'clip': starts.name, 'index': index}

    def _fetched(self, fetch: partial[CachedClip | None], paths: list[Path],
                 workers: int) -> list[tuple[Path, CachedClip]]:
        """Fetch the clips of the split; they come in the order of their paths."""
        outcomes = (_outcomes_here(fetch, paths) if workers == 1
                    else run_jobs(fetch, paths, workers=workers))
        clips = {}
        for outcome in tqdm(outcomes, 'clips', len(paths), unit='clip', leave=False, delay=1):
            if isinstance(outcome.error, ClipError):
                self._skip(outcome.job, outcome.error)
            elif outcome.error is not None:
                raise outcome.error
            elif outcome.result is not None:
                clips[outcome.job] = outcome.result
        return sorted(clips.items())

    def _starts(self, path: Path, clip: CachedClip) -> _Starts | None:
        """Start frames of a clip, or ``None`` if it has none."""
        begin, end, _ = slice(*self._window).indices(clip.frames)
        centres = position(clip.cameras()[0])[begin:end]
        strides = self._rule.valid_strides(centres, self._steps).numpy()
        frames = np.flatnonzero(strides.any(axis=1))
        if not len(frames):
            enough = len(centres) > self._steps
            self._skip(path, ClipError(
                f'{path}: {self._rule.explain(centres)}' if enough else
                f'{path} has {len(centres)} frame{"s" * (len(centres) != 1)} to use; '
                f'a sequence of {self._steps} steps needs {self._steps + 1}'))
            return None
        return _Starts(path, clip, begin + frames, strides[frames])

    def _skip(self, path: Path, error: ClipError) -> None:
        if self._strict:
            raise error
        warnings.warn(f'skipped: {error}', stacklevel=4)
        self.skipped[str(path)] = str(error)

    def _nothing(self, found: int, chosen: int, splits: Sequence[str] | None) -> str:
        """Why there is no sequence at all."""
        if not chosen:
            return f'none of {found} clips is of the wanted names'
        if not self.skipped:
            return (f'none of {chosen} clips is of split '
                    f'{" or ".join(map(repr, splits or ()))}')
        return f'no clip can be used; {next(iter(self.skipped.values()))}'


def to_float(batch: dict[str, Any], dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """Convert samples of a dataset, one or a batch, to what the core takes.

    Args:
        batch: as the dataset or its ``DataLoader`` yields it, on any device.
        dtype: of the result.

    Returns:
        The same with image ``[..., 3, H, W]`` and, where they are there, sky ``[..., 1, H, W]``
        and fine (``PhotoDataset``) in [0, 1], and disparity, pose and intrinsics, all of that
        type; those of clips that go with photos (``CLIP``) as well.
    """
    converted = {}
    for name, value in batch.items():
        kind = name.removeprefix(CLIP)
        if kind in ('disparity', 'pose', 'intrinsics'):
            converted[name] = value.to(dtype)
        elif kind in ('image', 'sky', 'fine'):
            converted[name] = value.to(dtype).div_(255)
    return batch | converted


def _fetch(cache: ClipCache, splits: Sequence[str] | None, bag: Path) -> CachedClip | None:
    """Clip of a bag, decoded into the cache if need be; ``None`` if it's of another split."""
    cached = cache.find(bag)
    if cached is None:
        clip = read_clip(bag)
        if splits is not None and clip.info.split not in splits:
            return None
        cached = cache.add(bag, clip)
    return cached if splits is None or cached.info.split in splits else None


def _outcomes_here(fetch: partial[CachedClip | None],
                   paths: Iterable[Path]) -> Iterator[Outcome[Path, CachedClip]]:
    """As ``run_jobs``, in this process: without the time that others need to start."""
    for path in paths:
        try:
            yield Outcome(path, fetch(path))
        except ClipError as error:
            yield Outcome(path, error=error)


def _matches(path: Path, patterns: Iterable[str]) -> bool:
    return any(path.match(pattern) for pattern in patterns)


def _from_first(pose: Tensor) -> Tensor:
    """Poses in a world moved so that the first camera is at its origin."""
    centre = position(pose)
    return pose_at(centre - centre[:1], pose[..., :3])
