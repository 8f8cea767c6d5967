"""Softmax splatting in plain torch: the renderer of InfiniteNature-Zero.

Every pixel of the frame is a point that spreads over the four pixels around where it lands; where
points meet, the nearer ones outweigh the others. Unlike in the rasterisers visibility is soft, so
gradients reach it too, which Zero's release keeps from the weights. A point behind the camera
isn't drawn; the release clamps its depth and may throw it into the view. As in the release, what
is farthest weighs so little that it comes out 0.2 % darker.
"""

from __future__ import annotations

import torch
from torch import Tensor

from infinite_nature_ros import camera
from infinite_nature_ros.rendering import mesh
from infinite_nature_ros.rendering.backends import NEAR

_EDGE_BETA = 4.0

# Inverse depth spans from minus to plus this in the exponent of the weights.
_SHARPNESS = 10.0
_SPAN_EPSILON, _WEIGHT_EPSILON = 1e-6, 1e-7

# A pixel is known if what lands there is whole surface and weighs more than the epsilon does.
_ALPHA_THRESHOLD, _COVERAGE_THRESHOLD = 0.3, 0.9


def render_view(image: Tensor, disparity: Tensor, relative_pose: Tensor,
                source_intrinsics: Tensor,
                target_intrinsics: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """See ``backends.ViewRenderer``; disparity is in [0.01, 1], known is 0 or 1.

    On a CPU the same input gives the same bytes; a GPU adds in any order.
    """
    height, width = image.shape[2:]
    vertices = mesh.project_vertices(disparity, relative_pose, source_intrinsics,
                                     target_intrinsics)
    x, y, z = vertices.unbind(-1)
    in_front = z > NEAR
    # What is behind gets a depth that is there already, so that it changes no extreme.
    inverse_depth = 1 / torch.where(in_front, z, z.amax(1, keepdim=True).clamp(min=NEAR))
    weight = _weights(inverse_depth) * in_front
    alpha = (-_EDGE_BETA * _sobel_magnitude(disparity)).exp()
    values = torch.cat([image.flatten(2), inverse_depth[:, None], alpha.flatten(2),
                        torch.ones_like(weight)[:, None]], dim=1)
    sums = _splat(values * weight[:, None], x * inverse_depth, y * inverse_depth, height, width)
    seen, seen_disparity, seen_alpha, coverage = (
        sums / (sums[:, -1:] + _WEIGHT_EPSILON)).split([image.shape[1], 1, 1, 1], dim=1)
    is_known = (seen_alpha > _ALPHA_THRESHOLD) & (coverage > _COVERAGE_THRESHOLD)
    known = is_known.to(image.dtype)
    seen_disparity = seen_disparity.clamp(camera.MIN_DISPARITY, camera.MAX_DISPARITY)
    return seen * known, seen_disparity * known, known


def _weights(inverse_depth: Tensor) -> Tensor:
    """``[B, N]`` weights of points, from e^-10 for the farthest to e^10 for the nearest."""
    nearest, farthest = inverse_depth.amax(1, keepdim=True), inverse_depth.amin(1, keepdim=True)
    share = (inverse_depth - farthest) / (nearest - farthest + _SPAN_EPSILON)
    return ((2 * share - 1) * _SHARPNESS).exp()


def _sobel_magnitude(disparity: Tensor) -> Tensor:
    """``[B, 1, H, W]``, with a border that repeats the edge (kornia's); carries no gradient."""
    disparity = disparity.detach().clamp(camera.MIN_DISPARITY, camera.MAX_DISPARITY)
    return mesh.squared_sobel(disparity, 'replicate').sqrt()


def _splat(values: Tensor, x: Tensor, y: Tensor, height: int, width: int) -> Tensor:
    """Add values to the four pixels around their positions, by bilinear shares.

    Args:
        values: ``[B, C, N]``.
        x: ``[B, N]`` pixel columns, integers at pixel centres.
        y: ``[B, N]`` pixel rows.
        height: rows of the result.
        width: columns of the result.

    Returns:
        ``[B, C, H, W]``; what lands outside is lost.
    """
    batch, channels, _ = values.shape
    # Far outside is as good as a pixel and a half outside, and fits an integer.
    x, y = x.clamp(-1.5, width + 0.5), y.clamp(-1.5, height + 0.5)
    left, top = x.detach().floor(), y.detach().floor()
    right_share, bottom_share = x - left, y - top
    first = torch.arange(batch, device=values.device)[:, None] * (height * width)
    sums = values.new_zeros(channels, batch * height * width)
    for column, x_share in ((left, 1 - right_share), (left + 1, right_share)):
        for row, y_share in ((top, 1 - bottom_share), (top + 1, bottom_share)):
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            pixel = torch.where(inside, row * width + column, torch.zeros_like(row)).long()
            shares = values * (x_share * y_share * inside)[:, None]
            sums = sums.index_add(1, (first + pixel).flatten(), shares.transpose(0, 1).flatten(1))
    return sums.unflatten(1, (batch, height, width)).transpose(0, 1)
