"""Places: what makes one procedural coast differ from another, drawn from its seed."""

from __future__ import annotations

import math

import numpy as np
import warp as wp


@wp.struct
class Place:
    """Settings of one coast; lengths in scene units, colours linear RGB."""

    seed: int
    # Land and sea
    land: float
    coast_scale: float
    warp: float
    inland: float
    hill_height: float
    hill_scale: float
    mountain_height: float
    mountain_scale: float
    erosion: float
    roughness: float
    cliff_height: float
    cliffs: float
    terraces: float
    dunes: float
    sea_depth: float
    # What grows and lies on it
    trees: float
    tree_height: float
    roundness: float
    tree_line: float
    moisture: float
    snow_line: float
    leaf: wp.vec3
    grass: wp.vec3
    dry_grass: wp.vec3
    rock: wp.vec3
    dark_rock: wp.vec3
    sand: wp.vec3
    # Water
    deep: wp.vec3
    shallow: wp.vec3
    clarity: float
    wind: float
    surf: float
    # Light and air
    sun: wp.vec3
    sunlight: wp.vec3
    zenith: wp.vec3
    horizon: wp.vec3
    haze: float
    clouds: float
    cloud_scale: float
    cirrus: float
    overcast: float
    # Camera
    exposure: float
    contrast: float
    saturation: float
    warmth: float
    grain: float


# Ranges that a value is drawn from; pairs of colours are mixed. What a kind doesn't name comes
# from the first one.
_USUAL = {
    'land': (-0.12, 0.12), 'coast_scale': (34.0, 60.0), 'warp': (0.25, 0.5),
    'inland': (0.2, 0.4), 'hill_height': (0.8, 2.0), 'hill_scale': (7.0, 12.0),
    'mountain_height': (0.0, 5.0), 'mountain_scale': (20.0, 32.0), 'erosion': (0.6, 1.0),
    'roughness': (0.6, 1.1), 'cliff_height': (0.3, 1.2), 'cliffs': (0.2, 0.6),
    'terraces': (0.0, 0.2), 'dunes': (0.0, 0.3), 'sea_depth': (2.0, 5.0),
    'trees': (0.3, 0.8), 'tree_height': (0.09, 0.15), 'roundness': (0.4, 1.0),
    'tree_line': (3.0, 6.0), 'moisture': (-0.1, 0.35), 'snow_line': (30.0, 40.0),
    'leaf': ((0.028, 0.050, 0.015), (0.055, 0.078, 0.020)),
    'grass': ((0.060, 0.095, 0.020), (0.110, 0.120, 0.034)),
    'dry_grass': ((0.20, 0.155, 0.070), (0.26, 0.21, 0.11)),
    'rock': ((0.17, 0.155, 0.135), (0.27, 0.235, 0.19)),
    'dark_rock': ((0.045, 0.040, 0.036), (0.085, 0.072, 0.058)),
    'sand': ((0.40, 0.33, 0.23), (0.58, 0.50, 0.38)),
    'deep': ((0.003, 0.016, 0.028), (0.006, 0.030, 0.045)),
    'shallow': ((0.02, 0.10, 0.10), (0.04, 0.17, 0.16)),
    'clarity': (0.5, 1.2), 'wind': (0.3, 1.0), 'surf': (0.4, 1.0),
    'exposure': (0.85, 1.15), 'contrast': (1.05, 1.28), 'saturation': (0.9, 1.15),
    'warmth': (-0.06, 0.06), 'grain': (0.003, 0.009),
}

