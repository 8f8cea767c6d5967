"""The SPADE family: the official refinement network and style encoder, exact, and smaller sizes.

The generator paints RGB and disparity from a style code; at every scale, SPADE layers (Park et
al. 2019) steer it by the rendered view and its mask. All details are the release's (``networks``,
``spade``, ``ops``). Spectral norm is part of training only: inference networks hold plain
convolutions, ``add_spectral_norm`` turns a network into the one that is trained, and
``save_weights`` folds it back.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn, Tensor
import torch.nn.functional as F
from torch.nn.utils import parametrizations

from infinite_nature_ros.refining.refiner import join_rgbd
from infinite_nature_ros.refining.registry import register_model
from infinite_nature_ros.rendering import Rendered

STYLE_LENGTH = 256
"""Length of the style code z in every size of the family."""

_STRIDE = 32  # five doublings from the start grid to the image
_MIN_SIDE = 64  # below, the start grid is a single row and cannot be padded by reflection
_LEAK = 0.2


class Spade(nn.Module):
    """Instance norm whose scale and shift, pixel by pixel, come from the condition image."""

    def __init__(self, channels: int, hidden: int) -> None:
        """Build the layer for a number of channels, with ``hidden`` channels on the way."""
        super().__init__()
        self.conv_cond = _conv(5, hidden)
        # Unlike everywhere else, zeros surround what gamma and beta see.
        self.gamma = nn.Conv2d(hidden, channels, 3, padding=1)
        self.beta = nn.Conv2d(hidden, channels, 3, padding=1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Normalise ``[B, C, h, w]`` under the condition ``[B, 5, h, w]``."""
        hidden = F.relu(self.conv_cond(condition))
        return _instance_norm(x) * (1 + self.gamma(hidden)) + self.beta(hidden)


class SpadeBlock(nn.Module):
    """Residual block of twice SPADE, LeakyReLU, convolution."""

    def __init__(self, inputs: int, outputs: int, hidden: int) -> None:
        """Build the block; where inputs and outputs differ, the shortcut is learned."""
        super().__init__()
        middle = min(inputs, outputs)
        self.spade = nn.ModuleList([Spade(inputs, hidden), Spade(middle, hidden)])
        self.conv = nn.ModuleList([_conv(inputs, middle), _conv(middle, outputs)])
        self.shortcut_spade = self.shortcut_conv = None
        if inputs != outputs:
            self.shortcut_spade = Spade(inputs, hidden)
            self.shortcut_conv = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """``[B, outputs, h, w]`` from ``[B, inputs, h, w]`` and the full condition image."""
        condition = F.interpolate(condition, x.shape[-2:], mode='area')
        out = x
        for spade, conv in zip(self.spade, self.conv, strict=True):
            out = conv(F.leaky_relu(spade(out, condition), _LEAK))
        if self.shortcut_conv is not None:
            x = self.shortcut_conv(self.shortcut_spade(x, condition))
        return x + out


