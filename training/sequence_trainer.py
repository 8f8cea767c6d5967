"""Training of Infinite Nature: real sequences are flown along (paper, sections 3 and 5)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn, Tensor

from infinite_nature_ros.refining import Refiner
from infinite_nature_training.configs import TrainingConfig
from infinite_nature_training.discriminator import MultiscaleDiscriminator, part_judgements
from infinite_nature_training.flight_pool import FlightPool
from infinite_nature_training.losses import PerceptualLoss
from infinite_nature_training.objective import Objective
from infinite_nature_training.rollout import (
    draw_steps,
    one_normalisation,
    style_noise,
    Unrolled,
    Unroller,
)
from infinite_nature_training.tracking import picture_of
from infinite_nature_training.trainer import Batch, Trainer
from infinite_nature_training.validation import Errors, measure


class SequenceTrainer(Trainer):
    """Trains on sequences of posed RGB-D frames."""

    def __init__(self, config: TrainingConfig, folder: Path,
                 perceptual: PerceptualLoss | None = None,
                 provenance: Mapping[str, Any] | None = None) -> None:
        """Build networks, objective and pool; arguments as of ``Trainer``."""
        super().__init__(config, folder, perceptual, provenance)
        parts = self.processes[1] * config.accumulate
        self._objective = Objective(config, self._perceptual, parts)
        self._pool = FlightPool(config, self.device) if config.pool_flights else None
        if self._pool is not None:
            self._companions['pool'] = self._pool

    def _make_unroller(self, refiner: Refiner) -> nn.Module:
        config = self.config
        return Unroller(refiner, grounding=config.train_grounding,
                        checkpointing=config.checkpointing, backend=config.backend)

    def _make_discriminator(self) -> nn.Module:
        return MultiscaleDiscriminator(self.config.discriminator_width)

    def _pictures(self, batch: Batch, made: Unrolled) -> dict[str, Tensor]:
        return {'input': batch['image'][0, 0], 'steps': picture_of(batch, made)}

    def _measure(self, batches: Iterable[Batch]) -> Errors:
        return measure(self.averaged, batches, self._perceptual)

    def _learn(self, batch: Batch) -> tuple[dict[str, Tensor], Unrolled]:
        """Gradients, and steps of the optimisers, from one batch."""
        lead = draw_steps(self.config.seed, self.step, self.config.lead_steps)
        targets = torch.cat([batch['image'], batch['disparity']], dim=2)
        targets = targets[:, lead + 1:lead + 1 + self.config.rollout_steps]
        losses, unrolled, pooled = self._teach_refiner(batch, targets, lead)
        if self.discriminator is not None:
            fakes = [frames.detach() for frames in (unrolled.frames.flatten(0, 1), pooled)
                     if frames is not None]
            losses |= self._teach_discriminator(targets.flatten(0, 1), torch.cat(fakes), batch)
        return {name: loss.detach() for name, loss in losses.items()}, unrolled

    @one_normalisation
    def _teach_refiner(self, batch: Batch, targets: Tensor, lead: int) -> tuple[
            dict[str, Tensor], Unrolled, Tensor | None]:
        """Losses, the roll-out, and the pool's frames."""
        unrolled = self._unroll(batch, lead)
        pooled = self._advance_pool(batch)
        real = self._look(targets.flatten(0, 1))
        fake = self._look(unrolled.frames.flatten(0, 1))
        losses = self._objective.of_generator(unrolled, targets, batch['index'], real, fake)
        if pooled is not None:
            losses |= self._objective.of_pool(self._look(pooled))
        self._check(losses, batch)
        self._move(sum(losses.values()), self._generator_optimizer, self.refiner)
        return losses, unrolled, pooled

    def _unroll(self, batch: Batch, lead: int) -> Unrolled:
        steps = lead + self.config.rollout_steps + 1
        noise = style_noise(self.config.seed, batch['index'], batch['image'])
        return self._unroller(batch['image'][:, 0], batch['disparity'][:, 0],
                              batch['pose'][:, :steps], batch['intrinsics'][:, 0], noise,
                              lead=lead)

    def _advance_pool(self, batch: Batch) -> Tensor | None:
        """Frames ``[N, 4, H, W]`` of running flights, with gradient."""
        if self._pool is None:
            return None
        return self._pool.advance(self._unroller, batch, self.step / self.config.iterations)

    @one_normalisation
    def _teach_discriminator(self, real: Tensor, fake: Tensor,
                             batch: Batch) -> dict[str, Tensor]:
        judgements = self._judge(torch.cat([real, fake]))
        losses = self._objective.of_discriminator(*part_judgements(judgements, len(real)))
        self._check(losses, batch)
        self._move(sum(losses.values()), self._discriminator_optimizer, self.discriminator)
        return losses
