"""Photo pool: flights into photos that go on from iteration to iteration.

As ``flight_pool`` does for sequences, for flights that keep the sky of the photo they began at.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from infinite_nature_ros.autopilot import Autopilot
from infinite_nature_ros.frame import Frame
from infinite_nature_ros.refining import TrainableRefiner
from infinite_nature_training.aerial_rollout import Flights
from infinite_nature_training.configs import TrainingConfig
from infinite_nature_training.flight_pool import KeptFlights

# Steering of flights: how likely a flight is steered when it is taken, and the greatest offset of
# its look target along x and y.
_STEERED, _STEERING = 1 / 6, (0.35, 0.08)

# A flight begins anew at a share of the oldest age, this one or more, up to 1: if all had the
# same limit, all would begin at once.
_YOUNGEST = 0.3

_FRAME, _START, _STATE, _PILOT = 'frame.', 'start.', 'state.', 'pilot.'


class PhotoPool(KeptFlights):
    """Flights that are kept running, and started anew when they are old.

    The pools of several processes are together the one that a single process with as many flights
    would have. Checkpoints hold that of the first process; all go on with it.

    Args:
        config: number of flights, how many are advanced at once, until which age.
        device: where they are kept.
        processes: rank of this process, and how many there are.
    """

    def __init__(self, config: TrainingConfig, device: torch.device,
                 processes: tuple[int, int] = (0, 1)) -> None:
        super().__init__(config, device)
        self._processes = processes
        self._chosen = torch.arange(0, device=device)

    @torch.no_grad()
    def take(self, refiner: TrainableRefiner, photo: Frame, progress: float) -> Flights:
        """Give the flights whose turn it is; those too old start anew, into the given photos.

        Args:
            refiner: begins flights.
            photo: first frames, at least one.
            progress: share of the run that is done, 0 to 1; the oldest age grows with it.
        """
        config = self._config
        turns = self._turn + torch.arange(config.pool_batch, device=self._device)
        self._chosen = turns % config.pool_flights
        self._turn += config.pool_batch
        self._restart(refiner, photo, self._limit(progress))
        flights = {name: value[self._chosen] for name, value in self._flights.items()}
        pilot = Autopilot(flights[f'{_FRAME}intrinsics'].float())
        pilot.load_state_dict(_part(flights, _PILOT))
        pilot.steer(self._steered(flights[f'{_PILOT}offsets']))
        return Flights(Frame(**_part(flights, _FRAME)), Frame(**_part(flights, _START)),
                       _part(flights, _STATE), pilot)

    @torch.no_grad()
    def put(self, flights: Flights) -> None:
        """Store flights that were taken, where they are now."""
        now = {**_named(flights.frame.tensors(), _FRAME),
               **_named(flights.pilot.state_dict(), _PILOT)}
        for name, value in now.items():
            self._flights[name][self._chosen] = value.detach().to(self._flights[name])
        self._flights['age'][self._chosen] += self._config.pool_steps

    @property
    def _numbers(self) -> Tensor:
        """Numbers of the chosen flights among those of all processes."""
        rank, ranks = self._processes
        return self._chosen * ranks + rank

    def _steered(self, offsets: Tensor) -> Tensor:
        """Turn now and then: a flight that only goes ahead never sees what lies beside it."""
        take, steered = self._turn // self._config.pool_batch, offsets.clone()
        for row, number in enumerate(self._numbers.tolist()):
            random = np.random.default_rng((self._config.seed, take, number))
            if random.random() < _STEERED:
                steered[row] = torch.from_numpy(random.uniform(-1, 1, 2) * _STEERING)
        return steered

    def _restart(self, refiner: TrainableRefiner, photo: Frame, limit: int) -> None:
        over = self._are_over(limit)
        if not over.any():
            return
        rows = torch.arange(len(over), device=self._device) % len(photo.image)
        start = photo.map(lambda value: value[rows])
        state = refiner.style(start.image, start.disparity, None)
        fresh = {**_named(start.tensors(), _FRAME), **_named(start.tensors(), _START),
                 **_named(state, _STATE),
                 **_named(Autopilot(start.intrinsics.float()).state_dict(), _PILOT),
                 'age': torch.zeros_like(rows)}
        self._make_room(fresh)
        for name, value in fresh.items():
            self._flights[name][self._chosen[over]] = value[over].to(self._flights[name])

    def _are_over(self, limit: int) -> Tensor:
        """``[pool_batch]`` whether the chosen flights are too old, or aren't there yet."""
        if not self._flights:
            return torch.ones_like(self._chosen, dtype=torch.bool)
        age = self._flights['age'][self._chosen]
        share = _YOUNGEST + (1 - _YOUNGEST) * (self._numbers * 7919 % 101) / 100
        return (age < 0) | (age >= (limit * share).long().clamp(min=1))


def _named(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {f'{prefix}{name}': value for name, value in tensors.items()}


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items()
            if name.startswith(prefix)}
