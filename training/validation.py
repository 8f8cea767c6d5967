"""Validation: how near refined frames come to the real ones, beside doing nothing and filling."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
import torch.nn.functional as F

from infinite_nature_ros.camera import MAX_DISPARITY, MIN_DISPARITY
from infinite_nature_ros.refining import Refiner
from infinite_nature_ros.rendering import render

Distance = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Errors:
    """Mean errors of one method by step of the roll-out.

    Attributes:
        l1: mean absolute difference of RGB, one number a step, the first step's in front.
        perceptual: perceptual distance likewise; empty without a feature network.
    """

    l1: list[float]
    perceptual: list[float]


@torch.no_grad()
def roll_out(refiner: Refiner, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Fly along real sequences as in flight, without grounding, from their first frames.

    Args:
        refiner: what refines.
        batch: ``image`` ``[B, T + 1, 3, H, W]``, ``disparity``, ``pose``, ``intrinsics``.

    Returns:
        images ``[B, T, 3, H, W]`` and disparity ``[B, T, 1, H, W]``.
    """
    image, disparity = batch['image'][:, 0], batch['disparity'][:, 0]
    poses, intrinsics = batch['pose'], batch['intrinsics']
    state = refiner.begin(image, disparity, seed=0)
    images, disparities = [], []
    for step in range(1, poses.shape[1]):
        view = render(image, disparity.clamp(MIN_DISPARITY, MAX_DISPARITY), poses[:, step - 1],
                      poses[:, step], intrinsics[:, step - 1], intrinsics[:, step])
        image, disparity = refiner.refine(view, state)
        images.append(image)
        disparities.append(disparity)
    return torch.stack(images, dim=1), torch.stack(disparities, dim=1)


@torch.no_grad()
def measure(refiner: Refiner, batches: Iterable[Mapping[str, Tensor]],
            perceptual: Distance | None = None) -> Errors:
    """Mean errors of a refiner over held-out sequences.

    Args:
        refiner: what refines.
        batches: as ``roll_out`` takes them.
        perceptual: compares pictures; without one the errors have none.

    Raises:
        ValueError: if there is no batch.
    """
    return mean_errors(((roll_out(refiner, batch)[0], batch['image'][:, 1:])
                        for batch in batches), perceptual)


@torch.no_grad()
def direct_errors(batches: Iterable[Mapping[str, Tensor]],
                  perceptual: Distance | None = None) -> Errors:
    """Mean errors of the first frame, rendered from each pose at once and not refined."""
    return mean_errors(((_rendered_at_once(batch), batch['image'][:, 1:])
                        for batch in batches), perceptual)


def _rendered_at_once(batch: Mapping[str, Tensor]) -> Tensor:
    """``[B, T, 3, H, W]`` views of the first frames, holes black."""
    image, disparity = batch['image'][:, 0], batch['disparity'][:, 0]
    poses, intrinsics = batch['pose'], batch['intrinsics']
    return torch.stack([
        render(image, disparity, poses[:, 0], poses[:, step], intrinsics[:, 0],
               intrinsics[:, step]).image for step in range(1, poses.shape[1])], dim=1)


@torch.no_grad()
def mean_errors(pairs: Iterable[tuple[Tensor, Tensor]],
                perceptual: Distance | None = None) -> Errors:
    """Mean errors of images ``[B, T, 3, H, W]`` beside what they should be.

    Raises:
        ValueError: if there is no pair.
    """
    count, l1, features = 0, 0.0, 0.0
    for images, targets in pairs:
        count += len(images)
        l1 = l1 + len(images) * _by_step(F.l1_loss, images, targets)
        if perceptual is not None:
            features = features + len(images) * _by_step(perceptual, images, targets)
    if not count:
        raise ValueError('there is nothing to validate on; give held-out sequences')
    return Errors((l1 / count).tolist(),
                  (features / count).tolist() if perceptual is not None else [])


def _by_step(distance: Distance, images: Tensor, targets: Tensor) -> Tensor:
    """``[T]`` distances."""
    return torch.stack([distance(one, other) for one, other
                        in zip(images.unbind(1), targets.unbind(1), strict=True)])
