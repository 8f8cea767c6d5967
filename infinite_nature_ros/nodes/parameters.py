"""Parameters of the nodes: declared, described and validated from one table per node."""

from __future__ import annotations

from dataclasses import dataclass
import math
from typing import Any

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.exceptions import ParameterException
from rclpy.node import Node

from infinite_nature_ros.rendering import list_backends


@dataclass(frozen=True)
class Parameter:
    """One parameter of a node.

    Attributes:
        name: name, as in the parameter file.
        default: default value; its type is the parameter's type.
        description: what it is, with unit and what special values mean.
        range: smallest and largest accepted number, inclusive.
        choices: accepted strings; empty accepts any.
        multiple_of: integers must be a multiple of this.
        live: can be set while the node runs.
    """

    name: str
    default: bool | int | float | str | tuple[float, ...]
    description: str
    range: tuple[float, float] | None = None
    choices: tuple[str, ...] = ()
    multiple_of: int = 1
    live: bool = False

    def descriptor(self) -> ParameterDescriptor:
        """Descriptor for ``declare_parameter``; rclpy itself keeps ranges and read-only."""
        descriptor = ParameterDescriptor(description=self.description, read_only=not self.live)
        if self.choices:
            descriptor.additional_constraints = f'one of {", ".join(self.choices)}'
        if self.range and isinstance(self.default, float):
            low, high = self.range
            descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
        elif self.range:
            low, high = (int(limit) for limit in self.range)
            descriptor.integer_range = [
                IntegerRange(from_value=low, to_value=high, step=self.multiple_of)]
        return descriptor

    def problem(self, value: Any) -> str:
        """Say what is wrong with a value beyond what rclpy checks; empty if nothing is."""
        if self.choices and value not in self.choices:
            return f'{self.name} is {value!r}; give one of {", ".join(self.choices)}'
        if isinstance(value, list) and len(value) != len(self.default):
            return f'{self.name} is {value}; give {len(self.default)} numbers'
        if isinstance(value, float) and not math.isfinite(value):
            return f'{self.name} is {value}; give a finite number'
        return ''


def declare_parameters(node: Node, table: tuple[Parameter, ...]) -> None:
    """Declare a table of parameters and refuse bad values from now on.

    Raises:
        ValueError: if a start-up value (parameter file, ``-p``) has the wrong type, is out of
            range or isn't one of the choices.
    """
    by_name = {parameter.name: parameter for parameter in table}

    def validate(changes: list) -> SetParametersResult:
        problems = [by_name[change.name].problem(change.value)
                    for change in changes if change.name in by_name]
        problems = [problem for problem in problems if problem]
        return SetParametersResult(successful=not problems, reason='; '.join(problems))

    for parameter in table:
        try:
            node.declare_parameter(parameter.name, parameter.default, parameter.descriptor())
        except ParameterException as error:
            raise ValueError(f'parameter {parameter.name}: {error} ({parameter.description})'
                             ) from error
        problem = parameter.problem(node.get_parameter(parameter.name).value)
        if problem:
            raise ValueError(f'parameter {problem}')
    node.add_on_set_parameters_callback(validate)


def values_of(node: Node, table: tuple[Parameter, ...]) -> dict[str, Any]:
    """Values of a table of declared parameters by name, to hand on as keyword arguments."""
    return {parameter.name: node.get_parameter(parameter.name).value for parameter in table}


_FRAMES = (
    Parameter('frame_prefix', '', 'put before the names of all frames, to keep two drones apart; '
              'drone1/ makes drone1/map'),
    Parameter('map_frame_id', 'map', 'frame of poses: level, X forward over the first photo'),
    Parameter('odom_frame_id', 'odom', 'frame of the odometry; here the same as the map'),
    Parameter('base_frame_id', 'base_link', 'frame of the drone'),
    Parameter('camera_frame_id', 'camera_link', 'frame of the camera, X forward (REP 103)'),
    Parameter('optical_frame_id', 'camera_optical_frame', 'frame of the images, Z forward'),
    Parameter('camera_x', 0.0, 'place of the camera on the drone in metres, forward',
              range=(-100.0, 100.0)),
    Parameter('camera_y', 0.0, 'the same, to the left', range=(-100.0, 100.0)),
    Parameter('camera_z', 0.0, 'the same, up', range=(-100.0, 100.0)),
    Parameter('camera_roll', 0.0, 'attitude of the camera on the drone in radians, positive is '
              'right side down',
              range=(-3.2, 3.2)),
    Parameter('camera_pitch', 0.0, 'the same, positive is nose down', range=(-3.2, 3.2)),
    Parameter('camera_yaw', 0.0, 'the same, positive is to the left', range=(-3.2, 3.2)),
)

_SCENE_SCALE = Parameter('scene_scale', 1.0, 'metres per scene unit; the nearest thing in a '
                         'photo is about one scene unit away', range=(1e-3, 1e6))

