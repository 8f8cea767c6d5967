"""Clips for tests of bags: a flight over a painted plane, with exact disparity and points."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.rosbag2 import CompressionFormat, CompressionMode, Reader, StoragePlugin, Writer
import torch

from infinite_nature_ros import camera
from infinite_nature_training.bags import ClipFrame, ClipInfo, ClipWriter
from infinite_nature_training.bags.schema import typestore

INFO = ClipInfo(source='https://example.org/video', licence='CC0-1.0', scene_scale=10.0,
                details={'seed': 3})
INTRINSICS = torch.tensor([[0.8, 1.2, 0.5, 0.45]], dtype=torch.float64)
MILLISECOND = 1_000_000


def make_flight(count: int = 12, size: tuple[int, int] = (64, 96), step: float = 0.05,
                period: int = 40 * MILLISECOND) -> list[ClipFrame]:
    """Frames of a camera that flies forward one scene unit above the plane, turning a little."""
    poses = [camera.pose_at(
        torch.tensor([[0.2 * step * number, -0.01 * number, step * number]], dtype=torch.float64),
        camera.compose(camera.level_pose(0.25, 0.002 * number).double(),
                       _turn(0.003 * number))[..., :3]) for number in range(count)]
    return [_frame(1_700_000_000 * 10**9 + number * period, pose, size)
            for number, pose in enumerate(poses)]


def _turn(angle: float) -> torch.Tensor:
    """Pose of a camera that was turned about the vertical."""
    sine, cosine = np.sin(angle), np.cos(angle)
    return torch.tensor([[[cosine, 0, -sine, 0], [0, 1, 0, 0], [sine, 0, cosine, 0]]],
                        dtype=torch.float64)


def _frame(stamp: int, pose: torch.Tensor, size: tuple[int, int]) -> ClipFrame:
    rotation = pose[0, :, :3].numpy()
    x, y, z = camera.position(pose)[0].tolist()
    # The plane is at y = 1, so that a ray meets it after (1 - y) / its y in the world.
    rays = camera.pixel_rays(INTRINSICS.float(), *size)[0].double().numpy()
    world = np.einsum('ji,jhw->ihw', rotation, rays)
    disparity = np.clip(world[1] / (1 - y), camera.MIN_DISPARITY, camera.MAX_DISPARITY)
    below = disparity > camera.MIN_DISPARITY
    east, north = x + world[0] / disparity, z + world[2] / disparity
    paint = [np.sin(3 * east + shift) * np.cos(2.3 * north + 2 * shift) for shift in range(3)]
    # Haze, so that there is nothing finer than a pixel.
    haze = np.clip(4 * disparity, 0, 1)
    picture = np.stack([np.where(below, 0.5 + 0.4 * haze * colour, 0.6) for colour in paint],
                       axis=-1)
    tracked = (rays / disparity)[:, size[0] * 3 // 4::5, ::9].reshape(3, -1).T
    return ClipFrame(
        stamp=stamp, picture=(picture * 255).round().astype(np.uint8), pose=pose,
        intrinsics=INTRINSICS, disparity=disparity.astype(np.float32),
        points=tracked.astype(np.float32))


def write_clip(folder: Path, frames: list[ClipFrame], info: ClipInfo = INFO) -> Path:
    """Bag of these frames."""
    with ClipWriter(folder, info) as writer:
        for frame in frames:
            writer.add(frame)
    return folder


def messages_of(bag: Path) -> list[tuple[str, int, Any]]:
    """Topic, time and message of all that is in a bag."""
    with Reader(bag) as reader:
        return [(connection.topic, time, typestore().deserialize_cdr(data, connection.msgtype))
                for connection, time, data in reader.messages()]


def record(folder: Path, messages: Iterable[tuple[str, int, Any]],
           storage: StoragePlugin = StoragePlugin.SQLITE3,
           compression: CompressionMode = CompressionMode.NONE) -> Path:
    """Bag of such messages as others write it; an index is in it."""
    writer = Writer(folder, version=8, storage_plugin=storage)
    if compression is not CompressionMode.NONE:
        writer.set_compression(compression, CompressionFormat.ZSTD)
    with writer:
        connections = {}
        for topic, time, message in messages:
            kind = message.__msgtype__
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=typestore())
            writer.write(connections[topic], time, typestore().serialize_cdr(message, kind))
    return folder


def message(kind: str, **values: Any) -> Any:
    """Message of a type, as ``geometry_msgs/msg/Point``."""
    return typestore().types[kind](**values)
