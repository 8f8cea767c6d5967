"""Conversions between the core's tensors and ROS messages (REP 103, 117, 118).

``cv_bridge`` breaks with numpy 2 and isn't on PyPI, so we convert the usual encodings ourselves;
it is asked only for encodings that we don't know, where a ROS install provides it.
"""

from __future__ import annotations

from builtin_interfaces.msg import Time
import cv2
from geometry_msgs.msg import Point, Pose, Quaternion
import numpy as np
import PIL.Image
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2, PointField
from std_msgs.msg import Header
import torch
from torch import Tensor

from infinite_nature_ros import sensor_data
from infinite_nature_ros.camera import (
    camera_matrix,
    MAX_DISPARITY,
    MIN_DISPARITY,
    pixel_rays,
)
from infinite_nature_ros.photos import crop_and_resize
from infinite_nature_ros.pose_files import place_of, pose_of

_POINT = np.dtype([('x', '<f4'), ('y', '<f4'), ('z', '<f4'), ('rgb', '<u4')])
"""A coloured point as RViz and PCL read it: the bytes of ``rgb`` stand for a float32."""


def stamp_of(message: Image | CameraInfo) -> tuple[int, int]:
    """Seconds and nanoseconds of a message's header: equal for what belongs together."""
    return message.header.stamp.sec, message.header.stamp.nanosec


def header_at(stamp: Time, frame_id: str) -> Header:
    """Header of a message."""
    return Header(stamp=stamp, frame_id=frame_id)


def image_message(array: np.ndarray, encoding: str, header: Header) -> Image:
    """Message of an image ``[H, W]`` or ``[H, W, C]`` whose type is that of the encoding."""
    kind, channels = sensor_data.ENCODINGS[encoding]
    pixels = np.ascontiguousarray(array, dtype=kind)
    height, width = pixels.shape[:2]
    message = Image(header=header, height=height, width=width, encoding=encoding,
                    is_bigendian=0, step=width * channels * pixels.itemsize)
    # Assigning an ndarray or a memoryview converts value by value, 1000 times slower.
    message.data.frombytes(memoryview(pixels).cast('B'))
    return message


def compressed_message(rgb: np.ndarray, quality: int, header: Header) -> CompressedImage:
    """JPEG of a picture, as ``image_transport`` names and reads it.

    Args:
        rgb: uint8 ``[H, W, 3]``.
        quality: 1 to 100.
        header: header of the message.
    """
    _, encoded = cv2.imencode('.jpg', cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR),
                              [cv2.IMWRITE_JPEG_QUALITY, quality])
    message = CompressedImage(header=header, format='rgb8; jpeg compressed bgr8')
    message.data.frombytes(memoryview(encoded).cast('B'))
    return message


def cloud_message(depth: np.ndarray, rgb: np.ndarray, intrinsics: Tensor,
                  header: Header) -> PointCloud2:
    """Coloured points of an RGB-D image in its own optical frame, in rows of pixels.

    Args:
        depth: metres along Z, ``[H, W]``; pixels that aren't finite (the sky) are left out.
        rgb: uint8 ``[H, W, 3]``.
        intrinsics: ``[1, 4]``.
        header: header of the message.
    """
    seen = np.isfinite(depth)
    rays = pixel_rays(intrinsics.cpu(), *depth.shape)[0].numpy()
    points = np.empty(np.count_nonzero(seen), _POINT)
    for axis, ray in zip('xyz', rays, strict=True):
        points[axis] = ray[seen] * depth[seen]
    red, green, blue = rgb[seen].astype(np.uint32).T
    points['rgb'] = red << 16 | green << 8 | blue
    fields = [PointField(name=name, offset=offset, datatype=PointField.FLOAT32, count=1)
              for name, (_, offset) in _POINT.fields.items()]
    message = PointCloud2(
        header=header, height=1, width=len(points), fields=fields, is_dense=True,
        is_bigendian=False, point_step=_POINT.itemsize, row_step=points.nbytes)
    message.data.frombytes(points.tobytes())
    return message


def image_array(message: Image) -> np.ndarray:
    """Pixels of a message as they are: ``[H, W]`` or ``[H, W, C]``, native byte order.

    Raises:
        ValueError: if the message's size and its data don't belong together, or if neither
            :mod:`sensor_data` nor ``cv_bridge`` knows the encoding.
    """
    if message.encoding in sensor_data.ENCODINGS:
        return sensor_data.image_array(message)
    return _cv_bridge_array(message)


