"""Dense disparity from neighbouring frames: optical flow triangulated with the recovered poses.

Along its epipolar line each pixel's flow to a neighbour says its disparity, and neighbours on both
sides say it several times over. Where they contradict each other (waves, cars, hidden parts) or
hardly move (around the point that the camera flies to), a smooth surface fitted to the
surroundings takes over.
"""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np

from infinite_nature_ros.camera import MIN_DISPARITY, pixel_grid

# Disparity in scene units is bounded by this, well above the nearest point of any frame.
_NEAREST = 2.0

# Standard deviation of the flow, pixels, and as a share of the parallax that it measures.
_FLOW_NOISE, _PARALLAX_NOISE = 0.1, 0.03

# A neighbour whose flow misses by this (squared pixels) is doubted; rounds of doubting.
_DOUBT, _ROUNDS = 0.5, 5

# The nearest neighbours on both sides start the estimate: large flows fail more often.
_START = 2

# Widths of the fitted surfaces over the picture's width, coarse to fine.
_WIDTHS = (1 / 7, 1 / 14, 1 / 28, 1 / 56, 1 / 112, 1 / 224)

# How much disparity varies about the surface of the next coarser width.
_RELIEF = 0.022

# Keeps the slope of a surface at bay where only a narrow strip of it was measured.
_STIFFNESS = 0.02


