"""The sea: waves, the colour of its depth, what it mirrors, foam."""

from __future__ import annotations

import warp as wp

from infinite_nature_training.sources.coast.noise import (
    fractal,
    noise,
    resolved,
    slope_noise,
)
from infinite_nature_training.sources.coast.place import Place
from infinite_nature_training.sources.coast.sky import clear_sky

# Height over length of the steepest octave of waves in full wind.
_STEEPNESS = wp.constant(0.055)


@wp.struct
class Water:
    """A point of the sea that is seen."""

    p: wp.vec2
    view: wp.vec3
    normal: wp.vec3
    mirrored: wp.vec3
    variance: float
    depth: float
    shore: float
    footprint: float
    time: float


@wp.func
def _wind(place: Place):
    """Direction that the waves run in."""
    angle = float(place.seed % 6283) * 0.001
    return wp.vec2(wp.cos(angle), wp.sin(angle))


@wp.func
def wave_slope(p: wp.vec2, footprint: float, time: float, place: Place):
    """Slope of the waves that a sample resolves, and the variance of those that it doesn't.

    Returns (d/dx, d/dz, variance).
    """
    s = place.seed + 401
    wind = _wind(place)
    slope = wp.vec3(0.0, 0.0, 0.0)
    length = float(1.1)
    gusts = 0.75 + 0.5 * noise(p / 9.0, s) + 0.35 * noise(p / 2.3, s + 1)
    for octave in range(7):
        angle = 0.45 * wp.sin(2.4 * float(octave) + 0.7)
        c = wp.cos(angle)
        i = wp.sin(angle)
        along = wp.vec2(c * wind[0] - i * wind[1], i * wind[0] + c * wind[1])
        across = wp.vec2(-along[1], along[0])
        run = time * 0.35 * wp.sqrt(length)
        stretch = wp.lerp(0.38, 0.85, float(octave) / 6.0)
        q = wp.vec2((wp.dot(p, along) - run) / length, wp.dot(p, across) * stretch / length)
        share = resolved(length, footprint)
        strength = place.wind * wp.max(gusts, 0.15) * _STEEPNESS
        if octave == 0:
            strength *= 0.5
        if share > 0.0:
            n = slope_noise(q, s + 7 + octave)
            steep = (along * n[1] + across * (n[2] * stretch)) * (strength * share)
            slope += wp.vec3(steep[0], steep[1], 0.0)
        hidden = strength * (1.0 - share)
        slope += wp.vec3(0.0, 0.0, 1.2 * hidden * hidden)
        length *= 0.52
    return slope


@wp.func
def _white_caps(water: Water, broad: float, place: Place):
    """Crests that the wind breaks: short streaks across it, of which far away a veil is left."""
    windy = wp.smoothstep(0.72, 1.0, place.wind)
    if windy <= 0.0:
        return 0.0
    wind = _wind(place)
    across = water.p[1] * wind[0] - water.p[0] * wind[1]
    q = wp.vec2(wp.dot(water.p, wind) - 0.2 * water.time, 0.45 * across)
    share = resolved(0.07, water.footprint)
    crest = fractal(q, 0.07, 3, 0.6, water.footprint, place.seed + 453)
    caps = wp.smoothstep(0.62, 1.1, crest + 0.3 * broad)
    return windy * wp.lerp(0.012, 0.6 * caps, share)


@wp.func
def foam(water: Water, place: Place):
    """Share of the surface that is foam."""
    p = water.p
    shore = water.shore
    s = place.seed + 431
    broad = noise(p / 2.6, s)
    lace = fractal(p, 0.16, 5, 0.8, water.footprint, s + 3)
    stir = noise(p / 0.55, s + 11)
    # The swash, and lines of breakers that run in behind it.
    edge = 1.0 - wp.smoothstep(0.0, 0.10 + 0.07 * broad, shore + 0.10 * lace + 0.04 * stir)
    phase = shore * 3.3 + 0.9 * broad + 0.4 * stir + water.time * 0.25
    crest = phase - wp.floor(phase)
    zone = (1.0 - wp.smoothstep(0.25, 0.55 + 1.3 * place.surf, shore + 0.4 * broad))
    breaker = wp.smoothstep(0.55, 0.97, crest) * (1.0 - wp.smoothstep(0.97, 1.0, crest))
    part = wp.smoothstep(-0.15, 0.35, noise(p / 1.5 + wp.vec2(wp.floor(phase) * 7.3, 0.0), s + 17)
                         + 0.9 * place.surf - 0.55)
    lines = breaker * zone * part * wp.smoothstep(-0.55, 0.35, lace + 0.6 * breaker - 0.2)
    wash = 0.55 * zone * place.surf * wp.smoothstep(0.15, 0.6, lace + 0.5 * stir)
    # Far off, of all this a pale seam is left.
    fine = resolved(0.20, water.footprint)
    drawn = wp.max(edge, wp.max(lines, wash))
    near = (place.surf * 0.7 + 0.3) * wp.lerp(0.35 * edge + 0.06 * zone, drawn, fine)
    return wp.clamp(near + _white_caps(water, broad, place), 0.0, 1.0)


