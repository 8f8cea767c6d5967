"""Film: light on the sensor becomes a picture, depth becomes disparity."""

from __future__ import annotations

import warp as wp

from infinite_nature_ros import camera
from infinite_nature_training.sources.coast.noise import (
    hash_cell,
    high_half,
    low_half,
    MODULE_OPTIONS,
)
from infinite_nature_training.sources.coast.place import Place
from infinite_nature_training.sources.coast.rays import Shot

wp.set_module_options(MODULE_OPTIONS)

_MIN_DISPARITY = wp.constant(camera.MIN_DISPARITY)
_MAX_DISPARITY = wp.constant(camera.MAX_DISPARITY)

# Share of a neighbour's light that a lens spreads into a pixel.
_BLUR = wp.constant(0.09)


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
