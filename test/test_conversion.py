"""Conversion: what was made stays made, nothing is half, lost or doubled; failures are told."""

from __future__ import annotations

from collections.abc import Iterable
import csv
import errno
import fcntl
import os
from pathlib import Path
import signal
import subprocess
import sys
import time

from bag_contents import bags_in
import numpy as np
import pytest
from test_acid_bags import INFO, make_frames

from infinite_nature_training.bags import ClipError, ClipFrame, ClipWriter
from infinite_nature_training.conversion import convert, Job

KINDS = ['slow', 'pair'] * 6


def make(folder: Path, name: str, kind: str = 'good', count: int = 2) -> list[str]:
    """Make bags of a job, or fail as its kind says; 'pair' makes two, 'slow' takes its time."""
    if kind == 'bad':
        raise ClipError('its poses are\nmissing')
    if kind == 'die':
        _write(folder / name, 1)
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == 'bug':
        raise KeyError('what')
    if kind == 'full':
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    names = [f'{name}/a', f'{name}/b'] if kind == 'pair' else [name]
    for bag in names:
        _write(folder / bag, count, 0.05 if kind == 'slow' else 0)
    return names


def _write(folder: Path, count: int, seconds: float = 0) -> None:
    frame, = make_frames(1)
    pixels = np.full((32, 64, 3), len(folder.name), np.uint8)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with ClipWriter(folder, INFO) as writer:
        for stamp in range(count):
            time.sleep(seconds)
            writer.add(ClipFrame(stamp, pixels, frame.pose, frame.intrinsics))


def skipped(out: Path) -> list[tuple[str, ...]]:
    with (out / 'skipped.csv').open(newline='') as file:
        return [tuple(row) for row in csv.reader(file)][1:]


def jobs_of(kinds: Iterable[str], count: int = 2) -> list[Job]:
    return [Job(f'{number:02}-{kind}', (kind, count)) for number, kind in enumerate(kinds)]


def test_bags_of_all_jobs_and_a_line_for_each_failure(
        tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    jobs = jobs_of(['good', 'bad', 'pair', 'die', 'bug', 'good'])
    report = convert(make, jobs, tmp_path, workers=2)
    bags = ['00-good', '02-pair/a', '02-pair/b', '05-good']
    assert sorted(report.made) == sorted(bags_in(tmp_path)) == bags
    assert report.exit_code == 0
    assert [name for name, _ in skipped(tmp_path)] == ['01-bad', '03-die', '04-bug']
    reasons = dict(skipped(tmp_path))
    assert reasons == report.skipped
    assert reasons['01-bad'] == 'its poses are missing'
    assert 'SIGKILL' in reasons['03-die']
    assert reasons['04-bug'] == "an error of this program: KeyError: 'what'"
    output = capsys.readouterr()
    assert '01-bad is skipped: its poses are missing' in output.err
    assert 'in make' in output.err
    assert '4 bags made, 0 there before, 3 clips skipped' in output.out
    assert not list((tmp_path / '.conversion').glob('unfinished*'))


def test_a_second_start_makes_what_is_missing(tmp_path: Path) -> None:
    jobs = jobs_of(['good', 'pair', 'bad'])
    convert(make, jobs, tmp_path, workers=1)
    before = bags_in(tmp_path)
    times = {bag: (tmp_path / bag).stat().st_mtime_ns for bag in before}
    (tmp_path / '01-pair' / 'b' / 'metadata.yaml').unlink()
    (tmp_path / '01-pair' / 'b').rename(tmp_path / 'elsewhere')
    report = convert(make, [*jobs, Job('03-good')], tmp_path, workers=1)
    assert (report.kept, report.made) == (['00-good'], ['01-pair/a', '01-pair/b', '03-good'])
    # What failed is tried again.
    assert list(report.skipped) == ['02-bad']
    assert {**before, '03-good': bags_in(tmp_path)['03-good']} == bags_in(tmp_path)
    assert (tmp_path / '00-good').stat().st_mtime_ns == times['00-good']


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """Bags of ``KINDS``, made by two workers in one go."""
    out = tmp_path_factory.mktemp('undisturbed')
    convert(make, jobs_of(KINDS, count=5), out, workers=2)
    return bags_in(out)


def test_ray_gives_the_same_bytes(undisturbed: dict[str, object], tmp_path: Path) -> None:
    report = convert(make, jobs_of([*KINDS, 'bad'], count=5), tmp_path, workers=2, ray=True)
    assert bags_in(tmp_path) == undisturbed
    assert list(report.skipped.values()) == ['its poses are missing']


def test_other_options_are_not_mixed_in(tmp_path: Path) -> None:
    convert(make, jobs_of(['good', 'good']), tmp_path, workers=1)
    before = bags_in(tmp_path)
    with pytest.raises(ClipError, match=r"2 clips .* were made with other options: "
                                        r"\('good', 2\), not \('good', 3\)"):
        convert(make, jobs_of(['good', 'good', 'pair'], count=3), tmp_path, workers=1)
    assert bags_in(tmp_path) == before


def test_strict_ends_at_the_first_failure(tmp_path: Path) -> None:
    with pytest.raises(ClipError, match='01-bad: its poses are missing'):
        convert(make, jobs_of(['good', 'bad', 'good', 'good']), tmp_path, workers=1, strict=True)
    assert list(bags_in(tmp_path)) == ['00-good']
    assert skipped(tmp_path) == [('01-bad', 'its poses are missing')]


def test_a_full_disk_ends_it_and_loses_nothing(tmp_path: Path) -> None:
    jobs = jobs_of(['good', 'full', 'good'])
    with pytest.raises(OSError, match='01-full: .*No space left on device.*start again'):
        convert(make, jobs, tmp_path, workers=1)
    assert list(bags_in(tmp_path)) == ['00-good']
    report = convert(make, [jobs[0], Job('01-full'), jobs[2]], tmp_path, workers=1)
    assert (report.kept, report.made) == (['00-good'], ['01-full', '02-good'])


def test_two_conversions_into_one_folder(tmp_path: Path) -> None:
    (tmp_path / '.conversion').mkdir()
    with (tmp_path / '.conversion' / 'lock').open('w') as lock:
        lock.write('1234')
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ClipError, match=r'process 1234.*conversion/lock'):
            convert(make, jobs_of(['good']), tmp_path)
    # Where nothing becomes a bag, it failed; where nothing was to be done, it didn't.
    assert convert(make, jobs_of(['bad']), tmp_path, workers=1).exit_code == 1
    assert convert(make, [], tmp_path).exit_code == 0


