"""Validation without videos: how well a photo is got back that was seen from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from infinite_nature_ros.frame import Frame
from infinite_nature_ros.refining import Refiner
from infinite_nature_ros.sky import keep_far, SkyDome
from infinite_nature_ros.stepping import Stepper
from infinite_nature_training.cameras import sample_previous_poses
from infinite_nature_training.validation import Distance, Errors, mean_errors
from infinite_nature_training.zero_rollout import there_and_back


def first_frame(batch: Mapping[str, Tensor]) -> Frame:
    """Frame that a flight into each photo of a batch begins with."""
    image, disparity, pose, intrinsics, sky = (
        batch[name][:, 0] for name in ('image', 'disparity', 'pose', 'intrinsics', 'sky'))
    sky, disparity = keep_far(sky, disparity, pose, intrinsics)
    return Frame(image, disparity, torch.ones_like(disparity), pose, intrinsics, sky)


@torch.no_grad()
def go_there_and_back(refiner: Refiner, batch: Mapping[str, Tensor],
                      sky: bool = True) -> tuple[Tensor, Tensor]:
    """Photos as they come back from the poses that belong to their indices.

    Returns:
        images ``[B, 3, H, W]`` before and after refining.
    """
    photo = first_frame(batch)
    dome = SkyDome.of(photo) if sky else None
    state = refiner.begin(photo.image, photo.disparity, seed=0)
    view = there_and_back(Stepper(refiner, dome), photo if sky else photo.replace(sky=None),
                          sample_previous_poses(photo, batch['index'], seed=0))
    return view.image, refiner.refine(view, state)[0]


def measure_cycles(refiner: Refiner, batches: Iterable[Mapping[str, Tensor]],
                   perceptual: Distance | None = None, *, sky: bool = True) -> Errors:
    """Mean errors of a refiner over photos that went there and back, as one step's.

    Raises:
        ValueError: if there is no batch.
    """
    return mean_errors(((go_there_and_back(refiner, batch, sky)[1][:, None], batch['image'])
                        for batch in batches), perceptual)
