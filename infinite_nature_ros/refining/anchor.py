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
from infinite_nature_ros.pyramid import halve, resize

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

# Disparities between which land is renewed; what of its difference from the mean a step takes
# away, and how much of its deviation, over scales from this one on, is added.
_RENEWED = (0.011, 0.12)
_FORGOTTEN, _RENEWAL, _COARSE = 0.04, 0.1, 2

# Patches of new land per picture height; their colour as a share of their luma; the seed.
_PATCHES, _COLOUR_VARIETY, _VARIETY_SEED = 5, 0.25, 0

# Share of a row beside a pixel that must be land for its mean to count.
_LEAST_BESIDE = 0.02

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
        ``[B, 3, 5, 3]`` mean squared contrast of land, by distance from far to near, by scale from
        fine to coarse, and in luma and two colour differences; and ``[B, 3, 3]`` mean RGB by
        distance.
    """
    weights = _by_distance(disparity)
    bands, _ = _split(to_opponent(image))
    return _energies(bands, _halvings(weights)), _weighted(image, weights)


def hold_detail(image: Tensor, disparity: Tensor, energy: Tensor, colour: Tensor) -> Tensor:
    """Bring a frame's detail and colours nearer to what was measured of the first one.

    Args:
        image: ``[B, 3, H, W]`` RGB, near [0, 1].
        disparity: ``[B, 1, H, W]`` in [0.01, 1].
        energy: ``[B, 3, 5, 3]`` of ``measure_detail``.
        colour: ``[B, 3, 3]`` likewise.

    Returns:
        ``[B, 3, H, W]``, not clamped. Gradients pass as if all factors were constants.
    """
    weights = _by_distance(disparity.detach())
    bands, rest = _split(to_opponent(image))
    with torch.no_grad():
        shares = _halvings(weights)
        gains = (energy / _energies(bands, shares)).log() * (0.5 * _DETAIL_RATE)
        gains = gains.clamp(-math.log(_LARGEST_GAIN), math.log(_LARGEST_GAIN)).exp() - 1
        shift = _COLOUR_RATE * (colour - _weighted(image, weights))
        moves = _halvings((disparity / _MOVING).clamp(max=1))
        # One product spreads both over the pixels.
        factors = torch.cat([gains, energy], dim=3)
    result = rest
    for number in reversed(range(_SCALES)):
        band, share = bands[number], shares[number]
        with torch.no_grad():
            gain, square = _spread(share, factors[:, :, number]).split(3, dim=1)
            gain = 1 + moves[number] * gain
            land = share.sum(1, keepdim=True)
            limit = _LIMIT * (square / land.clamp(min=1e-3)).sqrt()
        grown = gain * band
        grown = torch.lerp(band, limit * tanh(grown / limit.clamp(min=1e-4)), land)
        result = resize(result, band.shape[2:]) + grown
    return from_opponent(result) + _spread(weights, shift)


def draw_variety(image: Tensor) -> Tensor:
    """Draw what varies about new land: always the same, for images of one size.

    Seen from low above the ground, a patch of far land is many pixels wide and a row or two high.

    Args:
        image: ``[B, 3, H, W]`` whose size it gets.

    Returns:
        ``[B, 3, H, W]`` of mean 0 and deviation 1, in luma and, weaker, two colour differences.
    """
    height, width = image.shape[2:]
    generator = torch.Generator().manual_seed(_VARIETY_SEED)
    columns = max(2, round(_PATCHES * width / height))
    coarse = torch.randn(1, 3, height // 2, columns, generator=generator)
    coarse[:, 1:] *= _COLOUR_VARIETY
    noise = functional.interpolate(coarse, (height, width), mode='bilinear', align_corners=False)
    return (noise / noise.std()).to(image).repeat(len(image), 1, 1, 1)


def renew_far(image: Tensor, disparity: Tensor, variety: Tensor, energy: Tensor) -> Tensor:
    """Let the far land, from which all that is to come emerges, forget and vary a little.

    What grows out of the horizon straight ahead would else always be the same, and be drawn out
    towards the camera to stripes. So each step brings the far land a little nearer to the mean of
    what lies beside it, and adds some of a pattern: a patch lasts for some ten units of flight.

    Args:
        image: ``[B, 3, H, W]`` RGB in [0, 1].
        disparity: ``[B, 1, H, W]`` in [0.01, 1].
        variety: ``[B, 3, H, W]`` of ``draw_variety``, shifted anew in every step.
        energy: ``[B, 3, 5, 3]`` of ``measure_detail``: how much the first frame's land varies.

    Returns:
        ``[B, 3, H, W]`` in [0, 1].
    """
    deviation = energy[:, :, _COARSE:].sum(2).mean(1).sqrt()[..., None, None]
    low, high = _RENEWED
    rises = ((disparity / low).log() / math.log(high / low)).clamp(0, 1)
    land = (disparity > _SKY_DISPARITY).to(image.dtype)
    change = (_FORGOTTEN * (_mean_beside(image, land * (rises < 1)) - image)
              + from_opponent(_RENEWAL * deviation * variety))
    return (image + 4 * rises * (1 - rises) * land * change).clamp(0, 1)


def _mean_beside(image: Tensor, counts: Tensor) -> Tensor:
    """Means of what counts, within a quarter of the width to both sides."""
    reach = image.shape[3] // 4
    means = [functional.avg_pool2d(functional.pad(values, (reach, reach, 0, 0)),
                                   (1, 2 * reach + 1), 1) for values in (image * counts, counts)]
    some = means[1].clamp(min=_LEAST_BESIDE)
    return torch.where(means[1] > _LEAST_BESIDE, means[0] / some, image)


def tanh(values: Tensor) -> Tensor:
    """Hyperbolic tangent by the logistic function, which is ten times as fast on a CPU."""
    return 2 * torch.sigmoid(2 * values) - 1


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
    levels = _halvings(image)
    levels.append(_halve(levels[-1]))
    bands = [fine - resize(coarse, fine.shape[2:])
             for fine, coarse in zip(levels, levels[1:], strict=False)]
    return bands, levels[-1]


def _halvings(values: Tensor) -> list[Tensor]:
    """Means at the sizes of the bands, from fine to coarse."""
    levels = [values]
    while len(levels) < _SCALES:
        levels.append(_halve(levels[-1]))
    return levels


def _halve(values: Tensor) -> Tensor:
    """Means at half the size, rounded up; at an odd border of what there is."""
    height, width = values.shape[2:]
    if height % 2 or width % 2:
        values = functional.pad(values, (0, width % 2, 0, height % 2), mode='replicate')
    return halve(values)


def _by_distance(disparity: Tensor) -> Tensor:
    """``[B, 3, H, W]`` how much a pixel is at each distance; in all 1 on land, 0 in the sky."""
    log = disparity.clamp(min=MIN_DISPARITY).log()
    centres = [math.log(distance) for distance in _DISTANCES]
    first = (log - centres[0]) / (centres[1] - centres[0])
    second = (log - centres[1]) / (centres[2] - centres[1])
    near, beyond_far = second.clamp(0, 1), first.clamp(0, 1)
    weights = torch.cat([1 - beyond_far, beyond_far - near, near], dim=1)
    # An edge against the sky is no detail of the land.
    return weights * ~_grow(disparity <= _SKY_DISPARITY)


def _grow(mask: Tensor) -> Tensor:
    """``[B, 1, H, W]`` where a mask is set no more than 4 pixels away, along both axes."""
    for dim in (2, 3):
        length = mask.shape[dim]
        for reach in (1, 3):
            reach = min(reach, length)
            grown = mask.clone()
            grown.narrow(dim, reach, length - reach).logical_or_(
                mask.narrow(dim, 0, length - reach))
            grown.narrow(dim, 0, length - reach).logical_or_(
                mask.narrow(dim, reach, length - reach))
            mask = grown
    return mask


def _energies(bands: list[Tensor], shares: list[Tensor]) -> Tensor:
    """``[B, D, S, C]`` mean squares of the bands by distance; ``shares`` are their weights."""
    energies = [_weighted(band.square(), share)
                for band, share in zip(bands, shares, strict=True)]
    return torch.stack(energies, dim=2).clamp(min=1e-7)


def _weighted(values: Tensor, weights: Tensor) -> Tensor:
    """``[B, D, C]`` weighted means of ``[B, C, h, w]``, drawn to those of all land if few."""
    pixels = values.shape[-2] * values.shape[-1]
    sums = weights.flatten(2) @ values.flatten(2).mT
    counts = weights.sum((-2, -1))[..., None]
    overall = (sums.sum(1, keepdim=True) / counts.sum(1, keepdim=True).clamp(min=1e-6))
    prior = _PRIOR_SHARE * pixels
    return (sums + prior * overall) / (counts + prior)


def _spread(weights: Tensor, values: Tensor) -> Tensor:
    """``[B, C, h, w]`` of values ``[B, D, C]`` by distance and weights ``[B, D, h, w]``."""
    return (values.mT @ weights.flatten(2)).unflatten(2, weights.shape[2:])
