"""Writer: a clip becomes an ACID bag, whole or not at all."""

from __future__ import annotations

from pathlib import Path
import shutil
from types import TracebackType
from typing import Any

import numpy as np
from rosbags.interfaces import Connection
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from infinite_nature_ros.camera import camera_matrix
from infinite_nature_ros.pose_files import place_of
from infinite_nature_training.bags.clip import ClipError, ClipFrame, ClipInfo, encode_jpeg
from infinite_nature_training.bags.schema import (
    absolute_name,
    BASE,
    CAMERA,
    CUSTOM_DATA_KEY,
    MAP,
    ODOM,
    OPTICAL,
    OPTICAL_QUATERNION,
    qos,
    TYPES,
    typestore,
)

_FLOAT32 = 7
_NO_TURN = (0.0, 0.0, 0.0, 1.0)


class ClipWriter:
    """Writes one clip as rosbag2 (mcap): ``with ClipWriter(folder, info) as writer: ...``.

    The bag is made in a hidden folder beside and gets its name when it is complete; a bag of that
    name is replaced then. After an exception nothing is left; after ``kill -9`` only the hidden
    folder is, which the next writer of that bag removes. The same frames give the same bytes.
    """

    def __init__(self, folder: str | Path, info: ClipInfo) -> None:
        """Say where the bag will be, and what it is.

        Args:
            folder: folder of the bag.
            info: the clip's facts.
        """
        self.folder = Path(folder)
        self.frames = 0
        self._info = info
        self._unfinished = partial_folder(self.folder)
        self._stamp = -1
        self._connections: dict[str, Connection] = {}

    def __enter__(self) -> ClipWriter:
        """Open the hidden folder; an older one is of a program that died.

        Raises:
            OSError: if it can't be written.
        """
        shutil.rmtree(self._unfinished, ignore_errors=True)
        self._unfinished.mkdir(parents=True)
        # The mcap file takes its name from the folder that it is made in.
        self._writer = Writer(self._unfinished / self.folder.name, version=9,
                              storage_plugin=StoragePlugin.MCAP)
        # Of mcap's own chunks, which every reader understands.
        self._writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
        self._writer.set_custom_data(CUSTOM_DATA_KEY, self._info.to_json())
        self._writer.open()
        return self

    def add(self, frame: ClipFrame) -> None:
        """Append a frame.

        Raises:
            ClipError: if the frame isn't what :class:`ClipFrame` says, or its stamp isn't later
                than the last one's.
            OSError: if the bag can't be written.
        """
        if frame.stamp <= self._stamp:
            raise ClipError(f'frame at {frame.stamp} ns comes after one at {self._stamp} ns; '
                            'give frames in the order of their stamps')
        messages = _messages(frame.check(), self._info.scene_scale)
        if not self.frames:
            messages = {**_clip_messages(self._info, frame.stamp), **messages}
        for topic, message in messages.items():
            self._write(topic, frame.stamp, message)
        self._stamp = frame.stamp
        self.frames += 1

    def _write(self, topic: str, stamp: int, message: Any) -> None:
        """Write a message; the topic is registered with its first one."""
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(
                absolute_name(topic), TYPES[topic], typestore=typestore(),
                offered_qos_profiles=[qos(topic)])
        self._writer.write(self._connections[topic], stamp,
                           typestore().serialize_cdr(message, TYPES[topic]))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        """Give the bag its name, if nothing went wrong.

        Raises:
            ClipError: if there is no frame in it.
        """
        try:
            self._writer.close()
            if error is None:
                self._finish()
        finally:
            shutil.rmtree(self._unfinished, ignore_errors=True)

    def _finish(self) -> None:
        if not self.frames:
            raise ClipError(f'{self.folder.name} holds no frame')
        shutil.rmtree(self.folder, ignore_errors=True)
        (self._unfinished / self.folder.name).replace(self.folder)


def partial_folder(folder: Path) -> Path:
    """Where a bag is while it isn't complete."""
    return folder.with_name(f'.{folder.name}.partial')


def _clip_messages(info: ClipInfo, stamp: int) -> dict[str, Any]:
    """Latched messages, which stand at the beginning of a bag."""
    still = np.zeros(3)
    return {
        'clip_info': _new('std_msgs/msg/String', data=info.to_json()),
        '/tf_static': _transforms(
            _transform(MAP, ODOM, still, _NO_TURN, stamp),
            _transform(BASE, CAMERA, still, _NO_TURN, stamp),
            _transform(CAMERA, OPTICAL, still, OPTICAL_QUATERNION, stamp))}


