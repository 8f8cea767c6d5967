"""Losses of InfiniteNature-Zero (Li et al. 2022, section 3), each a function."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
import torch.nn.functional as F

from infinite_nature_training.discriminator import Judgement


def nonsaturating_generator_loss(fake: Sequence[Judgement]) -> Tensor:
    """How far from real frames look, -log D, mean over patches and scales (Goodfellow 2014)."""
    return torch.stack([F.softplus(-scale.logits).mean() for scale in fake]).mean()


def logistic_discriminator_loss(real: Sequence[Judgement], fake: Sequence[Judgement]) -> Tensor:
    """How wrong the discriminator is about real and made frames, mean over the scales."""
    return torch.stack([F.softplus(-one.logits).mean() + F.softplus(other.logits).mean()
                        for one, other in zip(real, fake, strict=True)]).mean()


def gradient_penalty(frames: Tensor, real: Sequence[Judgement]) -> Tensor:
    """R1: squared length of the discriminator's gradient at real frames (Mescheder et al. 2018).

    A patch discriminator says many numbers about a frame; their mean is derived, as if it said
    one, and the mean over the scales.

    Args:
        frames: ``[B, C, H, W]`` that ask for gradients.
        real: what the discriminator said of them.

    Returns:
        Mean over the batch, itself differentiable.
    """
    said = torch.stack([scale.logits.flatten(1).mean(1) for scale in real]).mean(0)
    gradient, = torch.autograd.grad(said.sum(), frames, create_graph=True)
    return gradient.square().sum((1, 2, 3)).mean()
