"""Many jobs at once: whichever engine, the same results, and a dead worker is one job's error."""

from __future__ import annotations

from collections.abc import Iterator
import os
from pathlib import Path
import signal
import subprocess
import sys
import threading
import time

import cv2
import pytest
import torch

from infinite_nature_ros.parallel import Outcome, run_jobs, WorkerError

ENGINES = pytest.mark.parametrize('ray', [False, True], ids=['processes', 'ray'])


class OddError(Exception):
    """Can't be unpickled: its constructor wants two arguments."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(one + two)


def work(job: str) -> object:
    """Do what a word says."""
    if job == 'die':
        os.kill(os.getpid(), signal.SIGKILL)
    if job == 'exit':
        os._exit(3)
    if job == 'raise':
        raise FileNotFoundError(2, 'gone', 'a.txt')
    if job == 'odd':
        raise OddError('o', 'dd')
    if job == 'unsendable':
        return threading.Lock()
    if job == 'threads':
        return torch.get_num_threads(), cv2.getNumThreads()
    # Matrix products differ in their last bits with the number of threads.
    torch.manual_seed(int(job))
    return torch.randn(64, 300).matmul(torch.randn(300, 64)).numpy().tobytes()


def linger(path: str) -> None:
    """Say by a file who works, and never end."""
    Path(path).write_text(str(os.getpid()))
    threading.Event().wait()


@pytest.fixture(scope='module', autouse=True)
def _cluster() -> Iterator[None]:
    """One cluster for all tests here; :func:`run_jobs` uses it."""
    import ray

    ray.init(address='local', num_cpus=2, include_dashboard=False, log_to_driver=False,
             logging_level='ERROR')
    yield
    ray.shutdown()


def outcomes(jobs: list[str], ray: bool, workers: int = 2) -> dict[str, Outcome]:
    return {outcome.job: outcome for outcome in run_jobs(work, jobs, workers=workers, ray=ray)}


def test_both_engines_give_the_same_bytes() -> None:
    jobs = [str(number) for number in range(8)]
    processes, tasks, alone = (
        {job: outcome.result for job, outcome in outcomes(jobs, ray, workers).items()}
        for ray, workers in ((False, 2), (True, 2), (False, 1)))
    assert sorted(processes) == jobs
    assert len(set(processes.values())) == len(jobs)
    assert processes == tasks == alone


@ENGINES
def test_what_goes_wrong_is_the_error_of_its_job(ray: bool) -> None:
    jobs = ['1', 'die', 'raise', 'odd', 'unsendable', 'exit', 'threads', '2']
    found = outcomes(jobs, ray)
    assert sorted(found) == sorted(jobs)
    for job in ('1', '2', 'threads'):
        assert found[job].error is None
    assert found['threads'].result == (1, 1)
    for job in ('die', 'exit'):
        assert isinstance(found[job].error, WorkerError)
    assert isinstance(found['raise'].error, FileNotFoundError)
    assert found['raise'].error.errno == 2
    assert 'in work' in found['raise'].traceback
    assert str(found['odd'].error) == 'OddError: odd'
    assert 'cannot be sent' in str(found['unsendable'].error)


def test_the_signal_that_ended_a_worker_is_named() -> None:
    found = outcomes(['die', 'exit'], ray=False)
    assert 'SIGKILL; is the memory enough' in str(found['die'].error)
    assert 'exit code 3' in str(found['exit'].error)


def test_jobs_are_taken_as_workers_get_free() -> None:
    taken = []

    def jobs() -> Iterator[str]:
        for number in range(1000):
            taken.append(number)
            yield str(number)

    results = run_jobs(work, jobs(), workers=2)
    next(results)
    assert len(taken) <= 4
    results.close()


def test_no_jobs_and_wrong_numbers_of_workers() -> None:
    assert list(run_jobs(work, [], workers=2)) == []
    with pytest.raises(ValueError, match='workers is -1'):
        run_jobs(work, [], workers=-1)


def test_ray_that_is_missing_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'ray', None)
    with pytest.raises(ValueError, match=r"pip install 'infinite_nature_ros\[ray\]'"):
        run_jobs(work, [], ray=True)


def until(condition: object) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def running(process: int) -> bool:
    try:
        return Path(f'/proc/{process}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except FileNotFoundError:
        return False


@pytest.mark.parametrize('end', [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_their_parent(end: signal.Signals, tmp_path: Path) -> None:
    files = [tmp_path / 'one', tmp_path / 'two']
    parent = subprocess.Popen(
        [sys.executable, '-c', 'import sys; from test_parallel import linger, run_jobs; '
         'list(run_jobs(linger, sys.argv[1:], workers=2))', *map(str, files)],
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, sys.path))},
        stderr=subprocess.PIPE, text=True, start_new_session=True)
    until(lambda: all(file.exists() and file.read_text() for file in files))
    workers = [int(file.read_text()) for file in files]
    # To all of them, as a terminal sends Ctrl-C.
    (os.kill if end == signal.SIGKILL else os.killpg)(parent.pid, end)
    parent.wait(60)
    until(lambda: not any(map(running, workers)))
    # No worker prints where Ctrl-C met it.
    assert parent.stderr.read().count('Traceback') == (end == signal.SIGINT)
