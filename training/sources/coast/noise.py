"""Noise without repeats: hashed gradient and cell noise as Warp functions of a place in the plane.

Every function takes whole-number seeds, so that one place gives the same value in every process.
"""

from __future__ import annotations

import warp as wp

wp.config.log_level = wp.LOG_WARNING
wp.init()

MODULE_OPTIONS = {
    'enable_backward': False,
    # A quarter faster, and next to nothing of it is seen: no result hangs on the last bit.
    'cpu_compiler_flags': '-march=native -mreassociate -freciprocal-math '
                          '-fno-signed-zeros -fapprox-func',
}
"""Options of Warp modules with kernels that draw a coast."""

# The octaves of a sum are turned against each other, or the lattice would show.
_COS, _SIN = wp.constant(0.8), wp.constant(0.6)

# Shrinks each octave by a bit less than half: at exactly half the lattices would meet.
LACUNARITY = wp.constant(1.93)

# What an octave of ridges is on average.
_MEAN_RIDGE = wp.constant(0.35)


@wp.func
def hash_cell(x: int, z: int, seed: int):
    """32 random bits of a lattice cell."""
    h = (wp.uint32(x) * wp.uint32(374761393) + wp.uint32(z) * wp.uint32(668265263)
         + wp.uint32(seed) * wp.uint32(1540483477))
    h = (h ^ (h >> wp.uint32(15))) * wp.uint32(1103515245)
    h = (h ^ (h >> wp.uint32(13))) * wp.uint32(1812433253)
    return h ^ (h >> wp.uint32(16))


@wp.func
def low_half(bits: wp.uint32):
    """Random number in [0, 1) from the lower 16 bits."""
    return float(bits & wp.uint32(65535)) * (1.0 / 65536.0)


@wp.func
def high_half(bits: wp.uint32):
    """Random number in [0, 1) from the upper 16 bits."""
    return float(bits >> wp.uint32(16)) * (1.0 / 65536.0)


@wp.func
def _gradient(x: int, z: int, seed: int):
    bits = hash_cell(x, z, seed)
    return wp.vec2(low_half(bits) * 2.0 - 1.0, high_half(bits) * 2.0 - 1.0)


@wp.func
def slope_noise(p: wp.vec2, seed: int):
    """Gradient noise (Perlin 2002) of standard deviation about 0.35, and its derivatives.

    Returns (value, d/dx, d/dz).
    """
    cell_x = wp.floor(p[0])
    cell_z = wp.floor(p[1])
    ix = int(cell_x)
    iz = int(cell_z)
    x = p[0] - cell_x
    z = p[1] - cell_z
    u = x * x * x * (x * (x * 6.0 - 15.0) + 10.0)
    v = z * z * z * (z * (z * 6.0 - 15.0) + 10.0)
    du = 30.0 * x * x * (x * (x - 2.0) + 1.0)
    dv = 30.0 * z * z * (z * (z - 2.0) + 1.0)
    ga = _gradient(ix, iz, seed)
    gb = _gradient(ix + 1, iz, seed)
    gc = _gradient(ix, iz + 1, seed)
    gd = _gradient(ix + 1, iz + 1, seed)
    a = ga[0] * x + ga[1] * z
    b = gb[0] * (x - 1.0) + gb[1] * z
    c = gc[0] * x + gc[1] * (z - 1.0)
    d = gd[0] * (x - 1.0) + gd[1] * (z - 1.0)
    twist = a - b - c + d
    g = ga + u * (gb - ga) + v * (gc - ga) + u * v * (ga - gb - gc + gd)
    return 1.7 * wp.vec3(a + u * (b - a) + v * (c - a) + u * v * twist,
                         g[0] + du * (b - a + v * twist), g[1] + dv * (c - a + u * twist))


@wp.func
def noise(p: wp.vec2, seed: int):
    """Gradient noise of standard deviation about 0.35."""
    cell_x = wp.floor(p[0])
    cell_z = wp.floor(p[1])
    ix = int(cell_x)
    iz = int(cell_z)
    x = p[0] - cell_x
    z = p[1] - cell_z
    u = x * x * x * (x * (x * 6.0 - 15.0) + 10.0)
    v = z * z * z * (z * (z * 6.0 - 15.0) + 10.0)
    ga = _gradient(ix, iz, seed)
    gb = _gradient(ix + 1, iz, seed)
    gc = _gradient(ix, iz + 1, seed)
    gd = _gradient(ix + 1, iz + 1, seed)
    a = ga[0] * x + ga[1] * z
    b = gb[0] * (x - 1.0) + gb[1] * z
    c = gc[0] * x + gc[1] * (z - 1.0)
    d = gd[0] * (x - 1.0) + gd[1] * (z - 1.0)
    top = a + u * (b - a)
    return 1.7 * (top + v * (c + u * (d - c) - top))


