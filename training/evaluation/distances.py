"""Distances between sets of pictures, FID and KID, from what Inception said of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import warnings

import numpy as np
import torch
from torch import nn, Tensor
from torchmetrics import Metric
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

# As published: KID is the mean over this many draws of this many pictures from each set.
_DRAWS, _DRAWN = 100, 1000

Distance = Callable[[np.ndarray, np.ndarray], float]
"""Compares features ``[N, D]`` of frames with those ``[M, D]`` of real pictures."""


class _Described(nn.Module):
    """Stands in for Inception where torchmetrics gets its features instead of pictures."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def fid(made: np.ndarray, real: np.ndarray) -> float:
    """Frechet Inception distance (Heusel et al. 2017), by torchmetrics in float64.

    It falls with the number of pictures: compare figures of equal numbers only.

    Args:
        made: ``[N, D]`` features of frames.
        real: ``[M, D]`` features of real pictures.

    Raises:
        ValueError: for features of other shapes, or less than two pictures.
    """
    metric = FrechetInceptionDistance(_Described(_check(made, real))).set_dtype(torch.float64)
    return float(_show(metric, made, real).compute())


def kid(made: np.ndarray, real: np.ndarray, seed: int = 0, draws: int = _DRAWS) -> float:
    """Kernel Inception distance (Binkowski et al. 2018), by torchmetrics.

    The mean over draws of 1,000 pictures from each set, or of as many as the smaller one has. Its
    expectation doesn't depend on the number of pictures.

    Args:
        made: ``[N, D]`` features of frames.
        real: ``[M, D]`` features of real pictures.
        seed: of the draws.
        draws: how many; 100 is usual.

    Raises:
        ValueError: for features of other shapes, or less than two pictures.
    """
    with warnings.catch_warnings():
        # That it keeps all features is what it's for.
        warnings.filterwarnings('ignore', 'Metric `Kernel Inception Distance` will save')
        metric = KernelInceptionDistance(_Described(_check(made, real)), subsets=draws,
                                         subset_size=min(_DRAWN, len(made), len(real)))
    _show(metric, made, real)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return float(metric.compute()[0])


def windowed(flights: Sequence[np.ndarray], reference: np.ndarray, window: int, every: int,
             distance: Distance, stride: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Distance over time: of all flights' frames in a sliding window, to real pictures.

    The paper's FID-w at t takes the frames i with t - w/2 < i <= t + w/2 (section 6). The frame
    0 is the start itself; no window holds it.

    Args:
        flights: ``[1 + F // stride, D]`` features of each flight's frames, its start's in front;
            flights may differ in length, a window takes what there is.
        reference: ``[M, D]`` features of real pictures.
        window: frames, w; even.
        every: frames from one window to the next.
        distance: ``fid``, ``kid``, or either with some arguments bound.
        stride: frames from one row of features to the next.

    Returns:
        Middles t ``[n]``, from w/2 on, and distances ``[n]``; empty where even the longest flight
        has no whole window.

    Raises:
        ValueError: if window is odd or either is less than 1, and as the distance does.
    """
    if window < 2 or window % 2 or every < 1:
        raise ValueError(f'window is {window} every {every} frames; give an even window, and at '
                         'least 1 between')
    half, last = window // 2, stride * max((len(flight) - 1 for flight in flights), default=0)
    middles = np.arange(half, last - half + 1, every)
    values = [distance(np.concatenate([flight[(t - half) // stride + 1:(t + half) // stride + 1]
                                       for flight in flights]), reference) for t in middles]
    return middles, np.array(values, dtype=float)


def _check(made: np.ndarray, real: np.ndarray) -> int:
    """How many features a picture has, if both sets have as many."""
    shapes = np.shape(made), np.shape(real)
    if any(len(shape) != 2 or shape[0] < 2 for shape in shapes) or shapes[0][1] != shapes[1][1]:
        raise ValueError(f'features are {shapes[0]} and {shapes[1]}; give [N, D] and [M, D] of at '
                         'least two pictures each')
    return shapes[0][1]


def _show(metric: Metric, made: np.ndarray, real: np.ndarray) -> Metric:
    """Give a metric both sets; half precision is for storing only."""
    for features, is_real in ((real, True), (made, False)):
        metric.update(torch.from_numpy(np.asarray(features, dtype=np.float32)), real=is_real)
    return metric
