"""Reader: a bag, ours or anybody's, becomes a clip. Pictures are read when they are asked for."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload
import warnings

import numpy as np
import torch
from torch import Tensor

from infinite_nature_ros.sensor_data import image_array
from infinite_nature_training.bags.clip import ClipError, ClipFrame, ClipInfo
from infinite_nature_training.bags.decoding import picture, points_of
from infinite_nature_training.bags.scan import Scan, Topic
from infinite_nature_training.bags.schema import CUSTOM_DATA_KEY
from infinite_nature_training.bags.stamps import check_stamps, kept_range, partners
from infinite_nature_training.bags.storage import (
    connections_of,
    decode,
    explaining,
    FILES,
    find_clips,
    opened,
)
from infinite_nature_training.bags.topics import find_topics

DEFAULT_SLOP = 0.02
"""Seconds that the stamps of what belongs to one frame may be apart."""


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
        return self.path.stem if self.path.suffix in FILES else self.path.name

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
        with explaining(clip.path):
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
                    connections_of(reader, roles), min(times), max(times) + 1):
                role = roles[connection.topic]
                yield role, count[role], lambda c=connection, d=data: decode(c, d)
                count[role] += 1

    def _frame(self, number: int, parts: dict[str, Any]) -> ClipFrame:
        clip, scale = self._clip, self._clip.info.scene_scale
        disparity, points = parts.get('disparity'), parts.get('points')
        return ClipFrame(
            stamp=int(clip.stamps[number]), picture=picture(parts['image']),
            pose=clip.poses[number:number + 1], intrinsics=clip.intrinsics[number:number + 1],
            disparity=None if disparity is None else image_array(disparity) * np.float32(scale),
            points=None if points is None else points_of(points) / np.float32(scale))


def read_clips(paths: Iterable[str | Path], *, strict: bool = False,
               skipped: Callable[[str], Any] = warnings.warn,
               topics: Mapping[str, str] | None = None,
               slop: float = DEFAULT_SLOP) -> Iterator[Clip]:
    """Read all clips at and below paths, one after the other.

    Args:
        paths: bags and folders of bags.
        strict: raise for a bag that is no clip, instead of skipping it.
        skipped: is told the line that says why, for each that is skipped.
        topics: see :func:`read_clip`.
        slop: see :func:`read_clip`.

    Raises:
        ClipError: if there are no bags; with ``strict``, for the first that is no clip.
    """
    for path in find_clips(paths):
        try:
            clip = read_clip(path, topics=topics, slop=slop)
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
    with explaining(path), opened(path) as reader:
        types = {connection.topic: connection.msgtype for connection in reader.connections
                 if connection.msgcount}
        scan = Scan(find_topics(types, topics or {}), types)
        scan.read(reader)
        return _assemble(path, scan, reader.storage.metadata.custom or {}, round(slop * 1e9))


def _assemble(path: Path, scan: Scan, custom_data: Mapping[str, str], slop: int) -> Clip:
    """Put together what belongs to each picture."""
    text = scan.info or custom_data.get(CUSTOM_DATA_KEY, '')
    info = ClipInfo.from_json(text) if text else ClipInfo(source=str(path), licence='')
    topics = scan.topics()
    order = np.argsort(topics['image'].stamps, kind='stable')
    stamps = topics['image'].stamps[order]
    check_stamps(stamps)
    poses = scan.poses(stamps, slop)
    calibration = scan.calibration(stamps, topics['camera_info'].stamps, slop)
    kept = kept_range(stamps, {'pose': [pose is not None for pose in poses],
                               'camera_info': calibration >= 0}, slop)
    numbers = {role: partners(stamps, topics[role].stamps, slop)[kept]
               for role in ('disparity', 'points') if role in topics}
    world_to_camera = torch.cat(poses[kept])
    world_to_camera[..., 3] /= info.scene_scale
    return Clip(
        path=path, info=info, stamps=stamps[kept], poses=world_to_camera,
        intrinsics=torch.cat([scan.intrinsics[index] for index in calibration[kept]]),
        topics=topics, numbers={'image': order[kept], **numbers},
        notes=tuple(_notes(scan, len(stamps) - (kept.stop - kept.start), bool(text))))


def _notes(scan: Scan, left_out: int, has_info: bool) -> Iterator[str]:
    if left_out:
        yield (f'{left_out} of {len(scan.topics()["image"].stamps)} pictures are left out, before '
               'the first pose or after the last')
    if scan.distorted:
        yield 'the lens distorts, which nobody corrects: rectify the pictures'
    if not has_info:
        yield 'no clip_info: nothing says where the clip is from'
