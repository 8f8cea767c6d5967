"""Validation: how near refined frames come to the real ones, beside doing nothing and filling."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
import torch.nn.functional as F

from infinite_nature_ros.camera import MAX_DISPARITY, MIN_DISPARITY
from infinite_nature_ros.refining import create_model, Refiner
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


def baselines() -> dict[str, Refiner]:
    """Make what a trained refiner must beat: the bare render, and filling without weights."""
    return {name: create_model(name) for name in ('no-refine', 'inpaint')}


@torch.no_grad()
def roll_out(refiner: Refiner, batch: Mapping[str, Tensor],
             backend: str = 'warp') -> tuple[Tensor, Tensor]:
    """Fly along real sequences as in flight, without grounding, from their first frames.

    Args:
        refiner: what refines.
        batch: ``image`` ``[B, T + 1, 3, H, W]``, ``disparity``, ``pose``, ``intrinsics``.
        backend: rasteriser.

    Returns:
        images ``[B, T, 3, H, W]`` and disparity ``[B, T, 1, H, W]``.
    """
    image, disparity = batch['image'][:, 0], batch['disparity'][:, 0]
    poses, intrinsics = batch['pose'], batch['intrinsics']
    state = refiner.begin(image, disparity, seed=0)
    images, disparities = [], []
    for step in range(1, poses.shape[1]):
        view = render(image, disparity.clamp(MIN_DISPARITY, MAX_DISPARITY), poses[:, step - 1],
                      poses[:, step], intrinsics[:, step - 1], intrinsics[:, step],
                      backend=backend)
        image, disparity = refiner.refine(view, state)
        images.append(image)
        disparities.append(disparity)
    return torch.stack(images, dim=1), torch.stack(disparities, dim=1)


def measure(refiner: Refiner, batches: Iterable[Mapping[str, Tensor]],
            perceptual: Distance | None = None) -> Errors:
    """Mean errors of a refiner over held-out sequences."""
    l1, features, count = 0.0, 0.0, 0
    for batch in batches:
        images, _ = roll_out(refiner, batch)
        targets = batch['image'][:, 1:]
        number = len(images)
        l1 = l1 + number * torch.stack([
            F.l1_loss(one, other) for one, other
            in zip(images.unbind(1), targets.unbind(1), strict=True)])
        if perceptual is not None:
            with torch.no_grad():
                features = features + number * torch.stack([
                    perceptual(one, other) for one, other
                    in zip(images.unbind(1), targets.unbind(1), strict=True)])
        count += number
    if not count:
        raise ValueError('there is nothing to validate on; give held-out sequences')
    return Errors((l1 / count).tolist(),
                  (features / count).tolist() if perceptual is not None else [])
