"""The shape of the land: a pure function of the place in the plane, computed cell by cell.

Two steps. The land's large forms (``large_forms``) are a sum of noises. What needs their slope is
added afterwards (``surface``): gullies that run downhill, strata on cliffs, rubble, trees.
Heights count upward from the sea's level.
"""

from __future__ import annotations

import warp as wp

from infinite_nature_training.sources.coast.noise import (
    fractal,
    hash_cell,
    high_half,
    LACUNARITY,
    low_half,
    noise,
    resolved,
    ridges,
    slope_noise,
    turned,
)
from infinite_nature_training.sources.coast.place import Place

# Side of a square with one tree at most, scene units.
TREE_SPACING = wp.constant(0.085)


@wp.func
def _coastward(p: wp.vec2, place: Place, cell: float):
    """Land above 0, sea below; about 1 in the middle of a large island."""
    s = place.seed
    length = place.coast_scale
    bend = wp.vec2(fractal(p, 0.7 * length, 3, 0.5, cell, s + 11),
                   fractal(p, 0.7 * length, 3, 0.5, cell, s + 17))
    q = p + place.warp * 0.5 * length * bend
    return 1.3 * fractal(q, length, 5, 0.5, cell, s + 23) + place.land


@wp.func
def _damped_hills(p: wp.vec2, wavelength: float, cell: float, seed: int):
    """Hills whose slopes are smoother than their tops and valleys (derivative damping)."""
    q = p / wavelength
    length = float(wavelength)
    weight = float(1.0)
    total = float(0.0)
    slope = wp.vec2(0.0, 0.0)
    for octave in range(6):
        share = resolved(length, cell)
        if share <= 0.0:
            break
        n = slope_noise(q, seed + octave)
        slope += wp.vec2(n[1], n[2]) * weight
        total += weight * share * n[0] / (1.0 + 0.7 * wp.dot(slope, slope))
        q = turned(q)
        length /= LACUNARITY
        weight *= 0.5
    return total


@wp.func
def _cliff(p: wp.vec2, c: float, place: Place, cell: float):
    """Share of a cliff's height: buttresses and coves, a ledge here and there, scree below."""
    s = place.seed
    if c > 0.3:
        return 1.0
    jagged = c + 0.035 * fractal(p, 1.9, 5, 0.6, cell, s + 37)
    ledge = 0.3 + 0.4 * wp.smoothstep(-0.4, 0.4, noise(p / 4.0, s + 43))
    lower = wp.smoothstep(0.0, 0.05, jagged)
    upper = wp.smoothstep(0.03, 0.13, jagged + 0.02 * noise(p / 0.7, s + 47))
    return ledge * lower * lower + (1.0 - ledge) * upper


@wp.func
def large_forms(p: wp.vec2, place: Place, cell: float):
    """Height of the ground without what depends on its slope."""
    s = place.seed
    c = _coastward(p, place, cell)
    # How much this stretch of the coast is cliff, 0 to 1.
    cliff = wp.smoothstep(-0.25, 0.25, noise(p / (0.3 * place.coast_scale), s + 31)
                          + 1.2 * place.cliffs - 0.6)
    if c < -0.15:
        return c * (place.sea_depth + 2.0 * cliff)
    t = wp.max(c, 0.0)
    height = 1.2 * wp.pow(t, 1.15) + wp.min(c, 0.0) * (place.sea_depth + 2.0 * cliff)
    if cliff > 0.0:
        height += cliff * (place.cliff_height * _cliff(p, c, place, cell)
                           + _stacks(p, c, place, cell))
    if t > 0.0:
        height += _mountains(p, t, place, cell) + _dunes(p, t, place, cell)
    return height


@wp.func
def _stacks(p: wp.vec2, c: float, place: Place, cell: float):
    """Rocks off the cliffs' feet."""
    near = wp.smoothstep(-0.09, -0.01, c) * (1.0 - wp.smoothstep(0.01, 0.04, c))
    if near <= 0.0:
        return 0.0
    return 1.1 * near * wp.max(ridges(p, 1.1, 3, 0.5, cell, place.seed + 71) - 0.45, 0.0)


