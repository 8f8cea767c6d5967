"""Sky mask and skyline of a photo: found from the picture alone, without weights, offline.

``detect_sky`` scores every pixel by four cues that hold for most landscapes (the sky is high up,
nothing rough lies above it, it is no darker than what is above it, it looks like the top of the
picture), and lets GrabCut (Rother et al. 2004) cut along the picture's edges. ``find_skyline``
fits the level horizon to the lower edge of that sky.
"""

from __future__ import annotations

from dataclasses import dataclass
import math

import cv2
import numpy as np
import torch
from torch import Tensor

from infinite_nature_ros.camera import level_pose, pitch_of_skyline

# The cues are computed at about this many pixels, where their coefficients were fitted; texture
# at four times as many, before it is averaged away.
_CUE_AREA = 80 * 128

# Logistic regression of "is sky" on the cues of ``_log_odds``, fitted to masks of 191 public
# domain landscape photographs.
_HEIGHT, _ROUGHNESS, _DARKENING, _UNLIKE_TOP, _BIAS = -5.65, -2.146, -8.38, -2.755, -5.565

# Pixels with log odds beyond ``_CERTAIN`` are settled; GrabCut decides about the rest, starting
# from those beyond ``_LIKELY`` as sky. All three measured on the same photographs.
_LIKELY, _CERTAIN, _CUT_ITERATIONS = 0.3, 4.0, 2

# Logistic regression of "this picture has a sky" on the measures of ``_has_sky``, fitted to the
# same photographs and to pieces of them below the skyline.
_DECIDED, _TOP_ROUGHNESS, _LIGHTNESS, _SIZE, _SKY_BIAS = 1.2, -0.9, 7.65, 5.89, -15.1

# A wrongly dropped sky hurts a flight more than a wrongly found one: this keeps 99 % of skies.
_SKY_THRESHOLD = -2.0

# What hangs in the sky (birds, a dark cloud) and is smaller than this share of the picture is sky.
_SMALLEST_LAND = 0.03

# Edges of the mask are softened over about a pixel, as the lens did it.
_EDGE_SIGMA = 0.6

_MAX_TILT = math.radians(5)

# Straight horizon: pixels this near (in picture heights) lie on it; this share of the columns
# must, and for a tilt to be believed, this larger share; so few may reach below it.
_ON_LINE, _LINE_SHARE, _TILT_SHARE, _BELOW_SHARE = 1 / 160, 0.35, 0.85, 0.3

# Behind mountains: how far below their silhouette the foot may lie (picture heights), the mean
# change of Lab colour across a level line that counts as one, and how far below the silhouette
# the horizon is put where no such line shows, over the silhouette's own relief.
_FOOT_DEPTH, _FOOT_CONTRAST, _FOOT_OF_RELIEF = 0.25, 0.08, 0.35


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
    """Find the sky: the region connected to the picture's top, along the picture's edges.

    Args:
        image: ``[B, 3, H, W]`` RGB in [0, 1].

    Returns:
        ``[B, 1, H, W]`` in [0, 1], 1 in the sky; all 0 for a picture that shows none.

    Raises:
        ValueError: for another shape.
    """
    masks = [_soften(_sky_mask(picture)) for picture in _to_arrays(image)]
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
    pixels = (image.detach().clamp(0, 1) * 255).round().to(torch.uint8)
    return np.ascontiguousarray(pixels.permute(0, 2, 3, 1).cpu().numpy())


def _small_lab(picture: np.ndarray, area: float = _CUE_AREA) -> np.ndarray:
    """CIE Lab over 100, shrunk to about so many pixels."""
    height, width = picture.shape[:2]
    scale = math.sqrt(area / (height * width))
    size = (max(round(width * scale), 2), max(round(height * scale), 2))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2LAB) / 100


def _fine_detail(lightness: np.ndarray) -> np.ndarray:
    """Texture the size of a pixel, which skies and clouds lack."""
    return np.abs(lightness - cv2.GaussianBlur(lightness, (0, 0), 1.0))


