"""The generator node: flies where it's commanded and publishes what the camera sees there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
import sys
import time
from typing import Any

from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Path as PathMessage
import numpy as np
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.timer import Timer
from sensor_msgs.msg import CameraInfo, Image
from std_srvs.srv import SetBool, Trigger
from torch import Tensor

from infinite_nature_ros.camera import level_pose, position
from infinite_nature_ros.flight import Flight
from infinite_nature_ros.frame import Frame
from infinite_nature_ros.interpolation import interpolate_frames
from infinite_nature_ros.nodes.command_queue import CommandQueue
from infinite_nature_ros.nodes.flight_store import FlightStore, SavedFlight
from infinite_nature_ros.nodes.frame_publisher import FramePublisher
from infinite_nature_ros.nodes.messages import (
    disparity_from_message,
    intrinsics_from_message,
    pose_from_message,
    rgb_array,
    stamp_of,
)
from infinite_nature_ros.nodes.monitor import FlightMonitor
from infinite_nature_ros.nodes.parameters import (
    declare_parameters,
    GENERATOR_PARAMETERS,
)
from infinite_nature_ros.nodes.qos import COMMAND_QOS, overridable
from infinite_nature_ros.nodes.running import ConfigureGuard, run
from infinite_nature_ros.nodes.transforms import frame_ids
from infinite_nature_ros.nodes.transport import warn_if_too_large
from infinite_nature_ros.photos import crop_intrinsics, find_photo
from infinite_nature_ros.refining import create_model

_SEEDS = {'seed_image': Image, 'seed_disparity': Image, 'seed_camera_info': CameraInfo}

# What makes a flight what it is: only one with the same goes on from a state_file.
_KIND = ('image', 'model', 'height', 'width', 'disparity', 'fov', 'sky', 'initial_attitude',
         'initial_pitch', 'initial_roll', 'scene_scale')


class GeneratorNode(LifecycleNode):
    """Flies one :class:`Flight` through the poses it's commanded.

    All callbacks run one after the other in one thread, and a step is one of them: what comes in
    meanwhile waits in the middleware. So nothing is flown twice, nothing needs a lock, and the
    services answer when the work is done.
    """

    def __init__(self, **options: Any) -> None:
        """Declare the parameters.

        Args:
            options: further arguments of ``LifecycleNode``, as ``parameter_overrides``.

        Raises:
            ValueError: if a parameter that was given can't be used.
        """
        super().__init__('generator', namespace='infinite_nature', **options)
        declare_parameters(self, GENERATOR_PARAMETERS)
        self._active = False
        self._paused = False
        self._seeds: dict[str, Any] = {}
        self._store: FlightStore | None = None
        self._trajectory_timer: Timer | None = None
        self.add_post_set_parameters_callback(self._apply)

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load photo and model, or go on with the flight that was saved; offer topics."""
        with ConfigureGuard(self) as guard:
            self._refiner = create_model(self._value('model'))
            self._flight = self._take_off(find_photo(self._value('image')))
            saved = self._find_saved()
            warn_if_too_large(self.get_logger(), self._value('height'), self._value('width'))
            self._frames = FramePublisher(self)
            self._monitor = FlightMonitor(self, str(self._flight.device))
            self._monitor.start(self._flight.start)
            self._create_inputs()
            self._pose = self._flight.frame.pose
            if saved is not None:
                self._frames.resume(saved.stamp, saved.path)
                self._commands.resume(saved.command)
                self._pose = pose_from_message(saved.path[-1].pose, self._value('scene_scale'))
        return guard.result

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Publish what the camera sees now and fly what waits."""
        result = super().on_activate(state)
        self._active = True
        self._monitor.hold('paused' if self._paused else '')
        self._show(self._present_frame())
        self._more.trigger()
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop where the drone is; commands wait."""
        self._active = False
        self._monitor.hold('inactive')
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let go of the flight, topics and services."""
        self._stop_trajectory()
        self._frames.destroy()
        self._monitor.destroy()
        self.destroy_guard_condition(self._more)
        for subscription in self._subscriptions_made:
            self.destroy_subscription(subscription)
        for service in self._services_made:
            self.destroy_service(service)
        del self._flight
        return TransitionCallbackReturn.SUCCESS

    def _value(self, name: str) -> bool | int | float | str:
        """Value of a parameter."""
        return self.get_parameter(name).value

    def _random_seed(self) -> int | None:
        """Seed to start with, ``None`` to draw it."""
        return None if self._value('seed') < 0 else self._value('seed')

    def _apply(self, changes: list[Parameter]) -> None:
        """Let a trajectory go on at the new rate; what else can be set is read where it's used."""
        for change in changes:
            if change.name == 'rate' and self._trajectory_timer is not None:
                self._trajectory_timer.timer_period_ns = round(1e9 / change.value)
                self._trajectory_timer.reset()  # else the old period is waited for once more

    def _find_saved(self) -> SavedFlight | None:
        """Go on with the flight in ``state_file``; ``None`` if there is none.

        Raises:
            ValueError: if another flight is in the file.
            OSError: if the file can't be read, or its folder isn't there.
        """
        self._store = None
        if not self._value('state_file'):
            return None
        path = Path(self._value('state_file')).expanduser()
        if not path.parent.is_dir():
            raise FileNotFoundError(f'the folder of state_file {path} does not exist; make it')
        self._store = FlightStore(path, {name: self._value(name) for name in _KIND})
        saved = self._store.load()
        if saved is not None:
            self._flight.load_state_dict(saved.snapshot)
            self.get_logger().info(f'going on from {path}, where {len(saved.path)} poses of the '
                                   'path were flown; ~/reset starts over')
        return saved

    def _take_off(self, photo: Path | np.ndarray, disparity: Tensor | None = None,
                  intrinsics: Tensor | None = None) -> Flight:
        """Flight into a photo, as the parameters say.

        Args:
            photo: a file, or pixels.
            disparity: ``[1, 1, H, W]`` of the photo; ``None`` has it estimated.
            intrinsics: ``[1, 4]`` of the frames; ``None`` takes the parameter ``fov``.
        """
        pose = None
        if self._value('initial_attitude') == 'given':
            pose = level_pose(self._value('initial_pitch'), self._value('initial_roll'))
        return Flight.from_photo(
            photo, model=self._refiner, size=(self._value('height'), self._value('width')),
            disparity=self._value('disparity') if disparity is None else disparity,
            fov=self._value('fov') or None, intrinsics=intrinsics, sky=self._value('sky'),
            pose=pose, device=self._value('device'), seed=self._random_seed(),
            backend=self._value('backend'),
            max_step=(self._value('max_step_distance'), self._value('max_step_angle')))

    def _create_inputs(self) -> None:
        """Subscribe to commands and seeds, offer services."""
        mode = self._value('command_mode')
        self._commands = CommandQueue(mode, frame_ids(self)['map'], self._value('scene_scale'))
        self._more = self.create_guard_condition(self._fly_next)
        # A queue of one holds the newest pose of a stream that is faster than the flight.
        command_qos = COMMAND_QOS if mode == 'every' else 1
        self._subscriptions_made = [
            self.create_subscription(kind, topic, self._refusing(take), **overridable(qos))
            for kind, topic, take, qos in (
                (PoseStamped, 'command_pose', self._take_command, command_qos),
                (PathMessage, 'command_trajectory', self._take_trajectory, 1),
                *((kind, topic, partial(self._take_seed, topic), 5)
                  for topic, kind in _SEEDS.items()))]
        self._services_made = [
            self.create_service(Trigger, '~/reset', self._reset),
            self.create_service(Trigger, '~/step', self._step),
            self.create_service(SetBool, '~/pause', self._pause)]

    def _refusing(self, take: Callable) -> Callable:
        """Wrap a callback so that it logs what is wrong with a message and lives on."""
        def callback(message: Any) -> None:
            try:
                take(message)
            except ValueError as error:
                self.get_logger().warning(f'{type(message).__name__} refused: {error}')
        return callback

    def _take_command(self, command: PoseStamped) -> None:
        if self._commands.add(command):
            self._more.trigger()

    def _take_trajectory(self, trajectory: PathMessage) -> None:
        self._commands.start_trajectory(trajectory)
        self._stop_trajectory()
        self._trajectory_timer = self.create_timer(1 / self._value('rate'), self._feed_trajectory)

    def _feed_trajectory(self) -> None:
        """Fly the trajectory's next pose."""
        if not self._paused:
            self._commands.feed_trajectory()
            self._fly_next()
        if not self._commands.trajectory_left:
            self._stop_trajectory()

    def _stop_trajectory(self) -> None:
        if self._trajectory_timer is not None:
            self.destroy_timer(self._trajectory_timer)
            self._trajectory_timer = None

    def _take_seed(self, topic: str, message: Image | CameraInfo) -> None:
        """Start over from the seed image, anew with all that comes with its stamp."""
        self._seeds[topic] = message
        if self._seed_message('seed_image', stamp_of(message)) is not None:
            self._start_over(stamp_of(message))

    def _seed_message(self, topic: str, stamp: tuple[int, int]) -> Any | None:
        """Message of a stamp, if it was the topic's last."""
        message = self._seeds.get(topic)
        return message if message is not None and stamp_of(message) == stamp else None

    def _start_over(self, stamp: tuple[int, int]) -> None:
        """Start over from the seed image of a stamp.

        Raises:
            ValueError: if the image or what belongs to it can't be used; the flight goes on.
        """
        size = self._value('height'), self._value('width')
        image, disparity, info = (self._seed_message(topic, stamp) for topic in _SEEDS)
        photo = rgb_array(image)
        if disparity is not None:
            disparity = disparity_from_message(disparity, *size, self._value('scene_scale'))
        intrinsics = None
        if info is not None:
            if (info.height, info.width) != photo.shape[:2]:
                raise ValueError(f'seed_camera_info is of {info.width} x {info.height} pixels, '
                                 f'the seed image of {photo.shape[1]} x {photo.shape[0]}; '
                                 'give the calibration of this image')
            intrinsics = crop_intrinsics(intrinsics_from_message(info), photo.shape[:2], size)
        self._flight = self._take_off(photo, disparity, intrinsics)
        self._start()

    def _start(self) -> None:
        """Show the first frame of a new flight."""
        self._commands.clear()
        self._stop_trajectory()
        self._frames.forget_path()
        self._monitor.start(self._flight.start)
        self._pose = self._flight.frame.pose
        if self._active:
            self._show(self._present_frame())

    def _present_frame(self) -> Frame:
        """Give what is seen now, from a pose that is as precise as it was commanded.

        Recorded and sent again, such a pose shows the same.
        """
        return self._flight.frame.replace(pose=self._pose)

    def _show(self, *frames: Frame) -> None:
        """Publish what was seen; it's saved before anybody sees it, so nothing is lost."""
        self._frames.take(frames)
        if self._store is not None:
            self._save(self._store)
        self._frames.publish()

    def _save(self, store: FlightStore) -> None:
        """Keep the flight; a full disk doesn't end it."""
        try:
            store.save(SavedFlight(self._flight.state_dict(), self._frames.stamp.nanoseconds,
                                   self._frames.path, self._commands.popped))
        except OSError as error:
            self.get_logger().error(f'the flight is not saved: {error}',
                                    throttle_duration_sec=10.0)

    def _fly_next(self) -> None:
        """Fly the next pose that waits, if any."""
        if self._active and not self._paused:
            try:
                self._fly_one()
            except ValueError as error:
                self.get_logger().warning(f'command refused: {error}')
            if self._commands:
                self._more.trigger()

    def _fly_one(self) -> bool:
        """Fly the next pose and publish what is seen there; ``False`` if none waits.

        Raises:
            ValueError: if the pose is too far away.
        """
        pose = self._commands.pop()
        if pose is None:
            return False
        jump = (position(pose) - position(self._flight.frame.pose.cpu())).norm().item()
        if jump > self._value('max_jump'):
            scale = self._value('scene_scale')
            raise ValueError(f'the pose is {jump * scale:.4g} m from the camera; send poses at '
                             f'most {self._value("max_jump") * scale:.4g} m apart (max_jump)')
        before = self._flight.frame
        frame = self._flight.step(pose)
        stepped = time.perf_counter()
        between = interpolate_frames(before, frame, self._value('interpolate'),
                                     self._value('backend'))
        interpolated = time.perf_counter()
        self._pose = pose
        self._show(*between, self._present_frame())
        seconds = {**self._flight.timings, 'publish': time.perf_counter() - interpolated}
        if between:
            seconds['interpolate'] = interpolated - stepped
        self._monitor.note(frame, seconds, self._flight.sub_steps)
        return True

    def _reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Start over from the first frame, with the seed that the parameter says now."""
        self._flight.reset(seed=self._random_seed())
        self._start()
        response.success, response.message = True, f'started over with seed {self._value("seed")}'
        return response

    def _step(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Fly one of the poses that wait, while paused."""
        if not self._active or not self._paused:
            response.message = 'the flight is not paused; call ~/pause with true first'
            return response
        self._commands.feed_trajectory()
        try:
            response.success = self._fly_one()
        except ValueError as error:
            response.message = str(error)
            return response
        response.message = (f'{len(self._commands) + self._commands.trajectory_left} poses wait'
                            if response.success else 'no pose waits; send one to command_pose')
        return response

    def _pause(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        """Stop flying, or go on with the poses that waited."""
        self._paused = request.data
        self._monitor.hold('paused' if self._paused else '')
        self._more.trigger()
        response.success, response.message = True, 'paused' if request.data else 'flying'
        return response


def main(args: Sequence[str] | None = None) -> int:
    """Run the generator node; returns the exit code."""
    return run(GeneratorNode, GENERATOR_PARAMETERS, args)


if __name__ == '__main__':
    sys.exit(main())