@wp.func
def _mountains(p: wp.vec2, t: float, place: Place, cell: float):
    """Hills, and ranges of mountains further inland."""
    s = place.seed
    hills = _damped_hills(p, place.hill_scale, cell, s + 41)
    inland = wp.smoothstep(0.0, place.inland, t)
    belt = wp.smoothstep(-0.35, 0.35, noise(p / (1.7 * place.mountain_scale), s + 53) + 0.05)
    crests = ridges(p + 0.8 * wp.vec2(hills, -hills), place.mountain_scale, 5, 0.42, cell, s + 59)
    rise = wp.smoothstep(0.0, 2.2 * place.inland, t)
    return (inland * place.hill_height * (0.35 + 0.9 * hills)
            + rise * place.mountain_height * crests * (0.25 + 0.75 * belt))


@wp.func
def _dunes(p: wp.vec2, t: float, place: Place, cell: float):
    """Dunes behind the beach."""
    coastal = wp.smoothstep(0.01, 0.06, t) * (1.0 - wp.smoothstep(0.12, 0.4, t))
    if place.dunes * coastal <= 0.0:
        return 0.0
    dune = ridges(p, 1.6, 3, 0.4, cell, place.seed + 67)
    return 0.28 * place.dunes * coastal * dune * dune


@wp.func
def _gullies(p: wp.vec2, slope: wp.vec2, size: float, seed: int):
    """One octave of furrows that run along the slope: waves across it, of random phase per cell.

    Returns (value in about [-1, 1], derivatives).
    """
    q = p / size
    ix = int(wp.floor(q[0]))
    iz = int(wp.floor(q[1]))
    across = wp.vec2(-slope[1], slope[0]) * 6.2831853
    total = wp.vec3(0.0, 0.0, 0.0)
    weights = float(0.0)
    for dz in range(-1, 2):
        for dx in range(-1, 2):
            bits = hash_cell(ix + dx, iz + dz, seed)
            d = wp.vec2(q[0] - float(ix + dx) - 0.25 - 0.5 * low_half(bits),
                        q[1] - float(iz + dz) - 0.25 - 0.5 * high_half(bits))
            r = wp.max(1.0 - wp.dot(d, d) * 0.64, 0.0)
            weight = r * r * r
            phase = wp.dot(d, across)
            total += weight * wp.vec3(wp.cos(phase), -wp.sin(phase) * across[0],
                                      -wp.sin(phase) * across[1])
            weights += weight
    return total / wp.max(weights, 1.0e-3)


@wp.func
def _eroded(p: wp.vec2, slope: wp.vec2, wavelength: float, cell: float, seed: int):
    """Branching gullies: every octave runs down the slope that the last ones left.

    Returns (value in about [-1, 1], derivatives per unit of value and length).
    """
    length = float(wavelength)
    weight = float(0.5)
    total = wp.vec3(0.0, 0.0, 0.0)
    steep = slope
    for octave in range(5):
        share = resolved(1.3 * length, cell)
        if share <= 0.0:
            break
        norm = wp.length(steep) + 1.0e-4
        # Flat ground has no direction, and no gullies.
        run = steep / norm * wp.min(1.6 * norm, 1.0)
        g = _gullies(p, run, length, seed + octave) * (weight * share)
        total += wp.vec3(g[0], g[1] / length, g[2] / length)
        steep += wp.vec2(g[1], g[2]) * 0.6
        length /= LACUNARITY
        weight *= 0.55
    return total


