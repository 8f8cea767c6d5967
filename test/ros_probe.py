"""What tests of the nodes share: an isolated domain, a photo, and a node that sees everything."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
import contextlib
import os
from pathlib import Path as FilePath
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Odometry, Path
import numpy as np
import PIL.Image
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, Image

from infinite_nature_ros.commands.processes import isolate_domain
from infinite_nature_ros.nodes.messages import stamp_of

SIZE = {'height': 64, 'width': 96}
FRAME_TOPICS = {
    'camera/image_raw': Image, 'camera/disparity/image': Image, 'camera/depth/image_rect': Image,
    'camera/known/image': Image, 'camera/camera_info': CameraInfo,
    'camera/depth/camera_info': CameraInfo, 'odom': Odometry, 'path': Path, 'pose': PoseStamped}
TIMEOUT = 30


@contextlib.contextmanager
def isolated_ros() -> Iterator[None]:
    """Run rclpy on a domain of its own; the environment is as before afterwards."""
    before = dict(os.environ)
    os.environ.pop('ROS_DOMAIN_ID', None)
    isolate_domain()
    rclpy.init()
    try:
        yield
    finally:
        rclpy.try_shutdown()
        os.environ.clear()
        os.environ.update(before)


def overrides(**values: Any) -> list[Parameter]:
    """Parameter overrides of a node."""
    return [Parameter(name, value=value) for name, value in values.items()]


def make_photo(path: FilePath, height: int = 200, width: int = 300) -> str:
    """Write a picture of a blue sky over rough brown land; returns its path."""
    noise = np.random.default_rng(0).integers(-30, 30, (height, width, 1))
    land = np.full((height, width, 3), (120, 90, 60)) + noise
    rows = np.arange(height)[:, None, None]
    sky = np.array([90, 150, 230]) + rows // 4 * np.ones((1, width, 1), int)
    photo = np.where(rows < height * 0.4, sky, land).clip(0, 255).astype(np.uint8)
    PIL.Image.fromarray(photo).save(path)
    return str(path)


def write_photos(folder: FilePath) -> FilePath:
    """Write three photos of different sizes; returns the folder."""
    for name, size in (('hill', (96, 192)), ('bay', (128, 160)), ('moor', (120, 200))):
        make_photo(folder / f'{name}.jpg', *size)
    return folder


class Probe(Node):
    """Receives all that the nodes publish, and commands."""

    def __init__(self) -> None:
        super().__init__('probe', namespace='infinite_nature')
        self.received: dict[str, list[Any]] = defaultdict(list)
        latched = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        for topic, kind in FRAME_TOPICS.items():
            self._listen(topic, kind, latched)
        self._listen('/diagnostics', DiagnosticArray, QoSProfile(depth=100))
        self.command = self.create_publisher(PoseStamped, 'command_pose', 1000)
        self.executor_ = SingleThreadedExecutor()
        self.executor_.add_node(self)

    def _listen(self, topic: str, kind: type, qos: QoSProfile) -> None:
        self.create_subscription(kind, topic, self.received[topic].append, qos)

    def spin_until(self, done: Callable[[], Any], timeout: float = TIMEOUT) -> None:
        """Spin until something is true; fail the test if it doesn't come true."""
        end = time.monotonic() + timeout
        while not done():
            assert time.monotonic() < end, 'timed out'
            self.executor_.spin_once(timeout_sec=0.05)

    def spin_for(self, seconds: float) -> None:
        """Spin for a while, to see that nothing happens."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.executor_.spin_once(timeout_sec=0.05)

    def wait_for_frames(self, count: int) -> None:
        """Wait until as many complete frames have come."""
        self.spin_until(lambda: all(len(self.received[topic]) >= count for topic in FRAME_TOPICS))

    def send(self, *poses: tuple[float, float, float], frame_id: str = 'map') -> list[PoseStamped]:
        """Command poses without turning, each with a stamp of its own."""
        sent = []
        for x, y, z in poses:
            command = PoseStamped()
            command.header.frame_id = frame_id
            command.header.stamp = self.get_clock().now().to_msg()
            place = command.pose.position
            place.x, place.y, place.z = x, y, z
            self.command.publish(command)
            sent.append(command)
        return sent

    def call(self, kind: type, name: str, **request: Any) -> Any:
        """Call a service and wait for its answer."""
        client = self.create_client(kind, name)
        self.spin_until(client.service_is_ready)
        future = client.call_async(kind.Request(**request))
        self.spin_until(future.done)
        self.destroy_client(client)
        return future.result()

    def frame(self, number: int) -> dict[str, Any]:
        """Messages of one frame by topic."""
        return {topic: self.received[topic][number] for topic in FRAME_TOPICS}

    def places(self) -> list[tuple[float, float, float]]:
        """Positions of all frames."""
        return [(pose.pose.position.x, pose.pose.position.y, pose.pose.position.z)
                for pose in self.received['pose']]

    def stamps(self, topic: str) -> list[tuple[int, int]]:
        """Stamps of all messages of a topic."""
        return [stamp_of(message) for message in self.received[topic]]