class SpadeGenerator(nn.Module):
    """The refinement network: from a rendered view and a style code to a finished view."""

    def __init__(self, width: int, hidden: int, image_size: tuple[int, int]) -> None:
        """Build for ``width`` channels at the image's scale, 16 times as many at the start."""
        super().__init__()
        height, breadth = (side // _STRIDE for side in image_size)
        self.start_grid = (16 * width, height, breadth)
        self.linear = nn.Linear(STYLE_LENGTH, 16 * width * height * breadth)
        self.head = SpadeBlock(16 * width, 16 * width, hidden)
        self.middle = nn.ModuleList(SpadeBlock(16 * width, 16 * width, hidden) for _ in range(2))
        self.up = nn.ModuleList(SpadeBlock(2 * outputs, outputs, hidden)
                                for outputs in (8 * width, 4 * width, 2 * width, width))
        self.conv = _conv(width, 4)

    def forward(self, rgbd: Tensor, known: Tensor, z: Tensor) -> Tensor:
        """Paint ``[B, 4, H, W]`` RGB-D in (0, 1).

        Args:
            rgbd: ``[B, 4, H, W]`` rendered RGB and disparity, 0 in holes.
            known: ``[B, 1, H, W]`` the rendered mask.
            z: ``[B, 256]`` style codes.
        """
        condition = torch.cat([2 * rgbd - 1, known], dim=1)
        x = self._start(z, (rgbd.shape[-2] // _STRIDE, rgbd.shape[-1] // _STRIDE))
        x = _upsample(self.head(x, condition))
        for block in self.middle:
            x = block(x, condition)
        for block in self.up:
            x = block(_upsample(x), condition)
        return 0.5 * (torch.tanh(self.conv(F.leaky_relu(x, _LEAK))) + 1)

    def _start(self, z: Tensor, grid: tuple[int, int]) -> Tensor:
        """``[B, C, h, w]`` start grid, resampled where the image is not of the trained size."""
        x = self.linear(z).unflatten(1, self.start_grid)
        if grid == self.start_grid[1:]:
            return x
        return F.interpolate(x, grid, mode='bilinear')


class StyleEncoder(nn.Module):
    """The style encoder: from a first frame to the distribution of its style code."""

    def __init__(self, width: int, image_size: tuple[int, int]) -> None:
        """Build for ``width`` channels after the first convolution, up to 8 times as many later."""
        super().__init__()
        channels = [4, *(width * factor for factor in (1, 2, 4, 8, 8, 8))]
        self.conv = nn.ModuleList(_conv(inputs, outputs, stride=2)
                                  for inputs, outputs in pairwise(channels))
        height, breadth = (-(-side // 2 ** len(self.conv)) for side in image_size)
        self.end_grid = (channels[-1], height, breadth)
        self.linear_mu = nn.Linear(channels[-1] * height * breadth, STYLE_LENGTH)
        self.linear_logvar = nn.Linear(channels[-1] * height * breadth, STYLE_LENGTH)

    def forward(self, rgbd: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance ``[B, 256]`` of the style of ``[B, 4, H, W]`` RGB-D."""
        x = 2 * rgbd - 1
        for conv in self.conv:
            x = F.leaky_relu(_instance_norm(conv(x)), _LEAK)
        x = x.flatten(1)
        return self.linear_mu(x), self.linear_logvar(x)


class SpadeRefiner(nn.Module):
    """Style encoder and generator as a refiner; every operation is differentiable.

    A network is trained at one image size but refines views of any size divisible by 32, at
    least 64: the style is then encoded from the first frame shrunk or stretched to the trained
    size, and the generator's start grid is resampled.
    """

    noise_length = STYLE_LENGTH

    def __init__(self, name: str, width: int, hidden: int, image_size: tuple[int, int],
                 grounding: bool = True) -> None:
        """Build an untrained network.

        Args:
            name: the registered name that rebuilds it.
            width: channels of the generator at the image's scale; the encoder starts with half.
            hidden: channels inside each SPADE layer.
            image_size: height and width it is trained at.
            grounding: whether flights ground what it paints; without, it is the paper's ablation.

        Raises:
            ValueError: if a side is not divisible by 32, or below 64.
        """
        super().__init__()
        _check_size(*image_size)
        self.config = {'name': name, 'image_size': list(image_size)}
        if not grounding:
            self.config['grounding'] = False
        self.grounding = grounding
        self.image_size = tuple(image_size)
        self.encoder = StyleEncoder(width // 2, self.image_size)
        self.generator = SpadeGenerator(width, hidden, self.image_size)

    def encode(self, image: Tensor, disparity: Tensor) -> tuple[Tensor, Tensor]:
        """Distribution of a frame's style code.

        Args:
            image: ``[B, 3, H, W]`` RGB in [0, 1].
            disparity: ``[B, 1, H, W]`` in [0.01, 1].

        Returns:
            mean and log variance, ``[B, 256]`` each.

        Raises:
            ValueError: if the shapes don't fit each other.
        """
        rgbd = join_rgbd(image, disparity)
        return self.encoder(F.interpolate(rgbd, self.image_size, mode='area'))

    def style(self, image: Tensor, disparity: Tensor, noise: Tensor | None) -> Tensor:
        """Style codes ``[B, 256]`` drawn from their distributions; see ``TrainableRefiner``."""
        mu, logvar = self.encode(image, disparity)
        return mu if noise is None else mu + noise * (0.5 * logvar).exp()

    def begin(self, image: Tensor, disparity: Tensor, seed: int | None = None) -> Tensor:
        """Style codes ``[B, 256]`` for the whole flight: the mean, so that no seed is needed."""
        return self.style(image, disparity, None)

    def refine(self, rendered: Rendered, state: Tensor) -> tuple[Tensor, Tensor]:
        """Paint the view anew: image ``[B, 3, H, W]`` and disparity ``[B, 1, H, W]`` in (0, 1).

        Raises:
            ValueError: if a side is not divisible by 32 or below 64, or the shapes don't fit.
        """
        rgbd = join_rgbd(rendered.image, rendered.disparity)
        _check_size(*rgbd.shape[-2:])
        if state.shape != (len(rgbd), STYLE_LENGTH):
            raise ValueError(f'state is {list(state.shape)} for {len(rgbd)} views; '
                             f'give [{len(rgbd)}, {STYLE_LENGTH}], as begin returned it')
        refined = self.generator(rgbd, rendered.known, state)
        return refined[:, :3], refined[:, 3:]


@register_model('infinite-nature', needs_weights=True)
def infinite_nature(image_size: tuple[int, int] = (160, 256), **options: bool) -> SpadeRefiner:
    """Build the official network: 35,852,596 parameters, 73.4 GFLOP a view at 160 x 256."""
    return SpadeRefiner('infinite-nature', 32, 128, image_size, **options)


@register_model('infinite-nature-small', needs_weights=True)
def infinite_nature_small(image_size: tuple[int, int] = (160, 256),
                          **options: bool) -> SpadeRefiner:
    """Build half the width: 8,904,348 parameters, 11.1 GFLOP a view at 160 x 256."""
    return SpadeRefiner('infinite-nature-small', 16, 32, image_size, **options)


@register_model('infinite-nature-tiny', needs_weights=True)
def infinite_nature_tiny(image_size: tuple[int, int] = (160, 256), **options: bool) -> SpadeRefiner:
    """Build a quarter of the width: 3,398,704 parameters, 5.0 GFLOP a view at 160 x 256."""
    return SpadeRefiner('infinite-nature-tiny', 8, 32, image_size, **options)


def spectral_convolutions(network: nn.Module) -> dict[str, nn.Conv2d]:
    """Find the layers that the release trains under spectral norm: all but SPADE's own.

    A network may name further ones that stay without it in an attribute ``without_norm``.
    """
    exempt = {inner for spade in network.modules() if isinstance(spade, Spade)
              for inner in spade.modules()}
    exempt |= set(getattr(network, 'without_norm', ()))
    return {path: module for path, module in network.named_modules()
            if isinstance(module, nn.Conv2d) and module not in exempt}


def add_spectral_norm(network: nn.Module) -> nn.Module:
    """Put a network of this family under spectral norm, in place, for training as the release."""
    for conv in spectral_convolutions(network).values():
        parametrizations.spectral_norm(conv)
    return network


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, padding_mode='reflect')


def _instance_norm(x: Tensor) -> Tensor:
    # The same as F.instance_norm, but three times as fast on a CPU, and defined on a single pixel.
    return F.layer_norm(x, x.shape[-2:], eps=1e-5)


def _upsample(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode='nearest')


def _check_size(height: int, width: int) -> None:
    if height % _STRIDE or width % _STRIDE or min(height, width) < _MIN_SIDE:
        raise ValueError(f'the image size is {height} x {width}; give a height and a width '
                         f'divisible by {_STRIDE}, at least {_MIN_SIDE}')
