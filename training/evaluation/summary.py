"""Summary: all flights of a run become a row a variant, curves over time, and who collapsed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
import functools
import hashlib
import json
import os
from pathlib import Path

import numpy as np
from tqdm import tqdm

from infinite_nature_ros.parallel import run_jobs
from infinite_nature_training.evaluation.curves import nearest_limit
from infinite_nature_training.evaluation.distances import fid, kid, windowed
from infinite_nature_training.evaluation.drift import collapse, Limits
from infinite_nature_training.evaluation.measuring import STYLE_FRAMES
from infinite_nature_training.evaluation.results import FlightResult, Settings, Summary
from infinite_nature_training.evaluation.runner import FLIGHTS, read_settings, REFERENCES_FILE

SCORES = 'scores'
"""Folder, in that of a run, of the distances that were computed; they take minutes."""

# Frames of a sliding window (paper, section 6), and from one window to the next for KID; such
# that the middles 50 and 450 are among them. FID takes ten seconds, and every second window.
_WINDOWS = {20: 20, 50: 25}

# The same for flights of up to 100 frames, for both.
_SHORT, _SHORT_STEP = 100, 10

# Draws of KID in a window; the table's figures have the usual hundred.
_DRAWS = 20

WindowCurves = dict[str, tuple[np.ndarray, np.ndarray]]
"""Numbers of frames and values ``[n]``, by name."""


@dataclass(frozen=True)
class Distances:
    """FID and KID of a variant: its part of ``Summary.rows`` and of ``Summary.curves``."""

    row: Mapping[str, float]
    curves: WindowCurves


@dataclass(frozen=True)
class _Task:
    """A variant whose distances are wanted: its flights' files, and where they are kept."""

    name: str
    files: tuple[Path, ...]
    scores: Path


def summarise(folder: Path, workers: int = 0) -> Summary:
    """Sum up a run.

    Args:
        folder: of the run.
        workers: processes that compute FID and KID, a variant each; 0: one a core.

    Raises:
        ValueError: if there is no run in the folder, or it has no flight yet.
        OSError: if a file can't be read.
    """
    settings = read_settings(folder)
    files = {name: tuple(sorted((folder / FLIGHTS / name).glob('*.npz')))
             for name in settings.variants}
    if not any(files.values()):
        raise ValueError(f'{folder} has no flight yet; run infinite-nature evaluate anew')
    flights = {name: [FlightResult.load(file, features=False) for file in of_variant]
               for name, of_variant in files.items() if of_variant}
    tasks = [_Task(name, files[name], folder / SCORES / f'{name}.json') for name in flights]
    scores = (_all_distances(folder / REFERENCES_FILE, settings, tasks, workers)
              if settings.references else dict.fromkeys(flights, Distances({}, {})))
    collapsed = [(flight, reasons) for of_variant in flights.values() for flight in of_variant
                 if (reasons := collapse(flight.figures))]
    collapsed.sort(key=lambda entry: -nearest_limit(entry[0], Limits())[0])
    rows = [_means(of_variant) | scores[name].row
            | {'collapses': sum(flight.variant == name for flight, _ in collapsed)}
            for name, of_variant in flights.items()]
    return Summary(settings, rows,
                   {name: score.curves for name, score in scores.items() if score.curves},
                   [(flight.variant, flight.start, flight.seed, reasons)
                    for flight, reasons in collapsed],
                   [flight for of_variant in flights.values() for flight in of_variant])


def _means(flights: Sequence[FlightResult]) -> dict[str, float | str]:
    """Sum up a variant, as far as that needs no real pictures."""
    row: dict[str, float | str] = {'variant': flights[0].variant, 'flights': len(flights)}
    compared = [flight.comparisons for flight in flights if flight.comparisons]
    for name in compared[0] if compared else ():
        values = np.concatenate([comparisons[name] for comparisons in compared])
        row |= {name: float(values.mean()), 'compared': len(values)}
    style = np.concatenate([flight.style[1:STYLE_FRAMES + 1] for flight in flights])
    seconds = (sum(flight.seconds for flight in flights)
               / sum(flight.frames for flight in flights))
    return row | {
        'style': float(style[~np.isnan(style)].mean()) if not np.isnan(style).all() else np.nan,
        'path_length': min(flight.path_length for flight in flights), 'seconds': seconds}


