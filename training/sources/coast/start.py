"""Where a flight over a coast begins: a view of land and sea, with room ahead."""

from __future__ import annotations

from dataclasses import dataclass
import math

import numpy as np
import torch
from torch import Tensor

from infinite_nature_ros import camera

# Places tried per coast; one in ten to thirty is a view.
_TRIES = 500

# Of so many good views the best is taken.
_GOOD = 8

# Rows and columns of the coarse view that a place is judged by, and its samples along each ray.
_ROWS, _COLUMNS = 14, 22
_DISTANCES = np.geomspace(0.8, 60.0, 90)

# Shares of the view: least and greatest.
_SKY, _LAND, _SEA = (0.10, 0.55), (0.18, 0.80), (0.06, 0.65)


@dataclass(frozen=True)
class Overview:
    """Heights of the land around the origin.

    Attributes:
        heights: ``[N, N]`` by world z and x; the origin is in the middle.
        cell: side of a cell, scene units.
    """

    heights: np.ndarray
    cell: float

    @property
    def steepness(self) -> float:
        """Slope that next to no land is steeper than."""
        slope = np.hypot(*np.gradient(self.heights, self.cell))
        return float(np.percentile(slope[self.heights > 0], 99.5))

    def at(self, x: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Heights of the nearest cells; the map's edge goes on outside."""
        size = len(self.heights)
        column = np.clip(np.rint(x / self.cell).astype(int) + size // 2, 0, size - 1)
        row = np.clip(np.rint(z / self.cell).astype(int) + size // 2, 0, size - 1)
        return self.heights[row, column]


def find_start(overview: Overview, intrinsics: Tensor, seed: int) -> Tensor:
    """Choose where a flight begins: level, over land or sea near a coast, the way ahead free.

    Args:
        overview: the land around the origin.
        intrinsics: ``[1, 4]``.
        seed: draws the places that are tried.

    Returns:
        ``[1, 3, 4]`` world to camera.
    """
    random = np.random.default_rng((seed, 1))
    reach = overview.cell * len(overview.heights) / 2
    best, best_score, good = None, -math.inf, 0
    for _ in range(_TRIES):
        x, z = random.uniform(-0.6 * reach, 0.6 * reach, 2)
        yaw, row = random.uniform(0, 2 * math.pi), random.uniform(0.24, 0.46)
        eye = np.array([x, _ground(overview, x, z) + random.uniform(0.9, 2.0), z])
        pose = _level_pose(eye, yaw, row, intrinsics)
        score = _score(overview, pose, eye, intrinsics)
        good += score > 0
        if score > best_score:
            best, best_score = pose, score
        if good == _GOOD:
            break
    return best


def _ground(overview: Overview, x: float, z: float) -> float:
    """Height of the highest land or sea within a unit of a place."""
    step = np.arange(-1.0, 1.01, overview.cell)
    return max(float(overview.at(x + step, z + step[:, None]).max()), 0.0)


def _level_pose(eye: np.ndarray, yaw: float, row: float, intrinsics: Tensor) -> Tensor:
    """Pose at a point (second component up) that looks along a yaw, the horizon in a row."""
    cos, sin = math.cos(yaw), math.sin(yaw)
    turn = torch.tensor([[[cos, 0.0, -sin], [0.0, 1.0, 0.0], [sin, 0.0, cos]]])
    pitch = camera.pitch_of_skyline(row, intrinsics)
    rotation = camera.level_pose(pitch)[..., :3] @ turn
    return camera.pose_at(torch.tensor([[eye[0], -eye[1], eye[2]]], dtype=torch.float32), rotation)


def _score(overview: Overview, pose: Tensor, eye: np.ndarray, intrinsics: Tensor) -> float:
    """How good a view is; 0 or less for one that is dull or blocked."""
    rays = camera.pixel_rays(intrinsics, _ROWS, _COLUMNS).flatten(2)[0]
    rays = (pose[0, :, :3].T @ rays).numpy().astype(np.float64) * np.array([[1.0], [-1.0], [1.0]])
    points = eye[:, None, None] + rays[:, :, None] * _DISTANCES
    heights = overview.at(points[0], points[2])
    below = points[1] <= np.maximum(heights, 0.0)
    hit, first = below.any(1), below.argmax(1)
    on_land = hit & (np.take_along_axis(heights, first[:, None], 1)[:, 0] > 0)
    sky, land, sea = 1 - hit.mean(), on_land.mean(), (hit & ~on_land).mean()
    ahead = eye[1] - 0.4 - heights[_ROWS // 2 * _COLUMNS + _COLUMNS // 2][_DISTANCES < 6].max()
    near = _DISTANCES[first[hit]].min() if hit.any() else 0.0
    shares = ((sky, _SKY), (land, _LAND), (sea, _SEA))
    if ahead < 0 or near < 1.5 or any(not low <= share <= high for share, (low, high) in shares):
        return -1.0
    # Land at many distances is worth more than a wall or a far line.
    spread = np.log(_DISTANCES[first[on_land]]).std()
    skyline = np.diff((~hit).reshape(_ROWS, _COLUMNS).sum(0)).std()
    return 0.1 + float(spread) + 0.15 * min(float(skyline), 2.0) + min(land, 0.45)
