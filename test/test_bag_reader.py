"""Bags become clips: ours, those of others, and what is said of those that can't."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import copy
from dataclasses import replace
import importlib
from pathlib import Path
import pickle
import shutil
import subprocess
import sys
from typing import Any

from clips import INFO, make_flight, message, messages_of, MILLISECOND, record, write_clip
import numpy as np
import pytest
from rclpy.serialization import deserialize_message
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import CompressionMode, Reader, StoragePlugin
import torch

from infinite_nature_ros.bags import BagWriter
from infinite_nature_ros.camera import compose, position
from infinite_nature_ros.pose_files import pose_of
from infinite_nature_training.bags import (
    ClipError,
    encode_jpeg,
    find_clips,
    read_clip,
    read_clips,
)
from infinite_nature_training.bags.schema import absolute_name, TYPES, typestore

FRAMES = [replace(frame, picture=encode_jpeg(frame.picture)) for frame in make_flight(6)]
IMAGE, POSE, CAMERA_INFO, DISPARITY, POINTS, CLIP_INFO = (absolute_name(name) for name in (
    'camera/image_raw/compressed', 'pose', 'camera/camera_info', 'camera/disparity/image',
    'sfm_points', 'clip_info'))
Messages = list[tuple[str, int, Any]]


@pytest.fixture(scope='module')
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bag of the schema."""
    return write_clip(tmp_path_factory.mktemp('own') / 'clip', FRAMES)


@pytest.fixture
def messages(bag: Path) -> Messages:
    """What is in it."""
    return messages_of(bag)


def same_frames(clip: Any) -> None:
    """The clip is that of ``FRAMES``."""
    assert len(clip.frames) == len(FRAMES)
    np.testing.assert_allclose(clip.poses, torch.cat([frame.pose for frame in FRAMES]), atol=1e-6)
    for got, expected in zip(clip.frames, FRAMES, strict=True):
        got.check()
        assert got.stamp == expected.stamp
        np.testing.assert_allclose(got.pose, expected.pose, atol=1e-6)
        np.testing.assert_allclose(got.intrinsics, expected.intrinsics, atol=1e-9)
        np.testing.assert_allclose(got.disparity, expected.disparity, rtol=1e-5)
        np.testing.assert_allclose(got.points, expected.points, rtol=1e-5)
        assert got.picture == expected.picture


def without(messages: Messages, *topics: str) -> Messages:
    return [row for row in messages if row[0] not in topics]


def shifted(messages: Messages, topic: str, nanoseconds: int) -> Messages:
    """Messages of a topic with other stamps, and in the bag at other times."""
    return sorted(((name, time, content) if name != topic else
                   (name, time + nanoseconds, restamped(content, nanoseconds))
                   for name, time, content in messages), key=lambda row: row[1])


def restamped(content: Any, nanoseconds: int) -> Any:
    content = copy.deepcopy(content)
    for header in ([transform.header for transform in content.transforms]
                   if hasattr(content, 'transforms') else [content.header]):
        whole = header.stamp.sec * 10**9 + header.stamp.nanosec + nanoseconds
        header.stamp.sec, header.stamp.nanosec = divmod(whole, 10**9)
    return content


def odometry(messages: Messages, child: str = 'base_link') -> Messages:
    """Poses as Odometry instead."""
    vector = message('geometry_msgs/msg/Vector3', x=0.0, y=0.0, z=0.0)
    twist = message('geometry_msgs/msg/TwistWithCovariance', covariance=np.zeros(36),
                    twist=message('geometry_msgs/msg/Twist', linear=vector, angular=vector))
    return [row if row[0] != POSE else ('/odom', row[1], message(
        'nav_msgs/msg/Odometry', header=row[2].header, child_frame_id=child, twist=twist,
        pose=message('geometry_msgs/msg/PoseWithCovariance', pose=row[2].pose,
                     covariance=np.zeros(36)))) for row in messages]


def test_own_bag_is_read_back(bag: Path) -> None:
    clip = read_clip(bag)
    assert (clip.name, clip.info, clip.notes) == ('clip', INFO, ())
    assert clip.stamps.tolist() == [frame.stamp for frame in FRAMES]
    same_frames(clip)


