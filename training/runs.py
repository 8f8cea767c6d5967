"""Runs: a configuration, bags and a folder become a training run, and that a weights file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
import json
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader

from infinite_nature_ros.refining import save_weights
from infinite_nature_training.aerial_trainer import AerialTrainer
from infinite_nature_training.bags import ClipError
from infinite_nature_training.camera_speed import CameraSpeed
from infinite_nature_training.checkpoints import Checkpoints, load_checkpoint
from infinite_nature_training.configs import load_config, TrainingConfig
from infinite_nature_training.datasets import DEFAULT_AUGMENTATION, SequenceDataset
from infinite_nature_training.epochs import EpochDataset
from infinite_nature_training.features import load_vgg16
from infinite_nature_training.losses import PerceptualLoss
from infinite_nature_training.paired_dataset import PairedDataset
from infinite_nature_training.photo_dataset import PhotoDataset
from infinite_nature_training.provenance import describe_run
from infinite_nature_training.sequence_trainer import SequenceTrainer
from infinite_nature_training.sources.photos import HELD_OUT_PHOTOS
from infinite_nature_training.trainer import build_learner, Trainer
from infinite_nature_training.zero_trainer import ZeroTrainer

CONFIG_FILE = 'config.json'

LEARNED, HELD_OUT = ('', 'train'), ('validation',)
"""Splits of the clips that are learned from, and of those that a run is validated on."""


TRAINERS = {'sequences': SequenceTrainer, 'photos': ZeroTrainer, 'flights': AerialTrainer}
"""Trainers by what they learn from."""


@dataclass(frozen=True)
class PhotoFiles:
    """What photos come with; clips have all of it in their bags.

    Attributes:
        credits: CSV file with the columns file, licence, author and comment.
        masks: folder of sky masks; without, the sky is detected.
        licences: learn from photos of these alone; none: of all.
        disparity: source of disparity, a registered name.
        names: text file of photos: learn from those alone.
        leave_out: text file of photos that aren't learned from, besides those held out.
        clips: ACID bags that are learned from as well, where the configuration takes flights.
    """

    credits: Path | None = None
    masks: Path | None = None
    licences: tuple[str, ...] = ()
    disparity: str = 'auto'
    names: Path | None = None
    leave_out: Path | None = None
    clips: tuple[Path, ...] = ()


def train(config: TrainingConfig, sources: Sequence[Path], folder: Path, *,
          validation: Sequence[Path] = (), photo_files: PhotoFiles = PhotoFiles(),
          resume: bool = False, start_from: Path | None = None,
          vgg: Path | None = None, until: int | None = None) -> Trainer:
    """Train, from the start or from where a run ended.

    Args:
        config: all settings; beside the weights they are kept as ``config.json``.
        sources: ACID bags and folders of them, of which only clips of the split train, or of
            none, are learned from; or folders of photos, without those that are held out
            (``held_out.txt``).
        folder: of the run.
        validation: held-out sources of the same kind; none: the clips of the split validation, or
            the photos that are held out, if there are any.
        photo_files: what photos come with.
        resume: go on from the newest checkpoint.
        start_from: another run, whose networks this one begins with.
        vgg: weights of VGG16; ``None`` takes the fetched ones.
        until: iterations to end at, where that is before the configured ones; what grows over
            the run grows as if it went on.

    Returns:
        The trainer, at the end of its run.

    Raises:
        ValueError: if the folder holds a run and ``resume`` isn't said, or the other way round,
            or the sources can't be used.
        FloatingPointError: if a loss isn't finite.
        OSError: if something can't be read or written.
    """
    _claim(folder, resume)
    if photo_files.clips and config.learns_from != 'flights':
        raise ValueError('clips beside photos are learned from with configurations such as aerial, '
                         f'which learn from flights; this one learns from {config.learns_from}')
    beginning = None if start_from is None else _checkpoint(start_from, 'newest')
    if config.learns_from != 'sequences':
        learned = _photos(config, sources, photo_files)
        if photo_files.clips:
            learned = PairedDataset(learned, _sequences(config, photo_files.clips, LEARNED))
        held_out = partial(_photos, config, validation or sources, photo_files, learning=False,
                           listed=not validation)
    else:
        learned = _sequences(config, sources, LEARNED)
        held_out = partial(_sequences, _for_validation(config), validation or sources,
                           HELD_OUT if not validation else None, learning=False)
    validation_batches = _validation_batches(config, held_out, strict=bool(validation))
    perceptual = PerceptualLoss(load_vgg16(vgg)) if config.perceptual_weight else None
    trainer = TRAINERS[config.learns_from](config, folder, perceptual,
                                           describe_run(learned.infos, config.seed))
    if not (resume and trainer.resume()) and beginning is not None:
        trainer.start_from(beginning)
    if trainer.processes[0] == 0:
        partial_file = folder / f'{CONFIG_FILE}.partial'
        partial_file.write_text(config.to_json(), encoding='utf-8')
        partial_file.replace(folder / CONFIG_FILE)
    trainer.run(_batches(learned, config, trainer), validation_batches, until)
    trainer.close()
    return trainer


def export(folder: Path, out: Path, checkpoint: str = 'best', *, half: bool = False) -> Path:
    """Write the averaged weights of a run as a file to fly with.

    Args:
        folder: of the run.
        out: file to write, ``.safetensors``.
        checkpoint: 'best' by validation (the newest where nothing was validated), 'newest', or
            the name of one, as 'step-00000500'.
        half: write them in half precision, a file of half the size.

    Returns:
        The checkpoint that it was made of.

    Raises:
        ValueError: if there is no such run or checkpoint, or it is damaged, or half precision
            can't hold its weights.
        OSError: if the file can't be written.
    """
    config, chosen = read_config(folder), _checkpoint(folder, checkpoint)
    groups, facts = load_checkpoint(chosen)
    network = build_learner(config)
    network.load_state_dict({name.removeprefix(_EMA_PREFIX): value
                             for name, value in groups['ema'].items()
                             if name.startswith(_EMA_PREFIX)})
    out.parent.mkdir(parents=True, exist_ok=True)
    save_weights(network.float(), out, provenance=json.dumps(facts, sort_keys=True), half=half)
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


def _checkpoint(folder: Path, name: str) -> Path:
    """Checkpoint of a run, as ``export`` takes its name."""
    checkpoints = Checkpoints(folder / 'checkpoints', read_config(folder).keep_checkpoints)
    best, newest = checkpoints.best(), checkpoints.newest()
    if newest is None:
        raise ValueError(f'{folder} has no checkpoint yet; train on with --resume')
    if name == 'newest' or (name == 'best' and best is None):
        return newest
    return best[0] if name == 'best' else folder / 'checkpoints' / name


def _sequences(config: TrainingConfig, bags: Sequence[Path], splits: tuple[str, ...] | None,
               learning: bool = True) -> SequenceDataset:
    return SequenceDataset(
        bags, steps=config.lead_steps + config.rollout_steps, size=config.size, split=splits,
        augmentation=DEFAULT_AUGMENTATION if learning and config.augment else None,
        stride=CameraSpeed(config.speed), shuffle=learning, seed=config.seed)


def _photos(config: TrainingConfig, folders: Sequence[Path], files: PhotoFiles,
            learning: bool = True, listed: bool = False) -> PhotoDataset:
    """Photos to learn from, or to validate on: those that are ``listed`` as held out, or all."""
    return PhotoDataset(
        folders, size=config.size, credits=files.credits, masks=files.masks,
        licences=files.licences if learning else (), disparity=files.disparity,
        leave_out=[HELD_OUT_PHOTOS, *filter(None, [files.leave_out])] if learning else (),
        names=HELD_OUT_PHOTOS if listed else files.names if learning else None,
        crop=config.crop if learning else (1.0, 1.0),
        augmentation=DEFAULT_AUGMENTATION if learning and config.augment else None,
        shuffle=learning, seed=config.seed,
        fine=2 if config.learns_from == 'flights' and learning else 0)


def _for_validation(config: TrainingConfig) -> TrainingConfig:
    """Errors are told for five steps, whatever is trained."""
    return replace(config, lead_steps=0,
                   rollout_steps=max(config.rollout_steps, _VALIDATION_STEPS))


def _validation_batches(config: TrainingConfig, load: Callable[[], EpochDataset],
                        strict: bool) -> list[dict[str, Tensor]]:
    """Batches to validate on: evenly spaced samples, always the same; empty where none are."""
    try:
        samples = load()
    except ClipError:
        if strict:
            raise
        return []
    count = min(config.validation_sequences, len(samples))
    indices = [place * len(samples) // count for place in range(count)]
    return list(DataLoader(samples, config.batch_size, sampler=indices))


_VALIDATION_STEPS = 5


def _batches(samples: EpochDataset, config: TrainingConfig,
             trainer: Trainer) -> Iterator[dict[str, Any]]:
    """Batches of this process, from the trainer's step to the end."""
    rank, ranks = trainer.processes
    per_step = config.accumulate * config.batch_size * ranks
    indices = samples.shard(rank, ranks, begin=trainer.step * per_step,
                              end=config.iterations * per_step)
    return iter(DataLoader(
        samples, config.batch_size, sampler=indices, num_workers=config.workers,
        # torch's threads and a fork don't go together.
        multiprocessing_context='spawn' if config.workers else None,
        pin_memory=trainer.device.type == 'cuda'))
