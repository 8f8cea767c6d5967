"""Rays: where they meet the land, what shades it, what still water mirrors."""

from __future__ import annotations

import warp as wp

from infinite_nature_training.sources.coast.clipmap import sample
from infinite_nature_training.sources.coast.noise import MODULE_OPTIONS
from infinite_nature_training.sources.coast.place import Place
from infinite_nature_training.sources.coast.sky import through_air

wp.set_module_options(MODULE_OPTIONS)

FARTHEST = wp.constant(170.0)
"""Depth beyond which nothing is seen, scene units."""

_NEAREST = wp.constant(0.05)
_STEPS = wp.constant(300)

# Slope of the sides of trees and rocks that a ray reckons with.
_UPRIGHT = wp.constant(2.0)

BLOCK = wp.constant(4)
"""Side of the blocks of pixels that are approached together."""


@wp.struct
class Shot:
    """One exposure."""

    eye: wp.vec3
    to_world: wp.mat33
    focal: wp.vec2
    centre: wp.vec2
    ceiling: float
    steepness: float
    upright: float
    time: float


@wp.func
def ray_through(shot: Shot, x: float, y: float):
    """World direction through a point of the image, 0 to 1; second component up."""
    ray = wp.vec3((x - shot.centre[0]) / shot.focal[0], (y - shot.centre[1]) / shot.focal[1], 1.0)
    return shot.to_world * ray


@wp.func
def _step(above: float, d: wp.vec3, t: float, shot: Shot):
    """How far a ray may go on that is so high above the land."""
    flat = wp.sqrt(d[0] * d[0] + d[2] * d[2])
    sinking = -wp.min(d[1], 0.0)
    # The land has a greatest slope, but for what is low: trees and rocks stand upright.
    over = (above - shot.upright) / (shot.steepness * flat + sinking)
    return wp.max(wp.max(over, above / (_UPRIGHT * flat + sinking)), 0.005 * t)


@wp.func
def _end(o: wp.vec3, d: wp.vec3, ceiling: float):
    """How far along a direction there may be land: down to the sea or up to the ceiling."""
    if d[1] < -1.0e-6:
        return wp.min(FARTHEST, -o[1] / d[1])
    if d[1] > 1.0e-6:
        return wp.min(FARTHEST, (ceiling - o[1]) / d[1])
    return FARTHEST


@wp.func
def trace(shot: Shot, d: wp.vec3, start: float, heights: wp.array3d(dtype=float)):
    """How far along a direction from the eye the land or sea begins; -1 for the sky."""
    o = shot.eye
    end = _end(o, d, shot.ceiling)
    t = float(start)
    before = t
    for _count in range(_STEPS):
        if t >= end:
            break
        above = o[1] + d[1] * t - sample(heights, o[0] + d[0] * t, o[2] + d[2] * t, o)
        if above <= 0.0:
            return _bisect(o, d, before, t, heights)
        before = t
        t += _step(above, d, t, shot)
    if d[1] < -1.0e-6 and -o[1] / d[1] < FARTHEST:
        t = -o[1] / d[1]
        if sample(heights, o[0] + d[0] * t, o[2] + d[2] * t, o) > 0.0:
            return _bisect(o, d, before, t, heights)
        return t
    return -1.0


@wp.func
def _bisect(o: wp.vec3, d: wp.vec3, outside: float, inside: float,
            heights: wp.array3d(dtype=float)):
    """Where between two distances the surface lies."""
    a = outside
    b = inside
    for _count in range(6):
        t = 0.5 * (a + b)
        if o[1] + d[1] * t > sample(heights, o[0] + d[0] * t, o[2] + d[2] * t, o):
            a = t
        else:
            b = t
    return 0.5 * (a + b)


@wp.func
def shadow(o: wp.vec3, eye: wp.vec3, sun: wp.vec3, ceiling: float, start: float,
            heights: wp.array3d(dtype=float)):
    """Share of the sun's disc, softened, that the land leaves free."""
    free = float(1.0)
    t = float(start)
    for _count in range(32):
        y = o[1] + sun[1] * t
        if y > ceiling or free <= 0.0 or t > 60.0:
            break
        above = y - sample(heights, o[0] + sun[0] * t, o[2] + sun[2] * t, eye)
        free = wp.min(free, 0.5 + 22.0 * above / (t + 4.0 * start))
        t += wp.clamp(0.7 * above, 0.09 * t + 0.6 * start, 0.5 * t + start)
    return wp.smoothstep(0.0, 1.0, wp.max(free, 0.0))


@wp.func
def mirror(o: wp.vec3, d: wp.vec3, eye: wp.vec3, ceiling: float, place: Place,
            heights: wp.array3d(dtype=float)):
    """Colour of the land that still water would show in a direction, and how much of it."""
    t = float(0.15)
    share = float(0.0)
    for _count in range(24):
        y = o[1] + d[1] * t
        if y > ceiling or share >= 1.0:
            break
        above = y - sample(heights, o[0] + d[0] * t, o[2] + d[2] * t, eye)
        share = wp.max(share, wp.smoothstep(-0.025, 0.015, -above / t))
        t *= 1.25
    if share <= 0.0:
        return wp.vec4(0.0, 0.0, 0.0, 0.0)
    ground = 0.4 * (place.leaf + place.grass) + 0.25 * place.rock
    light = place.sunlight * (0.35 * place.sun[1]) + 0.6 * place.zenith
    c = through_air(wp.cw_mul(ground, light), o, d, t, place)
    return wp.vec4(c[0], c[1], c[2], share)


@wp.kernel
def approach(shot: Shot, size: wp.vec2, heights: wp.array3d(dtype=float),
             starts: wp.array2d(dtype=float)):
    """One block of pixels: how far all its rays go without meeting anything (cone marching)."""
    row, column = wp.tid()
    half = 0.5 * float(BLOCK)
    x = (float(column * BLOCK) + half) / size[0]
    y = (float(row * BLOCK) + half) / size[1]
    d = ray_through(shot, x, y)
    # Rays of a block, and those that smooth its edges, are within this of its middle, at depth 1.
    spread = 1.42 * (half + 0.5) / (shot.focal[0] * size[0])
    margin = spread * (1.0 + shot.steepness)
    o = shot.eye
    t = float(_NEAREST)
    if o[1] > shot.ceiling:
        t = wp.max(t, (shot.ceiling - o[1]) / wp.min(d[1] - spread, -1.0e-6))
    for _count in range(_STEPS):
        above = o[1] + d[1] * t - margin * t
        above -= wp.max(sample(heights, o[0] + d[0] * t, o[2] + d[2] * t, o), 0.0)
        if above <= 0.0 or t > FARTHEST:
            break
        t += wp.min(_step(above, d, t, shot), above / margin)
    starts[row, column] = 0.99 * t
