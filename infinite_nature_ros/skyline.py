"""Sky mask and skyline of a photo: found from the picture alone, without downloads.

``detect_sky`` asks a small network that comes with the package (``sky_network``).
``find_skyline`` fits the level horizon to the lower edge of that sky.
"""

from __future__ import annotations

from dataclasses import dataclass
import math

import cv2
import numpy as np
import torch
from torch import Tensor

from infinite_nature_ros.camera import level_pose, pitch_of_skyline
from infinite_nature_ros.pixels import to_pixels
from infinite_nature_ros.sky_network import find_sky, load_sky_network

# Edges of the mask are softened over about a pixel, as the lens did it.
_EDGE_SIGMA = 0.6

_MAX_TILT = math.radians(5)

# Straight horizon: pixels this near (in picture heights) lie on it; this share of the columns
# must, and for a tilt to be believed, this larger share; so few may reach below it. Hills so low
# hide nothing of it either.
_ON_LINE, _LINE_SHARE, _TILT_SHARE, _BELOW_SHARE = 1 / 160, 0.45, 0.85, 0.3
_LOW_RELIEF = 0.05

# Level lines at the feet of mountains are looked for at about this many pixels.
_FOOT_AREA = 80 * 128

# Behind mountains: how far below their silhouette the foot may lie (picture heights), the mean
# change of Lab colour across a level line that counts as one, and how far below the silhouette
# the horizon is put where no such line shows, over the silhouette's own relief.
_FOOT_DEPTH, _FOOT_CONTRAST, _FOOT_OF_RELIEF = 0.3, 0.08, 0.35


@dataclass(frozen=True)
class Skyline:
    """The level horizon of a batch of pictures.

    Attributes:
        row: ``[B]`` height of the horizon in the image's centre column, 0 top to 1 bottom: where
            a level ground would vanish, which is below the silhouette of mountains.
        tilt: ``[B]`` radians, positive where the horizon rises to the right: the roll for
            ``camera.level_pose``. 0 where no straight horizon shows.
    """

    row: Tensor
    tilt: Tensor


def detect_sky(image: Tensor) -> Tensor:
    """Find the sky: what a small network takes for it and reaches the picture's top.

    Runs on the CPU, picture by picture: a picture's mask depends on it alone.

    Args:
        image: ``[B, 3, H, W]`` RGB in [0, 1].

    Returns:
        ``[B, 1, H, W]`` in [0, 1], 1 in the sky; all 0 for a picture that shows none.

    Raises:
        ValueError: for another shape.
    """
    network = load_sky_network()
    masks = [_soften(find_sky(picture, network)) for picture in _to_arrays(image)]
    return torch.from_numpy(np.stack(masks))[:, None].to(image.device)


def find_skyline(image: Tensor, sky: Tensor | None = None) -> Skyline:
    """Find the level horizon.

    Over a sea or plain it is the sky's straight lower edge. Behind mountains it is the most
    pronounced level line at their feet, such as a far shore, or else an estimate from the height
    of their silhouette. Without sky it is the top of the picture, without ground the bottom.

    Args:
        image: ``[B, 3, H, W]`` RGB in [0, 1].
        sky: ``[B, 1, H, W]`` of ``detect_sky``, if it is at hand.

    Raises:
        ValueError: for another shape.
    """
    pictures = _to_arrays(image)
    sky = detect_sky(image) if sky is None else sky
    masks = sky[:, 0].cpu().numpy() > 0.5
    found = [_horizon(picture, mask) for picture, mask in zip(pictures, masks, strict=True)]
    row, tilt = torch.tensor(found, dtype=torch.float32, device=image.device).unbind(1)
    return Skyline(row, tilt)


def level_with_skyline(image: Tensor, intrinsics: Tensor, sky: Tensor | None = None) -> Tensor:
    """Pose at the world's origin of the camera that took a picture, the world level.

    Args:
        image: ``[B, 3, H, W]`` RGB in [0, 1].
        intrinsics: ``[B, 4]``, normalised.
        sky: ``[B, 1, H, W]`` of ``detect_sky``, if it is at hand.

    Returns:
        ``[B, 3, 4]`` world to camera.

    Raises:
        ValueError: for an image of another shape.
    """
    skyline = find_skyline(image, sky)
    return level_pose(pitch_of_skyline(skyline.row, intrinsics), skyline.tilt)


