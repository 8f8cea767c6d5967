"""Trainer: a refiner learns, on any devices, and nothing of it is ever lost.

This is the plumbing; what is learned from a batch is told by a subclass for each of the papers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
import math
from pathlib import Path
import signal
import threading
from typing import Any, TypeAlias

from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed
from safetensors.torch import save_file
import torch
from torch import nn, Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from infinite_nature_ros.refining import build_network, Refiner
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
from infinite_nature_training.discriminator import Judgement
from infinite_nature_training.flight_pool import FlightPool
from infinite_nature_training.losses import PerceptualLoss
from infinite_nature_training.photo_pool import PhotoPool
from infinite_nature_training.tracking import Tracker
from infinite_nature_training.validation import Errors

Batch: TypeAlias = Mapping[str, Tensor]

Made: TypeAlias = Any
"""What came of a batch; only the subclass that made it looks into it."""


def build_learner(config: TrainingConfig) -> nn.Module:
    """Build the network that a configuration trains, those of the SPADE family under spectral norm.

    Raises:
        ValueError: if its model has nothing to learn.
    """
    if not model_entry(config.model).needs_weights:
        raise ValueError(f'model {config.model!r} has nothing to learn; fly it as it is: '
                         f'infinite-nature fly --model {config.model}')
    network = build_network(config.model, image_size=config.size, grounding=config.grounding)
    return add_spectral_norm(network) if isinstance(network, SpadeRefiner) else network


def _of_another_run(checkpoint: Path, error: Exception) -> ValueError:
    return ValueError(f'{checkpoint} is of other networks than the configuration says; go on with '
                      f'the config.json of that run ({error})')


class Trainer(ABC):
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
        # What else goes into checkpoints, with a state_dict, by name.
        self._companions: dict[str, FlightPool | PhotoPool] = {}
        # accelerate keeps one precision for the whole program; each run has its own here.
        AcceleratorState._reset_state()
        self._accelerator = Accelerator(
            cpu=not torch.cuda.is_available(), gradient_accumulation_steps=config.accumulate,
            mixed_precision='bf16' if config.precision == 'bf16' else 'no')
        self._dtype = torch.float64 if config.precision == 'float64' else torch.float32
        self._perceptual = self._place(perceptual)
        self._build()
        self._checkpoints = Checkpoints(folder / 'checkpoints', config.keep_checkpoints)
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
        self._unroller, self._generator_optimizer = self._accelerator.prepare(
            self._make_unroller(refiner),
            torch.optim.Adam(refiner.parameters(), config.generator_rate, config.betas))
        self.discriminator = None
        if config.needs_discriminator:
            self.discriminator = self._place(self._make_discriminator()).train()
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
        groups, facts = self._load_networks(newest)
        try:
            for name, companion in self._companions.items():
                companion.load_state_dict(groups.get(name, {}))
        except (KeyError, RuntimeError) as error:
            raise _of_another_run(newest, error) from error
        self.step = facts['step']
        return True

    def _load_networks(self, checkpoint: Path) -> tuple[dict[str, dict[str, Tensor]],
                                                        dict[str, Any]]:
        """Load networks and optimisers; returns all that the checkpoint holds."""
        groups, facts = load_checkpoint(checkpoint)
        try:
            self.refiner.load_state_dict(groups['refiner'])
            self._ema.load_state_dict(groups['ema'])
            load_optimizer(self._generator_optimizer, groups.get('generator_optimizer', {}))
            if self.discriminator is not None:
                self.discriminator.load_state_dict(groups['discriminator'])
                load_optimizer(self._discriminator_optimizer,
                               groups.get('discriminator_optimizer', {}))
        except (KeyError, RuntimeError) as error:
            raise _of_another_run(checkpoint, error) from error
        return groups, facts

    def start_from(self, checkpoint: Path) -> None:
        """Begin with the networks and optimisers of another run, at whatever size it trained.

        Args:
            checkpoint: of the run, whose model and discriminator must be the same.

        Raises:
            ValueError: if it is damaged, or of other networks.
        """
        self._load_networks(checkpoint)

    def save(self) -> Path | None:
        """Write a checkpoint, in the main process; returns its folder there."""
        if not self._accelerator.is_main_process:
            return None
        groups = {'refiner': self.refiner.state_dict(), 'ema': self._ema.state_dict(),
                  'generator_optimizer': optimizer_tensors(self._generator_optimizer)}
        if self.discriminator is not None:
            groups['discriminator'] = self.discriminator.state_dict()
            groups['discriminator_optimizer'] = optimizer_tensors(self._discriminator_optimizer)
        groups |= {name: companion.state_dict() for name, companion in self._companions.items()}
        return self._checkpoints.save(self.step, groups, {
            'config': vars(self.config), 'metrics': self.history, **self._provenance})

    def run(self, batches: Iterator[Batch], validation: Sequence[Batch] = (),
            until: int | None = None) -> None:
        """Train until the configured number of iterations, or Ctrl-C.

        Args:
            batches: endless; the first is the one that belongs to the present step.
            validation: held-out batches; none: no validation.
            until: number of iterations to end at, where that is before the configured one.

        Raises:
            FloatingPointError: if a loss is NaN or infinite; the batch is saved then.
            OSError: if a checkpoint can't be written.
        """
        config, main = self.config, self._accelerator.is_main_process
        tracker = Tracker(self.folder / 'log', self.step) if main else None
        saved = self.step
        end = config.iterations if until is None else min(until, config.iterations)
        with self._ctrl_c_ends_softly(), tqdm(
                total=end, initial=self.step, desc='training', unit='it',
                disable=not main, dynamic_ncols=True) as bar:
            while self.step < end and not self._stopping:
                losses, made, batch = self._iterate(batches)
                self.step += 1
                bar.update()
                if self.step % config.log_every == 0:
                    self._log(losses, tracker, bar)
                if tracker and self.step % config.picture_every == 0:
                    tracker.pictures(self.step, self._pictures(batch, made))
                if validation and self.step % config.validate_every == 0:
                    saved = self._validate(validation, tracker)
                elif self.step % config.checkpoint_every == 0:
                    self.save()
                    saved = self.step
        if self.step != saved:
            self.save()
        if tracker:
            tracker.close()

    def close(self) -> None:
        """End the group of processes; one that exits within it can be aborted by its threads."""
        self._accelerator.wait_for_everyone()
        self._accelerator.end_training()

    def _iterate(self, batches: Iterator[Batch]) -> tuple[dict[str, Tensor], Made, Batch]:
        """Move the weights once."""
        networks = [self._unroller, *([self._judge] if self.discriminator else [])]
        for part in range(self.config.accumulate):
            batch = self._to_device(next(batches))
            for network in networks:
                # All parts of a batch see the same weights: the norm iterates for the first alone.
                network.train(part == 0)
            with self._accelerator.accumulate(*networks):
                losses, made = self._learn(batch)
        self._ema.update_parameters(self.refiner)
        return losses, made, batch

    def _to_device(self, batch: Batch) -> dict[str, Tensor]:
        # They travel as they are stored, a third of the bytes.
        return to_float({name: value.to(self.device) for name, value in batch.items()
                         if isinstance(value, Tensor)}, self._dtype)

    @abstractmethod
    def _make_unroller(self, refiner: Refiner) -> nn.Module:
        """Wrap the refiner in all that a batch does with it: one forward pass, which DDP sees."""

    @abstractmethod
    def _make_discriminator(self) -> nn.Module:
        """Build what tells real frames from others."""

    @abstractmethod
    def _learn(self, batch: Batch) -> tuple[dict[str, Tensor], Made]:
        """Take gradients, and steps of the optimisers, from one batch."""

    @abstractmethod
    def _pictures(self, batch: Batch, made: Made) -> dict[str, Tensor]:
        """Draw what became of a batch: ``[3, h, w]`` by name."""

    @abstractmethod
    def _measure(self, batches: Iterable[Batch]) -> Errors:
        """Compare what the averaged weights make of held-out batches with what is real."""

    def _look(self, frames: Tensor) -> list[Judgement]:
        """Ask the discriminator, without teaching it."""
        if self.discriminator is None:
            return []
        # Those alone: what never learns must not begin to afterwards.
        learned = [one for one in self.discriminator.parameters() if one.requires_grad]
        for parameter in learned:
            parameter.requires_grad_(False)
        try:
            with self._accelerator.autocast():
                return self.discriminator(frames)
        finally:
            for parameter in learned:
                parameter.requires_grad_(True)

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
            errors = self._measure(map(self._to_device, batches))
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
