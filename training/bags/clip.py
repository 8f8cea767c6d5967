"""Clip: what an ACID bag holds, as arrays and tensors in scene units. Knows no messages."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
import io
import json
import math
from typing import Any

import cv2
import numpy as np
import PIL.Image
from torch import Tensor

from infinite_nature_ros.camera import check_intrinsics, check_pose

_JPEG_QUALITY = 95
SPLITS = ('', 'train', 'validation', 'test')
"""What a clip may be for; '' where nobody decided."""


class ClipError(ValueError):
    """A clip can't be read, made or used; the text says why, and what would help."""


@dataclass(frozen=True)
class ClipInfo:
    """Where a clip comes from and how it was made.

    Attributes:
        source: address or name of the file that the frames come from.
        licence: SPDX name or words; '' where it isn't known.
        split: 'train', 'validation', 'test' or '' (undecided).
        scene_scale: metres per scene unit. Bags are in metres, a ``ClipFrame`` in scene units.
        method: how poses and disparity were made, in words.
        details: further facts by name: seed, statistics, versions.
    """

    source: str
    licence: str
    split: str = ''
    scene_scale: float = 1.0
    method: str = ''
    details: dict[str, str | float | int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a split or a scale that can't be."""
        if self.split not in SPLITS:
            raise ClipError(f'split is {self.split!r}; give one of '
                            f'{", ".join(map(repr, SPLITS))}')
        if not (math.isfinite(self.scene_scale) and self.scene_scale > 0):
            raise ClipError(f'scene_scale is {self.scene_scale}; give metres per scene unit, > 0')

    def to_json(self) -> str:
        """All fields as a JSON object, its keys in order: the same facts are the same text."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> ClipInfo:
        """Read what :meth:`to_json` wrote; fields that later versions add are passed over.

        Raises:
            ClipError: if the text is no JSON object, or lacks source or licence.
        """
        try:
            given: Any = json.loads(text)
            return cls(**{known.name: given[known.name] for known in fields(cls)
                          if known.name in given})
        except (TypeError, json.JSONDecodeError) as error:
            raise ClipError(f'clip_info is {text[:80]!r}; give a JSON object with at least '
                            f'source and licence ({error})') from error


@dataclass(frozen=True, eq=False)
class ClipFrame:
    """One frame of a clip.

    Attributes:
        stamp: nanoseconds; increasing from frame to frame.
        picture: a JPEG or PNG file's bytes, or uint8 ``[H, W, 3]`` RGB.
        pose: float64 ``[1, 3, 4]`` world to camera, scene units, OpenCV axes.
        intrinsics: float64 ``[1, 4]`` fx, fy, cx, cy, normalised by width and height.
        disparity: float32 ``[H, W]``, 1 / scene units, positive; ``None`` where it isn't known.
        points: float32 ``[K, 3]`` points that structure from motion tracked in this frame, in
            camera axes, scene units, z > 0; ``None`` where there are none.
    """

    stamp: int
    picture: bytes | np.ndarray
    pose: Tensor
    intrinsics: Tensor
    disparity: np.ndarray | None = None
    points: np.ndarray | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the picture in pixels; it is not decoded for that.

        Raises:
            ClipError: if the bytes are no picture.
        """
        if isinstance(self.picture, np.ndarray):
            return self.picture.shape[:2]
        try:
            width, height = PIL.Image.open(io.BytesIO(self.picture)).size
        except PIL.UnidentifiedImageError as error:
            raise ClipError(f'frame at {self.stamp} ns: {_no_picture(self.picture)}') from error
        return height, width

    def image(self) -> np.ndarray:
        """Picture as uint8 ``[H, W, 3]`` RGB; it is decoded anew at every call.

        Raises:
            ClipError: if it can't be decoded.
        """
        if isinstance(self.picture, np.ndarray):
            return self.picture
        return decode_picture(self.picture)

    def check(self) -> ClipFrame:
        """Return the frame if every part of it can be used.

        Raises:
            ClipError: if a part has another shape or type than said above, or holds NaN or
                values that can't be.
        """
        try:
            check_pose(self.pose)
            check_intrinsics(self.intrinsics)
        except ValueError as error:
            raise ClipError(f'frame at {self.stamp} ns: {error}') from error
        if isinstance(self.picture, np.ndarray):
            _require(self.picture.ndim == 3 and self.picture.shape[2] == 3
                     and self.picture.dtype == np.uint8, self.stamp,
                     f'picture is {self.picture.dtype} {self.picture.shape}; '
                     'give uint8 [H, W, 3]')
        if self.disparity is not None:
            _require(self.disparity.ndim == 2 and bool((self.disparity > 0).all())
                     and bool(np.isfinite(self.disparity).all()), self.stamp,
                     'disparity must be [H, W], finite and positive; fill what is not known')
        if self.points is not None:
            _require(self.points.ndim == 2 and self.points.shape[1] == 3
                     and bool(np.isfinite(self.points).all())
                     and bool((self.points[:, 2] > 0).all()), self.stamp,
                     'points must be [K, 3], finite, in front of the camera (z > 0)')
        return self


def _require(holds: bool, stamp: int, text: str) -> None:
    if not holds:
        raise ClipError(f'frame at {stamp} ns: {text}')


def encode_jpeg(rgb: np.ndarray, quality: int = _JPEG_QUALITY) -> bytes:
    """JPEG file of uint8 ``[H, W, 3]`` RGB; quality is 1 to 100."""
    _, encoded = cv2.imencode('.jpg', cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR),
                              [cv2.IMWRITE_JPEG_QUALITY, quality])
    return encoded.tobytes()


def decode_picture(data: bytes) -> np.ndarray:
    """uint8 ``[H, W, 3]`` RGB of a JPEG or PNG file's bytes.

    Raises:
        ClipError: if it is neither, or damaged.
    """
    # COLOR: grey and 16-bit pictures come as 8-bit colour. EXIF has no place in a video.
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8),
                           cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if decoded is None:
        raise ClipError(_no_picture(data))
    return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)


def _no_picture(data: bytes) -> str:
    return f'a picture of {len(data)} bytes is no JPEG or PNG, or is damaged'