@pytest.mark.parametrize('name', ['', '/tmp/x', '../x', 'a/../../x'])
def test_a_name_stays_in_the_folder(name: str) -> None:
    with pytest.raises(ClipError, match='cannot be named'):
        Job(name)


def test_names_are_not_given_twice(tmp_path: Path) -> None:
    with pytest.raises(ClipError, match="'a' is the name of two clips"):
        convert(make, [Job('a'), Job('b'), Job('a')], tmp_path)


def test_kill_9_loses_and_doubles_nothing(undisturbed: dict[str, object], tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, '-c', 'import sys; from pathlib import Path; '
         'from test_conversion import *; '
         'convert(make, jobs_of(KINDS, count=5), Path(sys.argv[1]), workers=2)', str(tmp_path)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, sys.path))})
    while len(bags_in(tmp_path)) < 6 and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    killed = bags_in(tmp_path)
    # Whatever one sees is whole.
    assert 6 <= len(killed) < len(undisturbed)
    assert all(undisturbed[name] == bag for name, bag in killed.items())
    report = convert(make, jobs_of(KINDS, count=5), tmp_path, workers=2)
    assert bags_in(tmp_path) == undisturbed
    assert sorted(report.made + report.kept) == sorted(undisturbed)
    assert killed.keys() <= set(report.kept)
    assert not list(tmp_path.rglob('*.partial'))


def test_a_bag_that_was_recorded_but_not_moved_is_kept(tmp_path: Path) -> None:
    convert(make, jobs_of(['pair']), tmp_path, workers=1)
    before = bags_in(tmp_path)
    unfinished = tmp_path / '.conversion' / 'unfinished' / '00-pair' / '00-pair'
    unfinished.mkdir(parents=True)
    (tmp_path / '00-pair' / 'b').rename(unfinished / 'b')
    report = convert(make, jobs_of(['pair']), tmp_path, workers=1)
    assert report.kept == ['00-pair/a', '00-pair/b']
    assert bags_in(tmp_path) == before