def test_frames_are_a_sequence(bag: Path) -> None:
    # In other processes too.
    frames = pickle.loads(pickle.dumps(read_clip(bag))).frames
    stamps = [frame.stamp for frame in FRAMES]
    assert [frame.stamp for frame in frames] == stamps
    assert [frame.stamp for frame in frames[4:0:-2]] == stamps[4:0:-2]
    assert [frame.stamp for frame in frames[1::3]] == stamps[1::3]
    for number in (0, 3, -1):
        np.testing.assert_array_equal(frames[number].disparity, list(frames)[number].disparity)
    with pytest.raises(IndexError):
        frames[6]


@pytest.mark.parametrize('compression', [CompressionMode.NONE, CompressionMode.FILE,
                                         CompressionMode.MESSAGE])
@pytest.mark.parametrize('storage', StoragePlugin)
def test_bag_of_another_storage(storage: StoragePlugin, compression: CompressionMode,
                                messages: Messages, tmp_path: Path) -> None:
    clip = read_clip(record(tmp_path / 'bag', messages, storage, compression))
    assert clip.info == INFO
    same_frames(clip)


@pytest.mark.parametrize('suffix', ['db3', 'mcap'])
def test_lone_file(suffix: str, messages: Messages, tmp_path: Path) -> None:
    storage = StoragePlugin.SQLITE3 if suffix == 'db3' else StoragePlugin.MCAP
    made, = record(tmp_path / 'bag', messages, storage).glob(f'*.{suffix}')
    alone = made.rename(tmp_path / f'alone.{suffix}')
    clip = read_clip(alone)
    assert clip.name == 'alone'
    same_frames(clip)


def test_topics_in_any_namespace(messages: Messages, tmp_path: Path) -> None:
    names = {IMAGE: '/cam0/image_raw/compressed', CAMERA_INFO: '/cam0/camera_info',
             POSE: '/vio/pose', DISPARITY: '/cam0/disparity', POINTS: '/sfm_points',
             CLIP_INFO: '/clip_info'}
    noise = [('/cam0/depth/camera_info', time, content) for topic, time, content in messages
             if topic == CAMERA_INFO]
    noise += [('/goal_pose', time, content) for topic, time, content in messages if topic == POSE]
    clip = read_clip(record(tmp_path / 'bag', [
        *((names.get(topic, topic), time, content) for topic, time, content in messages),
        *noise]))
    assert {topic.name for topic in clip.topics.values()} == set(names.values()) - {'/clip_info'}
    same_frames(clip)


def test_foreign_bag_has_its_path_as_source(messages: Messages, tmp_path: Path) -> None:
    folder = record(tmp_path / 'bag', without(messages, CLIP_INFO))
    clip = read_clip(folder)
    assert (clip.info.source, clip.info.licence, clip.info.scene_scale) == (str(folder), '', 1.0)
    assert any('clip_info' in note for note in clip.notes)
    # Metres are scene units then: ten times as many.
    np.testing.assert_allclose(position(clip.poses),
                               10 * position(torch.cat([frame.pose for frame in FRAMES])),
                               atol=1e-5)
    np.testing.assert_allclose(clip.frames[2].disparity, FRAMES[2].disparity / 10, rtol=1e-5)


@pytest.mark.parametrize(('encoding', 'pixel', 'colour'), [
    ('rgb8', [1, 2, 3], [1, 2, 3]), ('bgr8', [1, 2, 3], [3, 2, 1]), ('mono8', [7], [7, 7, 7])])
def test_plain_images_rather_than_compressed(encoding: str, pixel: list[int], colour: list[int],
                                             messages: Messages, tmp_path: Path) -> None:
    plain = [(IMAGE.removesuffix('/compressed'), time, message(
        'sensor_msgs/msg/Image', header=content.header, height=2, width=3, encoding=encoding,
        is_bigendian=0, step=3 * len(pixel), data=np.array(pixel * 6, np.uint8)))
        for topic, time, content in messages if topic == IMAGE]
    clip = read_clip(record(tmp_path / 'bag', [*messages, *plain]))
    assert clip.frames[1].image().tolist() == [[colour] * 3] * 2


