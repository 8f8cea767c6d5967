"""Geometric grounding: hold the disparity's scale still over the course of a flight.

The refiner is free to repaint disparity at another scale, and over hundreds of frames that drifts.
Grounding scales its output back to what the renderer carried over (paper, supplement 2.3;
release, ``infinite_nature_lib``).
"""

from __future__ import annotations

from torch import Tensor

from infinite_nature_ros.camera import MAX_DISPARITY, MIN_DISPARITY
from infinite_nature_ros.rendering import Rendered

# As in the release: keeps an empty mask from dividing by zero, so that its scale is 1.
_EPSILON = 1e-4


def ground(rendered: Rendered, refined_disparity: Tensor) -> Tensor:
    """Scale refined disparity to agree with what was carried over from the last frame.

    The scale is the mean log ratio over the known pixels; there is no shift. The release takes one
    scale over its whole batch, which is one world there; here every world of the batch has its
    own, because worlds are independent and must not change with their neighbours.

    Args:
        rendered: the warped last frame; its disparity is not clamped, ``known`` weighs the pixels.
        refined_disparity: ``[B, 1, H, W]`` as the refiner left it.

    Returns:
        ``[B, 1, H, W]`` disparity in [0, 1]; where a world knows nothing, its input clipped.

    Raises:
        ValueError: if the refined disparity hasn't the shape of the rendered one.
    """
    if refined_disparity.dim() != 4 or refined_disparity.shape != rendered.disparity.shape:
        raise ValueError(f'refined_disparity is {tuple(refined_disparity.shape)}; give it in the '
                         f'shape of the rendered one, {tuple(rendered.disparity.shape)}')
    known = rendered.known
    ratio = _log_disparity(rendered.disparity) - _log_disparity(refined_disparity)
    mean_ratio = ((known * ratio).sum((1, 2, 3), keepdim=True)
                  / (known.sum((1, 2, 3), keepdim=True) + _EPSILON))
    return (mean_ratio.exp() * refined_disparity).clamp(0, 1)


def _log_disparity(disparity: Tensor) -> Tensor:
    """Log of the disparity within a frame's contract."""
    return disparity.clamp(MIN_DISPARITY, MAX_DISPARITY).log()
