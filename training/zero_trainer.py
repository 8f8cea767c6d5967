"""Training of InfiniteNature-Zero: from photos alone (Li et al. 2022, section 3)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn, Tensor
import torch.nn.functional as F

from infinite_nature_ros.refining import TrainableRefiner
from infinite_nature_training.cameras import sample_previous_poses
from infinite_nature_training.configs import TrainingConfig
from infinite_nature_training.discriminator import MultiscaleDiscriminator, part_judgements
from infinite_nature_training.losses import reconstruction_loss
from infinite_nature_training.rollout import draw_steps, one_normalisation, style_noise
from infinite_nature_training.tracking import disparity_colours
from infinite_nature_training.trainer import Batch, Trainer
from infinite_nature_training.validation import Errors
from infinite_nature_training.zero_losses import (
    gradient_penalty,
    logistic_discriminator_loss,
    nonsaturating_generator_loss,
)
from infinite_nature_training.zero_rollout import Cycle, ZeroRollout, ZeroUnroller
from infinite_nature_training.zero_validation import first_frame, measure_cycles


class ZeroTrainer(Trainer):
    """Trains on photos: there and back again, and flights whose ends must look real."""

    def _make_unroller(self, refiner: TrainableRefiner) -> nn.Module:
        config = self.config
        return ZeroUnroller(refiner, sky=config.sky, grounding=config.train_grounding,
                            checkpointing=config.checkpointing, backend=config.backend)

    def _make_discriminator(self) -> nn.Module:
        # R1 holds it back; under spectral norm as well it would learn nothing.
        return MultiscaleDiscriminator(self.config.discriminator_width, spectral_norm=False)

    def _learn(self, batch: Batch) -> tuple[dict[str, Tensor], ZeroRollout]:
        losses, made = self._teach_refiner(batch)
        if self.discriminator is not None and made.path.shape[1]:
            losses |= self._teach_discriminator(made.cycle.target, self._judged(made), batch)
        return {name: loss.detach() for name, loss in losses.items()}, made

    @one_normalisation
    def _teach_refiner(self, batch: Batch) -> tuple[dict[str, Tensor], ZeroRollout]:
        made = self._unroll(batch)
        losses = self._compare(made.cycle, 1.0)
        if made.late_cycle is not None:
            late = self._compare(made.late_cycle, self.config.late_weight)
            losses |= {f'late_{name}': loss for name, loss in late.items()}
        if self.discriminator is not None and made.path.shape[1]:
            losses['adversarial'] = self.config.adversarial_weight * nonsaturating_generator_loss(
                self._look(self._judged(made)))
        self._check(losses, batch)
        self._move(sum(losses.values()), self._generator_optimizer, self.refiner)
        return losses, made

    def _unroll(self, batch: Batch) -> ZeroRollout:
        config, photo = self.config, first_frame(batch)
        noise = style_noise(config.seed, batch['index'], photo.image, self.refiner.noise_length)
        longest = longest_flight(config, self.step)
        steps = 1 + draw_steps(config.seed, self.step, longest - 1) if longest else 0
        lead = max(0, steps - config.gradient_steps) if config.gradient_steps else 0
        compared = (config.reconstruction_weight, config.disparity_weight, config.perceptual_weight)
        elsewhere = sample_previous_poses(photo.map(Tensor.float), batch['index'],
                                          seed=config.seed)
        return self._unroller(photo, elsewhere.to(photo.pose), noise, steps=steps, lead=lead,
                              late=config.late_weight > 0 and any(compared))

    def _judged(self, made: ZeroRollout) -> Tensor:
        """``[N, 4, H, W]`` frames of flights that the discriminator gets to see."""
        return made.path[:, -1] if self.config.balanced else made.path.flatten(0, 1)

    def _compare(self, cycle: Cycle, factor: float) -> dict[str, Tensor]:
        """Weighted differences of a cycle's end from its beginning."""
        config, losses = self.config, {}
        refined, target = cycle.refined, cycle.target
        if config.reconstruction_weight:
            losses['reconstruction'] = (factor * config.reconstruction_weight
                                        * reconstruction_loss(refined, target))
        if config.disparity_weight:
            losses['disparity'] = (factor * config.disparity_weight
                                   * F.l1_loss(refined[:, 3:], target[:, 3:]))
        if config.perceptual_weight:
            losses['perceptual'] = (factor * config.perceptual_weight
                                    * self._perceptual(refined[:, :3], target[:, :3]))
        return losses

    @one_normalisation
    def _teach_discriminator(self, real: Tensor, fake: Tensor,
                             batch: Batch) -> dict[str, Tensor]:
        config = self.config
        penalised = config.r1_weight > 0 and self.step % config.r1_every == 0
        real = real.detach().requires_grad_(penalised)
        of_real, of_fake = part_judgements(self._judge(torch.cat([real, fake.detach()])),
                                           len(real))
        losses = {'discriminator': config.adversarial_weight
                  * logistic_discriminator_loss(of_real, of_fake)}
        if penalised:
            losses['r1'] = (config.adversarial_weight * config.r1_weight * config.r1_every
                            * gradient_penalty(real, of_real))
        self._check(losses, batch)
        self._move(sum(losses.values()), self._discriminator_optimizer, self.discriminator)
        return losses

    def _pictures(self, batch: Batch, made: ZeroRollout) -> dict[str, Tensor]:
        return {'photos': picture_of_photos(made)}

    def _measure(self, batches: Iterable[Batch]) -> Errors:
        return measure_cycles(self.averaged, batches, self._perceptual, sky=self.config.sky)


def longest_flight(config: TrainingConfig, step: int) -> int:
    """Tell how long flights may be at an iteration; it grows step by step (Zero, section 3.3)."""
    flown = step - config.cycle_iterations
    if flown < 0:
        return 0
    if not config.growth_iterations:
        return config.rollout_steps
    return min(config.rollout_steps, 1 + flown // config.growth_iterations)


def picture_of_photos(made: ZeroRollout) -> Tensor:
    """``[3, B * H, n * W]``: a row a photo.

    From left to right: photo, there and back, refined, the flight's last frame, and the disparity
    of photo, refined and last frame.
    """
    cycle = made.cycle
    last = made.path[:, -1] if made.path.shape[1] else torch.zeros_like(cycle.target)
    rows = []
    for photo, view, refined, flown in zip(cycle.target, cycle.view, cycle.refined, last,
                                           strict=True):
        colours = [picture[:3] for picture in (photo, view, refined, flown)]
        depths = [disparity_colours(picture[3]) for picture in (photo, refined, flown)]
        rows.append(torch.cat(colours + depths, dim=2))
    return torch.cat(rows, dim=1).detach().float().cpu().clamp(0, 1)
