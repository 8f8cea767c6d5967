"""Measuring: a flight becomes the figures, features and pictures that are kept of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
import time
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import nn, Tensor

from infinite_nature_ros import camera
from infinite_nature_ros.frame import Frame
from infinite_nature_ros.sky import SkyDome
from infinite_nature_ros.skyline import detect_sky
from infinite_nature_training.bags import encode_jpeg
from infinite_nature_training.evaluation.drift import frame_figures
from infinite_nature_training.evaluation.images import compare
from infinite_nature_training.evaluation.networks import load_inception, load_lpips
from infinite_nature_training.evaluation.results import Measures
from infinite_nature_training.evaluation.style import style_distance
from infinite_nature_training.features import load_vgg16

T = TypeVar('T')

SHOWN = (0, 10, 50, 100, 250, 500)
"""Frames that a small picture is kept of, besides the last."""

STYLE_FRAMES = 50
"""Last frame that the style figure of the table is over, as in Zero's."""

# Later the style, of which the drift is wanted alone, is of every so many-th kept frame.
_LATE = 5

# Frames that a network looks at together.
_TOGETHER = 8


@dataclass(frozen=True)
class Networks:
    """The networks that measure.

    Attributes:
        inception: pictures ``[N, 3, H, W]`` in [0, 1] to ``[N, 2048]``; has a ``name``.
        lpips: two such to ``[N]``.
        vgg: as ``features.Vgg16``.
    """

    inception: nn.Module
    lpips: nn.Module
    vgg: nn.Module

    def to(self, device: str | torch.device) -> Networks:
        """Move all of them, in place."""
        for network in vars(self).values():
            network.to(device)
        return self


class NetworkSource(Protocol):
    """Where networks come from; hashable, and small enough to be sent to another process."""

    def load(self) -> Networks:
        """Load them."""


@dataclass(frozen=True)
class NetworkFiles:
    """Files of the networks; '' is the standard one, from the cache or fetched.

    Attributes:
        inception: TorchScript file (``load_inception``).
        lpips: safetensors file (``load_lpips``).
        vgg: safetensors file (``load_vgg16``).
    """

    inception: str = ''
    lpips: str = ''
    vgg: str = ''

    def load(self) -> Networks:
        """See ``NetworkSource``.

        Raises:
            ValueError: if a file isn't what it should be.
            OSError: if one can't be read or fetched.
        """
        return Networks(load_inception(self.inception or None),
                        load_lpips(path=self.lpips or None), load_vgg16(self.vgg or None).eval())


STANDARD_NETWORKS = NetworkFiles()
"""Those that others report figures of, as far as they can be had."""


@torch.no_grad()
def measure(frames: Iterable[Frame], truth: Tensor, networks: Networks, every: int) -> Measures:
    """Go through the frames of a flight, keeping none that isn't waited for.

    Args:
        frames: of one world, the start first.
        truth: ``[N, 3, H, W]`` real frames 1 to N, on the frames' device.
        networks: that measure, likewise.
        every: features and style are of every so many-th frame.

    Raises:
        ValueError: as flying does, or if there is no frame.
    """
    start = last = None
    stopwatch = _Stopwatch()
    figures: list[dict[str, float]] = []
    poses: list[Tensor] = []
    made: list[Tensor] = []
    thumbnails: dict[int, bytes] = {}
    features = _Batches(networks.inception)
    style = _Batches(lambda images: style_distance(start.image, images, networks.vgg))
    styled: list[int] = []
    sky = None
    for number, frame in enumerate(stopwatch.run(frames)):
        if start is None:
            start, sky = frame, _sky_of(frame)
        last = frame
        figures.append(frame_figures(frame, start) | {'sky_fraction': _sky_fraction(frame, sky)})
        poses.append(frame.pose)
        if number % every == 0:
            features.add(frame.image)
        if number % (every if number <= STYLE_FRAMES else _LATE * every) == 0:
            styled.append(number)
            style.add(frame.image)
        if 1 <= number <= len(truth):
            made.append(frame.image)
        if number in SHOWN:
            thumbnails[number] = _thumbnail(frame)
    if last is None:
        raise ValueError('a flight of no frames cannot be measured; give at least its start')
    path = torch.cat(poses)
    thumbnails[len(poses) - 1] = _thumbnail(last)
    distances = np.full(len(poses), np.nan)
    distances[styled] = style.results()
    return Measures(
        features=features.results().astype(np.float16),
        figures={name: np.array([values[name] for values in figures]) for name in figures[0]},
        comparisons=_compare(made, truth, networks.lpips), style=distances,
        path_length=camera.position(path).diff(dim=0).norm(dim=1).sum().item(),
        turned=_turned(path), thumbnails=thumbnails, seconds=stopwatch.seconds)


def _sky_of(start: Frame) -> SkyDome | None:
    """Part the sky from the far land that a flight keeps with it."""
    if start.sky is None:
        return None
    sky = detect_sky(start.image.cpu()).to(start.image)
    return SkyDome.of(start.replace(sky=torch.minimum(sky, start.sky)))


def _sky_fraction(frame: Frame, sky: SkyDome | None) -> float:
    """Share of a picture that is sky, without the far land that is kept with it."""
    if sky is None or frame.sky is None:
        return 0.0
    seen = sky.view(frame.pose, frame.intrinsics).matte
    return torch.minimum(seen, frame.sky).mean().item()


class _Stopwatch:
    """Tells how long items took to come, and not what was done with them."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def run(self, items: Iterable[T]) -> Iterator[T]:
        """Pass on items."""
        waiting = iter(items)
        while True:
            begun = time.perf_counter()
            try:
                item = next(waiting)
            except StopIteration:
                return
            self.seconds += time.perf_counter() - begun
            yield item


class _Batches:
    """Puts images together for a network, and what it says of them."""

    def __init__(self, network: Callable[[Tensor], Tensor]) -> None:
        self._network = network
        self._waiting: list[Tensor] = []
        self._done: list[np.ndarray] = []

    def add(self, image: Tensor) -> None:
        """Add ``[1, 3, H, W]``."""
        self._waiting.append(image)
        if len(self._waiting) == _TOGETHER:
            self._look()

    def results(self) -> np.ndarray:
        """Join what the network says of all images."""
        if self._waiting:
            self._look()
        return np.concatenate(self._done)

    def _look(self) -> None:
        self._done.append(self._network(torch.cat(self._waiting)).cpu().numpy())
        self._waiting.clear()


def _compare(made: list[Tensor], truth: Tensor, lpips: nn.Module) -> dict[str, np.ndarray]:
    """Figures ``[N]`` of frames that there are real ones for; none where there are none."""
    if not made:
        return {}
    figures = compare(torch.cat(made), truth[:len(made)], lpips=lpips)
    return {name: values.cpu().numpy() for name, values in figures.items()}


def _turned(path: Tensor) -> float:
    """Add up the changes of heading along poses ``[N, 3, 4]``, left and right, radians."""
    heading = torch.atan2(path[:, 2, 0], path[:, 2, 2])
    change = heading.diff()
    return torch.atan2(change.sin(), change.cos()).abs().sum().item()


def _thumbnail(frame: Frame) -> bytes:
    """JPEG file of a frame."""
    pixels = (frame.image[0] * 255).round().byte().permute(1, 2, 0)
    return encode_jpeg(pixels.cpu().numpy())
