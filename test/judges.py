"""Networks that judge flights in tests: they cost nothing, and are fetched from nowhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn, Tensor
import torch.nn.functional as F

from infinite_nature_training.evaluation.measuring import Networks


class Shrunken(nn.Module):
    """Says what a picture looks like in 3 x 4 pixels."""

    name = 'shrunken-0'

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()), requires_grad=False)

    def forward(self, images: Tensor) -> Tensor:
        return (self.gain * F.adaptive_avg_pool2d(images, (3, 4))).flatten(1)


class Difference(nn.Module):
    """Mean absolute difference."""

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        return (one - other).abs().mean((1, 2, 3))


class Colours(nn.Module):
    """Gives the picture itself, smaller, as every layer's activations."""

    def forward(self, image: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        return dict.fromkeys(layers, F.avg_pool2d(image, 8))


@dataclass(frozen=True)
class Judges:
    """As ``measuring.NetworkFiles``."""

    def load(self) -> Networks:
        return Networks(Shrunken(), Difference(), Colours())
