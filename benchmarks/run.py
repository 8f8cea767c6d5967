"""``make bench``: how long rendering, refining, a whole step and the way between nodes take.

Prints a table in Markdown for the README, under the machine, commit and versions it was made
with. Compare times within one run only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
import sys
import tempfile
import time
from typing import Any

from environment import describe
import numpy as np
import torch
import tyro

from infinite_nature_ros import Autopilot, Flight
from infinite_nature_ros.camera import compose, default_intrinsics, identity_pose
from infinite_nature_ros.photos import find_photo
from infinite_nature_ros.refining.factory import create_model
from infinite_nature_ros.refining.refiner import Refiner
from infinite_nature_ros.refining.registry import (
    build_network,
    DEFAULT_MODEL,
    list_models,
    model_entry,
)
from infinite_nature_ros.rendering.backends import get_backend, list_backends
from infinite_nature_ros.rendering.render import render

HEIGHT, WIDTH = 160, 256

# So many calls at least, however long they take.
_MIN_CALLS = 3
_START_SECONDS = 60
_WARM_UP_STEPS = 3
_STEP_METRES = 0.01


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes:
        part: what belongs together; the first row of a part is what the others are compared to.
        name: what was measured.
        device: where it ran.
        seconds: duration of each call.
    """

    part: str
    name: str
    device: str
    seconds: list[float]


def measure(call: Callable[[], Any], budget: float, device: str) -> list[float]:
    """Durations of a call, after one that isn't counted, for as long as the budget lasts."""
    def timed() -> float:
        start = time.perf_counter()
        call()
        if device == 'cuda':
            torch.cuda.synchronize()
        return time.perf_counter() - start

    timed()
    seconds: list[float] = []
    end = time.perf_counter() + budget
    while len(seconds) < _MIN_CALLS or time.perf_counter() < end:
        seconds.append(timed())
    return seconds


def installed_backends(device: str) -> Iterator[str]:
    """Names of the rasterisers that run here."""
    for name in list_backends():
        try:
            get_backend(name)
        except ImportError as error:
            print(f'left out on {device}: {error}', file=sys.stderr)
        else:
            yield name


def bench_render(device: str, budget: float) -> Iterator[Row]:
    """One view of a frame from a step ahead: forward alone, and with the gradients."""
    flight = Flight.from_photo(find_photo(''), size=(HEIGHT, WIDTH), seed=0, device=device)
    frame = flight.frame
    target = compose(identity_pose(), frame.pose.cpu())
    target[:, 2, 3] -= 0.2
    target = target.to(device)

    def view(backend: str, image: torch.Tensor, disparity: torch.Tensor) -> torch.Tensor:
        rendered = render(image, disparity, frame.pose, target, frame.intrinsics,
                          frame.intrinsics, backend)
        return rendered.image.sum() + rendered.disparity.sum()

    for backend in installed_backends(device):
        def forward(backend: str = backend) -> None:
            with torch.no_grad():
                view(backend, frame.image, frame.disparity)

        def backward(backend: str = backend) -> None:
            leaves = [tensor.detach().requires_grad_() for tensor in
                      (frame.image, frame.disparity)]
            view(backend, *leaves).backward()

        for way, call in (('forward', forward), ('forward and backward', backward)):
            yield Row('render', f'{backend}, {way}', device, measure(call, budget, device))


def refiners() -> Iterator[tuple[str, Refiner]]:
    """All models; what a network computes takes as long with weights as without."""
    for name in list_models():
        entry = model_entry(name)
        yield name, build_network(name) if entry.needs_weights else create_model(name)


def bench_flight(device: str, budget: float) -> Iterator[Row]:
    """Refine alone, and whole steps along the way of the autopilot, by the flight's own clock."""
    for name, refiner in refiners():
        flight = Flight.from_photo(find_photo(''), model=refiner, size=(HEIGHT, WIDTH), seed=0,
                                   device=device)
        pilot = Autopilot(default_intrinsics(HEIGHT, WIDTH).to(device))
        refining: list[float] = []

        def step(flight: Flight = flight, pilot: Autopilot = pilot,
                 refining: list[float] = refining) -> None:
            flight.step(pilot.next_pose(flight.frame))
            refining.append(flight.timings['refine'])

        steps = measure(step, budget, device)
        yield Row('refine', name, device, refining[1:])
        yield Row('step and autopilot', name, device, steps)


