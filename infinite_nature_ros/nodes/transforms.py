"""Transforms of the drone on ``/tf`` and ``/tf_static``, where ``tf2_msgs`` is installed."""

from __future__ import annotations

from builtin_interfaces.msg import Time
from geometry_msgs.msg import Pose, Quaternion, Transform, TransformStamped, Vector3
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile
import torch
from torch import Tensor
from transforms3d.euler import euler2mat

from infinite_nature_ros.camera import from_body_frame
from infinite_nature_ros.nodes.messages import header_at, pose_message
from infinite_nature_ros.nodes.qos import LATCHED_QOS, overridable

# Body axes (X forward) to optical axes (Z forward): roll -90, yaw -90 degrees (REP 103).
_OPTICAL_ROTATION = Quaternion(x=-0.5, y=0.5, z=-0.5, w=0.5)


def frame_ids(node: Node) -> dict[str, str]:
    """Names of the frames map, odom, base, camera and optical, with the node's prefix."""
    prefix = node.get_parameter('frame_prefix').value
    return {name: prefix + node.get_parameter(f'{name}_frame_id').value
            for name in ('map', 'odom', 'base', 'camera', 'optical')}


def camera_mounting(node: Node) -> Tensor:
    """How the camera is mounted: ``[1, 3, 4]`` from the drone to it, OpenCV axes, scene units."""
    x, y, z, roll, pitch, yaw = (node.get_parameter(f'camera_{name}').value
                                 for name in ('x', 'y', 'z', 'roll', 'pitch', 'yaw'))
    place = torch.tensor([[x, y, z]], dtype=torch.float64)
    rotation = torch.from_numpy(euler2mat(roll, pitch, yaw, axes='sxyz'))[None]
    return from_body_frame(place / node.get_parameter('scene_scale').value, rotation)


class TransformBroadcaster:
    """Publishes map -> odom -> base_link -> camera_link -> camera_optical_frame.

    PyPI has no ``tf2_msgs``: without it the poses are in ``odom`` and ``pose`` only, and a line
    in the log says so.
    """

    def __init__(self, node: Node) -> None:
        """Create the publishers, if there is a message type for them."""
        self._frames = frame_ids(node)
        self._node = node
        self._publishers: dict[str, Publisher] = {}
        try:
            from tf2_msgs.msg import TFMessage
        except ImportError:
            node.get_logger().info('tf2_msgs is not installed, so /tf is not published: take '
                                   'poses from odom and pose, or run in a ROS 2 workspace')
            return
        self._message_type = TFMessage
        self._publishers = {
            topic: node.create_publisher(TFMessage, topic, **overridable(qos))
            for topic, qos in (('/tf', QoSProfile(depth=100)), ('/tf_static', LATCHED_QOS))}

    def send_static(self) -> None:
        """Publish what never changes."""
        mounted = pose_message(camera_mounting(self._node),
                               self._node.get_parameter('scene_scale').value)
        stamp = self._node.get_clock().now().to_msg()
        self._send('/tf_static', self._transform('map', 'odom', Pose(), stamp),
                   self._transform('base', 'camera', mounted, stamp),
                   self._transform('camera', 'optical', Pose(orientation=_OPTICAL_ROTATION),
                                   stamp))

    def send(self, pose: Pose, stamp: Time) -> None:
        """Publish where the drone is.

        Args:
            pose: ``base_link`` in ``odom``.
            stamp: stamp of the frame that was taken there.
        """
        self._send('/tf', self._transform('odom', 'base', pose, stamp))

    def destroy(self) -> None:
        """Take the topics away."""
        for publisher in self._publishers.values():
            self._node.destroy_publisher(publisher)

    def _send(self, topic: str, *transforms: TransformStamped) -> None:
        """Publish transforms, if there is a message type for them."""
        if topic in self._publishers:
            self._publishers[topic].publish(self._message_type(transforms=list(transforms)))

    def _transform(self, parent: str, child: str, pose: Pose, stamp: Time) -> TransformStamped:
        """Pose of a frame in its parent frame."""
        place = pose.position
        return TransformStamped(
            header=header_at(stamp, self._frames[parent]), child_frame_id=self._frames[child],
            transform=Transform(translation=Vector3(x=place.x, y=place.y, z=place.z),
                                rotation=pose.orientation))