def test_big_endian_padded_cloud(messages: Messages, tmp_path: Path) -> None:
    def swapped(content: Any) -> Any:
        values = content.data.view('<f4').reshape(-1, 3)
        kind = np.dtype({'names': [*'zyx', 'rgb'], 'formats': ['>f4'] * 4,
                         'offsets': [0, 4, 8, 16], 'itemsize': 24})
        points = np.zeros(len(values), kind)
        for axis, column in zip('xyz', values.T, strict=True):
            points[axis] = column
        fields = [message('sensor_msgs/msg/PointField', name=name, offset=offset, datatype=7,
                          count=1) for name, (_, offset) in kind.fields.items()]
        return message('sensor_msgs/msg/PointCloud2', header=content.header, height=1,
                       width=len(values), fields=fields, is_bigendian=True, point_step=24,
                       row_step=points.nbytes, data=points.view(np.uint8), is_dense=True)

    same_frames(read_clip(record(tmp_path / 'bag', [
        (topic, time, swapped(content) if topic == POINTS else content)
        for topic, time, content in messages])))


def test_odometry_of_a_camera_without_transforms(messages: Messages, tmp_path: Path) -> None:
    clip = read_clip(record(tmp_path / 'bag', without(odometry(messages), '/tf', '/tf_static')))
    assert clip.topics['pose'].name == '/odom'
    same_frames(clip)


def test_odometry_of_a_body_that_carries_the_camera(messages: Messages, tmp_path: Path) -> None:
    # The camera is 1 m in front of the body and looks to its left.
    half = np.sqrt(0.5)
    for _, _, content in messages:
        for transform in getattr(content, 'transforms', ()):
            if transform.child_frame_id == 'camera_link':
                transform.transform.translation.x = 1.0
                transform.transform.rotation = message('geometry_msgs/msg/Quaternion', x=0.0,
                                                       y=0.0, z=half, w=half)
    mount = pose_of((0.1, 0, 0), (0, 0, half, half))
    clip = read_clip(record(tmp_path / 'bag', odometry(messages)))
    for pose, frame in zip(clip.poses, FRAMES, strict=True):
        np.testing.assert_allclose(pose, compose(mount, frame.pose)[0], atol=1e-6)
    # The transforms alone say the same.
    by_transforms = read_clip(clip.path, topics={'pose': '/tf'})
    np.testing.assert_allclose(by_transforms.poses, clip.poses, atol=1e-9)


def test_transforms_only(messages: Messages, tmp_path: Path) -> None:
    clip = read_clip(record(tmp_path / 'bag', without(messages, POSE)))
    assert 'pose' not in clip.topics
    same_frames(clip)


@pytest.mark.parametrize('topic', ['/tf', POSE])
def test_poses_between_pictures_are_interpolated(topic: str, messages: Messages,
                                                 tmp_path: Path) -> None:
    folder = record(tmp_path / 'bag', shifted(messages, topic, 10 * MILLISECOND))
    clip = read_clip(folder, topics={'pose': topic})
    # The first picture is 10 ms before the first pose, within the slop.
    places = position(torch.cat([frame.pose for frame in FRAMES])).numpy()
    np.testing.assert_allclose(position(clip.poses)[0], places[0], atol=1e-6)
    np.testing.assert_allclose(position(clip.poses)[1:],
                               places[1:] * 0.75 + places[:-1] * 0.25, atol=1e-4)
    with pytest.raises(ClipError, match='no pose within 0.005 s of any picture; give more --slop'):
        read_clip(folder, topics={'pose': topic}, slop=0.005)


def test_stamps_within_the_slop(messages: Messages, tmp_path: Path) -> None:
    for topic, milliseconds in ((DISPARITY, 15), (POINTS, -19), (CAMERA_INFO, 8)):
        messages = shifted(messages, topic, milliseconds * MILLISECOND)
    same_frames(read_clip(record(tmp_path / 'bag', messages)))


