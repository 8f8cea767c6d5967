"""Autopilot: from what the camera sees now to the pose it should fly to next.

Two modes. ``official`` is the release's (paper, supplement 1.4; release, ``fly_camera``): it
balances sky and near pixels by averages. ``safe``, the default, flies level over the terrain it
has seen, at a sensible height, and turns or climbs in time before what is in the way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
import math

import torch
from torch import Tensor
from torch.nn import functional

from infinite_nature_ros import camera
from infinite_nature_ros.avoidance import CoursePlanner, MAX_CLIMB
from infinite_nature_ros.elevation import ElevationMap
from infinite_nature_ros.frame import Frame

MODES = ('safe', 'official')

# Where the release holds the horizon.
_OFFICIAL_HORIZON = 0.3

# The rows between which the safe mode holds the horizon, 0 top to 1 bottom.
_HORIZON_ROWS = (0.15, 0.85)

# Share of the climb that the safe mode's view follows, to see what the climb leads to.
_CLIMB_SEEN = 0.5

# Radians per step when turning on the spot.
_SPOT_TURN = math.radians(5)

# Distance in scene units in which the safe mode makes 63 % of a turn or change of climb.
_RESPONSE = 2.0


@dataclass(frozen=True)
class _State:
    """What the pilot remembers between frames.

    Attributes:
        look: ``[B, 3]`` direction of the view in the world, in official mode not of unit length.
        move: ``[B, 3]`` direction of the motion at positive speed, likewise.
        time: ``[B]`` steps since the last reset.
        offsets: ``[B, 2]`` steering, normalised image offsets of the look target.
        horizon: ``[B]`` image row where the horizon is held (safe mode).
        turned: ``[B]`` radians turned on the spot, forgotten in flight (safe mode).
        terrain: what was seen of the ground (safe mode).
    """

    look: Tensor
    move: Tensor
    time: Tensor
    offsets: Tensor
    horizon: Tensor
    turned: Tensor
    terrain: ElevationMap

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name."""
        return {'look': self.look, 'move': self.move, 'time': self.time, 'offsets': self.offsets,
                'horizon': self.horizon, 'turned': self.turned,
                'heights': self.terrain.heights, 'centre': self.terrain.centre}

    @classmethod
    def of(cls, tensors: dict[str, Tensor]) -> _State:
        """Undo ``tensors``."""
        rest = {name: value for name, value in tensors.items()
                if name not in ('heights', 'centre')}
        return cls(**rest, terrain=ElevationMap(tensors['heights'], tensors['centre']))


