"""ACID bags: what is written is whole, in the schema, and the same bytes every time."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from rosbags.highlevel import AnyReader
import torch

from infinite_nature_ros.camera import level_pose, pose_at
from infinite_nature_training.bags import ClipError, ClipFrame, ClipInfo, ClipWriter

INFO = ClipInfo(source='a test', licence='CC0-1.0', split='train', scene_scale=2.0,
                details={'seed': 3})


def make_frames(count: int = 3) -> list[ClipFrame]:
    """Frames of noise that fly forward, nose down."""
    random = np.random.default_rng(0)
    rotation = level_pose(0.2, 0.1).double()[:, :, :3]
    return [ClipFrame(
        stamp=1_000_000_007 * (number + 1),
        picture=random.integers(0, 255, (32, 64, 3), np.uint8),
        pose=pose_at(torch.tensor([[0.1, 0.0, 0.25 * number]], dtype=torch.float64), rotation),
        intrinsics=torch.tensor([[0.8, 1.6, 0.5, 0.45]], dtype=torch.float64),
        disparity=random.uniform(0.1, 1, (32, 64)).astype(np.float32),
        points=random.uniform(1, 2, (5, 3)).astype(np.float32)) for number in range(count)]


def write(folder: Path, frames: list[ClipFrame], info: ClipInfo = INFO) -> Path:
    with ClipWriter(folder, info) as writer:
        for frame in frames:
            writer.add(frame)
    return folder


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.iterdir())}


def test_a_bag_has_the_topics_of_the_schema_in_metres(tmp_path: Path) -> None:
    frames = make_frames()
    with AnyReader([write(tmp_path / 'clip', frames)]) as reader:
        counts = {connection.topic: connection.msgcount for connection in reader.connections}
        messages = [(connection.topic, time, reader.deserialize(data, connection.msgtype))
                    for connection, time, data in reader.messages()]
    own = '/infinite_nature'
    assert counts == {f'{own}/clip_info': 1, '/tf_static': 1, '/tf': 3,
                      **{f'{own}/{topic}': 3 for topic in (
                          'camera/image_raw/compressed', 'camera/camera_info', 'pose',
                          'camera/disparity/image', 'sfm_points')}}
    by_topic = {}
    for topic, time, message in messages:
        by_topic.setdefault(topic, []).append(message)
        if hasattr(message, 'header'):
            assert time == message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
    assert ClipInfo.from_json(by_topic[f'{own}/clip_info'][0].data) == INFO
    place = by_topic[f'{own}/pose'][2].pose.position
    # X forward, Y left, Z up, at two metres a scene unit.
    np.testing.assert_allclose([place.x, place.y, place.z], [1.0, -0.2, 0.0], atol=1e-6)
    k = by_topic[f'{own}/camera/camera_info'][0].k
    np.testing.assert_allclose(k, [51.2, 0, 31.5, 0, 51.2, 13.9, 0, 0, 1])
    disparity = by_topic[f'{own}/camera/disparity/image'][1]
    np.testing.assert_allclose(disparity.data.view('<f4').reshape(32, 64),
                               frames[1].disparity / 2, rtol=1e-6)
    points = by_topic[f'{own}/sfm_points'][0]
    np.testing.assert_allclose(points.data.view('<f4').reshape(-1, 3), frames[0].points * 2)
    tree = {(transform.header.frame_id, transform.child_frame_id)
            for message in by_topic['/tf'] + by_topic['/tf_static']
            for transform in message.transforms}
    assert tree == {('map', 'odom'), ('odom', 'base_link'), ('base_link', 'camera_link'),
                    ('camera_link', 'camera_optical_frame')}


def test_the_same_frames_give_the_same_bytes(tmp_path: Path) -> None:
    one, two = (write(tmp_path / name / 'clip', make_frames()) for name in 'ab')
    assert list(digests(one)) == ['clip.mcap', 'metadata.yaml']
    assert digests(one) == digests(two)
    assert digests(one) != digests(write(tmp_path / 'c' / 'clip', make_frames(2)))


def test_a_failure_leaves_no_bag_and_the_last_good_one(tmp_path: Path) -> None:
    folder = tmp_path / 'clip'
    with pytest.raises(ClipError, match='order'):
        write(folder, make_frames()[::-1])
    assert not list(tmp_path.iterdir())
    before = digests(write(folder, make_frames()))
    with pytest.raises(ClipError, match='order'):
        write(folder, make_frames()[::-1])
    assert digests(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ['clip']


def test_an_older_unfinished_bag_is_replaced(tmp_path: Path) -> None:
    dead = ClipWriter(tmp_path / 'clip', INFO)
    dead.__enter__()
    dead.add(make_frames()[0])
    write(tmp_path / 'clip', make_frames())
    assert [path.name for path in tmp_path.iterdir()] == ['clip']


@pytest.mark.parametrize(('part', 'value', 'text'), [
    ('disparity', np.zeros((32, 64), np.float32), 'positive'),
    ('disparity', np.full((32, 64), np.nan, np.float32), 'finite'),
    ('points', -np.ones((2, 3), np.float32), 'in front'),
    ('picture', np.zeros((32, 64), np.uint8), r'give uint8 \[H, W, 3\]'),
    ('picture', b'no picture', 'no JPEG'),
    ('pose', torch.ones(1, 3, 4), 'orthonormal'),
    ('intrinsics', torch.full((1, 4), 200.0), 'pixels'),
])
def test_what_cannot_be_a_frame_is_refused(part: str, value: object, text: str,
                                           tmp_path: Path) -> None:
    frame = make_frames(1)[0]
    wrong = ClipFrame(**{**vars(frame), part: value})
    with pytest.raises(ClipError, match=text):
        write(tmp_path / 'clip', [wrong])
    assert not list(tmp_path.iterdir())


def test_an_empty_clip_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ClipError, match='no frame'):
        write(tmp_path / 'clip', [])
    assert not list(tmp_path.iterdir())


def test_clip_info_says_what_is_wrong() -> None:
    with pytest.raises(ClipError, match='split'):
        ClipInfo('a', 'b', split='testing')
    with pytest.raises(ClipError, match='scene_scale'):
        ClipInfo('a', 'b', scene_scale=0.0)
    for text in ('', '[1]', '{}', '{"source": "a"}'):
        with pytest.raises(ClipError, match='clip_info'):
            ClipInfo.from_json(text)
    assert ClipInfo.from_json('{"source": "a", "licence": "", "later": 1}') == ClipInfo('a', '')
