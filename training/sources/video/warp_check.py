"""Tells whether poses and disparity explain the pictures: they must warp one to another."""

from __future__ import annotations

import numpy as np
import torch

from infinite_nature_ros.rendering import render

LEAST_GAIN = 0.1
"""A frame passes if warping misses the other frame by this share less than standing still."""

# The target's pixels that the warped frame covers.
_KNOWN = 0.5


def warp_errors(pictures: tuple[np.ndarray, np.ndarray], disparity: np.ndarray,
                poses: tuple[np.ndarray, np.ndarray], intrinsics: np.ndarray,
                sky: np.ndarray) -> tuple[float, float]:
    """Photometric error on land of a frame warped to another, and of the frame as it stands.

    Args:
        pictures: source and target, uint8 ``[H, W, 3]``.
        disparity: ``[H, W]`` of the source, 1 / scene units.
        poses: source and target, ``[3, 4]`` world to camera.
        intrinsics: ``[4]`` fx, fy, cx, cy, normalised.
        sky: bool ``[H, W]`` of the target.

    Returns:
        Mean absolute differences of RGB in [0, 1] over the land that the warped frame covers;
        both 0 where it covers none.
    """
    source, target = (torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
                      for picture in pictures)
    source_pose, target_pose = (torch.from_numpy(pose)[None].float() for pose in poses)
    lens = torch.from_numpy(intrinsics)[None].float()
    rendered = render(source, torch.from_numpy(disparity)[None, None], source_pose, target_pose,
                      lens, lens)
    counted = (rendered.known[0, 0] > _KNOWN) & torch.from_numpy(~sky)
    if not counted.any():
        return 0.0, 0.0
    warped = rendered.image / rendered.known.sqrt().clamp(min=1e-3)
    return tuple(float((picture - target).abs().mean(1)[0][counted].mean())
                 for picture in (warped, source))
