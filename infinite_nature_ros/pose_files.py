"""Poses of a flight as text, in the formats of TUM and RealEstate10K: written and read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
import math
from pathlib import Path
from types import TracebackType

import numpy as np
import torch
from torch import Tensor
from transforms3d.quaternions import mat2quat, quat2mat

from infinite_nature_ros.camera import check_pose, from_body_frame, to_body_frame

_TUM_COLUMNS = 8
REALESTATE10K_COLUMNS = 19
"""Microseconds, fx fy cx cy, two that are unused, and the rows of the matrix."""

_MIN_QUATERNION_NORM = 1e-3


def pose_of(position: Sequence[float], quaternion: Sequence[float]) -> Tensor:
    """World-to-camera pose of a ``camera_link`` in ``map``.

    Args:
        position: x, y, z.
        quaternion: x, y, z, w; normalised here.

    Returns:
        float64 ``[1, 3, 4]``, in the unit of the position.

    Raises:
        ValueError: if a number isn't finite or the quaternion is zero.
    """
    place, turn = (np.array(values, dtype=np.float64) for values in (position, quaternion))
    if not (np.isfinite(place).all() and np.isfinite(turn).all()):
        raise ValueError(f'the pose holds NaN or infinity: position {place.tolist()}, '
                         f'orientation (x, y, z, w) {turn.tolist()}; give finite numbers')
    norm = math.sqrt(float(turn @ turn))
    if norm < _MIN_QUATERNION_NORM:
        raise ValueError('the orientation is the zero quaternion; '
                         'give w = 1 to look along X')
    # transforms3d has w first.
    rotation = quat2mat(np.roll(turn / norm, 1))
    return from_body_frame(torch.from_numpy(place)[None], torch.from_numpy(rotation)[None])


def place_of(pose: Tensor) -> tuple[np.ndarray, tuple[float, float, float, float]]:
    """Where the ``camera_link`` of a pose is in ``map``: the inverse of :func:`pose_of`.

    Args:
        pose: ``[1, 3, 4]`` world to camera.

    Returns:
        position float64 ``[3]``, in the pose's unit, and quaternion x, y, z, w.
    """
    position, rotation = to_body_frame(pose.detach().double().cpu())
    # transforms3d has w first, and needs float64 with numpy 2.
    w, x, y, z = (float(value) for value in mat2quat(rotation[0].numpy()))
    return position[0].numpy(), (x, y, z, w)


class PoseFiles:
    """Both formats at once, line by line: however the program ends, the lines are there.

    ``poses_tum.txt`` says where ``camera_link`` is in ``map``, as the topic ``pose`` does
    (metres; X forward, Y left, Z up). ``poses_realestate10k.txt`` has microseconds, normalised
    fx fy cx cy, two zeros and the rows of the world-to-camera matrix (metres; OpenCV axes, the
    world level). Numbers have all their digits: read again, they are the same.
    """

    def __init__(self, folder: Path, source: str) -> None:
        """Open both files, in the place of older ones.

        Args:
            folder: where to write.
            source: what the flight was made from; RealEstate10K has the video's address there.

        Raises:
            OSError: if they can't be written.
        """
        self.paths = (folder / 'poses_tum.txt', folder / 'poses_realestate10k.txt')
        # Line buffered.
        self._tum, self._realestate10k = (
            path.open('w', buffering=1, encoding='utf-8') for path in self.paths)
        self._tum.write('# timestamp tx ty tz qx qy qz qw: camera_link in map, metres\n')
        self._realestate10k.write(f'{" ".join(source.split())}\n')

    def add(self, stamp: int, position: Sequence[float], quaternion: Sequence[float],
            intrinsics: Sequence[float]) -> None:
        """Append a pose.

        Args:
            stamp: nanoseconds.
            position: x, y, z of ``camera_link`` in ``map``, metres.
            quaternion: x, y, z, w.
            intrinsics: fx, fy, cx, cy, normalised by width and height.
        """
        seconds = f'{stamp // 10**9}.{stamp % 10**9:09d}'
        self._tum.write(_line(seconds, *position, *quaternion))
        matrix = pose_of(position, quaternion).flatten().tolist()
        self._realestate10k.write(_line(stamp // 1000, *intrinsics, 0, 0, *matrix))

    def close(self) -> None:
        """Close both files; may be called again."""
        self._tum.close()
        self._realestate10k.close()

    def __enter__(self) -> PoseFiles:
        """Return the writer itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        """Close both files."""
        self.close()


