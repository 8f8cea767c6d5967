"""Scale: the near plane of a clip, its level, and disparity aligned to the tracked points."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from infinite_nature_ros import camera
from infinite_nature_ros.pixels import from_pixels
from infinite_nature_ros.skyline import find_skyline
from infinite_nature_training.bags import ClipError

NEAR_PLANE = 1.25
"""Scene units between the camera and the nearest points (Zhou et al., 2018, section 4)."""

# The near plane of a frame is this percentile of its points' depths, that of the clip is this
# percentile of its frames' (Zhou et al., 2018): single bad points don't decide.
_NEAR_POINTS, _NEAR_FRAMES = 5, 10

MIN_POINTS = 30
"""Frames with fewer tracked points can't be aligned."""

# A path is compared with the sky in so many parts, where the sky's edge is steadier than this
# (degrees). The bent path of a straight flight turns by tens of degrees.
_PARTS, _STEADY, _MOST_TURNED = 5, 8.0, 15.0

# The sky's edge isn't in the picture where the sky fills less or more of a column than this.
_BORDER = 0.02


def near_plane_scale(points: list[np.ndarray]) -> float:
    """Scene units per unit of the structure, so that the near plane is at 1.25.

    Args:
        points: points ``[K, 3]`` seen in each frame, camera axes.

    Raises:
        ClipError: if no frame has enough points.
    """
    near = [np.percentile(seen[:, 2], _NEAR_POINTS) for seen in points if len(seen) >= MIN_POINTS]
    if not near:
        raise ClipError(f'no frame sees {MIN_POINTS} points in space; the picture has too little '
                        'texture, or the motion does not fit a still scene')
    return NEAR_PLANE / float(np.percentile(near, _NEAR_FRAMES))


def find_down(image: np.ndarray, sky: np.ndarray, intrinsics: np.ndarray) -> np.ndarray | None:
    """Direction ``[3]`` of gravity in camera axes, as the skyline of a frame says.

    Args:
        image: uint8 ``[H, W, 3]``.
        sky: bool ``[H, W]``.
        intrinsics: ``[4]`` normalised.

    Returns:
        A unit vector; ``None`` without sky.
    """
    if not sky.any():
        return None
    skyline = find_skyline(from_pixels(image)[None], torch.from_numpy(sky)[None, None].float())
    pitch = camera.pitch_of_skyline(skyline.row, torch.from_numpy(intrinsics)[None].float())
    return camera.level_pose(pitch, skyline.tilt)[0, :, 1].double().numpy()


def find_sky_edge(sky: np.ndarray, intrinsics: np.ndarray) -> np.ndarray | None:
    """Direction ``[3]`` of gravity if the sky's lower edge were the horizon.

    Mountains raise the edge, but not suddenly: it tells turns, where ``find_down`` may guess.

    Args:
        sky: bool ``[H, W]``.
        intrinsics: ``[4]`` normalised.

    Returns:
        A unit vector in camera axes; ``None`` where too little of the edge is in the picture.
    """
    edge, across = sky.mean(0), (np.arange(sky.shape[1]) + 0.5) / sky.shape[1] - 0.5
    inside = (edge > _BORDER) & (edge < 1 - _BORDER)
    if inside.mean() < 0.5:
        return None
    edge, across = edge[inside], across[inside]
    # Median of the slopes between columns half the edge apart (Theil and Sen).
    half = len(edge) // 2
    slope = np.median((edge[half:2 * half] - edge[:half]) / (across[half:2 * half] - across[:half]))
    row = float(np.median(edge - slope * across))
    tilt = -np.arctan(slope * sky.shape[0] / sky.shape[1])
    pitch = camera.pitch_of_skyline(row, torch.from_numpy(intrinsics)[None].float())
    return camera.level_pose(pitch, float(tilt))[0, :, 1].double().numpy()


def level_world(poses: np.ndarray, downs: Sequence[np.ndarray | None]) -> np.ndarray:
    """Poses in a level world that starts at the first of them and looks its way.

    A single skyline may be a guess: the median of all frames counts.

    Args:
        poses: ``[F, 3, 4]`` world to camera.
        downs: direction of gravity in each frame's camera axes, or ``None``.

    Returns:
        ``[F, 3, 4]``.
    """
    seen = _in_world(poses, downs)
    return _start_at_first(poses, _median(seen) if seen else poses[0, 1, :3])


