"""Photos: each one becomes a bag of one frame, level with its skyline, with estimated disparity."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
import csv
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib import resources
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

from infinite_nature_ros.camera import default_intrinsics, MIN_DISPARITY
from infinite_nature_ros.depth_sources import estimate_disparity
from infinite_nature_ros.photos import load_photo
from infinite_nature_ros.pixels import to_pixels
from infinite_nature_ros.skyline import detect_sky, level_with_skyline
from infinite_nature_training.bags import ClipError, ClipFrame, ClipInfo, ClipWriter
from infinite_nature_training.conversion import Job
from infinite_nature_training.sources.joining import IMAGE_SUFFIXES

HELD_OUT_PHOTOS = Path(str(resources.files('infinite_nature_training'))) / 'held_out.txt'
"""List of the photographs that nothing is ever trained on, as ``choose`` takes it."""

# tf takes 0 for the latest there is.
_STAMP = 10**9

# What Endless Sky puts behind the names of pictures of twice the resolution.
_HIGH_DPI = '@2x'


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

    def info(self, source: str, method: str, **facts: str | float) -> ClipInfo:
        """Facts of what was made of the photo; arguments as of ``ClipInfo``."""
        details = {key: value for key, value in (('author', self.author),
                                                 ('comment', self.comment)) if value}
        return ClipInfo(source=source, licence=self.licence, method=method, details=details,
                        **facts)


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
           leave_out: Sequence[Path] = ()) -> list[str]:
    """Choose among the names of photos.

    A name in a file of them (see ``read_names``) is a relative path, or bare: 'beach3' stands for
    beach3.jpg and beach3@2x.jpg in any folder.

    Args:
        names: relative paths.
        match: patterns as of a shell; a name that fits one of them is in.
        only: text file of names; others are out.
        leave_out: text files of names that are out. In all, bare names needn't be there: one list
            serves for any folder.

    Raises:
        ClipError: if a file names a photo that isn't there, or nothing is left.
        OSError: if a file can't be read.
    """
    names = list(names)
    wanted = set(names) if only is None else _listed(only, names)
    unwanted = {name for file in leave_out for name in _listed(file, names)}
    chosen = [name for name in names if any(fnmatch(name, pattern) for pattern in match)
              and name in wanted - unwanted]
    if not chosen:
        raise ClipError(f'none of the {len(names)} photos is left; choose others')
    return chosen


def _listed(file: Path, names: list[str]) -> set[str]:
    """Names that a file of names means."""
    found: dict[str, set[str]] = {name: {name} for name in names}
    for name in names:
        found.setdefault(bare_name(name), set()).add(name)
    listed = read_names(file)
    for line in sorted(listed - found.keys()):
        if line != bare_name(line):
            raise ClipError(f'{file} lists {line!r}, which is not among the photos')
    return {name for line in listed & found.keys() for name in found[line]}


def read_names(file: Path) -> set[str]:
    """Read a file of names: one a line, empty lines and those with # don't count.

    Raises:
        OSError: if it can't be read.
    """
    lines = (line.strip() for line in file.read_text(encoding='utf-8').splitlines())
    return {line for line in lines if line and not line.startswith('#')}


def bare_name(name: str) -> str:
    """Name of a photo without folder, suffix and the mark of high resolution."""
    path = PurePosixPath(name)
    stem = path.stem if path.suffix.lower() in IMAGE_SUFFIXES else path.name
    return stem.removesuffix(_HIGH_DPI)


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


def credited(photos: Mapping[str, Path], credits: Mapping[str, Credit], *, licence: str = '',
             licences: Collection[str] = ()) -> dict[str, Credit]:
    """Whose each photo is, of those that may be used.

    Args:
        photos: by their relative paths.
        credits: by relative paths, or by names of files.
        licence: of photos that nothing is said about.
        licences: leave out photos of others; empty: of none.

    Raises:
        ClipError: if no photo has one of the licences.
    """
    known = {name: credits.get(name) or credits.get(path.name) or Credit(licence)
             for name, path in photos.items()}
    allowed = {name: credit for name, credit in known.items()
               if not licences or credit.licence in licences}
    if not allowed:
        raise ClipError(f'no photo has the licence {" or ".join(licences)}')
    return allowed


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
    return [Job(Path(name).with_suffix('').as_posix(), (str(photos[name]), name, credit, options))
            for name, credit in credited(photos, credits, licence=licence,
                                         licences=licences).items()]


def disparity_under(sky: Tensor, image: Tensor, source: str) -> Tensor:
    """Disparity ``[B, 1, H, W]`` of photos from a source, far where the sky is above 0.5."""
    return torch.where(sky > 0.5, torch.full_like(sky, MIN_DISPARITY),
                       estimate_disparity(image, source, sky))


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
    disparity = disparity_under(sky, image, options.disparity)
    frame = ClipFrame(
        _STAMP, to_pixels(image)[0],
        level_with_skyline(image, intrinsics, sky).double(), intrinsics.double(),
        disparity[0, 0].numpy())
    info = credit.info(
        source, f'one photo; pose level with the skyline; disparity of {options.disparity}',
        split=options.split, scene_scale=options.scene_scale)
    with ClipWriter(folder / name, info) as writer:
        writer.add(frame)
    return [name]
