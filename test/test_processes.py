"""Generator and autopilot as real processes over DDS, and the ``fly`` command around them."""

from __future__ import annotations

from collections.abc import Iterator
import os
from pathlib import Path
import signal
import subprocess
import sys
import time
from typing import Any

import av
from geometry_msgs.msg import PoseStamped
import numpy as np
import PIL.Image
import pytest
from ros_probe import FRAME_TOPICS, isolated_ros, Probe, SIZE
from rosbags.highlevel import AnyReader

import infinite_nature_ros
from infinite_nature_ros.commands.processes import isolate_domain, NodeProcess
from infinite_nature_ros.nodes import messages
from infinite_nature_ros.nodes.sinks import BagSink
from infinite_nature_ros.pose_files import read_poses

FRAMES = 30
ROOT = Path(infinite_nature_ros.__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let child processes import the package that is tested."""
    before = os.environ.get('PYTHONPATH', '')
    monkeypatch.setenv('PYTHONPATH', os.pathsep.join(filter(None, [before, str(ROOT)])))


@pytest.fixture
def probe() -> Iterator[Probe]:
    with isolated_ros():
        probe = Probe()
        probe.create_subscription(PoseStamped, 'command_pose', probe.received['command'].append,
                                  1000)
        yield probe
        probe.destroy_node()


class Flight:
    """The two nodes as child processes."""

    def __init__(self, folder: Path, photo: str, autopilot_first: bool = False,
                 **parameters: Any) -> None:
        scale = {'scene_scale': parameters.get('scene_scale', 1.0)}
        nodes = [('generator', {'image': photo, 'seed': 1, **SIZE, **parameters}),
                 ('autopilot', scale)]
        if autopilot_first:
            nodes.reverse()
        self.processes = [
            NodeProcess(f'infinite_nature_ros.nodes.{name}_node', values, folder / f'{name}.log')
            for name, values in nodes]

    def __enter__(self) -> Flight:
        return self

    def __exit__(self, *error: object) -> None:
        for process in self.processes:
            process.stop()


@pytest.mark.parametrize(('command_mode', 'scene_scale', 'autopilot_first'), [
    ('every', 1.0, False), ('latest', 10.0, True)])
def test_lock_step(tmp_path: Path, photo: str, probe: Probe, command_mode: str,
                   scene_scale: float, autopilot_first: bool) -> None:
    with Flight(tmp_path, photo, autopilot_first, command_mode=command_mode,
                scene_scale=scene_scale) as flight:
        probe.wait_for_frames(FRAMES)
        probe.spin_until(lambda: len(probe.received['command']) >= FRAMES)
        for process in flight.processes:
            process.check()

    # The path tells all that was flown. A probe that is slow may miss messages, so the other
    # topics are held against it: each has stamps of the path, once, in order.
    path = probe.received['path'][-1].poses
    stamps = [messages.stamp_of(pose) for pose in path]
    assert stamps == sorted(set(stamps))
    complete = set(stamps)
    for topic in FRAME_TOPICS:
        seen = [stamp for stamp in probe.stamps(topic) if stamp <= stamps[-1]]
        assert seen == sorted(set(seen) & set(stamps)), topic
        complete &= set(seen)
    assert len(complete) >= FRAMES // 2

    # Every command was flown, none twice, in order. One that was sent again has its old stamp.
    commands = {messages.stamp_of(command): command.pose for command in
                probe.received['command']}
    commanded, flown = list(commands.values()), [pose.pose for pose in path[1:]]
    start = next(number for number, pose in enumerate(flown)
                 if messages.same_pose(pose, commanded[0], 1e-4))
    pairs = list(zip(commanded, flown[start:], strict=False))
    assert len(pairs) >= FRAMES // 2
    for one, other in pairs:
        assert messages.same_pose(one, other, 1e-4)
    places = [(pose.position.x, pose.position.y, pose.position.z) for pose in flown]
    ways = np.linalg.norm(np.diff(places, axis=0), axis=1)
    assert ways.max() <= 0.2 * scene_scale + 1e-3
    assert ways.sum() > 2 * scene_scale

    for stamp in sorted(complete):
        frame = {topic: next(message for message in probe.received[topic]
                             if messages.stamp_of(message) == stamp)
                 for topic in FRAME_TOPICS}
        depth = messages.image_array(frame['camera/depth/image_rect'])
        disparity = messages.image_array(frame['camera/disparity/image'])
        sky = np.isinf(depth)
        assert 0 < sky.mean() < 1
        assert np.allclose(depth[~sky] * disparity[~sky], 1, rtol=1e-6)
        assert np.allclose(disparity[sky], 0.01 / scene_scale, rtol=1e-3)
        assert frame['camera/camera_info'].k[0] == pytest.approx(76.8)
        assert np.ptp(messages.image_array(frame['camera/image_raw'])) > 0


def test_domain_in_use_is_not_taken(probe: Probe) -> None:
    taken = int(os.environ.pop('ROS_DOMAIN_ID'))
    for _ in range(3):
        os.environ.pop('ROS_DOMAIN_ID', None)
        isolate_domain(candidates=[taken, 1 + taken % 100, 1 + (taken + 1) % 100])
        assert int(os.environ['ROS_DOMAIN_ID']) != taken
    os.environ['ROS_DOMAIN_ID'] = '7'
    assert isolate_domain() == 'ROS_DOMAIN_ID=7'


def test_node_with_bad_parameter_ends_in_one_line(tmp_path: Path, probe: Probe) -> None:
    node = NodeProcess('infinite_nature_ros.nodes.generator_node', {'image': 'no such.jpg'},
                       tmp_path / 'generator.log')
    try:
        _wait_for(lambda: not node.runs)
        with pytest.raises(ChildProcessError, match='no such.jpg') as caught:
            node.check()
    finally:
        node.stop()
    assert len(str(caught.value).splitlines()) == 2


def _start_fly(folder: Path, photo: str, frames: int, *options: str) -> subprocess.Popen:
    environment = {name: value for name, value in os.environ.items() if name != 'ROS_DOMAIN_ID'}
    return subprocess.Popen(
        [sys.executable, '-m', 'infinite_nature_ros.commands', 'fly', photo,
         '--frames', str(frames), '--out', str(folder), '--height', '64', '--width', '96',
         *options],
        env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def _video_frames(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format='rgb24') for frame in container.decode(video=0)]


def _children(process: subprocess.Popen) -> list[int]:
    tasks = Path(f'/proc/{process.pid}/task/{process.pid}/children').read_text()
    return [int(child) for child in tasks.split()]


def _wait_for(condition: Any, timeout: float = 60) -> None:
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, 'timed out'
        time.sleep(0.1)


def test_fly_leaves_video_sheet_and_plot(tmp_path: Path, photo: str) -> None:
    process = _start_fly(tmp_path / 'out', photo, 20)
    try:
        printed, errors = process.communicate(timeout=90)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    frames = _video_frames(tmp_path / 'out' / 'flight.mp4')
    assert len(frames) == 20
    assert frames[0].shape == (64, 192, 3)
    for name in ('contact.png', 'trajectory.png'):
        assert PIL.Image.open(tmp_path / 'out' / name).size[0] > 200
        assert name in printed
    for word in ('20 frames', 'render', 'refine', 'publish', 'total', 'flight.mp4'):
        assert word in printed


def test_fly_puts_frames_between(tmp_path: Path, photo: str) -> None:
    process = _start_fly(tmp_path / 'out', photo, 12, '--interpolate', '3')
    try:
        _, errors = process.communicate(timeout=90)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    path = tmp_path / 'out' / 'flight.mp4'
    with av.open(str(path)) as container:
        assert container.streams.video[0].average_rate == 40
    assert len(_video_frames(path)) == 12 + 11 * 3


def test_interrupted_fly_leaves_a_video(tmp_path: Path, photo: str) -> None:
    out = tmp_path / 'out'
    process = _start_fly(out, photo, 100_000)
    try:
        _wait_for(lambda: (out / 'flight.mp4').exists() and (out / 'flight.mp4').stat().st_size
                  > 20_000)
        children = _children(process)
        process.send_signal(signal.SIGINT)
        printed, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130
    assert len(_video_frames(out / 'flight.mp4')) == int(
        next(line for line in printed.splitlines() if ' frames; ' in line).split()[0])
    assert len(children) == 2
    assert not [child for child in children if Path(f'/proc/{child}').exists()]


def test_killed_fly_leaves_what_was_flown_and_no_nodes(tmp_path: Path, photo: str) -> None:
    out = tmp_path / 'out'
    process = _start_fly(out, photo, 100_000, '--record', 'video', 'poses', 'stills', 'bag')
    try:
        _wait_for(lambda: (out / 'flight.mp4').exists() and (out / 'flight.mp4').stat().st_size
                  > 20_000)
        children = _children(process)
    finally:
        process.kill()
        process.communicate(timeout=30)
    video = _video_frames(out / 'flight.mp4')
    stills = sorted((out / 'stills').glob('0*.png'))
    with AnyReader([out / 'bag']) as bag:
        pictures = [bag.deserialize(data, connection.msgtype) for connection, _, data in
                    bag.messages() if connection.topic.endswith('image_raw')]
        counts = {connection.topic: sum(1 for _ in bag.messages([connection]))
                  for connection in bag.connections}
    assert set(counts.values()) == {len(pictures)}
    assert counts.keys() == {f'/infinite_nature/{topic}' for topic in BagSink.topics}
    # Sinks take a frame one after the other: they differ by the one in the making, the video by
    # its fragment of half a second.
    assert len(video) >= 5
    for kept in (stills, read_poses(out / 'poses_tum.txt'),
                 read_poses(out / 'poses_realestate10k.txt')):
        assert abs(len(kept) - len(pictures)) <= 1
    assert 0 <= len(stills) - len(video) <= 6
    for still, picture in zip(stills, pictures, strict=False):
        assert np.asarray(PIL.Image.open(still)).tobytes() == picture.data.tobytes()
    _wait_for(lambda: not [child for child in children if _runs(child)])


def _runs(process: int) -> bool:
    """Whether a process is there and not a zombie that only waits to be reaped."""
    try:
        return Path(f'/proc/{process}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except OSError:
        return False


@pytest.mark.parametrize(('option', 'value', 'problem'), [
    ('--device', 'abacus', 'abacus'), ('--disparity', 'midas', 'horizon or file:PATH')])
def test_fly_reports_a_node_that_died(tmp_path: Path, photo: str, monkeypatch: pytest.MonkeyPatch,
                                      option: str, value: str, problem: str) -> None:
    monkeypatch.setenv('INFINITE_NATURE_MIDAS', 'nowhere')
    process = _start_fly(tmp_path / 'out', photo, 100_000, option, value)
    try:
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 1
    assert 'generator_node ended' in errors
    assert problem in errors
    assert len(errors[errors.index('error: '):].strip().splitlines()) == 2
    assert 'Traceback' not in errors


@pytest.mark.parametrize(('photo_name', 'frames', 'interpolate', 'problem'), [
    ('no_such_photo.jpg', 10, 0, 'no_such_photo.jpg'), ('', 0, 0, 'frames is 0'),
    ('', 10, -1, 'interpolate is -1')])
def test_fly_refuses_before_it_starts(tmp_path: Path, photo_name: str, frames: int,
                                      interpolate: int, problem: str) -> None:
    process = _start_fly(tmp_path / 'out', photo_name, frames, '--interpolate', str(interpolate))
    try:
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 1
    assert errors.startswith('error: ')
    assert problem in errors
    assert len(errors.strip().splitlines()) == 1
    assert not (tmp_path / 'out').exists()
