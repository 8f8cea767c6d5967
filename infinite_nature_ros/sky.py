"""The far sky: a dome that turns with the camera and never comes nearer.

Warped frame by frame the sky would swell and blur. Here it is a layer of its own: a matte says
where it is, the first photo says what it looks like (as in InfiniteNature-Zero, which warps the
sky by rotation only). Land too far to come nearer in a flight is part of it. Around the matte's
edge the ground's depth is extended under the sky, so that the skyline moves as one sharp
silhouette.
"""

from __future__ import annotations

from dataclasses import dataclass
import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from infinite_nature_ros import camera
from infinite_nature_ros.filling import LEAST_WEIGHT, push_pull
from infinite_nature_ros.frame import Frame
from infinite_nature_ros.rendering import Rendered

# The matte is resampled in every step; this much contrast keeps its edge a pixel or two wide.
_MATTE_CONTRAST = 1.5

# The ground's depth reaches this many pixels under the sky.
_EXTENSION = 2

# Below this elevation (tangent of the angle under the horizon) there is no sky.
_LOWEST_SKY = math.tan(math.radians(1.5))

# Up to this elevation (likewise) land lies on the horizon.
_HORIZON = math.tan(math.radians(0.3))

# Directions above this elevation look like those at it.
_HIGHEST = math.tan(math.radians(75))

FAR_DISPARITY = 0.03
"""Land that rises over the horizon, below this disparity, is part of the dome.

A flight would reach mountains 40 units away after 200 steps, and be in front of walls that no photo
has shown. The far stays far instead, as it does for those who fly over land.
"""


class SkyView(NamedTuple):
    """The sky as a camera sees it.

    Attributes:
        image: ``[B, 3, H, W]`` the sky all over the view, of the photo's size.
        matte: ``[B, 1, H, W]`` in [0, 1], where the view would show sky if all were as far.
    """

    image: Tensor
    matte: Tensor


@dataclass(frozen=True)
class SkyDome:
    """What the sky looks like in every direction, told by one photo.

    Beside the photo the sky goes on mirrored, so that it has no seam.

    Attributes:
        layers: ``[B, 4, H, W]`` the photo with its ground filled in by sky, and its matte in
            [0, 1], where it shows sky.
        pose: ``[B, 3, 4]`` of the camera that took it; only its rotation matters.
        intrinsics: ``[B, 4]`` of that camera.
    """

    layers: Tensor
    pose: Tensor
    intrinsics: Tensor

    @classmethod
    def of(cls, photo: Frame) -> SkyDome | None:
        """Build the dome from a photo; ``None`` where that keeps no sky."""
        sky = photo.sky
        if sky is None:
            return None
        # Pixels at the matte's edge hold some ground; they don't count.
        certain = functional.avg_pool2d(sky, 5, stride=1, padding=2, count_include_pad=False) > 0.99
        certain = certain.to(sky.dtype)
        filled = push_pull(photo.image, certain + LEAST_WEIGHT, certain)
        return cls(torch.cat([filled, sky], dim=1), photo.pose, photo.intrinsics)

    def view(self, pose: Tensor, intrinsics: Tensor) -> SkyView:
        """Look from another camera: the photo is warped by the rotation between them alone."""
        height, width = self.layers.shape[-2:]
        x, y, z = _world_rays(pose, intrinsics, height, width).unbind(1)
        half = torch.atan(0.5 / self.intrinsics[:, 0])[:, None, None]
        ahead = torch.atan2(self.pose[:, 2, 0], self.pose[:, 2, 2])[:, None, None]
        azimuth = ahead + _fold(torch.atan2(x, z) - ahead, half)
        rise = (y / torch.hypot(x, z).clamp(min=1e-6)).clamp(-_HIGHEST, _HIGHEST)
        direction = torch.stack([azimuth.sin(), rise, azimuth.cos()], dim=1).flatten(2)
        point = (self.pose[..., :3] @ direction).unflatten(2, (height, width))
        xy = point[:, :2] / point[:, 2:].clamp(min=1e-3)
        fx_fy, cx_cy = self.intrinsics[:, :2, None, None], self.intrinsics[:, 2:, None, None]
        grid = (2 * (xy * fx_fy + cx_cy) - 1).permute(0, 2, 3, 1)
        seen = functional.grid_sample(self.layers, grid, padding_mode='reflection',
                                      align_corners=False)
        return SkyView(*seen.split((3, 1), dim=1))


def _fold(azimuth: Tensor, half: Tensor) -> Tensor:
    """Fold azimuths into a photo's field of view, mirrored at its borders again and again.

    Beyond the photo they are stretched a little, so that both ways around end at its middle.

    Args:
        azimuth: radians from the photo's middle, of any number of turns.
        half: half the field of view, below pi / 2.
    """
    azimuth = torch.remainder(azimuth + math.pi, 2 * math.pi) - math.pi
    beside = math.pi - half
    widths = (beside / (2 * half) - 0.5).round() + 0.5
    size = azimuth.abs()
    size = torch.minimum(size, half) + (size - half).clamp(min=0) * 2 * half * widths / beside
    return azimuth.sign() * (half - (torch.remainder(size + half, 4 * half) - 2 * half).abs())


def _world_rays(pose: Tensor, intrinsics: Tensor, height: int, width: int) -> Tensor:
    """``[B, 3, H, W]`` directions of all pixels in the level world."""
    rays = camera.pixel_rays(intrinsics, height, width)
    rotation = pose[..., :3].transpose(-1, -2)
    return (rotation @ rays.flatten(2)).unflatten(2, (height, width))


