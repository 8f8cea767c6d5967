"""Crops: the committed list of real pictures that flights are compared with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
import csv
from dataclasses import astuple, dataclass, fields
import hashlib
from importlib import resources
from itertools import groupby
import math
import os
from pathlib import Path

import numpy as np
from PIL import Image
import torch
from torch import Tensor
from tqdm import tqdm

from infinite_nature_ros.photos import check_size, read_photo, resize_part
from infinite_nature_training.evaluation.networks import Inception
from infinite_nature_training.fetching import cache_folder

CROPS = Path(str(resources.files('infinite_nature_training'))) / 'evaluation' / 'crops.csv'
"""The list of crops of photographs that nothing is ever trained on (scripts/draw_crops.py)."""

# Wide to high, as 160 x 256 and 320 x 512 are.
_ASPECT = 1.6

# Heights as shares of the largest crop's, as training takes them (``PhotoDataset``).
_LEAST_SHARE = 0.5


@dataclass(frozen=True)
class Crop:
    """A part of a photo, in its pixels.

    Attributes:
        photo: name of the file.
        left: column of its left edge.
        top: row of its upper edge.
        width: in pixels.
        height: in pixels.
        mirrored: whether left and right are swapped.
    """

    photo: str
    left: int
    top: int
    width: int
    height: int
    mirrored: bool

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom."""
        return self.left, self.top, self.left + self.width, self.top + self.height


_COLUMNS = tuple(field.name for field in fields(Crop))


def draw_crops(photos: Iterable[tuple[str, int, int]], count: int, seed: int) -> list[Crop]:
    """Draw as many crops of each photo, with whatever they show, sky or none.

    Heights are drawn log-uniformly from half the largest crop's to all of it, places evenly; at
    random, half of the crops are mirrored.

    Args:
        photos: name, width and height of each.
        count: crops of one photo.
        seed: of the draws.
    """
    random = np.random.default_rng(seed)
    return [_draw(random, *photo) for photo in photos for _ in range(count)]


def _draw(random: np.random.Generator, photo: str, width: int, height: int) -> Crop:
    largest = min(height, width / _ASPECT)
    high = round(largest * math.exp(random.uniform(math.log(_LEAST_SHARE), 0)))
    wide = min(round(high * _ASPECT), width)
    return Crop(photo, int(random.integers(width - wide + 1)),
                int(random.integers(height - high + 1)), wide, high, bool(random.integers(2)))


def write_crops(crops: Iterable[Crop], file: str | Path) -> None:
    """Write a list of crops as a CSV file."""
    with Path(file).open('w', encoding='utf-8', newline='') as lines:
        writer = csv.writer(lines, lineterminator='\n')
        writer.writerow(_COLUMNS)
        writer.writerows((*astuple(crop)[:-1], int(crop.mirrored)) for crop in crops)


def read_crops(file: str | Path = CROPS) -> list[Crop]:
    """Read a list of crops.

    Raises:
        ValueError: if it is no such list.
        OSError: if it can't be read.
    """
    with Path(file).open(encoding='utf-8', newline='') as lines:
        rows = list(csv.reader(lines))
    if not rows or tuple(rows[0]) != _COLUMNS:
        raise ValueError(f'{file} is no list of crops; give a CSV file with the columns '
                         f'{", ".join(_COLUMNS)}')
    try:
        return [Crop(photo, *map(int, place), mirrored=bool(int(mirrored)))
                for photo, *place, mirrored in rows[1:]]
    except (TypeError, ValueError) as error:
        raise ValueError(f'{file} has a row that is no crop ({error}); draw the list anew with '
                         'scripts/draw_crops.py') from error


def iterate_crops(folder: str | Path, size: tuple[int, int],
                  crops: Sequence[Crop]) -> Iterator[Tensor]:
    """Cut crops out of their photos, averaged to size as the photos that flights start from.

    Args:
        folder: where the photos are.
        size: height and width, divisible by 32, of the crops' aspect ratio.
        crops: those of one photo side by side, or it is decoded again.

    Yields:
        ``[3, H, W]`` RGB in [0, 1].

    Raises:
        ValueError: if a photo is missing, or smaller than a crop needs it; for a size that
            doesn't divide by 32 or would squash the crops.
    """
    height, width = check_size(size)
    if abs(width / height / _ASPECT - 1) > 0.02:
        raise ValueError(f'size is {height} x {width}, crops are {_ASPECT} times as wide as high; '
                         'give 160 x 256, or a multiple')
    for photo, parts in groupby(crops, key=lambda crop: crop.photo):
        picture = read_photo(Path(folder) / photo)
        for crop in parts:
            yield _cut(picture, crop, height, width)


def _cut(picture: Image.Image, crop: Crop, height: int, width: int) -> Tensor:
    """One crop of a photo."""
    if crop.box[2] > picture.width or crop.box[3] > picture.height:
        raise ValueError(f'{crop.photo} is {picture.width} x {picture.height} pixels, the list '
                         f'of crops has one up to {crop.box[2:]}; give the photos that it was '
                         'drawn for (scripts/fetch_photos.py)')
    pixels = np.asarray(resize_part(picture, crop.box, height, width), dtype=np.float32) / 255
    part = torch.from_numpy(pixels).permute(2, 0, 1)
    return part.flip(2) if crop.mirrored else part


def features_of_crops(folder: str | Path, inception: Inception, size: tuple[int, int] = (160, 256),
                      crops: str | Path = CROPS, cache: str | Path | None = None) -> np.ndarray:
    """Describe all crops of a list; each photo's features are kept, and not made again.

    It takes a tenth of a second a crop on one core. What was broken off goes on where it stopped.

    Args:
        folder: where the photos are.
        inception: the network.
        size: height and width that the crops are brought to: that of the frames.
        crops: file of the list.
        cache: folder to keep them in, by list, network and size; ``None`` for the user's.

    Returns:
        ``[N, 2048]`` float32, in the order of the list.

    Raises:
        ValueError: as ``read_crops`` and ``iterate_crops`` do.
        OSError: if a file can't be read or written.
    """
    kept = Path(cache or cache_folder()) / _key(Path(crops), inception.name, size)
    kept.mkdir(parents=True, exist_ok=True)
    listed = read_crops(crops)
    features = []
    with tqdm(total=len(listed), desc='reference', unit='crop') as bar:
        for number, (_, parts) in enumerate(groupby(listed, key=lambda crop: crop.photo)):
            file, wanted = kept / f'{number:06d}.npy', list(parts)
            if not file.exists():
                device = next(inception.parameters()).device
                images = torch.stack(list(iterate_crops(folder, size, wanted))).to(device)
                _save(inception(images).cpu().numpy(), file)
            features.append(np.load(file))
            bar.update(len(wanted))
    return np.concatenate(features)


def crops_hash(file: str | Path = CROPS) -> str:
    """First digits of a list's SHA-256, to tell which one was compared with."""
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16]


def _key(crops: Path, network: str, size: tuple[int, int]) -> str:
    return f'crops-{crops_hash(crops)}-{network}-{size[0]}x{size[1]}'


def _save(array: np.ndarray, file: Path) -> None:
    """Write an array, whole or not at all."""
    partial = file.with_name(f'{file.name}.{os.getpid()}.partial')
    with partial.open('wb') as stream:
        np.save(stream, array)
    partial.replace(file)
