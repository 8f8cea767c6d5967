"""Style consistency: how far the textures of later frames are from the start's."""

from __future__ import annotations

import torch
from torch import Tensor

from infinite_nature_training.features import Vgg16

# One of every scale, as in Gatys et al. 2016.
_LAYERS = ('conv1_1', 'conv2_1', 'conv3_1', 'conv4_1', 'conv5_1')

# InfiniteNature-Zero's table has its figures times this.
_UNIT = 1e5


@torch.no_grad()
def style_distance(start: Tensor, frames: Tensor, vgg: Vgg16) -> Tensor:
    """Distance of frames to the start of their flight by the Gram matrices of VGG16.

    InfiniteNature-Zero reports a style loss between start and frames, times 1e5; which network,
    layers and normalisation it takes is not told where we could read. Ours: Gram matrices of the
    first layer of each scale, divided by channels times pixels; of their differences the mean
    square, summed over the layers. It is for comparing models with each other.

    Args:
        start: ``[1, 3, H, W]`` RGB in [0, 1].
        frames: ``[N, 3, H, W]``.
        vgg: of ``load_vgg16``.

    Returns:
        ``[N]`` distances, times 1e5.
    """
    wanted, given = vgg(start, _LAYERS), vgg(frames, _LAYERS)
    return _UNIT * sum((_gram(given[name]) - _gram(wanted[name])).square().mean((1, 2))
                       for name in _LAYERS)


def _gram(activations: Tensor) -> Tensor:
    """``[N, C, C]`` products of channels, over channels times pixels."""
    flat = activations.flatten(2)
    return flat @ flat.transpose(1, 2) / (flat.shape[1] * flat.shape[2])
