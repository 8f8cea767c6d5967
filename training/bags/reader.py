"""Reader: a bag, ours or anybody's, becomes a clip. Pictures are read when they are asked for."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
import os
from pathlib import Path
from typing import Any, overload
import warnings

import numpy as np
from rosbags.interfaces import Connection
from rosbags.rosbag2 import Reader
import torch
from torch import Tensor

from infinite_nature_ros.camera import compose
from infinite_nature_ros.sensor_data import (
    ENCODINGS,
    image_array,
    intrinsics_of,
    rgb_array,
    unknown_encoding,
)
from infinite_nature_training.bags.clip import ClipError, ClipFrame, ClipInfo
from infinite_nature_training.bags.pose_sources import stamp_of, Track, TransformTree
from infinite_nature_training.bags.schema import CUSTOM_DATA_KEY, typestore
from infinite_nature_training.bags.topics import (
    find_topics,
    ODOMETRY,
    of_type,
    STRING,
    TRANSFORMS,
)

DEFAULT_SLOP = 0.02
"""Seconds that the stamps of what belongs to one frame may be apart."""

_FILES = ('.mcap', '.db3')
_METADATA = 'metadata.yaml'
_PICTURES = (b'\xff\xd8\xff', b'\x89PNG')
_FLOAT32 = 7


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


@dataclass(frozen=True, eq=False)
class Clip:
    """A clip of a bag. Poses and intrinsics are in memory, pictures, disparity and points aren't.

    Attributes:
        path: the bag: a folder with ``metadata.yaml``, or a file.
        info: where it comes from; a foreign bag has its path as source and no licence.
        stamps: int64 ``[N]`` nanoseconds of the frames.
        poses: float64 ``[N, 3, 4]`` world to camera, scene units.
        intrinsics: float64 ``[N, 4]``, normalised.
        topics: topics by role: image, camera_info, disparity, points, and pose unless it's tf.
        notes: what a user of the clip should know, in words.
        numbers: by role, which message of its topic belongs to a frame, ``[N]``; -1 none.
    """

    path: Path
    info: ClipInfo
    stamps: np.ndarray
    poses: Tensor
    intrinsics: Tensor
    topics: dict[str, Topic]
    notes: tuple[str, ...]
    numbers: dict[str, np.ndarray]

    @property
    def name(self) -> str:
        """Name of the bag, without the folders above it."""
        return self.path.stem if self.path.suffix in _FILES else self.path.name

    @property
    def frames(self) -> ClipFrames:
        """Frames in the order of their stamps, read from the bag at every access."""
        return ClipFrames(self)


class ClipFrames(Sequence[ClipFrame]):
    """Frames of a clip. To go through them reads the bag once and holds one at a time.

    A single frame or a slice seeks; a bag without an index (its recorder was killed) is read
    from its beginning for that. The bag is open during a read only, so that thousands of clips
    can be at hand, also in other processes.
    """

    def __init__(self, clip: Clip) -> None:
        """Take the clip that tells which messages belong to a frame."""
        self._clip = clip

    def __len__(self) -> int:
        """Count the frames."""
        return len(self._clip.stamps)

    def __iter__(self) -> Iterator[ClipFrame]:
        """Read all frames in one pass.

        Raises:
            ClipError: if the bag has been damaged since.
        """
        return self._read(range(len(self)))

    @overload
    def __getitem__(self, index: int) -> ClipFrame: ...

    @overload
    def __getitem__(self, index: slice) -> list[ClipFrame]: ...

    def __getitem__(self, index: int | slice) -> ClipFrame | list[ClipFrame]:
        """Read a frame, or those of a slice.

        Raises:
            IndexError: if there is no such frame.
            ClipError: if the bag has been damaged since.
        """
        if isinstance(index, int):
            number = range(len(self))[index]
            frame, = self._read(range(number, number + 1))
            return frame
        numbers = range(len(self))[index]
        if numbers.step < 0:
            return list(self._read(numbers[::-1]))[::-1]
        return list(self._read(numbers))

    def _read(self, numbers: range) -> Iterator[ClipFrame]:
        """Yield frames, whose numbers go up; what comes too early in the bag waits."""
        clip = self._clip
        wanted = {(role, int(of_frames[number])): number for number in numbers
                  for role, of_frames in clip.numbers.items() if of_frames[number] >= 0}
        open_parts = Counter(wanted.values())
        parts: dict[int, dict[str, Any]] = defaultdict(dict)
        coming = iter(numbers)
        following = next(coming, None)
        with _explaining(clip.path):
            for role, index, message in self._messages(wanted):
                number = wanted.pop((role, index), None)
                if number is None:
                    continue
                parts[number][role] = message()
                open_parts[number] -= 1
                while following is not None and not open_parts[following]:
                    yield self._frame(following, parts.pop(following))
                    following = next(coming, None)
                if following is None:
                    return
            if following is not None:
                raise ClipError(f'the frame at {clip.stamps[following]} ns is gone; '
                                'the bag has changed since it was opened')

    def _messages(self, wanted: Iterable[tuple[str, int]]
                  ) -> Iterator[tuple[str, int, Callable[[], Any]]]:
        """Yield role, number in its topic and decoder of messages, where the wanted ones are."""
        topics = self._clip.topics
        times = [int(topics[role].times[index]) for role, index in wanted]
        if not times:
            return
        roles = {topics[role].name: role for role in self._clip.numbers}
        count = {role: int((topics[role].times < min(times)).sum()) for role in roles.values()}
        with opened(self._clip.path) as reader:
            for connection, _, data in reader.messages(
                    _connections(reader, roles), min(times), max(times) + 1):
                role = roles[connection.topic]
                yield role, count[role], lambda c=connection, d=data: decode(c, d)
                count[role] += 1

    def _frame(self, number: int, parts: dict[str, Any]) -> ClipFrame:
        clip, scale = self._clip, self._clip.info.scene_scale
        disparity, points = parts.get('disparity'), parts.get('points')
        return ClipFrame(
            stamp=int(clip.stamps[number]), picture=_picture(parts['image']),
            pose=clip.poses[number:number + 1], intrinsics=clip.intrinsics[number:number + 1],
            disparity=None if disparity is None else image_array(disparity) * np.float32(scale),
            points=None if points is None else _points(points) / np.float32(scale))


def find_clips(paths: Iterable[str | Path]) -> list[Path]:
    """Bags at and below paths: folders with ``metadata.yaml``, and .mcap and .db3 files alone.

    Hidden folders, where unfinished bags are, are passed over.

    Raises:
        ClipError: if a path doesn't exist, or there is no bag at or below it.
    """
    found: set[Path] = set()
    for path in map(Path, paths):
        if not path.exists():
            raise ClipError(f'{path} does not exist; give a bag or a folder of bags')
        bags = set(_bags_below(path)) if path.is_dir() else {path}
        if not bags:
            raise ClipError(f'no bag in {path}; a bag is a folder with {_METADATA}, '
                            'or an .mcap or .db3 file')
        found |= bags
    return sorted(found)


def _bags_below(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        if _METADATA in files:
            folders.clear()
            yield Path(place)
            continue
        folders[:] = [name for name in folders if not name.startswith('.')]
        yield from (Path(place, name) for name in files
                    if name.endswith(_FILES) and not name.startswith('.'))


def read_clips(paths: Iterable[str | Path], *, strict: bool = False,
               skipped: Callable[[str], Any] = warnings.warn) -> Iterator[Clip]:
    """Read all clips at and below paths, one after the other.

    Args:
        paths: bags and folders of bags.
        strict: raise for a bag that is no clip, instead of skipping it.
        skipped: is told the line that says why, for each that is skipped.

    Raises:
        ClipError: if there are no bags; with ``strict``, for the first that is no clip.
    """
    for path in find_clips(paths):
        try:
            clip = read_clip(path)
        except ClipError as error:
            if strict:
                raise
            skipped(f'skipped: {error}')
        else:
            yield clip


def read_clip(path: str | Path, *, topics: Mapping[str, str] | None = None,
              slop: float = DEFAULT_SLOP) -> Clip:
    """Read what a bag says of its frames; pictures are checked for their encoding only.

    Poses come from PoseStamped (``camera_link`` in ``map``), else from Odometry (through the
    transforms to the camera, where there are any), else from /tf; between two they are
    interpolated. Pictures before the first and after the last pose are left out.

    Args:
        path: folder with ``metadata.yaml``, or an .mcap or .db3 file.
        topics: topic by role (image, camera_info, pose, disparity, points), where types and
            names don't tell.
        slop: seconds that stamps of what belongs together may be apart.

    Raises:
        ClipError: if it is no clip: pictures, camera_info or poses are missing or contradict
            each other, an encoding isn't known, or the bag is damaged or cut short.
    """
    path = Path(path)
    with _explaining(path), opened(path) as reader:
        types = {connection.topic: connection.msgtype for connection in reader.connections
                 if connection.msgcount}
        scan = _Scan(find_topics(types, topics or {}), types)
        scan.read(reader)
        return scan.clip(path, reader.storage.metadata.custom or {}, round(slop * 1e9))


@contextmanager
def opened(path: Path) -> Iterator[Reader]:
    """Bag open for reading.

    Raises:
        ClipError: if there is none.
    """
    if not path.exists():
        raise ClipError('it does not exist; check the path')
    if path.is_dir() and not (path / _METADATA).exists():
        raise ClipError(f'{_METADATA} is missing; give the .mcap or .db3 file in it, '
                        f'or say: ros2 bag reindex {path}')
    if path.is_file() and path.suffix not in _FILES:
        raise ClipError(f'a bag is a folder with {_METADATA}, or an .mcap or .db3 file')
    with Reader(path) as reader:
        yield reader


@contextmanager
def _explaining(path: Path) -> Iterator[None]:
    """Turn what any library raises about a bag into a ClipError with its path."""
    try:
        yield
    except ClipError as error:
        raise ClipError(f'{path}: {error}') from error
    # Damaged files surface as almost any exception, by storage and compression.
    except Exception as error:
        raise ClipError(f'{path} is damaged or cut short ({type(error).__name__}: {error}); '
                        'copy it again, or repair it (mcap recover)') from error


def decode(connection: Connection, data: bytes) -> Any:
    """Message of a connection.

    The types that clips need are the same in all releases of ROS 2, so definitions in the bag
    aren't asked, and those of its other types can't stop anything.
    """
    return typestore().deserialize_cdr(data, connection.msgtype)


def _connections(reader: Reader, topics: Iterable[str]) -> list[Connection]:
    return [connection for connection in reader.connections if connection.topic in topics]


class _Scan:
    """One pass over a bag: everything but pixels is kept."""

    def __init__(self, roles: Mapping[str, str], types: Mapping[str, str]) -> None:
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
        self._intrinsics: list[Tensor] = []
        self._distorted = False
        self._track = Track()
        self._tree = TransformTree()
        self._bodies: set[str] = set()
        self._info = ''

    def read(self, reader: Reader) -> None:
        """Take all messages of interest."""
        names = {*self._roles, *self._transforms, *self._info_topics}
        for connection, time, data in reader.messages(_connections(reader, names)):
            message = decode(connection, data)
            if connection.topic in self._transforms:
                self._tree.add(message, static=connection.topic.endswith('tf_static'))
            elif connection.topic in self._info_topics:
                self._info = message.data
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
            self._intrinsics.append(_explained(intrinsics_of, message))
            self._distorted |= bool(np.any(message.d))
        elif role in ('image', 'disparity'):
            _check_encoding(role, message)
        if hasattr(message, 'width') and role != 'points':
            self._sizes[role].add((message.height, message.width))

    def _take_pose(self, stamp: int, message: Any) -> None:
        pose = message.pose
        if self._types[self._names['pose']] == ODOMETRY:
            pose = pose.pose
            self._bodies.add(message.child_frame_id)
        self._track.add(stamp, pose.position, pose.orientation)

    def clip(self, path: Path, custom_data: Mapping[str, str], slop: int) -> Clip:
        """Put together what belongs to each picture."""
        text = self._info or custom_data.get(CUSTOM_DATA_KEY, '')
        info = ClipInfo.from_json(text) if text else ClipInfo(source=str(path), licence='')
        topics = self._topics()
        order = np.argsort(topics['image'].stamps, kind='stable')
        stamps = topics['image'].stamps[order]
        _check_stamps(stamps)
        poses = self._poses(stamps, slop)
        calibration = self._calibration(stamps, topics['camera_info'].stamps, slop)
        kept = _kept(stamps, {'pose': [pose is not None for pose in poses],
                              'camera_info': calibration >= 0}, slop)
        numbers = {role: _partners(stamps, topics[role].stamps, slop)[kept]
                   for role in ('disparity', 'points') if role in topics}
        world_to_camera = torch.cat(poses[kept])
        world_to_camera[..., 3] /= info.scene_scale
        return Clip(
            path=path, info=info, stamps=stamps[kept], poses=world_to_camera,
            intrinsics=torch.cat([self._intrinsics[index] for index in calibration[kept]]),
            topics=topics, numbers={'image': order[kept], **numbers},
            notes=tuple(self._notes(len(stamps) - (kept.stop - kept.start), text)))

    def _notes(self, left_out: int, clip_info: str) -> Iterator[str]:
        if left_out:
            yield f'{left_out} pictures before the first pose or after the last are left out'
        if self._distorted:
            yield 'the lens distorts, which nobody corrects: rectify the pictures'
        if not clip_info:
            yield 'no clip_info: nothing says where the clip is from'

    def _topics(self) -> dict[str, Topic]:
        return {role: Topic(
            name=name, type=self._types[name],
            stamps=np.array(self._stamps[role], np.int64),
            times=np.array(self._times[role], np.int64),
            frame_ids=frozenset(self._frame_ids[role]), sizes=frozenset(self._sizes[role]))
            for role, name in self._names.items()}

    def _poses(self, stamps: np.ndarray, slop: int) -> list[Tensor | None]:
        """Pose of the camera at each stamp, metres."""
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

    def _calibration(self, stamps: np.ndarray, infos: np.ndarray, slop: int) -> np.ndarray:
        """Which camera_info belongs to each picture; a single one belongs to all."""
        if len(infos) == 1:
            return np.zeros(len(stamps), int)
        nearest = _nearest(stamps, infos)
        return np.where(np.abs(infos[nearest] - stamps) <= slop, nearest, -1)


def _mounted(body: Tensor | None, mount: Tensor | None) -> Tensor | None:
    """Pose of a camera on a body."""
    return None if body is None or mount is None else compose(mount, body)


def _nearest(stamps: np.ndarray, others: np.ndarray) -> np.ndarray:
    """For each stamp, the index of the nearest other one."""
    order = np.argsort(others, kind='stable')
    ordered = others[order]
    after = np.searchsorted(ordered, stamps).clip(max=len(others) - 1)
    before = (after - 1).clip(min=0)
    closer = np.abs(stamps - ordered[before]) < np.abs(ordered[after] - stamps)
    return order[np.where(closer, before, after)]


def _partners(stamps: np.ndarray, others: np.ndarray, slop: int) -> np.ndarray:
    """For each stamp, the other that is within the slop and has no nearer one; else -1."""
    nearest = _nearest(stamps, others)
    mutual = _nearest(others, stamps)[nearest] == np.arange(len(stamps))
    return np.where(mutual & (np.abs(others[nearest] - stamps) <= slop), nearest, -1)


def _check_stamps(stamps: np.ndarray) -> None:
    same = np.flatnonzero(np.diff(stamps) == 0)
    if len(same):
        raise ClipError(f'{len(same) + 1} pictures share stamps, the first {stamps[same[0]]} ns; '
                        'record with the stamp of each picture in its header')


def _kept(stamps: np.ndarray, known: Mapping[str, Sequence[bool]], slop: int) -> slice:
    """Range of pictures of which everything is known.

    Raises:
        ClipError: if there is none, or one in the middle lacks something.
    """
    for name, values in known.items():
        there = np.flatnonzero(values)
        if not len(there):
            raise ClipError(f'no {name} within {slop / 1e9:g} s of any picture; give more --slop, '
                            'or record them with the stamps of the pictures')
        missing = np.setdiff1d(np.arange(there[0], there[-1]), there)
        if len(missing):
            raise ClipError(
                f'{len(missing)} of {len(stamps)} pictures have no {name} within '
                f'{slop / 1e9:g} s, the first at {stamps[missing[0]]} ns; give more --slop, '
                'or cut the bag there')
    there = np.flatnonzero(np.logical_and.reduce([np.asarray(values)
                                                  for values in known.values()]))
    if not len(there):
        raise ClipError(f'no picture has both {" and ".join(known)} within {slop / 1e9:g} s')
    return slice(int(there[0]), int(there[-1]) + 1)


def _explained(read: Callable[[Any], Any], message: Any) -> Any:
    """Read a message; what is wrong with it is wrong with the clip."""
    try:
        return read(message)
    except ValueError as error:
        raise ClipError(str(error)) from error


def _check_encoding(role: str, message: Any) -> None:
    """Refuse what :func:`_picture` and :func:`image_array` can't decode."""
    if role == 'disparity':
        if message.encoding != '32FC1':
            raise ClipError(f'the disparity is {message.encoding!r}; give 32FC1, 1 / metres')
    elif hasattr(message, 'encoding'):
        if message.encoding not in ENCODINGS or message.encoding == '32FC1':
            raise ClipError(unknown_encoding(message))
    elif not message.data[:4].tobytes().startswith(_PICTURES):
        raise ClipError(f'compressed pictures are {message.format!r}; give JPEG or PNG')


def _picture(message: Any) -> bytes | np.ndarray:
    """Picture of an Image or CompressedImage."""
    if hasattr(message, 'encoding'):
        return _explained(rgb_array, message)
    return message.data.tobytes()


def _points(message: Any) -> np.ndarray:
    """Points of a cloud, float32 ``[K, 3]``."""
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
