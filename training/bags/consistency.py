"""Do disparity, poses and pictures of a clip belong together? Warp a frame to another and see."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image
import torch
from torch import Tensor

from infinite_nature_ros.camera import identity_pose, MAX_DISPARITY, relative_pose
from infinite_nature_ros.frame import Frame
from infinite_nature_ros.photos import crop_and_resize, crop_intrinsics
from infinite_nature_ros.pixels import from_pixels
from infinite_nature_ros.rendering import render
from infinite_nature_ros.rendering.mesh import project_vertices
from infinite_nature_training.bags.clip import ClipError, ClipFrame

SIZE = (160, 256)
"""Height and width at which frames are compared: those of the paper."""

# The renderer takes disparity from 0.01 to 1. Scenes in other units, as metres from far above,
# are brought to where the nearest is in this range.
_NEAREST = (0.3 * MAX_DISPARITY, MAX_DISPARITY)
_NEAREST_QUANTILE = 0.999

# Depth, in scene units, below which a point goes out of sight.
_MIN_DEPTH = 0.01


@dataclass(frozen=True)
class WarpErrors:
    """How well a warped frame fits the frame that was taken there.

    Errors are over the pixels that the warp covers, those of the static baseline (the source
    frame as it is) over the same; NaN where there are none.

    Attributes:
        photometric: mean absolute difference of RGB in [0, 1].
        static: the same without motion.
        disparity: median absolute logarithm of warped over target disparity: 0.1 is 10 %.
        static_disparity: the same without motion.
        covered: share of the pixels that are covered.
        motion: way of a pixel, in pixels; the upper quartile, for the sky stands still.
    """

    photometric: float
    static: float
    disparity: float
    static_disparity: float
    covered: float
    motion: float


def frame_of(frame: ClipFrame, size: tuple[int, int] = SIZE) -> Frame:
    """Frame of a clip as the core has it: cropped to the aspect ratio of a size, and resized.

    Args:
        frame: frame with disparity.
        size: height and width.

    Returns:
        ``Frame`` of batch 1, float32 but for the pose; its disparity is not clamped.

    Raises:
        ClipError: if it has no disparity, or no picture.
    """
    if frame.disparity is None:
        raise ClipError(f'frame at {frame.stamp} ns has no disparity')
    rgb = np.array(crop_and_resize(Image.fromarray(frame.image()), *size))
    disparity = torch.from_numpy(np.array(crop_and_resize(Image.fromarray(frame.disparity),
                                                          *size)))[None, None]
    return Frame(
        image=from_pixels(rgb)[None].contiguous(), disparity=disparity,
        known=torch.ones_like(disparity), pose=frame.pose,
        intrinsics=crop_intrinsics(frame.intrinsics, frame.size, size).float())


def warp_errors(source: ClipFrame, target: ClipFrame, size: tuple[int, int] = SIZE,
                mask: np.ndarray | None = None) -> WarpErrors:
    """Warp a frame of a clip to another one and compare.

    Args:
        source: frame with disparity.
        target: frame with disparity.
        size: height and width to compare at.
        mask: bool, of that size: where to compare, as on land; everywhere if ``None``.

    Raises:
        ClipError: if a frame has no disparity, or no picture.
    """
    where = None if mask is None else torch.from_numpy(np.asarray(mask, bool))[None, None]
    return frame_errors(frame_of(source, size), frame_of(target, size), where)[0]


def frame_errors(source: Frame, target: Frame, mask: Tensor | None = None) -> list[WarpErrors]:
    """Warp frames to others and compare, pair by pair of a batch.

    Args:
        source: B frames.
        target: B frames of the same size.
        mask: bool ``[B or 1, 1, H, W]``: where to compare; everywhere if ``None``.
    """
    unit = _unit(source.disparity)
    source, target = _in_units(source, unit), _in_units(target, unit)
    # In the source's own axes, a world far from the origin loses no precision to float32.
    way = relative_pose(source.pose, target.pose).float()
    rendered = render(source.image, source.disparity, identity_pose(len(way)), way,
                      source.intrinsics, target.intrinsics)
    wanted = torch.ones_like(source.known, dtype=torch.bool) if mask is None else (
        mask.expand_as(source.known))
    covered = wanted & (rendered.known > 0.5)
    # What is rendered is multiplied by the mask, whose square is ``known``.
    alpha = rendered.known.sqrt().clamp(min=0.5)
    motion = pixel_motion(source, target.pose)
    return [_errors(*parts) for parts in zip(
        rendered.image / alpha, source.image, target.image, rendered.disparity / alpha,
        source.disparity, target.disparity, wanted, covered, motion, strict=True)]


def pixel_motion(source: Frame, pose: Tensor) -> Tensor:
    """Ways, in pixels, that what a frame shows goes to another pose.

    Args:
        source: B frames.
        pose: ``[B, 3, 4]`` world to camera, in the units of the frames' poses.

    Returns:
        ``[B]`` upper quartiles: the sky, which may be more than half of it, stands still.
    """
    unit = _unit(source.disparity)
    way = relative_pose(source.pose, pose)
    way[..., 3:] /= unit[:, 0]
    still, moved = (project_vertices(source.disparity * unit, to_target.float(),
                                     source.intrinsics, source.intrinsics)
                    for to_target in (identity_pose(len(way)), way))
    pixels = (moved[..., :2] / moved[..., 2:].clamp(min=_MIN_DEPTH)
              - still[..., :2] / still[..., 2:]).norm(dim=-1)
    return _quantile(pixels, 0.75)


def _quantile(values: Tensor, share: float) -> Tensor:
    """``[B]`` of ``[B, N]``: a value that is there; ``torch.quantile`` sorts, ten times slower."""
    return values.kthvalue(1 + round(share * (values.shape[1] - 1)), dim=1).values


def _unit(disparity: Tensor) -> Tensor:
    """``[B, 1, 1, 1]`` factors that bring disparity to the renderer's range."""
    nearest = _quantile(disparity.flatten(1), _NEAREST_QUANTILE)
    return (nearest.clamp(*_NEAREST) / nearest)[:, None, None, None]


def _in_units(frame: Frame, unit: Tensor) -> Frame:
    """Frame whose lengths are divided by a unit."""
    pose = torch.cat([frame.pose[..., :3], frame.pose[..., 3:] / unit[:, 0]], dim=-1)
    return frame.replace(disparity=frame.disparity * unit, pose=pose)


def _errors(warped: Tensor, still: Tensor, image: Tensor, warped_disparity: Tensor,
            still_disparity: Tensor, disparity: Tensor, wanted: Tensor, covered: Tensor,
            motion: Tensor) -> WarpErrors:
    """Errors of one pair, from ``[C, H, W]``."""
    place = covered[0]

    def photometric(picture: Tensor) -> float:
        return (picture - image)[:, place].abs().mean().item()

    def relative(values: Tensor) -> float:
        ratio = values[0][place].clamp(min=1e-6) / disparity[0][place].clamp(min=1e-6)
        return ratio.log().abs().median().item() if place.any() else float('nan')

    return WarpErrors(
        photometric=photometric(warped), static=photometric(still),
        disparity=relative(warped_disparity), static_disparity=relative(still_disparity),
        covered=(covered.sum() / wanted.sum().clamp(min=1)).item(), motion=motion.item())
