"""The aerial family, made for long flights: a U-Net adds to a filled view, an anchor holds it.

Holes are filled smoothly; a convolutional network (Ronneberger et al. 2015) that sees the filled
view and grain of the first frame's own pattern adds what that lacks, little where the view is
known, more in holes; then detail and colour are brought nearer to the first frame's (``anchor``).
So every part does what it can: the geometry is exact, the amounts are measured, and the network
decides what the land looks like.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn, Tensor
from torch.nn import functional

from infinite_nature_ros.camera import MAX_DISPARITY, MIN_DISPARITY
from infinite_nature_ros.filling import fill_holes
from infinite_nature_ros.refining.anchor import (
    draw_variety,
    hold_detail,
    measure_detail,
    renew_far,
    tanh,
)
from infinite_nature_ros.refining.grain import detail_of, shuffle_columns
from infinite_nature_ros.refining.openvino_runtime import fits_openvino, OpenVinoRuntime
from infinite_nature_ros.refining.refiner import join_rgbd
from infinite_nature_ros.refining.registry import register_model
from infinite_nature_ros.rendering import Rendered

_LEAK = 0.2

# Largest change of RGB, and of the logarithm of disparity, where the view is known and in holes.
_CHANGE, _LOG_CHANGE = (0.25, 0.6), (0.03, 0.5)

# Inputs: RGB, disparity and known of the view, and three channels of grain.
_INPUTS = 8

# Channels at full size, behind the U-Net.
_FINE = 8

_STYLE = 64

# Every side must be divisible by this: half the size comes in, and that is halved three times.
_DIVISOR = 16


class AerialRefiner(nn.Module):
    """U-Net whose output is added to a view filled by push-pull, held by an anchor.

    Attributes:
        noise_length: 0; what is random about a flight is its first frame's grain.
        precision: in which numbers OpenVINO, where it is installed, runs a finished network on
            the CPU: 'f32', or 'bf16', which is faster and rougher.
    """

    noise_length = 0

    def __init__(self, name: str, widths: tuple[int, ...], grounding: bool = True) -> None:
        """Build an untrained network, which adds nothing.

        Args:
            name: of the registered model.
            widths: channels at a half, a quarter ... of the size.
            grounding: whether flights hold the disparity's scale still.
        """
        super().__init__()
        self.config: dict[str, Any] = {'name': name, 'grounding': grounding}
        self.grounding = grounding
        self.encoder = _StyleEncoder()
        self.network = _UNet(widths)
        self.precision = 'f32'
        self._openvino = OpenVinoRuntime()
        self.to(memory_format=torch.channels_last)

    def begin(self, image: Tensor, disparity: Tensor,
              seed: int | None = None) -> dict[str, Tensor]:
        """Look at the first frame; see ``Refiner``. Nothing is drawn."""
        return self.style(image, disparity, None)

    def style(self, image: Tensor, disparity: Tensor, noise: Tensor | None) -> dict[str, Tensor]:
        """Look at the first frame; see ``TrainableRefiner``.

        Raises:
            ValueError: if the shapes don't fit, or a side is not divisible by 16.
        """
        rgbd = join_rgbd(image, disparity)
        if image.shape[2] % _DIVISOR or image.shape[3] % _DIVISOR:
            raise ValueError(f'image is {image.shape[2]} x {image.shape[3]}; give sides divisible '
                             f'by {_DIVISOR}')
        with torch.autocast(image.device.type, enabled=False):
            energy, colour = measure_detail(image, disparity)
        detail = detail_of(image)
        deviation = detail.square().mean((1, 2, 3), keepdim=True).sqrt().clamp(min=1e-3)
        return {'style': self.encoder(2 * rgbd - 1), 'energy': energy, 'colour': colour,
                'grain': detail / deviation,
                'variety': draw_variety(image)}

    def refine(self, rendered: Rendered, state: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Fill the view, add to it, and hold it; see ``Refiner``."""
        image, disparity = fill_holes(rendered)
        image = renew_far(image, disparity, shuffle_columns(state['variety'], image),
                          state['energy'])
        known = rendered.known
        view = torch.cat([2 * image - 1, _log_scaled(disparity), 2 * known - 1,
                          0.5 * shuffle_columns(state['grain'], image)], dim=1)
        added = tanh(self._run(view, state['style']).to(image.dtype))
        image = image + added[:, :3] * _between(_CHANGE, known)
        disparity = disparity * (added[:, 3:] * _between(_LOG_CHANGE, known)).exp()
        disparity = disparity.clamp(MIN_DISPARITY, MAX_DISPARITY)
        with torch.autocast(image.device.type, enabled=False):
            image = hold_detail(image, disparity, state['energy'], state['colour'])
        return image.clamp(0, 1), disparity

    def _run(self, view: Tensor, style: Tensor) -> Tensor:
        """Call the U-Net, by the fastest runtime that does."""
        if fits_openvino(self.network, view, style):
            return self._openvino.run(self.network, view, style, precision=self.precision)
        return self.network(view.contiguous(memory_format=torch.channels_last), style)


