"""Transforms of the drone on ``/tf`` and ``/tf_static``, where ``tf2_msgs`` is installed."""

from __future__ import annotations

from builtin_interfaces.msg import Time
from geometry_msgs.msg import Pose, Quaternion, Transform, TransformStamped, Vector3
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile

from infinite_nature_ros.nodes.messages import header_at

# Body axes (X forward) to optical axes (Z forward): roll -90, yaw -90 degrees (REP 103).
_OPTICAL_ROTATION = Quaternion(x=-0.5, y=0.5, z=-0.5, w=0.5)
_NO_ROTATION = Quaternion(w=1.0)


class TransformBroadcaster:
    """Publishes map -> odom -> base_link -> camera_link -> camera_optical_frame.

    PyPI has no ``tf2_msgs``: without it the poses are in ``odom`` and ``pose`` only, and a line
    in the log says so.
    """

    def __init__(self, node: Node) -> None:
        """Create the publishers, if there is a message type for them."""
        self._frames = tuple(node.get_parameter(f'{name}_frame_id').value
                             for name in ('map', 'odom', 'base', 'camera', 'optical'))
        self._node = node
        self._publishers: dict[str, Publisher] = {}
        try:
            from tf2_msgs.msg import TFMessage
        except ImportError:
            node.get_logger().info('tf2_msgs is not installed, so /tf is not published: take '
                                   'poses from odom and pose, or run in a ROS 2 workspace')
            return
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._message_type = TFMessage
        self._publishers = {
            '/tf': node.create_publisher(TFMessage, '/tf', QoSProfile(depth=100)),
            '/tf_static': node.create_publisher(TFMessage, '/tf_static', latched)}

    def send_static(self) -> None:
        """Publish what never changes."""
        map_frame, odom, base, camera, optical = self._frames
        stamp = self._node.get_clock().now().to_msg()
        self._send('/tf_static', _transform(map_frame, odom, _NO_ROTATION, stamp),
                   _transform(base, camera, _NO_ROTATION, stamp),
                   _transform(camera, optical, _OPTICAL_ROTATION, stamp))

    def send(self, pose: Pose, stamp: Time) -> None:
        """Publish where the drone is.

        Args:
            pose: ``base_link`` in ``odom``.
            stamp: stamp of the frame that was taken there.
        """
        _, odom, base, _, _ = self._frames
        moved = _transform(odom, base, pose.orientation, stamp)
        place = pose.position
        moved.transform.translation = Vector3(x=place.x, y=place.y, z=place.z)
        self._send('/tf', moved)

    def destroy(self) -> None:
        """Take the topics away."""
        for publisher in self._publishers.values():
            self._node.destroy_publisher(publisher)

    def _send(self, topic: str, *transforms: TransformStamped) -> None:
        """Publish transforms, if there is a message type for them."""
        if topic in self._publishers:
            self._publishers[topic].publish(self._message_type(transforms=list(transforms)))


def _transform(parent: str, child: str, rotation: Quaternion, stamp: Time) -> TransformStamped:
    """Rotation of a frame in its parent frame."""
    return TransformStamped(header=header_at(stamp, parent), child_frame_id=child,
                            transform=Transform(rotation=rotation))