def _cv_bridge_array(message: Image) -> np.ndarray:
    """RGB pixels of an encoding that we don't know, through ``cv_bridge``."""
    problem = sensor_data.unknown_encoding(message)
    try:
        from cv_bridge import CvBridge, CvBridgeError
    except ImportError:
        raise ValueError(problem) from None
    try:
        return CvBridge().imgmsg_to_cv2(message, 'rgb8')
    except CvBridgeError as error:
        raise ValueError(f'{problem} (cv_bridge: {error})') from error


def rgb_array(message: Image) -> np.ndarray:
    """Colours of a message: uint8 ``[H, W, 3]`` RGB; alpha is dropped, 16 bits become 8.

    Raises:
        ValueError: if it can't be decoded, or holds measurements (32FC1) instead of a picture.
    """
    return sensor_data.rgb_array(message, decode=image_array)


def disparity_from_message(message: Image, height: int, width: int, scene_scale: float) -> Tensor:
    """Disparity ``[1, 1, H, W]`` in 1 / scene units, cropped and resized as photos are.

    Args:
        message: 32FC1, 1 / metres; beyond the disparity contract it's clamped.
        height: wanted height in pixels.
        width: wanted width in pixels.
        scene_scale: metres per scene unit.

    Raises:
        ValueError: if it's of another encoding, or holds NaN or infinity.
    """
    if message.encoding != '32FC1':
        raise ValueError(f'the disparity is {message.encoding!r}; send 32FC1, 1 / metres')
    metric = image_array(message)
    if not np.isfinite(metric).all():
        raise ValueError('the disparity holds NaN or infinity; fill the gaps, 0 is far away')
    sized = np.array(crop_and_resize(PIL.Image.fromarray(metric), height, width))
    disparity = torch.from_numpy(sized)[None, None].double() * scene_scale
    return disparity.clamp(MIN_DISPARITY, MAX_DISPARITY).float()


def camera_info_message(intrinsics: Tensor, height: int, width: int, header: Header) -> CameraInfo:
    """Message of intrinsics ``[1, 4]``: no distortion, pixel (0, 0) centred at (0, 0)."""
    fx, fy, cx, cy = camera_matrix(intrinsics, height, width)[0].tolist()
    return CameraInfo(
        header=header, height=height, width=width, distortion_model='plumb_bob', d=[0.0] * 5,
        k=[fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0],
        r=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
        p=[fx, 0.0, cx, 0.0, 0.0, fy, cy, 0.0, 0.0, 0.0, 1.0, 0.0])


def intrinsics_from_message(message: CameraInfo) -> Tensor:
    """Intrinsics ``[1, 4]`` of a calibrated, rectified camera.

    Raises:
        ValueError: if the message is of an uncalibrated camera (K[0] is 0).
    """
    return sensor_data.intrinsics_of(message).float()


def pose_message(pose: Tensor, scene_scale: float) -> Pose:
    """``camera_link`` in ``map`` of a world-to-camera pose ``[1, 3, 4]``.

    Args:
        pose: world to camera, scene units.
        scene_scale: metres per scene unit.
    """
    position, (qx, qy, qz, qw) = place_of(pose)
    x, y, z = (position * scene_scale).tolist()
    return Pose(position=Point(x=x, y=y, z=z), orientation=Quaternion(x=qx, y=qy, z=qz, w=qw))


def pose_from_message(message: Pose, scene_scale: float) -> Tensor:
    """World-to-camera pose, scene units, of ``camera_link`` in ``map``.

    The quaternion is normalised: senders round.

    Returns:
        float64 ``[1, 3, 4]``, so that :func:`pose_message` gives the same message back.

    Raises:
        ValueError: if a number is NaN or infinite, or the quaternion is zero.
    """
    place, turn = message.position, message.orientation
    return pose_of([value / scene_scale for value in (place.x, place.y, place.z)],
                   (turn.x, turn.y, turn.z, turn.w))


def same_pose(one: Pose, other: Pose, tolerance: float) -> bool:
    """Whether two poses are the same but for rounding.

    Args:
        one: a pose.
        other: a pose in the same frame.
        tolerance: accepted distance, in the poses' unit; grows with the distance from the
            origin, as float32's rounding does.
    """
    places = np.array([[p.x, p.y, p.z] for p in (one.position, other.position)])
    turns = np.array([[q.w, q.x, q.y, q.z] for q in (one.orientation, other.orientation)])
    distance = np.linalg.norm(places[0] - places[1])
    # 1 - |dot| is an eighth of the squared angle: this accepts 0.005 radians.
    return bool(distance <= tolerance + 1e-6 * np.linalg.norm(places[1])
                and abs(turns[0] @ turns[1]) > 1 - 3e-6)
