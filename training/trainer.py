"""Trainer: a refiner learns from sequences, and nothing of it is ever lost (paper, section 5)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
import math
from pathlib import Path
import signal
import threading
from typing import Any

from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed
from safetensors.torch import save_file
import torch
from torch import nn, Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from infinite_nature_ros.refining import build_network
from infinite_nature_ros.refining.registry import model_entry
from infinite_nature_ros.refining.spade import add_spectral_norm, SpadeRefiner
from infinite_nature_training.checkpoints import (
    Checkpoints,
    load_checkpoint,
    load_optimizer,
    optimizer_tensors,
)
from infinite_nature_training.configs import TrainingConfig
from infinite_nature_training.datasets import to_float
from infinite_nature_training.discriminator import Judgement, MultiscaleDiscriminator
from infinite_nature_training.flight_pool import FlightPool
from infinite_nature_training.losses import PerceptualLoss
from infinite_nature_training.objective import Objective
from infinite_nature_training.rollout import (
    one_normalisation,
    style_noise,
    Unrolled,
    Unroller,
)
from infinite_nature_training.tracking import Tracker
from infinite_nature_training.validation import measure

Batch = Mapping[str, Tensor]


def build_learner(config: TrainingConfig) -> SpadeRefiner:
    """Build the network that a configuration trains, under spectral norm.

    Raises:
        ValueError: if its model has nothing to learn.
    """
    if not model_entry(config.model).needs_weights:
        raise ValueError(f'model {config.model!r} has nothing to learn; fly it as it is: '
                         f'infinite-nature fly --model {config.model}')
    return add_spectral_norm(build_network(
        config.model, image_size=config.size, grounding=config.grounding))


class Trainer:
    """One training run in a folder: checkpoints, log, configuration.

    Args:
        config: all settings.
        folder: of the run; ``config.json``, ``checkpoints/`` and ``log/`` come into it.
        perceptual: compares pictures; ``None`` only where its weight is 0, validation then
            reports L1 alone.
        provenance: facts for the exported file: bags, commit.
    """

    def __init__(self, config: TrainingConfig, folder: Path,
                 perceptual: PerceptualLoss | None = None,
                 provenance: Mapping[str, Any] | None = None) -> None:
        self.config = config
        self.folder = folder
        self.step = 0
        self.history: dict[str, float] = {}
        self._provenance = dict(provenance or {})
        # accelerate keeps one precision for the whole program; each run has its own here.
        AcceleratorState._reset_state()
        self._accelerator = Accelerator(
            cpu=not torch.cuda.is_available(), gradient_accumulation_steps=config.accumulate,
            mixed_precision='bf16' if config.precision == 'bf16' else 'no')
        self._dtype = torch.float64 if config.precision == 'float64' else torch.float32
        self._perceptual = self._place(perceptual)
        self._build()
        self._checkpoints = Checkpoints(folder / 'checkpoints', config.keep_checkpoints)
        parts = self._accelerator.num_processes * config.accumulate
        self._objective = Objective(config, self._perceptual, parts)
        self._pool = FlightPool(config, self.device) if config.pool_flights else None
        self._stopping = False

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        return self._accelerator.device

    @property
    def processes(self) -> tuple[int, int]:
        """Rank of this process, and how many there are."""
        return self._accelerator.process_index, self._accelerator.num_processes

    def _place(self, module: nn.Module | None) -> nn.Module | None:
        return None if module is None else module.to(self.device, self._dtype)

    def _build(self) -> None:
        """Make networks and optimisers; every process draws the same weights."""
        config = self.config
        set_seed(config.seed)
        refiner = build_learner(config)
        refiner = self._place(refiner).train()
        self._ema = AveragedModel(refiner, multi_avg_fn=get_ema_multi_avg_fn(config.ema_decay))
        self._ema.eval()
        self.refiner = refiner
        unroller = Unroller(refiner, grounding=config.train_grounding,
                            checkpointing=config.checkpointing, backend=config.backend)
        self._unroller, self._generator_optimizer = self._accelerator.prepare(
            unroller, torch.optim.Adam(refiner.parameters(), config.generator_rate, config.betas))
        self.discriminator = None
        if config.needs_discriminator:
            self.discriminator = self._place(
                MultiscaleDiscriminator(config.discriminator_width)).train()
            self._judge, self._discriminator_optimizer = self._accelerator.prepare(
                self.discriminator, torch.optim.Adam(
                    self.discriminator.parameters(), config.discriminator_rate, config.betas))

    @property
    def averaged(self) -> nn.Module:
        """The refiner with averaged weights: what is validated, exported and flown."""
        return self._ema.module

    def resume(self) -> bool:
        """Go on from the newest checkpoint; returns whether there was one.

        Raises:
            ValueError: if it is damaged, or of another configuration's networks.
        """
        newest = self._checkpoints.newest()
        if newest is None:
            return False
        groups, facts = load_checkpoint(newest)
        try:
            self.refiner.load_state_dict(groups['refiner'])
            self._ema.load_state_dict(groups['ema'])
            load_optimizer(self._generator_optimizer, groups.get('generator_optimizer', {}))
            if self.discriminator is not None:
                self.discriminator.load_state_dict(groups['discriminator'])
                load_optimizer(self._discriminator_optimizer,
                               groups.get('discriminator_optimizer', {}))
            if self._pool is not None:
                self._pool.load_state_dict(groups.get('pool', {}))
        except (KeyError, RuntimeError) as error:
            raise ValueError(f'{newest} is of other networks than the configuration says; '
                             f'resume with the config.json of that run ({error})') from error
        self.step = facts['step']
        return True

    def save(self) -> Path | None:
        """Write a checkpoint, in the main process; returns its folder there."""
        if not self._accelerator.is_main_process:
            return None
        groups = {'refiner': self.refiner.state_dict(), 'ema': self._ema.state_dict(),
                  'generator_optimizer': optimizer_tensors(self._generator_optimizer)}
        if self.discriminator is not None:
            groups['discriminator'] = self.discriminator.state_dict()
            groups['discriminator_optimizer'] = optimizer_tensors(self._discriminator_optimizer)
        if self._pool is not None:
            groups['pool'] = self._pool.state_dict()
        return self._checkpoints.save(self.step, groups, {
            'config': vars(self.config), 'metrics': self.history, **self._provenance})

    def run(self, batches: Iterator[Batch], validation: Sequence[Batch] = ()) -> None:
        """Train until the configured number of iterations, or Ctrl-C.

        Args:
            batches: endless; the first is the one that belongs to the present step.
            validation: held-out batches; none: no validation.

        Raises:
            FloatingPointError: if a loss is NaN or infinite; the batch is saved then.
            OSError: if a checkpoint can't be written.
        """
        config, main = self.config, self._accelerator.is_main_process
        tracker = Tracker(self.folder / 'log', self.step) if main else None
        saved = self.step
        with self._ctrl_c_ends_softly(), tqdm(
                total=config.iterations, initial=self.step, desc='training', unit='it',
                disable=not main, dynamic_ncols=True) as bar:
            while self.step < config.iterations and not self._stopping:
                losses, unrolled, batch = self._iterate(batches)
                self.step += 1
                bar.update()
                if self.step % config.log_every == 0:
                    self._log(losses, tracker, bar)
                if tracker and self.step % config.picture_every == 0:
                    tracker.pictures(self.step, batch, unrolled)
                if validation and self.step % config.validate_every == 0:
                    saved = self._validate(validation, tracker)
                elif self.step % config.checkpoint_every == 0:
                    self.save()
                    saved = self.step
        if self.step != saved:
            self.save()
        if tracker:
            tracker.close()

    def _iterate(self, batches: Iterator[Batch]) -> tuple[dict[str, Tensor], Unrolled, Batch]:
        """Move the weights once."""
        networks = [self._unroller, *([self._judge] if self.discriminator else [])]
        for part in range(self.config.accumulate):
            batch = self._to_device(next(batches))
            for network in networks:
                # All parts of a batch see the same weights: the norm iterates for the first alone.
                network.train(part == 0)
            with self._accelerator.accumulate(*networks):
                losses, unrolled = self._learn(batch)
        self._ema.update_parameters(self.refiner)
        return losses, unrolled, batch

    def _to_device(self, batch: Batch) -> dict[str, Tensor]:
        # They travel as they are stored, a third of the bytes.
        return to_float({name: value.to(self.device) for name, value in batch.items()
                         if isinstance(value, Tensor)}, self._dtype)

    def _learn(self, batch: Batch) -> tuple[dict[str, Tensor], Unrolled]:
        """Gradients, and steps of the optimisers, from one batch."""
        lead = self._lead()
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

    def _lead(self) -> int:
        """Draw the steps without gradient in front of a roll-out, the same on all ranks."""
        generator = torch.Generator().manual_seed(
            (self.config.seed * 1_000_003 + self.step) % 2**63)
        return int(torch.randint(self.config.lead_steps + 1, (), generator=generator))

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

    def _look(self, frames: Tensor) -> list[Judgement]:
        """Ask the discriminator, without teaching it."""
        if self.discriminator is None:
            return []
        self.discriminator.requires_grad_(False)
        try:
            with self._accelerator.autocast():
                return self.discriminator(frames)
        finally:
            self.discriminator.requires_grad_(True)

    @one_normalisation
    def _teach_discriminator(self, real: Tensor, fake: Tensor,
                             batch: Batch) -> dict[str, Tensor]:
        judgements = self._judge(torch.cat([real, fake]))
        split = [[Judgement(*_part(scale, slice(*ends))) for scale in judgements]
                 for ends in ((0, len(real)), (len(real), None))]
        losses = self._objective.of_discriminator(*split)
        self._check(losses, batch)
        self._move(sum(losses.values()), self._discriminator_optimizer, self.discriminator)
        return losses

    def _move(self, loss: Tensor, optimizer: torch.optim.Optimizer, network: nn.Module) -> None:
        self._accelerator.backward(loss)
        if self.config.gradient_clip and self._accelerator.sync_gradients:
            self._accelerator.clip_grad_norm_(network.parameters(), self.config.gradient_clip)
        optimizer.step()
        optimizer.zero_grad()

    def _check(self, losses: Mapping[str, Tensor], batch: Batch) -> None:
        """Stop at a NaN, with what made it."""
        flag = torch.tensor(float(all(math.isfinite(loss.item()) for loss in losses.values())))
        if self._accelerator.reduce(flag.to(self.device), reduction='sum') == self.processes[1]:
            return
        path = self.folder / f'not_finite_step_{self.step}_rank_{self.processes[0]}.safetensors'
        save_file({name: value.contiguous().cpu() for name, value in batch.items()}, path)
        text = ', '.join(f'{name} {loss.item():g}' for name, loss in losses.items())
        raise FloatingPointError(
            f'a loss is not finite at step {self.step} ({text}); its batch is in {path}. Go on '
            'from the last checkpoint with --resume and, for example, a lower rate')

    def _log(self, losses: Mapping[str, Tensor], tracker: Tracker | None, bar: tqdm) -> None:
        self.history = {name: self._accelerator.reduce(loss, reduction='mean').item()
                        for name, loss in losses.items()}
        if tracker:
            tracker.scalars(self.step, self.history)
            bar.set_postfix({name[:6]: f'{value:.3g}' for name, value in self.history.items()})

    def _validate(self, batches: Sequence[Batch], tracker: Tracker | None) -> int:
        """Measure the averaged weights and write a checkpoint; returns the step."""
        if self._accelerator.is_main_process:
            errors = measure(self.averaged, map(self._to_device, batches), self._perceptual)
            metric = sum(errors.perceptual or errors.l1) / len(errors.l1)
            tracker.errors(self.step, errors)
            self.history['validation'] = metric
            folder = self.save()
            best = self._checkpoints.best()
            if best is None or metric < best[1]:
                self._checkpoints.mark_best(folder, metric)
        self._accelerator.wait_for_everyone()
        return self.step

    @contextmanager
    def _ctrl_c_ends_softly(self) -> Iterator[None]:
        """Let the present iteration end and a checkpoint be written at SIGINT and SIGTERM."""
        def stop(number: int, frame: object) -> None:
            self._stopping = True

        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread can catch signals
            return
        before = {number: signal.signal(number, stop)
                  for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _part(scale: Judgement, rows: slice) -> tuple[Tensor, list[Tensor]]:
    return scale.logits[rows], [feature[rows] for feature in scale.features]
