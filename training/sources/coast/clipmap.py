"""Clipmap: grids of the land around the camera, each level twice as coarse and wide as the last.

A cell's content depends on its place and level alone, never on the way the camera came, so the
same view is the same to the byte. Levels are addressed modulo their size: when the camera moves,
only the cells that come into reach are computed (Losasso and Hoppe 2004).
"""

from __future__ import annotations

import numpy as np
import warp as wp

from infinite_nature_training.sources.coast.noise import MODULE_OPTIONS
from infinite_nature_training.sources.coast.place import Place
from infinite_nature_training.sources.coast.start import Overview
from infinite_nature_training.sources.coast.terrain import highest, large_forms, surface

wp.set_module_options(MODULE_OPTIONS)

SIZE = wp.constant(512)
"""Cells along a side of a level."""

HALF = wp.constant(256)

LEVELS = wp.constant(7)

CELL = wp.constant(1.0 / 64.0)
"""Side of a cell of the finest level, scene units."""

# A level serves places up to this share of its half side, and is mixed with the next before.
_REACH = wp.constant(0.85 * 256.0 / 64.0)
_MIX = wp.constant(0.82)

_NOWHERE = -(1 << 28)

# Level of the overview: as wide as an eye sees far.
_OVERVIEW = 4


@wp.func
def _cell_size(level: int):
    return CELL * float(1 << level)


@wp.kernel
def _fill_forms(places: wp.array(dtype=Place), level: int, corner: wp.vec2i,
                forms: wp.array3d(dtype=float)):
    """Large forms of a rectangle of cells, from a corner (x, z) on."""
    row, column = wp.tid()
    x = corner[0] + column
    z = corner[1] + row
    cell = _cell_size(level)
    p = wp.vec2(float(x), float(z)) * cell
    forms[level, z & (SIZE - 1), x & (SIZE - 1)] = large_forms(p, places[0], cell)


@wp.kernel
def _fill_surface(places: wp.array(dtype=Place), level: int, corner: wp.vec2i,
                  forms: wp.array3d(dtype=float), heights: wp.array3d(dtype=float),
                  covers: wp.array3d(dtype=wp.vec3)):
    """Surface of a rectangle of cells whose neighbours have their large forms."""
    row, column = wp.tid()
    x = corner[0] + column
    z = corner[1] + row
    cell = _cell_size(level)
    i = z & (SIZE - 1)
    j = x & (SIZE - 1)
    slope = wp.vec2(forms[level, i, (j + 1) & (SIZE - 1)] - forms[level, i, (j - 1) & (SIZE - 1)],
                    forms[level, (i + 1) & (SIZE - 1), j] - forms[level, (i - 1) & (SIZE - 1), j])
    p = wp.vec2(float(x), float(z)) * cell
    s = surface(p, forms[level, i, j], slope / (2.0 * cell), places[0], cell)
    heights[level, i, j] = s[0]
    covers[level, i, j] = wp.vec3(s[1], s[2], s[3])


@wp.func
def level_at(x: float, z: float, eye: wp.vec3):
    """Level of detail at a place: its whole part is the finer level, the rest the mix."""
    reach = wp.max(wp.abs(x - eye[0]), wp.abs(z - eye[2])) / _REACH
    if reach <= _MIX:
        return 0.0
    # The exponent and the fraction of the number itself: a logarithm would take longer.
    bits = wp.cast(reach, wp.int32)
    share = 0.5 * wp.cast((bits & 0x7FFFFF) | 0x3F800000, wp.float32)
    finer = float((bits >> 23) - 126)
    mixed = wp.clamp((share - _MIX) / (1.0 - _MIX), 0.0, 0.999)
    return wp.min(finer + mixed, float(LEVELS - 1))


@wp.func
def _find_cell(level: int, x: float, z: float):
    """Columns and rows of the cells around a place, and its shares of the way between them."""
    inverse = 1.0 / _cell_size(level)
    u = x * inverse
    v = z * inverse
    cell_u = wp.floor(u)
    cell_v = wp.floor(v)
    a = int(cell_u) & (SIZE - 1)
    c = int(cell_v) & (SIZE - 1)
    b = (a + 1) & (SIZE - 1)
    d = (c + 1) & (SIZE - 1)
    u -= cell_u
    v -= cell_v
    return a, b, c, d, u, v


@wp.func
def _bilinear(grid: wp.array3d(dtype=float), level: int, x: float, z: float):
    a, b, c, d, u, v = _find_cell(level, x, z)
    near = grid[level, c, a] + u * (grid[level, c, b] - grid[level, c, a])
    far = grid[level, d, a] + u * (grid[level, d, b] - grid[level, d, a])
    return near + v * (far - near)


