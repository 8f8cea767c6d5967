"""Anchoring: a flight's detail and colours are held at those of its first frame.

Every step resamples the picture, which blurs it, and a refiner makes up for that by sharpening. A
little too little of it, and the picture is fog after a hundred frames; a little too much, and it
rings. No network is exact to the hundredth part; so what it should keep is measured, at each
distance and each scale of detail, and the difference taken back step by step. What the detail shows
is the network's matter; how much there is of it, and the mean colour around it, are not.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from infinite_nature_ros.camera import MIN_DISPARITY

# Disparities in the middle of far, medium and near: detail is finer the farther away it is.
_DISTANCES = (0.02, 0.08, 0.35)

# Scales of detail, each twice as coarse as the one before; the finest is a pixel or two.
_SCALES = 5

# Share of the difference that one step takes back, of detail (of its logarithm) and of colour.
_DETAIL_RATE, _COLOUR_RATE = 0.5, 0.1

# Largest factor on a scale of detail in one step, so that an odd view doesn't burst.
_LARGEST_GAIN = 1.35

# Farther than this, what is seen hardly moves, and isn't blurred.
_MOVING = 0.04

# Detail beyond this many times its usual size is pressed down.
_LIMIT = 4.0

# Land at a distance of which a picture has little is taken to look like its land in general: this
# share of a picture's pixels counts as much as it.
_PRIOR_SHARE = 0.02

# Disparity up to which a pixel is sky, which has a dome of its own, and isn't counted.
_SKY_DISPARITY = 1.02 * MIN_DISPARITY


def measure_detail(image: Tensor, disparity: Tensor) -> tuple[Tensor, Tensor]:
    """Measure what a flight keeps of its first frame.

    Args:
        image: ``[B, 3, H, W]`` RGB in [0, 1].
        disparity: ``[B, 1, H, W]`` in [0.01, 1].

    Returns:
        ``[B, 3, 5]`` mean squared contrast of land, by distance from far to near and by scale from
        fine to coarse; and ``[B, 3, 3]`` mean RGB by distance.
    """
    weights = _by_distance(disparity)
    bands, _ = _split(to_opponent(image))
    return _energies(bands, weights), _means(image, weights)


def hold_detail(image: Tensor, disparity: Tensor, energy: Tensor, colour: Tensor) -> Tensor:
    """Bring a frame's detail and colours nearer to what was measured of the first one.

    Args:
        image: ``[B, 3, H, W]`` RGB, near [0, 1].
        disparity: ``[B, 1, H, W]`` in [0.01, 1].
        energy: ``[B, 3, 5]`` of ``measure_detail``.
        colour: ``[B, 3, 3]`` likewise.

    Returns:
        ``[B, 3, H, W]``, not clamped. Gradients pass as if all factors were constants.
    """
    weights = _by_distance(disparity.detach())
    bands, rest = _split(to_opponent(image))
    with torch.no_grad():
        gains = (energy / _energies(bands, weights)).log() * (0.5 * _DETAIL_RATE)
        gains = gains.clamp(-math.log(_LARGEST_GAIN), math.log(_LARGEST_GAIN)).exp() - 1
        shift = _COLOUR_RATE * (colour - _means(image, weights))
        moves = _pyramid((disparity / _MOVING).clamp(max=1), bands)
    result = rest
    for number in reversed(range(_SCALES)):
        band = bands[number]
        share = functional.adaptive_avg_pool2d(weights, band.shape[-2:])
        land = share.sum(1, keepdim=True)
        gain = 1 + torch.einsum('bdhw,bdc->bchw', share * moves[number], gains[:, :, number])
        limit = _LIMIT * (torch.einsum('bdhw,bdc->bchw', share, energy[:, :, number])
                          / land.clamp(min=1e-3)).sqrt()
        grown = gain * band
        grown = torch.lerp(band, limit * torch.tanh(grown / limit.clamp(min=1e-4)), land)
        result = _resize(result, band) + grown
    return from_opponent(result) + torch.einsum('bdhw,bdc->bchw', weights, shift)


def _pyramid(values: Tensor, bands: list[Tensor]) -> list[Tensor]:
    """Means of values ``[B, 1, H, W]`` at the sizes of the bands."""
    return [functional.adaptive_avg_pool2d(values, band.shape[-2:]) for band in bands]


def to_opponent(image: Tensor) -> Tensor:
    """Part RGB ``[B, 3, H, W]`` into its mean and two differences from it."""
    r, g, b = image.split(1, 1)
    y = (r + g + b) / 3
    return torch.cat([y, r - y, b - y], 1)


def from_opponent(image: Tensor) -> Tensor:
    """Undo ``to_opponent``."""
    y, r, b = image.split(1, 1)
    return torch.cat([y + r, y - r - b, y + b], 1)


def _split(image: Tensor) -> tuple[list[Tensor], Tensor]:
    """Laplacian pyramid (Burt and Adelson 1983): its bands from fine to coarse, and the rest."""
    bands = []
    for _ in range(_SCALES):
        coarse = functional.avg_pool2d(image, 2, ceil_mode=True)
        bands.append(image - _resize(coarse, image))
        image = coarse
    return bands, image


def _resize(image: Tensor, like: Tensor) -> Tensor:
    return functional.interpolate(image, like.shape[-2:], mode='bilinear', align_corners=False)


def _by_distance(disparity: Tensor) -> Tensor:
    """``[B, 3, H, W]`` how much a pixel is at each distance; in all 1 on land, 0 in the sky."""
    log = disparity.clamp(min=MIN_DISPARITY).log()
    centres = [math.log(distance) for distance in _DISTANCES]
    first = (log - centres[0]) / (centres[1] - centres[0])
    second = (log - centres[1]) / (centres[2] - centres[1])
    near, beyond_far = second.clamp(0, 1), first.clamp(0, 1)
    weights = torch.cat([1 - beyond_far, beyond_far - near, near], dim=1)
    land = (disparity > _SKY_DISPARITY).to(disparity.dtype)
    # An edge against the sky is no detail of the land.
    return weights * (1 - functional.max_pool2d(1 - land, 9, stride=1, padding=4))


def _energies(bands: list[Tensor], weights: Tensor) -> Tensor:
    """``[B, D, S]`` mean squares of the bands by distance."""
    energies = []
    for band in bands:
        share = functional.adaptive_avg_pool2d(weights, band.shape[-2:])
        energies.append(_weighted(band.square(), share))
    return torch.stack(energies, dim=2).clamp(min=1e-7)


def _means(image: Tensor, weights: Tensor) -> Tensor:
    return _weighted(image, weights)


def _weighted(values: Tensor, weights: Tensor) -> Tensor:
    """``[B, D, C]`` weighted means of ``[B, C, h, w]``, drawn to those of all land if few."""
    pixels = values.shape[-2] * values.shape[-1]
    sums = torch.einsum('bdhw,bchw->bdc', weights, values)
    counts = weights.sum((-2, -1))[..., None]
    overall = (sums.sum(1, keepdim=True) / counts.sum(1, keepdim=True).clamp(min=1e-6))
    prior = _PRIOR_SHARE * pixels
    return (sums + prior * overall) / (counts + prior)
