"""Objective: the losses of a configuration with their weights, for both networks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from infinite_nature_training.configs import TrainingConfig
from infinite_nature_training.discriminator import Judgement
from infinite_nature_training.losses import (
    discriminator_loss,
    feature_matching_loss,
    generator_loss,
    kl_divergence,
    PerceptualLoss,
    reconstruction_loss,
)
from infinite_nature_training.rollout import Unrolled


class Objective:
    """Weighted losses by name; those of weight 0 are not computed.

    Args:
        config: has the weights.
        perceptual: compares pictures; may be ``None`` where its weight is 0.
        parts: into how many equal parts the global batch is split, over processes and
            accumulation; gradients of the parts are averaged, but one loss is a sum over the
            batch, so each part counts this often.
    """

    def __init__(self, config: TrainingConfig, perceptual: PerceptualLoss | None,
                 parts: int = 1) -> None:
        self._config = config
        self._perceptual = perceptual
        self._parts = parts

    def of_generator(self, unrolled: Unrolled, targets: Tensor, index: Tensor,
                     real: Sequence[Judgement],
                     fake: Sequence[Judgement]) -> dict[str, Tensor]:
        """Losses of the refiner over all steps.

        Args:
            unrolled: what it made.
            targets: ``[B, T, 4, H, W]`` what it should have made.
            index: ``[B]`` global index of the samples.
            real: what the discriminator says of the targets; empty without one.
            fake: what it says of the frames.
        """
        config, losses = self._config, {}
        if config.reconstruction_weight:
            losses['reconstruction'] = (config.reconstruction_weight
                                        * reconstruction_loss(unrolled.frames, targets))
        if config.perceptual_weight:
            steps = self._seen_steps(index, targets.shape[1])
            losses['perceptual'] = config.perceptual_weight * self._perceptual(
                *(_take(frames[:, :, :3], steps) for frames in (unrolled.frames, targets)))
        if config.divergence_weight:
            losses['divergence'] = (config.divergence_weight * self._parts
                                    * kl_divergence(unrolled.mu, unrolled.logvar))
        if config.adversarial_weight:
            losses['adversarial'] = config.adversarial_weight * generator_loss(fake)
        if config.feature_matching_weight:
            losses['feature_matching'] = (config.feature_matching_weight
                                          * feature_matching_loss(real, fake))
        return losses

    def _seen_steps(self, index: Tensor, steps: int) -> Tensor:
        """``[B, n]`` steps whose frames are shown to VGG, other ones for each sample."""
        count = min(self._config.perceptual_steps or steps, steps)
        spread = torch.arange(count, device=index.device) * steps // count
        return (index[:, None] + spread) % steps

    def of_pool(self, fake: Sequence[Judgement]) -> dict[str, Tensor]:
        """Losses of frames that have no real counterpart."""
        return {'pool_adversarial': self._config.pool_weight * generator_loss(fake)}

    def of_discriminator(self, real: Sequence[Judgement],
                         fake: Sequence[Judgement]) -> dict[str, Tensor]:
        """Losses of the discriminator."""
        return {'discriminator': (self._config.adversarial_weight
                                  * discriminator_loss(real, fake))}


def _take(frames: Tensor, steps: Tensor) -> Tensor:
    """``[B * n, C, H, W]`` the steps ``[B, n]`` of frames ``[B, T, C, H, W]``."""
    rows = torch.arange(len(frames), device=frames.device)[:, None]
    return frames[rows, steps].flatten(0, 1)
