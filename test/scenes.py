"""Analytic scenes for tests: pictures with exact disparity, without files."""

import torch

from infinite_nature_ros import camera


def sea(height=64, width=96, batch=1, eye_height=1.0, seed=0):
    """A level, textured plane under an even sky, seen by a level camera.

    Returns:
        image ``[B, 3, H, W]``, disparity ``[B, 1, H, W]``, intrinsics ``[B, 4]``.
    """
    generator = torch.Generator().manual_seed(seed)
    intrinsics = camera.default_intrinsics(height, width).expand(batch, 4)
    rays = camera.pixel_rays(intrinsics, height, width)
    disparity = (rays[:, 1:2] / eye_height).clamp(camera.MIN_DISPARITY, camera.MAX_DISPARITY)
    waves = torch.rand(batch, 3, height, width, generator=generator) * 0.3
    water = waves + torch.tensor([0.1, 0.25, 0.35]).reshape(3, 1, 1)
    heaven = torch.tensor([0.6, 0.75, 0.95]).reshape(3, 1, 1)
    return torch.where(rays[:, 1:2] > 0, water, heaven), disparity, intrinsics
