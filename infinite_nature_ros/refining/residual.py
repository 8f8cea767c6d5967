"""The residual family: holes are filled smoothly, and a SPADE network adds what that lacks.

A network that paints every pixel anew must first learn to copy; one that adds to a filled view
starts out as good as filling, changes known pixels by little, and cannot run away.
"""

from __future__ import annotations

from torch import nn, Tensor

from infinite_nature_ros.camera import MAX_DISPARITY, MIN_DISPARITY
from infinite_nature_ros.filling import fill_holes
from infinite_nature_ros.refining.registry import register_model
from infinite_nature_ros.refining.spade import SpadeRefiner
from infinite_nature_ros.rendering import Rendered

# Largest change of RGB, where the view is known and in holes.
_KNOWN_CHANGE, _HOLE_CHANGE = 0.2, 0.6

# The same for the logarithm of disparity.
_KNOWN_LOG_CHANGE, _HOLE_LOG_CHANGE = 0.1, 1.0


class ResidualRefiner(SpadeRefiner):
    """SPADE generator whose output is added to a view filled by push-pull."""

    def __init__(self, name: str, width: int, hidden: int, image_size: tuple[int, int],
                 grounding: bool = True) -> None:
        """Build an untrained network, which adds nothing; arguments as in ``SpadeRefiner``."""
        super().__init__(name, width, hidden, image_size, grounding)
        nn.init.zeros_(self.generator.conv.weight)
        nn.init.zeros_(self.generator.conv.bias)

    @property
    def without_norm(self) -> tuple[nn.Module, ...]:
        """Layers that aren't trained under spectral norm: of zeros there is no norm."""
        return (self.generator.conv,)

    def refine(self, rendered: Rendered, state: Tensor) -> tuple[Tensor, Tensor]:
        """Fill the view and add to it; see ``Refiner``.

        Raises:
            ValueError: if a side is not divisible by 32 or below 64, or the shapes don't fit.
        """
        image, disparity = fill_holes(rendered)
        filled = Rendered(image, disparity, rendered.known)
        colour, log_ratio = (2 * part - 1 for part in super().refine(filled, state))
        known = rendered.known
        image = image + colour * _between(_HOLE_CHANGE, _KNOWN_CHANGE, known)
        log_ratio = log_ratio * _between(_HOLE_LOG_CHANGE, _KNOWN_LOG_CHANGE, known)
        return (image.clamp(0, 1),
                (disparity * log_ratio.exp()).clamp(MIN_DISPARITY, MAX_DISPARITY))


def _between(in_holes: float, where_known: float, known: Tensor) -> Tensor:
    return in_holes + (where_known - in_holes) * known


@register_model('residual-small', needs_weights=True)
def residual_small(image_size: tuple[int, int] = (160, 256),
                   **options: bool) -> ResidualRefiner:
    """Build the size of infinite-nature-small."""
    return ResidualRefiner('residual-small', 16, 32, image_size, **options)


@register_model('residual-tiny', needs_weights=True)
def residual_tiny(image_size: tuple[int, int] = (160, 256),
                  **options: bool) -> ResidualRefiner:
    """Build the size of infinite-nature-tiny."""
    return ResidualRefiner('residual-tiny', 8, 32, image_size, **options)
