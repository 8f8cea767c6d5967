"""Push-pull filling: unknown pixels from known ones, over an image pyramid."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def push_pull(values: Tensor, weight: Tensor, known: Tensor) -> Tensor:
    """Fill unknown pixels smoothly from known ones (Gortler et al., 1996, section 5.2).

    Args:
        values: ``[B, C, H, W]``; anything finite where nothing is known.
        weight: ``[B, 1, H, W]`` > 0, how much a pixel counts for its surroundings.
        known: ``[B, 1, H, W]`` in [0, 1], how much of a pixel itself is kept.

    Returns:
        ``[B, C, H, W]``.
    """
    height, width = values.shape[-2:]
    if max(height, width) == 1:
        return values
    half = ((height + 1) // 2, (width + 1) // 2)
    coarse_weight = functional.adaptive_avg_pool2d(weight, half)
    coarse_values = functional.adaptive_avg_pool2d(values * weight, half) / coarse_weight
    # One known pixel of four is enough to trust the average.
    coarse_known = (functional.adaptive_avg_pool2d(known, half) * 4).clamp(max=1)
    coarse = push_pull(coarse_values, coarse_weight, coarse_known)
    smooth = functional.interpolate(coarse, size=(height, width), mode='bilinear',
                                    align_corners=False)
    return torch.lerp(smooth, values, known)
