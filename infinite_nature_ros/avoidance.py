"""Obstacle avoidance: which way to fly over the terrain seen, for the autopilot's safe mode.

Many turns are tried. Each gives a track over the ground as the pilot would really fly it, the
terrain below that track says how steeply to climb and where climbing can't help, and the turn
nearest the wanted one that has free room is taken (a dynamic window over an elevation map).
"""

from __future__ import annotations

from dataclasses import dataclass
import math

import torch
from torch import Tensor

from infinite_nature_ros.elevation import CELL, ElevationMap

MAX_CLIMB = 0.6
MAX_DESCENT = 0.3
"""Steepest slopes flown, rise over ground distance."""

_TURNS_IN_FLIGHT = (0, 5, 10, 15, 20, 30, 40, 50, 60)
_TURNS_ON_THE_SPOT = (15, 30, 45, 60, 75, 90, 105, 120, 135, 150, 165, 180)

# Costs, in radians of turn: of track without free room, and of stopping to turn on the spot.
_BLOCKED_COST = 4.0
_STOP_COST = 1.0

# Terrain nearer than this is answered as if it were this far, so that slopes stay gentle; what
# that leaves too near is caught by the look-ahead having started long before.
_GENTLE_DISTANCE = 2.0

# How steeply to sink towards terrain far below.
_SEEKING_DESCENT = 0.15

# A track that was free from afar may be grazed by this much when near, where cells are coarse.
_NEAR = 1.0
_NEAR_RADIUS = 0.5

# Free track without which the pilot stops, and without which, all around, it leaves upward.
_STOP_DISTANCE = 0.5
_LEAST_ROOM = 1.5

# Radians turned on the spot, above which it counts as turning in that sense.
_TURNED = math.radians(4)

# Free height needed over terrain, as a share of the clearance: the terrain is already the highest
# within the clearance, so on a slope this comes on top. And the least when starting too low.
_VERTICAL_SHARE = 0.8
_LEAST_MARGIN = 0.2


@dataclass(frozen=True)
class Course:
    """What to do next, per world.

    Attributes:
        turn: ``[B]`` radians to turn by in all, positive to the right.
        slope: ``[B]`` rise over ground distance to fly at.
        flying: ``[B]`` whether there is room to go on while turning; else turn on the spot.
        stuck: ``[B]`` whether there is room in no direction at all, or turning all around found
            none; only up is left.
    """

    turn: Tensor
    slope: Tensor
    flying: Tensor
    stuck: Tensor


