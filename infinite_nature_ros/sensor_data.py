"""What sensor messages hold, as arrays and tensors; works on the objects of any ROS library.

Messages of ``rclpy`` and of ``rosbags`` have the same fields. Knows no ROS.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from infinite_nature_ros.camera import from_camera_matrix

ENCODINGS = {
    'rgb8': (np.uint8, 3),
    'bgr8': (np.uint8, 3),
    'rgba8': (np.uint8, 4),
    'bgra8': (np.uint8, 4),
    'mono8': (np.uint8, 1),
    'mono16': (np.uint16, 1),
    '16UC1': (np.uint16, 1),
    '32FC1': (np.float32, 1),
}
"""Encodings by name (``sensor_msgs/image_encodings``): type of a value, values of a pixel."""


class ImageMessage(Protocol):
    """``sensor_msgs/Image``."""

    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: Any


class CameraInfoMessage(Protocol):
    """The part of ``sensor_msgs/CameraInfo`` that says the intrinsics."""

    height: int
    width: int
    k: Any


def image_array(message: ImageMessage) -> np.ndarray:
    """Pixels of a message as they are: ``[H, W]`` or ``[H, W, C]``, native byte order.

    Raises:
        ValueError: if the encoding isn't known, or the message's size and its data don't belong
            together.
    """
    if message.encoding not in ENCODINGS:
        raise ValueError(unknown_encoding(message))
    kind, channels = ENCODINGS[message.encoding]
    order = np.dtype(kind).newbyteorder('>' if message.is_bigendian else '<')
    row = message.width * channels * order.itemsize
    height, step = message.height, message.step
    if row == 0 or height == 0 or step < row or len(message.data) < step * height:
        raise ValueError(
            f'the image says {message.width} x {height} {message.encoding} with step {step}, but '
            f'holds {len(message.data)} bytes; fill data with at least step * height bytes, and '
            f'step with at least {row}')
    rows = np.frombuffer(message.data, np.uint8, step * height).reshape(height, step)[:, :row]
    pixels = np.ascontiguousarray(rows).view(order).astype(kind)
    return pixels if channels == 1 else pixels.reshape(height, message.width, channels)


def unknown_encoding(message: ImageMessage) -> str:
    """Say that the encoding of a message isn't known, and which ones are."""
    return (f'image encoding {message.encoding!r} is not known; '
            f'send one of {", ".join(ENCODINGS)}')


def rgb_array(message: ImageMessage,
              decode: Callable[[Any], np.ndarray] = image_array) -> np.ndarray:
    """Colours of a message: uint8 ``[H, W, 3]`` RGB; alpha is dropped, 16 bits become 8.

    Args:
        message: a picture.
        decode: gives its pixels; they are RGB for an encoding that isn't in ``ENCODINGS``.

    Raises:
        ValueError: if it can't be decoded, or holds measurements (32FC1) instead of a picture.
    """
    if message.encoding == '32FC1':
        raise ValueError('a picture was expected, but the encoding is 32FC1; '
                         'send rgb8, bgr8, mono8 or another encoding of colours')
    pixels = decode(message)
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    if pixels.ndim == 2:
        return np.repeat(pixels[..., None], 3, axis=2)
    if message.encoding.startswith('bgr'):
        return np.ascontiguousarray(pixels[..., 2::-1])
    return np.ascontiguousarray(pixels[..., :3])


def intrinsics_of(message: CameraInfoMessage) -> Tensor:
    """Intrinsics, float64 ``[1, 4]``, of a calibrated, rectified camera.

    Raises:
        ValueError: if the message is of an uncalibrated camera (K[0] is 0).
    """
    width, height = message.width, message.height
    if not (width and height and message.k[0] > 0 and message.k[4] > 0):
        raise ValueError(f'camera_info is not calibrated: width {width}, height {height}, '
                         f'k {list(message.k)}; give the image size and K')
    matrix = torch.tensor([[message.k[place] for place in (0, 4, 2, 5)]], dtype=torch.float64)
    return from_camera_matrix(matrix, height, width)
