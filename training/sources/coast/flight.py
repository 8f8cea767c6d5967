"""Flights over a coast: our autopilot at the controls, wandering as a drone's pilot does."""

from __future__ import annotations

from collections.abc import Iterator
import math

import numpy as np
import torch

from infinite_nature_ros import camera
from infinite_nature_ros.autopilot import Autopilot
from infinite_nature_ros.frame import Frame
from infinite_nature_training.sources.coast.world import CoastWorld

# Frames from one look aside to the next, and how far aside, in image widths.
_EVERY, _ASIDE = 25, 0.35

# Frames of a swing to and fro, and how far it goes along x and y, in image sizes.
_PERIOD, _SWING = (60.0, 140.0), ((0.05, 0.22), (0.0, 0.04))

# Least height over the land ahead, and how much higher the greatest is, scene units.
_LEAST_HEIGHT, _RANGE = (0.8, 1.3), (0.8, 1.4)


def fly(world: CoastWorld, height: int, width: int, speed: float, seed: int) -> Iterator[Frame]:
    """Fly on and on from the start of a coast; the same seed flies the same way.

    Args:
        world: the coast.
        height: rows of the frames.
        width: columns of the frames.
        speed: scene units per frame, -1 to 1.
        seed: draws height, swings and looks aside.

    Yields:
        the frames, batch 1; the first is the view from ``world.start``.

    Raises:
        ValueError: for a size or speed that can't be.
    """
    random = np.random.default_rng((seed, 3))
    intrinsics = camera.default_intrinsics(height, width)
    least = random.uniform(*_LEAST_HEIGHT)
    pilot = Autopilot(
        intrinsics.to(world.device), speed=speed,
        height=(least, least + random.uniform(*_RANGE)),
        meander_period=tuple(random.uniform(*_PERIOD, 2)),
        meander_magnitude=tuple(random.uniform(*swing) for swing in _SWING))
    pose = world.start
    while True:
        for _ in range(_EVERY):
            frame = world.look(pose, intrinsics, height, width)
            yield frame
            pose = pilot.next_pose(frame).cpu()
        aside = math.copysign(random.uniform(0, _ASIDE), random.uniform(-1, 1))
        pilot.steer(torch.tensor([[aside, 0.0]], device=world.device))
