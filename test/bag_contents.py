"""What ACID bags hold, read without our own reader."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
from rosbags.highlevel import AnyReader

from infinite_nature_training.bags import ClipInfo
from infinite_nature_training.bags.clip import decode_picture


def bags_in(out: Path) -> dict[str, dict[str, str]]:
    """Digests of the files of all bags that one sees in a folder, by name."""
    names = []
    # Unlike a glob it takes no offence at folders that vanish meanwhile.
    for place, folders, files in os.walk(out):
        folders[:] = [name for name in folders if not name.startswith('.')]
        if 'metadata.yaml' in files:
            names.append(Path(place).relative_to(out))
    return {str(name): {path.name: hashlib.sha256(path.read_bytes()).hexdigest()
                        for path in sorted((out / name).iterdir())}
            for name in sorted(names)}


def contents(bag: Path) -> dict[str, list]:
    """Messages by topic, without the namespace."""
    messages: dict[str, list] = {}
    with AnyReader([bag]) as reader:
        for connection, _, data in reader.messages():
            name = connection.topic.removeprefix('/infinite_nature/')
            messages.setdefault(name, []).append(reader.deserialize(data, connection.msgtype))
    return messages


def info_of(bag: Path) -> ClipInfo:
    return ClipInfo.from_json(contents(bag)['clip_info'][0].data)


def pictures_of(bag: Path) -> list[np.ndarray]:
    return [decode_picture(message.data.tobytes())
            for message in contents(bag)['camera/image_raw/compressed']]


def stamps_of(bag: Path) -> list[int]:
    """Microseconds of the poses."""
    return [message.header.stamp.sec * 10**6 + message.header.stamp.nanosec // 1000
            for message in contents(bag)['pose']]
