"""Projected discriminator: judges pictures by features of a frozen network (Sauer et al. 2021).

A discriminator that must first learn what edges and textures are needs days; one that looks through
a network that knows learns in minutes what is wrong with a picture. The network is the encoder of
the sky detector, EfficientNet-Lite0 of ImageNet, which comes with the package. As in the paper its
levels are mixed by random, fixed convolutions, and each mixture is judged by a small network.
"""

from __future__ import annotations

import math

import torch
from torch import nn, Tensor
import torch.nn.functional as F
from torch.nn.utils import parametrizations

from infinite_nature_ros.sky_network import load_sky_network, SkyNetwork
from infinite_nature_training.discriminator import Judgement, PatchDiscriminator

_LEAK = 0.2

# Channels of the mixtures, and of the small networks.
_MIXED, _WIDTH = 64, 64

# The sides of a picture are cut by up to this share, somewhere: few photos stay many.
_CUT = 0.125

# The encoder halves a picture four times.
_DIVISOR = 16


class ProjectedDiscriminator(nn.Module):
    """Judges RGB by frozen features, and RGB-D at half the size by a patch network."""

    def __init__(self, patch_width: int = 32) -> None:
        """Build it; ``patch_width`` is that of the patch network."""
        super().__init__()
        self.encoder = [_frozen_encoder()]  # in a list: its weights are no part of this network
        channels = _channels(self.encoder[0])
        generator = torch.Generator().manual_seed(0)
        self.across = nn.ModuleList(_fixed(count, _MIXED, 1, generator) for count in channels)
        self.along = nn.ModuleList(_fixed(_MIXED, _MIXED, 3, generator) for _ in channels)
        self.heads = nn.ModuleList(_Head(depth) for depth in range(len(channels), 0, -1))
        self.patches = PatchDiscriminator(4, patch_width, spectral_norm=True)

    def forward(self, frames: Tensor) -> list[Judgement]:
        """Judge ``[B, 4, H, W]`` RGB-D in [0, 1]; the last judgement is of the depth as well."""
        frames = _cut(frames)
        self.encoder[0].to(frames)
        levels = self.encoder[0].features(
            frames[:, :3].contiguous(memory_format=torch.channels_last))
        mixed, features = [], None
        for number in reversed(range(len(levels))):
            own = self.across[number](levels[number])
            if features is not None:
                own = own + F.interpolate(features, own.shape[-2:], mode='bilinear')
            features = self.along[number](own)
            mixed.insert(0, features)
        judgements = [Judgement(head(one), []) for head, one
                      in zip(self.heads, mixed, strict=True)]
        return [*judgements, self.patches(F.avg_pool2d(frames, 2))]


class FeatureDistance(nn.Module):
    """How different pictures look to the frozen encoder: L1 of its features, each level's alike."""

    def __init__(self) -> None:
        """Load the encoder."""
        super().__init__()
        self.encoder = _frozen_encoder()

    def forward(self, made: Tensor, real: Tensor) -> Tensor:
        """Mean distance of ``[B, 3, H, W]`` RGB in [0, 1]; only ``made`` gets a gradient."""
        with torch.no_grad():
            wanted = self.encoder.features(real.contiguous(memory_format=torch.channels_last))
        found = self.encoder.features(made.contiguous(memory_format=torch.channels_last))
        return torch.stack([_relative_distance(one, other)
                            for one, other in zip(found, wanted, strict=True)]).mean()


class _Head(nn.Module):
    """Small network that halves a mixture of features until it is as coarse as the coarsest."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        norm = parametrizations.spectral_norm
        self.layers = nn.ModuleList(
            norm(nn.Conv2d(_MIXED if not number else _WIDTH, _WIDTH, 4, 2, 1))
            for number in range(depth - 1))
        self.own = norm(nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1))
        self.last = norm(nn.Conv2d(_WIDTH, 1, 3, padding=1))

    def forward(self, features: Tensor) -> Tensor:
        for layer in self.layers:
            features = F.leaky_relu(layer(features), _LEAK)
        return self.last(F.leaky_relu(self.own(features), _LEAK))


def _relative_distance(made: Tensor, real: Tensor) -> Tensor:
    """Mean L1 distance of features ``[B, C, h, w]``, each picture's relative to their size."""
    sides = (1, 2, 3)
    return ((made - real).abs().mean(sides) / real.abs().mean(sides).clamp(min=1e-3)).mean()


def _frozen_encoder() -> SkyNetwork:
    """Take the encoder of the sky detector, without what decodes the sky."""
    loaded = load_sky_network()
    encoder = SkyNetwork(decoders=0)
    own = encoder.state_dict()
    encoder.load_state_dict({name: value for name, value in loaded.state_dict().items()
                             if name in own})
    encoder.to(memory_format=torch.channels_last)
    return encoder.eval().requires_grad_(False)


def _channels(encoder: SkyNetwork) -> list[int]:
    with torch.no_grad():
        return [level.shape[1] for level in encoder.features(torch.zeros(1, 3, 64, 64))]


def _fixed(inputs: int, outputs: int, size: int, generator: torch.Generator) -> nn.Conv2d:
    """Convolution with random weights that stay."""
    layer = nn.Conv2d(inputs, outputs, size, padding=size // 2)
    with torch.no_grad():
        layer.weight.normal_(0, (2 / (inputs * size * size)) ** 0.5, generator=generator)
        layer.bias.zero_()
    return layer.requires_grad_(False)


def _cut(frames: Tensor) -> Tensor:
    """Cut each frame at a place of its own, all to one size, divisible by 16."""
    height, width = (int(side * (1 - _CUT)) // _DIVISOR * _DIVISOR for side in frames.shape[-2:])
    parts = []
    # Drawn by each picture itself: the same whatever it is judged with, and in a run that goes on.
    for frame, drawn in zip(frames, frames.detach().double().sum((1, 2, 3)).tolist(), strict=True):
        # One that isn't finite is told by the losses.
        generator = torch.Generator().manual_seed(int(1e3 * drawn) if math.isfinite(drawn) else 0)
        top, left = (int(torch.randint(side - part + 1, (), generator=generator))
                     for side, part in zip(frame.shape[1:], (height, width), strict=True))
        parts.append(frame[:, top:top + height, left:left + width])
    return torch.stack(parts)
