"""The autopilot node: looks at each frame and commands the next pose, in lock-step."""

from __future__ import annotations

from collections.abc import Sequence
import sys
import time
from typing import Any

from geometry_msgs.msg import PoseStamped, TwistStamped
from nav_msgs.msg import Path
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header
import torch
from torch import Tensor

from infinite_nature_ros.autopilot import Autopilot
from infinite_nature_ros.camera import default_intrinsics, MIN_DISPARITY
from infinite_nature_ros.frame import Frame
from infinite_nature_ros.nodes.frame_sets import subscribe_frames
from infinite_nature_ros.nodes.messages import (
    disparity_from_message,
    header_at,
    intrinsics_from_message,
    pose_from_message,
    pose_message,
    same_pose,
)
from infinite_nature_ros.nodes.parameters import (
    AUTOPILOT_PARAMETERS,
    declare_parameters,
    PILOT_PARAMETERS,
    values_of,
)
from infinite_nature_ros.nodes.qos import COMMAND_QOS, LATCHED_QOS, overridable
from infinite_nature_ros.nodes.running import ConfigureGuard, run

_TOPICS = {'camera/disparity/image': Image, 'camera/camera_info': CameraInfo, 'pose': PoseStamped}
_TICK_SECONDS = 0.1
_SETTLE_SECONDS = 0.5

# So often a command is sent again before the log says that no frame comes.
_PATIENCE = 3

# Distance in scene units, far below a step, within which a frame's pose is the commanded one.
_SAME_PLACE = 1e-3

# The sky is at the bottom of the contract; the way through metres rounds it.
_SKY_DISPARITY = 1.001 * MIN_DISPARITY


