"""The weight-free refiner: fill holes from what lies behind them, give magnified parts detail."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from infinite_nature_ros import camera
from infinite_nature_ros.filling import fill_holes, LEAST_WEIGHT
from infinite_nature_ros.refining.grain import detail_of, shuffle_columns
from infinite_nature_ros.refining.registry import register_model
from infinite_nature_ros.rendering import Rendered

# What is nearer than this isn't sky.
_LAND_DISPARITY = 1.05 * camera.MIN_DISPARITY

# Window of the local strength of detail.
_WINDOW = 17


@register_model('inpaint')
class Inpaint:
    """Fills holes by push-pull and keeps the photo's amount of detail; has no weights.

    Flying forward magnifies everything, and every warp blurs a little. What detail thereby lacks
    of the strength that it had in the first frame, at that height of the image, is added as
    grain with the photo's own pattern. Grain becomes part of the picture: it moves along, grows,
    and is the coarser texture of later. (Sharpening instead rings within some ten frames.)
    """

    def begin(self, image: Tensor, disparity: Tensor,
              seed: int | None = None) -> dict[str, Tensor]:
        """See ``Refiner``; remembers the photo's means, and its detail's pattern and strength."""
        detail = detail_of(image)
        strength = _strength(detail)
        land = (disparity > _LAND_DISPARITY).to(image.dtype) + LEAST_WEIGHT
        values = torch.cat([image, disparity.log()], dim=1)
        return {'mean': values.mean((2, 3), keepdim=True),
                'grain': detail / strength.clamp(min=1e-3),
                'strength': (strength * land).sum(3, keepdim=True) / land.sum(3, keepdim=True)}

    def refine(self, rendered: Rendered, state: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """See ``Refiner``. A pure function: the same view gives the same picture."""
        image, disparity = fill_holes(rendered, state['mean'])
        missing = (state['strength'].square() - _strength(detail_of(image)).square()).clamp(min=0)
        grain = shuffle_columns(state['grain'], image)
        return (image + missing.sqrt() * grain).clamp(0, 1), disparity

    def to(self, device: torch.device | str) -> Inpaint:
        """See ``Refiner``; there is nothing to move."""
        return self


def _strength(detail: Tensor) -> Tensor:
    """``[B, 1, H, W]`` local root mean square of detail."""
    energy = detail.square().mean(dim=1, keepdim=True)
    padded = functional.pad(energy, (_WINDOW // 2,) * 4, mode='replicate')
    # A box is separable, and twice as quick that way.
    rows = functional.avg_pool2d(padded, (1, _WINDOW), stride=1)
    return functional.avg_pool2d(rows, (_WINDOW, 1), stride=1).sqrt()