def turn_against_sky(poses: np.ndarray, edges: Sequence[np.ndarray | None]) -> float | None:
    """Largest angle in degrees by which a path turns while the sky's edge in the picture doesn't.

    The sky knows nothing of the points, so it tells on a path that bends although it fits them.

    Args:
        poses: ``[F, 3, 4]`` world to camera.
        edges: of ``find_sky_edge`` for each frame.

    Returns:
        The angle; ``None`` where the sky shows in too few parts of the path to compare.

    Raises:
        ClipError: if it is so large that the path must be wrong.
    """
    parts = [[number for number in part if edges[number] is not None]
             for part in np.array_split(np.arange(len(poses)), _PARTS)]
    parts = [part for part in parts if part]
    if len(parts) < 2:
        return None
    seen = [[edges[number] for number in part] for part in parts]
    in_camera = _angles([_median(directions) for directions in seen])
    in_world = _angles([_median(_in_world(poses[part], directions))
                        for part, directions in zip(parts, seen, strict=True)])
    # Where the edge jumps in the picture, land was taken for sky for a while, or the camera turned.
    angle = float(in_world[in_camera < _STEADY].max())
    if angle > _MOST_TURNED:
        raise ClipError(f'the path turns by {angle:.0f} degrees where the edge of the sky does '
                        'not: it is bent')
    return angle


def _angles(directions: Sequence[np.ndarray]) -> np.ndarray:
    """``[N, N]`` degrees between unit vectors."""
    return np.degrees(np.arccos((np.array(directions) @ np.transpose(directions)).clip(-1, 1)))


def _in_world(poses: np.ndarray, downs: Sequence[np.ndarray | None]) -> list[np.ndarray]:
    """Directions in the world of those that are known in the cameras' axes."""
    return [pose[:, :3].T @ down for pose, down in zip(poses, downs, strict=True)
            if down is not None]


def _median(directions: Sequence[np.ndarray]) -> np.ndarray:
    """``[3]`` unit vector in the middle of most of them."""
    middle = np.median(directions, axis=0)
    return middle / np.linalg.norm(middle)


def _start_at_first(poses: np.ndarray, down: np.ndarray) -> np.ndarray:
    """Poses in a world with its Y axis along ``down`` and its Z axis where the first one looks."""
    down = poses[0, :, :3] @ down
    across = np.cross(down, (0, 0, 1))
    across /= np.linalg.norm(across)
    start = np.stack([across, down, np.cross(across, down)], axis=1)
    start = torch.from_numpy(np.concatenate([start, np.zeros((3, 1))], axis=1))[None]
    poses = torch.from_numpy(poses)
    return camera.compose(poses, camera.compose(camera.inverse(poses[:1]), start)).numpy()


def fit_disparity(first_guess: np.ndarray, points: np.ndarray,
                  intrinsics: np.ndarray) -> tuple[float, float]:
    """Scale a and shift b of a first guess D, by least squares of a D + b - 1/z (suppl., eq. 1).

    Args:
        first_guess: ``[H, W]`` disparity up to scale and shift.
        points: ``[K, 3]`` points seen in the frame, camera axes, scene units.
        intrinsics: ``[4]`` fx, fy, cx, cy, normalised.

    Raises:
        ClipError: if there are too few points, or near and far come out reversed.
    """
    if len(points) < MIN_POINTS:
        raise ClipError(f'{len(points)} tracked points, {MIN_POINTS} are needed')
    values, inverse_depth = sample_at_points(first_guess, points, intrinsics), 1 / points[:, 2]
    system = np.stack([values, np.ones_like(values)], axis=1)
    (scale, shift), *_ = np.linalg.lstsq(system, inverse_depth, rcond=None)
    if scale <= 0:
        raise ClipError('the first-guess disparity has near and far reversed')
    return float(scale), float(shift)


def sample_at_points(values: np.ndarray, points: np.ndarray,
                     intrinsics: np.ndarray) -> np.ndarray:
    """Values ``[K]`` of a map ``[H, W]`` at the pixels where points ``[K, 3]`` are seen."""
    height, width = values.shape
    image = points[:, :2] / points[:, 2:] * intrinsics[:2] + intrinsics[2:]
    column, row = (image * (width, height)).astype(int).clip(0, (width - 1, height - 1)).T
    return values[row, column]