class AutopilotNode(LifecycleNode):
    """Commands a pose, waits for the frame that was taken there, commands the next.

    What is lost while nodes find each other, or when one is restarted, is made good by time: a
    command without an answer is sent again, stamp and all (the generator flies a stamp once);
    and after frames that answer nothing (the first one, a reset, another pilot's) the autopilot
    waits until no more come and goes on from the last one.
    """

    def __init__(self, **options: Any) -> None:
        """Declare the parameters.

        Args:
            options: further arguments of ``LifecycleNode``, as ``parameter_overrides``.

        Raises:
            ValueError: if a parameter that was given can't be used.
        """
        super().__init__('autopilot', namespace='infinite_nature', **options)
        declare_parameters(self, AUTOPILOT_PARAMETERS)
        self._active = False
        self._pilot: Autopilot | None = None
        self._unanswered: list[PoseStamped] = []
        self._repeats = 0
        self._new_start: dict[str, Any] | None = None
        self._quiet_since = time.monotonic()
        self.add_on_set_parameters_callback(self._check)
        self.add_post_set_parameters_callback(self._apply)

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Offer topics and listen to the camera."""
        with ConfigureGuard(self) as guard:
            self._scene_scale = self.get_parameter('scene_scale').value
            self._new_pilot(default_intrinsics(1, 1))  # refuses bad settings now, not in flight
            self._commands = self.create_lifecycle_publisher(
                PoseStamped, 'command_pose', **overridable(COMMAND_QOS))
            self._trajectory = self.create_lifecycle_publisher(
                Path, 'trajectory', **overridable(LATCHED_QOS))
            self._subscriptions_made = [
                self.create_subscription(TwistStamped, 'command_velocity', self._take_velocity,
                                         **overridable(1)),
                *subscribe_frames(self, _TOPICS, self._take_frame)]
            # Patience is measured in real time, also where the clock is simulated or stands.
            self._timer = self.create_timer(_TICK_SECONDS, self._tick,
                                            clock=Clock(clock_type=ClockType.STEADY_TIME))
        return guard.result

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start to command."""
        self._active = True
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Command no more; the frames are still watched."""
        self._active = False
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let go of the topics, forget the flight."""
        for subscription in self._subscriptions_made:
            self.destroy_subscription(subscription)
        for publisher in (self._commands, self._trajectory):
            self.destroy_lifecycle_publisher(publisher)
        self.destroy_timer(self._timer)
        self._pilot, self._unanswered, self._new_start = None, [], None
        return TransitionCallbackReturn.SUCCESS

    def _take_frame(self, messages: dict[str, Any]) -> None:
        """Command the next pose if this frame answers the last command."""
        self._quiet_since = time.monotonic()
        if self._repeats >= _PATIENCE:
            self.get_logger().info('frames come again, the flight goes on')
        self._repeats = 0
        pose = messages['pose'].pose
        answered = [number for number, command in enumerate(self._unanswered)
                    if same_pose(pose, command.pose, _SAME_PLACE * self._scene_scale)]
        if not answered or not self._active:
            self._new_start = messages
            return
        self._new_start = None
        self._unanswered = self._unanswered[answered[-1] + 1:]
        if not self._unanswered:
            self._command_next(messages)

    def _tick(self) -> None:
        """Start, start over or repeat, if nothing has come for a while."""
        patience = (self.get_parameter('answer_timeout').value if self._unanswered
                    else _SETTLE_SECONDS)
        if not self._active or time.monotonic() - self._quiet_since < patience:
            return
        self._quiet_since = time.monotonic()
        if self._new_start is not None:
            messages, self._new_start = self._new_start, None
            self._pilot = None
            self._command_next(messages)
        elif self._unanswered:
            self._repeat_command()

    def _repeat_command(self) -> None:
        """Send the last command again; say it once if that doesn't help."""
        self._commands.publish(self._unanswered[-1])
        self._repeats += 1
        if self._repeats == _PATIENCE:
            self.get_logger().warning(
                f'no frame has come after the command was sent {_PATIENCE} times more: is the '
                'generator running? The command is sent on until one comes')

    def _command_next(self, messages: dict[str, Any]) -> None:
        """Command the pose that the autopilot chooses after seeing a frame."""
        try:
            frame = _frame_of(messages, self._scene_scale)
            if self._pilot is None:
                self._pilot = self._new_pilot(frame.intrinsics)
            if self._trajectory.get_subscription_count():
                self._trajectory.publish(self._plan(frame, messages['pose'].header))
            pose = self._pilot.next_pose(frame)
        except ValueError as error:
            self.get_logger().warning(f'no command for this frame: {error}')
            return
        header = header_at(self.get_clock().now().to_msg(), messages['pose'].header.frame_id)
        command = PoseStamped(header=header, pose=pose_message(pose, self._scene_scale))
        # One that a reset has dropped is never answered: only the last one may still be.
        self._unanswered = [*self._unanswered[-1:], command]
        self._commands.publish(command)

    def _new_pilot(self, intrinsics: Tensor, **changes: Any) -> Autopilot:
        """Autopilot as the parameters say, but for changes to them.

        Raises:
            ValueError: if a parameter can't be used.
        """
        settings = values_of(self, PILOT_PARAMETERS) | changes
        if settings['horizon'] < 0:
            settings['horizon'] = None
        return Autopilot(intrinsics, **settings)

    def _check(self, changes: list[Parameter]) -> SetParametersResult:
        """Refuse settings that no autopilot can fly with."""
        settings = _pilot_settings(changes)
        try:
            if settings:
                self._new_pilot(default_intrinsics(1, 1), **settings)
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _apply(self, changes: list[Parameter]) -> None:
        """Fly on with new settings; what was seen is kept where they leave room for it."""
        if self._pilot is None or not _pilot_settings(changes):
            return
        seen = self._pilot.state_dict()
        self._pilot = self._new_pilot(self._pilot.intrinsics)
        try:
            self._pilot.load_state_dict(seen)
        except ValueError:
            self.get_logger().info('the new settings need another map: it is drawn anew')

    def _plan(self, frame: Frame, header: Header) -> Path:
        """Poses to come if nothing new comes into view."""
        poses = self._pilot.plan(frame, self.get_parameter('plan_steps').value)[0]
        return Path(header=header, poses=[
            PoseStamped(header=header, pose=pose_message(pose[None], self._scene_scale))
            for pose in poses])

    def _take_velocity(self, command: TwistStamped) -> None:
        """Steer to where a second of this turn would lead: yaw left, pitch down (REP 103)."""
        if self._pilot is not None:
            turn = torch.tensor([[-command.twist.angular.z, command.twist.angular.y]])
            try:
                self._pilot.steer(turn * self._pilot.intrinsics[:, :2])
            except ValueError as error:
                self.get_logger().warning(f'command_velocity refused: {error}')


def _pilot_settings(changes: list[Parameter]) -> dict[str, Any]:
    """Choose the changes that are the autopilot's, by name."""
    names = {parameter.name for parameter in PILOT_PARAMETERS}
    return {change.name: change.value for change in changes if change.name in names}


def _frame_of(messages: dict[str, Any], scene_scale: float) -> Frame:
    """Frame in scene units of the messages that an autopilot needs; it has no picture.

    Raises:
        ValueError: if a message can't be used.
    """
    seen = messages['camera/disparity/image']
    disparity = disparity_from_message(seen, seen.height, seen.width, scene_scale)
    return Frame(
        image=torch.zeros(1, 3, *disparity.shape[2:]), disparity=disparity,
        known=torch.ones_like(disparity), sky=(disparity < _SKY_DISPARITY).float(),
        pose=pose_from_message(messages['pose'].pose, scene_scale).float(),
        intrinsics=intrinsics_from_message(messages['camera/camera_info']))


def main(args: Sequence[str] | None = None) -> int:
    """Run the autopilot node; returns the exit code."""
    # Its tensors are small: more threads would only spin on the cores that the generator needs.
    torch.set_num_threads(1)
    return run(AutopilotNode, AUTOPILOT_PARAMETERS, args)


if __name__ == '__main__':
    sys.exit(main())
