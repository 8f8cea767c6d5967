"""Push-pull filling: unknown pixels from known ones, over an image pyramid."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

LEAST_WEIGHT = 1e-6
"""Weight of an unknown pixel: it decides only where nothing is known at all."""

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
    half = (height if sideways else (height + 1) // 2, (width + 1) // 2)
    coarse_weight = functional.adaptive_avg_pool2d(weight, half)
    coarse_values = functional.adaptive_avg_pool2d(values * weight, half) / coarse_weight
    # One known pixel is enough to trust the average.
    pixels = 2 if sideways else 4
    coarse_known = (functional.adaptive_avg_pool2d(known, half) * pixels).clamp(max=1)
    if level_steps == 1:
        coarse_weight = coarse_known + LEAST_WEIGHT
    coarse = push_pull(coarse_values, coarse_weight, coarse_known, level_steps=level_steps - 1)
    smooth = functional.interpolate(coarse, size=(height, width), mode='bilinear',
                                    align_corners=False)
    return torch.lerp(smooth, values, known)