def test_disparity_belongs_to_the_nearest_picture_only(messages: Messages,
                                                       tmp_path: Path) -> None:
    """However large the slop is."""
    kept = (FRAMES[1].stamp, FRAMES[4].stamp)
    folder = record(tmp_path / 'bag', shifted(
        [row for row in messages if row[0] != DISPARITY or row[1] in kept],
        DISPARITY, 15 * MILLISECOND))
    for slop in (0.02, 10):
        frames = list(read_clip(folder, slop=slop).frames)
        assert [number for number, frame in enumerate(frames)
                if frame.disparity is not None] == [1, 4]
        np.testing.assert_allclose(frames[4].disparity, FRAMES[4].disparity, rtol=1e-5)
    assert all(frame.disparity is None for frame in read_clip(folder, slop=0.01).frames)


def test_pictures_before_the_first_pose_are_left_out(messages: Messages, tmp_path: Path) -> None:
    early = FRAMES[2].stamp
    clip = read_clip(record(tmp_path / 'bag', [
        row for row in messages if row[0] != POSE or row[1] >= early]))
    assert clip.stamps[0] == clip.frames[0].stamp == early
    assert len(clip.frames) == 4
    np.testing.assert_allclose(clip.frames[0].disparity, FRAMES[2].disparity, rtol=1e-5)
    assert '2 of 6 pictures are left out' in clip.notes[0]


def test_one_camera_info_is_for_all(messages: Messages, tmp_path: Path) -> None:
    first = next(row for row in messages if row[0] == CAMERA_INFO)
    same_frames(read_clip(record(tmp_path / 'bag', [first, *without(messages, CAMERA_INFO)])))


def test_pictures_that_come_out_of_order(messages: Messages, tmp_path: Path) -> None:
    pictures = [row for row in messages if row[0] == IMAGE]
    late = iter(np.array(pictures, object)[[1, 0, 2, 5, 3, 4]].tolist())
    same_frames(read_clip(record(tmp_path / 'bag', [
        row if row[0] != IMAGE else (IMAGE, row[1], next(late)[2]) for row in messages])))


@pytest.mark.parametrize('killed', [True, False])
def test_bag_of_the_recorder(killed: bool, messages: Messages, tmp_path: Path) -> None:
    """Of a flight: no index if its program was killed, no tf, plain pictures."""
    kept = without(messages, '/tf', '/tf_static', CLIP_INFO)
    recorder = BagWriter(tmp_path / 'bag', {topic: content.__msgtype__
                                            for topic, _, content in kept})
    for stamp in sorted({time for _, time, _ in kept}):
        recorder.add(stamp, {
            topic: bytes(typestore().serialize_cdr(content, content.__msgtype__))
            for topic, time, content in kept if time == stamp})
    if not killed:
        recorder.close()
    clip = read_clip(tmp_path / 'bag')
    assert len(clip.frames) == 6
    np.testing.assert_allclose(clip.frames[4].disparity, FRAMES[4].disparity / 10, rtol=1e-5)


def test_other_readers_read_our_bags(bag: Path) -> None:
    with AnyReader([bag]) as reader:
        assert {connection.topic for connection in reader.connections} == {
            absolute_name(topic) for topic in TYPES}
        assert sum(1 for _ in reader.messages()) == 6 * 6 + 2
    if shutil.which('ros2'):
        done = subprocess.run(['ros2', 'bag', 'info', str(bag)], capture_output=True, text=True,
                              timeout=60, check=True)
        assert POINTS in done.stdout


def test_rclpy_reads_our_messages(bag: Path) -> None:
    kinds = set()
    with Reader(bag) as reader:
        for connection, _, data in reader.messages():
            package, _, name = connection.msgtype.split('/')
            if package == 'tf2_msgs':
                continue
            kind = getattr(importlib.import_module(f'{package}.msg'), name)
            got = deserialize_message(bytes(data), kind)
            expected = typestore().deserialize_cdr(data, connection.msgtype)
            if name == 'String':
                assert got.data == INFO.to_json()
            else:
                assert got.header.stamp.nanosec == expected.header.stamp.nanosec
            if hasattr(got, 'data') and name != 'String':
                assert bytes(got.data) == expected.data.tobytes()
            kinds.add(name)
    assert kinds == {'CompressedImage', 'CameraInfo', 'PoseStamped', 'Image', 'PointCloud2',
                     'String'}


