"""Elevation map: the highest surface seen so far in every cell of ground around each camera.

One view doesn't show what passes below and beside the camera, so the autopilot keeps what
earlier views showed of it, as ground robots do: a grid of heights that moves along.
"""

from __future__ import annotations

from dataclasses import dataclass
import math

import torch
from torch import Tensor
from torch.nn import functional

from infinite_nature_ros import camera
from infinite_nature_ros.frame import Frame

CELL = 0.25
"""Side of a map cell in scene units, about what a far pixel covers."""

# Share of the way that a cell goes in each frame towards a lower height than was seen before. At
# the edge of the view only the ground in front of a wall may be seen of a cell.
_LOWERING = 0.5


@dataclass(frozen=True)
class ElevationMap:
    """Heights of the level world around each camera.

    Attributes:
        heights: ``[B, N, N]`` height (world -Y, scene units) of the highest surface seen, by
            cells along world Z and X; -inf where nothing was seen.
        centre: ``[B, 2]`` whole cells (Z, X) of the world at the middle of the map.
    """

    heights: Tensor
    centre: Tensor

    @classmethod
    def empty(cls, batch: int, reach: float, device: torch.device | str = 'cpu') -> ElevationMap:
        """Map that has seen nothing, for the given distance around the camera."""
        size = 2 * math.ceil(reach / CELL) + 1
        heights = torch.full((batch, size, size), -torch.inf, device=device)
        return cls(heights, torch.zeros(batch, 2, dtype=torch.int64, device=device))

    def observe(self, frame: Frame) -> ElevationMap:
        """Move the map along to the frame's cameras and add what the frame shows.

        Cells seen again rise at once to what is seen now and sink to it within a few frames, so
        that a refiner's slip doesn't stay; slips of a pixel or two aren't taken at all. What the
        view's upper edge cuts off is taken to rise on by as much as the map reaches.
        """
        points, height = _surface(frame)
        height[:, :frame.disparity.shape[-1]] += self._cut_off(frame)
        moved = self._moved_to(_cells(camera.position(frame.pose)[:, [2, 0]]))
        index, inside = moved._index(_cells(points))
        height = torch.where(inside, height, torch.full_like(height, -torch.inf))
        seen = torch.full_like(self.heights, -torch.inf).flatten(1)
        # The maximum doesn't depend on the order, so this is deterministic on a GPU too.
        seen = seen.scatter_reduce(1, index, height, 'amax').view_as(self.heights)
        higher = torch.maximum(seen, moved.heights)
        lowered = torch.maximum(seen, torch.lerp(moved.heights, seen, _LOWERING))
        # Where nothing was known or is seen, one of the two is -inf and the lerp means nothing.
        return ElevationMap(torch.where(torch.isfinite(lowered), lowered, higher), moved.centre)

    def highest(self, places: Tensor, radius: float) -> Tensor:
        """``[B, M]`` greatest height within a radius of places ``[B, M, 2]`` (world Z, X).

        The neighbourhood is a square of cells that contains the circle; -inf where nothing is
        known.
        """
        reach = math.ceil(radius / CELL)
        widened = functional.max_pool2d(self.heights[:, None], 2 * reach + 1, 1, reach)
        index, inside = self._index(_cells(places))
        found = widened.flatten(1).gather(1, index)
        return torch.where(inside, found, torch.full_like(found, -torch.inf))

    def is_empty(self) -> Tensor:
        """``[B]`` whether nothing is known of a world."""
        return torch.isinf(self.heights).all(-1).all(-1)

    def _cut_off(self, frame: Frame) -> Tensor:
        """``[B, W]`` rise to add to the topmost pixels: those that look level or upward."""
        rays = camera.pixel_rays(frame.intrinsics, *frame.disparity.shape[-2:])[:, :, 0]
        upward = torch.einsum('bi,biw->bw', frame.pose[:, :, 1], rays) <= 0
        return upward * (self.heights.shape[-1] * CELL / 2)

    def _moved_to(self, centre: Tensor) -> ElevationMap:
        """Centre the map on another cell ``[B, 2]``; what is left behind is forgotten."""
        batch, size, _ = self.heights.shape
        cell = torch.arange(size, device=centre.device) + (centre - self.centre)[..., None]
        kept = (cell >= 0) & (cell < size)
        row, column = cell.clamp(0, size - 1).unbind(1)
        world = torch.arange(batch, device=centre.device)[:, None, None]
        heights = self.heights[world, row[:, :, None], column[:, None, :]]
        kept = kept[:, 0, :, None] & kept[:, 1, None, :]
        return ElevationMap(heights.masked_fill(~kept, -torch.inf), centre)

    def _index(self, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Flat index ``[B, M]`` of world cells ``[B, M, 2]``, and whether the map holds them."""
        size = self.heights.shape[-1]
        cells = cells - self.centre[:, None] + size // 2
        inside = ((cells >= 0) & (cells < size)).all(-1)
        row, column = cells.clamp(0, size - 1).unbind(-1)
        return row * size + column, inside


def _cells(places: Tensor) -> Tensor:
    """World cells of places in scene units."""
    return torch.floor(places / CELL).to(torch.int64)


def _surface(frame: Frame) -> tuple[Tensor, Tensor]:
    """World places ``[B, HW, 2]`` (Z, X) and heights ``[B, HW]`` of all pixels; sky is -inf."""
    rays = camera.pixel_rays(frame.intrinsics, *frame.disparity.shape[-2:])
    points = (rays / _without_specks(frame.disparity)).flatten(2)
    camera_to_world = camera.inverse(frame.pose)
    world = camera_to_world[..., :3] @ points + camera_to_world[..., 3:]
    sky = frame.disparity <= camera.MIN_DISPARITY
    if frame.sky is not None:
        sky = sky | (frame.sky > 0.5)
    height = (-world[:, 1]).masked_fill(sky.flatten(1), -torch.inf)
    return world[:, [2, 0]].transpose(1, 2), height


def _without_specks(disparity: Tensor) -> Tensor:
    """Bring near specks, at most two pixels wide and high, back to what is around them.

    A median along rows removes upright lines too, one along columns level lines: what either of
    them keeps is no speck. So a thin pole stays. Borders take the medians of the nearest windows
    that lie inside, lest a speck there count twice.
    """
    height, width = disparity.shape[-2:]
    along_rows = _median([disparity[..., shift:width - 4 + shift] for shift in range(5)])
    along_columns = _median([disparity[..., shift:height - 4 + shift, :] for shift in range(5)])
    kept = torch.maximum(functional.pad(along_rows, (2, 2, 0, 0), mode='replicate'),
                         functional.pad(along_columns, (0, 0, 2, 2), mode='replicate'))
    return torch.minimum(disparity, kept)


def _median(values: list[Tensor]) -> Tensor:
    """Median of five tensors, element by element; many times as quick as ``torch.median``."""
    first, second, third, fourth, fifth = values
    # The least of four and the greatest of four can't be the median of five.
    low = torch.maximum(torch.minimum(first, second), torch.minimum(third, fourth))
    high = torch.minimum(torch.maximum(first, second), torch.maximum(third, fourth))
    return torch.maximum(torch.minimum(low, high),
                         torch.minimum(torch.maximum(low, high), fifth))
