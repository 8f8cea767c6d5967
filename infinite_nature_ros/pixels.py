"""Pictures as pixels and as tensors: 8-bit arrays as files have them, and what networks take."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def to_pixels(image: Tensor) -> np.ndarray:
    """Round a picture, or a batch of them, to 8 bits.

    Args:
        image: ``[..., 3, H, W]`` RGB; what lies outside [0, 1] is clipped.

    Returns:
        uint8 ``[..., H, W, 3]``, contiguous.
    """
    rounded = (image.detach().clamp(0, 1) * 255).round().to(torch.uint8)
    return rounded.movedim(-3, -1).contiguous().cpu().numpy()


def from_pixels(pixels: np.ndarray) -> Tensor:
    """``[..., 3, H, W]`` RGB in [0, 1] of uint8 ``[..., H, W, 3]``."""
    return torch.from_numpy(pixels).movedim(-1, -3).float() / 255
