"""Sky, clouds and the air in between: what light comes from a direction."""

from __future__ import annotations

import warp as wp

from infinite_nature_training.sources.coast.noise import (
    fractal,
    LACUNARITY,
    noise,
    resolved,
    turned,
)
from infinite_nature_training.sources.coast.place import Place

# Slices through the layer of clouds, and the layer's thickness over its height.
_SLICES = wp.constant(11)
_THICKNESS = wp.constant(0.34)

# How much more the air takes from blue light than from red.
_EXTINCTION = wp.constant(wp.vec3(0.78, 1.0, 1.3))


@wp.func
def _glow(towards_sun: float, place: Place):
    """Light scattered forward around the sun."""
    c = wp.max(towards_sun, 0.0)
    c2 = c * c
    c8 = c2 * c2 * c2 * c2
    c64 = wp.pow(c8, 8.0)
    strength = 0.10 * c2 * c2 + 0.16 * c8 * c2 + 0.35 * c64
    return place.sunlight * (strength * (1.0 - 0.85 * place.overcast) * 0.55)


@wp.func
def clear_sky(d: wp.vec3, place: Place):
    """Sky without clouds in a unit direction; below the horizon, the haze there."""
    up = wp.max(d[1], 0.0)
    share = 1.0 - wp.exp(-3.2 * up)
    colour = wp.lerp(place.horizon, place.zenith, share)
    return colour + _glow(wp.dot(d, place.sun), place)


@wp.func
def _billows(q: wp.vec2, footprint: float, octaves: int, seed: int):
    """Density of clouds before a threshold: rounded above, hollow between."""
    p = q
    length = float(1.0)
    weight = float(0.55)
    total = float(0.0)
    for octave in range(octaves):
        share = resolved(length, footprint)
        if share <= 0.0:
            break
        n = noise(p, seed + octave)
        if octave > 1:
            n = 0.45 - 1.5 * wp.abs(n)
        total += weight * share * n
        p = turned(p)
        length /= LACUNARITY
        weight *= 0.58
    return total


@wp.func
def _cloud_light(q: wp.vec2, level: float, footprint: float, place: Place, threshold: float):
    """How brightly a slice of a cloud is lit: thin towards the sun, high, not its base."""
    towards = wp.normalize(wp.vec2(place.sun[0], place.sun[2]) + wp.vec2(1.0e-4, 0.0))
    beyond = _billows(q + towards * 0.22, footprint, 3, place.seed + 211) - threshold
    return wp.clamp(0.8 - 1.3 * beyond, 0.10, 1.0) * (0.4 + 0.6 * level)


@wp.func
def clouds(d: wp.vec3, behind: wp.vec3, pixel: float, drift: float, place: Place):
    """Sky with clouds in a unit direction, over what lies behind; at infinite distance."""
    up = wp.max(d[1], 0.0) + 0.035
    base = wp.vec2(d[0], d[2]) / (up * place.cloud_scale)
    base += wp.vec2(drift, 0.4 * drift)
    footprint = pixel / (up * wp.sqrt(up) * place.cloud_scale)
    threshold = 0.62 - 1.25 * place.clouds
    # Far off a slice must not lie more than a cloud beside the next.
    spread = wp.min(_THICKNESS, 0.9 / wp.length(base))
    cover = 0.35 * noise(base * 0.23, place.seed + 207)
    passed = float(1.0)
    light = wp.vec3(0.0, 0.0, 0.0)
    ambient = 0.55 * place.zenith + 0.45 * place.horizon
    sun = place.sunlight * (0.40 * (1.0 - 0.6 * place.overcast))
    for k in range(_SLICES):
        level = (float(k) + 0.5) / float(_SLICES)
        q = base * (1.0 + spread * level)
        density = (_billows(q, footprint, 7, place.seed + 211) + cover - threshold
                   - 0.55 * level * level)
        if density > 0.0:
            thick = wp.min(density * 3.2, 1.0)
            lit = _cloud_light(q, level, footprint, place, threshold - cover)
            colour = ambient * (0.62 + 0.5 * level) + sun * lit
            light += colour * (passed * thick)
            passed *= 1.0 - thick
            if passed < 0.02:
                break
    forward = wp.pow(wp.max(wp.dot(d, place.sun), 0.0), 6.0)
    light += place.sunlight * (0.22 * forward * passed * (1.0 - passed))
    streaks = fractal(wp.vec2(base[0] * 0.9 + base[1] * 0.2, base[1] * 0.30), 1.3, 6, 0.62,
                      footprint, place.seed + 223)
    thin = place.cirrus * 0.55 * wp.smoothstep(0.0, 0.9, streaks + 0.25)
    veiled = wp.lerp(behind, 0.35 * place.sunlight + 0.5 * place.horizon, thin)
    # Far clouds fade into the haze over the horizon.
    distant = wp.exp(-0.11 * (0.3 + 40.0 * place.haze) / up)
    grey = place.overcast * 0.7
    under = wp.lerp(veiled, wp.lerp(place.horizon, place.zenith, 0.6), grey)
    return wp.lerp(behind, under * passed + light, distant)


@wp.func
def sun_disc(d: wp.vec3, place: Place):
    """Disc of the sun, as bright as a sensor takes it."""
    edge = wp.smoothstep(0.99975, 0.99993, wp.dot(d, place.sun))
    return place.sunlight * (6.0 * edge * (1.0 - place.overcast))


@wp.func
def cloud_shadow(p: wp.vec2, height: float, drift: float, place: Place):
    """Share of the sun that passes the clouds over a place on the ground."""
    q = p - wp.vec2(place.sun[0], place.sun[2]) * (height / wp.max(place.sun[1], 0.08))
    density = fractal(q + 60.0 * wp.vec2(drift, 0.4 * drift), 26.0, 4, 0.5, 0.01,
                      place.seed + 229)
    edge = 0.75 - 1.15 * place.clouds
    return 1.0 - 0.72 * wp.smoothstep(edge - 0.12, edge + 0.16, density) * (1.0 - place.overcast)


@wp.func
def through_air(colour: wp.vec3, o: wp.vec3, d: wp.vec3, distance: float, place: Place):
    """Colour of a surface seen from a distance in a unit direction (aerial perspective)."""
    # Haze lies low: its density falls with height, integrated along the way.
    fall = 0.10
    rise = d[1] * distance * fall
    mean = float(1.0)
    if wp.abs(rise) > 1.0e-3:
        mean = (1.0 - wp.exp(-rise)) / rise
    amount = place.haze * distance * mean * wp.exp(-fall * wp.max(o[1], 0.0))
    flat = wp.normalize(wp.vec3(d[0], 0.02 + 0.25 * wp.max(d[1], 0.0), d[2]))
    air = clear_sky(flat, place)
    passed = wp.vec3(wp.exp(-amount * _EXTINCTION[0]), wp.exp(-amount * _EXTINCTION[1]),
                     wp.exp(-amount * _EXTINCTION[2]))
    return wp.cw_mul(colour, passed) + wp.cw_mul(air, wp.vec3(1.0, 1.0, 1.0) - passed)
