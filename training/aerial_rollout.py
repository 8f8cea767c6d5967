"""Roll-outs for long flights: there and back, along clips, and flights that go on."""

from __future__ import annotations

from dataclasses import dataclass
import functools

import torch
from torch import nn, Tensor
import torch.nn.functional as F

from infinite_nature_ros.autopilot import Autopilot
from infinite_nature_ros.frame import Frame
from infinite_nature_ros.refining import TrainableRefiner
from infinite_nature_ros.sky import SkyDome
from infinite_nature_ros.stepping import Stepper
from infinite_nature_training.zero_rollout import Cycle, rgbd, there_and_back


@dataclass
class Flights:
    """Flights that are under way.

    Attributes:
        frame: where they are.
        start: their first frames, which tell the sky.
        state: of the refiner, by name.
        pilot: flies them.
    """

    frame: Frame
    start: Frame
    state: dict[str, Tensor]
    pilot: Autopilot


@dataclass(frozen=True)
class AerialRollout:
    """What came of a batch.

    Attributes:
        cycle: around the photos.
        along: ``[B, T, 4, H, W]`` frames along the clips; ``None`` without clips.
        path: ``[steps * N, 4, H, W]`` frames of flights, with gradient.
    """

    cycle: Cycle
    along: Tensor | None
    path: Tensor


class AerialUnroller(nn.Module):
    """A refiner with all that a batch does with it, so that DDP sees one forward and one backward.

    Args:
        refiner: the network that learns.
        grounding: scale each disparity to the one carried over.
        backend: renderer.
    """

    def __init__(self, refiner: TrainableRefiner, *, grounding: bool = True,
                 backend: str = 'warp') -> None:
        super().__init__()
        self.refiner = refiner
        self._make_stepper = functools.partial(Stepper, refiner, grounding=grounding,
                                               backend=backend)

    def forward(self, photo: Frame, fine: Tensor, elsewhere: Tensor, flights: Flights, steps: int,
                clip: tuple[Frame, Tensor, int] | None = None) -> AerialRollout:
        """Go there and back, along clips, and on with flights.

        Args:
            photo: first frames, with their skies.
            fine: ``[B, 3, n * H, n * W]`` the photos, larger.
            elsewhere: ``[B, 3, 4]`` poses that the cycles lead to.
            flights: advanced in place.
            steps: by how many steps.
            clip: first frames of clips, the poses ``[B, T, 3, 4]`` that follow, and how many of
                these are flown without gradient.
        """
        cycle = self._cycle(photo, fine, elsewhere)
        along = None if clip is None else self._follow(*clip)
        return AerialRollout(cycle, along, self._fly(flights, steps))

    def _cycle(self, photo: Frame, fine: Tensor, elsewhere: Tensor) -> Cycle:
        with torch.no_grad():
            large = enlarge(photo, fine)
            view = there_and_back(self._stepper(photo), photo, elsewhere, self._stepper(large),
                                  large)
        state = self.refiner.style(photo.image, photo.disparity, None)
        refined = torch.cat(self.refiner.refine(view, state), dim=1)
        return Cycle(torch.cat([view.image, view.disparity], dim=1), refined, rgbd(photo))

    def _follow(self, frame: Frame, poses: Tensor, lead: int) -> Tensor:
        state = self.refiner.style(frame.image, frame.disparity, None)
        stepper, frames = self._stepper(frame), []
        for number, pose in enumerate(poses.unbind(1)):
            with torch.set_grad_enabled(torch.is_grad_enabled() and number >= lead):
                frame = stepper.advance(frame, pose, state, torch.ones_like(frame.known))
            frames.append(rgbd(frame))
        return torch.stack(frames[lead:], dim=1)

    def _fly(self, flights: Flights, steps: int) -> Tensor:
        stepper, frame, frames = self._stepper(flights.start), flights.frame, []
        for _ in range(steps):
            seen = frame.map(lambda value: value.detach().float())
            with torch.autocast(seen.image.device.type, enabled=False):
                target = flights.pilot.next_pose(seen).to(frame.pose)
            frame = stepper.advance(frame, target, flights.state, torch.ones_like(frame.known))
            frames.append(rgbd(frame))
        flights.frame = frame.map(Tensor.detach)
        return torch.cat(frames)

    def _stepper(self, frame: Frame) -> Stepper:
        with torch.no_grad():
            return self._make_stepper(SkyDome.of(frame))


def enlarge(photo: Frame, fine: Tensor) -> Frame:
    """Give a frame with a larger image of the same view."""
    size = fine.shape[-2:]
    disparity, known, sky = (
        part if part is None else F.interpolate(part, size, mode='bilinear')
        for part in (photo.disparity, photo.known, photo.sky))
    return Frame(fine, disparity, known, photo.pose, photo.intrinsics, sky)