class _UNet(nn.Module):
    """What is to be added to a view, before it is bounded."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        pairs = list(zip(widths, widths[1:], strict=False))
        self.enter = _conv(4 * _INPUTS, widths[0])
        self.before = nn.ModuleList(_Block(width) for width in widths)
        self.down = nn.ModuleList(_conv(fine, coarse, stride=2) for fine, coarse in pairs)
        self.up = nn.ModuleList(_conv(coarse, fine) for fine, coarse in pairs)
        self.after = nn.ModuleList(nn.ModuleList([_Block(width), _Block(width)])
                                   for width in widths)
        self.leave = _conv(widths[0], 4 * _FINE)
        self.fine = _conv(_FINE + _INPUTS, 2 * _FINE)
        self.last = _conv(2 * _FINE, 4)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, view: Tensor, style: Tensor) -> Tensor:
        """``[B, 4, H, W]`` from ``[B, 8, H, W]`` and ``[B, 64]``."""
        features, levels = self.enter(functional.pixel_unshuffle(view, 2)), []
        for number, block in enumerate(self.before):
            if number:
                features = self.down[number - 1](_activate(features))
            features = block(features, style)
            levels.append(features)
        for number in reversed(range(len(levels))):
            if number < len(levels) - 1:
                features = functional.interpolate(features, scale_factor=2.0, mode='nearest')
                features = self.up[number](features) + levels[number]
            for block in self.after[number]:
                features = block(features, style)
        fine = functional.pixel_shuffle(self.leave(_activate(features)), 2)
        fine = self.fine(torch.cat([fine, view.to(fine.dtype)], dim=1))
        return self.last(_activate(fine))


class _Block(nn.Module):
    """Two convolutions beside a shortcut; the style scales and shifts between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = _conv(width, width)
        self.second = _conv(width, width)
        self.style = nn.Linear(_STYLE, 2 * width)
        # Whatever its depth the network starts out as its shortcuts.
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)

    def forward(self, features: Tensor, style: Tensor) -> Tensor:
        """``[B, width, h, w]`` to the same."""
        scale, shift = self.style(style)[..., None, None].chunk(2, dim=1)
        inner = self.first(_activate(features)) * (1 + scale) + shift
        return features + self.second(_activate(inner))


class _StyleEncoder(nn.Module):
    """What a flight's first frame looks like, in 64 numbers."""

    def __init__(self) -> None:
        super().__init__()
        widths = (4, 16, 32, 64, 64, 64)
        self.layers = nn.ModuleList(_conv(inputs, outputs, stride=2) for inputs, outputs
                                    in zip(widths, widths[1:], strict=False))
        self.summary = nn.Linear(widths[-1], _STYLE)

    def forward(self, rgbd: Tensor) -> Tensor:
        """``[B, 64]`` from ``[B, 4, H, W]`` in [-1, 1]."""
        features = rgbd
        for layer in self.layers:
            features = _activate(layer(features))
        return self.summary(features.mean((2, 3))).to(rgbd.dtype)


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, 1)


def _activate(features: Tensor) -> Tensor:
    return functional.leaky_relu(features, _LEAK)


def _log_scaled(disparity: Tensor) -> Tensor:
    """Logarithm of disparity, brought to [-1, 1]."""
    return 1 - disparity.log() * (2 / math.log(MIN_DISPARITY))


def _between(changes: tuple[float, float], known: Tensor) -> Tensor:
    where_known, in_holes = changes
    return in_holes + (where_known - in_holes) * known


@register_model('aerial-small', needs_weights=True)
def aerial_small(grounding: bool = True, image_size: Any = None) -> AerialRefiner:
    """Build the size that is meant for two CPU cores; it takes frames of any size."""
    return AerialRefiner('aerial-small', (32, 64, 128, 160), grounding)
