"""Runs: a configuration, bags and a folder become a training run, and that a weights file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
import json
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader

from infinite_nature_ros.refining import save_weights
from infinite_nature_training.bags import ClipError
from infinite_nature_training.camera_speed import CameraSpeed
from infinite_nature_training.checkpoints import Checkpoints, load_checkpoint
from infinite_nature_training.configs import load_config, TrainingConfig
from infinite_nature_training.datasets import DEFAULT_AUGMENTATION, SequenceDataset
from infinite_nature_training.features import load_vgg16
from infinite_nature_training.losses import PerceptualLoss
from infinite_nature_training.provenance import describe_run
from infinite_nature_training.sequence_trainer import SequenceTrainer
from infinite_nature_training.trainer import build_learner, Trainer

CONFIG_FILE = 'config.json'

LEARNED, HELD_OUT = ('', 'train'), ('validation',)
"""Splits of the clips that are learned from, and of those that a run is validated on."""


def train(config: TrainingConfig, bags: Sequence[Path], folder: Path, *,
          validation: Sequence[Path] = (), resume: bool = False,
          vgg: Path | None = None) -> Trainer:
    """Train, from the start or from where a run ended.

    Args:
        config: all settings; beside the weights they are kept as ``config.json``.
        bags: ACID bags and folders of them; of those only clips of the split train, or of none,
            are learned from.
        folder: of the run.
        validation: held-out bags; none: the clips of the split validation, if there are any.
        resume: go on from the newest checkpoint.
        vgg: weights of VGG16; ``None`` takes the fetched ones.

    Returns:
        The trainer, at the end of its run.

    Raises:
        ValueError: if the folder holds a run and ``resume`` isn't said, or the other way round,
            or the bags can't be used.
        FloatingPointError: if a loss isn't finite.
        OSError: if something can't be read or written.
    """
    _claim(folder, resume)
    sequences = _dataset(config, bags, LEARNED)
    held_out = _held_out(config, validation or bags, HELD_OUT if not validation else None)
    perceptual = PerceptualLoss(load_vgg16(vgg)) if config.perceptual_weight else None
    trainer = SequenceTrainer(config, folder, perceptual, describe_run(sequences.infos, config.seed))
    if trainer.processes[0] == 0:
        partial = folder / f'{CONFIG_FILE}.partial'
        partial.write_text(config.to_json(), encoding='utf-8')
        partial.replace(folder / CONFIG_FILE)
    if resume:
        trainer.resume()
    trainer.run(_batches(sequences, config, trainer), held_out)
    return trainer


def export(folder: Path, out: Path, checkpoint: str = 'best') -> Path:
    """Write the averaged weights of a run as a file to fly with.

    Args:
        folder: of the run.
        out: file to write, ``.safetensors``.
        checkpoint: 'best' by validation (the newest where nothing was validated), 'newest', or
            the name of one, as 'step-00000500'.

    Returns:
        The checkpoint that it was made of.

    Raises:
        ValueError: if there is no such run or checkpoint, or it is damaged.
        OSError: if the file can't be written.
    """
    config = read_config(folder)
    chosen = _checkpoint(folder, config, checkpoint)
    groups, facts = load_checkpoint(chosen)
    network = build_learner(config)
    network.load_state_dict({name.removeprefix(_EMA_PREFIX): value
                             for name, value in groups['ema'].items()
                             if name.startswith(_EMA_PREFIX)})
    out.parent.mkdir(parents=True, exist_ok=True)
    save_weights(network.float(), out, provenance=json.dumps(facts, sort_keys=True))
    return chosen


# What torch's AveragedModel puts before the names of the network in it.
_EMA_PREFIX = 'module.'


def read_config(folder: Path) -> TrainingConfig:
    """Read the configuration of a run.

    Raises:
        ValueError: if there is no run in the folder.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise ValueError(f'{folder} holds no training run ({CONFIG_FILE} is missing); '
                         'give the --out of infinite-nature train')
    return load_config(str(path))


def _claim(folder: Path, resume: bool) -> None:
    """Refuse to write over a run, or to resume what isn't there."""
    exists = (folder / CONFIG_FILE).exists()
    if exists and not resume:
        raise ValueError(f'{folder} holds a run already; go on with --resume, or choose another '
                         '--out')
    folder.mkdir(parents=True, exist_ok=True)


def _checkpoint(folder: Path, config: TrainingConfig, name: str) -> Path:
    checkpoints = Checkpoints(folder / 'checkpoints', config.keep_checkpoints)
    best, newest = checkpoints.best(), checkpoints.newest()
    if newest is None:
        raise ValueError(f'{folder} has no checkpoint yet; train on with --resume')
    if name == 'newest' or (name == 'best' and best is None):
        return newest
    return best[0] if name == 'best' else folder / 'checkpoints' / name


def _dataset(config: TrainingConfig, bags: Sequence[Path], splits: tuple[str, ...] | None,
             learning: bool = True) -> SequenceDataset:
    return SequenceDataset(
        bags, steps=config.lead_steps + config.rollout_steps, size=config.size, split=splits,
        augmentation=DEFAULT_AUGMENTATION if learning and config.augment else None,
        stride=CameraSpeed(config.speed), shuffle=learning, seed=config.seed)


def _held_out(config: TrainingConfig, bags: Sequence[Path],
              splits: tuple[str, ...] | None) -> list[dict[str, Tensor]]:
    """Batches to validate on: evenly spaced sequences, always the same; empty without clips."""
    # Errors are told for five steps, whatever is trained.
    config = replace(config, lead_steps=0,
                     rollout_steps=max(config.rollout_steps, _VALIDATION_STEPS))
    try:
        sequences = _dataset(config, bags, splits, learning=False)
    except ClipError:
        if splits is None:
            raise
        return []
    count = min(config.validation_sequences, len(sequences))
    indices = [place * len(sequences) // count for place in range(count)]
    return list(DataLoader(sequences, config.batch_size, sampler=indices))


_VALIDATION_STEPS = 5


def _batches(sequences: SequenceDataset, config: TrainingConfig,
             trainer: Trainer) -> Iterator[dict[str, Any]]:
    """Batches of this process, from the trainer's step to the end."""
    rank, ranks = trainer.processes
    per_step = config.accumulate * config.batch_size * ranks
    indices = sequences.shard(rank, ranks, begin=trainer.step * per_step,
                              end=config.iterations * per_step)
    return iter(DataLoader(
        sequences, config.batch_size, sampler=indices, num_workers=config.workers,
        # torch's threads and a fork don't go together.
        multiprocessing_context='spawn' if config.workers else None,
        pin_memory=trainer.device.type == 'cuda'))
