"""The nodes, in this process: what they publish, which commands they fly, what they refuse."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import io
import math
import os
from pathlib import Path as FilePath
import sys
from types import SimpleNamespace
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import Pose, PoseStamped, Quaternion, TwistStamped
from nav_msgs.msg import Path
import numpy as np
import PIL.Image
import pytest
from rcl_interfaces.srv import SetParameters
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from ros_probe import FRAME_TOPICS, isolated_ros, overrides, Probe, SIZE
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_msgs.msg import Header
from std_srvs.srv import SetBool, Trigger

from infinite_nature_ros.nodes import frame_publisher, messages, transport
from infinite_nature_ros.nodes.autopilot_node import AutopilotNode
from infinite_nature_ros.nodes.generator_node import GeneratorNode
from infinite_nature_ros.nodes.parameters import GENERATOR_PARAMETERS
from infinite_nature_ros.nodes.transforms import TransformBroadcaster

ROOT = FilePath(__file__).resolve().parents[1]
SUCCESS = TransitionCallbackReturn.SUCCESS


@pytest.fixture(scope='module', autouse=True)
def ros() -> Iterator[None]:
    with isolated_ros():
        yield


class Stage:
    """Nodes that run in this process beside a probe."""

    def __init__(self) -> None:
        self.probe = Probe()
        self.nodes: list[LifecycleNode] = []

    def add(self, node: LifecycleNode, start: bool = True) -> Any:
        self.nodes.append(node)
        self.probe.executor_.add_node(node)
        if start:
            assert node.trigger_configure() == SUCCESS
            assert node.trigger_activate() == SUCCESS
        return node

    def close(self) -> None:
        for node in (*self.nodes, self.probe):
            self.probe.executor_.remove_node(node)
            node.destroy_node()


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    stage.close()


def fly(stage: Stage, photo: str, **parameters: Any) -> Probe:
    """Start a generator and wait for its first frame and for it to listen."""
    stage.add(GeneratorNode(parameter_overrides=overrides(
        image=photo, seed=1, **{**SIZE, **parameters})))
    stage.probe.wait_for_frames(1)
    stage.probe.spin_until(stage.probe.command.get_subscription_count)
    return stage.probe


def pixels(frame: dict[str, Any], topic: str) -> np.ndarray:
    return messages.image_array(frame[topic])


def test_frame_set(stage: Stage, photo: str) -> None:
    probe = fly(stage, photo)
    # To the left as well, so that something comes into view.
    probe.send((0.2, 0.2, 0.0))
    probe.wait_for_frames(2)
    first, second = probe.frame(0), probe.frame(1)
    for frame in (first, second):
        assert len({messages.stamp_of(message) for message in frame.values()}) == 1
        images = [frame[topic] for topic, kind in FRAME_TOPICS.items() if kind is Image]
        assert {(image.height, image.width) for image in images} == {(64, 96)}
        assert {message.header.frame_id for message in (*images, frame['camera/camera_info'])} == {
            'camera_optical_frame'}
        disparity = pixels(frame, 'camera/disparity/image')
        depth = pixels(frame, 'camera/depth/image_rect')
        sky = np.isinf(depth)
        assert 0.2 < sky.mean() < 0.8
        assert sky[0].all()
        assert not sky[-1].any()
        assert depth[~sky] == pytest.approx(1 / disparity[~sky], rel=1e-6)
        assert disparity[sky] == pytest.approx(0.01, rel=1e-3)
        assert frame['camera/camera_info'] == frame['camera/depth/camera_info']
        assert frame['camera/camera_info'].k[2] == pytest.approx(47.5)
        assert frame['camera/image_raw'].encoding == 'rgb8'
    assert messages.stamp_of(second['pose']) > messages.stamp_of(first['pose'])
    assert (pixels(first, 'camera/known/image') == 255).all()
    assert set(np.unique(pixels(second, 'camera/known/image'))) == {0, 255}
    assert len(second['path'].poses) == 2


def test_odometry_is_what_the_poses_say(stage: Stage, photo: str) -> None:
    probe = fly(stage, photo, scene_scale=10.0)
    turned = Pose(orientation=Quaternion(w=math.cos(0.1), z=math.sin(0.1)))
    turned.position.x = 2.0
    for pose in (Pose(), turned):
        probe.command.publish(PoseStamped(header=Header(frame_id='map'), pose=pose))
    probe.wait_for_frames(3)
    before, after = probe.frame(1)['odom'], probe.frame(2)['odom']
    assert (after.header.frame_id, after.child_frame_id) == ('odom', 'base_link')
    assert messages.same_pose(after.pose.pose, turned, 1e-3)
    assert messages.same_pose(after.pose.pose, probe.frame(2)['pose'].pose, 1e-9)
    seconds = ((after.header.stamp.sec - before.header.stamp.sec)
               + (after.header.stamp.nanosec - before.header.stamp.nanosec) * 1e-9)
    linear, angular = after.twist.twist.linear, after.twist.twist.angular
    # Forward in map, seen from a drone that has turned left by 0.2 radians.
    assert [linear.x * seconds, linear.y * seconds, linear.z * seconds] == pytest.approx(
        [2 * math.cos(0.2), -2 * math.sin(0.2), 0], abs=1e-4)
    assert [angular.x * seconds, angular.y * seconds, angular.z * seconds] == pytest.approx(
        [0, 0, 0.2], abs=1e-4)
    assert probe.frame(0)['odom'].twist.twist.linear.x == 0


def test_every_pose_is_flown_once_and_in_order(stage: Stage, photo: str) -> None:
    probe = fly(stage, photo)
    poses = [(0.1 * step, 0.02 * step, 0.0) for step in range(1, 13)]
    probe.send(*poses)
    probe.wait_for_frames(13)
    probe.spin_for(0.3)
    assert probe.places()[1:] == [pytest.approx(pose, abs=1e-5) for pose in poses]
    stages = {value.key for value in probe.received['/diagnostics'][-1].status[0].values}
    assert {'render (ms)', 'refine (ms)', 'publish (ms)'} <= stages


def test_latest_follows_the_newest_pose(stage: Stage, photo: str) -> None:
    probe = fly(stage, photo, command_mode='latest')
    generator = stage.nodes[0]
    probe.executor_.remove_node(generator)  # a step that takes long, as far as commands can tell
    poses = [(0.01 * step, 0.0, 0.0) for step in range(1, 31)]
    probe.send(*poses)
    probe.spin_for(0.3)
    probe.executor_.add_node(generator)
    probe.spin_until(lambda: probe.places()[-1] == pytest.approx(poses[-1], abs=1e-5))
    assert len(probe.places()) <= 3


def test_repeated_command_is_flown_once(stage: Stage, photo: str) -> None:
    probe = fly(stage, photo)
    sent, = probe.send((0.1, 0.0, 0.0))
    for _ in range(3):
        probe.command.publish(sent)
    probe.wait_for_frames(2)
    probe.command.publish(sent)
    probe.spin_for(0.3)
    assert len(probe.places()) == 2
    unstamped = PoseStamped(header=Header(frame_id='map'), pose=sent.pose)
    probe.command.publish(unstamped)
    probe.command.publish(unstamped)
    probe.wait_for_frames(4)


def _with(command: PoseStamped, **changes: Any) -> PoseStamped:
    for path, value in changes.items():
        *parents, name = path.split('__')
        target = command
        for parent in parents:
            target = getattr(target, parent)
        setattr(target, name, value)
    return command


@pytest.mark.parametrize(('changes', 'fix'), [
    ({'pose__position__x': math.nan}, 'give finite numbers'),
    ({'pose__position__y': math.inf}, 'give finite numbers'),
    ({'pose__position__z': 1e300}, 'give finite numbers'),
    ({'pose__position__z': 1e6}, 'max_jump'),
    ({'pose__orientation__w': 0.0}, 'zero quaternion'),
    ({'header__frame_id': 'odom'}, "pose in 'map'"),
    ({'header__frame_id': ''}, "pose in 'map'"),
])
def test_bad_command_is_refused_and_the_node_lives(
        stage: Stage, photo: str, changes: dict, fix: str,
        capfd: pytest.CaptureFixture) -> None:
    probe = fly(stage, photo)
    probe.command.publish(_with(PoseStamped(header=Header(frame_id='map')), **changes))
    probe.send((0.1, 0.0, 0.0))
    probe.wait_for_frames(2)
    probe.spin_for(0.1)
    assert len(probe.places()) == 2
    warnings = [line for line in capfd.readouterr().err.splitlines() if 'refused' in line]
    assert len(warnings) == 1
    assert fix in warnings[0]


def test_pause_step_and_reset(stage: Stage, photo: str) -> None:
    probe = fly(stage, photo)
    first = probe.frame(0)
    refused = probe.call(Trigger, 'generator/step')
    assert not refused.success
    assert 'pause' in refused.message
    assert probe.call(SetBool, 'generator/pause', data=True).success
    empty = probe.call(Trigger, 'generator/step')
    assert not empty.success
    assert 'no pose waits' in empty.message
    probe.send((0.1, 0.0, 0.0), (0.2, 0.0, 0.0), (0.3, 0.0, 0.0))
    probe.spin_for(0.3)
    assert len(probe.places()) == 1
    assert probe.call(Trigger, 'generator/step').success
    probe.wait_for_frames(2)
    probe.spin_for(0.2)
    assert len(probe.places()) == 2
    assert probe.call(SetBool, 'generator/pause', data=False).success
    probe.wait_for_frames(4)

    assert probe.call(Trigger, 'generator/reset').success
    probe.wait_for_frames(5)
    again = probe.frame(4)
    assert again['camera/image_raw'].data == first['camera/image_raw'].data
    assert again['pose'].pose == first['pose'].pose
    assert len(again['path'].poses) == 1
    assert messages.stamp_of(again['pose']) > messages.stamp_of(probe.frame(3)['pose'])


def test_reset_flies_the_same_again(stage: Stage, photo: str) -> None:
    probe = fly(stage, photo)
    for count in (1, 4):
        probe.send((0.2, 0.0, 0.0), (0.4, 0.1, 0.0))
        probe.wait_for_frames(count + 2)
        if count == 1:
            probe.call(Trigger, 'generator/reset')
            probe.wait_for_frames(4)
    assert probe.frame(2)['camera/image_raw'].data == probe.frame(5)['camera/image_raw'].data


def test_trajectory_is_flown_pose_by_pose(stage: Stage, photo: str) -> None:
    probe = fly(stage, photo, rate=50.0)
    publisher = probe.create_publisher(Path, 'command_trajectory', 1)
    probe.spin_until(publisher.get_subscription_count)
    poses = [PoseStamped() for _ in range(5)]
    for number, pose in enumerate(poses):
        pose.pose.position.x = 0.1 * number
    publisher.publish(Path(header=Header(frame_id='map'), poses=poses))
    probe.wait_for_frames(6)
    probe.spin_for(0.2)
    assert [place[0] for place in probe.places()[1:]] == pytest.approx(
        [0, 0.1, 0.2, 0.3, 0.4], abs=1e-5)
    poses[3].pose.position.x = math.nan
    publisher.publish(Path(header=Header(frame_id='map'), poses=poses))
    probe.spin_for(0.3)
    assert len(probe.places()) == 6


def test_scale_changes_metres_only(stage: Stage, photo: str) -> None:
    frames = []
    for scale in (1.0, 10.0):
        own = Stage()
        probe = fly(own, photo, scene_scale=scale)
        probe.send(*[(0.15 * step * scale, 0.03 * step * scale, 0.0) for step in range(1, 7)])
        probe.wait_for_frames(7)
        frames.append([probe.frame(number) for number in range(7)])
        own.close()
    for metre, ten in zip(*frames, strict=True):
        for topic in ('camera/image_raw', 'camera/known/image', 'camera/camera_info'):
            assert getattr(metre[topic], 'data', None) == getattr(ten[topic], 'data', None)
        assert np.allclose(pixels(ten, 'camera/depth/image_rect'),
                           10 * pixels(metre, 'camera/depth/image_rect'), rtol=1e-6)
        assert np.allclose(10 * pixels(ten, 'camera/disparity/image'),
                           pixels(metre, 'camera/disparity/image'), rtol=1e-6)
        assert ten['pose'].pose.position.x == pytest.approx(10 * metre['pose'].pose.position.x)


def _image(colour: tuple[int, int, int], stamp: int = 0, **size: int) -> Image:
    height, width = size.get('height', 80), size.get('width', 120)
    message = messages.image_message(np.full((height, width, 3), colour), 'bgr8', Header())
    message.header.stamp.sec = stamp
    return message


def test_seed_image_starts_over(stage: Stage, photo: str,
                                capfd: pytest.CaptureFixture) -> None:
    probe = fly(stage, photo)
    seed = probe.create_publisher(Image, 'seed_image', 1)
    probe.spin_until(seed.get_subscription_count)
    probe.send((0.2, 0.0, 0.0))
    probe.wait_for_frames(2)
    seed.publish(_image((200, 100, 50)))
    probe.wait_for_frames(3)
    frame = probe.frame(2)
    assert pixels(frame, 'camera/image_raw').reshape(-1, 3).mean(0) == pytest.approx(
        [50, 100, 200], abs=2)
    assert len(frame['path'].poses) == 1

    bad = _image((1, 2, 3))
    bad.encoding = 'bayer_rggb8'
    for message in (bad, _image((1, 2, 3), height=8, width=8)):
        seed.publish(message)
        probe.spin_for(0.2)
        assert 'refused' in capfd.readouterr().err
    probe.send((0.2, 0.0, 0.0))
    probe.wait_for_frames(4)
    assert len(probe.places()) == 4


@pytest.mark.parametrize('disparity_first', [True, False])
def test_seed_disparity_of_the_same_stamp_is_taken(stage: Stage, photo: str,
                                                   disparity_first: bool) -> None:
    probe = fly(stage, photo, scene_scale=2.0, sky=False)
    seeds = {topic: probe.create_publisher(Image, topic, 1)
             for topic in ('seed_image', 'seed_disparity')}
    for publisher in seeds.values():
        probe.spin_until(publisher.get_subscription_count)
    disparity = messages.image_message(np.full((80, 120), 0.125), '32FC1', Header())
    disparity.header.stamp.sec = 7
    pair = [('seed_image', _image((200, 100, 50), stamp=7)), ('seed_disparity', disparity)]
    for topic, message in reversed(pair) if disparity_first else pair:
        seeds[topic].publish(message)
        probe.spin_for(0.2)

    def shown() -> np.ndarray:
        return messages.image_array(probe.received['camera/disparity/image'][-1])

    probe.spin_until(lambda: np.allclose(shown(), 0.125, rtol=1e-5))


@pytest.mark.parametrize('info_first', [True, False])
def test_seed_camera_info_of_the_same_stamp_is_taken(stage: Stage, photo: str, info_first: bool,
                                                     capfd: pytest.CaptureFixture) -> None:
    probe = fly(stage, photo)
    seeds = {topic: probe.create_publisher(kind, topic, 1)
             for topic, kind in (('seed_image', Image), ('seed_camera_info', CameraInfo))}
    for publisher in seeds.values():
        probe.spin_until(publisher.get_subscription_count)
    # The crop to 96 x 64 takes the middle 120 of 200 columns, at 0.8 of their size.
    info = CameraInfo(width=200, height=80)
    info.k[0], info.k[2], info.k[4], info.k[5] = 150.0, 104.5, 160.0, 39.5
    info.header.stamp.sec = 7
    pair = [('seed_image', _image((200, 100, 50), stamp=7, width=200)), ('seed_camera_info', info)]
    for topic, message in reversed(pair) if info_first else pair:
        seeds[topic].publish(message)
        probe.spin_for(0.2)

    def shown() -> list[float]:
        return list(probe.received['camera/camera_info'][-1].k)

    wanted = [120.0, 0, (104.5 - 40 + 0.5) * 0.8 - 0.5, 0, 128.0, 31.5, 0, 0, 1]
    probe.spin_until(lambda: shown() == pytest.approx(wanted, rel=1e-5))
    info.width = 100
    seeds['seed_camera_info'].publish(info)
    probe.spin_for(0.3)
    assert 'calibration of this image' in capfd.readouterr().err
    assert shown() == pytest.approx(wanted, rel=1e-5)


def test_parameters_are_described_and_validated(stage: Stage, photo: str) -> None:
    probe = fly(stage, photo)
    generator = stage.nodes[0]
    for parameter in GENERATOR_PARAMETERS:
        assert generator.describe_parameter(parameter.name).description == parameter.description

    def set_parameter(name: str, value: Any) -> Any:
        message = Parameter(name, value=value).to_parameter_msg()
        return probe.call(SetParameters, 'generator/set_parameters',
                          parameters=[message]).results[0]

    assert set_parameter('rate', 25.0).successful
    for name, value in (('rate', 0.0), ('rate', math.nan), ('seed', -2), ('scene_scale', 2.0)):
        result = set_parameter(name, value)
        assert not result.successful
        assert result.reason


def _listen(probe: Probe, kind: type, topic: str, qos: Any = 10) -> list[Any]:
    got: list[Any] = []
    probe.create_subscription(kind, topic, got.append, qos)
    return got


def test_compressed_image_is_the_image(stage: Stage, photo: str) -> None:
    probe = fly(stage, photo)
    sizes = []
    got = _listen(probe, CompressedImage, 'camera/image_raw/compressed')
    for count, quality in ((1, 95), (2, 20)):
        stage.nodes[0].set_parameters([Parameter('jpeg_quality', value=quality)])
        if count == 2:
            probe.send((0.2, 0.0, 0.0))
        probe.spin_until(lambda count=count: len(got) == count)
        probe.wait_for_frames(count)
        raw = probe.received['camera/image_raw'][-1]
        assert got[-1].header == raw.header
        assert got[-1].format == 'rgb8; jpeg compressed bgr8'
        decoded = np.asarray(PIL.Image.open(io.BytesIO(bytes(got[-1].data))), dtype=float)
        assert np.abs(decoded - messages.image_array(raw)).mean() < 20
        sizes.append(len(got[-1].data))
    assert sizes[1] < 0.7 * sizes[0]


def test_points_are_where_the_depth_says(stage: Stage, photo: str) -> None:
    probe = fly(stage, photo, scene_scale=10.0)
    got = _listen(probe, PointCloud2, 'camera/points')
    probe.spin_until(lambda: got)
    cloud, frame = got[-1], probe.frame(0)
    assert cloud.header == frame['camera/image_raw'].header
    assert [(field.name, field.offset) for field in cloud.fields] == [
        ('x', 0), ('y', 4), ('z', 8), ('rgb', 12)]
    values = np.frombuffer(cloud.data, np.float32).reshape(-1, 4)
    depth = pixels(frame, 'camera/depth/image_rect')
    rows, columns = np.nonzero(np.isfinite(depth))
    assert (cloud.height, cloud.width, cloud.is_dense) == (1, len(rows), True)
    assert values[:, 2] == pytest.approx(depth[rows, columns], rel=1e-6)
    k = np.array(frame['camera/camera_info'].k).reshape(3, 3)
    seen = k @ values[:, :3].T.astype(float)
    assert seen[0] / seen[2] == pytest.approx(columns, abs=1e-3)
    assert seen[1] / seen[2] == pytest.approx(rows, abs=1e-3)
    colours = np.frombuffer(cloud.data, np.uint8).reshape(-1, 16)[:, 14:11:-1]
    assert np.array_equal(colours, pixels(frame, 'camera/image_raw')[rows, columns])


def test_only_what_is_heard_is_made(stage: Stage, photo: str,
                                    monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def counting(topic: str, make: Any) -> Any:
        return lambda view: (made.append(topic), make(view))[1]

    monkeypatch.setattr(frame_publisher, '_MESSAGES', {
        topic: (kind, counting(topic, make))
        for topic, (kind, make) in frame_publisher._MESSAGES.items()})
    stage.probe.destroy_node()
    stage.probe.executor_.remove_node(stage.probe)
    generator = stage.add(GeneratorNode(parameter_overrides=overrides(image=photo, **SIZE)))
    listener = stage.probe = rclpy.create_node('listener', namespace='infinite_nature')
    listener.executor_ = SingleThreadedExecutor()
    listener.executor_.add_node(listener)
    listener.executor_.add_node(generator)
    command = listener.create_publisher(PoseStamped, 'command_pose', 1)

    def spin_until(done: Any) -> None:
        Probe.spin_until(listener, done)

    spin_until(command.get_subscription_count)
    for x in (0.1, 0.2):
        forward = PoseStamped(header=Header(frame_id='map'))
        forward.pose.position.x = x
        command.publish(forward)
    spin_until(lambda: generator.get_parameter('rate') and len(generator._frames.path) == 3)
    assert made == []
    # Whoever comes late sees what is to be seen now, with one stamp, and once.
    got: dict[str, list] = {}
    for topic in ('camera/image_raw', 'pose'):
        got[topic] = _listen(listener, frame_publisher.TOPICS[topic], topic)
        spin_until(lambda topic=topic: got[topic])
    Probe.spin_for(listener, 0.2)
    assert sorted(made) == ['camera/image_raw', 'pose']
    assert got['camera/image_raw'][0].header.stamp == got['pose'][0].header.stamp
    assert got['pose'][0].pose.position.x == pytest.approx(0.2)


def _last_picture(photo: str, *poses: tuple[float, float, float], **parameters: Any
                  ) -> np.ndarray:
    """What a generator shows after poses."""
    with contextlib.closing(Stage()) as stage:
        probe = fly(stage, photo, **parameters)
        probe.send(*poses)
        probe.wait_for_frames(1 + len(poses))
        return pixels(probe.frame(len(poses)), 'camera/image_raw')


def test_interpolated_frames_come_between(photo: str, request: pytest.FixtureRequest) -> None:
    plain = _last_picture(photo, (0.2, 0.0, 0.0), initial_attitude='given')
    stage = request.getfixturevalue('stage')  # only now: its probe would have heard the other
    probe = fly(stage, photo, interpolate=3, publish_clock=True, rate=2.0,
                initial_attitude='given')
    probe.send((0.2, 0.0, 0.0))
    probe.wait_for_frames(5)
    assert [place[0] for place in probe.places()] == pytest.approx(
        [0, 0.05, 0.1, 0.15, 0.2], abs=1e-5)
    stamps = [sec + nanosec * 1e-9 for sec, nanosec in probe.stamps('camera/image_raw')]
    assert stamps == pytest.approx([0.5, 0.625, 0.75, 0.875, 1.0])
    assert [message.twist.twist.linear.x for message in probe.received['odom'][1:]] == (
        pytest.approx([0.4] * 4, rel=1e-3))
    assert len(probe.received['path'][-1].poses) == 5
    between = [pixels(probe.frame(number), 'camera/image_raw') for number in range(5)]
    assert all((one != other).any() for one, other in zip(between, between[1:], strict=False))
    assert (between[4] == plain).all()  # the flight itself is the same as without


def test_lock_step_holds_with_interpolation(stage: Stage, photo: str) -> None:
    probe = fly(stage, photo, interpolate=2)
    commands = _listen(probe, PoseStamped, 'command_pose', 100)
    stage.add(AutopilotNode(parameter_overrides=overrides(answer_timeout=20.0)))
    probe.wait_for_frames(1 + 3 * 6)
    assert len({messages.stamp_of(command) for command in commands}) == len(commands)
    flown = [pose.pose for pose in probe.received['pose'][3::3]]
    for pose, command in zip(flown, commands, strict=False):
        assert messages.same_pose(pose, command.pose, 1e-4)


def test_saved_flight_goes_on_exactly(photo: str, tmp_path: FilePath,
                                      request: pytest.FixtureRequest) -> None:
    poses = [(0.2, 0.0, 0.0), (0.4, 0.1, 0.0), (0.5, 0.1, 0.0), (0.7, 0.1, 0.0)]
    unbroken = _last_picture(photo, *poses)
    stage = request.getfixturevalue('stage')  # only now: its probe would have heard the other
    probe = fly(stage, photo, state_file=str(tmp_path / 'flight.state'), path_length=3)
    sent = probe.send(*poses[:3])
    probe.wait_for_frames(4)
    first = stage.nodes.pop()
    probe.executor_.remove_node(first)
    first.destroy_node()
    probe.spin_until(lambda: not probe.command.get_subscription_count())
    fly(stage, photo, state_file=str(tmp_path / 'flight.state'), path_length=3)
    probe.wait_for_frames(5)
    before, after = probe.frame(3), probe.frame(4)
    for topic in ('camera/image_raw', 'camera/disparity/image', 'camera/known/image'):
        assert before[topic].data == after[topic].data
    assert before['pose'].pose == after['pose'].pose
    assert messages.stamp_of(after['pose']) > messages.stamp_of(before['pose'])
    assert after['path'].poses[:2] == before['path'].poses[1:]
    probe.command.publish(sent[-1])  # its sender, which has missed the answer, sends it again
    probe.spin_for(0.3)
    assert len(probe.places()) == 5
    probe.send(poses[3])
    probe.wait_for_frames(6)
    assert (pixels(probe.frame(5), 'camera/image_raw') == unbroken).all()


def test_camera_mounting_parts_drone_and_camera(stage: Stage, photo: str) -> None:
    probe = fly(stage, photo, camera_x=0.5, camera_z=-0.1, camera_pitch=math.radians(90),
                initial_attitude='given', frame_prefix='drone1/')
    probe.send((3.0, 0.0, 1.0))
    probe.spin_for(0.3)
    assert len(probe.places()) == 1  # its frame is map, not drone1/map
    for yaw in (0.0, math.radians(90)):
        command = PoseStamped(header=Header(frame_id='drone1/map'))
        command.pose.position.x, command.pose.position.z = 0.3, 1.0
        # Nose down after the turn: the drone below the camera is level.
        turn = Quaternion(w=math.cos(yaw / 2), z=math.sin(yaw / 2))
        half = math.sqrt(0.5)
        command.pose.orientation = Quaternion(w=turn.w * half, x=-turn.z * half, y=turn.w * half,
                                              z=turn.z * half)
        probe.command.publish(command)
    probe.wait_for_frames(3)
    places = [probe.frame(number)['odom'].pose.pose for number in (1, 2)]
    # The camera hangs 0.5 m ahead of the drone's middle and 0.1 m below it.
    for place, (x, y) in zip(places, ((-0.2, 0.0), (0.3, -0.5)), strict=True):
        assert [place.position.x, place.position.y, place.position.z] == pytest.approx(
            [x, y, 1.1], abs=1e-4)
        assert abs(place.orientation.x) + abs(place.orientation.y) < 1e-4
    assert places[1].orientation.z == pytest.approx(math.sqrt(0.5), abs=1e-4)
    frame = probe.frame(2)
    assert {frame[topic].header.frame_id for topic in ('odom', 'pose', 'path', 'camera/image_raw')
            } == {'drone1/odom', 'drone1/map', 'drone1/camera_optical_frame'}
    assert frame['odom'].child_frame_id == 'drone1/base_link'
    # Between the last two frames the drone turned left about an axis that is not its own.
    twist = frame['odom'].twist.twist
    assert twist.angular.z > 0
    assert abs(twist.angular.x) + abs(twist.angular.y) < 1e-3 * twist.angular.z


def test_clock_goes_on_with_the_frames(stage: Stage, photo: str) -> None:
    probe = fly(stage, photo, publish_clock=True, rate=20.0)
    told = _listen(probe, Clock, '/clock', QoSProfile(depth=100))
    probe.send((0.1, 0.0, 0.0), (0.2, 0.0, 0.0))
    probe.wait_for_frames(3)
    assert probe.call(Trigger, 'generator/reset').success
    probe.wait_for_frames(4)
    stamps = [sec + nanosec * 1e-9 for sec, nanosec in probe.stamps('pose')]
    assert stamps == pytest.approx([0.05, 0.1, 0.15, 0.2])
    moving = probe.frame(2)['odom'].twist.twist.linear.x
    assert moving == pytest.approx(0.1 / 0.05, rel=1e-3)
    count = len(told)
    probe.spin_until(lambda: len(told) > count + 2)  # it's told again while time stands still
    assert told[-1].clock == probe.frame(3)['pose'].header.stamp


def test_own_clock_and_simulated_time_contradict(stage: Stage, photo: str,
                                                 capfd: pytest.CaptureFixture) -> None:
    node = stage.add(GeneratorNode(parameter_overrides=overrides(
        image=photo, publish_clock=True, use_sim_time=True, **SIZE)), start=False)
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert 'set use_sim_time for the other nodes only' in capfd.readouterr().err


def test_rate_is_changed_under_way(stage: Stage, photo: str) -> None:
    probe = fly(stage, photo, rate=0.02)
    publisher = probe.create_publisher(Path, 'command_trajectory', 1)
    probe.spin_until(publisher.get_subscription_count)
    publisher.publish(Path(header=Header(frame_id='map'), poses=[PoseStamped()] * 3))
    probe.spin_for(0.5)
    assert len(probe.places()) == 1
    request = [Parameter('rate', value=50.0).to_parameter_msg()]
    assert probe.call(SetParameters, 'generator/set_parameters',
                      parameters=request).results[0].successful
    probe.wait_for_frames(4)


def test_quality_of_service_is_overridden_for_one_topic(stage: Stage, photo: str) -> None:
    topic = 'qos_overrides./infinite_nature/camera/image_raw.publisher'
    for _ in range(2):  # the second configuration finds the parameters declared
        generator = GeneratorNode(parameter_overrides=overrides(image=photo, **SIZE) + [
            Parameter(f'{topic}.reliability', value='best_effort'),
            Parameter(f'{topic}.depth', value=2)])
        stage.add(generator)
        assert generator.trigger_deactivate() == SUCCESS
        assert generator.trigger_cleanup() == SUCCESS
        assert generator.trigger_configure() == SUCCESS
    profiles = {name: stage.probe.get_publishers_info_by_topic(name)[0].qos_profile
                for name in ('camera/image_raw', 'camera/known/image')}
    assert profiles['camera/image_raw'].reliability == ReliabilityPolicy.BEST_EFFORT
    assert profiles['camera/known/image'].reliability == ReliabilityPolicy.RELIABLE


def test_too_slow_for_the_rate_is_a_warning(stage: Stage, photo: str) -> None:
    probe = fly(stage, photo, rate=1000.0)
    probe.send((0.1, 0.0, 0.0))
    probe.spin_until(lambda: any(message.status[0].level == DiagnosticStatus.WARN
                                 for message in probe.received['/diagnostics']))
    warned = next(message.status[0] for message in probe.received['/diagnostics']
                  if message.status[0].level == DiagnosticStatus.WARN)
    assert 'rate asks for 1e+03' in warned.message
    probe.spin_until(lambda: probe.received['/diagnostics'][-1].status[0].level
                     == DiagnosticStatus.OK)
    assert 'waiting' in probe.received['/diagnostics'][-1].status[0].message


@pytest.mark.parametrize(('size', 'profile', 'warned'), [
    ((160, 256), '', False), ((224, 224), '', True), ((224, 224), 'mine.xml', False)])
def test_large_images_are_warned_of(monkeypatch: pytest.MonkeyPatch, size: tuple[int, int],
                                    profile: str, warned: bool) -> None:
    monkeypatch.setenv('FASTRTPS_DEFAULT_PROFILES_FILE', profile)
    monkeypatch.setenv('FASTDDS_DEFAULT_PROFILES_FILE', '')
    said: list[str] = []
    transport.warn_if_too_large(SimpleNamespace(warning=said.append), *size)
    assert bool(said) == warned
    if warned:
        path = FilePath(said[0].rpartition(' ')[2])
        assert '<type>SHM</type>' in path.read_text()
    transport.allow_large_images(*size)
    chosen = os.environ['FASTRTPS_DEFAULT_PROFILES_FILE']
    assert chosen == (str(transport.LARGE_DATA_PROFILE) if warned else profile)


@pytest.mark.parametrize(('parameters', 'problem'), [
    ({'height': 100}, 'height'), ({'width': 'wide'}, 'width'), ({'scene_scale': 0.0}, 'scale'),
    ({'command_mode': 'newest'}, 'every, latest'), ({'fov': math.nan}, 'fov')])
def test_bad_start_parameters(parameters: dict, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        GeneratorNode(parameter_overrides=overrides(**parameters))


@pytest.mark.parametrize('parameters', [
    {'image': 'no_such_file.jpg'}, {'model': 'no_such_model'}, {'model': 'no_such.safetensors'},
    {'disparity': 'no_such_source'}, {'state_file': '/no_such_folder/flight.state'},
    {'device': 'abacus'}])
def test_failure_to_configure_is_clean(stage: Stage, photo: str, parameters: dict,
                                       capfd: pytest.CaptureFixture) -> None:
    node = stage.add(GeneratorNode(parameter_overrides=overrides(
        **{'image': photo, **SIZE, **parameters})), start=False)
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    errors = capfd.readouterr().err
    assert next(iter(parameters.values())) in errors
    assert 'Traceback' not in errors


def test_deactivated_generator_waits(stage: Stage, photo: str) -> None:
    probe = fly(stage, photo)
    generator = stage.nodes[0]
    assert generator.trigger_deactivate() == SUCCESS
    probe.send((0.1, 0.0, 0.0))
    probe.spin_for(0.3)
    assert len(probe.places()) == 1
    assert generator.trigger_activate() == SUCCESS
    probe.spin_until(lambda: probe.places()[-1][0] == pytest.approx(0.1))
    assert generator.trigger_deactivate() == SUCCESS
    assert generator.trigger_cleanup() == SUCCESS
    assert generator.trigger_configure() == SUCCESS
    assert generator.trigger_activate() == SUCCESS
    count = len(probe.places())
    probe.spin_until(lambda: len(probe.places()) > count)


def test_reset_in_flight(stage: Stage, photo: str) -> None:
    probe = fly(stage, photo)
    stage.add(AutopilotNode(parameter_overrides=overrides(answer_timeout=0.3)))
    probe.wait_for_frames(8)
    probe.call(Trigger, 'generator/reset')
    probe.spin_until(lambda: len(probe.received['path'][-1].poses) == 1)
    count = len(probe.places())
    probe.wait_for_frames(count + 8)
    last = probe.places()[-5:]
    assert np.linalg.norm(np.diff(last, axis=0), axis=1) == pytest.approx([0.2] * 4, abs=0.01)
    assert np.linalg.norm(last[-1]) < 3


def test_transforms_say_what_odometry_says(monkeypatch: pytest.MonkeyPatch) -> None:
    published: list[tuple[str, list]] = []

    class StandInNode:
        """Node whose publishers note what they are given."""

        def create_publisher(self, kind: type, topic: str, **qos: Any) -> SimpleNamespace:
            return SimpleNamespace(
                publish=lambda message: published.append((topic, message.transforms)))

        def get_parameter(self, name: str) -> SimpleNamespace:
            numbers = {'scene_scale': 10.0, 'camera_x': 0.5, 'camera_pitch': math.radians(90)}
            if name.endswith('_frame_id'):
                return SimpleNamespace(value=name.removesuffix('_frame_id'))
            return SimpleNamespace(value='drone1/' if name == 'frame_prefix'
                                   else numbers.get(name, 0.0))

        def get_clock(self) -> Any:
            return probe.get_clock()

    monkeypatch.setitem(sys.modules, 'tf2_msgs', SimpleNamespace())
    monkeypatch.setitem(sys.modules, 'tf2_msgs.msg',
                        SimpleNamespace(TFMessage=SimpleNamespace))
    probe = Probe()
    broadcaster = TransformBroadcaster(StandInNode())
    broadcaster.send_static()
    pose = Pose(orientation=Quaternion(w=0.6, z=0.8))
    pose.position.x = 3.0
    broadcaster.send(pose, probe.get_clock().now().to_msg())
    probe.destroy_node()
    links = {(item.header.frame_id, item.child_frame_id): item.transform
             for _, transforms in published for item in transforms}
    chain = [f'drone1/{name}' for name in ('map', 'odom', 'base', 'camera', 'optical')]
    assert set(links) == set(zip(chain, chain[1:], strict=False))
    moved = links['drone1/odom', 'drone1/base']
    assert (moved.translation.x, moved.rotation.z) == (3.0, 0.8)
    mounted = links['drone1/base', 'drone1/camera']
    assert mounted.translation.x == pytest.approx(0.5)
    assert [mounted.rotation.w, mounted.rotation.y] == pytest.approx([math.sqrt(0.5)] * 2)
    optical = links['drone1/camera', 'drone1/optical'].rotation
    assert (optical.x, optical.y, optical.z, optical.w) == (-0.5, 0.5, -0.5, 0.5)


class StandInGenerator:
    """Publishes flat ground with a sky, from wherever it is told to."""

    def __init__(self, probe: Probe) -> None:
        self.scene_scale = 1.0
        latched = QoSProfile(depth=5, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.commands: list[PoseStamped] = []
        self.probe = probe
        self.publishers = {topic: probe.create_publisher(FRAME_TOPICS[topic], topic, latched)
                           for topic in ('camera/disparity/image', 'camera/camera_info', 'pose')}
        probe.create_subscription(PoseStamped, 'command_pose', self.commands.append, 1000)

    def publish(self, pose: Pose, **changes: Any) -> None:
        header = Header(frame_id='map', stamp=self.probe.get_clock().now().to_msg())
        disparity = np.linspace(-0.5, 1, 64)[:, None].clip(0.01, 1).repeat(96, 1)
        disparity /= self.scene_scale
        info = CameraInfo(header=header, height=64, width=96)
        info.k[0] = info.k[4] = 76.8
        info.k[2], info.k[5] = 47.5, 31.5
        frame = {'camera/disparity/image': messages.image_message(disparity, '32FC1', header),
                 'camera/camera_info': info, 'pose': PoseStamped(header=header, pose=pose)}
        for topic, message in {**frame, **changes}.items():
            if message is not changes.get(topic):
                self.publishers[topic].publish(message)
                continue
            message.header = header
            self.publishers[topic].publish(message)


@pytest.fixture
def generator(stage: Stage) -> StandInGenerator:
    return StandInGenerator(stage.probe)


def test_autopilot_waits_for_the_answer(stage: Stage, generator: StandInGenerator) -> None:
    probe = stage.probe
    stage.add(AutopilotNode(parameter_overrides=overrides(answer_timeout=0.5)))
    generator.publish(Pose())
    for count in range(1, 4):
        probe.spin_until(lambda count=count: len(generator.commands) == count)
        generator.publish(generator.commands[-1].pose)
    probe.spin_until(lambda: len(generator.commands) == 4)
    steps = [command.pose.position.x for command in generator.commands]
    assert np.diff([0, *steps]) == pytest.approx([0.2] * 4, abs=0.05)
    # No answer comes: the same command again, stamp and all.
    probe.spin_until(lambda: len(generator.commands) == 6)
    assert generator.commands[3] == generator.commands[4] == generator.commands[5]


def test_autopilot_goes_on_from_where_somebody_put_it(stage: Stage,
                                                      generator: StandInGenerator) -> None:
    probe = stage.probe
    generator.scene_scale = 10.0
    stage.add(AutopilotNode(parameter_overrides=overrides(answer_timeout=0.3, scene_scale=10.0)))
    generator.publish(Pose())
    probe.spin_until(lambda: generator.commands)
    elsewhere = Pose()
    elsewhere.position.x = 500.0
    generator.publish(elsewhere)
    probe.spin_until(lambda: generator.commands[-1].pose.position.x > 400)
    assert generator.commands[-1].pose.position.x == pytest.approx(502, abs=0.5)


def test_autopilot_started_last_sees_the_frame(stage: Stage,
                                               generator: StandInGenerator) -> None:
    generator.publish(Pose())
    stage.probe.spin_for(0.3)
    stage.add(AutopilotNode())
    stage.probe.spin_until(lambda: generator.commands)


def test_autopilot_is_steered_and_plans(stage: Stage, generator: StandInGenerator) -> None:
    probe = stage.probe
    plans: list[Path] = []
    probe.create_subscription(Path, 'trajectory', plans.append, 1)
    steering = probe.create_publisher(TwistStamped, 'command_velocity', 1)
    stage.add(AutopilotNode(parameter_overrides=overrides(plan_steps=7)))
    probe.spin_until(steering.get_subscription_count)
    generator.publish(Pose())
    probe.spin_until(lambda: generator.commands)
    left = TwistStamped()
    left.twist.angular.z = 0.5
    for _ in range(10):
        steering.publish(left)
        probe.spin_for(0.05)
        count = len(generator.commands)
        generator.publish(generator.commands[-1].pose)
        probe.spin_until(lambda count=count: len(generator.commands) > count)
    assert generator.commands[-1].pose.position.y > 0.1
    assert generator.commands[-1].pose.orientation.z > 0.02
    probe.spin_until(lambda: plans and plans[-1].poses[0].pose == generator.commands[-1].pose)
    assert len(plans[-1].poses) == 7
    assert plans[-1].header.frame_id == 'map'


def test_autopilot_settings_change_in_flight(stage: Stage, generator: StandInGenerator,
                                             capfd: pytest.CaptureFixture) -> None:
    probe = stage.probe
    stage.add(AutopilotNode())
    generator.publish(Pose())
    probe.spin_until(lambda: generator.commands)

    def change(name: str, value: Any) -> Any:
        request = [Parameter(name, value=value).to_parameter_msg()]
        return probe.call(SetParameters, 'autopilot/set_parameters',
                          parameters=request).results[0]

    def fly_on() -> float:
        before, count = generator.commands[-1].pose, len(generator.commands)
        generator.publish(before)
        probe.spin_until(lambda: len(generator.commands) > count)
        after = generator.commands[-1].pose.position
        return math.dist((before.position.x, before.position.y, before.position.z),
                         (after.x, after.y, after.z))

    assert fly_on() == pytest.approx(0.2, abs=1e-3)
    assert change('speed', 0.1).successful
    assert fly_on() == pytest.approx(0.1, abs=1e-3)
    refused = change('height', [3.0, 1.0])
    assert not refused.successful
    assert 'least, greatest' in refused.reason
    assert not change('scene_scale', 2.0).successful
    assert change('lookahead', 20.0).successful
    assert 'map: it is drawn anew' in capfd.readouterr().err
    assert change('mode', 'official').successful
    assert fly_on() == pytest.approx(0.1, abs=1e-3)


def test_autopilot_is_configured_anew(stage: Stage, generator: StandInGenerator) -> None:
    autopilot = stage.add(AutopilotNode())
    generator.publish(Pose())
    stage.probe.spin_until(lambda: generator.commands)
    assert autopilot.trigger_deactivate() == SUCCESS
    generator.publish(generator.commands[-1].pose)
    stage.probe.spin_for(0.8)
    assert len(generator.commands) == 1
    for change in ('cleanup', 'configure', 'activate'):
        assert getattr(autopilot, f'trigger_{change}')() == SUCCESS
    stage.probe.spin_until(lambda: len(generator.commands) == 2)


def test_autopilot_survives_bad_frames(stage: Stage, generator: StandInGenerator,
                                       capfd: pytest.CaptureFixture) -> None:
    stage.add(AutopilotNode())
    generator.publish(Pose(), **{'camera/camera_info': CameraInfo()})
    stage.probe.spin_for(0.8)
    assert 'not calibrated' in capfd.readouterr().err
    generator.publish(Pose())
    stage.probe.spin_until(lambda: generator.commands)


@pytest.mark.parametrize(('parameters', 'problem'), [
    ({'mode': 'bold'}, 'safe, official'), ({'height': [1.0]}, '2 numbers'),
    ({'speed': 3.0}, 'speed')])
def test_bad_autopilot_parameters(parameters: dict, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        AutopilotNode(parameter_overrides=overrides(**parameters))


def test_bad_autopilot_settings_fail_to_configure(stage: Stage,
                                                  capfd: pytest.CaptureFixture) -> None:
    node = stage.add(AutopilotNode(parameter_overrides=overrides(height=[3.0, 1.0])), start=False)
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert 'least, greatest' in capfd.readouterr().err
