"""The co-modulated family: InfiniteNature-Zero's generator (CoModGAN, Zhao et al. 2021) and sizes.

A StyleGAN2 whose layers are steered by two codes at once: one is mapped from noise, the other
encodes the flight's first frame. A second encoder looks at the rendered view; its coarsest
features are what the synthesis starts from, the finer ones are added on the way up. The layers
are the release's (``co_mod_gan`` over rosinality's ``model``).

The release draws noise anew at every step and leaves dropout on, so that no two of its runs are the
same. Here all that is random about a flight is drawn once, from its seed, and is part of the state.
"""

from __future__ import annotations

from itertools import pairwise
import math

import torch
from torch import nn, Tensor
import torch.nn.functional as F

from infinite_nature_ros.camera import MAX_DISPARITY, MIN_DISPARITY
from infinite_nature_ros.refining.refiner import join_rgbd
from infinite_nature_ros.refining.registry import register_model
from infinite_nature_ros.refining.stylegan2 import (
    EqualConv,
    EqualLinear,
    pixel_norm,
    scaled_leaky_relu,
    StyledConv,
    ToPicture,
    upsample,
)
from infinite_nature_ros.rendering import Rendered

TRUNCATION = 0.7
"""How far the style of a flight lies from the mean style, of how far it was drawn (release)."""

_LEVELS = 5  # halvings of the resolution, from the view to the coarsest features
_STRIDE = 2 ** _LEVELS

# The release's networks see a mask of zeros and ones; the mesh renderer's has edges.
_KNOWN_THRESHOLD = 0.5

# How much of a batch's mean goes into the mean style.
_MEAN_RATE = 0.02


class Mapping(nn.Module):
    """From noise to style: eight dense layers that learn a hundredth as fast as all others."""

    def __init__(self, length: int) -> None:
        """Build for codes of a length."""
        super().__init__()
        self.layers = nn.ModuleList(EqualLinear(length, length, rate=0.01) for _ in range(8))

    def forward(self, z: Tensor) -> Tensor:
        """Styles ``[B, length]`` of normal noise ``[B, length]``."""
        x = pixel_norm(z)
        for layer in self.layers:
            x = scaled_leaky_relu(layer(x))
        return x


class EncoderBlock(nn.Module):
    """Features of one resolution, and the way to half of it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        """Build for channels here and below."""
        super().__init__()
        self.conv = EqualConv(inputs, inputs, 3)
        self.down = EqualConv(inputs, outputs, 3, down=True)


class Encoder(nn.Module):
    """From an image to its features at every resolution."""

    def __init__(self, inputs: int, channels: list[int]) -> None:
        """Build for the channels of the image, and of the features from fine to coarse."""
        super().__init__()
        self.input = EqualConv(inputs, channels[0], 1)
        self.blocks = nn.ModuleList(EncoderBlock(*pair) for pair in pairwise(channels))
        self.last = EqualConv(channels[-1], channels[-1], 3)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Features ``[B, C, h, w]`` of ``[B, inputs, H, W]``, from coarse to fine."""
        x = self.input(x)
        features = []
        for block in self.blocks:
            features.append(block.conv(x))
            x = block.down(features[-1])
        return [self.last(x), *reversed(features)]


