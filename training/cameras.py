"""Cameras: virtual views near a photo, from which going to the photo is a step of a flight.

InfiniteNature-Zero learns view synthesis from a photo, a nearby view and the way back (cyclic
trajectory, section 4.1 of the paper). How its nearby views are drawn is told in a supplement that
could not be had; the ranges here are those of this package's own flights.
"""

from __future__ import annotations

from dataclasses import dataclass
import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from infinite_nature_ros import camera
from infinite_nature_ros.autopilot import Autopilot
from infinite_nature_ros.elevation import ElevationMap
from infinite_nature_ros.frame import Frame
from infinite_nature_training.camera_speed import CameraSpeed, DEFAULT_TARGET

# What is drawn of a sample, beside what ``epochs`` draws: its camera, the steering of its pilot.
_CAMERA, _STEERING = 2, 3

# Distance in scene units within which the ground that a photo shows is looked up.
_REACH = 3.0

# Least height over the ground: below it, what is nearest fills the view out of all bounds.
_CLEARANCE = 0.1


@dataclass(frozen=True)
class CameraRanges:
    """How a step to a photo may differ from one straight ahead; each is drawn evenly.

    The autopilot's steps were measured over 90 crops of photographs, forty steps each, steered at
    random: sideways up to 0.01 units, 0.03 units up and down, turns up to 2.9 degrees, nods 95 %
    below 2 degrees, roll below 0.1. The ranges reach beyond that: a pilot may fly anywhere that it
    was built for, and people steer flights too.

    Attributes:
        speed: least and greatest length of the step, scene units. 0.2 is the autopilot's; 30 %
            to both sides as in the sequences of the first paper (``CameraSpeed``).
        sideways: greatest motion to either side, scene units. 0.05 is a view 14 degrees off the
            course: enough for near edges to uncover what is behind them.
        vertical: greatest rise or descent, scene units. 0.05 is a slope of a quarter; the
            autopilot's steepest descent is 0.3, its steepest climb 0.6.
        yaw: greatest turn to either side about the vertical, degrees. 5 is the autopilot's turn
            on the spot, and nearly its sharpest in flight (5.7).
        pitch: greatest nod, degrees: what the autopilot does to hold the horizon, and no more,
            since each moves the horizon.
        roll: greatest roll, degrees. The autopilot levels it out; 1 keeps a hand-held photo's.
        steering: greatest offset of the pilot's look target along image x and y, normalised (0.5
            is the picture's edge). 0.4 looks at nearly everything in the picture; 0.1 keeps
            flights over water and plains from diving.
    """

    speed: tuple[float, float] = CameraSpeed().range
    sideways: float = 0.05
    vertical: float = 0.05
    yaw: float = 5.0
    pitch: float = 2.0
    roll: float = 1.0
    steering: tuple[float, float] = (0.4, 0.1)

    def __post_init__(self) -> None:
        """Refuse ranges that hold nothing or no camera."""
        least, greatest = self.speed
        if not 0 <= least <= greatest <= 1:
            raise ValueError(f'speed is {self.speed}; give the least and the greatest, from 0 to 1')
        for name, value, most in (
                ('sideways', self.sideways, 1), ('vertical', self.vertical, 1),
                ('yaw', self.yaw, 90), ('pitch', self.pitch, 45), ('roll', self.roll, 45),
                ('steering', self.steering[0], 0.5), ('steering', self.steering[1], 0.5)):
            if not 0 <= value <= most:
                raise ValueError(f'{name} is {value}; give a number from 0 to {most}')


DEFAULT_RANGES = CameraRanges()


def sample_previous_poses(frame: Frame, indices: Tensor, ranges: CameraRanges = DEFAULT_RANGES, *,
                          seed: int = 0) -> Tensor:
    """Sample views from which a flight comes to each photo: piloted, jittered, above ground.

    Args:
        frame: the photos, B of them; disparity, pose, intrinsics and sky are used.
        indices: ``[B]`` global indices of the samples: what is drawn depends on them alone.
        ranges: of the cameras.
        seed: of the training run.

    Returns:
        ``[B, 3, 4]`` world to camera.
    """
    steps = piloted_steps(frame, indices, ranges, seed=seed)
    return keep_above_ground(
        sample_nearby_poses(frame.pose, indices, ranges, seed=seed, steps=steps), frame)


def sample_nearby_poses(pose: Tensor, indices: Tensor, ranges: CameraRanges = DEFAULT_RANGES, *,
                        seed: int = 0, steps: Tensor | None = None) -> Tensor:
    """Sample views that lie one step behind, so that going on to ``pose`` is a step of a flight.

    The step to ``pose`` is the given one, brought to a drawn length, plus a drawn motion sideways
    and up or down (level, whatever the camera's pitch), plus a drawn turn about the vertical, nod
    and roll.

    Args:
        pose: ``[B, 3, 4]`` world to camera, in a level world.
        indices: ``[B]`` global indices of the samples: what is drawn depends on them alone, not on
            batches or ranks.
        ranges: what is drawn.
        seed: of the training run.
        steps: ``[B, 3, 4]`` transforms of camera coordinates before a step into those after it, as
            of :func:`piloted_steps`; ``None`` for level flight straight ahead.

    Returns:
        ``[B, 3, 4]`` world to camera.
    """
    speed, sideways, vertical, yaw, pitch, roll = _draw(
        seed, _CAMERA, indices, [ranges.speed, *(
            (-value, value) for value in (ranges.sideways, ranges.vertical, *map(
                math.radians, (ranges.yaw, ranges.pitch, ranges.roll))))]).to(pose).unbind(1)
    steps = _level_steps(pose) if steps is None else steps.to(pose)
    before = camera.compose(camera.inverse(steps), pose)
    forward = (camera.position(pose) - camera.position(before)) * (speed / DEFAULT_TARGET)[:, None]
    heading = _heading(pose)
    right = torch.stack([heading[:, 2], heading[:, 1], -heading[:, 0]], dim=-1)
    motion = forward + sideways[:, None] * right - vertical[:, None] * pose.new_tensor([0, 1, 0])
    rotation = camera.level_pose(pitch, roll).to(pose)[..., :3] @ before[..., :3] @ _turn(yaw)
    return camera.pose_at(camera.position(pose) - motion, rotation)


