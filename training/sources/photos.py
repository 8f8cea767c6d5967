"""Photos: each one becomes a bag of one frame, level with its skyline, with estimated disparity."""

from __future__ import annotations

from collections.abc import Collection, Iterable
import csv
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import torch

from infinite_nature_ros.camera import default_intrinsics, MIN_DISPARITY
from infinite_nature_ros.depth_sources import estimate_disparity
from infinite_nature_ros.photos import load_photo
from infinite_nature_ros.skyline import detect_sky, level_with_skyline
from infinite_nature_training.bags import ClipError, ClipFrame, ClipInfo, ClipWriter
from infinite_nature_training.conversion import Job
from infinite_nature_training.sources.joining import IMAGE_SUFFIXES

# tf takes 0 for the latest there is.
_STAMP = 10**9


@dataclass(frozen=True)
class PhotoOptions:
    """How photos become bags; see ``infinite-nature bag from-photos --help``."""

    height: int = 320
    width: int = 512
    fov: float = 0.0
    disparity: str = 'auto'
    split: str = ''
    scene_scale: float = 1.0


@dataclass(frozen=True)
class Credit:
    """Whose a photo is."""

    licence: str = ''
    author: str = ''
    comment: str = ''


def find_photos(folder: Path) -> dict[str, Path]:
    """Photos in a folder and below, by their relative paths.

    Raises:
        ClipError: if there are none.
    """
    photos = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob('*'))
              if path.suffix.lower() in IMAGE_SUFFIXES}
    if not photos:
        raise ClipError(f'{folder} holds no photos; give a folder with some '
                        f'({", ".join(IMAGE_SUFFIXES)})')
    return photos


def choose(names: Iterable[str], *, match: Iterable[str] = ('*',), only: Path | None = None,
           leave_out: Path | None = None) -> list[str]:
    """Choose among the names of photos.

    Args:
        names: relative paths.
        match: patterns as of a shell; a name that fits one of them is in.
        only: text file with a name a line; others are out.
        leave_out: text file of names that are out.

    Raises:
        ClipError: if a file names a photo that isn't there, or nothing is left.
        OSError: if a file can't be read.
    """
    names = list(names)
    wanted, unwanted = (None if file is None else _read_names(file, names)
                        for file in (only, leave_out))
    chosen = [name for name in names if any(fnmatch(name, pattern) for pattern in match)
              and (wanted is None or name in wanted) and name not in (unwanted or ())]
    if not chosen:
        raise ClipError(f'none of the {len(names)} photos is left; choose others')
    return chosen


def _read_names(file: Path, names: list[str]) -> set[str]:
    listed = set(file.read_text(encoding='utf-8').split('\n')) - {''}
    for name in sorted(listed.difference(names)):
        raise ClipError(f'{file} lists {name!r}, which is not among the photos')
    return listed


def read_credits(file: Path) -> dict[str, Credit]:
    """Read a CSV file about photos: columns file (or path), licence, author and comment.

    Raises:
        ClipError: if it has no column of names, or none of licences.
        OSError: if it can't be read.
    """
    with file.open(encoding='utf-8-sig', newline='') as lines:
        rows = list(csv.DictReader(lines))
    columns = set(rows[0]) if rows else set()
    key = next((name for name in ('file', 'path') if name in columns), None)
    if key is None or 'licence' not in columns:
        raise ClipError(f'{file} has the columns {sorted(columns)}; give file and licence, and '
                        'author and comment if you like')
    return {row[key]: Credit(row['licence'] or '', row.get('author') or '',
                             row.get('comment') or '') for row in rows}


def photo_jobs(photos: dict[str, Path], credits: dict[str, Credit], options: PhotoOptions, *,
               licence: str = '', licences: Collection[str] = ()) -> list[Job]:
    """Jobs for :func:`convert`.

    Args:
        photos: by their relative paths.
        credits: by relative paths, or by names of files.
        options: for all photos.
        licence: of photos that nothing is said about.
        licences: leave out photos of others; empty: of none.

    Raises:
        ClipError: if no photo has one of the licences.
    """
    unknown, jobs = Credit(licence), []
    for name, path in photos.items():
        credit = credits.get(name) or credits.get(path.name) or unknown
        if not licences or credit.licence in licences:
            bag = Path(name).with_suffix('').as_posix()
            jobs.append(Job(bag, (str(path), name, credit, options)))
    if not jobs:
        raise ClipError(f'no photo has the licence {" or ".join(licences)}')
    return jobs


def make_bag(folder: Path, name: str, path: str, source: str, credit: Credit,
             options: PhotoOptions) -> list[str]:
    """Make the bag of a photo; for :func:`convert`.

    Args:
        folder: where the bag goes.
        name: of the bag below it.
        path: of the photo.
        source: as in ``ClipInfo``.
        credit: whose it is.
        options: as of the command.

    Returns:
        The name.

    Raises:
        ValueError: if the photo can't be used; it says why.
    """
    image = load_photo(path, (options.height, options.width))
    intrinsics = default_intrinsics(options.height, options.width, options.fov or None)
    sky = detect_sky(image)
    disparity = torch.where(sky > 0.5, torch.full_like(sky, MIN_DISPARITY),
                            estimate_disparity(image, options.disparity))
    pixels = (image[0].permute(1, 2, 0) * 255).round().to(torch.uint8)
    frame = ClipFrame(
        _STAMP, np.ascontiguousarray(pixels.numpy()),
        level_with_skyline(image, intrinsics, sky).double(), intrinsics.double(),
        disparity[0, 0].numpy())
    info = ClipInfo(
        source=source, licence=credit.licence, split=options.split,
        scene_scale=options.scene_scale,
        method=f'one photo; pose level with the skyline; disparity of {options.disparity}',
        details={key: value for key, value in (('author', credit.author),
                                               ('comment', credit.comment)) if value})
    with ClipWriter(folder / name, info) as writer:
        writer.add(frame)
    return [name]