GENERATOR_PARAMETERS = (
    Parameter('image', '', 'photo to fly into: path or name of a sample; empty is the default '
              'sample'),
    Parameter('model', 'default', 'refiner: registered name or path of its weights'),
    Parameter('height', 160, 'image height in pixels', range=(64, 2048), multiple_of=32),
    Parameter('width', 256, 'image width in pixels', range=(64, 2048), multiple_of=32),
    Parameter('disparity', 'auto', 'source of the first disparity: registered name or path'),
    Parameter('fov', 0.0, 'horizontal field of view of the photo in degrees; 0 is the default 64',
              range=(0.0, 170.0)),
    Parameter('sky', True, 'keep the sky of the photo far away and steady'),
    Parameter('initial_attitude', 'skyline', 'what levels the map: skyline of the photo, or given '
              'by initial_pitch and initial_roll', choices=('skyline', 'given')),
    Parameter('initial_pitch', 0.0, 'pitch of the camera that took the photo in radians, positive '
              'is nose down', range=(-1.5, 1.5)),
    Parameter('initial_roll', 0.0, 'roll of that camera in radians, positive is right side down',
              range=(-3.2, 3.2)),
    _SCENE_SCALE,
    Parameter('seed', -1, 'draws everything random, taken at start and by ~/reset; -1 draws the '
              'seed too', range=(-1, 2**31 - 1), live=True),
    Parameter('device', 'auto', 'torch device: auto, cpu, cuda, cuda:1 ...'),
    Parameter('backend', 'warp', 'renderer', choices=tuple(list_backends())),
    Parameter('max_step_distance', 0.25, 'scene units that one render may bridge; further poses '
              'are reached by sub-steps', range=(0.01, 10.0)),
    Parameter('max_step_angle', 0.0873, 'radians that one render may bridge',
              range=(0.001, 1.0)),
    Parameter('max_jump', 100.0, 'scene units between two poses; a command further away is '
              'refused, for nothing that is seen here is seen there', range=(0.01, 10000.0),
              live=True),
    Parameter('command_mode', 'every', 'every: fly each commanded pose once, in order; latest: '
              'follow a fast stream by its newest pose', choices=('every', 'latest')),
    Parameter('rate', 10.0, 'poses of a command_trajectory flown per second, at most; '
              'diagnostics warn where steps take longer', range=(0.01, 1000.0), live=True),
    Parameter('interpolate', 0, 'frames published between two that are flown, their stamps '
              'spread evenly', range=(0, 16), live=True),
    Parameter('path_length', 500, 'latest poses kept in the path', range=(1, 10000), live=True),
    Parameter('jpeg_quality', 95, 'quality of camera/image_raw/compressed', range=(1, 100),
              live=True),
    Parameter('publish_clock', False, 'publish /clock, on which every frame takes 1 / rate '
              'seconds; other nodes follow it with use_sim_time'),
    Parameter('state_file', '', 'file that keeps the flight, to go on from it after a crash; '
              'empty keeps none'),
    *_FRAMES,
)

PILOT_PARAMETERS = (
    Parameter('mode', 'safe', 'safe keeps roll level and steers clear of what is ahead; official '
              'flies as the release', choices=('safe', 'official'), live=True),
    Parameter('speed', 0.2, 'scene units per step; negative flies backward', range=(-1.0, 1.0),
              live=True),
    Parameter('horizon', -1.0, "image row wanted for the horizon, 0 top to 1 bottom; below 0: the "
              "first frame's own in safe mode, 0.3 in official mode", range=(-1.0, 1.0)),
    Parameter('meander_period', [100.0, 100.0], 'steps of a swing of the look target, along '
              'image x and y', live=True),
    Parameter('meander_magnitude', [0.0, 0.0], 'size of that swing in shares of the image, along '
              'x and y', live=True),
    Parameter('steering_decay', 0.9, 'factor on the steering per step; 1 keeps it until steered '
              'anew', range=(0.0, 1.0), live=True),
    Parameter('clearance', 0.75, 'free radius around the way ahead in scene units (safe mode)',
              range=(0.0, 10.0), live=True),
    Parameter('height', [0.8, 2.0], 'least and greatest height over the highest terrain ahead in '
              'scene units (safe mode)', live=True),
    Parameter('lookahead', 10.0, 'distance looked ahead in scene units (safe mode)',
              range=(1.0, 100.0), live=True),
)
"""Settings of an ``Autopilot``, by the names of its arguments."""

AUTOPILOT_PARAMETERS = (
    _SCENE_SCALE,
    *PILOT_PARAMETERS,
    Parameter('plan_steps', 20, 'poses of the planned trajectory, which is published while '
              'someone listens', range=(1, 1000), live=True),
    Parameter('answer_timeout', 1.0, 'seconds after which a command without an answer is sent '
              'again', range=(0.1, 600.0), live=True),
)
