"""Land: what the ground is made of and how it looks in this light."""

from __future__ import annotations

import warp as wp

from infinite_nature_training.sources.coast.noise import (
    fractal,
    noise,
    resolved,
    slope_noise,
    solid_fractal,
    solid_noise,
)
from infinite_nature_training.sources.coast.place import Place


@wp.struct
class Spot:
    """A point of the land that is seen."""

    p: wp.vec2
    height: float
    normal: wp.vec3
    crown: float
    gully: float
    tree: float
    footprint: float


@wp.func
def roughen(normal: wp.vec3, p: wp.vec2, wavelength: float, amount: float, footprint: float,
            seed: int):
    """Tilt a normal by the relief that is too fine for the grid."""
    slope = wp.vec2(0.0, 0.0)
    length = float(wavelength)
    for octave in range(4):
        share = resolved(length, footprint)
        if share <= 0.0:
            break
        n = slope_noise(p / length, seed + octave)
        slope += wp.vec2(n[1], n[2]) * share
        length *= 0.47
    return wp.normalize(normal - amount * wp.vec3(slope[0], 0.0, slope[1]))


@wp.func
def _fine_texture(spot: Spot, seed: int):
    """Noise from half a unit down to the pixel; in space where the ground is steep."""
    solid = wp.smoothstep(0.10, 0.28, 1.0 - spot.normal[1])
    flat = float(0.0)
    if solid < 1.0:
        flat = fractal(spot.p, 0.55, 8, 0.8, spot.footprint, seed)
    upright = float(0.0)
    if solid > 0.0:
        place = wp.vec3(spot.p[0], 1.6 * spot.height, spot.p[1])
        upright = solid_fractal(place, 0.55, 8, 0.8, spot.footprint, seed + 9)
    return wp.lerp(flat, upright, solid)


@wp.func
def _rock(spot: Spot, fine: float, broad: float, place: Place):
    """Strata, cracks and stains."""
    s = place.seed
    bands = noise(wp.vec2(spot.height * 4.0 + 1.5 * broad + 0.5 * fine, 0.15 * spot.p[0]), s + 301)
    thin = noise(wp.vec2(spot.height * 15.0 + 2.5 * broad + fine, 0.3 * spot.p[1]), s + 303)
    bands += 0.6 * thin * resolved(0.07, spot.footprint)
    steep = 1.0 - spot.normal[1]
    mixed = 0.45 + 0.5 * fine + 0.55 * bands * (0.35 + steep) + 0.25 * spot.gully
    colour = wp.lerp(place.dark_rock, place.rock, wp.clamp(mixed, 0.0, 1.25))
    cracks = solid_noise(wp.vec3(spot.p[0], spot.height, spot.p[1]) * 5.0
                         + 1.5 * wp.vec3(fine, broad, -fine), s + 307)
    crack = 1.0 - wp.smoothstep(0.0, 0.22, wp.abs(cracks + 0.1 * fine))
    colour *= 1.0 - 0.5 * crack * resolved(0.15, spot.footprint)
    # The sea keeps the feet of the rocks dark.
    wet = 1.0 - wp.smoothstep(0.03, 0.16, spot.height + 0.05 * fine)
    return colour * (1.0 - 0.6 * wet)


@wp.func
def _meadow(spot: Spot, fine: float, broad: float, place: Place):
    """Grass from green to dry, with bushes where it is fine enough to tell them."""
    s = place.seed
    moist = place.moisture + 0.55 * broad + 0.35 * fine - 0.35 * spot.gully
    colour = wp.lerp(place.dry_grass, place.grass, wp.smoothstep(-0.35, 0.35, moist))
    colour = wp.lerp(colour, 0.55 * place.dark_rock + 0.5 * place.dry_grass,
                     0.55 * wp.smoothstep(0.25, 0.7, fine - 0.6 * broad - 0.3 * moist))
    bushes = fractal(spot.p, 0.22, 4, 0.8, spot.footprint, s + 311)
    scrub = wp.smoothstep(0.25, 0.5, bushes + 0.5 * broad + 0.25 * place.moisture)
    colour = wp.lerp(colour, place.leaf * 1.3, 0.75 * scrub * wp.min(4.0 * place.trees + 0.3, 1.0))
    return colour * (1.0 + 0.38 * fine)


@wp.func
def _sand(spot: Spot, fine: float, broad: float, place: Place):
    """Dry sand with ripples and wrack lines, wet where the swash reaches."""
    s = place.seed
    ripples = noise(wp.vec2(spot.p[0] * 9.0 + 2.0 * broad, spot.p[1] * 26.0 + 3.0 * fine), s + 317)
    colour = place.sand * (1.0 + 0.14 * fine + 0.10 * broad
                           + 0.05 * ripples * resolved(0.05, spot.footprint))
    line = wp.abs(spot.height - 0.055 - 0.02 * broad)
    colour *= 1.0 - 0.3 * (1.0 - wp.smoothstep(0.0, 0.008, line)) * wp.smoothstep(0.0, 0.4, fine)
    wet = 1.0 - wp.smoothstep(0.008, 0.035, spot.height + 0.012 * broad)
    return colour * (1.0 - 0.52 * wet)


@wp.func
def _canopy(spot: Spot, fine: float, broad: float, place: Place):
    """Crowns, each of its own green."""
    own = spot.tree - 0.5
    colour = place.leaf * (1.0 + 0.55 * own + 0.35 * broad)
    colour = wp.lerp(colour, place.grass * 0.7, 0.35 * wp.clamp(own + 0.5 * broad, 0.0, 1.0))
    return colour * (1.0 + 0.45 * fine)


