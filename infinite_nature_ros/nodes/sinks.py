"""What the recorder keeps of a flight: each sink takes frame after frame and makes its files.

Whatever the program dies of, what a sink has taken is in files that open: fragments (video),
lines (poses), whole pictures (stills), committed records (bag).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from rclpy.serialization import serialize_message

from infinite_nature_ros.nodes.flight_videos import FlightVideo, SmoothFlightVideo
from infinite_nature_ros.nodes.frame_publisher import TOPICS
from infinite_nature_ros.nodes.messages import image_array, intrinsics_from_message, stamp_of
from infinite_nature_ros.pose_files import PoseFiles
from infinite_nature_ros.recording import (
    contact_sheet,
    EvenSample,
    plot_trajectory,
    save_picture,
)


@dataclass(frozen=True)
class RecordedFrame:
    """A frame as it was published.

    Attributes:
        number: frames of the flight before it.
        messages: messages by topic.
    """

    number: int
    messages: Mapping[str, Any]

    @cached_property
    def picture(self) -> np.ndarray:
        """Picture, uint8 ``[H, W, 3]`` RGB."""
        return image_array(self.messages['camera/image_raw'])

    @property
    def position(self) -> tuple[float, float, float]:
        """Where ``camera_link`` is in ``map``, metres."""
        place = self.messages['pose'].pose.position
        return place.x, place.y, place.z

    @property
    def quaternion(self) -> tuple[float, float, float, float]:
        """How ``camera_link`` is turned in ``map``: x, y, z, w."""
        turn = self.messages['pose'].pose.orientation
        return turn.x, turn.y, turn.z, turn.w

    @property
    def stamp(self) -> int:
        """Time of the frame in nanoseconds."""
        seconds, nanoseconds = stamp_of(self.messages['pose'])
        return seconds * 10**9 + nanoseconds


class Sink(Protocol):
    """Keeps something of each frame.

    Attributes:
        topics: topics whose messages it needs.
    """

    topics: tuple[str, ...]

    def add(self, frame: RecordedFrame) -> None:
        """Keep a frame; frames come in order."""

    def close(self) -> list[Path]:
        """Finish, after at least one frame; returns what was made."""


class VideoSink:
    """``flight.mp4``: RGB beside coloured disparity, with a constant frame rate."""

    def __init__(self, folder: Path, rate: float, between: int) -> None:
        """Open the video.

        Args:
            folder: where to put it.
            rate: flown frames per second.
            between: frames to put between two flown ones.
        """
        path = folder / 'flight.mp4'
        self._video = SmoothFlightVideo(path, rate, between) if between else FlightVideo(path, rate)
        self.topics = self._video.topics

    @property
    def waiting(self) -> int:
        """Frames that were added but aren't in the video yet."""
        return self._video.waiting

    def add(self, frame: RecordedFrame) -> None:
        """Append the frame."""
        self._video.add(frame.messages)

    def close(self) -> list[Path]:
        """Finish the video."""
        self._video.close()
        return [self._video.path]


class OverviewSink:
    """``contact.png`` and ``trajectory.png``: the flight at a glance, made at its end."""

    topics = ('camera/image_raw', 'pose')

    def __init__(self, folder: Path) -> None:
        """Start without pictures."""
        self._folder = folder
        self._sample = EvenSample()
        self._positions: list[tuple[float, float, float]] = []

    def add(self, frame: RecordedFrame) -> None:
        """Remember the place, and some of the pictures."""
        self._sample.add(frame.number, frame.picture)
        self._positions.append(frame.position)

    def close(self) -> list[Path]:
        """Draw both."""
        sheet, plot = self._folder / 'contact.png', self._folder / 'trajectory.png'
        save_picture(sheet, contact_sheet(self._sample.pictures))
        plot_trajectory(self._positions, plot)
        return [sheet, plot]


class StillsSink:
    """``stills/000000.png`` and so on: every picture as it was published, without loss."""

    topics = ('camera/image_raw',)

    def __init__(self, folder: Path) -> None:
        """Make the folder; the stills of an earlier flight are taken away."""
        self._folder = folder / 'stills'
        self._folder.mkdir(parents=True, exist_ok=True)
        for old in self._folder.glob('[0-9]' * 6 + '.png'):
            old.unlink()

    def add(self, frame: RecordedFrame) -> None:
        """Write the picture; it gets its name when it's whole."""
        unfinished = self._folder / 'unfinished.png'
        save_picture(unfinished, frame.picture)
        unfinished.replace(self._folder / f'{frame.number:06}.png')

    def close(self) -> list[Path]:
        """Return the folder."""
        return [self._folder]


class PosesSink:
    """``poses_tum.txt`` and ``poses_realestate10k.txt``, to replay the flight."""

    topics = ('camera/camera_info', 'pose')

    def __init__(self, folder: Path) -> None:
        """Open both files."""
        self._files = PoseFiles(folder, 'infinite_nature_ros')

    def add(self, frame: RecordedFrame) -> None:
        """Append a line to each."""
        intrinsics = intrinsics_from_message(frame.messages['camera/camera_info'])[0].tolist()
        self._files.add(frame.stamp, frame.position, frame.quaternion, intrinsics)

    def close(self) -> list[Path]:
        """Close both files."""
        self._files.close()
        return list(self._files.paths)


class BagSink:
    """``bag/``: rosbag2 of what can't be made from the rest.

    Depth is 1 / disparity, +Inf in the sky; the path is the poses; both camera infos are equal.
    """

    topics = ('camera/image_raw', 'camera/disparity/image', 'camera/known/image',
              'camera/camera_info', 'odom', 'pose')

    def __init__(self, folder: Path, full_name: Callable[[str], str]) -> None:
        """Prepare the bag; it appears with its first frame.

        Args:
            folder: where to put it.
            full_name: gives a topic its name on the wire.

        Raises:
            ImportError: if the libraries for bags aren't installed.
        """
        from infinite_nature_ros.bags import BagWriter
        self._names = {topic: full_name(topic) for topic in self.topics}
        self._bag = BagWriter(folder / 'bag', {
            name: _type_name(TOPICS[topic]) for topic, name in self._names.items()})

    def add(self, frame: RecordedFrame) -> None:
        """Write the frame's messages."""
        self._bag.add(frame.stamp, {name: serialize_message(frame.messages[topic])
                                    for topic, name in self._names.items()})

    def close(self) -> list[Path]:
        """Finish the bag."""
        self._bag.close()
        return [self._bag.folder]


def _type_name(kind: type) -> str:
    """Name of a message type, as ``sensor_msgs/msg/Image``."""
    return f'{kind.__module__.partition(".")[0]}/msg/{kind.__name__}'
