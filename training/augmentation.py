"""Augmentation of training sequences: mirrored, and in other colours, alike in all frames."""

from __future__ import annotations

from dataclasses import dataclass
import math

import cv2
import numpy as np
import torch
from torch import Tensor

# Luma and the two chroma axes of NTSC (YIQ): grey has no chroma, and turning it changes hue alone.
_YIQ_FROM_RGB = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))
_GREY = 0.5


@dataclass(frozen=True)
class Augmentation:
    """What changes at random from sequence to sequence, never within one.

    The colour factors are drawn evenly from 1 - x to 1 + x, the hue from -x to x.

    Attributes:
        flip: probability of a mirrored sequence.
        brightness: change of all values.
        contrast: change of the distance from middle grey.
        saturation: change of the distance from grey of the same luma.
        hue: turn of the hue, in full turns.
    """

    flip: float = 0.5
    brightness: float = 0.1
    contrast: float = 0.1
    saturation: float = 0.1
    hue: float = 0.02

    def __post_init__(self) -> None:
        """Refuse what is no probability and no change."""
        for name, value in vars(self).items():
            if not 0 <= value <= 1:
                raise ValueError(f'{name} is {value}; give a value from 0 to 1')

    def apply(self, sample: dict[str, Tensor], random: np.random.Generator) -> dict[str, Tensor]:
        """Return an augmented sample; image and fine are uint8 RGB, the rest any type."""
        flips = random.random() < self.flip
        brightness, contrast, saturation, hue = (
            random.uniform(-1, 1, 4)
            * (self.brightness, self.contrast, self.saturation, self.hue)).tolist()
        colours = colour_matrix(1 + brightness, 1 + contrast, 1 + saturation, hue)
        sample = sample | {name: change_colours(sample[name], colours)
                           for name in ('image', 'fine') if name in sample}
        return mirror(sample) if flips else sample


def mirror(sample: dict[str, Tensor]) -> dict[str, Tensor]:
    """Exchange left and right, in the pictures and in the world.

    With M = diag(-1, 1, 1) a pose [R | t] becomes [M R M | M t], and cx becomes 1 - cx.

    Args:
        sample: image ``[B, 3, H, W]``, disparity and perhaps sky ``[B, 1, H, W]`` and fine
            ``[B, 3, n * H, n * W]``, pose ``[B, 3, 4]``, intrinsics ``[B, 4]``; whatever else it
            holds stays.
    """
    pose, intrinsics = sample['pose'], sample['intrinsics']
    axes = pose.new_tensor([-1.0, 1.0, 1.0])
    fx, fy, cx, cy = intrinsics.unbind(-1)
    maps = {name: sample[name].flip(-1) for name in ('image', 'disparity', 'sky', 'fine')
            if name in sample}
    return sample | maps | {
        'pose': axes[:, None] * pose * torch.cat([axes, axes.new_ones(1)]),
        'intrinsics': torch.stack([fx, fy, 1 - cx, cy], dim=-1)}


def colour_matrix(brightness: float, contrast: float, saturation: float,
                  hue: float) -> np.ndarray:
    """``[3, 4]`` affine map of RGB in [0, 1]; factors 1, 1, 1 and hue 0 leave it as it is.

    Args:
        brightness: factor of all values.
        contrast: factor of the distance from middle grey.
        saturation: factor of the chroma.
        hue: full turns of the chroma.
    """
    yiq_from_rgb = np.array(_YIQ_FROM_RGB)
    cosine = saturation * math.cos(2 * math.pi * hue)
    sine = saturation * math.sin(2 * math.pi * hue)
    chroma = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    linear = brightness * contrast * np.linalg.inv(yiq_from_rgb) @ chroma @ yiq_from_rgb
    return np.hstack([linear, np.full((3, 1), brightness * (1 - contrast) * _GREY)])


def change_colours(image: Tensor, matrix: np.ndarray) -> Tensor:
    """Images through an affine map ``[3, 4]`` of RGB in [0, 1], clamped and rounded.

    Args:
        image: uint8 ``[B, 3, H, W]``, fastest where the channels of a pixel lie side by side.
        matrix: ``[3, 4]``.

    Returns:
        uint8 ``[B, 3, H, W]``, the channels of a pixel side by side.
    """
    batch, _, height, width = image.shape
    pixels = np.ascontiguousarray(image.permute(0, 2, 3, 1)).reshape(batch * height, width, 3)
    changed = cv2.transform(pixels, matrix * (1, 1, 1, 255))
    return torch.from_numpy(changed).reshape(batch, height, width, 3).permute(0, 3, 1, 2)
