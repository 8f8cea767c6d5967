"""The contract of a refiner: what turns a rendered view with holes into a finished one."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from infinite_nature_ros.rendering import Rendered

State = Tensor | dict[str, Tensor]
"""What a refiner remembers of a flight; the first dimension of every tensor is the batch."""


@runtime_checkable
class Refiner(Protocol):
    """Paints what a rendered view lacks and sharpens the rest (paper, section 4.2).

    A refiner keeps nothing of a flight in itself: all of it is in the state, so that many flights
    share one refiner, and the caller can store, copy and index the state world by world.
    Worlds of a batch never influence each other.
    """

    def begin(self, image: Tensor, disparity: Tensor, seed: int | None = None) -> State:
        """Look at the first frame of a flight.

        Args:
            image: ``[B, 3, H, W]`` RGB in [0, 1].
            disparity: ``[B, 1, H, W]`` in [0.01, 1].
            seed: draws whatever is random about the flight, on the image's device; ``None``
                draws differently each time. Refiners without randomness ignore it.

        Returns:
            The state to hand to every ``refine`` of this flight, unchanged.

        Raises:
            ValueError: if the shapes don't fit.
        """
        ...

    def refine(self, rendered: Rendered, state: State) -> tuple[Tensor, Tensor]:
        """Finish one rendered view per world.

        Args:
            rendered: the view with its holes; disparity is not clamped and is 0 in holes.
            state: what ``begin`` returned, for the same worlds in the same order.

        Returns:
            image ``[B, 3, H, W]`` in [0, 1] and disparity ``[B, 1, H, W]``, before grounding.

        Raises:
            ValueError: if the shapes don't fit.
        """
        ...

    def to(self, device: torch.device | str) -> Refiner:
        """Move to a device, in place, and return itself."""
        ...


@runtime_checkable
class TrainableRefiner(Refiner, Protocol):
    """A network as a refiner: ``style`` and ``refine`` are differentiable.

    Attributes:
        noise_length: how many numbers of noise the style of a flight takes.
    """

    noise_length: int

    def style(self, image: Tensor, disparity: Tensor, noise: Tensor | None) -> State:
        """Look at the first frame of a flight, as ``begin`` does, with noise that is given.

        Args:
            image: ``[B, 3, H, W]`` RGB in [0, 1].
            disparity: ``[B, 1, H, W]`` in [0.01, 1].
            noise: ``[B, noise_length]`` standard normal; ``None`` for the mean style.

        Raises:
            ValueError: if the shapes don't fit.
        """
        ...


def join_rgbd(image: Tensor, disparity: Tensor) -> Tensor:
    """Put image and disparity together.

    Args:
        image: ``[B, 3, H, W]``.
        disparity: ``[B, 1, H, W]``.

    Returns:
        ``[B, 4, H, W]`` RGB-D.

    Raises:
        ValueError: for any other shapes.
    """
    if image.dim() != 4 or image.shape[1] != 3 or disparity.shape != image[:, :1].shape:
        raise ValueError(f'image is {list(image.shape)} and disparity {list(disparity.shape)}; '
                         'give [B, 3, H, W] and [B, 1, H, W]')
    return torch.cat([image, disparity], dim=1)
