"""What the sky detector learns from: pieces of photos with sky masks, changed in many ways."""

from __future__ import annotations

from collections.abc import Sequence
import csv
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from infinite_nature_ros.sky_network import tidy
from infinite_nature_training.augmentation import colour_matrix
from infinite_nature_training.sources.photos import bare_name, read_credits, read_names

# Photos are kept at this size, height and width.
_KEPT = (360, 720)

# Shares of the samples: a made-up picture, another photo's sky put in, land alone, sky alone, a
# piece about as large as a flight takes.
_MADE_UP, _OTHER_SKY, _LAND_ALONE, _SKY_ALONE, _LARGE = 0.06, 0.3, 0.07, 0.05, 0.5

# Pieces are at least this share of a photo's height; squeezed by at most this, as a logarithm.
_SMALLEST_PIECE, _LARGEST_PIECE, _SQUEEZE = 0.4, 0.85, 0.2
_LARGEST_TURN = 4.0  # degrees


@dataclass(frozen=True)
class SkyPhoto:
    """A photo and its sky.

    Attributes:
        name: of its file, without the ending.
        licence: as the credits say.
        image: uint8 ``[360, 720, 3]`` RGB.
        sky: uint8 ``[360, 720]``, 255 in the sky.
    """

    name: str
    licence: str
    image: np.ndarray
    sky: np.ndarray


def read_faults(masks: Path) -> dict[str, str]:
    """Read what is wrong with each photo's mask, '' where nothing is, by the photo's name.

    Args:
        masks: folder with sky.csv, columns file (of the mask) and fault.
    """
    with (masks / 'sky.csv').open(newline='', encoding='utf-8') as file:
        return {Path(row['file']).stem: row['fault'] for row in csv.DictReader(file)}


def read_photos(photos: Path, masks: Path, credits: Path, held_out: Path,
                licences: Sequence[str]) -> list[SkyPhoto]:
    """Read the photos that may be learnt from: listed, free, not held out, with a good mask.

    Args:
        photos: folder of the photos.
        masks: folder of their masks, PNGs of the same names, with sky.csv.
        credits: CSV with columns file and licence.
        held_out: names that are left out, a line each.
        licences: those that will do.

    Raises:
        ValueError: if none is left, or a photo or mask can't be read.
        OSError: if a list can't be read.
    """
    left_out, faults = read_names(held_out), read_faults(masks)
    found = [_read_photo(photos / name, masks, credit.licence)
             for name, credit in sorted(read_credits(credits).items())
             if credit.licence in licences and bare_name(name) not in left_out
             and faults.get(Path(name).stem) == '']
    if not found:
        raise ValueError(f'{credits} lists no photo with a mask in {masks} that is under '
                         f'{" or ".join(licences)} and not in {held_out}')
    return found


def _read_photo(path: Path, masks: Path, licence: str) -> SkyPhoto:
    image, sky = cv2.imread(str(path)), cv2.imread(str(masks / f'{path.stem}.png'), 0)
    if image is None or sky is None:
        raise ValueError(f'{path} or its mask in {masks} is missing or no picture')
    image, sky = (cv2.resize(picture, _KEPT[::-1], interpolation=cv2.INTER_AREA)
                  for picture in (image, sky))
    sky = tidy(sky > 127).astype(np.uint8) * 255
    return SkyPhoto(path.stem, licence, cv2.cvtColor(image, cv2.COLOR_BGR2RGB), sky)


