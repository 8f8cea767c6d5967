"""Rasteriser in plain torch: the reference that the fast backends are tested against."""

from __future__ import annotations

import torch
from torch import Tensor

from infinite_nature_ros.rendering.backends import NEAR

# Candidate (triangle, pixel) pairs that are looked at together; bounds the memory.
_PAIRS_AT_ONCE = 1 << 22


def edge_functions(corners: Tensor, pixels: Tensor) -> Tensor:
    """Homogeneous edge functions: barycentrics up to a common factor (Olano and Greer, 1997).

    The corners are shifted so that the sample is the origin first: two triangles that share an
    edge then compute exactly opposite numbers for it, which leaves no cracks.

    Args:
        corners: ``[..., 3, 3]``, three corners (x, y, w) each.
        pixels: ``[..., 2]`` sample positions x, y.

    Returns:
        ``[..., 3]``; all of one sign inside the triangle.
    """
    shifted = corners[..., :2] - pixels[..., None, :] * corners[..., 2:]
    x, y = shifted.unbind(-1)
    return torch.stack([x[..., 1] * y[..., 2] - x[..., 2] * y[..., 1],
                        x[..., 2] * y[..., 0] - x[..., 0] * y[..., 2],
                        x[..., 0] * y[..., 1] - x[..., 1] * y[..., 0]], dim=-1)


def rasterize(vertices: Tensor, faces: Tensor, height: int, width: int) -> Tensor:
    """See ``backends.Rasterizer``."""
    with torch.no_grad():
        return torch.stack([_rasterize_one(points[faces.long()], height, width)
                            for points in vertices])


def _rasterize_one(corners: Tensor, height: int, width: int) -> Tensor:
    """``[H, W]`` triangle numbers of one world from its ``[F, 3, 3]`` corners."""
    left, top, columns, rows = _bounding_boxes(corners, height, width)
    counts = columns * rows
    depth_keys = corners.new_zeros(height * width, dtype=torch.int64)
    for triangles in _chunks(counts):
        number = counts[triangles]
        triangle = triangles.repeat_interleave(number)
        start = number.cumsum(0) - number
        offset = torch.arange(len(triangle), device=corners.device)
        offset = offset - start.repeat_interleave(number)
        x = left[triangle] + offset % columns[triangle]
        y = top[triangle] + offset // columns[triangle]
        inverse_depth = _inverse_depth(corners[triangle], torch.stack([x, y], dim=-1))
        # Positive floats order like their bits; the triangle below them breaks ties.
        key = (inverse_depth.float().view(torch.int32).long() << 32) | (triangle + 1)
        key = torch.where(inverse_depth > 0, key, torch.zeros_like(key))
        depth_keys.scatter_reduce_(0, y * width + x, key, 'amax')
    return ((depth_keys & 0xFFFFFFFF) - 1).reshape(height, width)


def _chunks(counts: Tensor) -> list[Tensor]:
    """Split the triangles that cover anything into runs of a bounded number of pairs."""
    triangles = counts.nonzero().squeeze(1)
    chunk = counts[triangles].cumsum(0) // _PAIRS_AT_ONCE
    return [triangles[chunk == value] for value in chunk.unique()]


def _bounding_boxes(corners: Tensor, height: int, width: int) -> tuple[Tensor, ...]:
    """Left, top, columns and rows of the pixels that each triangle may cover."""
    w = corners[..., 2]
    before = (w > NEAR).all(1)
    position = corners[..., :2] / w.clamp(min=NEAR)[..., None]
    low, high = position.amin(1).ceil(), position.amax(1).floor()
    boxes = []
    for axis, size in ((0, width), (1, height)):
        # A triangle that crosses the camera plane may reach anywhere.
        first = torch.where(before, low[:, axis], torch.zeros_like(low[:, axis]))
        last = torch.where(before, high[:, axis], torch.full_like(first, size - 1))
        first = first.clamp(0, size)
        boxes.append((first.long(), (last.clamp(-1, size - 1) - first + 1).clamp(min=0).long()))
    visible = (w > NEAR).any(1)
    (left, columns), (top, rows) = boxes
    return left, top, columns * visible, rows


def _inverse_depth(corners: Tensor, pixels: Tensor) -> Tensor:
    """``[N]`` 1 / w of the triangle at the sample; 0 where it doesn't cover it."""
    edges = edge_functions(corners, pixels.to(corners.dtype))
    e0, e1, e2 = edges.unbind(-1)
    total = e0 + e1 + e2
    weighted = e0 * corners[:, 0, 2] + e1 * corners[:, 1, 2] + e2 * corners[:, 2, 2]
    inside = ((edges >= 0).all(-1) | (edges <= 0).all(-1)) & (total != 0)
    inside &= weighted / total > NEAR
    return torch.where(inside, total / weighted, torch.zeros_like(total))