def piloted_steps(frame: Frame, indices: Tensor, ranges: CameraRanges = DEFAULT_RANGES, *,
                  seed: int = 0) -> Tensor:
    """Ask the autopilot for its steps from photos, to where one can fly.

    Its look target is moved by offsets drawn for each sample.

    Args:
        frame: the photos, B of them; disparity, pose, intrinsics and sky are used.
        indices: ``[B]`` global indices of the samples.
        ranges: of the steering.
        seed: of the training run.

    Returns:
        ``[B, 3, 4]`` transforms of camera coordinates before the step into those after it.
    """
    offsets = _draw(seed, _STEERING, indices, [(-value, value) for value in ranges.steering])
    pilot = Autopilot(frame.intrinsics, speed=DEFAULT_TARGET)
    pilot.steer(offsets.to(frame.pose))
    return camera.relative_pose(frame.pose, pilot.next_pose(frame))


def keep_above_ground(pose: Tensor, frame: Frame) -> Tensor:
    """Lift cameras that would be inside the ground, or less than 0.1 units above it.

    The ground at a camera is what the photo shows of that place. Where it shows none, as behind
    it, the nearest ground in view (the middle of the picture's lowest row) goes on level; the
    photo's own camera counts as above it in any case.

    Args:
        pose: ``[B, 3, 4]`` world to camera.
        frame: the photos that the cameras are near.

    Returns:
        ``[B, 3, 4]``, with the rotations as they were.
    """
    centre, seen_from = camera.position(pose), camera.position(frame.pose)
    ground = torch.fmax(_ground_in_view(frame, centre), _nearest_ground(frame))
    ground = torch.minimum(ground.to(pose), -seen_from[:, 1] - _CLEARANCE)
    height = torch.maximum(-centre[:, 1], ground + _CLEARANCE)
    lifted = torch.stack([centre[:, 0], -height, centre[:, 2]], dim=-1)
    return camera.pose_at(lifted, pose[..., :3])


def _ground_in_view(frame: Frame, centre: Tensor) -> Tensor:
    """``[B]`` height of the surface seen at the places of cameras; -inf where none is seen."""
    terrain = ElevationMap.empty(len(centre), _REACH, centre.device).observe(frame)
    return terrain.highest(centre[:, None, [2, 0]], 0.0)[:, 0]


def _nearest_ground(frame: Frame) -> Tensor:
    """``[B]`` height of the ground in the picture's lowest row; -inf where that is all sky."""
    ray = camera.pixel_rays(frame.intrinsics, *frame.disparity.shape[-2:])[:, :, -1]
    disparity = frame.disparity[:, 0, -1]
    below = torch.einsum('bi,biw->bw', frame.pose[:, :, 1], ray) / disparity
    land = disparity > camera.MIN_DISPARITY
    if frame.sky is not None:
        land = land & (frame.sky[:, 0, -1] <= 0.5)
    depth = below.masked_fill(~land, torch.nan).nanmedian(1).values
    return (-camera.position(frame.pose)[:, 1] - depth).nan_to_num(-torch.inf)


def _level_steps(pose: Tensor) -> Tensor:
    """``[B, 3, 4]`` transforms of steps straight ahead, level whatever the pitch."""
    ahead = camera.position(pose) + DEFAULT_TARGET * _heading(pose)
    return camera.relative_pose(pose, camera.pose_at(ahead, pose[..., :3]))


def _heading(pose: Tensor) -> Tensor:
    """``[B, 3]`` level unit directions of the views."""
    return functional.normalize(pose[:, 2, :3] * pose.new_tensor([1, 0, 1]), dim=-1)


def _turn(yaw: Tensor) -> Tensor:
    """``[B, 3, 3]`` rotations about the vertical; a camera that has them last looks left by yaw."""
    cos, sin, zero = yaw.cos(), yaw.sin(), torch.zeros_like(yaw)
    return torch.stack([cos, zero, sin, zero, zero + 1, zero, -sin, zero, cos],
                       dim=-1).unflatten(-1, (3, 3))


def _draw(seed: int, what: int, indices: Tensor, bounds: list[tuple[float, float]]) -> Tensor:
    """``[B, len(bounds)]`` even draws, for each sample by its global index."""
    low, high = np.array(bounds).T
    return torch.from_numpy(np.stack([
        np.random.default_rng((seed, what, index)).uniform(low, high)
        for index in indices.tolist()]))