def _to_arrays(image: Tensor) -> np.ndarray:
    """``[B, H, W, 3]`` 8-bit RGB."""
    if not isinstance(image, Tensor) or image.dim() != 4 or image.shape[1] != 3:
        given = tuple(image.shape) if isinstance(image, Tensor) else type(image).__name__
        raise ValueError(f'image is {given}; give RGB in [0, 1] as a tensor [B, 3, H, W]')
    return to_pixels(image)


def _soften(mask: np.ndarray) -> np.ndarray:
    """Give a mask the soft edge of a photograph."""
    soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), _EDGE_SIGMA)
    return np.clip(soft, 0, 1)


def _horizon(picture: np.ndarray, sky: np.ndarray) -> tuple[float, float]:
    """Row (0 to 1) and tilt (radians) of the horizon."""
    if sky.all() or not sky.any():
        return float(sky.any()), 0.0
    row, tilt, is_straight = _straight_horizon(sky)
    return (row, tilt) if is_straight else (_foot_of_mountains(picture, sky), 0.0)


def _straight_horizon(sky: np.ndarray) -> tuple[float, float, bool]:
    """Row and tilt of the line along the sky's lower edge, and whether it is a horizon."""
    height, width = sky.shape
    edge, across = sky.mean(0), _across(width, height)
    row, tilt, share = _fit_line(edge, across)
    below = (edge > row + 0.02 - across * math.tan(tilt)).mean()
    high, low = np.percentile(edge, (10, 90))
    is_straight = share >= _LINE_SHARE and below <= _BELOW_SHARE
    return row, tilt, bool(is_straight or low - high < _LOW_RELIEF)


def _across(width: int, height: int) -> np.ndarray:
    """``[W]`` distance of each column from the centre, in picture heights."""
    return (np.arange(width) + 0.5 - width / 2) / height


def _fit_line(edge: np.ndarray, across: np.ndarray) -> tuple[float, float, float]:
    """Line through most of the sky's lower edge.

    Args:
        edge: ``[W]`` height of the edge in each column.
        across: ``[W]`` distance of each column from the centre, in the same unit.

    Returns:
        row, tilt (0 unless most columns agree on one) and the share of the columns on the line.
    """
    row, share = _densest(edge)
    best = (row, 0.0, share)
    for tilt in np.linspace(-_MAX_TILT, _MAX_TILT, 41):
        row, share = _densest(edge + across * math.tan(tilt))
        # A tilt must explain clearly more than a level line does.
        if share > max(best[2], _TILT_SHARE, best[2] + (0.1 if best[1] == 0 else 0)):
            best = (row, float(tilt), share)
    return best


def _densest(values: np.ndarray) -> tuple[float, float]:
    """Middle of the window of ``2 * _ON_LINE`` that holds most values, and their share."""
    ordered = np.sort(values)
    counts = np.searchsorted(ordered, ordered + 2 * _ON_LINE, side='right')
    counts -= np.arange(len(ordered))
    first = int(counts.argmax())
    return float(np.median(ordered[first:first + counts[first]])), counts[first] / len(values)


def _small_lab(picture: np.ndarray) -> np.ndarray:
    """CIE Lab over 100, shrunk to about ``_FOOT_AREA`` pixels."""
    height, width = picture.shape[:2]
    scale = math.sqrt(_FOOT_AREA / (height * width))
    size = (max(round(width * scale), 2), max(round(height * scale), 2))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2LAB) / 100


def _foot_of_mountains(picture: np.ndarray, sky: np.ndarray) -> float:
    """Row of the horizon that mountains hide: a level line at their feet, or an estimate."""
    high, low = np.percentile(sky.mean(0), (10, 90))
    lab = _small_lab(picture)
    count, width = lab.shape[:2]
    land = cv2.resize((~sky).astype(np.float32), (width, count), interpolation=cv2.INTER_AREA)
    inside = (np.minimum(land[1:], land[:-1]) == 1)[..., None]
    # Averaged along the row with its sign, only a line right across the picture remains.
    contrast = np.abs((np.diff(lab, axis=0) * inside).mean(1)).sum(-1)
    first, last = int(low * count), math.ceil(min(low + _FOOT_DEPTH, 1) * count)
    band = contrast[first:last]
    if len(band) and band.max() > _FOOT_CONTRAST:
        return (first + int(band.argmax()) + 1) / count
    return float(min(low + _FOOT_OF_RELIEF * (low - high), 0.95))
