"""Publishes a frame: images, camera infos, poses and transforms, all with one stamp."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial

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
from rclpy.event_handler import PublisherEventCallbacks, QoSPublisherMatchedInfo
from rclpy.lifecycle import LifecycleNode
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_msgs.msg import Header
from torch import Tensor
from transforms3d.quaternions import quat2axangle

from infinite_nature_ros.camera import compose, inverse, relative_pose
from infinite_nature_ros.frame import Frame
from infinite_nature_ros.nodes.frame_clock import FrameClock
from infinite_nature_ros.nodes.messages import (
    camera_info_message,
    cloud_message,
    compressed_message,
    header_at,
    image_message,
    pose_message,
)
from infinite_nature_ros.nodes.qos import FRAME_QOS, overridable
from infinite_nature_ros.nodes.transforms import (
    camera_mounting,
    frame_ids,
    TransformBroadcaster,
)
from infinite_nature_ros.pixels import to_pixels


@dataclass(frozen=True)
class _View:
    """What is published of a frame, each part made when it's first asked for.

    Attributes:
        frame: the frame, of batch size 1.
        stamp: its time.
        frame_ids: names of the frames, as of ``transforms.frame_ids``.
        scene_scale: metres per scene unit.
        base_pose: ``base_link`` in ``odom``.
        twist: velocity of ``base_link`` in its own axes.
        path: poses of the last frames and of this one.
        jpeg_quality: quality of the compressed picture, 1 to 100.
    """

    frame: Frame
    stamp: Time
    frame_ids: dict[str, str]
    scene_scale: float
    base_pose: Pose
    twist: Twist
    path: deque[PoseStamped]
    jpeg_quality: int

    @cached_property
    def optical(self) -> Header:
        """Header of what is seen."""
        return self._header('optical')

    @cached_property
    def rgb(self) -> np.ndarray:
        """Picture, uint8 ``[H, W, 3]``."""
        return to_pixels(self.frame.image)[0]

    @cached_property
    def depth(self) -> np.ndarray:
        """Depth in metres, ``[H, W]``."""
        return self.frame.depth[0, 0].double().cpu().numpy() * self.scene_scale

    @cached_property
    def pose(self) -> PoseStamped:
        """``camera_link`` in ``map``."""
        return PoseStamped(header=self._header('map'),
                           pose=pose_message(self.frame.pose, self.scene_scale))

    @cached_property
    def camera_info(self) -> CameraInfo:
        """Calibration of all images."""
        return camera_info_message(self.frame.intrinsics, *self.frame.image.shape[2:],
                                   self.optical)

    def image(self) -> Image:
        """Picture."""
        return image_message(self.rgb, 'rgb8', self.optical)

    def compressed(self) -> CompressedImage:
        """Picture as JPEG."""
        return compressed_message(self.rgb, self.jpeg_quality, self.optical)

    def disparity(self) -> Image:
        """Inverse depth in 1/m."""
        metric = self.frame.disparity[0, 0].double().cpu().numpy() / self.scene_scale
        return image_message(metric, '32FC1', self.optical)

    def depth_image(self) -> Image:
        """Depth in metres."""
        return image_message(self.depth, '32FC1', self.optical)

    def known(self) -> Image:
        """Mask of what was carried over."""
        known = np.where(self.frame.known[0, 0].cpu().numpy() > 0.5, 255, 0)
        return image_message(known, 'mono8', self.optical)

    def cloud(self) -> PointCloud2:
        """Coloured points, without the sky's."""
        return cloud_message(self.depth, self.rgb, self.frame.intrinsics, self.optical)

    def odometry(self) -> Odometry:
        """Where the drone is and how it moves; ``odom`` is the same as ``map``."""
        return Odometry(header=self._header('odom'), child_frame_id=self.frame_ids['base'],
                        pose=PoseWithCovariance(pose=self.base_pose),
                        twist=TwistWithCovariance(twist=self.twist))

    def path_message(self) -> Path:
        """Where the drone has been."""
        return Path(header=self.pose.header, poses=list(self.path))

    def _header(self, frame: str) -> Header:
        return header_at(self.stamp.to_msg(), self.frame_ids[frame])


_MESSAGES = {
    'camera/image_raw': (Image, _View.image),
    'camera/image_raw/compressed': (CompressedImage, _View.compressed),
    'camera/disparity/image': (Image, _View.disparity),
    'camera/depth/image_rect': (Image, _View.depth_image),
    'camera/known/image': (Image, _View.known),
    'camera/camera_info': (CameraInfo, lambda view: view.camera_info),
    'camera/depth/camera_info': (CameraInfo, lambda view: view.camera_info),
    'camera/points': (PointCloud2, _View.cloud),
    'odom': (Odometry, _View.odometry),
    'path': (Path, _View.path_message),
    'pose': (PoseStamped, lambda view: view.pose),
}