def _line(*values: str | float) -> str:
    """Values of a line; a float's ``str`` is the shortest that reads back as the same float."""
    return ' '.join(map(str, values)) + '\n'


def read_poses(path: str | Path) -> Tensor:
    """Read the poses of a TUM or RealEstate10K file; which one it is, its columns tell.

    Empty lines and those that begin with ``#`` are skipped, likewise a last line that lacks its
    end: the program that wrote it was killed.

    Args:
        path: file to read.

    Returns:
        float64 ``[N, 3, 4]`` world to camera in metres, the world as in :class:`PoseFiles`.

    Raises:
        ValueError: if there is no pose, or a line that is none; it is named.
        OSError: if the file can't be read.
    """
    lines = [(number, line.split()) for number, line in enumerate(_complete_lines(path), start=1)
             if line.strip() and not line.startswith('#')]
    # RealEstate10K starts with the address of the video.
    has_title = len(lines) > 1 and len(lines[1][1]) == REALESTATE10K_COLUMNS
    read_line: Callable[[list[float]], Tensor] = _read_tum_line
    columns = _TUM_COLUMNS
    if has_title or (lines and len(lines[0][1]) == REALESTATE10K_COLUMNS):
        read_line, columns = _read_realestate10k_line, REALESTATE10K_COLUMNS
    if has_title and len(lines[0][1]) != columns:
        lines = lines[1:]
    if not lines:
        raise ValueError(f'{path} holds no pose; give a TUM file (timestamp tx ty tz qx qy qz qw) '
                         'or one of RealEstate10K (19 columns)')
    poses = []
    for number, words in lines:
        try:
            if len(words) != columns:
                raise ValueError(f'it has {len(words)} columns')
            poses.append(check_pose(read_line([float(word) for word in words]), 'the pose'))
        except ValueError as error:
            raise ValueError(f'{path}, line {number}: {error}; lines are TUM '
                             f'({_TUM_COLUMNS} columns) or RealEstate10K '
                             f'({REALESTATE10K_COLUMNS})') from error
    return torch.cat(poses)


def _complete_lines(path: str | Path) -> list[str]:
    """Lines of a text file, without a last one that was cut short."""
    text = Path(path).read_text(encoding='utf-8', errors='replace')
    return text[:text.rfind('\n') + 1].splitlines()


def _read_tum_line(values: list[float]) -> Tensor:
    """Pose ``[1, 3, 4]`` of timestamp tx ty tz qx qy qz qw."""
    return pose_of(values[1:4], values[4:])


def _read_realestate10k_line(values: list[float]) -> Tensor:
    """Pose ``[1, 3, 4]``."""
    return RealEstate10KLine.from_columns(values).pose


@dataclass(frozen=True, eq=False)
class RealEstate10KLine:
    """A frame as RealEstate10K and ACID write it: 19 numbers, by what they mean.

    Attributes:
        microseconds: time of the frame in its video.
        intrinsics: float64 ``[1, 4]`` fx, fy, cx, cy, normalised by width and height.
        unused: two numbers, zeros in the datasets; others write distortion there.
        pose: float64 ``[1, 3, 4]`` world to camera, OpenCV axes, as it was written: not checked.
    """

    microseconds: float
    intrinsics: Tensor
    unused: tuple[float, float]
    pose: Tensor

    @classmethod
    def from_columns(cls, values: Sequence[float]) -> RealEstate10KLine:
        """Part the numbers of a line, of which there are ``REALESTATE10K_COLUMNS``."""
        microseconds, *intrinsics = values[:5]
        return cls(microseconds, torch.tensor([intrinsics], dtype=torch.float64),
                   (values[5], values[6]),
                   torch.tensor(values[7:], dtype=torch.float64).reshape(1, 3, 4))