@wp.func
def sample(grid: wp.array3d(dtype=float), x: float, z: float, eye: wp.vec3):
    """Value of a grid at a place, at the level that a camera at ``eye`` sees."""
    detail = level_at(x, z, eye)
    level = int(detail)
    mixed = detail - float(level)
    value = _bilinear(grid, level, x, z)
    if mixed > 0.0 and level + 1 < LEVELS:
        value += mixed * (_bilinear(grid, level + 1, x, z) - value)
    return value


@wp.func
def sample_cover(grid: wp.array3d(dtype=wp.vec3), x: float, z: float, eye: wp.vec3):
    """Cover at a place: crown height and gully value between the cells, the nearest's tree."""
    level = int(level_at(x, z, eye))
    a, b, c, d, u, v = _find_cell(level, x, z)
    mean = wp.lerp(wp.lerp(grid[level, c, a], grid[level, c, b], u),
                   wp.lerp(grid[level, d, a], grid[level, d, b], u), v)
    nearest = grid[level, wp.where(v > 0.5, d, c), wp.where(u > 0.5, b, a)]
    return wp.vec3(mean[0], mean[1], nearest[2])


class Clipmap:
    """Grids of one place around a moving camera.

    Attributes:
        device: name of the Warp device that they are on.
        place: the settings, an array of one.
        heights: ``[levels, size, size]`` of the surface, trees included.
        covers: likewise, (crown height, gully value, tree number).
        ceiling: height that no land rises over.
        upright: height of what may stand upright on the land.
    """

    def __init__(self, place: Place, device: str = 'cpu') -> None:
        self.device = device
        self._settings = place
        self.place = wp.array([place], dtype=Place, device=device)
        shape = (LEVELS, SIZE, SIZE)
        self._forms = wp.zeros(shape, dtype=float, device=device)
        self.heights = wp.zeros(shape, dtype=float, device=device)
        self.covers = wp.zeros(shape, dtype=wp.vec3, device=device)
        self._centres = np.full((LEVELS, 2), _NOWHERE)
        self.ceiling = highest(place)
        self.upright = 0.05 + (place.tree_height if place.trees > 0.02 else 0.0)

    def set_exposure(self, exposure: float) -> None:
        """Change how much light the camera takes."""
        self._settings.exposure = exposure
        self.place = wp.array([self._settings], dtype=Place, device=self.device)

    def move(self, x: float, z: float) -> None:
        """Centre all levels on a place, by whole cells."""
        for level in range(LEVELS):
            centre = np.floor(np.array([x, z]) / (CELL * 2.0 ** level))
            self._move_level(level, centre.astype(np.int64))

    def overview(self) -> Overview:
        """Land around the origin, from one level of the grids."""
        self._move_level(_OVERVIEW, np.zeros(2, np.int64))
        heights = np.roll(self.heights.numpy()[_OVERVIEW], HALF, axis=(0, 1))
        # The outermost cells have no neighbours, and no surface.
        return Overview(heights[1:-1, 1:-1], CELL * 2.0 ** _OVERVIEW)

    def ground(self, x: float, z: float) -> float:
        """Height of the surface at a place; the grids move there."""
        self.move(x, z)
        cell = np.floor(np.array([x, z]) / CELL + 0.5).astype(int) & (SIZE - 1)
        return float(self.heights[0].numpy()[cell[1], cell[0]])

    def _move_level(self, level: int, centre: np.ndarray) -> None:
        """Centre a level on a cell (x, z): compute the rows and columns that come into reach."""
        moved = np.clip(centre - self._centres[level], -SIZE, SIZE)
        self._centres[level] = centre
        first = centre - HALF
        axes = np.flatnonzero(moved)
        if not len(axes):
            return
        if np.abs(moved).max() == SIZE:
            axes = axes[:1] if abs(moved[axes[0]]) == SIZE else axes[-1:]
        for axis in axes:
            width = abs(moved[axis])
            corner, extent = first.copy(), np.array([SIZE, SIZE])
            corner[axis] += SIZE - width if moved[axis] > 0 else 0
            extent[axis] = width
            self._launch(_fill_forms, level, corner, extent, self._forms)
        for axis in axes:
            width = min(abs(moved[axis]), SIZE - 2)
            corner, extent = first + 1, np.array([SIZE - 2, SIZE - 2])
            corner[axis] += SIZE - 2 - width if moved[axis] > 0 else 0
            extent[axis] = width
            self._launch(_fill_surface, level, corner, extent, self._forms, self.heights,
                         self.covers)

    def _launch(self, kernel: wp.Kernel, level: int, corner: np.ndarray, extent: np.ndarray,
                *grids: wp.array) -> None:
        """Fill a rectangle of cells of a level; its extent is along x and z."""
        wp.launch(kernel, dim=(int(extent[1]), int(extent[0])), device=self.device,
                  inputs=[self.place, level, wp.vec2i(*corner.tolist()), *grids])
