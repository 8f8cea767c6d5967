"""What ``fly`` records, and flights along recorded poses."""

from __future__ import annotations

import os
from pathlib import Path
import subprocess
import sys
import time

import numpy as np
import PIL.Image
import pytest
from ros_probe import isolated_ros, make_photo, overrides
from rosbags.highlevel import AnyReader
import torch

import infinite_nature_ros
from infinite_nature_ros.camera import position
from infinite_nature_ros.commands.fly import fly
from infinite_nature_ros.nodes.recorder_node import RecorderNode
from infinite_nature_ros.pose_files import read_poses

ROOT = Path(infinite_nature_ros.__file__).resolve().parents[1]
FRAMES = 8


def run_fly(photo: Path, out: Path, *options: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, '-m', 'infinite_nature_ros.commands', 'fly', str(photo), '--out',
         str(out), '--height', '64', '--width', '96', '--seed', '5', *options],
        env=environment(), text=True, capture_output=True, timeout=120, check=False)


def environment() -> dict[str, str]:
    """Environment of a process that finds the package, on no domain in particular."""
    kept = {name: value for name, value in os.environ.items() if name != 'ROS_DOMAIN_ID'}
    path = filter(None, [kept.get('PYTHONPATH'), str(ROOT)])
    return kept | {'PYTHONPATH': os.pathsep.join(path)}


def stills(out: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted((out / 'stills').glob('*.png'))]


@pytest.fixture(scope='module')
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(make_photo(tmp_path_factory.mktemp('photo') / 'coast.png'))


@pytest.fixture(scope='module')
def flown(photo: Path) -> Path:
    """Folder of a flight of which all was kept."""
    out = photo.parent / 'flown'
    done = run_fly(photo, out, '--frames', str(FRAMES), '--record', 'video', 'poses', 'stills',
                   'bag')
    assert done.returncode == 0, done.stderr
    for name in ('flight.mp4', 'poses_tum.txt', 'poses_realestate10k.txt', 'stills', 'bag'):
        assert str(out / name) in done.stdout.splitlines()
    return out


def test_bag_holds_the_flight(flown: Path) -> None:
    pictures = [np.asarray(PIL.Image.open(path)) for path in
                sorted((flown / 'stills').glob('*.png'))]
    assert len(pictures) == FRAMES
    assert pictures[0].shape == (64, 96, 3)
    with AnyReader([flown / 'bag']) as bag:
        seen = {connection.topic.removeprefix('/infinite_nature/'):
                [bag.deserialize(data, connection.msgtype) for _, _, data in
                 bag.messages([connection])] for connection in bag.connections}
    assert {topic: len(found) for topic, found in seen.items()} == dict.fromkeys(
        ('camera/image_raw', 'camera/disparity/image', 'camera/known/image',
         'camera/camera_info', 'odom', 'pose'), FRAMES)
    stamps = [[(message.header.stamp.sec, message.header.stamp.nanosec) for message in found]
              for found in seen.values()]
    assert all(times == stamps[0] for times in stamps)
    for picture, message in zip(pictures, seen['camera/image_raw'], strict=True):
        assert picture.tobytes() == message.data.tobytes()
    tum = np.loadtxt(flown / 'poses_tum.txt')
    assert tum[:, 1].tolist() == [message.pose.position.x for message in seen['pose']]


@pytest.mark.parametrize(('name', 'frames', 'options'), [
    ('poses_tum.txt', FRAMES, ()), ('poses_realestate10k.txt', 5, ('--frames', '5'))])
def test_replay_shows_the_same(flown: Path, photo: Path, tmp_path: Path, name: str, frames: int,
                               options: tuple[str, ...]) -> None:
    done = run_fly(photo, tmp_path, '--trajectory', str(flown / name), '--record', 'poses',
                   'stills', *options)
    assert done.returncode == 0, done.stderr
    recorded, replayed = (read_poses(out / name) for out in (flown, tmp_path))
    assert len(replayed) == frames
    assert torch.allclose(replayed, recorded[:frames], rtol=0, atol=1e-12)
    assert stills(tmp_path) == stills(flown)[:frames]
    assert not (tmp_path / 'autopilot.log').exists()


def test_path_of_others_is_flown_after_the_photo(photo: Path, tmp_path: Path) -> None:
    path = tmp_path / 'poses.txt'
    # One metre, further than a single render reaches, then a turn on the spot.
    path.write_text('0 1 0.5 0.25 0 0 0 1\n1 1 0.5 0.25 0 0 0.1 0.995\n2 2 0 0 0 0 0 1\n')
    done = run_fly(photo, tmp_path / 'out', '--trajectory', str(path), '--record', 'poses')
    assert done.returncode == 0, done.stderr
    flown = read_poses(tmp_path / 'out' / 'poses_tum.txt')
    assert torch.allclose(flown[1:], read_poses(path), rtol=0, atol=1e-12)
    assert position(flown)[0].abs().max() < 1e-9


@pytest.mark.parametrize(('text', 'problem'), [
    ('1 2 3\n', '3 columns'), ('0 0 0 0 0 0 0 1\n1 500 0 0 0 0 0 1\n', 'pose 2 is 500 m')])
def test_path_that_cannot_be_flown_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / 'poses.txt'
    path.write_text(text)
    with pytest.raises(ValueError, match=problem):
        fly(trajectory=path, out=tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'mcap.writer', None)
    monkeypatch.delitem(sys.modules, 'infinite_nature_ros.bags', raising=False)
    with isolated_ros(), pytest.raises(
            ValueError, match=r"mcap.*pip install 'infinite_nature_ros\[data\]'"):
        RecorderNode(parameter_overrides=overrides(folder=str(tmp_path), record='video, bag'))


def test_recorder_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    with isolated_ros(), pytest.raises(ValueError, match='hologram; give some of video, poses'):
        RecorderNode(parameter_overrides=overrides(folder=str(tmp_path), record='bag,hologram'))


@pytest.mark.parametrize(('record', 'code'), [('poses', 0), ('hologram', 1)])
def test_recorder_ends_in_order(record: str, code: int, tmp_path: Path) -> None:
    """When it's told to it hasn't failed, when it can't start it has and says why."""
    folder = tmp_path / 'kept'
    with subprocess.Popen(
            [sys.executable, '-m', 'infinite_nature_ros.nodes.recorder_node', '--ros-args', '-p',
             f'folder:={folder}', '-p', f'record:={record}'],
            env=environment(), text=True, stderr=subprocess.PIPE) as process:
        while process.poll() is None and not folder.exists():
            time.sleep(0.1)
        process.terminate()
        _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert ('error: record names hologram' in errors) == bool(code)


def test_stills_of_an_earlier_flight_are_replaced(tmp_path: Path) -> None:
    from infinite_nature_ros.nodes.sinks import StillsSink
    (tmp_path / 'stills').mkdir()
    for name in ('000099.png', 'mine.png'):
        (tmp_path / 'stills' / name).touch()
    StillsSink(tmp_path)
    assert [path.name for path in (tmp_path / 'stills').iterdir()] == ['mine.png']
