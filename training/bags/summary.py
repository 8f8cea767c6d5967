"""Summary of a clip: its facts in words, a contact sheet and a plot of the trajectory."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch

from infinite_nature_ros.camera import identity_pose, inverse, pose_at, to_body_frame
from infinite_nature_ros.recording import (
    colourise,
    contact_sheet,
    EvenSample,
    plot_trajectory,
    save_picture,
)
from infinite_nature_training.bags.clip import ClipFrame
from infinite_nature_training.bags.reader import Clip

_SHEET_WIDTH = 256

# Points that are drawn of a frame, and the share of all at either end of an axis that isn't: a
# few of structure from motion lie anywhere.
_POINTS_OF_FRAME = 200
_OUTLIERS = 0.02


def facts(clip: Clip) -> dict[str, str]:
    """Return what is known of a clip without its pictures, by name."""
    info = clip.info
    seconds = float(np.ptp(clip.stamps)) / 1e9
    places = _places(clip)
    way = float(np.linalg.norm(np.diff(places, axis=0), axis=1).sum())
    fx, fy, cx, cy = clip.intrinsics[0].tolist()
    count = len(clip.stamps)
    return {
        'source': info.source, 'licence': info.licence or 'unknown',
        'split': info.split or 'undecided', 'scale': f'{info.scene_scale:g} m / scene unit',
        'method': info.method or 'unknown',
        **{f'details.{name}': str(value) for name, value in info.details.items()},
        'frames': f'{count} in {seconds:.2f} s' + (
            f', {(count - 1) / seconds:.4g} a second' if count > 1 else ''),
        'intrinsics': f'fx {fx:.4g}, fy {fy:.4g}, cx {cx:.4g}, cy {cy:.4g} of the size; '
                      f'{np.degrees(2 * np.arctan(0.5 / fx)):.1f} degrees across',
        'way': f'{way:.4g} m, {np.linalg.norm(places[-1] - places[0]):.4g} m as the crow flies',
        **{role: f'{topic.name} ({topic.type}), {len(topic.stamps)} messages'
           for role, topic in clip.topics.items()},
        **{f'note {number}': note for number, note in enumerate(clip.notes, start=1)}}


def draw(clip: Clip, folder: Path) -> list[Path]:
    """Draw ``contact.png``, pictures above their disparity, and ``trajectory.png``.

    Args:
        clip: clip to draw.
        folder: where to; it is made.

    Returns:
        The files.

    Raises:
        ClipError: if a picture is damaged.
        OSError: if a file can't be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sample = EvenSample()
    landmarks: list[np.ndarray] = []
    for number, frame in enumerate(clip.frames):
        if sample.wants(number):
            sample.add(number, _panel(frame))
        if frame.points is not None:
            landmarks.append(_in_map(frame, clip.info.scene_scale))
    paths = [folder / 'contact.png', folder / 'trajectory.png']
    save_picture(paths[0], contact_sheet(sample.pictures))
    plot_trajectory(_places(clip), paths[1],
                    _without_outliers(np.concatenate(landmarks)) if landmarks else None)
    return paths


def _panel(frame: ClipFrame) -> np.ndarray:
    """Picture, and its disparity below."""
    rgb = frame.image()
    size = (_SHEET_WIDTH, round(_SHEET_WIDTH * rgb.shape[0] / rgb.shape[1]))
    panel = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    if frame.disparity is None:
        return panel
    disparity = cv2.resize(frame.disparity, size, interpolation=cv2.INTER_AREA)
    return np.concatenate([panel, colourise(disparity)])


def _places(clip: Clip) -> np.ndarray:
    """Where the camera was in ``map``, ``[N, 3]`` metres."""
    return to_body_frame(clip.poses)[0].numpy() * clip.info.scene_scale


def _in_map(frame: ClipFrame, scene_scale: float) -> np.ndarray:
    """Return some points of a frame in ``map``, ``[K, 3]`` metres."""
    points = frame.points[::max(1, len(frame.points) // _POINTS_OF_FRAME)]
    to_world = inverse(frame.pose)[0]
    world = torch.from_numpy(points).double() @ to_world[:, :3].T + to_world[:, 3]
    # A point is where a camera would be that sits there.
    seats = pose_at(world, identity_pose(len(world)).double()[..., :3])
    return to_body_frame(seats)[0].numpy() * scene_scale


def _without_outliers(points: np.ndarray) -> np.ndarray:
    low, high = np.quantile(points, [_OUTLIERS, 1 - _OUTLIERS], axis=0)
    return points[((points >= low) & (points <= high)).all(axis=1)]
