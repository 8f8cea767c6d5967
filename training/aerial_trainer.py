"""Training for long flights: photos, real clips, and the model's own flights, together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn, Tensor
import torch.nn.functional as F

from infinite_nature_ros.camera import MIN_DISPARITY
from infinite_nature_ros.frame import Frame
from infinite_nature_ros.refining import TrainableRefiner
from infinite_nature_training.aerial_rollout import AerialRollout, AerialUnroller
from infinite_nature_training.cameras import sample_previous_poses
from infinite_nature_training.configs import TrainingConfig
from infinite_nature_training.datasets import CLIP
from infinite_nature_training.discriminator import part_judgements
from infinite_nature_training.losses import discriminator_loss, generator_loss, PerceptualLoss
from infinite_nature_training.photo_pool import PhotoPool
from infinite_nature_training.projected import FeatureDistance, ProjectedDiscriminator
from infinite_nature_training.rollout import draw_steps
from infinite_nature_training.tracking import disparity_colours
from infinite_nature_training.trainer import Batch, Trainer
from infinite_nature_training.validation import Errors
from infinite_nature_training.zero_validation import first_frame, measure_cycles

# Disparity up to which a clip shows sky.
_SKY = 1.02 * MIN_DISPARITY


class AerialTrainer(Trainer):
    """Trains on photos there and back, along clips if there are any, and on a pool of flights."""

    def __init__(self, config: TrainingConfig, folder: Path,
                 perceptual: PerceptualLoss | None = None,
                 provenance: Mapping[str, Any] | None = None) -> None:
        """Build networks, pool and feature distance; arguments as of ``Trainer``."""
        super().__init__(config, folder, perceptual, provenance)
        self._features = self._place(FeatureDistance())
        self._pool = PhotoPool(config, self.device, self.processes)
        self._companions['pool'] = self._pool

    def _make_unroller(self, refiner: TrainableRefiner) -> nn.Module:
        if refiner.noise_length:
            raise ValueError(f'model {self.config.model!r} draws its style at random, and flights '
                             'are not trained with that; give aerial-small, or learn from photos')
        return AerialUnroller(refiner, grounding=self.config.train_grounding,
                              backend=self.config.backend)

    def _make_discriminator(self) -> nn.Module:
        return ProjectedDiscriminator(self.config.discriminator_width)

    def _learn(self, batch: Batch) -> tuple[dict[str, Tensor], AerialRollout]:
        losses, made = self._teach_refiner(batch)
        losses |= self._teach_discriminator(made, batch)
        return {name: loss.detach() for name, loss in losses.items()}, made

    def _teach_refiner(self, batch: Batch) -> tuple[dict[str, Tensor], AerialRollout]:
        config, photo = self.config, first_frame(batch)
        flights = self._pool.take(self.refiner, photo, self.step / config.iterations)
        elsewhere = sample_previous_poses(photo.map(Tensor.float), batch['index'],
                                          seed=config.seed)
        made = self._unroller(photo, batch['fine'][:, 0], elsewhere.to(photo.pose), flights,
                              config.pool_steps, self._clip(batch))
        self._pool.put(flights)
        losses = {'cycles': self._difference(made.cycle.refined, made.cycle.target)}
        if made.along is not None:
            real = torch.cat([batch[f'{CLIP}image'], batch[f'{CLIP}disparity']], dim=2)
            real = real[:len(made.along), 1 + self._lead():][:, :config.rollout_steps]
            losses['clips'] = config.clip_weight * self._difference(made.along.flatten(0, 1),
                                                                    real.flatten(0, 1))
        losses['adversarial'] = config.pool_weight * generator_loss(self._look(made.path))
        self._check(losses, batch)
        self._move(sum(losses.values()), self._generator_optimizer, self.refiner)
        return losses, made

    def _difference(self, made: Tensor, real: Tensor) -> Tensor:
        """Weighted difference of RGB-D ``[N, 4, H, W]``, in pixels and in features."""
        config = self.config
        loss = config.reconstruction_weight * F.l1_loss(made, real)
        if config.feature_weight:
            with self._accelerator.autocast():
                features = self._features(made[:, :3], real[:, :3])
            loss = loss + config.feature_weight * features
        return loss

    def _lead(self) -> int:
        """Draw how many steps along clips have no gradient, the same on all ranks."""
        return draw_steps(self.config.seed, self.step, self.config.lead_steps)

    def _clip(self, batch: Batch) -> tuple[Frame, Tensor, int] | None:
        """First frames of the batch's clips, the poses that follow, and the lead."""
        if f'{CLIP}image' not in batch:
            return None
        count, lead = self.config.clip_batch, self._lead()
        image, disparity, pose, intrinsics = (
            batch[f'{CLIP}{name}'][:count]
            for name in ('image', 'disparity', 'pose', 'intrinsics'))
        first = Frame(image[:, 0], disparity[:, 0], torch.ones_like(disparity[:, 0]), pose[:, 0],
                      intrinsics[:, 0], (disparity[:, 0] <= _SKY).to(disparity.dtype))
        return first, pose[:, 1:1 + lead + self.config.rollout_steps], lead

    def _teach_discriminator(self, made: AerialRollout, batch: Batch) -> dict[str, Tensor]:
        real = made.cycle.target
        of_real, of_fake = part_judgements(self._judge(torch.cat([real, made.path.detach()])),
                                           len(real))
        loss = self.config.adversarial_weight * discriminator_loss(of_real, of_fake)
        losses = {'discriminator': loss}
        self._check(losses, batch)
        # All processes rest together.
        if self._accelerator.reduce(loss.detach(), 'mean') >= self.config.discriminator_rest:
            self._move(loss, self._discriminator_optimizer, self.discriminator)
        return losses

    def _pictures(self, batch: Batch, made: AerialRollout) -> dict[str, Tensor]:
        return {'photos': picture(made)}

    def _measure(self, batches: Iterable[Batch]) -> Errors:
        return measure_cycles(self.averaged, batches, self._perceptual)


def picture(made: AerialRollout) -> Tensor:
    """``[3, n * H, 4 * W]``: photo, there and back, refined; below them flights and disparity."""
    cycle, count = made.cycle, len(made.cycle.target)
    rows = [torch.cat([cycle.target[number, :3], cycle.view[number, :3], cycle.refined[number, :3],
                       disparity_colours(cycle.refined[number, 3])], dim=2)
            for number in range(count)]
    path = made.path[:count]
    rows.append(torch.cat([frame[:3] for frame in path[:4]], dim=2))
    rows.append(torch.cat([disparity_colours(frame[3]) for frame in path[:4]], dim=2))
    widest = max(row.shape[2] for row in rows)
    rows = [F.pad(row, (0, widest - row.shape[2])) for row in rows]
    return torch.cat(rows, dim=1).detach().float().cpu().clamp(0, 1)