def bench_nodes(budget: float) -> Iterator[Row]:
    """Way of a frame from the generator node to a subscriber in another process, over DDS."""
    import rclpy

    from infinite_nature_ros.commands.processes import isolate_domain, NodeProcess

    isolate_domain()
    rclpy.init()
    with ExitStack() as stack:
        stack.callback(rclpy.try_shutdown)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        generator = NodeProcess(
            'infinite_nature_ros.nodes.generator_node',
            {'height': HEIGHT, 'width': WIDTH, 'seed': 0, 'device': 'cpu'}, folder / 'log')
        stack.callback(generator.stop)
        latencies, rounds = _fly_lock_step(generator, budget)
    yield Row('node to node', f'command out to frame in, with the step ({DEFAULT_MODEL})', 'cpu',
              rounds)
    yield Row('node to node', 'frame done to frame in (picture, disparity, pose)', 'cpu',
              latencies)


def _fly_lock_step(generator: Any, budget: float) -> tuple[list[float], list[float]]:
    """Command a pose when the frame of the last has come; latencies and round trips."""
    from geometry_msgs.msg import PoseStamped
    import rclpy
    from sensor_msgs.msg import Image

    from infinite_nature_ros.nodes.frame_sets import subscribe_frames

    node = rclpy.create_node('bench', namespace='infinite_nature')
    commands = node.create_publisher(PoseStamped, 'command_pose', 1)
    latencies: list[float] = []
    rounds: list[float] = []
    command, sent_at = PoseStamped(), 0.0
    command.header.frame_id = 'map'

    def send() -> None:
        nonlocal sent_at
        command.header.stamp = node.get_clock().now().to_msg()
        command.pose.position.x += _STEP_METRES
        sent_at = time.perf_counter()
        commands.publish(command)

    def arrived(messages: dict[str, Any]) -> None:
        stamp = messages['pose'].header.stamp
        if abs(messages['pose'].pose.position.x - command.pose.position.x) < _STEP_METRES / 2:
            latencies.append(time.time() - (stamp.sec + stamp.nanosec * 1e-9))
            rounds.append(time.perf_counter() - sent_at)
            send()

    subscribe_frames(node, {'camera/image_raw': Image, 'camera/disparity/image': Image,
                            'pose': PoseStamped}, arrived)
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end:
        rclpy.spin_once(node, timeout_sec=0.1)
        generator.check()
        if not sent_at and commands.get_subscription_count():
            send()
        if len(rounds) == _WARM_UP_STEPS:
            end = time.monotonic() + budget
    if len(rounds) <= _WARM_UP_STEPS:
        raise TimeoutError('the generator did not answer the commands')
    return latencies[_WARM_UP_STEPS:], rounds[_WARM_UP_STEPS:]


def table(rows: list[Row]) -> str:
    """Markdown of all rows.

    Ratios are of the best times, which other work on the machine disturbs least, to that of the
    first row of the same part and device.
    """
    lines = ['| part | what | device | best, ms | median, ms | per second | ratio |',
             '|---|---|---|---|---|---|---|']
    first: dict[tuple[str, str], float] = {}
    for row in rows:
        best, median = min(row.seconds), np.median(row.seconds)
        ratio = best / first.setdefault((row.part, row.device), best)
        lines.append(f'| {row.part} | {row.name} | {row.device} | {_digits(1000 * best)} | '
                     f'{_digits(1000 * median)} | {_digits(1 / median)} | {_digits(ratio)} |')
    return '\n'.join(lines)


def _digits(value: float) -> str:
    """Three digits that mean something, without an exponent."""
    return np.format_float_positional(value, precision=3, unique=False, fractional=False, trim='-')


def main(seconds: float = 3.0, nodes: bool = True) -> None:
    """Measure all that runs on this machine.

    Args:
        seconds: how long each measurement may take; three calls are made in any case.
        nodes: measure the way between nodes too.
    """
    devices = ['cpu', *(['cuda'] if torch.cuda.is_available() else [])]
    parts = [bench(device, seconds) for device in devices
             for bench in (bench_render, bench_flight)]
    rows = [row for part in parts for row in part]
    if nodes:
        rows += bench_nodes(seconds)
    order = {part: number for number, part in
             enumerate(dict.fromkeys(row.part for row in rows))}
    rows.sort(key=lambda row: (row.device, order[row.part]))
    print(f'{describe()}\nsize: {HEIGHT} x {WIDTH}\n\n{table(rows)}')


if __name__ == '__main__':
    tyro.cli(main)
