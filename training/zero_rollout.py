"""Roll-outs of InfiniteNature-Zero: cycles around a photo, and flights that nobody has filmed."""

from __future__ import annotations

from dataclasses import dataclass
import functools
from typing import Any

import torch
from torch import nn, Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from infinite_nature_ros import camera
from infinite_nature_ros.autopilot import Autopilot
from infinite_nature_ros.filling import fill_holes
from infinite_nature_ros.frame import Frame
from infinite_nature_ros.refining import TrainableRefiner
from infinite_nature_ros.refining.refiner import join_rgbd
from infinite_nature_ros.rendering import Rendered
from infinite_nature_ros.sky import SkyDome
from infinite_nature_ros.stepping import Stepper
from infinite_nature_training.rollout import fill_parametrization_cache

# Of a pixel that is rendered there and back, this share must come from the photo.
_CARRIED = 0.5


@dataclass(frozen=True)
class Cycle:
    """The end of a way that leads from a frame to another pose and back.

    Attributes:
        view: ``[B, 4, H, W]`` RGB-D as it came back, 0 in holes.
        refined: ``[B, 4, H, W]`` what the refiner made of it.
        target: ``[B, 4, H, W]`` the frame that it should be.
    """

    view: Tensor
    refined: Tensor
    target: Tensor


@dataclass(frozen=True)
class ZeroRollout:
    """What came of a batch of photos.

    Attributes:
        cycle: around the photos.
        path: ``[B, n, 4, H, W]`` frames of flights into them that have gradients, in order; none
            where nothing was flown.
        late_cycle: around the last frames of the flights; ``None`` where it isn't asked for.
    """

    cycle: Cycle
    path: Tensor
    late_cycle: Cycle | None


class ZeroUnroller(nn.Module):
    """A refiner with all that a batch does with it, so that DDP sees one forward and one backward.

    Args:
        refiner: the network that learns.
        sky: keep the photos' sky, as flights do.
        grounding: scale each disparity to the one carried over; Zero does not.
        checkpointing: compute each step of a flight anew on the way back.
        backend: renderer.
    """

    def __init__(self, refiner: TrainableRefiner, *, sky: bool = True, grounding: bool = False,
                 checkpointing: bool = False, backend: str = 'warp') -> None:
        super().__init__()
        self.refiner = refiner
        self._sky = sky
        self._checkpointing = checkpointing
        self._make_stepper = functools.partial(Stepper, refiner, grounding=grounding,
                                               backend=backend)

    def forward(self, photo: Frame, elsewhere: Tensor, noise: Tensor, *, steps: int = 0,
                lead: int = 0, late: bool = False) -> ZeroRollout:
        """Go there and back, and fly.

        Args:
            photo: first frames, with their skies.
            elsewhere: ``[B, 3, 4]`` poses that the cycles lead to.
            noise: ``[B, refiner.noise_length]`` standard normal, for the style.
            steps: how far the autopilot flies into the photos.
            lead: the first steps of it that have no gradient.
            late: also go there and back around the last frames.
        """
        fill_parametrization_cache(self.refiner)
        state = self.refiner.style(photo.image, photo.disparity, noise)
        stepper = self._stepper(photo)
        if not self._sky:
            photo = photo.replace(sky=None)
        cycle = self._cycle(stepper, photo, elsewhere, state)
        frames = self._fly(stepper, photo, state, steps, lead)
        late_cycle = None
        if late and frames:
            last = frames[-1].map(Tensor.detach)
            way = camera.relative_pose(photo.pose, elsewhere)
            late_cycle = self._cycle(stepper, last, camera.compose(way, last.pose), state)
        path = [rgbd(frame) for frame in frames[lead:]]
        nothing = cycle.target.new_empty(len(cycle.target), 0, *cycle.target.shape[1:])
        return ZeroRollout(cycle, torch.stack(path, dim=1) if path else nothing, late_cycle)

    def _stepper(self, photo: Frame) -> Stepper:
        with torch.no_grad():
            dome = SkyDome.of(photo) if self._sky else None
        return self._make_stepper(dome)

    def _cycle(self, stepper: Stepper, frame: Frame, elsewhere: Tensor, state: Any) -> Cycle:
        with torch.no_grad():
            view = there_and_back(stepper, frame, elsewhere)
        refined = torch.cat(self.refiner.refine(view, state), dim=1)
        return Cycle(torch.cat([view.image, view.disparity], dim=1), refined, rgbd(frame))

    def _fly(self, stepper: Stepper, frame: Frame, state: Any, steps: int,
             lead: int) -> list[Frame]:
        """Frames behind the first one, flown by the autopilot."""
        pilot = Autopilot(frame.intrinsics.float())
        frames = []
        for step in range(steps):
            with torch.set_grad_enabled(torch.is_grad_enabled() and step >= lead):
                seen = frame.map(lambda value: value.detach().float())
                target = pilot.next_pose(seen).to(frame.pose)
                frame = self._advance(stepper, frame, target, state)
            frames.append(frame)
        return frames

    def _advance(self, stepper: Stepper, frame: Frame, target: Tensor, state: Any) -> Frame:
        def advance(*parts: Tensor) -> tuple[Tensor, ...]:
            last = Frame(**dict(zip(names, parts, strict=True)))
            made = stepper.advance(last, target, state, torch.ones_like(last.known))
            return tuple(made.tensors().values())

        names, parts = zip(*frame.tensors().items(), strict=True)
        if self._checkpointing and torch.is_grad_enabled():
            made = checkpoint(advance, *parts, use_reentrant=False, preserve_rng_state=False)
        else:
            made = advance(*parts)
        return Frame(**dict(zip(names, made, strict=True)))


def there_and_back(stepper: Stepper, frame: Frame, elsewhere: Tensor,
                   away_stepper: Stepper | None = None, fine: Frame | None = None) -> Rendered:
    """View of a frame by way of another pose: what that didn't see is a hole, all is blurred.

    Args:
        stepper: renders, with its sky.
        frame: where the way begins and ends.
        elsewhere: ``[B, 3, 4]`` pose in between, one view away (Zero, section 3.2).
        away_stepper: renders the way there, for fine frames.
        fine: the same frame, larger: the view from there is then made smaller again, so that it is
            as sharp as a photo and only the way back blurs, as a step of a flight does.
    """
    start = frame if fine is None else fine
    away = (away_stepper or stepper).warp(start, elsewhere, torch.ones_like(start.known))
    image, disparity = fill_holes(away.view)
    image, disparity, known, sky = (
        part if part is None else functional.adaptive_avg_pool2d(part, frame.image.shape[-2:])
        for part in (image, disparity, away.known, away.sky))
    between = Frame(image, disparity, known, elsewhere, frame.intrinsics, sky)
    back = stepper.warp(between, frame.pose, known)
    keep = (back.known > _CARRIED * back.view.known).to(image.dtype)
    return Rendered(back.view.image * keep, back.view.disparity * keep, back.view.known * keep)


def rgbd(frame: Frame) -> Tensor:
    """``[B, 4, H, W]`` of a frame."""
    return join_rgbd(frame.image, frame.disparity)
