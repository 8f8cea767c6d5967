"""Joining: pictures for wanted times, from a folder of image files or from a video."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
import re
from typing import TypeVar

import numpy as np

from infinite_nature_training.bags import ClipError
from infinite_nature_training.sources.video.decoding import read_frames

IMAGE_SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')
"""What counts as a picture in a folder."""

_NANOSECONDS_PER_MICROSECOND = 1000
# Where a key frame's own time is a little off, seeking to just before still finds it.
_SEEK_MARGIN = 10**9

T = TypeVar('T')


@dataclass(frozen=True)
class Joined:
    """Pictures that were found for wanted times.

    Attributes:
        pictures: number of the wanted time and the picture, in order: a file, or uint8
            ``[H, W, 3]`` RGB. They are read as the iterator goes.
        how: by what they were found, in words.
    """

    pictures: Iterator[tuple[int, Path | np.ndarray]]
    how: str


def list_pictures(folder: Path) -> list[Path]:
    """Image files of a folder by name, and none below."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)


def join(source: Path, times: Sequence[int], slop: int, rate: float = 0) -> Joined:
    """Find the pictures that were taken at given times.

    A picture and a time belong together where each is the nearest to the other.

    Args:
        source: a video, or a folder whose pictures are named by microseconds, or numbered from 0
            or 1 at a rate, or as many as there are times, in their order.
        times: nanoseconds in the source's own time, increasing.
        slop: nanoseconds that a picture may be off.
        rate: numbered pictures a second; 0 if the names are no such numbers.

    Raises:
        ClipError: if there are no pictures there, or the video can't be decoded, which may come
            only as the pictures do.
    """
    if not source.is_dir():
        pictures = nearest(_video_frames(source, times[0] - slop, times[-1] + slop), times, slop)
        return Joined(pictures, f'nearest frame of the video within {slop / 1e6:g} ms')
    files = _numbered(source)
    if rate:
        first = min(min(files), 1)
        stamped = {round((number - first) / rate * 10**9): path for number, path in files.items()}
        found = list(nearest(sorted(stamped.items()), times, slop))
        return Joined(iter(found), f'nearest picture at {rate:g} a second within '
                                   f'{slop / 1e6:g} ms')
    stamped = {number * _NANOSECONDS_PER_MICROSECOND: path for number, path in files.items()}
    found = list(nearest(sorted(stamped.items()), times, slop))
    if not found and len(files) == len(times):
        return Joined(enumerate(path for _, path in sorted(files.items())),
                      'pictures in the order of their numbers, as many as poses')
    if not found:
        raise ClipError(
            f'none of the {len(files)} pictures in {source.name}, as '
            f'{next(iter(files.values())).name}, is named by the microseconds of a pose '
            f'({times[0] // 1000} to {times[-1] // 1000}); if they are numbered, say how many a '
            'second with --rate')
    return Joined(iter(found), f'picture named by the nearest time within {slop / 1e6:g} ms')


def nearest(stamped: Iterable[tuple[int, T]], times: Sequence[int],
            slop: int) -> Iterator[tuple[int, T]]:
    """Yield pairs of a time's number and what has the nearest stamp, where that holds both ways.

    Args:
        stamped: stamps and what has them, in order.
        times: wanted, increasing.
        slop: largest difference.
    """
    held: tuple[int, int, T] | None = None
    for stamp, thing in stamped:
        after = bisect_left(times, stamp)
        index = min((number for number in (after - 1, after) if 0 <= number < len(times)),
                    key=lambda number: abs(times[number] - stamp))
        distance = abs(times[index] - stamp)
        if distance > slop:
            continue
        if held is not None and held[0] != index:
            yield held[0], held[2]
            held = None
        if held is None or distance < held[1]:
            held = index, distance, thing
    if held is not None:
        yield held[0], held[2]


def _numbered(folder: Path) -> dict[int, Path]:
    """Pictures by the last number in their names."""
    files = {}
    for path in list_pictures(folder):
        numbers = re.findall(r'\d+', path.stem)
        if numbers:
            files[int(numbers[-1])] = path
    if not files:
        raise ClipError(f'{folder.name} holds no pictures with a number in their names; they are '
                        'named by their time in microseconds, as 52553000.jpg')
    return files


def _video_frames(path: Path, start: int, end: int) -> Iterator[tuple[int, np.ndarray]]:
    """Frames and their times, from the key frame before the start up to the end."""
    sought = max(start - _SEEK_MARGIN, 0)
    frames = read_frames(path, start=sought)
    first = next(frames, None)
    # Some files' indexes lead too far.
    if sought and (first is None or first.stamp > start):
        frames.close()
        frames = read_frames(path)
        first = next(frames, None)
    with closing(frames):
        for frame in chain([] if first is None else [first], frames):
            if frame.stamp > end:
                return
            yield frame.stamp, frame.image
