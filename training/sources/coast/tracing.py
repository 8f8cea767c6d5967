"""The camera: rays through the clipmap, light and shade, exposure; one Warp kernel a frame."""

from __future__ import annotations

import warp as wp

from infinite_nature_ros import camera
from infinite_nature_training.sources.coast.clipmap import CELL, level_at, sample, sample_cover
from infinite_nature_training.sources.coast.land import shade_land, Spot
from infinite_nature_training.sources.coast.noise import (
    hash_cell,
    high_half,
    low_half,
    MODULE_OPTIONS,
)
from infinite_nature_training.sources.coast.place import Place
from infinite_nature_training.sources.coast.sky import (
    clear_sky,
    cloud_shadow,
    clouds,
    sun_disc,
    through_air,
)
from infinite_nature_training.sources.coast.water import ripple, shade_water

wp.set_module_options(MODULE_OPTIONS)

_FARTHEST = wp.constant(170.0)
_NEAREST = wp.constant(0.05)
_MIN_DISPARITY = wp.constant(camera.MIN_DISPARITY)
_MAX_DISPARITY = wp.constant(camera.MAX_DISPARITY)
_STEPS = wp.constant(300)

# Slope of the sides of trees and rocks that a ray reckons with.
_UPRIGHT = wp.constant(2.0)

BLOCK = wp.constant(4)
"""Side of the blocks of pixels that are approached together."""


# Where the further rays of a pixel at an edge go, from its centre.
_OFFSETS = wp.constant(wp.types.matrix(shape=(2, 2), dtype=float)(-0.33, 0.22, 0.33, -0.22))

# Share of a neighbour's light that a lens spreads into a pixel.
_BLUR = wp.constant(0.09)


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
        return wp.min(_FARTHEST, -o[1] / d[1])
    if d[1] > 1.0e-6:
        return wp.min(_FARTHEST, (ceiling - o[1]) / d[1])
    return _FARTHEST


