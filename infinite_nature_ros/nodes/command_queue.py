"""Poses that wait to be flown: in order, each once, or only the newest."""

from __future__ import annotations

from collections import deque

from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Path
from torch import Tensor

from infinite_nature_ros.camera import check_pose
from infinite_nature_ros.nodes.messages import pose_from_message, stamp_of


class CommandQueue:
    """Commanded poses, checked when they come in.

    A trajectory waits beside the single poses: it's fed in pose by pose, at its own rate.
    """

    def __init__(self, mode: str, map_frame_id: str, scene_scale: float) -> None:
        """Start empty.

        Args:
            mode: ``every`` keeps all poses in order, ``latest`` only the newest.
            map_frame_id: frame that poses must be given in.
            scene_scale: metres per scene unit.
        """
        self._frame_id = map_frame_id
        self._scene_scale = scene_scale
        self._poses: deque[tuple[Tensor, PoseStamped | None]] = deque(
            maxlen=None if mode == 'every' else 1)
        self._trajectory: deque[Tensor] = deque()
        self._last: PoseStamped | None = None
        self._popped: PoseStamped | None = None

    def __len__(self) -> int:
        """Count the single poses that wait."""
        return len(self._poses)

    @property
    def trajectory_left(self) -> int:
        """Poses of the trajectory that wait."""
        return len(self._trajectory)

    @property
    def popped(self) -> PoseStamped | None:
        """The last single command that was taken to be flown."""
        return self._popped

    def resume(self, command: PoseStamped | None) -> None:
        """Go on after an earlier run, whose last flown command may be sent again."""
        self._last = self._popped = command

    def add(self, command: PoseStamped) -> bool:
        """Append a command; ``False`` if it's the last one, sent again.

        A sender that got no answer repeats its command, stamp and all. Commands without a stamp
        (0) are never taken for repeated.

        Raises:
            ValueError: if the frame, a number or the quaternion can't be used.
        """
        pose = self._checked(command, command.header.frame_id)
        if command == self._last and stamp_of(command) != (0, 0):
            return False
        self._last = command
        self._poses.append((pose, command))
        return True

    def start_trajectory(self, trajectory: Path) -> None:
        """Take a trajectory instead of what is left of the last one.

        Raises:
            ValueError: if any pose can't be used; the last trajectory then goes on.
        """
        frame_id = trajectory.header.frame_id
        self._trajectory = deque([
            self._checked(pose, pose.header.frame_id or frame_id) for pose in trajectory.poses])

    def feed_trajectory(self) -> None:
        """Let the trajectory's next pose wait to be flown, unless the last one still does."""
        if self._trajectory and not self._poses:
            self._poses.append((self._trajectory.popleft(), None))

    def pop(self) -> Tensor | None:
        """Take the pose ``[1, 3, 4]``, float64, to fly next; ``None`` if none waits."""
        if not self._poses:
            return None
        pose, command = self._poses.popleft()
        self._popped = command or self._popped
        return pose

    def clear(self) -> None:
        """Drop all that waits."""
        self._poses.clear()
        self._trajectory.clear()

    def _checked(self, command: PoseStamped, frame_id: str) -> Tensor:
        """Pose of a command, world to camera ``[1, 3, 4]``, if it can be flown in float32."""
        if frame_id != self._frame_id:
            raise ValueError(f'its frame_id is {frame_id!r}; '
                             f"give the camera's pose in {self._frame_id!r}")
        pose = pose_from_message(command.pose, self._scene_scale)
        check_pose(pose.float(), 'the pose')
        return pose
