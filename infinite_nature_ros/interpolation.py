"""Frames between frames: both neighbours shown from the way between them, and blended.

For a smooth video at a higher rate than the flight's (paper, supplement 1.5).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from infinite_nature_ros import camera, sky as skies
from infinite_nature_ros.filling import LEAST_WEIGHT, push_pull
from infinite_nature_ros.frame import Frame
from infinite_nature_ros.rendering import render, Rendered

# Less than this of a pixel, both neighbours taken together, says nothing about its colour.
_LEAST_KNOWN = 0.05


@torch.no_grad()
def interpolate_frames(before: Frame, after: Frame, count: int,
                       backend: str = 'warp') -> list[Frame]:
    """Show a flight between two of its frames, at evenly spaced poses.

    At the fraction f of the way the neighbours weigh 1 - f and f, each pixel by how much of it
    they know; what neither knows is filled from around it. The sky turns as a dome, as in a
    ``Flight``.

    Args:
        before: a frame of a flight, of any batch size.
        after: the next frame of that flight.
        count: frames to put between them; 0 is allowed.
        backend: rasteriser, a name of ``rendering.list_backends()``.

    Returns:
        The frames between, without ``before`` and ``after``. Their ``known`` is 1 for what
        ``before`` shows or ``after`` carried over from it.

    Raises:
        ValueError: for a negative count, or for frames that differ in shape or only one of which
            has a sky.
    """
    if count < 0:
        raise ValueError(f'count is {count}; give 0 or more frames to put between two')
    _check_pair(before, after)
    pair = _prepare(Frame(**{name: torch.cat([value, after.tensors()[name]])
                             for name, value in before.tensors().items()}))
    return [_between(pair, index / (count + 1), backend) for index in range(1, count + 1)]


@dataclass(frozen=True)
class _Pair:
    """Two neighbours as the halves of one batch, ready to be shown from elsewhere.

    Attributes:
        frames: the neighbours.
        layers: ``[2 B, 4 or 5, H, W]`` RGB (under a sky only what the ground contributes to it),
            what the first frame showed, and the sky's matte if there is one.
        disparity: ``[2 B, 1, H, W]`` of the mesh.
        dome: the sky of each.
    """

    frames: Frame
    layers: Tensor
    disparity: Tensor
    dome: skies.SkyDome | None


def _check_pair(before: Frame, after: Frame) -> None:
    shapes = [{name: tuple(value.shape) for name, value in frame.tensors().items()}
              for frame in (before, after)]
    if shapes[0] != shapes[1]:
        raise ValueError(f'the frames are {shapes[0]} and {shapes[1]}; '
                         'give two frames of one flight')


def _prepare(frames: Frame) -> _Pair:
    """Do what doesn't depend on where between the neighbours one looks from."""
    first, second = frames.known.chunk(2)
    # The first frame shows all of itself; the second holds what it kept of that.
    shown = torch.cat([torch.ones_like(first), second])
    dome = skies.SkyDome.of(frames)
    if dome is None:
        return _Pair(frames, torch.cat([frames.image, shown], dim=1), frames.disparity, None)
    return _Pair(frames, torch.cat([frames.image, shown, frames.sky], dim=1),
                 skies.ground_disparity(frames.disparity, frames.sky), dome)


def _between(pair: _Pair, fraction: float, backend: str) -> Frame:
    """Frame a fraction of the way from the first half of a batch to its second half."""
    pose = camera.interpolate_poses(*pair.frames.pose.chunk(2), fraction)
    intrinsics = torch.lerp(*pair.frames.intrinsics.chunk(2), fraction)
    targets = pose.repeat(2, 1, 1), intrinsics.repeat(2, 1)
    rendered = render(pair.layers, pair.disparity, pair.frames.pose, targets[0],
                      pair.frames.intrinsics, targets[1], backend=backend)
    view = Rendered(rendered.image[:, :3], rendered.disparity, rendered.known)
    known = rendered.image[:, 3:4] * rendered.mask
    matte = None
    if pair.dome is None:
        image, disparity = _blend(view, fraction)
    else:
        rendered_sky, (dome, expected) = rendered.image[:, 4:], pair.dome.view(*targets)
        mattes = skies.warped_matte(rendered_sky, view, *targets, expected)
        view = skies.insert_sky(view, mattes, dome)
        known = torch.where(mattes > 0.5, view.known, known)
        matte = torch.lerp(*mattes.chunk(2), fraction)
        image, disparity = skies.keep_sky(*_blend(view, fraction), matte,
                                          torch.lerp(*dome.chunk(2), fraction))
    disparity = disparity.clamp(camera.MIN_DISPARITY, camera.MAX_DISPARITY)
    known = torch.maximum(*known.chunk(2)).clamp(0, 1)
    return Frame(image.clamp(0, 1), disparity, known, pose, intrinsics, matte)


def _blend(view: Rendered, fraction: float) -> tuple[Tensor, Tensor]:
    """Image and disparity of both halves of a batch as one, without holes."""
    # The renderer has multiplied them by the mask once; known is its square.
    mask = view.mask
    layers = torch.cat([view.image, view.disparity], dim=1) * mask
    total = torch.lerp(*view.known.chunk(2), fraction)
    mean = torch.lerp(*layers.chunk(2), fraction) / total.clamp(min=LEAST_WEIGHT)
    known = (total > _LEAST_KNOWN).to(total.dtype)
    filled = push_pull(mean, total * known + LEAST_WEIGHT, known)
    return filled.split((3, 1), dim=1)
