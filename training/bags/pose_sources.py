"""Poses of the camera at any time, from PoseStamped, Odometry or tf."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
import math
from typing import Any

from torch import Tensor

from infinite_nature_ros.camera import compose, interpolate_poses
from infinite_nature_ros.pose_files import pose_of
from infinite_nature_training.bags.clip import ClipError
from infinite_nature_training.bags.schema import OPTICAL_QUATERNION
from infinite_nature_training.bags.stamps import stamp_of

# As tf2 has it.
_QUATERNION_TOLERANCE = 0.01

_X, _Y, _Z, _W = OPTICAL_QUATERNION

# Poses are those of body axes (X forward); in an optical frame sits such a body, turned back.
_BODY_IN_OPTICAL = pose_of((0, 0, 0), (-_X, -_Y, -_Z, _W))


class Track:
    """Poses over time."""

    def __init__(self) -> None:
        self.stamps: list[int] = []
        self._poses: list[Tensor] = []

    def add(self, stamp: int, place: Any, turn: Any) -> None:
        """Remember a pose.

        Args:
            stamp: nanoseconds, in any order.
            place: message with x, y, z, metres.
            turn: message with x, y, z, w.

        Raises:
            ClipError: if it is no pose.
        """
        length = math.hypot(turn.x, turn.y, turn.z, turn.w)
        if abs(length - 1) > _QUATERNION_TOLERANCE:
            raise ClipError(f'pose at {stamp} ns: the quaternion has the length {length:.3g}; '
                            'give one of length 1')
        try:
            pose = pose_of((place.x, place.y, place.z), (turn.x, turn.y, turn.z, turn.w))
        except ValueError as error:
            raise ClipError(f'pose at {stamp} ns: {error}') from error
        # Almost always the end.
        index = bisect_right(self.stamps, stamp)
        self.stamps.insert(index, stamp)
        self._poses.insert(index, pose)

    def at(self, stamp: int, slop: int) -> Tensor | None:
        """Pose ``[1, 3, 4]`` at a time, on the way between two; ``None`` beyond the slop (ns)."""
        after = bisect_left(self.stamps, stamp)
        near = range(max(0, after - 1), min(len(self.stamps), after + 1))
        if not any(abs(self.stamps[index] - stamp) <= slop for index in near):
            return None
        if len(near) == 1 or self.stamps[after] == stamp:
            return self._poses[min(after, len(self.stamps) - 1)]
        begin, end = (self.stamps[index] for index in near)
        return interpolate_poses(*(self._poses[index] for index in near),
                                 (stamp - begin) / (end - begin))


class TransformTree:
    """Transforms of /tf and /tf_static: where a frame is in those above it."""

    def __init__(self) -> None:
        self._parents: dict[str, str] = {}
        self._tracks: dict[str, Track] = {}
        self._static: set[str] = set()

    def add(self, message: Any, static: bool) -> None:
        """Take the transforms of a message; one that is static holds for all times."""
        for transform in message.transforms:
            child = transform.child_frame_id
            self._parents[child] = transform.header.frame_id
            if static:
                self._static.add(child)
            self._tracks.setdefault(child, Track()).add(
                stamp_of(transform), transform.transform.translation,
                transform.transform.rotation)

    def moves(self, frame: str) -> bool:
        """Whether a frame has any moving one between itself and the root."""
        return any(name not in self._static for name in self._way_up(frame))

    def is_below(self, frame: str, ancestor: str) -> bool:
        """Whether a frame hangs on another one."""
        return any(self._parents[name] == ancestor for name in self._way_up(frame))

    def camera_pose(self, optical: str, stamp: int, slop: int,
                    ancestor: str = '') -> Tensor | None:
        """Pose of the camera of an optical frame, in an ancestor of that or in the root.

        Returns:
            ``[1, 3, 4]`` world to camera, metres; ``None`` where a transform is missing.
        """
        pose = _BODY_IN_OPTICAL
        for frame in self._way_up(optical):
            if frame == ancestor:
                break
            track = self._tracks[frame]
            step = track.at(*((track.stamps[-1], 0) if frame in self._static
                              else (stamp, slop)))
            if step is None:
                return None
            pose = compose(pose, step)
        return pose

    def _way_up(self, frame: str) -> Iterator[str]:
        """Yield a frame, its parent and so on, without the root."""
        seen = set()
        while frame in self._parents:
            if frame in seen:
                raise ClipError(f'the transforms go round in a circle at {frame}')
            seen.add(frame)
            yield frame
            frame = self._parents[frame]
