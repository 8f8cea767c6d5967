"""The generator node: flies where it's commanded and publishes what the camera sees there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
import sys
import time
from typing import Any

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Path as PathMessage
import numpy as np
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import QoSProfile
from rclpy.timer import Timer
from sensor_msgs.msg import Image
from std_srvs.srv import SetBool, Trigger
from torch import Tensor

from infinite_nature_ros.camera import level_pose, position
from infinite_nature_ros.flight import Flight
from infinite_nature_ros.nodes.command_queue import CommandQueue
from infinite_nature_ros.nodes.frame_publisher import FramePublisher
from infinite_nature_ros.nodes.messages import (
    disparity_from_message,
    header_at,
    rgb_array,
    stamp_of,
)
from infinite_nature_ros.nodes.parameters import (
    declare_parameters,
    GENERATOR_PARAMETERS,
)
from infinite_nature_ros.nodes.running import COMMAND_QOS, ConfigureGuard, run
from infinite_nature_ros.photos import find_photo
from infinite_nature_ros.refining import create_model


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
        self._seed_image: Image | None = None
        self._seed_disparity: Image | None = None
        self._trajectory_timer: Timer | None = None

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load photo and model, offer topics and services."""
        with ConfigureGuard(self) as guard:
            self._refiner = create_model(self._value('model'))
            self._flight = self._take_off(find_photo(self._value('image')))
            self._frames = FramePublisher(self)
            self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
            self._create_inputs()
        return guard.result

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Publish what the camera sees now and fly what waits."""
        result = super().on_activate(state)
        self._active = True
        self._frames.publish(self._flight.frame)
        self._more.trigger()
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop where the drone is; commands wait."""
        self._active = False
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let go of the flight, topics and services."""
        self._stop_trajectory()
        self._frames.destroy()
        self.destroy_publisher(self._diagnostics)
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

    def _seed(self) -> int | None:
        """Seed to start with, ``None`` to draw it."""
        return None if self._value('seed') < 0 else self._value('seed')

    def _take_off(self, photo: Path | np.ndarray, disparity: Tensor | None = None) -> Flight:
        """Flight into a photo, as the parameters say.

        Args:
            photo: a file, or pixels.
            disparity: ``[1, 1, H, W]`` of the photo; ``None`` has it estimated.
        """
        pose = None
        if self._value('initial_attitude') == 'given':
            pose = level_pose(self._value('initial_pitch'), self._value('initial_roll'))
        return Flight.from_photo(
            photo, model=self._refiner, size=(self._value('height'), self._value('width')),
            disparity=self._value('disparity') if disparity is None else disparity,
            fov=self._value('fov') or None, sky=self._value('sky'), pose=pose,
            device=self._value('device'), seed=self._seed(), backend=self._value('backend'),
            max_step=(self._value('max_step_distance'), self._value('max_step_angle')))

    def _create_inputs(self) -> None:
        """Subscribe to commands and seed images, offer services."""
        mode = self._value('command_mode')
        self._commands = CommandQueue(mode, self._value('map_frame_id'),
                                      self._value('scene_scale'))
        self._more = self.create_guard_condition(self._fly_next)
        # A queue of one holds the newest pose of a stream that is faster than the flight.
        command_qos = COMMAND_QOS if mode == 'every' else QoSProfile(depth=1)
        self._subscriptions_made = [
            self.create_subscription(kind, topic, self._refusing(take), qos)
            for kind, topic, take, qos in (
                (PoseStamped, 'command_pose', self._take_command, command_qos),
                (PathMessage, 'command_trajectory', self._take_trajectory, QoSProfile(depth=1)),
                (Image, 'seed_image', self._take_seed_image, QoSProfile(depth=5)),
                (Image, 'seed_disparity', self._take_seed_disparity, QoSProfile(depth=5)))]
        self._services_made = [
            self.create_service(Trigger, '~/reset', self._reset),
            self.create_service(Trigger, '~/step', self._step),
            self.create_service(SetBool, '~/pause', self._pause)]

    def _refusing(self, take: Callable) -> Callable:
        """Wrap a callback so that it logs what is wrong with a message and lives on."""
        def callback(message: PoseStamped | PathMessage | Image) -> None:
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

    def _take_seed_image(self, message: Image) -> None:
        self._seed_image = message
        self._start_over()

    def _take_seed_disparity(self, message: Image) -> None:
        self._seed_disparity = message
        if self._seed_image is not None and stamp_of(self._seed_image) == stamp_of(message):
            self._start_over()

    def _start_over(self) -> None:
        """Start over from the seed image, with the disparity of its stamp if there is one."""
        photo, disparity = rgb_array(self._seed_image), None
        given = self._seed_disparity
        if given is not None and stamp_of(given) == stamp_of(self._seed_image):
            disparity = disparity_from_message(given, self._value('height'), self._value('width'),
                                               self._value('scene_scale'))
        self._flight = self._take_off(photo, disparity)
        self._start()

    def _start(self) -> None:
        """Publish the first frame of a new flight."""
        self._commands.clear()
        self._stop_trajectory()
        if self._active:
            self._frames.start(self._flight.frame)

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
        frame = self._flight.step(pose)
        stepped = time.perf_counter()
        stamp = self._frames.publish(frame)
        self._publish_diagnostics(
            stamp, {**self._flight.timings, 'publish': time.perf_counter() - stepped})
        return True

    def _publish_diagnostics(self, stamp: Time, seconds: dict[str, float]) -> None:
        """Publish how long the stages of a step took; the values are milliseconds."""
        status = DiagnosticStatus(
            level=DiagnosticStatus.OK, name=f'{self.get_name()}: flight', message='flying',
            hardware_id=str(self._flight.device),
            values=[KeyValue(key=f'{stage} (ms)', value=f'{1000 * duration:.3f}')
                    for stage, duration in seconds.items()])
        status.values.append(KeyValue(key='sub-steps', value=str(self._flight.sub_steps)))
        self._diagnostics.publish(DiagnosticArray(header=header_at(stamp, ''), status=[status]))

    def _reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Start over from the first frame, with the seed that the parameter says now."""
        self._flight.reset(seed=self._seed())
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
        self._more.trigger()
        response.success, response.message = True, 'paused' if request.data else 'flying'
        return response


def main(args: Sequence[str] | None = None) -> int:
    """Run the generator node; returns the exit code."""
    return run(GeneratorNode, GENERATOR_PARAMETERS, args)


if __name__ == '__main__':
    sys.exit(main())
