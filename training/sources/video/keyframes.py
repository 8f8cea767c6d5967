"""Keyframes: frames far enough apart to see depth, and why a shot may have none."""

from __future__ import annotations

import numpy as np

from infinite_nature_training.bags import ClipError
from infinite_nature_training.sources.video.tracking import Tracks

# Parallax between keyframes over the picture's width. With half of it, global mapping lost its way
# on one of three procedural coasts; with it, it found all of them to 0.2 % of the way.
_STEP = 0.008

# Points that moved less than this over the picture's width stood still.
_STILL = 0.002

# Fewer shared points say nothing about a motion.
_FEWEST_POINTS = 20

# Beyond this share of lost points a keyframe is due, however little parallax there is.
_LOST = 0.5

# Fewer keyframes than this don't make a structure.
_FEWEST = 4


def choose_keyframes(tracks: Tracks, intrinsics: np.ndarray) -> list[int]:
    """Frames with enough parallax from one to the next.

    Args:
        tracks: points followed through the shot.
        intrinsics: ``[4]`` fx, fy, cx, cy, normalised; a rough focal length will do.

    Returns:
        Numbers of frames within the shot, ascending; the first and the last are among them.

    Raises:
        ClipError: if there is too little to follow, nothing moves, or the camera only turns.
    """
    chosen, steps, widest = [0], 0, 0.0
    for frame in range(1, len(tracks)):
        before, after = tracks.shared(chosen[-1], frame)
        if len(before) < _FEWEST_POINTS:
            raise ClipError(
                f'too little texture: only {len(before)} points on land could be followed from '
                f'frame {chosen[-1]} to {frame} of the shot, {_FEWEST_POINTS} are needed')
        shift = float(np.median(np.linalg.norm(after - before, axis=1))) / tracks.size[1]
        widest = max(widest, shift)
        has_parallax = shift > _STILL and parallax(before, after, tracks.size, intrinsics) > _STEP
        if has_parallax or len(before) < _LOST * len(tracks.of(chosen[-1])[0]):
            chosen.append(frame)
            steps += has_parallax
    if steps + 1 < _FEWEST:
        raise ClipError(_why_none(widest))
    # Frames after the last keyframe would have no pose.
    return chosen if chosen[-1] == len(tracks) - 1 else [*chosen, len(tracks) - 1]


def _why_none(widest: float) -> str:
    if widest < _STILL:
        return 'nothing moves: a clip needs a camera that flies'
    return ('the camera hardly changes its place: it turns, and without parallax there is no depth '
            'to see')


def parallax(before: np.ndarray, after: np.ndarray, size: tuple[int, int],
             intrinsics: np.ndarray) -> float:
    """Median motion of points that no rotation of the camera explains, over the picture's width.

    Args:
        before: ``[K, 2]`` where points were, pixels.
        after: ``[K, 2]`` where they are.
        size: height and width of the picture.
        intrinsics: ``[4]`` normalised.
    """
    source, target = (_directions(xy, size, intrinsics) for xy in (before, after))
    weight = np.ones(len(source))
    for _ in range(5):
        # Rotation that brings the directions closest together (Kabsch); the weights make it that
        # of most of them.
        u, _, vt = np.linalg.svd((source * weight[:, None]).T @ target)
        turn = (u * (1, 1, np.linalg.det(u @ vt))) @ vt
        angle = np.linalg.norm(source @ turn - target, axis=1)
        weight = 1 / (angle + np.median(angle) + 1e-9)
    return float(np.median(angle) * intrinsics[0])


def _directions(xy: np.ndarray, size: tuple[int, int], intrinsics: np.ndarray) -> np.ndarray:
    """``[K, 3]`` unit vectors towards points in pixels."""
    flat = (xy / (size[1], size[0]) - intrinsics[2:]) / intrinsics[:2]
    rays = np.concatenate([flat, np.ones((len(flat), 1))], axis=1)
    return rays / np.linalg.norm(rays, axis=1, keepdims=True)
