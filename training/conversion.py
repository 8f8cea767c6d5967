"""Conversion: many jobs, each makes bags; what was made stays made, whatever ends the program.

A job's bags are made in a folder of their own below ``.conversion`` of the output folder. When
they are complete, a record of the job is written at once, and only then do they get their places.
So a job is done as soon as its record is there: a start after ``kill -9`` moves what was recorded
but not moved yet, and throws away the rest of what it finds there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
import csv
from dataclasses import dataclass, field
import fcntl
from functools import partial
import json
import os
from pathlib import Path, PurePosixPath
import shutil
import sys
from typing import Any

from tqdm import tqdm

from infinite_nature_ros.parallel import Outcome, run_jobs, WorkerError
from infinite_nature_training.bags import ClipError

_STATE = '.conversion'
_SKIPPED = 'skipped.csv'


@dataclass(frozen=True)
class Job:
    """What becomes one bag or several.

    Attributes:
        name: relative path of the bag, or of what its bags' names begin with, below the output
            folder; no other job has it.
        arguments: further arguments of the function that makes it; picklable, and with a ``repr``
            that says all that the bag depends on: where it differs at a later start, the bag is
            of other options.
    """

    name: str
    arguments: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a name that would lead out of the output folder."""
        path = PurePosixPath(self.name)
        if not path.parts or path.is_absolute() or '..' in path.parts:
            raise ClipError(f'a clip cannot be named {self.name!r}; give a relative path '
                            'without ..')


@dataclass
class Report:
    """What came of a conversion.

    Attributes:
        made: names of the bags that were made now.
        kept: names of the bags that had been made before.
        skipped: reasons by the name of the job.
    """

    made: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0 if there are bags, or nothing was to be done; else 1."""
        return int(bool(self.skipped) and not (self.made or self.kept))

    def __str__(self) -> str:
        """Say it in one line."""
        return (f'{_count(self.made, "bag")} made, {len(self.kept)} there before, '
                f'{_count(self.skipped, "clip")} skipped')


def convert(make: Callable[..., list[str]], jobs: Sequence[Job], out: Path, *, workers: int = 0,
            ray: bool = False, strict: bool = False) -> Report:
    """Make the bags of all jobs that aren't done; ``skipped.csv`` says which failed, and why.

    Args:
        make: called as ``make(folder, job.name, *job.arguments)`` in another process, writes bags
            with ``ClipWriter`` below the folder and returns their names relative to it; a
            function of a module's top level. The same arguments must make the same bags.
            What it raises as ``ValueError`` (``ClipError`` is one) is why the job is skipped;
            ``OSError`` ends the conversion, for a full disk is full for the next job too.
        jobs: with a name each; those that failed before are tried again.
        out: folder of the bags, made if need be.
        workers: jobs at once; 0: one a core.
        ray: in Ray tasks, where all machines must see the files by the same paths.
        strict: end at the first job that fails.

    Raises:
        ClipError: if another conversion writes to the folder, if a bag there was made with other
            options, if two jobs have the same name, or if a job fails and ``strict`` is given.
        OSError: if a file can't be read or written.
    """
    names = [job.name for job in jobs]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ClipError(f'{twice!r} is the name of two clips; rename one')
    out.mkdir(parents=True, exist_ok=True)
    with _lock(out / _STATE):
        conversion = _Conversion(out, jobs)
        unfinished = (out / _STATE / 'unfinished').absolute()
        outcomes = run_jobs(partial(_make, make, unfinished), conversion.waiting,
                            workers=workers, ray=ray)
        with closing(conversion), closing(outcomes):
            conversion.follow(outcomes, strict)
    print(f'{out}: {conversion.report}' + (
        f'; why: {out / _SKIPPED}' if conversion.report.skipped else ''))
    return conversion.report


def _make(make: Callable[..., list[str]], unfinished: Path, job: Job) -> list[str]:
    """Make a job's bags in a folder of its own; this runs in a worker."""
    folder = _empty(unfinished / job.name)
    try:
        bags = make(folder, job.name, *job.arguments)
        if not bags:
            raise ClipError('nothing of it became a bag')
        return bags
    except Exception:
        shutil.rmtree(folder, ignore_errors=True)
        raise


