"""Publishes a frame: images, camera infos, poses and transforms, all with one stamp."""

from __future__ import annotations

from collections import deque
from typing import Any

from builtin_interfaces.msg import Time
from geometry_msgs.msg import (
    Pose,
    PoseStamped,
    PoseWithCovariance,
    Twist,
    TwistWithCovariance,
    Vector3,
)
from nav_msgs.msg import Odometry, Path
import numpy as np
from rclpy.lifecycle import LifecycleNode
from rclpy.time import Time as ClockTime
from sensor_msgs.msg import CameraInfo, Image
from torch import Tensor
from transforms3d.quaternions import quat2axangle

from infinite_nature_ros.camera import relative_pose
from infinite_nature_ros.frame import Frame
from infinite_nature_ros.nodes.messages import (
    camera_info_message,
    header_at,
    image_message,
    pose_message,
    rgb_bytes,
)
from infinite_nature_ros.nodes.running import FRAME_QOS
from infinite_nature_ros.nodes.transforms import TransformBroadcaster

TOPICS = {
    'camera/image_raw': Image,
    'camera/disparity/image': Image,
    'camera/depth/image_rect': Image,
    'camera/known/image': Image,
    'camera/camera_info': CameraInfo,
    'camera/depth/camera_info': CameraInfo,
    'odom': Odometry,
    'path': Path,
    'pose': PoseStamped,
}


class FramePublisher:
    """Topics of the camera and of the drone that carries it."""

    def __init__(self, node: LifecycleNode) -> None:
        """Create the publishers; frame ids and scale are the node's parameters."""
        self._node = node
        self._map_frame_id = node.get_parameter('map_frame_id').value
        self._scene_scale = node.get_parameter('scene_scale').value
        self._stamp = ClockTime(clock_type=node.get_clock().clock_type)
        self._last_pose: Tensor | None = None
        self._path: deque[PoseStamped] = deque()
        self._publishers = {topic: node.create_lifecycle_publisher(kind, topic, FRAME_QOS)
                            for topic, kind in TOPICS.items()}
        self._transforms = TransformBroadcaster(node)
        self._transforms.send_static()

    def destroy(self) -> None:
        """Take the topics away."""
        for publisher in self._publishers.values():
            self._node.destroy_lifecycle_publisher(publisher)
        self._transforms.destroy()

    def start(self, frame: Frame) -> Time:
        """Publish the first frame of a flight: the path starts here, the drone stands still."""
        self._last_pose = None
        self._path.clear()
        return self.publish(frame)

    def publish(self, frame: Frame) -> Time:
        """Publish a frame of batch size 1; returns its stamp."""
        before, self._stamp = self._stamp, self._next_stamp()
        seconds = (self._stamp - before).nanoseconds * 1e-9
        stamp = self._stamp.to_msg()
        pose = pose_message(frame.pose, self._scene_scale)
        self._transforms.send(pose, stamp)
        messages = {**self._camera_messages(frame, stamp),
                    **self._motion_messages(frame, pose, stamp, seconds)}
        for topic, message in messages.items():
            self._publishers[topic].publish(message)
        self._last_pose = frame.pose
        return stamp

    def _next_stamp(self) -> ClockTime:
        """Now, or just after the last stamp where the clock stands still or went back."""
        now = self._node.get_clock().now()
        after = ClockTime(nanoseconds=self._stamp.nanoseconds + 1, clock_type=now.clock_type)
        return max(now, after, key=lambda time: time.nanoseconds)

    def _camera_messages(self, frame: Frame, stamp: Time) -> dict[str, Any]:
        """Images and their calibration, by topic; metres."""
        header = header_at(stamp, self._node.get_parameter('optical_frame_id').value)
        disparity = frame.disparity[0, 0].double().cpu().numpy() / self._scene_scale
        depth = frame.depth[0, 0].double().cpu().numpy() * self._scene_scale
        known = np.where(frame.known[0, 0].cpu().numpy() > 0.5, 255, 0)
        info = camera_info_message(frame.intrinsics, *frame.image.shape[2:], header)
        return {
            'camera/image_raw': image_message(rgb_bytes(frame.image), 'rgb8', header),
            'camera/disparity/image': image_message(disparity, '32FC1', header),
            'camera/depth/image_rect': image_message(depth, '32FC1', header),
            'camera/known/image': image_message(known, 'mono8', header),
            'camera/camera_info': info,
            'camera/depth/camera_info': info,
        }

    def _motion_messages(self, frame: Frame, pose: Pose, stamp: Time, seconds: float
                         ) -> dict[str, Any]:
        """Where the drone is and how it got there, by topic; ``odom`` is the same as ``map``."""
        in_map = header_at(stamp, self._map_frame_id)
        stamped = PoseStamped(header=in_map, pose=pose)
        self._path.append(stamped)
        while len(self._path) > self._node.get_parameter('path_length').value:
            self._path.popleft()
        odometry = Odometry(
            header=header_at(stamp, self._node.get_parameter('odom_frame_id').value),
            child_frame_id=self._node.get_parameter('base_frame_id').value,
            pose=PoseWithCovariance(pose=pose),
            twist=TwistWithCovariance(twist=self._twist(frame.pose, seconds)))
        return {'odom': odometry, 'path': Path(header=in_map, poses=list(self._path)),
                'pose': stamped}

    def _twist(self, pose: Tensor, seconds: float) -> Twist:
        """Mean velocity of the last step in body axes: what the stamps of the poses say."""
        if self._last_pose is None:
            return Twist()
        # Where the last camera is, seen from the new one: the way back.
        back = pose_message(relative_pose(pose, self._last_pose), self._scene_scale)
        place, turn = back.position, back.orientation
        axis, angle = quat2axangle([turn.w, turn.x, turn.y, turn.z])
        x, y, z = (float(value) for value in -angle / seconds * axis)
        return Twist(
            linear=Vector3(x=-place.x / seconds, y=-place.y / seconds, z=-place.z / seconds),
            angular=Vector3(x=x, y=y, z=z))
