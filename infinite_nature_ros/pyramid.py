"""Steps of image pyramids: half and twice the size, in few passes over the pixels.

PyTorch's own pooling and resizing on a CPU go pixel by pixel; sums of slices are several times as
fast, forward and backward.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def halve(values: Tensor, *, sideways: bool = False) -> Tensor:
    """Means of 2 x 2 pixels of ``[B, C, H, W]``, or of 1 x 2 sideways; the sides are even."""
    if sideways:
        left, right = values.unflatten(3, (-1, 2)).unbind(4)
        return (left + right) * 0.5
    upper, lower = (row.unflatten(3, (-1, 2)).unbind(4)
                    for row in values.unflatten(2, (-1, 2)).unbind(3))
    return (upper[0] + upper[1] + lower[0] + lower[1]) * 0.25


def resize(values: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, as ``interpolate`` does it without aligned corners.

    Args:
        values: ``[B, C, h, w]``.
        size: height and width that it is to have; for each fast if it stays or doubles.

    Returns:
        ``[B, C, H, W]``.
    """
    rows, columns = values.shape[2:]
    if size[0] not in (rows, 2 * rows) or size[1] not in (columns, 2 * columns):
        return functional.interpolate(values, size, mode='bilinear', align_corners=False)
    # Rows first, while they are short.
    for dim in (2, 3):
        if values.shape[dim] != size[dim - 2]:
            values = _double(values, dim)
    return values


def _double(values: Tensor, dim: int) -> Tensor:
    """Twice as many rows or columns: each is a quarter of the way to its neighbours."""
    length = values.shape[dim]
    first, last = values.narrow(dim, 0, 1), values.narrow(dim, length - 1, 1)
    before = torch.cat([first, values.narrow(dim, 0, length - 1)], dim)
    behind = torch.cat([values.narrow(dim, 1, length - 1), last], dim)
    shape = list(values.shape)
    shape.insert(dim + 1, 2)
    # To stack along the last dimension is ten times slower than to copy there.
    pairs = values.new_empty(shape)
    for number, neighbour in enumerate((before, behind)):
        pairs.select(dim + 1, number).copy_(torch.lerp(values, neighbour, 0.25))
    return pairs.flatten(dim, dim + 1)
