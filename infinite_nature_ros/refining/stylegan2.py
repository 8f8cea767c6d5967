"""Layers of StyleGAN2 (Karras et al. 2020) in plain PyTorch, without kernels to compile.

Weights are stored with unit variance and scaled where they are used ("equalised learning rate"),
so that the weights of other implementations can be copied as they are.
"""

from __future__ import annotations

import math

import torch
from torch import nn, Tensor
import torch.nn.functional as F

BLUR = (1, 3, 3, 1)
"""The binomial filter, along each axis, wherever the resolution changes."""

_LEAK = 0.2


class EqualLinear(nn.Module):
    """Dense layer."""

    def __init__(self, inputs: int, outputs: int, *, rate: float = 1.0, bias: float = 0.0) -> None:
        """Build the layer, which learns ``rate`` times as fast as others and starts at a bias."""
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.full((outputs,), bias))
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """``[B, outputs]`` from ``[B, inputs]``."""
        scale = self.rate / math.sqrt(self.weight.shape[1])
        return F.linear(x, self.weight * scale, self.bias * self.rate)


class EqualConv(nn.Module):
    """Convolution and leaky ReLU; with ``down``, to half the resolution."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, down: bool = False) -> None:
        """Build the layer with a square kernel, 3 where ``down``."""
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.down = down

    def forward(self, x: Tensor) -> Tensor:
        """``[B, outputs, h, w]`` from ``[B, inputs, h, w]``, or half of h and w."""
        weight = self.weight / math.sqrt(self.weight[0].numel())
        if self.down:
            x = F.conv2d(blur(x, padding=2), weight, self.bias, stride=2)
        else:
            x = F.conv2d(x, weight, self.bias, padding='same')
        return scaled_leaky_relu(x)


class ModulatedConv(nn.Module):
    """Convolution whose weights a style scales by input channel.

    Demodulation then scales them by output channel to norm 1 (paper, section 2.2). Scaling what
    goes in and comes out is the same as scaling the weights, and lets a batch share them.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, style_length: int, *,
                 up: bool = False, demodulate: bool = True) -> None:
        """Build the layer with a square kernel, 3 where ``up``, which doubles the resolution."""
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.modulation = EqualLinear(style_length, inputs, bias=1.0)
        self.up = up
        self.demodulate = demodulate

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """``[B, outputs, h, w]``, or twice h and w, under the styles ``[B, style_length]``."""
        weight = self.weight / math.sqrt(self.weight[0].numel())
        scales = self.modulation(style)
        x = x * scales[..., None, None]
        if self.up:
            wide = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
            x = blur(wide, padding=1, gain=4)
        else:
            x = F.conv2d(x, weight, padding='same')
        if self.demodulate:
            squares = scales.square() @ weight.square().sum((2, 3)).T
            x = x * torch.rsqrt(squares + 1e-8)[..., None, None]
        return x


class StyledConv(nn.Module):
    """Modulated convolution, noise of a learned strength, bias and leaky ReLU."""

    def __init__(self, inputs: int, outputs: int, style_length: int, *, up: bool = False) -> None:
        """Build the layer; with ``up``, it doubles the resolution."""
        super().__init__()
        self.conv = ModulatedConv(inputs, outputs, 3, style_length, up=up)
        self.noise_strength = nn.Parameter(torch.zeros(1))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor, style: Tensor, noise: Tensor) -> Tensor:
        """``[B, outputs, h, w]`` under styles ``[B, L]`` and noise ``[B, 1, h, w]``."""
        x = self.conv(x, style) + self.noise_strength * noise
        return scaled_leaky_relu(x + self.bias[:, None, None])


class ToPicture(nn.Module):
    """What a resolution adds to the picture: a modulated 1 x 1 convolution and a bias."""

    def __init__(self, inputs: int, outputs: int, style_length: int) -> None:
        """Build the layer for a picture of ``outputs`` channels."""
        super().__init__()
        self.conv = ModulatedConv(inputs, outputs, 1, style_length, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """``[B, outputs, h, w]`` under the styles ``[B, style_length]``."""
        return self.conv(x, style) + self.bias[:, None, None]


def scaled_leaky_relu(x: Tensor) -> Tensor:
    """Leaky ReLU that keeps the variance of normal input."""
    return math.sqrt(2) * F.leaky_relu(x, _LEAK)


def pixel_norm(x: Tensor) -> Tensor:
    """Scale vectors ``[B, N]`` to a mean square of 1."""
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-8)


def blur(x: Tensor, *, padding: int, gain: float = 1.0) -> Tensor:
    """Filter ``[B, C, h, w]`` by ``BLUR``, surrounded by ``padding`` zeros: h grows by 2p - 3."""
    return F.conv2d(x, _filters(x, gain), padding=padding, groups=x.shape[1])


def upsample(x: Tensor) -> Tensor:
    """Double the resolution of ``[B, C, h, w]`` smoothly."""
    return F.conv_transpose2d(x, _filters(x, 4.0), stride=2, padding=1, groups=x.shape[1])


def blur_kernel(gain: float = 1.0) -> Tensor:
    """``BLUR`` in two dimensions, ``[4, 4]``, of sum ``gain``."""
    line = torch.tensor(BLUR) / sum(BLUR)
    return gain * torch.outer(line, line)


def _filters(x: Tensor, gain: float) -> Tensor:
    """``[C, 1, 4, 4]``, the same for each channel of x."""
    return blur_kernel(gain).to(x).expand(x.shape[1], 1, -1, -1)
