"""Disparity from files: npy, 16-bit PNG, EXR, and the samples of the official release."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
import torch
from torch import Tensor

from infinite_nature_ros.array_pickle import load_arrays
from infinite_nature_ros.camera import MAX_DISPARITY, MIN_DISPARITY
from infinite_nature_ros.photos import crop_and_resize

# Channels of an EXR file that hold disparity, in order of preference.
_EXR_CHANNELS = ('disparity', 'Y', 'R', 'RGB', 'RGBA')


def read_disparity(path: str | Path, height: int, width: int) -> Tensor:
    """Read a disparity map for a photo of a given size.

    Values that all lie in [0.01, 1] are taken as they are; others (MiDaS output, for example) are
    stretched so that the farthest is 0.01 and the nearest 1. A PNG holds disparity times 65535.
    The map is cropped around its centre to the photo's aspect ratio, as ``load_photo`` does it.

    Args:
        path: ``.npy`` (``[H, W]``, leading or trailing ones allowed), 16-bit grey ``.png``,
            ``.exr`` (channel disparity, Y, R or the only one), or an official ``.pkl`` sample.
        height: height of the result in pixels.
        width: width of the result in pixels.

    Returns:
        ``[1, 1, H, W]`` in [0.01, 1].

    Raises:
        ValueError: for a file that is missing, damaged, of another kind, not a disparity map, or
            that holds values which aren't finite or are all the same.
    """
    path = Path(path)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f'disparity file {str(path)!r} is of an unknown kind; '
                         f'give one of {", ".join(_READERS)}')
    values = _to_map(_read(reader, path), path)
    values = np.ascontiguousarray(_normalise(values, path), dtype=np.float32)
    picture = crop_and_resize(Image.fromarray(values), height, width)
    return torch.from_numpy(np.array(picture))[None, None]


def load_official_sample(path: str | Path) -> tuple[Tensor, Tensor]:
    """Read a sample of the official release (``autocruise_input1.pkl`` and its like).

    Only arrays and plain containers are admitted: a pickle that calls for anything else is
    refused before any of it runs.

    Args:
        path: a pickled dictionary with ``input_rgbd`` ``[H, W, 4]`` in [0, 1].

    Returns:
        image ``[1, 3, H, W]`` in [0, 1] and disparity ``[1, 1, H, W]`` in [0.01, 1], clamped as
        the release's renderer does it.

    Raises:
        ValueError: for a file that is missing, damaged, unsafe, or holds something else.
    """
    path = Path(path)
    rgbd = torch.from_numpy(_read(_read_rgbd, path)).permute(2, 0, 1)[None]
    image, disparity = rgbd.clamp(0, 1).split((3, 1), dim=1)
    return image.contiguous(), disparity.clamp(MIN_DISPARITY, MAX_DISPARITY).contiguous()


def _read(reader: Callable[[Path], np.ndarray], path: Path) -> np.ndarray:
    """Run a reader; whatever a damaged file makes it raise becomes a ValueError."""
    if not path.is_file():
        raise ValueError(f'disparity file {str(path)!r} does not exist or is no file; '
                         'check the path')
    try:
        return reader(path)
    except ValueError as error:
        raise ValueError(f'disparity file {str(path)!r}: {error}') from error
    except Exception as error:
        raise ValueError(f'disparity file {str(path)!r} is damaged or not what its suffix says '
                         f'({error}); write it anew') from error


def _read_npy(path: Path) -> np.ndarray:
    return np.load(path, allow_pickle=False)


def _read_png(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        if not picture.mode.startswith('I'):
            raise ValueError(f'its mode is {picture.mode}; give a 16-bit grey PNG '
                             '(8 bits would make terraces)')
        return np.asarray(picture, dtype=np.float32) / 65535


def _read_exr(path: Path) -> np.ndarray:
    try:
        import OpenEXR
    except ImportError as error:
        raise ValueError('reading EXR needs OpenEXR; pip install OpenEXR') from error
    channels = OpenEXR.File(str(path)).channels()
    names = [*(name for name in _EXR_CHANNELS if name in channels), *channels]
    if len(channels) > 1 and names[0] not in _EXR_CHANNELS or names[0] in ('Z', 'depth'):
        raise ValueError(f'its channels are {", ".join(channels)}; '
                         'give disparity (1/depth) in a channel named disparity or Y')
    pixels = channels[names[0]].pixels
    return pixels[..., 0] if pixels.ndim == 3 else pixels


def _read_rgbd(path: Path) -> np.ndarray:
    """``[H, W, 4]`` float32 of an official sample."""
    sample = load_arrays(path)
    rgbd = sample.get('input_rgbd') if isinstance(sample, dict) else None
    if not isinstance(rgbd, np.ndarray) or rgbd.ndim != 3 or rgbd.shape[2] != 4:
        raise ValueError("it holds no array 'input_rgbd' [H, W, 4]; give an official sample")
    if not np.issubdtype(rgbd.dtype, np.floating) or not np.isfinite(rgbd).all():
        raise ValueError("its 'input_rgbd' is not made of finite floating point numbers")
    return np.array(rgbd, dtype=np.float32)


def _read_sample_disparity(path: Path) -> np.ndarray:
    return _read_rgbd(path)[..., 3]


_READERS: dict[str, Callable[[Path], np.ndarray]] = {
    '.npy': _read_npy,
    '.png': _read_png,
    '.exr': _read_exr,
    '.pkl': _read_sample_disparity,
}


def _to_map(values: np.ndarray, path: Path) -> np.ndarray:
    """``[H, W]`` finite numbers."""
    shape = values.shape
    values = values.squeeze()
    is_number = (np.issubdtype(values.dtype, np.floating)
                 or np.issubdtype(values.dtype, np.integer))
    if values.ndim != 2 or not values.size or not is_number:
        raise ValueError(f'disparity file {str(path)!r} holds {values.dtype} of shape {shape}; '
                         'give numbers [H, W]')
    broken = values.size - int(np.isfinite(values).sum())
    if broken:
        raise ValueError(f'disparity file {str(path)!r} holds {broken} values that are NaN or '
                         'infinite; fill them (0 is infinitely far)')
    return values.astype(np.float64)


def _normalise(values: np.ndarray, path: Path) -> np.ndarray:
    """Values in [0.01, 1]."""
    low, high = values.min(), values.max()
    # float32 files may fall short of the bounds by their rounding.
    if low >= MIN_DISPARITY - 1e-6 and high <= MAX_DISPARITY + 1e-6:
        return values.clip(MIN_DISPARITY, MAX_DISPARITY)
    if high == low:
        raise ValueError(f'disparity file {str(path)!r} is {low} all over; '
                         'give a map with near and far in it')
    return MIN_DISPARITY + (values - low) / (high - low) * (MAX_DISPARITY - MIN_DISPARITY)
