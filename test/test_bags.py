"""Bags: what readers find in them, at every moment of their making."""

from __future__ import annotations

from collections.abc import Callable
import os
from pathlib import Path
import shutil
from types import SimpleNamespace
from typing import Any

from geometry_msgs.msg import PoseStamped
from mcap.reader import make_reader
from mcap.stream_reader import StreamReader
import numpy as np
import pytest
from rclpy.serialization import serialize_message
from rosbags.highlevel import AnyReader
from std_msgs.msg import Header

from infinite_nature_ros import bags
from infinite_nature_ros.nodes.messages import image_message

TYPES = {'/drone/camera/image_raw': 'sensor_msgs/msg/Image',
         '/drone/pose': 'geometry_msgs/msg/PoseStamped'}


def _frame(number: int, height: int = 48) -> tuple[int, dict[str, bytes]]:
    noise = np.random.default_rng(number).integers(0, 256, (height, 64, 3), np.uint8)
    header = Header(frame_id='map')
    header.stamp.sec = number
    pose = PoseStamped(header=header)
    pose.pose.position.x = float(number)
    return number * 10**9, {'/drone/camera/image_raw': serialize_message(
        image_message(noise, 'rgb8', header)), '/drone/pose': serialize_message(pose)}


def _read(folder: Path) -> list[tuple[int, str, Any]]:
    with AnyReader([folder]) as reader:
        return [(time, connection.topic, reader.deserialize(data, connection.msgtype))
                for connection, time, data in reader.messages()]


def _check(folder: Path, frames: int) -> None:
    found = _read(folder)
    poses = [(time, message) for time, topic, message in found if topic == '/drone/pose']
    images = [message for _, topic, message in found if topic == '/drone/camera/image_raw']
    assert [time for time, _ in poses] == [number * 10**9 for number in range(frames)]
    assert [message.pose.position.x for _, message in poses] == list(range(frames))
    assert len(images) == frames
    for number, image in enumerate(images):
        _, expected = _frame(number, image.height)
        assert expected['/drone/camera/image_raw'].endswith(image.data.tobytes())
        assert image.header.frame_id == 'map'


def test_closed_bag_is_read_and_indexed(tmp_path: Path) -> None:
    bag = bags.BagWriter(tmp_path / 'bag', TYPES)
    for number in range(5):
        bag.add(*_frame(number))
    bag.close()
    bag.close()
    _check(tmp_path / 'bag', 5)
    assert sorted(path.name for path in (tmp_path / 'bag').iterdir()) == [
        'bag_0.mcap', 'metadata.yaml']
    with AnyReader([tmp_path / 'bag']) as reader:
        assert (reader.start_time, reader.duration) == (0, 4 * 10**9 + 1)
        assert {connection.topic: connection.msgcount for connection in reader.connections} == {
            topic: 5 for topic in TYPES}
        assert {connection.msgtype for connection in reader.connections} == set(TYPES.values())
    with (tmp_path / 'bag' / 'bag_0.mcap').open('rb') as file:
        summary = make_reader(file, validate_crcs=True).get_summary()
    assert summary.statistics.message_count == 10
    assert len(summary.chunk_indexes) == 5


def _snapshots(monkeypatch: pytest.MonkeyPatch, folder: Path, out: Path) -> list[Path]:
    """Have every change of a file leave a copy of the folder as it is just then."""
    taken: list[Path] = []

    def noting(change: Callable) -> Callable:
        def changed(*arguments: Any, **options: Any) -> Any:
            result = change(*arguments, **options)
            taken.append(out / str(len(taken)))
            shutil.copytree(folder, taken[-1])
            return result
        return changed

    monkeypatch.setattr(bags, 'os', SimpleNamespace(
        **{name: getattr(os, name) for name in ('open', 'close', 'O_RDWR', 'O_CREAT', 'O_TRUNC')},
        pwrite=noting(os.pwrite), ftruncate=noting(os.ftruncate)))
    monkeypatch.setattr(Path, 'replace', noting(Path.replace))
    return taken


def test_bag_is_whole_after_every_single_write(tmp_path: Path,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / 'bag'
    monkeypatch.setattr(bags, '_GROWTH', 1 << 15)
    taken = _snapshots(monkeypatch, folder, tmp_path / 'taken')
    bag = bags.BagWriter(folder, TYPES)
    for number in range(8):
        # Frames that fit into the padding, and some for which the file grows.
        bag.add(*_frame(number, height=24 + 48 * (number % 3 == 0)))
    bag.close()
    monkeypatch.undo()
    bag_born = [path for path in taken if (path / 'metadata.yaml').exists()]
    assert len(bag_born) > 3 * 8
    counts = []
    for path in bag_born:
        counts.append(len(_read(path)) // 2)
        _check(path, counts[-1])
    assert counts == sorted(counts)
    assert set(counts) == set(range(1, 9))


def test_unfinished_bag_is_read_as_a_stream(tmp_path: Path) -> None:
    bag = bags.BagWriter(tmp_path / 'bag', TYPES)
    for number in range(20):
        bag.add(*_frame(number, height=200))
        with (tmp_path / 'bag' / 'bag_0.mcap').open('rb') as file:
            records = [type(record).__name__ for record in StreamReader(file).records]
        assert records.count('Message') == 2 * (number + 1)
        assert records[-1] == 'Footer'


def test_write_cut_short_is_not_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill may come between the memory pages of a write."""
    bag = bags.BagWriter(tmp_path / 'bag', TYPES)
    bag.add(*_frame(0))
    bag.add(*_frame(1))

    write = os.pwrite

    def cut(file: int, data: bytes, offset: int) -> int:
        write(file, data[:4096 - offset % 4096], offset)
        raise InterruptedError

    monkeypatch.setattr(bags.os, 'pwrite', cut)
    with pytest.raises(InterruptedError):
        bag.add(*_frame(2))
    monkeypatch.undo()
    _check(tmp_path / 'bag', 2)


def test_bag_takes_the_place_of_an_older_one(tmp_path: Path) -> None:
    for frames in (6, 2):
        bag = bags.BagWriter(tmp_path / 'bag', TYPES)
        for number in range(frames):
            bag.add(*_frame(number))
        bag.close()
    _check(tmp_path / 'bag', 2)


def test_clock_that_goes_back(tmp_path: Path) -> None:
    bag = bags.BagWriter(tmp_path / 'bag', TYPES)
    for number in (5, 3, 7):
        bag.add(*_frame(number))
    assert [time // 10**9 for time, *_ in _read(tmp_path / 'bag')] == [5, 5, 5, 5, 7, 7]