def ground_disparity(disparity: Tensor, sky: Tensor) -> Tensor:
    """Disparity ``[B, 1, H, W]`` with the ground extended a little under the sky's edge.

    It goes on as far away as the farthest ground near there; far ground goes on into the sky: its
    new parts must come from there, or a wall would grow at the horizon.
    """
    is_sky = sky >= 0.5
    depth = torch.where(is_sky, torch.zeros_like(disparity), 1 / disparity)
    size = 2 * _EXTENSION + 1
    extended = functional.max_pool2d(depth, size, stride=1, padding=_EXTENSION)
    floor = torch.full_like(disparity, camera.MIN_DISPARITY)
    extended = torch.where((extended > 0) & (extended < 1 / FAR_DISPARITY),
                           1 / extended.clamp(min=1), floor)
    return torch.where(is_sky, extended, disparity)


def far_matte(sky: Tensor, disparity: Tensor, pose: Tensor, intrinsics: Tensor) -> Tensor:
    """Matte of what is too far to come nearer in a flight: the sky, and what rises before it.

    Args:
        sky: ``[B, 1, H, W]`` matte of the sky, in [0, 1].
        disparity: ``[B, 1, H, W]`` in [0.01, 1].
        pose: ``[B, 3, 4]`` of the view, in a level world.
        intrinsics: ``[B, 4]`` of the view.

    Returns:
        ``[B, 1, H, W]`` in [0, 1].
    """
    x, y, z = _world_rays(pose, intrinsics, *sky.shape[-2:])[:, :, None].unbind(1)
    rises = y < _HORIZON * torch.hypot(x, z)
    return torch.maximum(sky, ((disparity < FAR_DISPARITY) & rises).to(sky.dtype))


def keep_far(sky: Tensor, disparity: Tensor, pose: Tensor,
             intrinsics: Tensor) -> tuple[Tensor, Tensor]:
    """Count all that is far as sky, as a first frame does; arguments as of ``far_matte``.

    Returns:
        Its matte ``[B, 1, H, W]``, and the disparity, as small as can be there.
    """
    matte = far_matte(sky, disparity, pose, intrinsics)
    floor = torch.full_like(disparity, camera.MIN_DISPARITY)
    return matte, torch.where(matte > 0.5, floor, disparity)


def warped_matte(rendered_sky: Tensor, rendered: Rendered, pose: Tensor, intrinsics: Tensor,
                 expected: Tensor) -> Tensor:
    """Matte of a new view, from the warped one.

    What comes into view above all that was seen can't be told by what lies below it, least of all
    when the last view had no sky: there is sky, too, where the photo had it.

    Args:
        rendered_sky: ``[B, 1, H, W]`` the matte as the renderer leaves it, times the mask.
        rendered: the view it belongs to.
        pose: ``[B, 3, 4]`` of the view.
        intrinsics: ``[B, 4]`` of the view.
        expected: ``[B, 1, H, W]`` the matte of the dome's view.

    Returns:
        ``[B, 1, H, W]`` in [0, 1], sharp at its edge; nothing below the horizon.
    """
    mask = rendered.mask
    matte = rendered_sky / mask.clamp(min=1e-3)
    is_known = (rendered.known > 0.1).to(mask.dtype)
    matte = push_pull(matte, rendered.known + LEAST_WEIGHT, is_known)
    is_above = is_known.amax(-1, keepdim=True).cummax(-2).values == 0
    matte = torch.where(is_above, torch.maximum(matte, expected), matte)
    matte = ((matte - 0.5) * _MATTE_CONTRAST + 0.5).clamp(0, 1)
    height, width = matte.shape[-2:]
    x, y, z = _world_rays(pose, intrinsics, height, width)[:, :, None].unbind(1)
    below = y > _LOWEST_SKY * torch.hypot(x, z)
    return torch.where(below, torch.zeros_like(matte), matte)


def insert_sky(rendered: Rendered, matte: Tensor, dome: Tensor) -> Rendered:
    """Put the dome into a warped view, as something known.

    Colours of ground and sky that share a pixel aren't parted: what is wrong about a pixel would be
    magnified, step after step.

    Args:
        rendered: the warped view.
        matte: ``[B, 1, H, W]`` of ``warped_matte``.
        dome: ``[B, 3, H, W]`` the sky all over the view.
    """
    is_sky = matte > 0.5
    whole = torch.ones_like(matte)
    mask = torch.where(is_sky, whole, rendered.mask)
    ground = rendered.image / rendered.mask.clamp(min=1e-2)
    floor = torch.full_like(matte, camera.MIN_DISPARITY)
    return Rendered(torch.lerp(ground, dome, _share(matte)) * mask,
                    torch.where(is_sky, floor, rendered.disparity),
                    torch.where(is_sky, whole, rendered.known))


def keep_sky(image: Tensor, disparity: Tensor, matte: Tensor,
             dome: Tensor) -> tuple[Tensor, Tensor]:
    """Blend the dome over a refined view, which may have repainted it, and its disparity likewise.

    The blend sets in where a pixel is half sky and is whole where it is all sky, so that the
    ground's side of the silhouette keeps its depth. (Zero's release blends both by a mask that is
    eroded by 7 x 7 and blurred, which leaves the refiner's own sky along every silhouette.)
    """
    share = _share(matte)
    floor = torch.full_like(disparity, camera.MIN_DISPARITY)
    return torch.lerp(image, dome, share), torch.lerp(disparity, floor, share)


def _share(matte: Tensor) -> Tensor:
    """How much of a pixel the dome gets: nothing where it is half sky, all where it is all sky."""
    return (2 * matte - 1).clamp(0, 1)
