"""Scale: the near plane of a clip, its level, and disparity aligned to the tracked points."""

from __future__ import annotations

import numpy as np
import torch

from infinite_nature_ros import camera
from infinite_nature_ros.skyline import detect_sky, find_skyline
from infinite_nature_training.bags import ClipError

NEAR_PLANE = 1.25
"""Scene units between the camera and the nearest points (Zhou et al., 2018, section 4)."""

# The near plane of a frame is this percentile of its points' depths, that of the clip is this
# percentile of its frames' (Zhou et al., 2018): single bad points don't decide.
_NEAR_POINTS, _NEAR_FRAMES = 5, 10

MIN_POINTS = 30
"""Frames with fewer tracked points can't be aligned."""


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


def level_start(image: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """``[3, 4]`` pose of a first frame in a level world, as its skyline says.

    Args:
        image: uint8 ``[H, W, 3]``.
        intrinsics: ``[4]`` normalised.
    """
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    sky = detect_sky(pixels)
    if not (sky > 0.5).any():
        return camera.identity_pose()[0].double().numpy()
    skyline = find_skyline(pixels, sky)
    pitch = camera.pitch_of_skyline(skyline.row, torch.from_numpy(intrinsics)[None].float())
    return camera.level_pose(pitch, skyline.tilt)[0].double().numpy()


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
