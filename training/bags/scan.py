"""What a bag says of a clip, but for its pixels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from rosbags.rosbag2 import Reader
from torch import Tensor

from infinite_nature_ros.camera import compose
from infinite_nature_ros.sensor_data import intrinsics_of
from infinite_nature_training.bags.clip import ClipError
from infinite_nature_training.bags.decoding import check_encoding, explained
from infinite_nature_training.bags.pose_sources import Track, TransformTree
from infinite_nature_training.bags.stamps import nearest, stamp_of
from infinite_nature_training.bags.storage import connections_of, decode
from infinite_nature_training.bags.topics import ODOMETRY, of_type, STRING, TRANSFORMS


@dataclass(frozen=True)
class Topic:
    """A topic of a bag, as far as a clip needs it.

    Attributes:
        name: its name.
        type: type of its messages.
        stamps: int64 ``[M]`` nanoseconds in the headers of its messages, in the bag's order.
        times: int64 ``[M]`` nanoseconds under which the bag has them.
        frame_ids: frames that the headers name.
        sizes: heights and widths that images and camera_info say.
    """

    name: str
    type: str
    stamps: np.ndarray
    times: np.ndarray
    frame_ids: frozenset[str]
    sizes: frozenset[tuple[int, int]]


class Scan:
    """One pass over a bag: everything but pixels is kept.

    Attributes:
        intrinsics: float64 ``[1, 4]`` of each message of camera_info.
        distorted: whether one says a lens distortion.
        info: text of clip_info, '' without.
    """

    def __init__(self, roles: Mapping[str, str], types: Mapping[str, str]) -> None:
        """Say what to look for.

        Args:
            roles: topic by role, as :func:`find_topics` finds them.
            types: message type by topic.
        """
        self._types = types
        self._names = dict(roles)
        if types[roles['pose']] == TRANSFORMS:
            del self._names['pose']
        self._transforms = of_type(types, TRANSFORMS)
        self._info_topics = [topic for topic in of_type(types, STRING)
                             if topic.endswith('/clip_info')][:1]
        self._roles = {name: role for role, name in self._names.items()}
        self._stamps: dict[str, list[int]] = defaultdict(list)
        self._times: dict[str, list[int]] = defaultdict(list)
        self._frame_ids: dict[str, set[str]] = defaultdict(set)
        self._sizes: dict[str, set[tuple[int, int]]] = defaultdict(set)
        self.intrinsics: list[Tensor] = []
        self.distorted = False
        self._track = Track()
        self._tree = TransformTree()
        self._bodies: set[str] = set()
        self.info = ''

    def read(self, reader: Reader) -> None:
        """Take all messages of interest.

        Raises:
            ClipError: if one can't be used.
        """
        names = {*self._roles, *self._transforms, *self._info_topics}
        for connection, time, data in reader.messages(connections_of(reader, names)):
            message = decode(connection, data)
            if connection.topic in self._transforms:
                self._tree.add(message, static=connection.topic.endswith('tf_static'))
            elif connection.topic in self._info_topics:
                self.info = message.data
            else:
                self._take(self._roles[connection.topic], time, message)

    def _take(self, role: str, time: int, message: Any) -> None:
        stamp = stamp_of(message)
        self._stamps[role].append(stamp)
        self._times[role].append(time)
        self._frame_ids[role].add(message.header.frame_id)
        if role == 'pose':
            self._take_pose(stamp, message)
        elif role == 'camera_info':
            self.intrinsics.append(explained(intrinsics_of, message))
            self.distorted |= bool(np.any(message.d))
        elif role in ('image', 'disparity'):
            check_encoding(role, message)
        if hasattr(message, 'width') and role != 'points':
            self._sizes[role].add((message.height, message.width))

    def _take_pose(self, stamp: int, message: Any) -> None:
        pose = message.pose
        if self._types[self._names['pose']] == ODOMETRY:
            pose = pose.pose
            self._bodies.add(message.child_frame_id)
        self._track.add(stamp, pose.position, pose.orientation)

    def topics(self) -> dict[str, Topic]:
        """Topics by role, without poses that are on /tf."""
        return {role: Topic(
            name=name, type=self._types[name],
            stamps=np.array(self._stamps[role], np.int64),
            times=np.array(self._times[role], np.int64),
            frame_ids=frozenset(self._frame_ids[role]), sizes=frozenset(self._sizes[role]))
            for role, name in self._names.items()}

    def poses(self, stamps: np.ndarray, slop: int) -> list[Tensor | None]:
        """Poses ``[1, 3, 4]`` of the camera at each stamp, metres; ``None`` beyond the slop.

        Raises:
            ClipError: if they are on /tf, and nothing moves the camera there.
        """
        optical = min(self._frame_ids['image'])
        if 'pose' not in self._names:
            if not self._tree.moves(optical):
                raise ClipError('no poses: the transforms on /tf do not move the frame of the '
                                f'pictures, {optical!r}')
            return [self._tree.camera_pose(optical, stamp, slop) for stamp in stamps.tolist()]
        mounts = [body for body in self._bodies if self._tree.is_below(optical, body)]
        poses = [self._track.at(stamp, slop) for stamp in stamps.tolist()]
        if not mounts:
            return poses
        return [_mounted(pose, self._tree.camera_pose(optical, stamp, slop, mounts[0]))
                for pose, stamp in zip(poses, stamps.tolist(), strict=True)]

    def calibration(self, stamps: np.ndarray, infos: np.ndarray, slop: int) -> np.ndarray:
        """Which camera_info belongs to each stamp, -1 none; a single one belongs to all."""
        if len(infos) == 1:
            return np.zeros(len(stamps), int)
        closest = nearest(stamps, infos)
        return np.where(np.abs(infos[closest] - stamps) <= slop, closest, -1)


def _mounted(body: Tensor | None, mount: Tensor | None) -> Tensor | None:
    """Pose of a camera on a body."""
    return None if body is None or mount is None else compose(mount, body)
