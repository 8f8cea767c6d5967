"""The Frame: what one step of a flight yields."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Frame:
    """One synthetic view per world of a batch, with the geometry that belongs to it.

    Attributes:
        image: ``[B, 3, H, W]`` RGB in [0, 1].
        disparity: ``[B, 1, H, W]`` inverse depth in [0.01, 1], 1 / scene units.
        known: ``[B, 1, H, W]`` in [0, 1]; 1 was carried over from the past, 0 was invented.
        pose: ``[B, 3, 4]`` world to camera, OpenCV axes.
        intrinsics: ``[B, 4]`` fx, fy, cx, cy, normalised.
        sky: ``[B, 1, H, W]`` in [0, 1], 1 where the view shows the sky, or land as far as it;
            ``None`` where the flight does not keep a sky.
    """

    image: Tensor
    disparity: Tensor
    known: Tensor
    pose: Tensor
    intrinsics: Tensor
    sky: Tensor | None = None

    @property
    def depth(self) -> Tensor:
        """``[B, 1, H, W]`` depth along the camera's Z axis in scene units; +inf in the sky."""
        depth = 1 / self.disparity
        if self.sky is None:
            return depth
        return torch.where(self.sky > 0.5, torch.full_like(depth, torch.inf), depth)

    def replace(self, **changes: Tensor) -> Frame:
        """Copy with some fields exchanged."""
        return replace(self, **changes)

    def map(self, function: Callable[[Tensor], Tensor]) -> Frame:
        """Copy with every tensor put through a function: to a device, to a type, detached."""
        return Frame(**{name: function(value) for name, value in self.tensors().items()})

    def tensors(self) -> dict[str, Tensor]:
        """All fields by name, those that are there."""
        return {name: value for name, value in vars(self).items() if value is not None}
