"""Pictures and points out of messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from infinite_nature_ros.sensor_data import ENCODINGS, rgb_array, unknown_encoding
from infinite_nature_training.bags.clip import ClipError

_PICTURES = (b'\xff\xd8\xff', b'\x89PNG')
_FLOAT32 = 7


def explained(read: Callable[[Any], Any], message: Any) -> Any:
    """Read a message.

    Raises:
        ClipError: instead of the ``ValueError`` about what is wrong with it.
    """
    try:
        return read(message)
    except ValueError as error:
        raise ClipError(str(error)) from error


def check_encoding(role: str, message: Any) -> None:
    """Refuse what :func:`picture` and :func:`image_array` can't decode.

    Raises:
        ClipError: if it is that; the encoding is named.
    """
    if role == 'disparity':
        if message.encoding != '32FC1':
            raise ClipError(f'the disparity is {message.encoding!r}; give 32FC1, 1 / metres')
    elif hasattr(message, 'encoding'):
        if message.encoding == '32FC1':
            raise ClipError('the pictures are 32FC1; give rgb8, bgr8 or another encoding of '
                            'colours')
        if message.encoding not in ENCODINGS:
            raise ClipError(unknown_encoding(message))
    elif not message.data[:4].tobytes().startswith(_PICTURES):
        raise ClipError(f'compressed pictures are {message.format!r}; give JPEG or PNG')


def picture(message: Any) -> bytes | np.ndarray:
    """Picture of an Image or CompressedImage, as a ``ClipFrame`` has it.

    Raises:
        ClipError: if size and data of an Image don't belong together.
    """
    if hasattr(message, 'encoding'):
        return explained(rgb_array, message)
    return message.data.tobytes()


def points_of(message: Any) -> np.ndarray:
    """Points of a cloud, float32 ``[K, 3]``.

    Raises:
        ClipError: if it has no x, y, z in float32.
    """
    offsets = {field.name: field.offset for field in message.fields
               if field.datatype == _FLOAT32}
    if not offsets.keys() >= {*'xyz'}:
        raise ClipError('points have no float32 fields x, y, z')
    order = '>f4' if message.is_bigendian else '<f4'
    kind = np.dtype({'names': [*'xyz'], 'formats': [order] * 3,
                     'offsets': [offsets[axis] for axis in 'xyz'],
                     'itemsize': message.point_step})
    count = message.width * message.height
    values = np.frombuffer(message.data, kind, count)
    return np.stack([values[axis] for axis in 'xyz'], axis=1).astype(np.float32)