class Autopilot:
    """Flies B independent worlds, one step at a time.

    In ``safe`` mode every step is ``speed`` long, with two exceptions: where going on would hit
    something, the camera turns on the spot (a step of length 0) until there is free room ahead,
    and where there is none in any direction it rises straight up while turning.

    Args:
        intrinsics: ``[B, 4]`` of the frames to come.
        mode: ``'safe'`` or ``'official'``.
        speed: scene units per step, -1 to 1; negative flies backward with the view still forward.
        lerp: share of the way to the look and move target taken per step (official mode).
        horizon: image row wanted for the horizon, 0 top to 1 bottom; ``None``: 0.3 in official
            mode, as in the release, and the first frame's own in safe mode.
        near_fraction: share of the image to be near (official mode).
        meander_period: steps of a swing of the look target, along image x and y.
        meander_magnitude: size of that swing in normalised image units, along x and y.
        steering_decay: factor on the steering per step; 1 keeps it until steered anew.
        clearance: free radius around the way ahead, scene units (safe mode).
        height: least and greatest height over the highest terrain ahead (safe mode).
        lookahead: distance looked ahead, scene units (safe mode).

    Raises:
        ValueError: for a mode or setting that can't be flown, naming what is accepted.
    """

    def __init__(self, intrinsics: Tensor, mode: str = 'safe', *, speed: float = 0.2,
                 lerp: float = 0.05, horizon: float | None = None, near_fraction: float = 0.2,
                 meander_period: tuple[float, float] = (100.0, 100.0),
                 meander_magnitude: tuple[float, float] = (0.0, 0.0),
                 steering_decay: float = 0.9, clearance: float = 0.75,
                 height: tuple[float, float] = (0.8, 2.0), lookahead: float = 10.0) -> None:
        if mode not in MODES:
            raise ValueError(f'mode is {mode!r}; give one of {", ".join(map(repr, MODES))}')
        _check_range('speed', speed, -1, 1)
        if horizon is not None:
            _check_range('horizon', horizon, 0, 1)
        _check_range('steering_decay', steering_decay, 0, 1)
        _check_range('lerp', lerp, 0, 1)
        _check_range('near_fraction', near_fraction, 0, 1)
        _check_range('clearance', clearance, 0, 10)
        _check_range('lookahead', lookahead, 1, 100)
        if not 0 < height[0] <= height[1] < math.inf:
            raise ValueError(f'height is {height}; give (least, greatest), both positive')
        if not all(0 < period < math.inf for period in meander_period):
            raise ValueError(f'meander_period is {meander_period}; give two positive numbers')
        if not all(map(math.isfinite, meander_magnitude)):
            raise ValueError(f'meander_magnitude is {meander_magnitude}; give two finite numbers')
        self.intrinsics = camera.check_intrinsics(intrinsics)
        self.mode = mode
        self.speed = speed
        self.lerp = lerp
        self.horizon = _OFFICIAL_HORIZON if horizon is None and mode == 'official' else horizon
        self.near_fraction = near_fraction
        self.steering_decay = steering_decay
        self._meander_period = intrinsics.new_tensor(meander_period)
        self._meander_magnitude = intrinsics.new_tensor(meander_magnitude)
        self._planner = CoursePlanner(_RESPONSE, clearance, height, lookahead,
                                      intrinsics.device)
        self._reach = lookahead + clearance if mode == 'safe' else 0.0
        self._state = self._at_rest()

    @torch.no_grad()
    def next_pose(self, frame: Frame) -> Tensor:
        """Pose to fly to from a frame.

        Args:
            frame: the present view; of it disparity, pose and sky are used.

        Returns:
            ``[B, 3, 4]`` world to camera, always finite.

        Raises:
            ValueError: if the frame's batch isn't the intrinsics' or its values aren't finite.
        """
        self._state, pose = self._advance(self._observe(frame), frame)
        return pose

    @torch.no_grad()
    def plan(self, frame: Frame, steps: int) -> Tensor:
        """Poses that will be flown if nothing new comes into view; changes no state.

        In official mode, whose averages can't be foretold, the disparity is taken to stay.

        Args:
            frame: the present view.
            steps: how many poses, at least 1.

        Returns:
            ``[B, steps, 3, 4]``; the first is what ``next_pose`` gives for the same frame.

        Raises:
            ValueError: as ``next_pose``, or if steps is below 1.
        """
        if steps < 1:
            raise ValueError(f'steps is {steps}; give at least 1')
        state = self._observe(frame)
        poses = []
        for _ in range(steps):
            state, pose = self._advance(state, frame)
            frame = frame.replace(pose=pose)
            poses.append(pose)
        return torch.stack(poses, dim=1)

    def steer(self, offsets: Tensor) -> None:
        """Move the look target from now on, until it decays.

        Args:
            offsets: ``[B, 2]`` x (positive turns right) and y (positive looks and sinks down) in
                normalised image units: 0.5 is the image's edge.

        Raises:
            ValueError: if the shape is another or a value isn't finite.
        """
        if offsets.shape != self._state.offsets.shape or not torch.isfinite(offsets).all():
            raise ValueError(f'offsets are {offsets.tolist()}; give finite x and y per world, '
                             f'{list(self._state.offsets.shape)}')
        self._state = replace(self._state, offsets=offsets.to(self._state.offsets, copy=True))

    def reset(self, worlds: Sequence[int] | None = None) -> None:
        """Forget everything about all worlds, or about the given ones.

        Raises:
            ValueError: if a world isn't one of the batch.
        """
        batch = len(self.intrinsics)
        worlds = range(batch) if worlds is None else worlds
        if not all(0 <= world < batch for world in worlds):
            raise ValueError(f'worlds are {list(worlds)}; give indices from 0 to {batch - 1}')
        chosen = torch.zeros(batch, dtype=torch.bool, device=self.intrinsics.device)
        chosen[list(worlds)] = True
        fresh, state = self._at_rest().tensors(), self._state.tensors()
        self._state = _State.of({name: _per_world(chosen, fresh[name], state[name])
                                 for name in state})

    def state_dict(self) -> dict[str, Tensor]:
        """Snapshot of what the pilot remembers, to resume or undo a flight with."""
        return {name: value.clone() for name, value in self._state.tensors().items()}

    def load_state_dict(self, state_dict: dict[str, Tensor]) -> None:
        """Return to a snapshot of a pilot with the same settings.

        Raises:
            ValueError: if names or shapes differ from this pilot's.
        """
        state = self._state.tensors()
        expected = {name: tuple(value.shape) for name, value in state.items()}
        given = {name: tuple(value.shape) for name, value in state_dict.items()}
        if given != expected:
            raise ValueError(f'the state is {given}; give one of a pilot with the same batch and '
                             f'settings: {expected}')
        self._state = _State.of({name: state_dict[name].to(value, copy=True)
                                 for name, value in state.items()})

    def _at_rest(self) -> _State:
        """State before the first step."""
        batch, device = len(self.intrinsics), self.intrinsics.device
        zeros = self.intrinsics.new_zeros
        return _State(look=zeros(batch, 3), move=zeros(batch, 3), offsets=zeros(batch, 2),
                      horizon=zeros(batch), turned=zeros(batch),
                      time=torch.zeros(batch, dtype=torch.int64, device=device),
                      terrain=ElevationMap.empty(batch, self._reach, device))

    def _observe(self, frame: Frame) -> _State:
        """State with what the frame shows; a flight starts along its camera's axis."""
        self._check_frame(frame)
        axis = frame.pose[:, 2, :3]
        starting = self._state.time == 0
        state = replace(self._state, look=_per_world(starting, axis, self._state.look))
        if self.mode == 'official':
            return replace(state, move=_per_world(starting, axis, state.move))
        level = functional.normalize(axis * axis.new_tensor([1, 0, 1]), dim=-1)
        horizon = _per_world(starting, self._horizon_row(frame.pose), state.horizon)
        return replace(state, move=_per_world(starting, level, state.move), horizon=horizon,
                       terrain=state.terrain.observe(frame.replace(intrinsics=self.intrinsics)))

    def _horizon_row(self, pose: Tensor) -> Tensor:
        """``[B]`` image row where a flight that starts here holds the horizon."""
        if self.horizon is not None:
            return torch.full_like(pose[:, 0, 0], self.horizon)
        _, pitch, _ = _angles(pose)
        return (self.intrinsics[:, 3] - self.intrinsics[:, 1] * pitch.tan()).clamp(*_HORIZON_ROWS)

    def _check_frame(self, frame: Frame) -> None:
        """Refuse frames that can't be this pilot's."""
        camera.check_pose(frame.pose, 'the pose of the frame')
        batch = len(self.intrinsics)
        if len(frame.pose) != batch or len(frame.disparity) != batch:
            raise ValueError(f'the frame has {len(frame.pose)} poses and {len(frame.disparity)} '
                             f'disparity maps; give {batch}, as many as intrinsics')
        if not (torch.isfinite(frame.disparity).all() and (frame.disparity > 0).all()):
            raise ValueError('the disparity of the frame has values that are not finite or not '
                             'positive; give 1/depth, at least 0.01')

    def _advance(self, state: _State, frame: Frame) -> tuple[_State, Tensor]:
        """One step over the geometry that was observed: the state after it and the pose."""
        phase = 2 * math.pi * state.time[:, None] / self._meander_period
        offsets = state.offsets + phase.sin() * self._meander_magnitude
        step = self._official_step if self.mode == 'official' else self._safe_step
        state, pose = step(state, frame, offsets)
        return replace(state, time=state.time + 1,
                       offsets=state.offsets * self.steering_decay), pose

    def _official_step(self, state: _State, frame: Frame,
                       offsets: Tensor) -> tuple[_State, Tensor]:
        """State after a step of the release's pilot, and the pose.

        The directions are blended without making them unit vectors again, and down is the last
        camera's own, so that steps get shorter in turns and roll may drift, as in the release.
        """
        look_target, height = self._balance(frame.disparity)
        move_target = torch.stack([torch.full_like(height, 0.5), height], dim=-1)
        look = torch.lerp(state.look, self._direction(frame.pose, look_target + offsets), self.lerp)
        move = torch.lerp(state.move, self._direction(frame.pose, move_target), self.lerp)
        forward = functional.normalize(look, dim=-1)
        right = functional.normalize(torch.linalg.cross(frame.pose[:, 1, :3], forward), dim=-1)
        down = torch.linalg.cross(forward, right)
        position = camera.position(frame.pose) + move * self.speed
        rotation = torch.stack([right, down, forward], dim=1)
        return replace(state, look=look, move=move), camera.pose_at(position, rotation)

    def _balance(self, disparity: Tensor) -> tuple[Tensor, Tensor]:
        """Look target ``[B, 2]`` and height ``[B]`` of the move target, from averages.

        The view turns to the half with more sky and keeps the horizon in its row; the motion
        keeps a fraction of the image near.
        """
        sky = (20 * (0.1 - disparity)).clamp(0, 1)
        near = (10 * (disparity - 0.5)).clamp(0, 1)
        middle = disparity.shape[-1] // 2
        left, right = sky[..., :middle].mean((1, 2, 3)), sky[..., middle:].mean((1, 2, 3))
        x = (right + 1e-4) / (left + right + 2e-4)
        y = 0.5 + sky.mean((1, 2, 3)) - self.horizon
        height = self.horizon + self.near_fraction - near.mean((1, 2, 3))
        if self.speed < 0:
            x, height = 1 - x, 1 - height
        return torch.stack([x, y], dim=-1), height

    def _direction(self, pose: Tensor, target: Tensor) -> Tensor:
        """``[B, 3]`` unit direction in the world of image points ``[B, 2]``."""
        ray = functional.pad((target - self.intrinsics[:, 2:]) / self.intrinsics[:, :2],
                             (0, 1), value=1.0)
        return functional.normalize(torch.einsum('bji,bj->bi', pose[..., :3], ray), dim=-1)

    def _safe_step(self, state: _State, frame: Frame, offsets: Tensor) -> tuple[_State, Tensor]:
        """State after a step of the safe mode, and the pose.

        The view is taken from the frame, not from the state, so that a pilot that takes over
        from somebody else goes on from there.
        """
        yaw, pitch, roll = _angles(frame.pose)
        position = camera.position(frame.pose)
        direction = math.copysign(1.0, self.speed)
        slope = _slope(state.move * direction)
        wanted = offsets / self.intrinsics[:, :2]
        backward = math.pi if direction < 0 else 0.0
        course = self._planner.choose(state.terrain, position, yaw + backward, slope,
                                      wanted[:, 0].atan(), -wanted[:, 1], state.turned)
        share = 1 - math.exp(-abs(self.speed) / _RESPONSE)
        turn = torch.where(course.flying, share * course.turn,
                           course.turn.clamp(-_SPOT_TURN, _SPOT_TURN))
        yaw, slope = yaw + turn, torch.lerp(slope, course.slope, share) * course.flying
        row = state.horizon - offsets[:, 1] + _CLIMB_SEEN * course.slope * self.intrinsics[:, 1]
        level = camera.pitch_of_skyline(row.clamp(*_HORIZON_ROWS), self.intrinsics)
        pitch, roll = torch.lerp(pitch, level, share), roll * (1 - share)
        up = state.move.new_tensor([0, -1, 0])
        move = _heading(yaw + backward, slope)
        move = _per_world(course.stuck, up.expand_as(move), move) * direction
        moving = (course.flying | course.stuck)[:, None]
        pose = camera.pose_at(position + move * self.speed * moving, _rotation(yaw, pitch, roll))
        turned = torch.where(course.flying, state.turned * (1 - share), state.turned + turn)
        return replace(state, look=pose[:, 2, :3], move=move, turned=turned), pose


