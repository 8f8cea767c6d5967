"""Flight pool: running flights, so that a model also learns from its own frames of long after.

A roll-out of T steps shows a model its own frames up to the T-th. In a pool many flights are kept
running; each iteration takes a few, advances them a few steps with gradient, and stores them back.
Frame 100 then costs no more than frame 1.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from infinite_nature_ros.autopilot import Autopilot
from infinite_nature_ros.camera import MAX_DISPARITY, MIN_DISPARITY
from infinite_nature_ros.frame import Frame
from infinite_nature_training.configs import TrainingConfig
from infinite_nature_training.rollout import Unroller

_PILOT = 'pilot.'


class KeptFlights:
    """Tensors of flights by name, kept from iteration to iteration, and whose turn it is.

    Args:
        config: number of flights, and until which age.
        device: where they are kept.
    """

    def __init__(self, config: TrainingConfig, device: torch.device) -> None:
        self._config = config
        self._device = device
        self._flights: dict[str, Tensor] = {}
        self._turn = 0

    def _limit(self, progress: float) -> int:
        """Tell the oldest age in frames, at a share of the run that is done."""
        grown = min(1.0, progress / self._config.pool_growth)
        return max(self._config.pool_steps, round(self._config.pool_age * grown))

    def _make_room(self, fresh: Mapping[str, Tensor]) -> None:
        """Keep as many flights as are asked for, none of which is there yet: of age -1."""
        if not self._flights:
            number = self._config.pool_flights
            self._flights = {name: value.new_zeros(number, *value.shape[1:])
                             for name, value in fresh.items()}
            self._flights['age'] -= 1

    def state_dict(self) -> dict[str, Tensor]:
        """All flights, and whose turn it is."""
        return {**self._flights, 'turn': torch.tensor(self._turn)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Put back what :meth:`state_dict` gave."""
        flights = {name: value.to(self._device) for name, value in state.items()}
        self._turn = int(flights.pop('turn', torch.tensor(0)))
        self._flights = flights


class FlightPool(KeptFlights):
    """Flights that go on from iteration to iteration, flown by the autopilot.

    Args:
        config: number of flights, how many are advanced at once, by how many steps, until which
            age.
        device: where they are kept.
    """

    def advance(self, unroller: Unroller, batch: Mapping[str, Tensor],
                progress: float) -> Tensor | None:
        """Advance the flights whose turn it is.

        Flights that aren't there yet, and those that are too old, start anew from the first
        frames of the batch.

        Args:
            unroller: of the refiner that learns.
            batch: sequences, at least one.
            progress: share of the run that is done, 0 to 1; the oldest age grows with it.

        Returns:
            ``[steps * flights, 4, H, W]`` refined RGB-D, with gradient.
        """
        chosen = self._choose()
        self._restart(chosen, unroller, batch, self._limit(progress))
        flights = {name: value[chosen] for name, value in self._flights.items()}
        pilot = Autopilot(flights['intrinsics'].float())
        pilot.load_state_dict({name.removeprefix(_PILOT): value
                               for name, value in flights.items() if name.startswith(_PILOT)})
        frames = []
        for _ in range(self._config.pool_steps):
            flights, refined = self._step(unroller, pilot, flights)
            frames.append(refined)
        for name, value in {**flights, **_prefixed(pilot)}.items():
            self._flights[name][chosen] = value.detach().to(self._flights[name])
        return torch.cat(frames)

    def _step(self, unroller: Unroller, pilot: Autopilot,
              flights: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        """Fly one step; returns the flights after it, and refined RGB-D."""
        seen = Frame(flights['image'].detach().float(), flights['disparity'].detach().float(),
                     torch.ones_like(flights['disparity']), flights['pose'].float(),
                     flights['intrinsics'].float())
        target = pilot.next_pose(seen).to(flights['pose'])
        unrolled = unroller(flights['image'], flights['disparity'],
                            torch.stack([flights['pose'], target], dim=1),
                            flights['intrinsics'], style=flights['style'])
        refined = unrolled.frames[:, 0]
        return {**flights, 'pose': target, 'image': refined[:, :3].clamp(0, 1),
                'disparity': refined[:, 3:].clamp(MIN_DISPARITY, MAX_DISPARITY),
                'age': flights['age'] + 1}, refined

    def _choose(self) -> Tensor:
        """Take the next flights in turn; returns their indices."""
        config = self._config
        indices = (self._turn + torch.arange(config.pool_batch)) % config.pool_flights
        self._turn = (self._turn + config.pool_batch) % config.pool_flights
        return indices.to(self._device)

    @torch.no_grad()
    def _restart(self, chosen: Tensor, unroller: Unroller, batch: Mapping[str, Tensor],
                 limit: int) -> None:
        """Start those anew that have no frame yet, or are too old."""
        rows = torch.arange(len(chosen), device=self._device) % len(batch['image'])
        image, disparity = batch['image'][rows, 0], batch['disparity'][rows, 0]
        style, _ = _bare(unroller).refiner.encode(image, disparity)
        fresh = {'image': image, 'disparity': disparity, 'pose': batch['pose'][rows, 0],
                 'intrinsics': batch['intrinsics'][rows, 0], 'style': style.to(image),
                 'age': torch.zeros(len(chosen), dtype=torch.int64, device=self._device),
                 **_prefixed(Autopilot(batch['intrinsics'][rows, 0].float()))}
        self._make_room(fresh)
        age = self._flights['age'][chosen]
        over = (age < 0) | (age >= limit)
        for name, value in fresh.items():
            self._flights[name][chosen[over]] = value[over]


def _prefixed(pilot: Autopilot) -> dict[str, Tensor]:
    return {f'{_PILOT}{name}': value for name, value in pilot.state_dict().items()}


def _bare(unroller: Unroller) -> Unroller:
    """Without what DDP wraps around it."""
    return getattr(unroller, 'module', unroller)
