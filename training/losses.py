"""Losses of Infinite Nature (paper, section 5; release, ``loss_impl``), each a function."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn, Tensor
import torch.nn.functional as F

from infinite_nature_training.discriminator import Judgement
from infinite_nature_training.features import Vgg16

# Layers that are compared and what their difference is divided by (release, after Chen and
# Koltun, 2017).
_PERCEPTUAL_LAYERS = {'conv1_2': 2.6, 'conv2_2': 4.8, 'conv3_2': 3.7, 'conv4_2': 5.6,
                      'conv5_2': 0.15}

# The release shows its VGG pictures of 0 to 255, ours divides by ImageNet's deviation: by this
# factor its activations are smaller.
_FEATURE_SCALE = 255 * 0.226


def reconstruction_loss(frames: Tensor, targets: Tensor) -> Tensor:
    """Mean absolute difference of RGB-D ``[B, 4, H, W]``."""
    return F.l1_loss(frames, targets)


def kl_divergence(mu: Tensor, logvar: Tensor) -> Tensor:
    """Divergence of style codes ``[B, 256]`` from the unit normal; summed over all, as released."""
    return -0.5 * (1 + logvar - mu.square() - logvar.exp()).sum()


def generator_loss(fake: Sequence[Judgement]) -> Tensor:
    """Hinge loss of the generator: how far from real its frames look, mean over the scales."""
    return torch.stack([-scale.logits.mean() for scale in fake]).mean()


def discriminator_loss(real: Sequence[Judgement], fake: Sequence[Judgement]) -> Tensor:
    """Hinge loss of the discriminator, mean over the scales."""
    return torch.stack([F.relu(1 - one.logits).mean() + F.relu(1 + other.logits).mean()
                        for one, other in zip(real, fake, strict=True)]).mean()


def feature_matching_loss(real: Sequence[Judgement], fake: Sequence[Judgement]) -> Tensor:
    """Mean absolute difference of the discriminator's features, mean over layers and scales.

    What is learned from it is the fake: the real side is held fixed.
    """
    scales = [torch.stack([F.l1_loss(two, one.detach())
                           for one, two in zip(at_real.features, at_fake.features, strict=True)])
              for at_real, at_fake in zip(real, fake, strict=True)]
    return torch.stack([differences.mean() for differences in scales]).mean()


class PerceptualLoss(nn.Module):
    """Weighted mean absolute difference of VGG's activations.

    The release has VGG19 here; VGG16 has the same layers but for the fourth convolutions of the
    three last scales, which are not compared.
    """

    def __init__(self, network: Vgg16) -> None:
        """Take the network that looks."""
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        """Compare RGB ``[B, 3, H, W]`` in [0, 1]; the targets get no gradient."""
        with torch.no_grad():
            wanted = self.network(targets, tuple(_PERCEPTUAL_LAYERS))
        given = self.network(images, tuple(_PERCEPTUAL_LAYERS))
        return sum((F.l1_loss(given[name], wanted[name]) / divisor
                    for name, divisor in _PERCEPTUAL_LAYERS.items())) * _FEATURE_SCALE
