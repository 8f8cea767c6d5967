"""Schema of ACID bags: topics, types, frames and QoS (docs/acid_bags.md). rosbags only, no ROS."""

from __future__ import annotations

from functools import cache

from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.typesys import get_typestore, Stores
from rosbags.typesys.store import Typestore

NAMESPACE = '/infinite_nature'
"""Namespace of the generator node, so that a played bag is seen where a live flight is."""

TYPES = {
    'camera/image_raw/compressed': 'sensor_msgs/msg/CompressedImage',
    'camera/camera_info': 'sensor_msgs/msg/CameraInfo',
    'pose': 'geometry_msgs/msg/PoseStamped',
    'camera/disparity/image': 'sensor_msgs/msg/Image',
    'sfm_points': 'sensor_msgs/msg/PointCloud2',
    'clip_info': 'std_msgs/msg/String',
    '/tf': 'tf2_msgs/msg/TFMessage',
    '/tf_static': 'tf2_msgs/msg/TFMessage',
}
"""Message types by topic; names without a slash in front are relative to the namespace."""

LATCHED = ('clip_info', '/tf_static')
"""Topics with one message, which late subscribers get as well."""

CUSTOM_DATA_KEY = 'clip_info'
"""Key of the clip's facts in ``custom_data`` of ``metadata.yaml``, the same JSON as the topic."""

MAP, ODOM, BASE, CAMERA, OPTICAL = (
    'map', 'odom', 'base_link', 'camera_link', 'camera_optical_frame')

OPTICAL_QUATERNION = (-0.5, 0.5, -0.5, 0.5)
"""x, y, z, w of ``camera_optical_frame`` in ``camera_link`` (REP 103)."""


def absolute_name(topic: str) -> str:
    """Name of a topic in a bag that we write."""
    return topic if topic.startswith('/') else f'{NAMESPACE}/{topic}'


@cache
def typestore() -> Typestore:
    """Message types of ROS 2 Jazzy."""
    return get_typestore(Stores.ROS2_JAZZY)


def qos(topic: str) -> Qos:
    """Quality of service that ``ros2 bag play`` offers for a topic: reliable, some latched."""
    forever = QosTime(9223372036, 854775807)
    latched = topic in LATCHED
    return Qos(
        QosHistory.KEEP_LAST, 1 if latched else 5, QosReliability.RELIABLE,
        QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
        forever, forever, QosLiveliness.AUTOMATIC, forever, False)