class CoursePlanner:
    """Chooses courses over an elevation map.

    Args:
        response: distance in scene units in which the pilot makes 63 % of a turn.
        clearance: free radius around the track, scene units.
        height: least and greatest height over the highest terrain along the track.
        lookahead: length of the tracks, scene units.
        device: where the maps will be.
    """

    def __init__(self, response: float, clearance: float, height: tuple[float, float],
                 lookahead: float, device: torch.device | str = 'cpu') -> None:
        self.clearance = clearance
        self.height = height
        self.lookahead = lookahead
        self.distance = CELL * torch.arange(1, math.ceil(lookahead / CELL) + 1, device=device)
        # Ground distance that passes before a new direction is fully taken.
        self.lag = response * (1 - torch.exp(-self.distance / response))
        in_flight = _both_ways(_TURNS_IN_FLIGHT)
        on_the_spot = _both_ways(_TURNS_ON_THE_SPOT)
        self.turns = torch.cat([in_flight, on_the_spot]).to(device)
        self.in_flight = torch.arange(len(self.turns), device=device) < len(in_flight)
        reached = torch.where(self.in_flight[:, None], self.lag / response, 1.0)
        heading = self.turns[:, None] * reached
        self.tracks = torch.stack([heading.cos(), heading.sin()], dim=-1).cumsum(1) * CELL

    def choose(self, terrain: ElevationMap, position: Tensor, heading: Tensor, slope: Tensor,
               wanted_turn: Tensor, wanted_slope: Tensor, turned: Tensor) -> Course:
        """Choose the course nearest the wanted one that has free room.

        Args:
            terrain: what is known of the ground.
            position: ``[B, 3]`` camera centres.
            heading: ``[B]`` direction of motion, radians from world Z towards X.
            slope: ``[B]`` present slope of the motion.
            wanted_turn: ``[B]`` radians.
            wanted_slope: ``[B]`` slope over level terrain.
            turned: ``[B]`` radians turned on the spot of late. It goes on in that sense: what
                comes into view while turning would else make it turn to and fro.
        """
        ahead = self._terrain_along(terrain, position, heading)
        free = self._free_distance(ahead, slope)
        target = self._slope_over(ahead, free, slope, wanted_slope, terrain.is_empty())
        cost = ((self.turns - wanted_turn[:, None]).abs() + target.clamp(min=0)
                + _BLOCKED_COST * (1 - free / self.lookahead)
                + torch.where(self.in_flight, 0.0, _STOP_COST))
        cost = cost.masked_fill(self.in_flight & (free < _STOP_DISTANCE), torch.inf)
        back = self.turns * turned[:, None].sign() < 0
        cost = cost.masked_fill(back & ~self.in_flight & (turned.abs()[:, None] > _TURNED),
                                torch.inf)
        best = cost.argmin(1, keepdim=True)
        flying = self.in_flight[best[:, 0]]
        return Course(turn=self.turns[best[:, 0]],
                      slope=target.gather(1, best)[:, 0],
                      flying=flying,
                      stuck=(free.amax(1) < _LEAST_ROOM) | ~flying & (turned.abs() >= 2 * math.pi))

    def _terrain_along(self, terrain: ElevationMap, position: Tensor, heading: Tensor) -> Tensor:
        """``[B, T, S]`` terrain height over the camera's own, along T tracks of S samples."""
        cos, sin = heading.cos()[:, None, None], heading.sin()[:, None, None]
        forward, right = self.tracks.unbind(-1)
        places = torch.stack([forward * cos - right * sin, forward * sin + right * cos], dim=-1)
        places = (places + position[:, None, None, [2, 0]]).flatten(1, 2)
        wide = terrain.highest(places, self.clearance).unflatten(1, forward.shape)
        narrow = terrain.highest(places, min(_NEAR_RADIUS, self.clearance))
        highest = torch.where(self.distance <= _NEAR, narrow.unflatten(1, forward.shape), wide)
        return highest + position[:, 1, None, None]

    def _free_distance(self, ahead: Tensor, slope: Tensor) -> Tensor:
        """``[B, T]`` distance along each track up to what can't be climbed over in time."""
        distance, lag = self.distance, self.lag
        rise = MAX_CLIMB * (distance - lag) + slope[:, None, None] * lag
        # Who is too low already may go on if that leads upward: a photo may start so.
        near = ahead[..., :math.ceil(_GENTLE_DISTANCE / CELL)].amax(-1, keepdim=True)
        allowed = (-0.95 * near).clamp(min=_LEAST_MARGIN) + 0.1 * distance
        margin = allowed.clamp(max=_VERTICAL_SHARE * self.clearance)
        blocked = ahead + margin > rise
        return torch.where(blocked, distance - CELL, self.lookahead).amin(-1)

    def _slope_over(self, ahead: Tensor, free: Tensor, slope: Tensor, wanted: Tensor,
                    lost: Tensor) -> Tensor:
        """``[B, T]`` slopes that keep to the band of heights over each track."""
        distance, lag = self.distance, self.lag
        ground = (distance - lag).clamp(min=_GENTLE_DISTANCE)
        rise = ahead - slope[:, None, None] * lag
        least, greatest = self.height
        # What blocks a track is no reason to climb: it would not help.
        passed = rise.masked_fill(distance > free[..., None], -torch.inf)
        rising = ((passed + least) / ground).amax(-1)
        sinking = ((rise + greatest) / ground).amax(-1).clamp(-_SEEKING_DESCENT, 0)
        # Over terrain not seen yet it flies level, unless none has been seen anywhere near.
        level = torch.isinf(ahead).all(-1) & ~lost[:, None]
        sinking = sinking.masked_fill(level, 0.0)
        return torch.maximum(rising, sinking + wanted[:, None]).clamp(-MAX_DESCENT, MAX_CLIMB)


def _both_ways(degrees: tuple[int, ...]) -> Tensor:
    """List turns to the right and to the left, in radians."""
    signed = [*degrees] + [-angle for angle in degrees if angle % 180]
    return torch.tensor(signed, dtype=torch.float32).deg2rad()
