"""Many jobs at once: whichever engine, the same results, and a dead worker is one job's error."""

from __future__ import annotations

from collections.abc import Iterator
import os
from pathlib import Path
import signal
import subprocess
import sys
import time

from jobs import multiply, work
import pytest

from infinite_nature_ros import parallel
from infinite_nature_ros.parallel import Outcome, run_jobs, WorkerError

ENGINES = pytest.mark.parametrize('ray', [False, True], ids=['processes', 'ray'])


@pytest.fixture(scope='module', autouse=True)
def _cluster() -> Iterator[None]:
    """One cluster for all tests here, started as :func:`run_jobs` does, which then uses it."""
    ray = parallel._import_ray()
    parallel._connect(ray, 2)
    yield
    ray.shutdown()


# In a program of its own: Ray reads where to listen when it is imported first.
ADDRESSES = """
from infinite_nature_ros import parallel
ray = parallel._import_ray()
parallel._connect(ray, 1)
print(*(node['NodeManagerAddress'] for node in ray.nodes()))
ray.shutdown()
"""


def test_only_this_machine_can_reach_the_local_cluster() -> None:
    done = subprocess.run([sys.executable, '-c', ADDRESSES], capture_output=True, text=True,
                          timeout=120, check=False)
    assert done.stdout.split() == ['127.0.0.1'], done.stderr


def outcomes(jobs: list[str], ray: bool) -> dict[str, Outcome]:
    return {outcome.job: outcome for outcome in run_jobs(work, jobs, workers=2, ray=ray)}


def test_both_engines_give_the_same_bytes_with_one_thread_each() -> None:
    processes, tasks = ({outcome.job: outcome.result for outcome in run_jobs(
        multiply, range(6), workers=2, ray=ray)} for ray in (False, True))
    assert sorted(processes) == list(range(6))
    assert len(set(processes.values())) == 6
    assert processes == tasks
    assert processes[0][1:] == (1, 1)


@ENGINES
def test_what_goes_wrong_is_the_error_of_its_job(ray: bool) -> None:
    jobs = ['1', 'die', 'raise', 'odd', 'unsendable', 'exit', '2']
    found = outcomes(jobs, ray)
    assert sorted(found) == sorted(jobs)
    for job in '12':
        assert found[job].error is None
        assert found[job].result == f'{job} is done'.encode()
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
        [sys.executable, '-c', 'import sys; from jobs import linger; '
         'from infinite_nature_ros.parallel import run_jobs; '
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
