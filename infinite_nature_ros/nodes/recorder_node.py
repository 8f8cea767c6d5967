"""The recorder node: makes video, contact sheet and trajectory plot of what is published."""

from __future__ import annotations

from pathlib import Path
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from rclpy.qos import QoSProfile

from infinite_nature_ros.nodes.flight_videos import FlightVideo, SmoothFlightVideo
from infinite_nature_ros.nodes.frame_publisher import TOPICS
from infinite_nature_ros.nodes.frame_sets import subscribe_frames
from infinite_nature_ros.nodes.messages import image_array
from infinite_nature_ros.recording import (
    contact_sheet,
    EvenSample,
    plot_trajectory,
    save_picture,
)

# Frames that may wait while the video is written; the generator doesn't wait for it.
_MAX_WAITING = 100


class RecorderNode(Node):
    """Records a flight as it comes in: the files are good up to any moment.

    Attributes:
        frames: frames recorded so far.
        stages: mean seconds of a step so far, by the stage that the generator names.
    """

    def __init__(self, folder: Path, max_frames: int, video_rate: float,
                 interpolate: int = 0) -> None:
        """Start to listen.

        Args:
            folder: folder to write to, made if it isn't there.
            max_frames: frames to record; later ones are left out.
            video_rate: recorded frames per second of the video.
            interpolate: frames to put between two of them, in the video only.

        Raises:
            ValueError: if ``interpolate`` is negative or ``video_rate`` isn't positive.
            OSError: if the folder can't be written.
        """
        super().__init__('recorder', namespace='infinite_nature')
        self.frames = 0
        self.stages: dict[str, float] = {}
        self._steps_timed = 0
        self._max_frames = max_frames
        self._folder = folder
        self._times: list[float] = []
        self._positions: list[tuple[float, float, float]] = []
        self._sample = EvenSample()
        path = folder / 'flight.mp4'
        self._video = (SmoothFlightVideo(path, video_rate, interpolate) if interpolate
                       else FlightVideo(path, video_rate))
        topics = {'camera/image_raw', 'pose', *self._video.topics}
        subscribe_frames(self, {topic: TOPICS[topic] for topic in topics}, self._take_frame,
                         depth=_MAX_WAITING)
        self.create_subscription(DiagnosticArray, '/diagnostics', self._take_diagnostics,
                                 QoSProfile(depth=_MAX_WAITING))

    @property
    def step_seconds(self) -> float:
        """Mean time from frame to frame, 0 before there are three; start-up isn't counted."""
        moving = self._times[1:]
        return (moving[-1] - moving[0]) / (len(moving) - 1) if len(moving) > 1 else 0.0

    @property
    def waiting(self) -> int:
        """Recorded frames that aren't in the video yet."""
        return self._video.waiting

    def finish(self) -> list[Path]:
        """Finish the video, make the pictures; returns all files that were made."""
        self._video.close()
        if not self._positions:
            return []
        sheet, plot = self._folder / 'contact.png', self._folder / 'trajectory.png'
        save_picture(sheet, contact_sheet(self._sample.pictures))
        plot_trajectory(self._positions, plot)
        return [self._video.path, sheet, plot]

    def _take_frame(self, messages: dict[str, Any]) -> None:
        """Record a frame."""
        if self.frames == self._max_frames:
            return
        self._video.add(messages)
        self._sample.add(self.frames, image_array(messages['camera/image_raw']))
        place = messages['pose'].pose.position
        self._positions.append((place.x, place.y, place.z))
        self._times.append(time.monotonic())
        self.frames += 1

    def _take_diagnostics(self, message: DiagnosticArray) -> None:
        """Average how long the stages take, over all steps that the messages tell of."""
        for status in message.status:
            values = {value.key: value.value for value in status.values}
            steps = int(values.get('steps', 0))
            self._steps_timed += steps
            for key, value in values.items():
                stage, _, unit = key.partition(' ')
                if unit == '(ms)':
                    mean = self.stages.get(stage, 0.0)
                    change = float(value) / 1000 - mean
                    self.stages[stage] = mean + change * steps / self._steps_timed
