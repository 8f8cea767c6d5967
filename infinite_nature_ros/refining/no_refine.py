"""No refiner: the render as it is, holes and all; the paper's ablation (section 6)."""

from __future__ import annotations

import torch
from torch import Tensor

from infinite_nature_ros.refining.registry import register_model
from infinite_nature_ros.rendering import Rendered


@register_model('no-refine')
class NoRefine:
    """Leaves holes black and everything else as blurred as warping makes it."""

    def begin(self, image: Tensor, disparity: Tensor, seed: int | None = None) -> Tensor:
        """See ``Refiner``; there is nothing to remember."""
        return image[:, :0, 0, 0]

    def refine(self, rendered: Rendered, state: Tensor) -> tuple[Tensor, Tensor]:
        """See ``Refiner``."""
        return rendered.image, rendered.disparity

    def to(self, device: torch.device | str) -> NoRefine:
        """See ``Refiner``; there is nothing to move."""
        return self
