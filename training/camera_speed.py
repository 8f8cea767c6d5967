"""Camera speed: the frame strides at which a clip moves as fast as training wants."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

DEFAULT_TARGET = 0.2
"""Scene units a step that leave 90 % of a picture in the next (``benchmarks/camera_speed.py``)."""


@dataclass(frozen=True)
class CameraSpeed:
    """Strides that bring the camera's speed into a range (paper, section 4).

    The proxy of speed is the distance between the camera centres of two frames that follow each
    other in a sequence, in scene units: every source of ACID bags has scaled its poses by then.
    A stride counts for a start frame if each step of the sequence lies within ``target`` times
    1 - ``variation`` to 1 + ``variation``. The paper says 'varies by up to 30%' and no more.

    Attributes:
        target: scene units a step.
        variation: how far a step may be from the target, as a share of it.
        max_stride: frames; the largest stride, however slow the camera.
    """

    target: float = DEFAULT_TARGET
    variation: float = 0.3
    max_stride: int = 30

    def __post_init__(self) -> None:
        """Refuse a range that holds nothing."""
        if not self.target > 0:
            raise ValueError(f'target is {self.target}; give scene units a step, > 0')
        if not 0 < self.variation < 1:
            raise ValueError(f'variation is {self.variation}; give a share between 0 and 1')
        _check_stride(self.max_stride, 'max_stride')

    @property
    def range(self) -> tuple[float, float]:
        """Least and greatest distance of a step, scene units."""
        return self.target * (1 - self.variation), self.target * (1 + self.variation)

    def valid_strides(self, centres: Tensor, steps: int) -> Tensor:
        """Strides that each frame can start a sequence with.

        Args:
            centres: ``[N, 3]`` camera centres of a clip, scene units.
            steps: steps of a sequence, one less than its frames.

        Returns:
            bool ``[N, max_stride]``; column k belongs to stride k + 1.
        """
        low, high = self.range
        valid = torch.zeros(len(centres), self.max_stride, dtype=torch.bool)
        for stride in range(1, self.max_stride + 1):
            starts = max(0, len(centres) - stride * steps)
            moved = (centres[stride:] - centres[:-stride]).norm(dim=1)
            fits = (moved >= low) & (moved <= high)
            windows = [fits[step * stride:][:starts] for step in range(steps)]
            valid[:starts, stride - 1] = torch.stack(windows).all(dim=0)
        return valid

    def explain(self, centres: Tensor) -> str:
        """Why a clip of at least two frames has no valid stride, in words."""
        moved = (centres[1:] - centres[:-1]).norm(dim=1).median().item()
        low, high = self.range
        wanted = f'{low:.3g} to {high:.3g} units a step'
        if moved > high:
            return (f'the camera is too fast: {moved:.3g} units from frame to frame, not {wanted}; '
                    'is the scene_scale of the bag right?')
        if moved * self.max_stride < low:
            return (f'the camera is too slow: {moved * self.max_stride:.3g} units in '
                    f'{self.max_stride} frames, the largest stride, not {wanted}')
        return f'no stride gives a whole sequence of {wanted}: too unsteady, or too short for it'


@dataclass(frozen=True)
class FixedStride:
    """One stride for all, whatever the speed.

    Attributes:
        stride: frames from one frame of a sequence to the next.
    """

    stride: int = 1

    def __post_init__(self) -> None:
        """Refuse what is no stride."""
        _check_stride(self.stride, 'stride')

    def valid_strides(self, centres: Tensor, steps: int) -> Tensor:
        """As :meth:`CameraSpeed.valid_strides`: this stride wherever enough frames follow."""
        valid = torch.zeros(len(centres), self.stride, dtype=torch.bool)
        valid[:max(0, len(centres) - self.stride * steps), -1] = True
        return valid

    def explain(self, centres: Tensor) -> str:
        """Why a clip has no sequence, in words."""
        return f'{len(centres)} frames are too few for stride {self.stride}'


def _check_stride(stride: int, name: str) -> None:
    if stride < 1:
        raise ValueError(f'{name} is {stride}; give a number of frames, at least 1')
