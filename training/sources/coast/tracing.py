"""What a pixel sees: light along its ray and at the edges of things, one Warp thread a pixel."""

from __future__ import annotations

import warp as wp

from infinite_nature_training.sources.coast.clipmap import CELL, level_at, sample, sample_cover
from infinite_nature_training.sources.coast.land import shade_land, Spot
from infinite_nature_training.sources.coast.noise import MODULE_OPTIONS
from infinite_nature_training.sources.coast.place import Place
from infinite_nature_training.sources.coast.rays import (
    BLOCK,
    mirror,
    ray_through,
    shadow,
    Shot,
    trace,
)
from infinite_nature_training.sources.coast.sky import (
    clear_sky,
    cloud_shadow,
    clouds,
    sun_disc,
    through_air,
)
from infinite_nature_training.sources.coast.water import ripple, shade_water

wp.set_module_options(MODULE_OPTIONS)

# Where the further rays of a pixel at an edge go, from its centre.
_OFFSETS = wp.constant(wp.types.matrix(shape=(2, 2), dtype=float)(-0.33, 0.22, 0.33, -0.22))


@wp.func
def _land(hit: wp.vec3, d: wp.vec3, shot: Shot, place: Place, footprint: float,
          heights: wp.array3d(dtype=float), covers: wp.array3d(dtype=wp.vec3)):
    """Colour of the land at a hit."""
    eye = shot.eye
    e = CELL * wp.pow(2.0, level_at(hit[0], hit[2], eye)) * 0.8
    left = sample(heights, hit[0] - e, hit[2], eye)
    right = sample(heights, hit[0] + e, hit[2], eye)
    back = sample(heights, hit[0], hit[2] - e, eye)
    front = sample(heights, hit[0], hit[2] + e, eye)
    normal = wp.normalize(wp.vec3(left - right, 2.0 * e, back - front))
    cover = sample_cover(covers, hit[0], hit[2], eye)
    spot = Spot()
    spot.p = wp.vec2(hit[0], hit[2])
    spot.height = hit[1]
    spot.normal = normal
    spot.crown = cover[0]
    spot.gully = cover[1]
    spot.tree = cover[2]
    spot.footprint = footprint
    start = hit + normal * (0.9 * e)
    sun = float(0.0)
    if wp.dot(normal, place.sun) > -0.3:
        sun = shadow(start, eye, place.sun, shot.ceiling, e, heights)
        sun *= cloud_shadow(spot.p, hit[1], shot.time * 0.002, place)
    w = 6.0 * e
    around = 0.25 * (sample(heights, hit[0] - w, hit[2], eye)
                     + sample(heights, hit[0] + w, hit[2], eye)
                     + sample(heights, hit[0], hit[2] - w, eye)
                     + sample(heights, hit[0], hit[2] + w, eye))
    openness = wp.clamp(0.85 + 1.1 * (hit[1] - around) / w, 0.25, 1.0)
    return shade_land(spot, sun, openness, place)


@wp.func
def _sea(hit: wp.vec3, d: wp.vec3, shot: Shot, place: Place, footprint: float,
         heights: wp.array3d(dtype=float)):
    """Colour of the sea at a hit."""
    eye = shot.eye
    e = 0.08 + CELL * wp.pow(2.0, level_at(hit[0], hit[2], eye))
    depth = wp.max(-sample(heights, hit[0], hit[2], eye), 0.0)
    across = (sample(heights, hit[0] + e, hit[2], eye)
              - sample(heights, hit[0] - e, hit[2], eye)) / (2.0 * e)
    along = (sample(heights, hit[0], hit[2] + e, eye)
             - sample(heights, hit[0], hit[2] - e, eye)) / (2.0 * e)
    p = wp.vec2(hit[0], hit[2])
    water = ripple(p, d, footprint, shot.time, place)
    water.depth = depth
    water.shore = depth / (wp.sqrt(across * across + along * along) + 0.03)
    sun = shadow(hit, eye, place.sun, shot.ceiling, 0.05, heights)
    sun *= cloud_shadow(p, 0.0, shot.time * 0.002, place)
    land = mirror(hit, water.mirrored, eye, shot.ceiling, place, heights)
    return shade_water(water, land, sun, place)