def _log_odds(picture: np.ndarray, lab: np.ndarray) -> np.ndarray:
    """Log odds for being sky of each pixel of a picture, at the resolution of ``lab``."""
    lightness, (count, width) = lab[..., 0], lab.shape[:2]
    height = ((np.arange(count) + 0.5) / count)[:, None]
    detail = cv2.blur(_fine_detail(_small_lab(picture, 4 * _CUE_AREA)[..., 0]), (7, 7))
    detail = cv2.resize(detail, (width, count), interpolation=cv2.INTER_AREA)
    roughness = np.maximum.accumulate(detail, axis=0)
    mean_above = np.cumsum(lightness, axis=0) / np.arange(1, count + 1)[:, None]
    top_colour = lab[:max(count // 13, 1)].mean((0, 1))
    return (_HEIGHT * height + _ROUGHNESS * np.log(roughness + 0.002)
            + _DARKENING * (mean_above - lightness)
            + _UNLIKE_TOP * np.abs(lab - top_colour).sum(-1) + _BIAS).astype(np.float32)


def _sky_mask(picture: np.ndarray) -> np.ndarray:
    """``[H, W]`` bool."""
    lab = _small_lab(picture)
    score = _log_odds(picture, lab)
    height, width = picture.shape[:2]
    sky = _cut(picture, cv2.resize(score, (width, height), interpolation=cv2.INTER_LINEAR))
    sky = _fill_islands(_connected_to_top(sky))
    if not _has_sky(lab, score, sky):
        return np.zeros_like(sky)
    return _above_horizon(sky)


def _cut(picture: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Sky along the edges of the picture: GrabCut started from the log odds of each pixel."""
    is_sky = score > _LIKELY
    labels = np.where(is_sky, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels[score > _CERTAIN] = cv2.GC_FGD
    # Texture is averaged over a few pixels, so land looks that much larger than it is.
    margin = np.ones((2 * (len(picture) // 64) + 1, 1), np.uint8)
    labels[cv2.erode((score < -_CERTAIN).astype(np.uint8), margin) > 0] = cv2.GC_BGD
    # GrabCut learns five colours of each side, so both must be there.
    if 5 <= is_sky.sum() <= is_sky.size - 5:
        cv2.setRNGSeed(0)
        cv2.grabCut(picture, labels, None, np.zeros((1, 65)), np.zeros((1, 65)), _CUT_ITERATIONS,
                    cv2.GC_INIT_WITH_MASK)
    return (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)


def _connected_to_top(sky: np.ndarray) -> np.ndarray:
    """Drop what looks like sky but does not reach the picture's top, such as a lake."""
    _, labels = cv2.connectedComponents(sky.astype(np.uint8), connectivity=4)
    return sky & np.isin(labels, np.unique(labels[0][sky[0]]))


def _fill_islands(sky: np.ndarray) -> np.ndarray:
    """Count small things that hang in the sky as sky."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats((~sky).astype(np.uint8), connectivity=4)
    hanging = stats[:, cv2.CC_STAT_AREA] < _SMALLEST_LAND * sky.size
    hanging[labels[-1]] = False
    return sky | hanging[labels]


def _has_sky(lab: np.ndarray, score: np.ndarray, sky: np.ndarray) -> bool:
    """Tell a picture with sky from one of ground only, whose top looks like sky to the cues."""
    if not sky.any():
        return False
    weight = cv2.resize(sky.astype(np.float32), score.shape[::-1], interpolation=cv2.INTER_AREA)
    lightness = (lab[..., 0] * weight).sum() / weight.sum()
    top = _fine_detail(lab[..., 0])[:max(len(lab) // 10, 1)].mean()
    evidence = (_DECIDED * np.abs(score).mean() + _TOP_ROUGHNESS * np.log(top + 0.001)
                + _LIGHTNESS * lightness + _SIZE * sky.mean() + _SKY_BIAS)
    return bool(evidence > _SKY_THRESHOLD)


def _soften(mask: np.ndarray) -> np.ndarray:
    """Give a mask the soft edge of a photograph."""
    soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), _EDGE_SIGMA)
    return np.clip(soft, 0, 1)


def _above_horizon(sky: np.ndarray) -> np.ndarray:
    """Cut off what leaks below a straight horizon, into a bright sea for example."""
    if not sky.any():
        return sky
    row, tilt, is_straight = _straight_horizon(sky)
    height, width = sky.shape
    line = row - _across(width, height) * math.tan(tilt)
    below = (np.arange(height)[:, None] + 0.5) / height > line + 2 * _ON_LINE
    return sky & ~below if is_straight else sky


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
    return row, tilt, bool(share >= _LINE_SHARE and below <= _BELOW_SHARE)


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
