"""Runner: every variant flies from every start with every seed, and leaves a file each time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
import functools
from importlib import metadata
import os
from pathlib import Path
import sys
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from infinite_nature_ros.flight import resolve_device
from infinite_nature_ros.machine import describe_machine
from infinite_nature_ros.parallel import Outcome, run_jobs
from infinite_nature_ros.photos import check_size
from infinite_nature_ros.rendering.backends import get_backend
from infinite_nature_training.evaluation.crops import CROPS, crops_hash, features_of_crops
from infinite_nature_training.evaluation.measuring import (
    measure,
    Networks,
    NetworkSource,
    STANDARD_NETWORKS,
)
from infinite_nature_training.evaluation.results import FlightResult, Settings
from infinite_nature_training.evaluation.starts import Route, Start
from infinite_nature_training.evaluation.variants import digest_of, fly, Variant
from infinite_nature_training.provenance import source_commit

SETTINGS_FILE, REFERENCES_FILE, FAILURES_FILE = 'settings.json', 'references.npy', 'failed.txt'
"""Files in the folder of a run."""

FLIGHTS = 'flights'
"""Folder in it, with a folder a variant, with a file a flight."""

# What may differ between runs into one folder: none of it changes a flight.
_FREE = ('seeds', 'variants', 'starts', 'crops', 'references', 'machine', 'commit', 'versions')

_PACKAGES = ('infinite_nature_ros', 'torch', 'torchmetrics', 'numpy', 'warp-lang')


@dataclass(frozen=True)
class Job:
    """One flight to make: what flies, from where, with what seed, and the file it becomes."""

    variant: Variant
    start: Start
    seed: int
    file: Path


def run(settings: Settings, variants: Mapping[str, Variant], starts: Sequence[Start],
        folder: Path, *, photos: Path | None = None, crops: Path = CROPS,
        networks: NetworkSource = STANDARD_NETWORKS, device: str = 'auto', workers: int = 0,
        ray: bool = False) -> list[Outcome[Job, None]]:
    """Make all flights of a run that aren't there yet.

    Flights go through the starts, all variants from one before the next start, so that a run that
    is broken off compares like with like.

    Args:
        settings: how to fly; what else they say of variants, starts, networks, crops, machine and
            versions is filled in here.
        variants: what flies, by name.
        starts: where from.
        folder: of the run; may hold a run of other variants, starts or seeds, which are kept.
        photos: folder of the photos that ``crops`` were drawn of; without, there is no FID or KID.
        crops: list of the real pictures.
        networks: that measure.
        device: torch device.
        workers: processes; 0: one a core.
        ray: run as Ray tasks; the folder must be the same one on all machines.

    Returns:
        Flights that failed; ``failed.txt`` in the folder says where.

    Raises:
        ValueError: if the folder holds a run with other settings, or something can't be used.
        OSError: if something can't be read or written.
    """
    loaded, seeds = networks.load(), settings.seeds
    settings = _claim(folder, replace(
        settings, variants={name: variant.describe() for name, variant in variants.items()},
        starts=tuple(start.name for start in starts), networks=_names(loaded),
        machine=describe_machine(), commit=source_commit(),
        versions={name: metadata.version(name) for name in _PACKAGES}))
    if photos is not None:
        settings = _keep_references(settings, folder, loaded.to(resolve_device(device)), photos,
                                    crops)
    del loaded
    jobs = list(_missing(variants, starts, seeds, folder / FLIGHTS))
    work = functools.partial(make_flight, settings, networks, device)
    failed = []
    with tqdm(total=len(jobs), desc='flights', unit='flight') as bar:
        for outcome in run_jobs(work, jobs, workers=workers, ray=ray):
            bar.update()
            if outcome.error is not None:
                failed.append(outcome)
                bar.write(_tell(outcome), file=sys.stderr)
    (folder / FAILURES_FILE).write_text(
        ''.join(f'{_tell(outcome)}\n{outcome.traceback}\n' for outcome in failed), encoding='utf-8')
    return failed


def check_settings(settings: Settings) -> Settings:
    """Return settings that can be flown with.

    Raises:
        ValueError: for one that can't.
    """
    check_size(settings.size)
    for name, least in (('frames', 1), ('feature_every', 1), ('extrapolated', 0)):
        if getattr(settings, name) < least:
            raise ValueError(f'{name} is {getattr(settings, name)}; give at least {least}')
    if not 0 < settings.speed <= 1:
        raise ValueError(f'speed is {settings.speed}; give scene units a step, up to 1')
    if not settings.seeds or min(settings.seeds) < 0:
        raise ValueError(f'seeds are {settings.seeds}; give one or more, at least 0')
    get_backend(settings.backend)
    return settings


def make_flight(settings: Settings, networks: NetworkSource, device: str, job: Job) -> None:
    """Fly, measure, and keep what was measured.

    Raises:
        ValueError: if the start or the model can't be flown.
        OSError: if the file can't be written.
    """
    place = resolve_device(device)
    scene = job.start.load(settings)
    start = scene.frame.map(lambda value: value.to(place))
    pilot = Route(scene.poses, start.intrinsics, settings.speed, (job.seed, job.start.name))
    frames = fly(job.variant, start, pilot, settings.frames, job.seed,
                 backend=settings.backend, device=device)
    measures = measure(frames, scene.truth.to(place), _networks(networks, place),
                       settings.feature_every)
    job.file.parent.mkdir(parents=True, exist_ok=True)
    FlightResult(**vars(measures), variant=job.variant.name, start=job.start.name,
                 seed=job.seed).save(job.file)


def read_settings(folder: Path) -> Settings:
    """Read the settings of a run.

    Raises:
        ValueError: if there is none in the folder.
    """
    file = folder / SETTINGS_FILE
    if not file.is_file():
        raise ValueError(f'{folder} holds no evaluation ({SETTINGS_FILE} is missing); give the '
                         '--out of infinite-nature evaluate')
    return Settings.from_json(file.read_text(encoding='utf-8'))


@functools.cache
def _networks(source: NetworkSource, device: torch.device) -> Networks:
    """Networks of this process; they are loaded once."""
    return source.load().to(device)


def _missing(variants: Mapping[str, Variant], starts: Sequence[Start], seeds: Sequence[int],
             folder: Path) -> Iterator[Job]:
    """Flights of this run that have no file."""
    for start in starts:
        for seed in seeds:
            for name, variant in variants.items():
                file = folder / name / f'{start.name}_{seed}.npz'
                if not file.exists():
                    yield Job(variant, start, seed, file)


def _claim(folder: Path, settings: Settings) -> Settings:
    """Write down what a folder is for; what it holds of other variants and starts stays known.

    Raises:
        ValueError: if its flights were made in another way.
    """
    if (folder / SETTINGS_FILE).exists():
        settings = _joined(folder, read_settings(folder), settings)
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder, settings)
    return settings


def _joined(folder: Path, before: Settings, now: Settings) -> Settings:
    """Put the settings of both runs together."""
    old, new = asdict(before), asdict(now)
    odd = [name for name in new if name not in _FREE and old[name] != new[name]]
    if odd:
        told = ', '.join(f'{name} {old[name]!r} and not {new[name]!r}' for name in odd)
        raise ValueError(f'{folder} holds a run with {told}; give another --out')
    for name in before.variants.keys() & now.variants.keys():
        if before.variants[name] != now.variants[name]:
            raise ValueError(f'in {folder}, {name!r} is {before.variants[name]}, and not '
                             f'{now.variants[name]}; name it anew, or give another --out')
    return replace(now, variants=before.variants | now.variants,
                   seeds=_union(before.seeds, now.seeds), starts=_union(before.starts, now.starts),
                   crops=now.crops or before.crops, references=now.references or before.references)


def _union(one: tuple[Any, ...], other: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(one + other))


def _write(folder: Path, settings: Settings) -> None:
    """Write the settings, whole or not at all."""
    partial = folder / f'{SETTINGS_FILE}.{os.getpid()}.partial'
    partial.write_text(settings.to_json(), encoding='utf-8')
    partial.replace(folder / SETTINGS_FILE)


def _keep_references(settings: Settings, folder: Path, networks: Networks, photos: Path,
                     crops: Path) -> Settings:
    """Keep the features of the real pictures beside the flights."""
    features = features_of_crops(photos, networks.inception, settings.size, crops)
    partial = folder / f'{REFERENCES_FILE}.{os.getpid()}.partial'
    with partial.open('wb') as file:
        np.save(file, features.astype(np.float16))
    partial.replace(folder / REFERENCES_FILE)
    settings = replace(settings, crops=f'{crops.name} ({crops_hash(crops)[:8]})',
                       references=len(features))
    _write(folder, settings)
    return settings


def _names(networks: Networks) -> dict[str, str]:
    """Tell the networks by what they are for, each with the start of its weights' hash."""
    return {'inception': networks.inception.name,
            'lpips': f'lpips-alex-{digest_of(networks.lpips)}',
            'style': f'vgg16-{digest_of(networks.vgg)}'}


def _tell(outcome: Outcome[Job, None]) -> str:
    """Why a flight failed, in a line."""
    job, error = outcome.job, outcome.error
    return (f'{job.variant.name} from {job.start.name} with seed {job.seed} failed: '
            f'{type(error).__name__}: {error}')