@wp.func
def _look(d: wp.vec3, start: float, pixel: float, shot: Shot, place: Place,
          heights: wp.array3d(dtype=float), covers: wp.array3d(dtype=wp.vec3)):
    """Light along a ray whose third camera component is 1, and the depth (0 for the sky)."""
    o = shot.eye
    t = trace(shot, d, start, heights)
    length = wp.length(d)
    unit = d / length
    if t < 0.0:
        sky = clear_sky(unit, place) + sun_disc(unit, place)
        sky = clouds(unit, sky, pixel, shot.time * 0.002, place)
        return wp.vec4(sky[0], sky[1], sky[2], 0.0)
    hit = o + d * t
    distance = t * length
    colour = wp.vec3()
    if hit[1] > 1.0e-4:
        footprint = distance * pixel * 1.2
        colour = _land(hit, unit, shot, place, footprint, heights, covers)
    else:
        footprint = distance * pixel / wp.sqrt(wp.max(-unit[1], 0.02))
        colour = _sea(hit, unit, shot, place, footprint, heights)
    colour = through_air(colour, o, unit, distance, place)
    return wp.vec4(colour[0], colour[1], colour[2], t)


@wp.kernel
def expose(shot: Shot, places: wp.array(dtype=Place), heights: wp.array3d(dtype=float),
           covers: wp.array3d(dtype=wp.vec3), starts: wp.array2d(dtype=float),
           light: wp.array2d(dtype=wp.vec3), depth: wp.array2d(dtype=float)):
    """One pixel: light and depth through its centre."""
    row, column = wp.tid()
    height = float(light.shape[0])
    width = float(light.shape[1])
    d = ray_through(shot, (float(column) + 0.5) / width, (float(row) + 0.5) / height)
    start = starts[row // BLOCK, column // BLOCK]
    seen = _look(d, start, 1.0 / (shot.focal[0] * width), shot, places[0], heights, covers)
    light[row, column] = wp.vec3(seen[0], seen[1], seen[2])
    depth[row, column] = seen[3]


@wp.func
def _differs(light: wp.array2d(dtype=wp.vec3), depth: wp.array2d(dtype=float), row: int,
             column: int, other_row: int, other_column: int):
    """Whether two pixels lie on both sides of an edge that one sample can't draw."""
    y = wp.clamp(other_row, 0, light.shape[0] - 1)
    x = wp.clamp(other_column, 0, light.shape[1] - 1)
    here = depth[row, column]
    there = depth[y, x]
    if wp.abs(here - there) > 0.25 * wp.min(here, there):
        return True
    a = light[row, column]
    b = light[y, x]
    return wp.abs(a[1] - b[1]) > 0.6 * (a[1] + b[1]) + 0.02


@wp.kernel
def smooth(shot: Shot, places: wp.array(dtype=Place), heights: wp.array3d(dtype=float),
           covers: wp.array3d(dtype=wp.vec3), starts: wp.array2d(dtype=float),
           light: wp.array2d(dtype=wp.vec3), depth: wp.array2d(dtype=float),
           smoothed: wp.array2d(dtype=wp.vec3)):
    """One pixel: its light, averaged over more rays where it borders on something else."""
    row, column = wp.tid()
    own = light[row, column]
    if not (_differs(light, depth, row, column, row, column - 1)
            or _differs(light, depth, row, column, row, column + 1)
            or _differs(light, depth, row, column, row - 1, column)
            or _differs(light, depth, row, column, row + 1, column)):
        smoothed[row, column] = own
        return
    height = float(light.shape[0])
    width = float(light.shape[1])
    total = own / (1.0 + own[1])
    weight = 1.0 / (1.0 + own[1])
    for k in range(2):
        x = (float(column) + 0.5 + _OFFSETS[k, 0]) / width
        y = (float(row) + 0.5 + _OFFSETS[k, 1]) / height
        seen = _look(ray_through(shot, x, y), starts[row // BLOCK, column // BLOCK],
                     1.0 / (shot.focal[0] * width), shot, places[0], heights, covers)
        # Bright samples count less, or a glint would keep its jagged edge.
        share = 1.0 / (1.0 + seen[1])
        total += wp.vec3(seen[0], seen[1], seen[2]) * share
        weight += share
    smoothed[row, column] = total / weight