def _all_distances(references: Path, settings: Settings, tasks: Sequence[_Task],
                   workers: int) -> dict[str, Distances]:
    """Distances of variants by name; those that weren't kept are measured, several at once."""
    scores = {task.name: kept for task in tasks if (kept := _kept(settings, task)) is not None}
    missing = [task for task in tasks if task.name not in scores]
    work = functools.partial(_measure_and_keep, references, settings)
    with tqdm(total=len(missing), desc='FID and KID', unit='variant', disable=not missing) as bar:
        for outcome in run_jobs(work, missing, workers=workers):
            bar.update()
            if outcome.error is not None:
                raise outcome.error
            scores[outcome.job.name] = outcome.result
    return scores


def _kept(settings: Settings, task: _Task) -> Distances | None:
    """Distances of a variant from its file, if they are of the same flights."""
    kept = json.loads(task.scores.read_text()) if task.scores.exists() else {}
    if kept.get('key') != _key(settings, task):
        return None
    return Distances(kept['row'], {name: (np.array(frames), np.array(values))
                                   for name, (frames, values) in kept['curves'].items()})


def _measure_and_keep(references: Path, settings: Settings, task: _Task) -> Distances:
    distances = measure_distances([FlightResult.load(file).features for file in task.files],
                                  np.load(references), settings.feature_every)
    kept = {'key': _key(settings, task), 'row': distances.row,
            'curves': {name: [values.tolist() for values in curve]
                       for name, curve in distances.curves.items()}}
    task.scores.parent.mkdir(exist_ok=True)
    partial = task.scores.with_name(f'{task.scores.name}.{os.getpid()}.partial')
    partial.write_text(json.dumps(kept), encoding='utf-8')
    partial.replace(task.scores)
    return distances


def _key(settings: Settings, task: _Task) -> str:
    """Tell the flights and the real pictures that distances are between."""
    flights = [(path.name, path.stat().st_mtime_ns) for path in task.files]
    return hashlib.sha256(json.dumps([flights, settings.crops]).encode()).hexdigest()


def measure_distances(features: Sequence[np.ndarray], references: np.ndarray,
                      every: int) -> Distances:
    """FID and KID of the flights of one variant.

    Args:
        features: of each flight, the start and every so many-th frame, ``[1 + F // every, D]``.
        references: of real pictures, ``[M, D]``.
        every: frames from one row of features to the next.
    """
    row: dict[str, float] = {}
    pair: dict[str, float] = {}
    for last, ending in ((50, '_50'), (100, '_100'), (None, '')):
        made = np.concatenate([rows[1:1 + last // every if last else None] for rows in features])
        # Short flights have no more frames than that.
        if len(made) >= 2 and len(made) != row.get('images'):
            pair = {'fid': fid(made, references), 'kid': kid(made, references)}
        row |= {name + ending: value for name, value in pair.items()}
        row['images'] = len(made)
    return Distances(row, _curves(features, references, every))


def _curves(features: Sequence[np.ndarray], references: np.ndarray,
            every: int) -> WindowCurves:
    """Distances in windows, those that hold two frames and more."""
    longest = every * (max(map(len, features)) - 1)
    curves = {}
    for window, step in _WINDOWS.items():
        if window // every * len(features) < 2:
            continue
        short = longest <= _SHORT
        for name, distance, stride in (
                ('kid', functools.partial(kid, draws=_DRAWS), _SHORT_STEP if short else step),
                ('fid', fid, _SHORT_STEP if short else 2 * step)):
            frames, values = windowed(features, references, window, stride, distance, every)
            if len(frames):
                curves[f'{name}_w{window}'] = frames, values
    return curves