@wp.func
def _rockiness(spot: Spot, fine: float, broad: float, steep: float, place: Place):
    """Share of rock in a ground without sand: what is steep, and what is high."""
    bare = wp.smoothstep(0.62, 1.0, steep + 0.28 * fine + 0.22 * broad + 0.12 * spot.gully
                         - 0.35 * place.moisture)
    high = wp.smoothstep(0.7, 1.5, spot.height / place.tree_line + 0.3 * broad + 0.15 * fine)
    return wp.max(bare, 0.8 * high)


@wp.func
def _sandiness(spot: Spot, fine: float, broad: float, steep: float, place: Place):
    """Share of sand: beaches and dunes, where they aren't steep."""
    beach = 1.0 - wp.smoothstep(0.13, 0.24, spot.height + 0.10 * broad + 0.05 * fine)
    dune = place.dunes * 0.75 * (1.0 - wp.smoothstep(0.35, 1.1, spot.height + 0.5 * broad))
    # Rock shows through what is steep, but dunes are sand all through.
    firm = 0.45 + 0.6 * place.dunes
    return (wp.max(beach, wp.min(dune, 1.0))
            * (1.0 - wp.smoothstep(0.0, 0.4, steep + 0.2 * fine - firm)))


@wp.func
def _snowiness(spot: Spot, fine: float, broad: float, steep: float, leaves: float, place: Place):
    """Share of snow: above its line, not on what is steep, half of it off the trees."""
    line = place.snow_line + 0.35 * broad * wp.min(wp.abs(place.snow_line), 2.0) + 0.3 * fine
    snow = wp.smoothstep(-0.25, 0.25, spot.height - line - 0.35 * spot.gully)
    snow *= 1.0 - wp.smoothstep(0.5, 0.9, steep + 0.5 * fine + 0.25 * broad)
    snow *= 1.0 - 0.62 * leaves * (0.6 + fine)
    return wp.clamp(snow * wp.smoothstep(0.015, 0.06, spot.height + 0.03 * broad), 0.0, 1.0)


@wp.func
def albedo(spot: Spot, place: Place):
    """Colour of the ground, and how much of it is leaves (fourth component)."""
    broad = fractal(spot.p, 6.0, 4, 0.55, spot.footprint, place.seed + 331)
    fine = _fine_texture(spot, place.seed + 337)
    steep = wp.sqrt(wp.max(1.0 - spot.normal[1] * spot.normal[1], 0.0)) / spot.normal[1]
    colour = wp.vec3(0.0, 0.0, 0.0)
    leaves = wp.smoothstep(0.006, 0.02, spot.crown)
    # What is covered altogether isn't computed.
    if leaves < 1.0:
        rock = _rockiness(spot, fine, broad, steep, place)
        sand = _sandiness(spot, fine, broad, steep, place)
        if sand < 1.0 and rock < 1.0:
            colour = _meadow(spot, fine, broad, place)
        if sand < 1.0 and rock > 0.0:
            colour = wp.lerp(colour, _rock(spot, fine, broad, place), rock)
        if sand > 0.0:
            colour = wp.lerp(colour, _sand(spot, fine, broad, place), sand)
    if leaves > 0.0:
        colour = wp.lerp(colour, _canopy(spot, fine, broad, place), leaves)
    snow = _snowiness(spot, fine, broad, steep, leaves, place)
    white = wp.vec3(0.66, 0.68, 0.71) * (1.0 + 0.09 * fine + 0.06 * broad)
    colour = wp.lerp(colour, white, snow)
    return wp.vec4(colour[0], colour[1], colour[2], leaves * (1.0 - snow))


@wp.func
def shade_land(spot: Spot, sun: float, openness: float, place: Place):
    """Light that a spot sends to the camera.

    Args:
        spot: the place.
        sun: share of the sun that reaches it.
        openness: share of the sky that it sees.
        place: settings.
    """
    material = albedo(spot, place)
    colour = wp.vec3(material[0], material[1], material[2])
    leaves = material[3]
    rough = wp.lerp(0.13, 0.3, wp.smoothstep(0.1, 0.4, 1.0 - spot.normal[1]))
    amount = wp.lerp(rough, 0.45, leaves) * (1.0 - 0.55 * wp.smoothstep(0.4, 0.6, colour[0]))
    amount *= wp.smoothstep(0.0, 0.08, spot.height)
    normal = roughen(spot.normal, spot.p, 0.09, amount, spot.footprint, place.seed + 347)
    facing = wp.dot(normal, place.sun)
    direct = wp.lerp(wp.max(facing, 0.0), wp.max((facing + 0.35) / 1.35, 0.0) * 0.8, leaves)
    inner = wp.lerp(1.0, wp.smoothstep(0.0, 0.75, spot.crown / place.tree_height) * 0.85 + 0.15,
                    leaves)
    skylight = wp.lerp(place.horizon, place.zenith, 0.6) * (0.75 + 0.6 * normal[1])
    light = place.sunlight * (direct * sun * (0.4 + 0.6 * inner))
    light += skylight * (openness * inner * (1.0 + 0.5 * place.overcast))
    light += wp.cw_mul(place.sunlight, colour) * (0.18 * place.sun[1] * openness * inner)
    return wp.cw_mul(colour, light)