@wp.func
def _trace(shot: Shot, d: wp.vec3, start: float, heights: wp.array3d(dtype=float)):
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
    if d[1] < -1.0e-6 and -o[1] / d[1] < _FARTHEST:
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
def _shadow(o: wp.vec3, eye: wp.vec3, sun: wp.vec3, ceiling: float, start: float,
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
def _mirror(o: wp.vec3, d: wp.vec3, eye: wp.vec3, ceiling: float, place: Place,
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
        sun = _shadow(start, eye, place.sun, shot.ceiling, e, heights)
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
    sun = _shadow(hit, eye, place.sun, shot.ceiling, 0.05, heights)
    sun *= cloud_shadow(p, 0.0, shot.time * 0.002, place)
    land = _mirror(hit, water.mirrored, eye, shot.ceiling, place, heights)
    return shade_water(water, land, sun, place)


@wp.func
def _develop(light: wp.vec3, x: float, y: float, place: Place):
    """Light on the sensor to a picture: vignette, exposure, filmic curve, grading; 0 to 1."""
    r2 = (x - 0.5) * (x - 0.5) + (y - 0.5) * (y - 0.5)
    gain = place.exposure * 0.62 * (1.0 - 0.35 * r2)
    c = wp.cw_mul(light, wp.vec3(gain * (1.0 + place.warmth), gain, gain * (1.0 - place.warmth)))
    out = wp.vec3()
    for k in range(3):
        v = wp.max(c[k], 0.0)
        # Rational fit of a film's response (Narkowicz 2016).
        v = wp.clamp(v * (2.51 * v + 0.03) / (v * (2.43 * v + 0.59) + 0.14), 0.0, 1.0)
        v = wp.pow(v, 1.0 / 2.2)
        out[k] = 0.45 + (v - 0.45) * place.contrast
    grey = 0.3 * out[0] + 0.59 * out[1] + 0.11 * out[2]
    return wp.lerp(wp.vec3(grey, grey, grey), out, place.saturation)


@wp.func
def _look(d: wp.vec3, start: float, pixel: float, shot: Shot, place: Place,
          heights: wp.array3d(dtype=float), covers: wp.array3d(dtype=wp.vec3)):
    """Light along a ray whose third camera component is 1, and the depth (0 for the sky)."""
    o = shot.eye
    t = _trace(shot, d, start, heights)
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


@wp.func
def _ray(shot: Shot, x: float, y: float):
    """World direction through a point of the image, 0 to 1; second component up."""
    ray = wp.vec3((x - shot.centre[0]) / shot.focal[0], (y - shot.centre[1]) / shot.focal[1], 1.0)
    return shot.to_world * ray


@wp.kernel
def approach(shot: Shot, size: wp.vec2, heights: wp.array3d(dtype=float),
             starts: wp.array2d(dtype=float)):
    """One block of pixels: how far all its rays go without meeting anything (cone marching)."""
    row, column = wp.tid()
    half = 0.5 * float(BLOCK)
    d = _ray(shot, (float(column * BLOCK) + half) / size[0], (float(row * BLOCK) + half) / size[1])
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
        if above <= 0.0 or t > _FARTHEST:
            break
        t += wp.min(_step(above, d, t, shot), above / margin)
    starts[row, column] = 0.99 * t


@wp.kernel
def expose(shot: Shot, places: wp.array(dtype=Place), heights: wp.array3d(dtype=float),
           covers: wp.array3d(dtype=wp.vec3), starts: wp.array2d(dtype=float),
           light: wp.array2d(dtype=wp.vec3), depth: wp.array2d(dtype=float)):
    """One pixel: light and depth through its centre."""
    row, column = wp.tid()
    height = float(light.shape[0])
    width = float(light.shape[1])
    d = _ray(shot, (float(column) + 0.5) / width, (float(row) + 0.5) / height)
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
        seen = _look(_ray(shot, x, y), starts[row // BLOCK, column // BLOCK],
                     1.0 / (shot.focal[0] * width), shot, places[0], heights, covers)
        # Bright samples count less, or a glint would keep its jagged edge.
        share = 1.0 / (1.0 + seen[1])
        total += wp.vec3(seen[0], seen[1], seen[2]) * share
        weight += share
    smoothed[row, column] = total / weight


@wp.func
def _through_lens(light: wp.array2d(dtype=wp.vec3), row: int, column: int):
    """Light that falls on a pixel, with what the lens spreads from its neighbours."""
    total = wp.vec3(0.0, 0.0, 0.0)
    for dy in range(-1, 2):
        for dx in range(-1, 2):
            y = wp.clamp(row + dy, 0, light.shape[0] - 1)
            x = wp.clamp(column + dx, 0, light.shape[1] - 1)
            share = wp.where(dx == 0, 1.0 - 2.0 * _BLUR, _BLUR)
            share *= wp.where(dy == 0, 1.0 - 2.0 * _BLUR, _BLUR)
            c = light[y, x]
            total += wp.vec3(wp.min(c[0], 4.0), wp.min(c[1], 4.0), wp.min(c[2], 4.0)) * share
    return total


@wp.kernel
def develop(shot: Shot, places: wp.array(dtype=Place), light: wp.array2d(dtype=wp.vec3),
            depth: wp.array2d(dtype=float), image: wp.array3d(dtype=float),
            disparity: wp.array2d(dtype=float), sky: wp.array2d(dtype=float)):
    """One pixel: picture, disparity, and whether it is sky."""
    row, column = wp.tid()
    place = places[0]
    x = (float(column) + 0.5) / float(light.shape[1])
    y = (float(row) + 0.5) / float(light.shape[0])
    colour = _develop(_through_lens(light, row, column), x, y, place)
    # Grain: other for every picture, the same for the same view.
    still = hash_cell(int(shot.eye[0] * 4096.0), int(shot.eye[2] * 4096.0), place.seed)
    bits = hash_cell(column, row, int(still))
    tint = hash_cell(row, column, int(bits))
    coarse = low_half(bits) + high_half(bits) - 1.0
    own = wp.vec3(low_half(tint), high_half(tint), low_half(tint * wp.uint32(1640531527)))
    for k in range(3):
        noisy = colour[k] + place.grain * (1.6 * coarse + own[k] - 0.5)
        image[k, row, column] = wp.clamp(noisy, 0.0, 1.0)
    value = float(_MIN_DISPARITY)
    sky[row, column] = wp.where(depth[row, column] > 0.0, 0.0, 1.0)
    if depth[row, column] > 0.0:
        value = wp.clamp(1.0 / depth[row, column], _MIN_DISPARITY, _MAX_DISPARITY)
    disparity[row, column] = value