_KINDS = {
    'meadows': {},
    'cliffs': {'cliffs': (0.75, 1.0), 'cliff_height': (0.9, 2.2), 'hill_height': (0.5, 1.2),
               'trees': (0.0, 0.3), 'inland': (0.3, 0.5), 'coast_scale': (26.0, 44.0),
               'mountain_height': (0.0, 1.5), 'roughness': (0.8, 1.2), 'surf': (0.7, 1.0)},
    'archipelago': {'land': (-0.22, -0.05), 'coast_scale': (17.0, 28.0), 'warp': (0.3, 0.6),
                    'hill_height': (1.0, 2.2), 'mountain_height': (0.0, 2.0),
                    'cliffs': (0.3, 0.7), 'trees': (0.5, 1.0), 'inland': (0.15, 0.3)},
    'fjord': {'land': (0.0, 0.18), 'coast_scale': (26.0, 40.0), 'inland': (0.06, 0.16),
              'mountain_height': (8.0, 14.0), 'mountain_scale': (18.0, 28.0),
              'hill_height': (0.8, 1.6), 'cliffs': (0.3, 0.6), 'cliff_height': (0.3, 0.8),
              'snow_line': (2.2, 6.0), 'tree_line': (1.6, 3.5), 'roundness': (0.0, 0.2),
              'tree_height': (0.12, 0.19),
              'trees': (0.4, 0.9), 'surf': (0.1, 0.35), 'wind': (0.2, 0.6),
              'rock': ((0.14, 0.135, 0.13), (0.21, 0.20, 0.19))},
    'tropical': {'land': (-0.16, 0.05), 'coast_scale': (22.0, 36.0), 'trees': (0.8, 1.0),
                 'tree_line': (8.0, 10.0), 'roundness': (0.9, 1.0), 'tree_height': (0.08, 0.13),
                 'moisture': (0.3, 0.6),
                 'mountain_height': (2.0, 7.0), 'mountain_scale': (14.0, 22.0),
                 'leaf': ((0.028, 0.058, 0.014), (0.050, 0.090, 0.022)),
                 'sand': ((0.58, 0.52, 0.42), (0.70, 0.65, 0.56)),
                 'shallow': ((0.03, 0.26, 0.25), (0.06, 0.38, 0.33)),
                 'deep': ((0.002, 0.022, 0.050), (0.003, 0.045, 0.085)),
                 'clarity': (1.0, 2.2), 'sea_depth': (1.2, 2.5), 'cliffs': (0.0, 0.4)},
    'arid': {'trees': (0.0, 0.06), 'moisture': (-0.8, -0.45), 'terraces': (0.4, 0.9),
             'mountain_height': (3.0, 8.0), 'erosion': (0.9, 1.2), 'roughness': (0.8, 1.2),
             'cliffs': (0.3, 0.8), 'cliff_height': (0.5, 1.6),
             'rock': ((0.28, 0.17, 0.10), (0.38, 0.27, 0.18)),
             'dark_rock': ((0.12, 0.062, 0.036), (0.17, 0.10, 0.062)),
             'dry_grass': ((0.30, 0.20, 0.105), (0.36, 0.27, 0.16)),
             'shallow': ((0.03, 0.18, 0.19), (0.05, 0.27, 0.26))},
    'dunes': {'cliffs': (0.0, 0.1), 'dunes': (0.8, 1.2), 'hill_height': (0.5, 1.1),
              'roughness': (0.3, 0.6), 'mountain_height': (0.0, 1.0), 'trees': (0.05, 0.4),
              'moisture': (-0.3, 0.1),
              'sea_depth': (1.0, 2.2), 'surf': (0.8, 1.0), 'inland': (0.35, 0.5)},
    'winter': {'snow_line': (-0.6, 0.5), 'trees': (0.3, 0.7), 'roundness': (0.0, 0.1),
               'tree_height': (0.12, 0.19),
               'mountain_height': (2.0, 9.0), 'moisture': (-0.1, 0.2), 'inland': (0.1, 0.3),
               'dry_grass': ((0.16, 0.125, 0.075), (0.20, 0.165, 0.11)),
               'deep': ((0.004, 0.014, 0.022), (0.006, 0.022, 0.032))},
    'volcanic': {'sand': ((0.035, 0.033, 0.034), (0.075, 0.070, 0.068)),
                 'rock': ((0.055, 0.050, 0.048), (0.10, 0.088, 0.080)),
                 'dark_rock': ((0.020, 0.019, 0.019), (0.035, 0.031, 0.030)),
                 'grass': ((0.075, 0.110, 0.012), (0.115, 0.135, 0.022)),
                 'mountain_height': (3.0, 8.0), 'trees': (0.0, 0.15), 'moisture': (0.0, 0.45),
                 'cliffs': (0.4, 0.9), 'snow_line': (4.0, 12.0), 'surf': (0.8, 1.0)},
}