class _Conversion:
    """The state in the output folder, and what is left to do."""

    def __init__(self, out: Path, jobs: Sequence[Job]) -> None:
        """Tidy up after an earlier conversion, and find what it has done.

        Raises:
            ClipError: if bags were made with other options.
        """
        self.report = Report()
        self._out = out
        self._unfinished = out / _STATE / 'unfinished'
        self._total = len(jobs)
        records = {job.name: self._read_record(job) for job in jobs}
        other = [job for job in jobs if records[job.name] is not None
                 and records[job.name]['arguments'] != repr(job.arguments)]
        if other:
            raise ClipError(self._made_otherwise(other, records[other[0].name]['arguments']))
        for name, record in records.items():
            if record is not None:
                self._move(name, record['bags'])
        _empty(self._unfinished)
        self.waiting = []
        for job in jobs:
            bags = [] if records[job.name] is None else records[job.name]['bags']
            # Bags that somebody deleted are made again.
            if bags and all((out / bag).is_dir() for bag in bags):
                self.report.kept += bags
            else:
                self.waiting.append(job)

    def follow(self, outcomes: Iterator[Outcome[Job, list[str]]], strict: bool) -> None:
        """Record what comes, and show how far it is."""
        done = self._total - len(self.waiting)
        with tqdm(total=self._total, initial=done, unit='clip') as progress:
            for outcome in outcomes:
                if outcome.error is None:
                    self._finish(outcome.job, outcome.result)
                else:
                    progress.write(self._skip(outcome, strict), file=sys.stderr)
                progress.update()
                progress.set_postfix(skipped=len(self.report.skipped), refresh=False)

    def close(self) -> None:
        """Say what was skipped, and leave nothing unfinished."""
        order = {job.name: number for number, job in enumerate(self.waiting)}
        lines = sorted(self.report.skipped.items(), key=lambda line: order[line[0]])
        with (self._out / _SKIPPED).open('w', encoding='utf-8', newline='') as file:
            csv.writer(file, lineterminator='\n').writerows([('name', 'reason'), *lines])
        shutil.rmtree(self._unfinished, ignore_errors=True)

    def _finish(self, job: Job, bags: list[str]) -> None:
        path = self._record_path(job.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({'bags': bags, 'arguments': repr(job.arguments)})
        _write_at_once(path, text)
        self._move(job.name, bags)
        self.report.made += bags

    def _move(self, name: str, bags: list[str]) -> None:
        """Put a job's bags that are recorded, but not in their places yet, there."""
        for bag in bags:
            made, place = self._unfinished / name / bag, self._out / bag
            if made.is_dir():
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.rmtree(place, ignore_errors=True)
                made.replace(place)

    def _skip(self, outcome: Outcome[Job, list[str]], strict: bool) -> str:
        """Note a job that failed; returns the line about it.

        Raises:
            ClipError: if the conversion is strict.
            OSError: if the job ended with one.
        """
        name, error = outcome.job.name, outcome.error
        if isinstance(error, OSError):
            raise OSError(f'{name}: {error}; what was made until now stays, start again to go on'
                          ) from error
        reason = ' '.join(str(error).split())
        if not isinstance(error, ValueError | WorkerError):
            reason = f'an error of this program: {type(error).__name__}: {reason}'
        self.report.skipped[name] = reason
        if strict:
            raise ClipError(f'{name}: {reason}') from error
        line = f'{name} is skipped: {reason}'
        return line if isinstance(error, ValueError) else f'{line}\n{outcome.traceback}'.rstrip()

    def _record_path(self, name: str) -> Path:
        return self._out / _STATE / 'done' / f'{name}.json'

    def _read_record(self, job: Job) -> dict[str, Any] | None:
        try:
            return json.loads(self._record_path(job.name).read_text(encoding='utf-8'))
        except (FileNotFoundError, json.JSONDecodeError):
            return None

    def _made_otherwise(self, jobs: list[Job], before: str) -> str:
        return (f'{_count(jobs, "clip")} in {self._out}, {jobs[0].name!r} for one, were made with '
                f'other options: {before}, not {jobs[0].arguments!r}; give the same options, or '
                'another output folder, or delete this one')


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Let no second conversion into a folder; the lock ends with the program, however that ends.

    Raises:
        ClipError: if there is one in it.
    """
    folder.mkdir(exist_ok=True)
    with (folder / 'lock').open('a+', encoding='utf-8') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise ClipError(f'another conversion (process {file.read() or "unknown"}) writes to '
                            f'{folder.parent}, it holds {file.name}; wait for it, or give another '
                            'output folder') from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _write_at_once(path: Path, text: str) -> None:
    """Write a file that is there as a whole or not at all."""
    unfinished = path.with_name(f'.{path.name}')
    unfinished.write_text(text, encoding='utf-8')
    unfinished.replace(path)


def _empty(folder: Path) -> Path:
    """Make a folder anew, with nothing in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _count(things: Sequence[Any] | dict[str, Any], unit: str) -> str:
    return f'{len(things)} {unit}{"" if len(things) == 1 else "s"}'
