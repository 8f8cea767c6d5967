"""The small network that tells sky from land, and its weights, which come with the package.

The first stages of EfficientNet-Lite0 (Tan and Le 2019; five strides of 2 less one) see a copy of
the picture of always the same area, so that their view is wide enough to tell a lake or haze from
the sky; a decoder brings that back to half its size, and GrabCut (Rother et al. 2004) cuts along
the edges of the picture itself. ``scripts/train_sky_detector.py`` trains it;
``docs/sky_detector.md`` says how well it does.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
import math
from pathlib import Path

import cv2
import numpy as np
from safetensors.torch import load_file
import torch
from torch import nn, Tensor
from torch.nn import functional

from infinite_nature_ros.pixels import from_pixels

DECODERS = 4
"""How many decoders the network has that comes with the package."""

# The encoder sees each picture at about so many pixels, both sides divisible by its coarsest step:
# in training at the first size, which shows it most of what surrounds a pixel; then at both.
_SEEN_AREAS = (96 * 160, 144 * 240)
_STEP = 16
_LEAST_SIDE = 2 * _STEP

# Pixels with log odds beyond this are settled; GrabCut decides about the rest.
_CERTAIN, _CUT_ITERATIONS = 3.0, 2

# What has lower log odds than this on average is smooth ground at the top of a picture, and no sky.
# A lost sky hurts a flight more than a false one: every sky of the validation photos stays, and of
# the false ones about a quarter goes (14 or 15 of 43 pieces of land keep one; without this, 19).
_SURE = 2.0

# What hangs in the sky (birds, a dark cloud) and is smaller than this share of the picture is sky.
_SMALLEST_LAND = 0.03

# Blocks of EfficientNet-Lite0 by resolution, each half of the one before it: channels, stride,
# kernel and expansion.
_STEM = 32
_STAGES = (
    ((16, 1, 3, 1),),
    ((24, 2, 3, 6), (24, 1, 3, 6)),
    ((40, 2, 5, 6), (40, 1, 5, 6)),
    ((80, 2, 3, 6), (80, 1, 3, 6), (80, 1, 3, 6),
     (112, 1, 5, 6), (112, 1, 5, 6), (112, 1, 5, 6)),
)
_DECODER = (16, 24, 32, 48)
_GROUPS = 8


class SkyNetwork(nn.Module):
    """Log odds for each pixel of being sky: one encoder, and the mean of what decoders say.

    Where it is hard to tell what is sky each decoder errs in its own way; their mean errs least.
    """

    def __init__(self, decoders: int = DECODERS) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, _STEM, 3, stride=2, padding=1)
        inputs, stages = _STEM, []
        for blocks in _STAGES:
            stages.append(nn.Sequential())
            for channels, stride, kernel, expansion in blocks:
                stages[-1].append(InvertedBottleneck(inputs, channels, stride, kernel, expansion))
                inputs = channels
        self.stages = nn.ModuleList(stages)
        self.decoders = nn.ModuleList(_Decoder() for _ in range(decoders))

    def forward(self, image: Tensor) -> Tensor:
        """Score pictures of any size.

        Args:
            image: ``[B, 3, H, W]`` RGB in [0, 1].

        Returns:
            ``[B, 1, H, W]`` log odds of being sky.
        """
        scores = [score for area in _SEEN_AREAS for score in self.scores(image, area)]
        return torch.stack(scores).mean(0)

    def scores(self, image: Tensor, area: int = _SEEN_AREAS[0]) -> list[Tensor]:
        """Score as ``forward`` does, by each decoder apart, the picture seen at one size."""
        levels = self._encode(image, area)
        return [_resize(decoder(levels), image.shape[-2:]) for decoder in self.decoders]

    def _encode(self, image: Tensor, area: int) -> list[Tensor]:
        """Features from fine to coarse; the finest have half the size that the encoder sees."""
        return self.features(functional.interpolate(
            image, _seen_size(*image.shape[-2:], area), mode='bilinear', antialias=True))

    def features(self, image: Tensor) -> list[Tensor]:
        """Encode pictures as they are: what ImageNet taught EfficientNet-Lite0 to see.

        Args:
            image: ``[B, 3, H, W]`` RGB in [0, 1].

        Returns:
            Four tensors ``[B, C, h, w]`` from a half of the size to a sixteenth.
        """
        features, levels = functional.relu6(self.stem(2 * image - 1)), []
        for stage in self.stages:
            features = stage(features)
            levels.append(features)
        return levels


class _Decoder(nn.Module):
    """Scores at half the encoder's size, from its features and the row of each pixel."""

    def __init__(self) -> None:
        super().__init__()
        # The row tells what is high up; it is the only thing that a convolution can't see.
        self.wide = nn.Sequential(*_layer(_STAGES[-1][-1][0] + 1, _DECODER[-1]),
                                  *_layer(_DECODER[-1], _DECODER[-1]),
                                  *_layer(_DECODER[-1], _DECODER[-1]))
        self.overview = nn.Linear(_DECODER[-1], _DECODER[-1])
        self.up = nn.ModuleList(
            nn.Sequential(*_layer(coarse + blocks[-1][0], fine), *_layer(fine, fine))
            for coarse, fine, blocks in zip(_DECODER[1:], _DECODER, _STAGES, strict=False))
        self.score = nn.Conv2d(_DECODER[0], 1, 1)

    def forward(self, levels: list[Tensor]) -> Tensor:
        """``[B, 1, h, w]`` log odds, from features that are told from fine to coarse."""
        features = levels[-1]
        row = torch.linspace(-1, 1, features.shape[2], device=features.device)
        row = row[:, None].expand(len(features), 1, -1, features.shape[3])
        features = self.wide(torch.cat([features, row], dim=1))
        features = features + self.overview(features.mean((2, 3)))[..., None, None]
        for layer, level in zip(reversed(self.up), reversed(levels[:-1]), strict=True):
            features = layer(torch.cat([_resize(features, level.shape[-2:]), level], dim=1))
        return self.score(features)


