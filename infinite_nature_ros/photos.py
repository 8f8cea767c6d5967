"""Photos of every kind to image tensors, and the sample photos that ship with the package."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
import torch
from torch import Tensor

from infinite_nature_ros.pixels import from_pixels

MIN_SIDE = 64
"""Shorter sides than this, in pixels, are refused."""

MAX_PIXELS = 120_000_000
"""Larger photos are refused: a small file can hold gigabytes of pixels."""

DEFAULT_SAMPLE = 'valley'
"""The sample photo that flies when nobody names another."""

# Transparent parts are shown on white, as browsers and viewers do.
_PAPER = (255, 255, 255)


def load_photo(source: Any, size: tuple[int, int] = (160, 256)) -> Tensor:
    """Read a photo as the first image of a flight.

    The photo is turned upright as its EXIF orientation says, cropped around its centre to the
    wanted aspect ratio (never squashed) and averaged down. Grey, palette, CMYK and 16-bit
    pictures become RGB; transparency is laid on white.

    Args:
        source: a path, the bytes of an image file, a PIL image, or a NumPy array ``[H, W]`` or
            ``[H, W, 1, 3 or 4]`` (uint8, uint16, or floating point in [0, 1]; RGB order).
        size: height and width of the result, divisible by 32.

    Returns:
        ``[1, 3, H, W]`` RGB in [0, 1].

    Raises:
        ValueError: for a size that doesn't divide by 32, and for a photo that is missing, empty,
            corrupt, not an image, smaller than 64 pixels on a side, or beyond 120 megapixels.
    """
    height, width = check_size(size)
    small = crop_and_resize(read_photo(source), height, width)
    return from_pixels(np.array(small))[None].contiguous()


def read_photo(source: Any) -> Image.Image:
    """Read a whole photo, upright and in 8-bit RGB, whatever it was.

    Args:
        source: as ``load_photo`` takes it.

    Raises:
        ValueError: as ``load_photo`` does for a photo.
    """
    name = _describe(source)
    picture = _open(source, name)
    _check_dimensions(picture, name)
    with _explaining(name):
        picture = ImageOps.exif_transpose(picture)
    return _to_rgb(picture)


def check_photo(path: str | Path) -> None:
    """Refuse what can't be a photo by the head of its file; pixels are not decoded.

    Raises:
        ValueError: as ``load_photo`` does, but for damage further on in the file.
    """
    name = _describe(path)
    with _explaining(name):
        picture = Image.open(path)
    with picture:
        _check_dimensions(picture, name)


def crop_and_resize(picture: Image.Image, height: int, width: int) -> Image.Image:
    """Crop a picture around its centre to an aspect ratio, and bring it to size by averaging.

    Enlarging interpolates linearly instead. Works for all modes that Pillow can resample, 'F'
    among them.
    """
    across, down = crop_shares(picture.height, picture.width, height, width)
    crop_width, crop_height = across * picture.width, down * picture.height
    left, top = (picture.width - crop_width) / 2, (picture.height - crop_height) / 2
    return resize_part(picture, (left, top, left + crop_width, top + crop_height), height, width)


def resize_part(picture: Image.Image, box: tuple[float, float, float, float], height: int,
                width: int) -> Image.Image:
    """Bring a part of a picture to size by averaging; where that enlarges it, interpolate.

    Args:
        picture: of any mode that Pillow can resample.
        box: left, top, right and bottom in pixels, fractions allowed.
        height: of the result.
        width: of the result.
    """
    shrinks = box[2] - box[0] >= width
    method = Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR
    return picture.resize((width, height), method, box=box)


def crop_intrinsics(intrinsics: Tensor, source_size: tuple[int, int],
                    size: tuple[int, int]) -> Tensor:
    """Intrinsics of a picture that ``crop_and_resize`` made.

    Args:
        intrinsics: ``[B, 4]`` of the whole picture, normalised.
        source_size: height and width of that picture.
        size: height and width of what was made of it.

    Returns:
        ``[B, 4]``.
    """
    shares = intrinsics.new_tensor(crop_shares(*source_size, *size))
    focal, centre = intrinsics[:, :2] / shares, (intrinsics[:, 2:] - 0.5) / shares + 0.5
    return torch.cat([focal, centre], dim=1)


def crop_shares(source_height: int, source_width: int, height: int,
                width: int) -> tuple[float, float]:
    """Shares of a picture's width and height that the largest crop to an aspect ratio leaves."""
    return (min(1.0, source_height * width / height / source_width),
            min(1.0, source_width * height / width / source_height))


def sample_photos() -> dict[str, Path]:
    """Bundled photos by name; all are public domain (``assets/photos/credits.csv``)."""
    folder = Path(str(resources.files('infinite_nature_ros'))) / 'assets' / 'photos'
    return {path.stem: path for path in sorted(folder.glob('*.jpg'))}