def test_bags_are_found(bag: Path, messages: Messages, tmp_path: Path) -> None:
    for name in ('b/clip', 'a/deep/clip', '.b.partial/clip'):
        shutil.copytree(bag, tmp_path / name)
    (tmp_path / 'c.mcap').touch()
    (tmp_path / '.d.mcap').touch()
    (tmp_path / 'notes.txt').touch()
    expected = [tmp_path / name for name in ('a/deep/clip', 'b/clip', 'c.mcap')]
    assert find_clips([tmp_path]) == find_clips([tmp_path, tmp_path / 'b' / 'clip']) == expected
    (tmp_path / 'empty').mkdir()
    for path, text in ((tmp_path / 'empty', 'no bag in'), (tmp_path / 'gone', 'does not exist')):
        with pytest.raises(ClipError, match=text):
            find_clips([path])


def _file_of(folder: Path) -> Path:
    return next(path for path in folder.iterdir() if path.suffix in ('.mcap', '.db3'))


def _cut(folder: Path) -> None:
    path = _file_of(folder)
    path.write_bytes(path.read_bytes()[:-path.stat().st_size // 3])


def _cut_footer(folder: Path) -> None:
    path = _file_of(folder)
    path.write_bytes(path.read_bytes()[:-20])


def _scribble(folder: Path) -> None:
    path = _file_of(folder)
    data = bytearray(path.read_bytes())
    data[len(data) // 3:len(data) // 3 + 64] = bytes(64)
    path.write_bytes(data)


@pytest.mark.parametrize(('damage', 'text'), [
    (_cut, 'cut short'), (_cut_footer, 'cut short'), (_scribble, 'damaged'),
    (lambda folder: _file_of(folder).write_bytes(b''), 'cut short'),
    (lambda folder: _file_of(folder).unlink(), 'missing'),
    (lambda folder: (folder / 'metadata.yaml').unlink(), 'ros2 bag reindex'),
    (lambda folder: (folder / 'metadata.yaml').write_text('{'), 'damaged'),
    (lambda folder: (folder / 'metadata.yaml').write_text('a: 1'), 'damaged'),
])
@pytest.mark.parametrize('storage', StoragePlugin)
def test_damaged_bag(storage: StoragePlugin, damage: Callable[[Path], Any], text: str,
                     messages: Messages, tmp_path: Path) -> None:
    folder = record(tmp_path / 'bag', messages, storage)
    if damage in (_cut_footer, _scribble) and storage is StoragePlugin.SQLITE3:
        # Its pages lie elsewhere; the cut is the test.
        damage, text = _cut, 'cut short'
    damage(folder)
    with pytest.raises(ClipError, match=text) as caught:
        read_clip(folder)
    assert str(folder) in str(caught.value)


def _change(topic: str, **values: Any) -> Callable[[Messages], Messages]:
    """Set fields, also inner ones (``pose__position__x``), of the third message of a topic."""
    def change(messages: Messages) -> Messages:
        content = [row[2] for row in messages if row[0] == topic][2]
        for name, value in values.items():
            *path, last = name.split('__')
            inner = content
            for part in path:
                inner = getattr(inner, part)
            setattr(inner, last, value)
        return messages
    return change


def _second_camera(messages: Messages) -> Messages:
    return [*messages, *(('/cam1/image_raw/compressed', time, content)
                         for topic, time, content in messages if topic == IMAGE)]


def _without_pose_in_the_middle(messages: Messages) -> Messages:
    return [row for row in messages if row[0] != POSE or row[1] != FRAMES[3].stamp]


@pytest.mark.parametrize(('change', 'text'), [
    (lambda messages: without(messages, IMAGE), 'no pictures'),
    (lambda messages: without(messages, CAMERA_INFO), 'no camera_info'),
    (lambda messages: without(messages, POSE, '/tf', '/tf_static'), 'no poses: neither'),
    (lambda messages: without(messages, POSE, '/tf_static'), 'no poses: the transforms'),
    (lambda messages: messages[:2], 'no pictures'),
    (_without_pose_in_the_middle, '1 of 6 pictures have no pose .* --slop'),
    (_second_camera, r'2 topics can be the image.*--topics image /cam1'),
    (_change(POSE, pose__position__x=float('nan')), 'NaN'),
    (_change(POSE, pose__orientation__x=0.9), 'quaternion'),
    (_change(CAMERA_INFO, k=np.zeros(9)), 'not calibrated'),
    (_change(IMAGE, data=np.zeros(9, np.uint8), format='h264'), "'h264'; give JPEG or PNG"),
    (_change(DISPARITY, encoding='16UC1'), '32FC1'),
    (_change(IMAGE, header__stamp__nanosec=0, header__stamp__sec=FRAMES[0].stamp // 10**9),
     'share stamps'),
    (_change(POINTS, fields=[]), 'no float32 fields'),
])
def test_bag_that_is_no_clip(change: Callable[[Messages], Messages], text: str,
                             messages: Messages, tmp_path: Path) -> None:
    bag = record(tmp_path / 'bag', change(messages))
    with pytest.raises(ClipError, match=text) as caught:
        list(read_clip(bag).frames)
    assert str(bag) in str(caught.value)


def test_unknown_encoding(messages: Messages, tmp_path: Path) -> None:
    plain = (('/camera/image_raw', time, message(
        'sensor_msgs/msg/Image', header=content.header, height=2, width=2, step=4, is_bigendian=0,
        encoding='yuv422_yuy2', data=np.zeros(8, np.uint8)))
        for topic, time, content in messages if topic == IMAGE)
    with pytest.raises(ClipError, match="'yuv422_yuy2' is not known; send one of rgb8"):
        read_clip(record(tmp_path / 'bag', [*without(messages, IMAGE), *plain]))


def test_damaged_clip_info(messages: Messages, tmp_path: Path) -> None:
    for topic, _, content in messages:
        if topic == CLIP_INFO:
            content.data = '{"source": 1'
    with pytest.raises(ClipError, match='clip_info is'):
        read_clip(record(tmp_path / 'bag', messages))


@pytest.mark.parametrize(('topics', 'text'), [
    ({'picture': IMAGE}, "'picture'; give one of image"),
    ({'image': '/gone'}, f'not in the bag; give one of {IMAGE}|{DISPARITY}'),
    ({'points': IMAGE}, f'give one of {POINTS}'),
])
def test_topics_that_cannot_be(topics: dict[str, str], text: str, bag: Path) -> None:
    with pytest.raises(ClipError, match=text):
        read_clip(bag, topics=topics)


def test_a_bag_that_is_no_clip_is_skipped_with_a_line(bag: Path, messages: Messages,
                                                      tmp_path: Path) -> None:
    record(tmp_path / 'a', without(messages, POSE, '/tf'))
    shutil.copytree(bag, tmp_path / 'b')
    lines: list[str] = []
    clips: Iterator[Any] = read_clips([tmp_path], skipped=lines.append)
    assert [clip.name for clip in clips] == ['b']
    line, = lines
    assert 'skipped' in line
    assert 'no poses' in line
    with pytest.raises(ClipError, match='no poses'):
        list(read_clips([tmp_path], strict=True))
    with pytest.warns(UserWarning, match='no poses'):
        list(read_clips([tmp_path]))


_WITHOUT_ROS = """
import sys
class NoROS:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('rclpy', 'sensor_msgs', 'geometry_msgs', 'std_msgs', 'nav_msgs'):
            raise ImportError(f'{name} is ROS')
sys.meta_path.insert(0, NoROS())
from infinite_nature_training.bags.check import check_clip
from infinite_nature_training.bags.summary import facts
from infinite_nature_training.bags import read_clip
assert check_clip(sys.argv[1]).passes(strict=True)
print(facts(read_clip(sys.argv[1]))['source'])
"""


def test_bags_need_no_ros(bag: Path) -> None:
    done = subprocess.run([sys.executable, '-c', _WITHOUT_ROS, str(bag)], capture_output=True,
                          text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert INFO.source in done.stdout