TOPICS = {topic: kind for topic, (kind, _) in _MESSAGES.items()}
"""Types of what is published of a frame, by topic."""


class FramePublisher:
    """Topics of the camera and of the drone that carries it.

    Messages are made only for topics that someone listens to. Whoever comes later gets what is
    to be seen now at once, with the stamp that the other topics had.
    """

    def __init__(self, node: LifecycleNode) -> None:
        """Create the publishers; frame ids and scale are the node's parameters.

        Raises:
            ValueError: if the parameters contradict each other.
        """
        self._node = node
        self._scene_scale = node.get_parameter('scene_scale').value
        self._frame_ids = frame_ids(node)
        self._drone_from_camera = inverse(camera_mounting(node))
        self._clock = FrameClock(node)
        self._view: _View | None = None
        self._fresh: list[_View] = []
        self._last_base: Tensor | None = None
        self._path: deque[PoseStamped] = deque()
        self._sent: dict[str, _View] = {}
        self._publishers = {
            topic: node.create_lifecycle_publisher(
                kind, topic, **overridable(FRAME_QOS),
                event_callbacks=PublisherEventCallbacks(matched=partial(self._greet, topic)))
            for topic, kind in TOPICS.items()}
        self._transforms = TransformBroadcaster(node)
        self._transforms.send_static()

    @property
    def stamp(self) -> Time:
        """Stamp of the last frame."""
        return self._clock.stamp

    @property
    def path(self) -> list[PoseStamped]:
        """Poses of the last frames, those included that are to be published."""
        return [*self._path, *(view.pose for view in self._fresh)]

    def destroy(self) -> None:
        """Take the topics away."""
        for publisher in self._publishers.values():
            self._node.destroy_lifecycle_publisher(publisher)
        self._transforms.destroy()
        self._clock.destroy()

    def forget_path(self) -> None:
        """Start a new flight: the path starts here, the drone stands still."""
        self._last_base = None
        self._path.clear()

    def resume(self, stamp: int, path: Sequence[PoseStamped]) -> None:
        """Go on after an earlier run.

        Args:
            stamp: nanoseconds of its last frame.
            path: poses of its last frames, in any frame id.
        """
        self._clock.resume(stamp)
        self._path = deque(path)
        for pose in path:
            pose.header.frame_id = self._frame_ids['map']

    def take(self, frames: Sequence[Frame]) -> None:
        """Take frames of batch size 1, which were seen since the last; ``publish`` sends them."""
        before = self._clock.stamp
        for frame, stamp in zip(frames, self._clock.advance(len(frames)), strict=True):
            base = compose(self._drone_from_camera, frame.pose.double().cpu())
            twist = self._twist(base, (stamp - before).nanoseconds * 1e-9)
            self._fresh.append(_View(
                frame, stamp, self._frame_ids, self._scene_scale,
                pose_message(base, self._scene_scale), twist, self._path,
                self._node.get_parameter('jpeg_quality').value))
            before, self._last_base = stamp, base

    def publish(self) -> None:
        """Send the frames to all who listen; the last one is the present one."""
        fresh, self._fresh = self._fresh, []
        for view in fresh:
            self._view = view
            self._path.append(view.pose)
            while len(self._path) > self._node.get_parameter('path_length').value:
                self._path.popleft()
            self._clock.tell(view.stamp)
            # Before the images, for who gets one looks up where it was taken.
            self._transforms.send(view.base_pose, view.stamp.to_msg())
            for topic in TOPICS:
                self._send(topic)

    def _send(self, topic: str) -> None:
        """Send the present frame's message if someone listens and hasn't got it."""
        publisher = self._publishers[topic]
        if (self._view is not None and self._sent.get(topic) is not self._view
                and publisher.is_activated and publisher.get_subscription_count()):
            _, make = _MESSAGES[topic]
            publisher.publish(make(self._view))
            self._sent[topic] = self._view

    def _greet(self, topic: str, event: QoSPublisherMatchedInfo) -> None:
        """Send the present frame to a listener who came after it."""
        if event.current_count_change > 0:
            self._send(topic)

    def _twist(self, base: Tensor, seconds: float) -> Twist:
        """Mean velocity of the last step in body axes: what the stamps of the poses say."""
        if self._last_base is None:
            return Twist()
        # Where the last pose is, seen from the new one: the way back.
        back = pose_message(relative_pose(base, self._last_base), self._scene_scale)
        place, turn = back.position, back.orientation
        axis, angle = quat2axangle([turn.w, turn.x, turn.y, turn.z])
        x, y, z = (float(value) for value in -angle / seconds * axis)
        return Twist(
            linear=Vector3(x=-place.x / seconds, y=-place.y / seconds, z=-place.z / seconds),
            angular=Vector3(x=x, y=y, z=z))