class StyleEncoder(Encoder):
    """From a flight's first frame to its global code, as long as the coarsest features are deep."""

    def __init__(self, channels: list[int], image_size: tuple[int, int]) -> None:
        """Build for frames of one size alone."""
        super().__init__(4, channels)
        cells = math.prod(side // _STRIDE for side in image_size)
        self.linear = EqualLinear(channels[-1] * cells, channels[-1])

    def forward(self, x: Tensor) -> Tensor:
        """Global codes ``[B, length]`` of RGB-D ``[B, 4, H, W]`` in [-1, 1]."""
        return scaled_leaky_relu(self.linear(super().forward(x)[0].flatten(1)))


class SynthesisBlock(nn.Module):
    """Twice the resolution: features, and what they add to the picture."""

    def __init__(self, inputs: int, outputs: int, style_length: int) -> None:
        """Build for channels below and here."""
        super().__init__()
        self.up = StyledConv(inputs, outputs, style_length, up=True)
        self.conv = StyledConv(outputs, outputs, style_length)
        self.to_picture = ToPicture(outputs, 4, style_length)

    def forward(self, x: Tensor, seen: Tensor, style: Tensor,
                noise: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Features and picture of twice the resolution of ``x``, that of the encoder's ``seen``."""
        x = self.up(x, style, noise[0]) + seen
        x = self.conv(x, style, noise[1])
        return x, self.to_picture(x, style)


class Synthesis(nn.Module):
    """From the features of the rendered view to the finished one; fully convolutional."""

    def __init__(self, channels: list[int], style_length: int) -> None:
        """Build for the channels of the features from coarse to fine."""
        super().__init__()
        self.conv = StyledConv(channels[0], channels[0], style_length)
        self.to_picture = ToPicture(channels[0], 4, style_length)
        self.blocks = nn.ModuleList(SynthesisBlock(*pair, style_length)
                                    for pair in pairwise(channels))

    def forward(self, features: list[Tensor], style: Tensor, noise: list[Tensor]) -> Tensor:
        """Paint ``[B, 4, H, W]`` RGB-D in (0, 1).

        Args:
            features: of the rendered view, from coarse to fine.
            style: ``[B, style_length]``, both codes.
            noise: ``[B, 1, h, w]`` for each layer.
        """
        x = self.conv(features[0], style, noise[0])
        picture = self.to_picture(x, style)
        pairs = zip(noise[1::2], noise[2::2], strict=True)
        for block, seen, pair in zip(self.blocks, features[1:], pairs, strict=True):
            x, detail = block(x, seen, style, pair)
            picture = upsample(picture) + detail
        return 0.5 * (torch.tanh(picture) + 1)


class CoModRefiner(nn.Module):
    """Mapping, encoders and synthesis as a refiner; every operation is differentiable.

    A network is trained at one image size but refines views of any size divisible by 32: only
    the global code is then encoded from the first frame shrunk or stretched to the trained size.

    The state of a flight: ``style`` and ``global_code`` ``[B, L]``, and ``noise`` ``[B, N]``, the
    noise of all layers one after the other, for the size of view that the flight began with.
    """

    def __init__(self, name: str, width: int, image_size: tuple[int, int],
                 grounding: bool = False) -> None:
        """Build an untrained network.

        Args:
            name: the registered name that rebuilds it.
            width: channels at the view's scale; the codes are four times as long.
            image_size: height and width it is trained at.
            grounding: whether flights ground what it paints; the release's don't.

        Raises:
            ValueError: if a side is not divisible by 32.
        """
        super().__init__()
        _check_size(*image_size)
        self.config = {'name': name, 'image_size': list(image_size)}
        if grounding:
            self.config['grounding'] = True
        self.grounding = grounding
        self.image_size = tuple(image_size)
        self.code_length = 4 * width
        channels = _channels(width, self.code_length)
        self.mapping = Mapping(self.code_length)
        self.style_encoder = StyleEncoder(_channels(width // 2, self.code_length), self.image_size)
        self.feature_encoder = Encoder(5, channels)
        self.synthesis = Synthesis(channels[::-1], 2 * self.code_length)
        self.register_buffer('mean_style', torch.zeros(self.code_length))

    @property
    def noise_length(self) -> int:
        """Numbers that ``style`` takes for each frame of the trained size."""
        return 2 * self.code_length + _count_noise(self.image_size)

    def begin(self, image: Tensor, disparity: Tensor,
              seed: int | None = None) -> dict[str, Tensor]:
        """Draw a style near the mean and the noise of all layers; see ``Refiner``."""
        rgbd = self._check_frame(image, disparity)
        generator = None if seed is None else torch.Generator(image.device).manual_seed(seed)
        length = self.code_length + _count_noise(image.shape[-2:])
        # One by one, so that a world's noise doesn't depend on how many fly beside it.
        drawn = torch.stack([torch.randn(length, generator=generator, device=image.device,
                                         dtype=image.dtype) for _ in image])
        z, noise = drawn.tensor_split([self.code_length], dim=1)
        return {'style': self.mean_style.lerp(self.mapping(z), TRUNCATION),
                'global_code': self._encode(rgbd), 'noise': noise}

    def style(self, image: Tensor, disparity: Tensor,
              noise: Tensor | None) -> dict[str, Tensor]:
        """State of a flight for training: no truncation, half of the global code dropped.

        In training mode, the mean style follows.

        Args:
            image: ``[B, 3, H, W]`` RGB in [0, 1], the first frame.
            disparity: ``[B, 1, H, W]`` in [0.01, 1].
            noise: ``[B, noise_length]`` standard normal: what the style is mapped from, what
                drops numbers of the global code where it is negative, and the noise of the
                layers; ``None``: the mean style, nothing dropped, no noise.

        Raises:
            ValueError: if the shapes don't fit.
        """
        rgbd = self._check_frame(image, disparity)
        count = _count_noise(image.shape[-2:])
        if noise is None:
            return {'style': self.mean_style.repeat(len(image), 1),
                    'global_code': self._encode(rgbd), 'noise': image.new_zeros(len(image), count)}
        length = 2 * self.code_length + count
        if noise.shape != (len(image), length):
            raise ValueError(f'noise is {list(noise.shape)} for {len(image)} frames of '
                             f'{image.shape[-2]} x {image.shape[-1]}; give {[len(image), length]}')
        z, kept, noise = noise.split([self.code_length, self.code_length, count], dim=1)
        style = self.mapping(z)
        if self.training:
            # The first batch sets it.
            rate = _MEAN_RATE if self.mean_style.any() else 1.0
            self.mean_style.lerp_(style.detach().mean(0), rate)
        return {'style': style, 'global_code': 2 * (kept > 0) * self._encode(rgbd), 'noise': noise}

    def refine(self, rendered: Rendered, state: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Paint the view anew: image ``[B, 3, H, W]`` and disparity ``[B, 1, H, W]`` in (0, 1).

        Raises:
            ValueError: if a side is not divisible by 32, or the shapes don't fit.
        """
        rgbd = join_rgbd(rendered.image, rendered.disparity)
        size = rgbd.shape[-2:]
        _check_size(*size)
        if state['noise'].shape != (len(rgbd), _count_noise(size)):
            raise ValueError(f'the state is not of {len(rgbd)} flights of {size[0]} x {size[1]}; '
                             'begin with frames of the size of the views')
        features = self.feature_encoder(_network_input(rgbd, rendered.known))
        style = torch.cat([state['style'], state['global_code']], dim=1)
        refined = self.synthesis(features, style, _split_noise(state['noise'], size))
        return refined[:, :3], refined[:, 3:]

    @torch.no_grad()
    def update_mean_style(self, samples: int = 50_000, seed: int = 0) -> None:
        """Set the mean style to that of many samples, the release's 50,000 unless told.

        It is kept by training, and stored with the weights: this is for weights from elsewhere.
        """
        device = self.mean_style.device
        generator = torch.Generator(device).manual_seed(seed)
        parts = (torch.randn(min(1000, samples - done), self.code_length, generator=generator,
                             device=device) for done in range(0, samples, 1000))
        self.mean_style = sum(self.mapping(z).sum(0) for z in parts) / samples

    def _check_frame(self, image: Tensor, disparity: Tensor) -> Tensor:
        rgbd = join_rgbd(image, disparity)
        _check_size(*rgbd.shape[-2:])
        return rgbd

    def _encode(self, rgbd: Tensor) -> Tensor:
        """Global code ``[B, L]`` of ``[B, 4, H, W]``."""
        return self.style_encoder(2 * F.interpolate(rgbd, self.image_size, mode='area') - 1)


@register_model('comodgan', needs_weights=True)
def comodgan(image_size: tuple[int, int] = (128, 128), **options: bool) -> CoModRefiner:
    """Build the release's network: 65,239,843 parameters, 45 GFLOP a view at 128 x 128."""
    return CoModRefiner('comodgan', 128, image_size, **options)


@register_model('comodgan-tiny', needs_weights=True)
def comodgan_tiny(image_size: tuple[int, int] = (160, 256), **options: bool) -> CoModRefiner:
    """Build a quarter of the width: 4,477,411 parameters, 7 GFLOP a view at 160 x 256."""
    return CoModRefiner('comodgan-tiny', 32, image_size, **options)


def _channels(finest: int, most: int) -> list[int]:
    """Channels at each resolution, from fine to coarse."""
    return [min(finest * 2 ** level, most) for level in range(_LEVELS + 1)]


def _network_input(rgbd: Tensor, known: Tensor) -> Tensor:
    """``[B, 5, H, W]`` in [-1, 1]: RGB, disparity and mask as the release's renderer gives them."""
    # Rendered values are dimmed by the mask, whose square is known.
    whole = rgbd / known.clamp(min=_KNOWN_THRESHOLD).sqrt()
    mask = (known > _KNOWN_THRESHOLD).to(rgbd.dtype)
    disparity = whole[:, 3:].clamp(MIN_DISPARITY, MAX_DISPARITY)
    return 2 * torch.cat([whole[:, :3] * mask, disparity * mask, mask], dim=1) - 1


def _noise_sizes(size: tuple[int, int]) -> list[tuple[int, int]]:
    """Height and width of each layer's noise: one at the coarsest resolution, then two at each."""
    levels = [_LEVELS, *(level for level in reversed(range(_LEVELS)) for _ in range(2))]
    return [(size[0] >> level, size[1] >> level) for level in levels]


def _count_noise(size: tuple[int, int]) -> int:
    return sum(map(math.prod, _noise_sizes(size)))


def _split_noise(noise: Tensor, size: tuple[int, int]) -> list[Tensor]:
    """``[B, 1, h, w]`` for each layer, of ``[B, N]`` for all."""
    sizes = _noise_sizes(size)
    parts = noise.split([math.prod(layer) for layer in sizes], dim=1)
    return [part.unflatten(1, (1, *layer)) for part, layer in zip(parts, sizes, strict=True)]


def _check_size(height: int, width: int) -> None:
    if height % _STRIDE or width % _STRIDE or min(height, width) < _STRIDE:
        raise ValueError(f'the image size is {height} x {width}; give a height and a width '
                         f'divisible by {_STRIDE}')