class InvertedBottleneck(nn.Module):
    """Block of EfficientNet-Lite: expand, filter each channel, project; normalisation folded in."""

    def __init__(self, inputs: int, channels: int, stride: int, kernel: int,
                 expansion: int) -> None:
        super().__init__()
        width = inputs * expansion
        self.expand = nn.Conv2d(inputs, width, 1) if expansion > 1 else None
        self.filter = nn.Conv2d(width, width, kernel, stride, kernel // 2, groups=width)
        self.project = nn.Conv2d(width, channels, 1)
        self.skips = stride == 1 and inputs == channels

    def forward(self, features: Tensor) -> Tensor:
        """Features ``[B, C, H, W]`` to ``[B, channels, H / stride, W / stride]``."""
        wide = features if self.expand is None else functional.relu6(self.expand(features))
        result = self.project(functional.relu6(self.filter(wide)))
        return features + result if self.skips else result


def weights_path() -> Path:
    """File of the weights that come with the package."""
    return Path(str(resources.files('infinite_nature_ros'))) / 'assets' / 'sky_detector.safetensors'


@cache
def load_sky_network() -> SkyNetwork:
    """Network with the weights that come with the package, on the CPU, in eval mode."""
    with torch.device('meta'):  # draws no random numbers
        network = SkyNetwork()
    tensors = {name: tensor.float() for name, tensor in load_file(weights_path()).items()}
    network.load_state_dict(tensors, assign=True)
    return network.eval().requires_grad_(False)


def find_sky(picture: np.ndarray, network: SkyNetwork) -> np.ndarray:
    """Find the sky in one picture.

    Args:
        picture: uint8 ``[H, W, 3]`` RGB.
        network: in eval mode, on the CPU.

    Returns:
        bool ``[H, W]``.
    """
    image = from_pixels(picture)[None]
    with torch.inference_mode():
        # Its mirror image must have the same sky.
        score = (network(image) + network(image.flip(-1)).flip(-1))[0, 0].numpy() / 2
    sky = tidy(_cut(picture, score))
    return sky & bool(sky.any() and score[sky].mean() > _SURE)


def _cut(picture: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Draw the sky's edge where the picture has one, near where log odds ``[H, W]`` are even."""
    is_sky = score > 0
    # GrabCut learns five colours of each side, so both must be there.
    if not 5 <= is_sky.sum() <= is_sky.size - 5:
        return is_sky
    labels = np.where(is_sky, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels[score > _CERTAIN] = cv2.GC_FGD
    labels[score < -_CERTAIN] = cv2.GC_BGD
    cv2.setRNGSeed(0)
    cv2.grabCut(picture, labels, None, np.zeros((1, 65)), np.zeros((1, 65)), _CUT_ITERATIONS,
                cv2.GC_INIT_WITH_MASK)
    return (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)


def tidy(sky: np.ndarray) -> np.ndarray:
    """Drop from a mask, bool ``[H, W]``, what can't be sky, and fill what hangs in it."""
    return _fill_islands(_connected_to_top(sky))


def _connected_to_top(sky: np.ndarray) -> np.ndarray:
    """Drop what looks like sky but does not reach the picture's top, such as a lake."""
    _, labels = cv2.connectedComponents(sky.astype(np.uint8), connectivity=4)
    return sky & np.isin(labels, np.unique(labels[0][sky[0]]))


def _fill_islands(sky: np.ndarray) -> np.ndarray:
    """Count small things that hang in the sky as sky."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats((~sky).astype(np.uint8), connectivity=4)
    hanging = stats[:, cv2.CC_STAT_AREA] < _SMALLEST_LAND * sky.size
    hanging[labels[-1]] = False
    return sky | hanging[labels]


def _layer(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    """Build a convolution that is normalised and rectified."""
    return (nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.GroupNorm(_GROUPS, outputs),
            nn.ReLU())


def _seen_size(height: int, width: int, area: int) -> tuple[int, int]:
    """Size at which the encoder sees a picture: of about the same shape."""
    scale = math.sqrt(area / (height * width)) / _STEP
    return (max(round(height * scale) * _STEP, _LEAST_SIDE),
            max(round(width * scale) * _STEP, _LEAST_SIDE))


def _resize(features: Tensor, size: tuple[int, int]) -> Tensor:
    return functional.interpolate(features, size, mode='bilinear')
