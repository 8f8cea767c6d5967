"""Many jobs at once: in processes of this machine, or as Ray tasks on many; same results.

A job is whatever a function takes. Its function runs in another process with one thread each for
torch and OpenCV, however many run at once, so that the results don't depend on it. A worker that
dies, killed for the memory it took or by a library's crash, is the error of its job alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
import ctypes
from dataclasses import dataclass
from itertools import islice
import multiprocessing
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
import os
import pickle
import signal
import sys
import traceback
from typing import Any, Generic, TypeVar

J = TypeVar('J')
R = TypeVar('R')

# prctl's PR_SET_PDEATHSIG.
_SET_PARENT_DEATH_SIGNAL = 1


class WorkerError(RuntimeError):
    """The process that did a job ended before the job did."""


@dataclass(frozen=True)
class Outcome(Generic[J, R]):
    """What came of a job.

    Attributes:
        job: as it was given.
        result: what the function returned; ``None`` if it raised.
        error: what it raised, or a :class:`WorkerError`; ``None`` if all is well.
        traceback: where it was raised, as Python prints it.
    """

    job: J
    result: R | None = None
    error: Exception | None = None
    traceback: str = ''


def run_jobs(function: Callable[[J], R], jobs: Iterable[J], *, workers: int = 0,
             ray: bool = False) -> Iterator[Outcome[J, R]]:
    """Call a function for many jobs at once.

    Jobs are taken from the iterable as workers get free. Closing the generator early, as Ctrl-C
    does, ends the jobs that run.

    Args:
        function: one of a module's top level, or a ``functools.partial`` of one.
        jobs: what to call it with; picklable.
        workers: how many at once; 0: as many as there are cores here, or CPUs in Ray's cluster.
        ray: run Ray tasks, in the cluster that the program is connected to, or else the one that
            ``RAY_ADDRESS`` names, or else a local one, which ends with the generator.

    Returns:
        Outcomes as they come, in any order.

    Raises:
        ValueError: for a negative number of workers, or if Ray is asked for but isn't installed.
    """
    if workers < 0:
        raise ValueError(f'workers is {workers}; give 1 or more, or 0 for one a core')
    if ray:
        return _run_in_ray(_import_ray(), function, jobs, workers)
    return _run_in_processes(function, jobs, workers or len(os.sched_getaffinity(0)))


def _call(function: Callable[[J], R], job: J) -> Outcome[J, R]:
    """Do a job in a worker; whatever it raises is part of the outcome. The job stays behind."""
    try:
        return Outcome(None, function(job))
    except Exception as error:
        return Outcome(None, error=_portable(error), traceback=traceback.format_exc())


def _portable(error: Exception) -> Exception:
    """Return the error if it survives the way to another process, else a plain one like it."""
    try:
        if type(pickle.loads(pickle.dumps(error))) is type(error):
            return error
    except Exception:  # an exception's own constructor can raise anything
        pass
    kinds = (kind for kind in (OSError, ValueError) if isinstance(error, kind))
    return next(kinds, RuntimeError)(f'{type(error).__name__}: {error}')


def _use_one_thread() -> None:
    """Hold the libraries that are there to one thread, and those that come later."""
    os.environ.update(OMP_NUM_THREADS='1', OPENCV_FOR_THREADS_NUM='1')
    for module, function in (('torch', 'set_num_threads'), ('cv2', 'setNumThreads')):
        if module in sys.modules:
            getattr(sys.modules[module], function)(1)


class _Worker:
    """A process that does one job after the other."""

    def __init__(self, function: Callable[[J], R]) -> None:
        # Warp and torch have threads, which don't survive a fork.
        context = multiprocessing.get_context('spawn')
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(function, theirs, os.getpid()),
                                        daemon=True)
        # The tracker's start would unblock the signal.
        resource_tracker.ensure_running()
        # A terminal's Ctrl-C goes to all its processes; the parent decides what becomes of it.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        theirs.close()

    def begin(self, job: Any) -> None:
        """Send a job; if the worker died meanwhile, its outcome will say so."""
        try:
            self.connection.send(job)
        except (BrokenPipeError, ConnectionResetError):
            self._process.join()

    def finish(self, job: J) -> Outcome[J, R]:
        """Receive what came of the job; waits for that."""
        try:
            outcome = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self._process.join()
            return Outcome(job, error=WorkerError(_cause_of_death(self._process.exitcode)))
        return Outcome(job, outcome.result, outcome.error, outcome.traceback)

    @property
    def lives(self) -> bool:
        """Whether it can do another job."""
        return self._process.is_alive()

    def kill(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._process.join()
        self.connection.close()


def _serve(function: Callable[[J], R], connection: Connection, parent: int) -> None:
    """Do jobs that come through a connection, as long as the parent lives."""
    # A worker that outlived a killed parent would write into what the next one works at.
    ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        return
    _use_one_thread()
    while True:
        outcome = _call(function, connection.recv())
        try:
            connection.send(outcome)
        except (AttributeError, TypeError, ValueError, pickle.PicklingError) as error:
            connection.send(Outcome(None, error=TypeError(f'the result cannot be sent: {error}')))


def _cause_of_death(code: int) -> str:
    if code >= 0:
        return f'its worker process ended with exit code {code}'
    name = signal.Signals(-code).name
    hint = '; is the memory enough for so many workers?' if name == 'SIGKILL' else ''
    return f'its worker process was ended by {name}{hint}'


def _run_in_processes(function: Callable[[J], R], jobs: Iterable[J],
                      workers: int) -> Iterator[Outcome[J, R]]:
    waiting = iter(jobs)
    busy: dict[Connection, tuple[_Worker, J]] = {}

    def employ(worker: _Worker | None) -> None:
        """Give a worker, or a new one, the next job; send it home if there is none."""
        for job in islice(waiting, 1):
            if worker is None or not worker.lives:
                worker = _Worker(function)
            busy[worker.connection] = worker, job
            worker.begin(job)
            return
        if worker is not None:
            worker.kill()

    try:
        for _ in range(workers):
            employ(None)
        while busy:
            for connection in wait(list(busy)):
                worker, job = busy.pop(connection)
                outcome = worker.finish(job)
                employ(worker)
                yield outcome
    finally:
        for worker, _ in busy.values():
            worker.kill()


def _import_ray() -> Any:
    if 'RAY_ADDRESS' not in os.environ:
        # Ray reads them when it is imported. Only without clusters of several machines, which is
        # its habit on Windows, do the servers of a local one listen to this machine alone.
        os.environ.setdefault('RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER', '0')
        os.environ.setdefault('RAY_USAGE_STATS_ENABLED', '0')
    try:
        import ray
    except ImportError as error:
        raise ValueError(f"Ray cannot be imported ({error}); install it with "
                         f"pip install 'infinite_nature_ros[ray]'") from error
    return ray


def _run_in_ray(ray: Any, function: Callable[[J], R], jobs: Iterable[J],
                workers: int) -> Iterator[Outcome[J, R]]:
    waiting = iter(jobs)
    running: dict[Any, J] = {}
    started = not ray.is_initialized()
    if started:
        _connect(ray, workers)
    task = ray.remote(num_cpus=1, max_retries=0)(_call_in_ray)

    def employ() -> None:
        """Submit the next job, if there is one."""
        for job in islice(waiting, 1):
            running[task.remote(sys.path, pickle.dumps((function, job)))] = job

    try:
        for _ in range(workers or int(ray.cluster_resources().get('CPU', 1))):
            employ()
        while running:
            (reference,), _ = ray.wait(list(running))
            job = running.pop(reference)
            employ()
            yield _collect(ray, reference, job)
    finally:
        for reference in running:
            ray.cancel(reference, force=True)
        if started:
            ray.shutdown()


def _call_in_ray(path: list[str], call: bytes) -> Outcome[J, R]:
    """Do a job in a Ray worker, which finds modules where the program does."""
    sys.path.extend(folder for folder in path if folder not in sys.path)
    _use_one_thread()
    return _call(*pickle.loads(call))


def _collect(ray: Any, reference: Any, job: J) -> Outcome[J, R]:
    try:
        outcome = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        return Outcome(job, error=TypeError(f'the result cannot be sent: {error.cause}'))
    except ray.exceptions.RayError as error:
        reason = str(error).strip().partition('\n')[0]
        return Outcome(job, error=WorkerError(f'its Ray worker ended: {reason}'))
    return Outcome(job, outcome.result, outcome.error, outcome.traceback)


def _connect(ray: Any, workers: int) -> None:
    """Connect to the cluster of ``RAY_ADDRESS``, or start one that only this machine can reach."""
    local = {} if 'RAY_ADDRESS' in os.environ else {
        'address': 'local', 'include_dashboard': False,
        'num_cpus': workers or len(os.sched_getaffinity(0))}
    ray.init(log_to_driver=False, logging_level='ERROR', **local)