def _messages(frame: ClipFrame, scene_scale: float) -> dict[str, Any]:
    """Messages of one frame by topic."""
    jpeg = frame.picture if isinstance(frame.picture, bytes) else encode_jpeg(frame.picture)
    optical = _header(frame.stamp, OPTICAL)
    position, quaternion = place_of(frame.pose)
    position = position * scene_scale
    messages = {
        'camera/image_raw/compressed': _new(
            'sensor_msgs/msg/CompressedImage', header=optical,
            format=f'rgb8; {"png" if jpeg.startswith(_PNG) else "jpeg"} compressed bgr8',
            data=np.frombuffer(jpeg, np.uint8)),
        'camera/camera_info': _camera_info(frame, optical),
        'pose': _new('geometry_msgs/msg/PoseStamped', header=_header(frame.stamp, MAP),
                     pose=_new('geometry_msgs/msg/Pose', position=_point(position),
                               orientation=_quaternion(quaternion))),
        '/tf': _transforms(_transform(ODOM, BASE, position, quaternion, frame.stamp))}
    if frame.disparity is not None:
        messages['camera/disparity/image'] = _image_32fc1(frame.disparity / scene_scale, optical)
    if frame.points is not None:
        messages['sfm_points'] = _cloud(frame.points * scene_scale, optical)
    return messages


_PNG = b'\x89PNG'


def _new(kind: str, **fields: Any) -> Any:
    """Message of a type."""
    return typestore().types[kind](**fields)


def _header(stamp: int, frame_id: str) -> Any:
    seconds, nanoseconds = divmod(stamp, 10**9)
    return _new('std_msgs/msg/Header', frame_id=frame_id, stamp=_new(
        'builtin_interfaces/msg/Time', sec=seconds, nanosec=nanoseconds))


def _camera_info(frame: ClipFrame, header: Any) -> Any:
    height, width = frame.size
    fx, fy, cx, cy = camera_matrix(frame.intrinsics, height, width)[0].tolist()
    return _new(
        'sensor_msgs/msg/CameraInfo', header=header, height=height, width=width,
        distortion_model='plumb_bob', d=np.zeros(5),
        k=np.array([fx, 0, cx, 0, fy, cy, 0, 0, 1]), r=np.eye(3).flatten(),
        p=np.array([fx, 0, cx, 0, 0, fy, cy, 0, 0, 0, 1, 0]), binning_x=0, binning_y=0,
        roi=_new('sensor_msgs/msg/RegionOfInterest', x_offset=0, y_offset=0, height=0, width=0,
                 do_rectify=False))


def _image_32fc1(values: np.ndarray, header: Any) -> Any:
    pixels = np.ascontiguousarray(values, '<f4')
    height, width = pixels.shape
    return _new('sensor_msgs/msg/Image', header=header, height=height, width=width,
                encoding='32FC1', is_bigendian=0, step=4 * width,
                data=pixels.reshape(-1).view(np.uint8))


def _cloud(points: np.ndarray, header: Any) -> Any:
    values = np.ascontiguousarray(points, '<f4')
    fields = [_new('sensor_msgs/msg/PointField', name=name, offset=4 * place, datatype=_FLOAT32,
                   count=1) for place, name in enumerate('xyz')]
    return _new('sensor_msgs/msg/PointCloud2', header=header, height=1, width=len(values),
                fields=fields, is_bigendian=False, point_step=12, row_step=values.nbytes,
                data=values.reshape(-1).view(np.uint8), is_dense=True)


def _point(position: np.ndarray, kind: str = 'Point') -> Any:
    x, y, z = map(float, position)
    return _new(f'geometry_msgs/msg/{kind}', x=x, y=y, z=z)


def _quaternion(values: tuple[float, ...]) -> Any:
    x, y, z, w = values
    return _new('geometry_msgs/msg/Quaternion', x=x, y=y, z=z, w=w)


def _transform(parent: str, child: str, position: np.ndarray, quaternion: tuple[float, ...],
               stamp: int) -> Any:
    return _new('geometry_msgs/msg/TransformStamped', header=_header(stamp, parent),
                child_frame_id=child, transform=_new(
                    'geometry_msgs/msg/Transform', translation=_point(position, 'Vector3'),
                    rotation=_quaternion(quaternion)))


def _transforms(*transforms: Any) -> Any:
    return _new('tf2_msgs/msg/TFMessage', transforms=list(transforms))
