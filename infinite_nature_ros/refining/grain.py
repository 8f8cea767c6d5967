"""Grain: a first frame's own pattern of detail, as the noise that new detail grows from."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def detail_of(image: Tensor) -> Tensor:
    """Take of an image ``[B, C, H, W]`` what is finer than some two pixels."""
    padded = functional.pad(image, (1, 1, 1, 1), mode='reflect')
    across = padded[..., :-2] + 2 * padded[..., 1:-1] + padded[..., 2:]
    return image - (across[..., :-2, :] + 2 * across[..., 1:-1, :] + across[..., 2:, :]) / 16


def shuffle_columns(grain: Tensor, image: Tensor) -> Tensor:
    """Shift a pattern sideways by an amount that the picture itself draws.

    Grain that stood still on the screen would smear into streaks along the flow.

    Args:
        grain: ``[B, C, H, W]``.
        image: ``[B, 3, H, W]`` the picture that it is for.

    Returns:
        ``[B, C, H, W]``.
    """
    width = image.shape[3]
    draw = (image * 255).round().long().sum((1, 2, 3)) * 7919 % width
    column = (torch.arange(width, device=image.device) + draw[:, None]) % width
    return grain.gather(3, column[:, None, None].expand_as(grain))