# Degrees of the sun over the horizon, its colour, the sky's, and what hangs in it.
_LIGHTS = {
    'noon': {'height': (42.0, 65.0), 'sunlight': ((3.3, 3.1, 2.8), (3.7, 3.5, 3.2)),
             'zenith': ((0.09, 0.22, 0.52), (0.14, 0.31, 0.64)),
             'horizon': ((0.50, 0.66, 0.85), (0.66, 0.76, 0.88)), 'haze': (0.002, 0.008),
             'clouds': (0.2, 0.62), 'cirrus': (0.0, 0.6), 'overcast': (0.0, 0.1)},
    'afternoon': {'height': (18.0, 36.0), 'sunlight': ((3.2, 2.75, 2.15), (3.7, 3.2, 2.6)),
                  'zenith': ((0.10, 0.21, 0.46), (0.15, 0.28, 0.56)),
                  'horizon': ((0.58, 0.66, 0.76), (0.74, 0.76, 0.78)), 'haze': (0.003, 0.010),
                  'clouds': (0.2, 0.62), 'cirrus': (0.1, 0.8), 'overcast': (0.0, 0.15)},
    'sunset': {'height': (4.5, 11.0), 'sunlight': ((3.3, 1.55, 0.62), (3.5, 2.1, 1.05)),
               'zenith': ((0.10, 0.15, 0.31), (0.17, 0.20, 0.34)),
               'horizon': ((0.62, 0.40, 0.28), (0.80, 0.56, 0.40)), 'haze': (0.008, 0.018),
               'clouds': (0.25, 0.6), 'cirrus': (0.3, 1.0), 'overcast': (0.0, 0.1)},
    'overcast': {'height': (25.0, 55.0), 'sunlight': ((0.55, 0.56, 0.58), (0.9, 0.9, 0.9)),
                 'zenith': ((0.38, 0.43, 0.50), (0.52, 0.56, 0.60)),
                 'horizon': ((0.56, 0.60, 0.64), (0.72, 0.74, 0.75)), 'haze': (0.010, 0.026),
                 'clouds': (0.6, 0.9), 'cirrus': (0.0, 0.3), 'overcast': (0.75, 1.0)},
    'mist': {'height': (14.0, 32.0), 'sunlight': ((1.9, 1.65, 1.35), (2.4, 2.1, 1.8)),
             'zenith': ((0.24, 0.32, 0.44), (0.34, 0.40, 0.50)),
             'horizon': ((0.62, 0.64, 0.66), (0.78, 0.75, 0.70)), 'haze': (0.026, 0.055),
             'clouds': (0.2, 0.6), 'cirrus': (0.2, 0.9), 'overcast': (0.15, 0.4)},
}
_LIGHT_ODDS = (0.30, 0.28, 0.17, 0.15, 0.10)


def draw_place(seed: int) -> tuple[Place, str]:
    """Draw a place and its light.

    Args:
        seed: 0 or more; one seed always gives the same place.

    Returns:
        the settings, and in two words what was drawn, as ``'fjord, noon'``.

    Raises:
        ValueError: if the seed is negative.
    """
    if seed < 0:
        raise ValueError(f'seed is {seed}; give 0 or more')
    random = np.random.default_rng(seed)
    kind = str(random.choice(list(_KINDS)))
    light = str(random.choice(list(_LIGHTS), p=_LIGHT_ODDS))
    place = Place()
    # A seed of a place is an offset into the lattices; neighbours must not share octaves.
    place.seed = int(random.integers(1 << 30))
    drawn = {'cloud_scale': (0.6, 1.4), **_USUAL, **_KINDS[kind], **_LIGHTS[light]}
    for name, (low, high) in drawn.items():
        value = np.asarray(low) + random.random() * (np.asarray(high) - np.asarray(low))
        if name == 'height':
            place.sun = _direction(math.radians(value), random.uniform(0, 2 * math.pi))
        else:
            setattr(place, name, wp.vec3(*value) if value.ndim else float(value))
    return place, f'{kind}, {light}'


def _direction(height: float, azimuth: float) -> wp.vec3:
    """Give the unit vector towards the sun, second component up."""
    return wp.vec3(math.cos(height) * math.sin(azimuth), math.sin(height),
                   math.cos(height) * math.cos(azimuth))
