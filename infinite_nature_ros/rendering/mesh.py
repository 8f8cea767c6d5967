"""The RGB-D mesh: one vertex per pixel, two triangles per quad, a mask where surfaces break."""

from __future__ import annotations

import functools

import torch
from torch import Tensor
from torch.nn import functional

from infinite_nature_ros import camera

EDGE_BETA = 10.0
"""Fall-off of foreground alpha with the Sobel magnitude of disparity (release: ``render``)."""

ALPHA_THRESHOLD = 0.3
"""Alpha below which a source pixel counts as a break between surfaces (release default)."""

SOBEL_EPSILON = 1e-6
MIN_SOBEL_DISPARITY, MAX_SOBEL_DISPARITY = 1e-6, 1e5


@functools.lru_cache(maxsize=8)
def grid_faces(height: int, width: int, device: torch.device) -> Tensor:
    """Triangles of an image-shaped mesh: (top left, bottom left, top right), and its twin.

    Returns:
        ``[2 (H - 1) (W - 1), 3]`` int32 indices of row-major pixels.
    """
    index = torch.arange(height * width, dtype=torch.int32, device=device).reshape(height, width)
    top_left, top_right = index[:-1, :-1], index[:-1, 1:]
    bottom_left, bottom_right = index[1:, :-1], index[1:, 1:]
    upper = torch.stack([top_left, bottom_left, top_right], dim=-1)
    lower = torch.stack([bottom_right, top_right, bottom_left], dim=-1)
    return torch.stack([upper, lower], dim=2).reshape(-1, 3)


def surface_mask(disparity: Tensor) -> Tensor:
    """Tell continuous surface (1) from depth discontinuities (0); carries no gradient.

    A Sobel filter (reflected border) of disparity, thresholded where exp(-10 magnitude) is 0.3
    (release, ``render_utils``).

    Args:
        disparity: ``[B, 1, H, W]``.

    Returns:
        ``[B, 1, H, W]`` of 0 and 1.
    """
    disparity = disparity.detach().clamp(MIN_SOBEL_DISPARITY, MAX_SOBEL_DISPARITY)
    magnitude = (squared_sobel(disparity, 'reflect') + SOBEL_EPSILON).sqrt()
    return ((-EDGE_BETA * magnitude).exp() > ALPHA_THRESHOLD).to(disparity.dtype)


def squared_sobel(values: Tensor, border: str) -> Tensor:
    """Squared magnitude of the un-normalised Sobel gradient (1-2-1 kernels).

    Args:
        values: ``[B, C, H, W]``.
        border: how the image goes on outside, as ``functional.pad`` names it.

    Returns:
        ``[B, C, H, W]``.
    """
    padded = functional.pad(values, (1, 1, 1, 1), mode=border)
    across = padded[..., 2:] - padded[..., :-2]
    down = padded[..., 2:, :] - padded[..., :-2, :]
    gradient_x = across[..., :-2, :] + 2 * across[..., 1:-1, :] + across[..., 2:, :]
    gradient_y = down[..., :-2] + 2 * down[..., 1:-1] + down[..., 2:]
    return gradient_x.square() + gradient_y.square()


def project_vertices(disparity: Tensor, relative_pose: Tensor, source_intrinsics: Tensor,
                     target_intrinsics: Tensor) -> Tensor:
    """Vertices of the source mesh in homogeneous pixel coordinates of the target.

    Args:
        disparity: ``[B, 1, H, W]`` of the source; depth is 1 / clamp(disparity, 0.01, 1).
        relative_pose: ``[B, 3, 4]``, source camera to target camera.
        source_intrinsics: ``[B, 4]``, normalised.
        target_intrinsics: ``[B, 4]``, normalised.

    Returns:
        ``[B, H W, 3]`` (x, y, w): w is the depth in the target, (x / w, y / w) the pixel
        position, with integers at pixel centres.
    """
    height, width = disparity.shape[-2:]
    depth = 1 / disparity.clamp(camera.MIN_DISPARITY, camera.MAX_DISPARITY)
    points = camera.pixel_rays(source_intrinsics, height, width) * depth
    points = relative_pose[..., :3] @ points.flatten(2) + relative_pose[..., 3:]
    x, y, w = points.unbind(1)
    fx, fy, cx, cy = (value[:, None] for value in target_intrinsics.unbind(1))
    pixel_x = (fx * x + cx * w) * width - 0.5 * w
    pixel_y = (fy * y + cy * w) * height - 0.5 * w
    return torch.stack([pixel_x, pixel_y, w], dim=-1)