class DenseTriangulation:
    """Disparity of any frame of a shot from the flow to its neighbours."""

    def __init__(self, poses: np.ndarray, intrinsics: np.ndarray) -> None:
        """Prepare for a shot.

        Args:
            poses: ``[F, 3, 4]`` world to camera.
            intrinsics: ``[4]`` fx, fy, cx, cy, normalised.
        """
        self._poses = poses
        self._intrinsics = intrinsics
        self._flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def disparity(self, frame: int, neighbours: list[int], pictures: Mapping[int, np.ndarray],
                  sky: np.ndarray) -> np.ndarray:
        """Dense disparity of a frame.

        Args:
            frame: number of the frame.
            neighbours: numbers of others, the nearest first.
            pictures: uint8 ``[h, w]`` grey, by number.
            sky: bool ``[h, w]`` of the frame.

        Returns:
            float32 ``[h, w]``, 1 / scene units, at least 0.01, which is the sky's.
        """
        grid = pixel_grid(*sky.shape).numpy()
        slopes, offsets, seen = zip(*(self._constraints(frame, other, pictures, grid)
                                      for other in neighbours), strict=True)
        measured, weight = _solve(np.stack(slopes), np.stack(offsets), np.stack(seen))
        weight[sky] = 0
        smooth = _fit_surfaces(measured.clip(0, _NEAREST), weight, grid)
        return np.where(sky, MIN_DISPARITY, smooth.clip(MIN_DISPARITY, _NEAREST)).astype(
            np.float32)

    def _constraints(self, frame: int, other: int, pictures: Mapping[int, np.ndarray],
                     grid: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Say what a neighbour tells of the disparity d: slope d = offset, in pixels, x and y.

        Returns:
            slope and offset ``[2, h, w]``, and ``[h, w]`` where the neighbour shows the pixel.
        """
        flow = self._flow.calc(pictures[frame], pictures[other], None)
        height, width = flow.shape[:2]
        there = grid + np.stack([flow[..., 0] / width, flow[..., 1] / height])
        seen = ((there > 0) & (there < 1)).all(0)
        rotation = self._poses[other][:, :3] @ self._poses[frame][:, :3].T
        shift = self._poses[other][:, 3] - rotation @ self._poses[frame][:, 3]
        turned = np.tensordot(rotation.astype(np.float32), self._to_rays(grid), 1)
        target = self._to_rays(there)[:2]
        # The point (turned + d shift) lies on the ray of its image: two linear equations in d.
        pixels = self._intrinsics[0] * width / turned[2]
        slope = pixels * (shift[:2, None, None] - target * shift[2])
        offset = pixels * (target * turned[2] - turned[:2])
        return slope.astype(np.float32), offset.astype(np.float32), seen

    def _to_rays(self, grid: np.ndarray) -> np.ndarray:
        """``[3, h, w]`` rays with z = 1 through normalised pixels ``[2, h, w]``."""
        fx, fy, cx, cy = self._intrinsics
        return np.stack([(grid[0] - cx) / fx, (grid[1] - cy) / fy,
                         np.ones_like(grid[0])]).astype(np.float32)


def _solve(slope: np.ndarray, offset: np.ndarray,
           seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Robust least squares at each pixel.

    Args:
        slope: ``[N, 2, h, w]``.
        offset: ``[N, 2, h, w]``.
        seen: bool ``[N, h, w]``.

    Returns:
        disparity ``[h, w]`` and its weight (inverse variance) ``[h, w]``.
    """
    power, product = (slope * slope).sum(1), (slope * offset).sum(1)
    square = (offset * offset).sum(1)
    trust = seen.astype(np.float32)
    trust[_START:] = 0
    for _ in range(_ROUNDS + 1):
        total = (trust * power).sum(0)
        disparity = (trust * product).sum(0) / (total + 1e-6)
        miss = square - 2 * disparity * product + disparity ** 2 * power
        trust = seen / (1 + miss.clip(0) / _DOUBT) ** 2
    count = 2 * trust.sum(0) + 1e-6
    spread = (trust * miss.clip(0)).sum(0) / count
    expected = _FLOW_NOISE ** 2 + _PARALLAX_NOISE ** 2 * total * disparity ** 2 / count
    # What misses by more than the flow's noise moves by itself, and its mean is wrong too.
    return disparity, total / expected / (1 + (spread / expected) ** 2)


def _fit_surfaces(values: np.ndarray, weight: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Smooth surface through weighted values: local planes, from coarse to fine.

    In a picture a plane in space has a disparity that is a plane too, so this continues ground and
    sea to where nothing was measured.
    """
    width = values.shape[1]
    surface = np.full_like(values, np.average(values, weights=weight + 1e-9))
    for share in _WIDTHS:
        plane, evidence = _fit_planes(values, weight, grid / share, share * width)
        prior = 1 / _RELIEF ** 2
        surface = (evidence * plane.clip(0, _NEAREST) + prior * surface) / (evidence + prior)
    return surface


def _fit_planes(values: np.ndarray, weight: np.ndarray, grid: np.ndarray,
                sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """Value at each pixel of the plane fitted to its surroundings, and their mean weight.

    Args:
        values: ``[h, w]``.
        weight: ``[h, w]``.
        grid: ``[2, h, w]`` coordinates in units of the surroundings' size.
        sigma: size of the surroundings in pixels.
    """
    x = grid[0] - grid[0].mean()
    y = (grid[1] - grid[1].mean()) * values.shape[0] / values.shape[1]
    products = (np.ones_like(x), x, y, values, x * x, x * y, y * y, x * values, y * values)
    total, *sums = (_blur(weight * product, sigma) for product in products)
    mx, my, mv, xx, xy, yy, xv, yv = (part / (total + 1e-9) for part in sums)
    xx, yy, xy = xx - mx * mx + _STIFFNESS, yy - my * my + _STIFFNESS, xy - mx * my
    xv, yv = xv - mx * mv, yv - my * mv
    determinant = xx * yy - xy * xy
    slope_x, slope_y = (yy * xv - xy * yv) / determinant, (xx * yv - xy * xv) / determinant
    return mv + slope_x * (x - mx) + slope_y * (y - my), total


def _blur(values: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur with nothing outside; wide ones are made at a lower resolution."""
    height, width = values.shape
    factor = max(int(sigma / 3), 1)
    small = (max(width // factor, 2), max(height // factor, 2))
    values = cv2.resize(values, small, interpolation=cv2.INTER_AREA)
    blurred = cv2.GaussianBlur(values, (0, 0), sigma * small[0] / width,
                               borderType=cv2.BORDER_CONSTANT)
    return cv2.resize(blurred, (width, height), interpolation=cv2.INTER_LINEAR)
