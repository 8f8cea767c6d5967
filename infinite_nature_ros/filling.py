"""Filling: unknown pixels from known ones, over an image pyramid."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from infinite_nature_ros import camera
from infinite_nature_ros.pyramid import halve, resize
from infinite_nature_ros.rendering import Rendered

LEAST_WEIGHT = 1e-6
"""Weight of an unknown pixel: it decides only where nothing is known at all."""

# A hole opens beside the nearer surface, and what appears in it is the farther one: pixels weigh
# by this power of their depth (softened, so that the very far doesn't take all).
_FAR_PREFERENCE = 2.0
_FAR_SOFTENING = 0.02

# How much of a pixel must have been carried over for its colour to count.
_KNOWN_THRESHOLD = 0.25

# RGB and log disparity of a view of which nothing is known: grey, at medium distance.
_GREY = (0.5, 0.5, 0.5, -2.0)

# Levels of the pyramid that shrink the width alone.
_LEVEL_STEPS = 4


def push_pull(values: Tensor, weight: Tensor, known: Tensor, *,
              level_steps: int = _LEVEL_STEPS) -> Tensor:
    """Fill unknown pixels smoothly from known ones (Gortler et al., 1996, section 5.2).

    In a level view of a landscape what lies beside a pixel is like it, and what lies above it is
    farther away: so the pyramid shrinks sideways first, and in both directions only where a gap
    is wider than 16 pixels. Up to there ``weight`` decides between the two sides of a gap, beyond
    it all that is known counts alike.

    Args:
        values: ``[B, C, H, W]``; anything finite where nothing is known.
        weight: ``[B, 1, H, W]`` > 0, how much a pixel counts for its surroundings.
        known: ``[B, 1, H, W]`` in [0, 1], how much of a pixel itself is kept.
        level_steps: levels of the pyramid that shrink the width alone.

    Returns:
        ``[B, C, H, W]``.
    """
    height, width = values.shape[-2:]
    if max(height, width) == 1:
        return values
    sideways = level_steps > 0 and width > 1
    coarse_weight = _shrink(weight, sideways)
    coarse_values = _shrink(values * weight, sideways) / coarse_weight
    # One known pixel is enough to trust the average.
    pixels = 2 if sideways else 4
    coarse_known = (_shrink(known, sideways) * pixels).clamp(max=1)
    if level_steps == 1:
        coarse_weight = coarse_known + LEAST_WEIGHT
    coarse = push_pull(coarse_values, coarse_weight, coarse_known, level_steps=level_steps - 1)
    return torch.lerp(resize(coarse, (height, width)), values, known)


def _shrink(values: Tensor, sideways: bool) -> Tensor:
    """Means at half the width, and half the height unless it goes sideways; rounded up."""
    height, width = values.shape[-2:]
    if width % 2 == 0 and (sideways or height % 2 == 0):
        return halve(values, sideways=sideways)
    half = (height if sideways else (height + 1) // 2, (width + 1) // 2)
    return functional.adaptive_avg_pool2d(values, half)


def fill_holes(rendered: Rendered, mean: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Finish a rendered view smoothly, without inventing detail.

    Args:
        rendered: the view with its holes.
        mean: ``[B, 4, 1, 1]`` RGB and log disparity for a view of which nothing is known; ``None``
            for grey at medium distance.

    Returns:
        image ``[B, 3, H, W]`` in [0, 1] and disparity ``[B, 1, H, W]`` in [0.01, 1].
    """
    if mean is None:
        mean = rendered.image.new_tensor(_GREY).reshape(1, 4, 1, 1)
    known = (rendered.known > _KNOWN_THRESHOLD).to(rendered.known.dtype)
    # Clamped before the root, whose gradient at 0 is infinite.
    whole = rendered.known.clamp(min=_KNOWN_THRESHOLD ** 2).sqrt()
    disparity = (rendered.disparity / whole).clamp(camera.MIN_DISPARITY, camera.MAX_DISPARITY)
    # Disparity is filled by its logarithm: a mean of near and far is then a mean of scales.
    values = torch.cat([rendered.image / whole, disparity.log()], dim=1)
    values = torch.where(known > 0, values, mean)
    weight = known * (disparity + _FAR_SOFTENING) ** -_FAR_PREFERENCE + LEAST_WEIGHT
    filled = push_pull(values, weight, known)
    return filled[:, :3].clamp(0, 1), filled[:, 3:].exp()