def default_photo() -> Path:
    """Path of the sample photo that flies when nobody names another."""
    return sample_photos()[DEFAULT_SAMPLE]


def find_photo(name: str) -> Path:
    """Photo that a user means by a sample's name, a path, or nothing (the default sample)."""
    if not name:
        return default_photo()
    return sample_photos().get(name, Path(name))


def check_size(size: tuple[int, int]) -> tuple[int, int]:
    """Return a size of images, height and width, if flights and networks can use it.

    Raises:
        ValueError: if it isn't made of positive multiples of 32.
    """
    height, width = size
    if height <= 0 or width <= 0 or height % 32 or width % 32:
        raise ValueError(f'size is {height} x {width}; '
                         'give a height and a width that are multiples of 32')
    return height, width


def _describe(source: Any) -> str:
    """Name of a source in messages."""
    if isinstance(source, bytes | bytearray):
        return f'the photo ({len(source)} bytes)'
    if isinstance(source, str | Path):
        return f'photo {str(source)!r}'
    return f'the photo ({type(source).__name__})'


@contextmanager
def _explaining(name: str) -> Iterator[None]:
    """Turn what Pillow raises about a file into a ValueError that says what to do."""
    try:
        yield
    except Image.DecompressionBombError as error:
        raise ValueError(_too_large(name)) from error
    except Image.UnidentifiedImageError as error:
        raise ValueError(f'{name} is not an image that can be read; '
                         'give a JPEG, PNG, TIFF or WebP file') from error
    # Damaged files surface as almost any exception, by format.
    except Exception as error:
        raise ValueError(f'{name} is corrupt or cut short ({error}); '
                         'copy or download it again, or save it anew as PNG') from error


def _open(source: Any, name: str) -> Image.Image:
    """Open the source; pixels of files are decoded later."""
    if isinstance(source, Image.Image):
        return source
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, str | Path):
        source = _read_file(Path(source), name)
    if not isinstance(source, bytes | bytearray):
        raise ValueError(f'{name} is of an unknown type; '
                         'give a path, bytes, a PIL image or a NumPy array')
    if not source:
        raise ValueError(f'{name} is empty; give a JPEG, PNG, TIFF or WebP file')
    with _explaining(name):
        return Image.open(io.BytesIO(source))


def _read_file(path: Path, name: str) -> bytes:
    if path.is_dir():
        raise ValueError(f'{name} is a folder; give one image file in it')
    if not path.exists():
        raise ValueError(f'{name} does not exist; check the path')
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f'{name} cannot be read: {error}') from error


def _from_array(array: np.ndarray) -> Image.Image:
    """8-bit picture of an array of pixels."""
    channels = 1 if array.ndim == 2 else array.shape[-1]
    if array.ndim not in (2, 3) or channels not in (1, 3, 4) or array.size == 0:
        raise ValueError(f'the photo is an array of shape {array.shape}; '
                         'give [H, W] or [H, W, channels] with 1, 3 or 4 channels')
    if array.dtype == np.uint16:
        array = array / 65535
    elif np.issubdtype(array.dtype, np.floating):
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise ValueError('the photo is a floating point array with values outside [0, 1]; '
                             'scale it to [0, 1]')
    elif array.dtype != np.uint8:
        raise ValueError(f'the photo is an array of {array.dtype}; '
                         'give uint8, uint16 or floating point in [0, 1]')
    if array.dtype != np.uint8:
        array = np.round(array * 255).astype(np.uint8)
    return Image.fromarray(array[..., 0] if array.ndim == 3 and channels == 1 else array)


def _check_dimensions(picture: Image.Image, name: str) -> None:
    if min(picture.size) < MIN_SIDE:
        raise ValueError(f'{name} is {picture.width} x {picture.height} pixels; '
                         f'give one of at least {MIN_SIDE} pixels on each side')
    if picture.width * picture.height > MAX_PIXELS:
        raise ValueError(_too_large(name))


def _too_large(name: str) -> str:
    return (f'{name} has more than {MAX_PIXELS / 1e6:.0f} million pixels; '
            'scale it down, a few megapixels are plenty')


def _to_rgb(picture: Image.Image) -> Image.Image:
    """8-bit RGB of a picture of any mode."""
    if picture.mode.startswith('I'):  # 16-bit grey; Pillow itself would clip it to 8 bits.
        return _from_array(np.asarray(picture).clip(0, 65535).astype(np.uint16)).convert('RGB')
    if picture.mode == 'F':
        return _from_array(np.asarray(picture)).convert('RGB')
    if picture.has_transparency_data:
        picture = picture.convert('RGBA')
        paper = Image.new('RGBA', picture.size, _PAPER)
        picture = Image.alpha_composite(paper, picture)
    return picture.convert('RGB')
