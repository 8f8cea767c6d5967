"""The replay node: flies recorded poses in the autopilot's place, in lock-step."""

from __future__ import annotations

from typing import Any

from geometry_msgs.msg import Pose, PoseStamped
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import QoSProfile
import torch
from torch import Tensor

from infinite_nature_ros.nodes.frame_sets import subscribe_frames
from infinite_nature_ros.nodes.messages import pose_from_message, pose_message, same_pose

_RESEND_SECONDS = 1.0

# Metres within which a frame's pose is the commanded one.
_SAME_PLACE = 1e-6


class ReplayNode(Node):
    """Commands pose after pose, each when the frame of the last one has come.

    A pose without an answer is sent again, stamp and all: the generator flies a stamp once.

    Attributes:
        commands: poses to fly, ``camera_link`` in ``map``.
    """

    def __init__(self, poses: Tensor, start: Pose) -> None:
        """Send the first pose.

        Args:
            poses: float64 ``[N, 3, 4]`` world to camera, metres.
            start: where the camera is now; a first pose that is just there isn't flown.
        """
        super().__init__('replay', namespace='infinite_nature')
        self.commands = [pose_message(pose[None], 1.0) for pose in poses]
        if torch.allclose(pose_from_message(start, 1.0), poses[:1], rtol=0, atol=_SAME_PLACE):
            self.commands = self.commands[1:]
        self._waiting = iter(self.commands)
        self._sent: PoseStamped | None = None
        self._publisher = self.create_publisher(PoseStamped, 'command_pose', QoSProfile(depth=1))
        subscribe_frames(self, {'pose': PoseStamped}, self._take_frame)
        self._timer = self.create_timer(_RESEND_SECONDS, self._send,
                                        clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._next()

    def _take_frame(self, messages: dict[str, Any]) -> None:
        """Send the next pose if this frame answers the last one."""
        if self._sent and same_pose(messages['pose'].pose, self._sent.pose, _SAME_PLACE):
            self._next()

    def _next(self) -> None:
        """Go on to the next pose, if one is left."""
        pose = next(self._waiting, None)
        self._sent = None
        if pose is not None:
            self._sent = PoseStamped(pose=pose)
            self._sent.header.frame_id = 'map'
            self._sent.header.stamp = self.get_clock().now().to_msg()
            self._send()

    def _send(self) -> None:
        """Send the pose that waits for an answer, if any."""
        if self._sent is not None:
            self._timer.reset()
            self._publisher.publish(self._sent)