@wp.func
def _below(water: Water, cosine: float, sun: float, place: Place):
    """Light from under the surface: the sea's floor through the water's own colour."""
    s = place.seed + 461
    depth = water.depth
    patches = fractal(water.p, 2.2, 5, 0.6, wp.max(water.footprint, 0.02), s)
    weed = wp.smoothstep(0.05, 0.5, patches) * wp.smoothstep(0.06, 0.25, depth)
    floor = wp.lerp(place.sand * 0.75, place.dark_rock * 0.8 + place.leaf * 0.4, 0.8 * weed)
    light = place.sunlight * (place.sun[1] * sun * 0.8) + wp.lerp(place.horizon, place.zenith, 0.6)
    way = depth * (1.0 + 0.6 / wp.max(cosine, 0.25)) / place.clarity
    seen = wp.vec3(wp.exp(-7.5 * way), wp.exp(-2.6 * way), wp.exp(-2.2 * way))
    scattered = wp.lerp(place.deep, place.shallow, wp.exp(-1.5 * way))
    clear = wp.vec3(1.0, 1.0, 1.0) - seen
    return wp.cw_mul(light, wp.cw_mul(floor, seen) * 0.8 + wp.cw_mul(scattered, clear))


@wp.func
def ripple(p: wp.vec2, d: wp.vec3, footprint: float, time: float, place: Place):
    """Water at a place without what lies under and around it, seen in a unit direction."""
    water = Water()
    water.p = p
    water.view = d
    water.footprint = footprint
    water.time = time
    waves = wave_slope(p, footprint, time, place)
    water.variance = waves[2] + 0.0006
    water.normal = wp.normalize(wp.vec3(-waves[0], 1.0, -waves[1]))
    r = d - 2.0 * wp.dot(water.normal, d) * water.normal
    # Waves too small to see turn their faces to the viewer: what they mirror lies higher up.
    up = wp.abs(r[1]) + 0.02 + 0.8 * wp.sqrt(water.variance)
    water.mirrored = wp.normalize(wp.vec3(r[0], up, r[2]))
    return water


@wp.func
def _sky_in(water: Water, place: Place):
    """Sky that the water mirrors, its clouds blurred."""
    sky = clear_sky(water.mirrored, place)
    veil = 0.5 * (place.horizon + place.zenith) + 0.10 * place.sunlight
    return wp.lerp(sky, veil, wp.min(0.45 * place.clouds + 0.2 * place.overcast, 0.6))


@wp.func
def _glitter(water: Water, place: Place):
    """Sun on the faces of waves; of those too small to see by their spread."""
    tilt = wp.max(wp.dot(wp.normalize(place.sun - water.view), water.normal), 0.05)
    spread = water.variance * 2.0 + 0.0012
    offset = (1.0 / (tilt * tilt) - 1.0) / spread
    peak = wp.exp(-wp.min(offset, 40.0)) / (3.1 * spread * tilt * tilt * tilt * tilt)
    return wp.min(0.012 * peak, 5.0) * (1.0 - place.overcast)


@wp.func
def shade_water(water: Water, land: wp.vec4, sun: float, place: Place):
    """Light that the sea sends to the camera.

    Args:
        water: the place.
        land: colour of land that the sea mirrors there, and its share.
        sun: share of the sun that reaches the place.
        place: settings.
    """
    cosine = wp.max(-wp.dot(water.normal, water.view), 0.03)
    facing = wp.min(cosine + 0.9 * wp.sqrt(water.variance) * (1.0 - cosine), 1.0)
    fresnel = 0.02 + 0.98 * wp.pow(1.0 - facing, 5.0)
    mirrored = wp.lerp(_sky_in(water, place), wp.vec3(land[0], land[1], land[2]),
                       land[3] * (1.0 - 0.6 * place.wind))
    below = _below(water, cosine, sun, place)
    colour = below * (1.0 - fresnel) + mirrored * fresnel
    colour += place.sunlight * (_glitter(water, place) * sun)
    lit = place.sunlight * (0.62 * wp.max(place.sun[1], 0.15) * sun)
    lit += 0.62 * wp.lerp(place.horizon, place.zenith, 0.5)
    return wp.lerp(colour, lit, 0.92 * foam(water, place))