def draw_sample(photos: Sequence[SkyPhoto], size: tuple[int, int],
                random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw a picture to learn from: uint8 ``[H, W, 3]`` RGB, and its sky ``[H, W]``, 255 there."""
    if random.random() < _MADE_UP:
        image, sky = _make_up(size, random)
    else:
        photo = photos[random.integers(len(photos))]
        if random.random() < _OTHER_SKY:
            photo = _exchange_sky(photo, photos[random.integers(len(photos))])
        image, sky = _turn(*_cut_out(photo, size, random), random)
    if random.random() < 0.5:
        image, sky = image[:, ::-1], sky[:, ::-1]
    return _spoil(_recolour(np.ascontiguousarray(image), random), random), sky


def _exchange_sky(photo: SkyPhoto, other: SkyPhoto) -> SkyPhoto:
    """Put the sky of another photo, as far as it is whole, above the land of this one."""
    whole = rows_of_sky_alone(other.sky)
    lowest = rows_with_sky(photo.sky)
    if whole < 0.1 * len(other.sky) or not lowest:
        return photo
    sky = cv2.resize(other.image[:whole], (photo.sky.shape[1], lowest))
    matte = cv2.GaussianBlur(photo.sky, (0, 0), 1.0)[:lowest, :, None] / 255
    image = photo.image.copy()
    image[:lowest] = np.round(matte * sky + (1 - matte) * image[:lowest])
    return replace(photo, image=image)


def rows_of_sky_alone(sky: np.ndarray) -> int:
    """How many rows from the top have no land."""
    return int((sky > 127).all(1).cumprod().sum())


def rows_with_sky(sky: np.ndarray) -> int:
    """Row below which there is no sky."""
    rows = np.flatnonzero((sky > 127).any(1))
    return int(rows[-1]) + 1 if len(rows) else 0


def _cut_out(photo: SkyPhoto, size: tuple[int, int],
             random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Cut a piece out of a photo, somewhat squeezed, and bring it to size."""
    kept_height, kept_width = photo.sky.shape
    first, last = 0, kept_height
    kind = random.random()
    if kind < _LAND_ALONE:
        first = rows_with_sky(photo.sky)
    elif kind < _LAND_ALONE + _SKY_ALONE:
        last = rows_of_sky_alone(photo.sky)
    if last - first < kept_height / 5:
        first, last = 0, kept_height
    least = _LARGEST_PIECE if random.random() < _LARGE else _SMALLEST_PIECE
    aspect = size[1] / size[0] * np.exp(random.uniform(-_SQUEEZE, _SQUEEZE))
    height = min((last - first) * random.uniform(least, 1), kept_width / aspect)
    width = height * aspect
    top, left = first + (last - first - height) * random.random(), random.random() * (
        kept_width - width)
    rows = slice(round(top), max(round(top + height), round(top) + 1))
    columns = slice(round(left), round(left + width))
    method = cv2.INTER_AREA if height > size[0] else cv2.INTER_LINEAR
    return (cv2.resize(photo.image[rows, columns], size[::-1], interpolation=method),
            cv2.resize(photo.sky[rows, columns], size[::-1], interpolation=method))


def _turn(image: np.ndarray, sky: np.ndarray,
          random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Turn a quarter of the pictures by some degrees, without a margin."""
    if random.random() > 0.25:
        return image, sky
    height, width = sky.shape
    degrees = random.uniform(-_LARGEST_TURN, _LARGEST_TURN)
    angle = abs(np.deg2rad(degrees))
    scale = np.cos(angle) + max(width / height, height / width) * np.sin(angle)
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, scale)
    return (cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE),
            cv2.warpAffine(sky, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE))


def _recolour(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Change exposure and colours, and lay haze over some pictures."""
    brightness, contrast = np.exp(random.uniform(-0.4, 0.4, 2))
    saturation = 0.0 if random.random() < 0.06 else random.uniform(0.4, 1.6)
    colours = colour_matrix(brightness, contrast, saturation, random.normal(0, 0.04))
    colours[:, :3] *= np.exp(random.normal(0, 0.08, (3, 1)))
    image = cv2.transform(image, colours * (1, 1, 1, 255))
    if random.random() < 0.4:
        curve = 255 * (np.arange(256) / 255) ** np.exp(random.uniform(-0.5, 0.5))
        image = cv2.LUT(image, curve.round().astype(np.uint8))
    if random.random() < 0.15:
        image = _haze(image, random)
    return image


def _haze(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Lay a pale colour over a picture, thickest at some row."""
    rows = np.linspace(0, 1, len(image))
    distance = np.abs(rows - random.uniform(0.1, 0.9)) / random.uniform(0.2, 1.5)
    share = (random.uniform(0.1, 0.5) * np.exp(-distance))[:, None, None]
    colour = random.uniform(130, 255) * np.exp(random.normal(0, 0.08, 3))
    return np.clip(image * (1 - share) + colour * share, 0, 255).astype(np.uint8)


def _spoil(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Blur, noise and JPEG artefacts, each in some pictures."""
    if random.random() < 0.15:
        image = cv2.GaussianBlur(image, (0, 0), random.uniform(0.4, 1.5))
    if random.random() < 0.2:
        noise = random.standard_normal(image.shape, np.float32) * random.uniform(1, 12)
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
    if random.random() < 0.25:
        quality = int(random.integers(25, 95))
        _, code = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, quality])
        image = cv2.imdecode(code, cv2.IMREAD_COLOR)
    return image


def _make_up(size: tuple[int, int],
             random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Make a picture up: a smooth sky, rough land below a line, sometimes a lake like the sky."""
    height, width = size
    rows, columns = (np.arange(height)[:, None] + 0.5) / height, np.arange(width) / width
    relief = random.choice([0, 0, 0.05, 0.2]) * np.abs(
        np.sin(random.uniform(2, 15) * columns + random.uniform(0, 6)))
    sky = rows < random.uniform(-0.2, 1.0) - relief
    above = random.uniform(80, 250, 3) + random.uniform(-50, 50) * rows[..., None]
    above = above + np.zeros((1, width, 1))
    grain = cv2.resize(random.standard_normal((height // 2, width // 2)), (width, height))
    below = random.uniform(10, 150, 3) + random.uniform(6, 25) * (
        random.standard_normal(size) + grain)[..., None]
    image = np.where(sky[..., None], above, below)
    if random.random() < 0.4:
        top, left = int(random.uniform(0.5, 0.8) * height), random.integers(width)
        place = np.s_[top:top + random.integers(height // 4), left:left + width // 2]
        image[place] = np.where(sky[place][..., None], image[place], above[0, 0])
    if random.random() < 0.4:
        top, left = random.integers(height // 2), random.integers(width)
        place = np.s_[top:top + 8, left:left + width // 6]
        image[place] = np.where(sky[place][..., None], random.uniform(0, 255), image[place])
    return np.clip(image, 0, 255).astype(np.uint8), sky.astype(np.uint8) * 255
