"""Nodes as processes: killed and started again, side by side, with files, remaps and profiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import os
from pathlib import Path
import signal
import subprocess
import sys
from typing import Any

from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Odometry
import numpy as np
import pytest
from rclpy.qos import QoSProfile, ReliabilityPolicy
from ros_probe import isolated_ros, Probe, SIZE
from safetensors.torch import load_file, save_file
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger
import torch

import infinite_nature_ros
from infinite_nature_ros.nodes import messages
from infinite_nature_ros.nodes.flight_store import FlightStore
from infinite_nature_ros.nodes.transport import LARGE_DATA_PROFILE

ROOT = Path(infinite_nature_ros.__file__).resolve().parents[1]


@pytest.fixture
def probe() -> Iterator[Probe]:
    with isolated_ros():
        probe = Probe()
        yield probe
        probe.destroy_node()


class Executable:
    """A node that runs as its executable does, in a process of its own."""

    def __init__(self, name: str, log: Path, *arguments: str, **parameters: Any) -> None:
        self._log = log
        self._offset = log.stat().st_size if log.exists() else 0
        settings = [part for key, value in parameters.items() for part in ('-p', f'{key}:={value}')]
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get('PYTHONPATH', '')]))
        with log.open('ab') as output:
            self.process = subprocess.Popen(
                [sys.executable, '-m', f'infinite_nature_ros.nodes.{name}_node', '--ros-args',
                 *arguments, *settings], stdout=output, stderr=output,
                env={**os.environ, 'PYTHONPATH': path})

    def says(self, words: str) -> bool:
        """Whether its log holds words."""
        return words in self._log.read_text()[self._offset:]

    def stop(self) -> None:
        """End it as Ctrl-C does."""
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it as ``kill -9`` does."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Executable]]:
    running: list[Executable] = []

    def start(name: str, *arguments: str, **parameters: Any) -> Executable:
        running.append(Executable(name, tmp_path / f'{name}.log', *arguments, **parameters))
        return running[-1]

    yield start
    for executable in running:
        executable.stop()


def ways(poses: list[PoseStamped]) -> np.ndarray:
    """Distances from frame to frame."""
    places = [(place.x, place.y, place.z) for place in (pose.pose.position for pose in poses)]
    return np.linalg.norm(np.diff(places, axis=0), axis=1)


def test_killed_generator_goes_on_where_it_was(probe: Probe, tmp_path: Path, photo: str,
                                               start: Callable[..., Executable]) -> None:
    settings = {'image': photo, 'seed': 1, 'state_file': tmp_path / 'flight.state', **SIZE}
    generator = start('generator', **settings)
    autopilot = start('autopilot', answer_timeout=0.5)
    probe.wait_for_frames(12)
    generator.kill()
    probe.spin_for(0.3)
    seen = probe.received['path'][-1].poses
    probe.spin_until(lambda: autopilot.says('no frame has come'))
    generator = start('generator', **settings)
    probe.spin_until(lambda: len(probe.received['path'][-1].poses) >= len(seen) + 12)
    assert generator.says('going on from')
    assert autopilot.says('frames come again')
    # The path tells all that was flown; a probe that finds the new generator late misses frames.
    path = probe.received['path'][-1].poses
    assert path[:len(seen)] == seen
    # The frame after the last one that was seen is a step away, or the same frame again.
    assert ways(path).max() <= 0.2 + 1e-3
    assert ways(path[len(seen):]).sum() > 1
    stamps = [messages.stamp_of(pose) for pose in path]
    assert stamps == sorted(set(stamps))
    odometry = probe.received['odom'][-1].pose.pose
    assert any(messages.same_pose(odometry, pose.pose, 1e-4) for pose in path)
    assert probe.call(Trigger, 'generator/reset').success
    probe.spin_until(lambda: len(probe.received['path'][-1].poses) < 5)


def test_killed_autopilot_takes_over_again(probe: Probe, photo: str,
                                           start: Callable[..., Executable]) -> None:
    generator = start('generator', image=photo, seed=1, **SIZE)
    autopilot = start('autopilot')
    probe.wait_for_frames(6)
    autopilot.kill()
    probe.spin_until(lambda: generator.says('the flight waits for the next command'))
    count = len(probe.received['pose'])
    autopilot = start('autopilot')
    probe.wait_for_frames(count + 6)
    probe.spin_until(lambda: generator.says('commands come again'))
    assert ways(probe.received['path'][-1].poses).max() <= 0.2 + 1e-3


def test_state_of_another_flight_is_refused_and_kept(probe: Probe, tmp_path: Path, photo: str,
                                                     start: Callable[..., Executable]) -> None:
    state = tmp_path / 'flight.state'
    generator = start('generator', image=photo, state_file=state, **SIZE)
    probe.wait_for_frames(1)
    generator.kill()
    saved = state.read_bytes()
    other = start('generator', image=photo, state_file=state, scene_scale=2.0,
                  **{**SIZE, 'height': 96})
    assert other.process.wait(timeout=60) == 1
    assert other.says('height 64, now 96, scene_scale 1.0, now 2.0')
    assert other.says('delete it to start over')
    assert not other.says('Traceback')
    assert state.read_bytes() == saved


def test_state_file_is_checked(tmp_path: Path) -> None:
    state = tmp_path / 'flight.state'
    assert FlightStore(state, {}).load() is None
    state.write_bytes(b'no tensors')
    with pytest.raises(ValueError, match='not a saved flight'):
        FlightStore(state, {}).load()
    save_file({'ones': torch.ones(3)}, state)
    with pytest.raises(ValueError, match="model None, now 'default'"):
        FlightStore(state, {'model': 'default'}).load()
    assert load_file(state)


def test_two_drones_side_by_side(probe: Probe, tmp_path: Path, photo: str,
                                 start: Callable[..., Executable]) -> None:
    file = tmp_path / 'drone.yaml'
    file.write_text(f'/**/generator:\n  ros__parameters:\n    image: "{photo}"\n'
                    '    height: 64\n    width: 96\n')
    for number in (1, 2):
        start('generator', '--params-file', str(file), '-r', f'__ns:=/drone{number}',
              '-r', 'camera/image_raw:=camera/colour', frame_prefix=f'drone{number}/')
        start('autopilot', '-r', f'__ns:=/drone{number}', speed=0.1 * number)
    got: dict[str, list[Any]] = {}
    for number in (1, 2):
        for topic, kind in (('camera/colour', Image), ('odom', Odometry)):
            name = f'/drone{number}/{topic}'
            got[name] = []
            probe.create_subscription(kind, name, got[name].append, 100)
    probe.spin_until(lambda: all(len(messages) > 10 for messages in got.values()))
    for number in (1, 2):
        odometry = got[f'/drone{number}/odom']
        assert {(message.header.frame_id, message.child_frame_id) for message in odometry} == {
            (f'drone{number}/odom', f'drone{number}/base_link')}
        steps = ways([message.pose for message in odometry])
        assert np.median(steps) == pytest.approx(0.1 * number, abs=0.02)
        image = got[f'/drone{number}/camera/colour'][0]
        assert (image.height, image.width) == (64, 96)

    def diagnosed() -> set[str]:
        return {status.name for message in probe.received['/diagnostics']
                for status in message.status}

    probe.spin_until(lambda: len(diagnosed()) > 1)
    assert diagnosed() == {'drone1/generator: flight', 'drone2/generator: flight'}


def test_large_images_arrive_with_the_profile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
                                              photo: str, start: Callable[..., Executable]
                                              ) -> None:
    monkeypatch.setenv('FASTRTPS_DEFAULT_PROFILES_FILE', str(LARGE_DATA_PROFILE))
    with isolated_ros():
        probe = Probe()
        hasty = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
        got: dict[str, list[Image]] = {}
        for topic in ('camera/image_raw', 'camera/disparity/image', 'camera/depth/image_rect'):
            got[topic] = []
            probe.create_subscription(Image, topic, got[topic].append, hasty)
        generator = start('generator', image=photo, height=480, width=640)
        probe.wait_for_frames(1)
        probe.spin_until(probe.command.get_subscription_count)
        for count in range(1, 5):
            probe.send((0.1 * count, 0.0, 0.0))
            probe.wait_for_frames(count + 1)
        probe.spin_for(0.5)
        wanted = {messages.stamp_of(message) for message in probe.received['pose'][1:]}
        for images in got.values():
            assert wanted <= {messages.stamp_of(message) for message in images}
        assert not generator.says("Fast DDS' shared memory")
        probe.destroy_node()