@wp.func
def turned(p: wp.vec2):
    """Place in the lattice of the next octave."""
    return LACUNARITY * wp.vec2(_COS * p[0] - _SIN * p[1], _SIN * p[0] + _COS * p[1])


@wp.func
def resolved(wavelength: float, footprint: float):
    """Share of a wave that is left where a sample covers the given length: 1 fine, 0 too small."""
    return wp.smoothstep(1.0, 2.5, wavelength / footprint)


@wp.func
def fractal(p: wp.vec2, wavelength: float, octaves: int, gain: float, footprint: float, seed: int):
    """Sum of octaves of noise from a wavelength downward; those below the footprint are left out.

    Its standard deviation is about 0.4 for a gain of a half.
    """
    q = p / wavelength
    length = float(wavelength)
    weight = float(1.0)
    total = float(0.0)
    for octave in range(octaves):
        share = resolved(length, footprint)
        if share <= 0.0:
            break
        total += weight * share * noise(q, seed + octave)
        q = turned(q)
        length /= LACUNARITY
        weight *= gain
    return total


@wp.func
def _value(x: int, y: int, z: int, seed: int):
    return low_half(hash_cell(x, z, seed + y * 7919)) * 2.0 - 1.0


@wp.func
def solid_noise(p: wp.vec3, seed: int):
    """Value noise in space, of standard deviation about 0.35; for faces that stand upright."""
    cell_x = wp.floor(p[0])
    cell_y = wp.floor(p[1])
    cell_z = wp.floor(p[2])
    ix = int(cell_x)
    iy = int(cell_y)
    iz = int(cell_z)
    u = wp.smoothstep(0.0, 1.0, p[0] - cell_x)
    v = wp.smoothstep(0.0, 1.0, p[1] - cell_y)
    w = wp.smoothstep(0.0, 1.0, p[2] - cell_z)
    a = wp.lerp(wp.lerp(_value(ix, iy, iz, seed), _value(ix + 1, iy, iz, seed), u),
                wp.lerp(_value(ix, iy + 1, iz, seed), _value(ix + 1, iy + 1, iz, seed), u), v)
    b = wp.lerp(wp.lerp(_value(ix, iy, iz + 1, seed), _value(ix + 1, iy, iz + 1, seed), u),
                wp.lerp(_value(ix, iy + 1, iz + 1, seed), _value(ix + 1, iy + 1, iz + 1, seed), u),
                v)
    return 1.2 * wp.lerp(a, b, w)


@wp.func
def solid_fractal(p: wp.vec3, wavelength: float, octaves: int, gain: float, footprint: float,
                  seed: int):
    """Sum of octaves of noise in space; those below the footprint are left out."""
    q = p / wavelength
    length = float(wavelength)
    weight = float(1.0)
    total = float(0.0)
    for octave in range(octaves):
        share = resolved(length, footprint)
        if share <= 0.0:
            break
        total += weight * share * solid_noise(q, seed + octave)
        x = _COS * q[0] - _SIN * q[2]
        z = _SIN * q[0] + _COS * q[2]
        q = LACUNARITY * wp.vec3(_COS * x - _SIN * q[1], _SIN * x + _COS * q[1], z)
        length /= LACUNARITY
        weight *= gain
    return total


@wp.func
def ridges(p: wp.vec2, wavelength: float, octaves: int, gain: float, footprint: float, seed: int):
    """Ridged multifractal (Musgrave 1994): sharp crests, each octave strongest on the last's.

    Between 0 and about 1.
    """
    q = p / wavelength
    length = float(wavelength)
    weight = float(1.0)
    norm = float(0.0)
    total = float(0.0)
    crest = float(1.0)
    for octave in range(octaves):
        share = resolved(length, footprint)
        value = float(_MEAN_RIDGE)
        if share > 0.0:
            value = wp.max(1.0 - 1.6 * wp.abs(noise(q, seed + octave)), 0.0)
            value = wp.lerp(_MEAN_RIDGE, value * value, share)
        total += weight * crest * value
        norm += weight
        crest = wp.clamp(1.3 * value, 0.0, 1.0)
        q = turned(q)
        length /= LACUNARITY
        weight *= gain
    return total / norm
