"""Discriminator: two PatchGANs that judge RGB-D frames at full and half scale (release)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import nn, Tensor
import torch.nn.functional as F
from torch.nn.utils import parametrizations

_LEAK = 0.2


class Judgement(NamedTuple):
    """What a discriminator says at one scale.

    Attributes:
        logits: ``[B, 1, h, w]``, high where a patch looks real.
        features: activations of the normed layers, for feature matching.
    """

    logits: Tensor
    features: list[Tensor]


class PatchDiscriminator(nn.Module):
    """Five 4 x 4 convolutions; each logit sees 70 x 70 pixels (release, ``loss_impl``)."""

    def __init__(self, channels: int = 4, width: int = 64, spectral_norm: bool = True) -> None:
        """Build it.

        Args:
            channels: channels of the frames that are judged.
            width: channels behind the first convolution, up to 8 times as many later.
            spectral_norm: whether the three normed layers are under spectral norm.
        """
        super().__init__()
        norm = parametrizations.spectral_norm if spectral_norm else nn.Identity()
        self.first = _conv(channels, width)
        self.normed = nn.ModuleList(norm(_conv(inputs * width, 2 * inputs * width, stride))
                                    for inputs, stride in ((1, 2), (2, 2), (4, 1)))
        self.last = _conv(8 * width, 1, stride=1)

    def forward(self, frames: Tensor) -> Judgement:
        """Judge ``[B, 4, H, W]`` RGB-D in [0, 1]."""
        # As the release has it: neither norm nor activation behind the first layer.
        x = self.first(_pad(frames))
        features = []
        for conv in self.normed:
            x = F.leaky_relu(F.instance_norm(conv(_pad(x))), _LEAK)
            features.append(x)
        return Judgement(self.last(_pad(x)), features)


class MultiscaleDiscriminator(nn.Module):
    """The same network twice, with weights of its own for each scale; 5,531,522 parameters."""

    def __init__(self, width: int = 64, spectral_norm: bool = True, scales: int = 2) -> None:
        """Build it; every further scale sees the frames at half the size of the last."""
        super().__init__()
        self.scales = nn.ModuleList(PatchDiscriminator(4, width, spectral_norm)
                                    for _ in range(scales))

    def forward(self, frames: Tensor) -> list[Judgement]:
        """Judge ``[B, 4, H, W]`` RGB-D in [0, 1], from the full scale down."""
        judgements = []
        for number, network in enumerate(self.scales):
            if number:
                frames = F.avg_pool2d(frames, 2)
            judgements.append(network(frames))
        return judgements


def part_judgements(judgements: Sequence[Judgement],
                    count: int) -> tuple[list[Judgement], list[Judgement]]:
    """Part what was said of a batch: of its first ``count`` frames, and of the others."""
    first, rest = ([Judgement(scale.logits[rows], [feature[rows] for feature in scale.features])
                    for scale in judgements] for rows in (slice(count), slice(count, None)))
    return first, rest


def _conv(inputs: int, outputs: int, stride: int = 2) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 4, stride)


def _pad(x: Tensor) -> Tensor:
    """Reflect 3 pixels more in each direction, the odd one right and below (release, ``ops``)."""
    return F.pad(x, (1, 2, 1, 2), mode='reflect')
