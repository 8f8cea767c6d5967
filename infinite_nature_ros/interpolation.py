"""Frames between frames: both neighbours shown from the way between them, and blended.

For a smooth video at a higher rate than the flight's (paper, supplement 1.5).
"""

from __future__ import annotations

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
    pair = Frame(**{name: torch.cat([value, after.tensors()[name]])
                    for name, value in before.tensors().items()})
    dome = None
    if pair.sky is not None:
        dome = skies.SkyDome.from_photo(pair.image, pair.sky, pair.pose, pair.intrinsics)
    return [_between(pair, dome, index / (count + 1), backend) for index in range(1, count + 1)]


def _check_pair(before: Frame, after: Frame) -> None:
    shapes = [{name: tuple(value.shape) for name, value in frame.tensors().items()}
              for frame in (before, after)]
    if shapes[0] != shapes[1]:
        raise ValueError(f'the frames are {shapes[0]} and {shapes[1]}; '
                         'give two frames of one flight')


def _between(pair: Frame, dome: skies.SkyDome | None, fraction: float, backend: str) -> Frame:
    """Frame a fraction of the way from the first half of a batch to its second half."""
    start, end = pair.pose.chunk(2)
    pose = camera.interpolate_poses(start, end, fraction)
    intrinsics = torch.lerp(*pair.intrinsics.chunk(2), fraction)
    view, known, matte, heaven = _show(pair, dome, pose.repeat(2, 1, 1), intrinsics.repeat(2, 1),
                                       backend)
    image, disparity = _blend(view, fraction)
    if matte is not None:
        matte = torch.lerp(*matte.chunk(2), fraction)
        image, disparity = skies.keep_sky(image, disparity, matte,
                                          torch.lerp(*heaven.chunk(2), fraction))
    disparity = disparity.clamp(camera.MIN_DISPARITY, camera.MAX_DISPARITY)
    return Frame(image.clamp(0, 1), disparity, known, pose, intrinsics, matte)


def _show(pair: Frame, dome: skies.SkyDome | None, pose: Tensor, intrinsics: Tensor,
          backend: str) -> tuple[Rendered, Tensor, Tensor | None, Tensor | None]:
    """Both neighbours from the pose between them: view, known, sky matte and dome."""
    image, disparity, riders = pair.image, pair.disparity, [_carried(pair)]
    if dome is not None:
        image = skies.ground_layer(image, pair.sky, dome.view(pair.pose, pair.intrinsics))
        disparity = skies.ground_disparity(disparity, pair.sky)
        riders.append(pair.sky)
    rendered = render(torch.cat([image, *riders], dim=1), disparity, pair.pose, pose,
                      pair.intrinsics, intrinsics, backend=backend)
    view = Rendered(rendered.image[:, :3], rendered.disparity, rendered.known)
    known = rendered.image[:, 3:4] * rendered.known.sqrt()
    matte = heaven = None
    if dome is not None:
        rendered_sky, heaven = rendered.image[:, 4:], dome.view(pose, intrinsics)
        matte = skies.warped_matte(rendered_sky, view, pose, intrinsics)
        view = skies.insert_sky(view, rendered_sky, matte, heaven)
        known = torch.where(matte > 0.5, view.known, known)
    return view, torch.maximum(*known.chunk(2)).clamp(0, 1), matte, heaven


def _carried(pair: Frame) -> Tensor:
    """``[2 B, 1, H, W]`` what the first frame shows: all of itself, and what the second kept."""
    first, second = pair.known.chunk(2)
    return torch.cat([torch.ones_like(first), second])


def _blend(view: Rendered, fraction: float) -> tuple[Tensor, Tensor]:
    """Image and disparity of both halves of a batch as one, without holes."""
    # The renderer has multiplied them by the mask once; known is its square.
    mask = view.known.sqrt()
    layers = torch.cat([view.image, view.disparity], dim=1) * mask
    total = torch.lerp(*view.known.chunk(2), fraction)
    mean = torch.lerp(*layers.chunk(2), fraction) / total.clamp(min=LEAST_WEIGHT)
    known = (total > _LEAST_KNOWN).to(total.dtype)
    filled = push_pull(mean, total * known + LEAST_WEIGHT, known)
    return filled.split((3, 1), dim=1)
