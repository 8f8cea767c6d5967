"""Scale: the near plane of a clip, its level, and disparity aligned to the tracked points."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from infinite_nature_ros import camera
from infinite_nature_ros.skyline import find_skyline
from infinite_nature_training.bags import ClipError

NEAR_PLANE = 1.25
"""Scene units between the camera and the nearest points (Zhou et al., 2018, section 4)."""

# The near plane of a frame is this percentile of its points' depths, that of the clip is this
# percentile of its frames' (Zhou et al., 2018): single bad points don't decide.
_NEAR_POINTS, _NEAR_FRAMES = 5, 10

MIN_POINTS = 30
"""Frames with fewer tracked points can't be aligned."""

# Skylines of single frames are off by a few degrees; the bent path of a straight flight turns by
# tens of degrees.
_MOST_TILTED = 8.0


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
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    skyline = find_skyline(pixels, torch.from_numpy(sky)[None, None].float())
    pitch = camera.pitch_of_skyline(skyline.row, torch.from_numpy(intrinsics)[None].float())
    return camera.level_pose(pitch, skyline.tilt)[0, :, 1].double().numpy()


def level_world(poses: np.ndarray,
                downs: Sequence[np.ndarray | None]) -> tuple[np.ndarray, float | None]:
    """Poses in a level world that starts at the first of them and looks its way.

    A single skyline may be a guess: the median of all frames counts. Skylines know nothing of the
    points, so they also tell on a path that bends although it fits the points.

    Args:
        poses: ``[F, 3, 4]`` world to camera.
        downs: direction of gravity in each frame's camera axes, or ``None``.

    Returns:
        Poses ``[F, 3, 4]``, and the median angle in degrees by which the frames' skylines miss
        the common one; ``None`` if no frame has one.

    Raises:
        ClipError: if that angle is so large that the path must be wrong.
    """
    seen = np.array([pose[:, :3].T @ down for pose, down in zip(poses, downs, strict=True)
                     if down is not None])
    deviation = None
    down = poses[0, 1, :3]
    if len(seen):
        down = np.median(seen, axis=0)
        down /= np.linalg.norm(down)
        deviation = float(np.degrees(np.median(np.arccos((seen @ down).clip(-1, 1)))))
        if deviation > _MOST_TILTED:
            raise ClipError(f'the path turns against the skyline by {deviation:.0f} degrees in '
                            'the median frame: it is bent')
    return _start_at_first(poses, down), deviation


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