def _angles(pose: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Yaw (to the right), pitch (nose down) and roll (right side down), each ``[B]`` radians."""
    x, y, z = pose[:, 2, :3].unbind(-1)
    yaw, pitch = torch.atan2(x, z), torch.atan2(y, torch.hypot(x, z))
    level = _rotation(yaw, pitch, torch.zeros_like(yaw))
    right = pose[:, 0, :3]
    roll = torch.atan2((right * level[:, 1]).sum(-1), (right * level[:, 0]).sum(-1))
    return yaw, pitch, roll


def _rotation(yaw: Tensor, pitch: Tensor, roll: Tensor) -> Tensor:
    """``[B, 3, 3]`` world to camera, of angles as from ``_angles``."""
    cos, sin, zero = yaw.cos(), yaw.sin(), torch.zeros_like(yaw)
    turned = torch.stack([cos, zero, -sin, zero, zero + 1, zero, sin, zero, cos], dim=-1)
    return camera.level_pose(pitch, roll)[..., :3] @ turned.unflatten(-1, (3, 3))


def _heading(yaw: Tensor, slope: Tensor) -> Tensor:
    """``[B, 3]`` unit direction that rises by ``slope`` over the ground."""
    return functional.normalize(torch.stack([yaw.sin(), -slope, yaw.cos()], dim=-1), dim=-1)


def _slope(direction: Tensor) -> Tensor:
    """``[B]`` rise over ground distance of directions ``[B, 3]``, at most the steepest flown."""
    ground = torch.hypot(direction[:, 0], direction[:, 2]).clamp(min=1e-6)
    return (-direction[:, 1] / ground).clamp(-MAX_CLIMB, MAX_CLIMB)


def _per_world(chosen: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """Take the chosen worlds ``[B]`` from ``new``, the others from ``old``."""
    return torch.where(chosen.reshape(-1, *(1,) * (old.dim() - 1)), new, old)


def _check_range(name: str, value: float, least: float, greatest: float) -> None:
    """Refuse a setting that isn't a number within bounds."""
    if not least <= value <= greatest:
        raise ValueError(f'{name} is {value}; give a number from {least} to {greatest}')