@wp.func
def _tree(p: wp.vec2, density: float, place: Place, cell: float):
    """Height of the canopy over the ground, as a share of the tallest tree, and its shade.

    Returns (height, random number of the tree).
    """
    share = resolved(TREE_SPACING * 1.4, cell)
    average = 0.6 * wp.min(density * 1.3, 1.0)
    if share <= 0.0:
        return wp.vec2(average, 0.5)
    q = p / TREE_SPACING
    ix = int(wp.floor(q[0]))
    iz = int(wp.floor(q[1]))
    best = wp.vec2(0.0, 0.5)
    for dz in range(-1, 2):
        for dx in range(-1, 2):
            bits = hash_cell(ix + dx, iz + dz, place.seed + 83)
            number = low_half(bits * wp.uint32(1640531527))
            if number < density:
                x = q[0] - float(ix + dx) - low_half(bits)
                z = q[1] - float(iz + dz) - high_half(bits)
                size = 0.55 + 0.45 * high_half(bits * wp.uint32(1640531527))
                r = wp.sqrt(x * x + z * z) / (0.95 * size)
                if r < 1.0:
                    dome = wp.lerp(1.0 - r, wp.sqrt(1.0 - r * r), place.roundness)
                    if size * dome > best[0]:
                        best = wp.vec2(size * dome, number / wp.max(density, 0.01))
    return wp.lerp(wp.vec2(average, 0.5), best, share)


@wp.func
def tree_density(p: wp.vec2, height: float, slope: float, place: Place, cell: float):
    """Share of the ground's tree squares that hold a tree."""
    s = place.seed
    patches = fractal(p, 7.0, 5, 0.6, cell, s + 101) + 0.3 * noise(p / 0.5, s + 107)
    wanted = wp.smoothstep(-0.25, 0.2, patches + 1.5 * place.trees - 0.8)
    line = place.tree_line * (1.0 + 0.3 * patches)
    high = 1.0 - wp.smoothstep(0.75 * line, line, height)
    shore = wp.smoothstep(0.12, 0.3, height + 0.1 * patches)
    flat = 1.0 - wp.smoothstep(0.75, 1.15, slope)
    return wanted * high * shore * flat * wp.min(4.0 * place.trees, 1.0)


@wp.func
def surface(p: wp.vec2, ground: float, gradient: wp.vec2, place: Place, cell: float):
    """Ground with gullies, rubble and trees: what is drawn.

    Returns (height of the surface, canopy's share of it in scene units, gully value, tree number).
    """
    s = place.seed
    # Beaches and the sea's floor are smooth; far under water nothing is seen.
    dry = wp.smoothstep(0.05, 0.45, ground)
    slope = gradient
    steep = wp.length(slope)
    furrow = wp.vec3(0.0, 0.0, 0.0)
    height = float(ground)
    if dry > 0.0:
        furrow = _eroded(p, slope, 2.6, cell, s + 127)
        # Water had less to cut into where the land is low.
        deep = place.erosion * dry * wp.min(0.55 * wp.min(steep, 1.2), 0.16 * ground)
        height += deep * (furrow[0] - 0.1)
        slope = slope + wp.vec2(furrow[1], furrow[2]) * deep
        steep = wp.length(slope)
    if place.terraces > 0.0:
        layer = 0.42 + 0.1 * noise(p / 9.0, s + 131)
        level = height / layer + 0.5 * noise(p / 5.0, s + 137)
        part = level - wp.floor(level)
        stepped = (wp.smoothstep(0.25, 0.75, part) - part) * layer
        height += place.terraces * wp.smoothstep(0.3, 0.9, height) * stepped
    rubble = fractal(p, 0.9, 6, 0.6, cell, s + 139)
    height += place.roughness * 0.014 * dry * rubble
    crags = wp.smoothstep(0.5, 1.2, wp.length(gradient)) * wp.smoothstep(0.0, 0.15, ground)
    if crags > 0.0:
        height += place.roughness * 0.13 * crags * (ridges(p, 1.1, 5, 0.6, cell, s + 149) - 0.35)
    density = float(0.0)
    if place.trees > 0.0 and dry > 0.0:
        density = tree_density(p, height, steep, place, cell)
    canopy = wp.vec2(0.0, 0.5)
    if density > 0.0:
        canopy = _tree(p, density, place, cell)
    crown = canopy[0] * place.tree_height
    return wp.vec4(height + crown, crown, furrow[0], canopy[1])


def highest(place: Place) -> float:
    """Height that no land of a place rises over."""
    return (2.5 + place.cliff_height + 1.4 * place.hill_height + 1.1 * place.mountain_height
            + place.erosion)
