"""The recorder node: hands what is published, frame by frame, to the sinks that keep it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
import signal
import sys
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Pose
import rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.signals import SignalHandlerOptions

from infinite_nature_ros.nodes.frame_publisher import TOPICS
from infinite_nature_ros.nodes.frame_sets import subscribe_frames
from infinite_nature_ros.nodes.parameters import declare_parameters, Parameter
from infinite_nature_ros.nodes.running import run_with
from infinite_nature_ros.nodes.sinks import (
    BagSink,
    OverviewSink,
    PosesSink,
    RecordedFrame,
    Sink,
    StillsSink,
    VideoSink,
)

RECORDER_PARAMETERS = (
    Parameter('folder', 'flight', 'folder to write to; what an earlier flight left there is '
              'replaced'),
    Parameter('record', 'video,poses', 'what to keep: some of video, poses, stills, bag; contact '
              'sheet and plot are always made'),
    Parameter('video_rate', 10.0, 'flown frames per second of the video', range=(0.1, 1000.0)),
    Parameter('interpolate', 0, 'frames to put between two flown ones, in the video only',
              range=(0, 100)),
)

# Frames that may wait while one is kept; the generator doesn't wait for it.
_MAX_WAITING = 100


class RecorderNode(Node):
    """Records a flight as it comes in: video, poses, stills, a bag.

    Attributes:
        max_frames: frames to record; later ones are left out.
        frames: frames recorded so far.
        pose: ``camera_link`` in ``map`` at the last of them, ``None`` before the first.
        stages: mean seconds of a step so far, by the stage that the generator names.
    """

    def __init__(self, **options: Any) -> None:
        """Open the files and start to listen.

        Args:
            options: further arguments of ``Node``, as ``parameter_overrides``.

        Raises:
            ValueError: if a parameter that was given can't be used, or a library is missing.
            OSError: if a file can't be written.
        """
        super().__init__('recorder', namespace='infinite_nature', **options)
        declare_parameters(self, RECORDER_PARAMETERS)
        self.max_frames = sys.maxsize
        self.frames = 0
        self.pose: Pose | None = None
        self.stages: dict[str, float] = {}
        self._steps_timed = 0
        self._times: list[float] = []
        self._sinks = self._create_sinks()
        topics = {'pose', *(topic for sink in self._sinks for topic in sink.topics)}
        subscribe_frames(self, {topic: TOPICS[topic] for topic in topics}, self._take_frame,
                         depth=_MAX_WAITING)
        self.create_subscription(DiagnosticArray, '/diagnostics', self._take_diagnostics,
                                 QoSProfile(depth=_MAX_WAITING))

    def _create_sinks(self) -> list[Sink]:
        """Sinks for what is to be kept, and for the overview of the flight."""
        folder = Path(self.get_parameter('folder').value)
        rate = self.get_parameter('video_rate').value
        between = self.get_parameter('interpolate').value
        makers: dict[str, Callable[[], Sink]] = {
            'video': lambda: VideoSink(folder, rate, between),
            'poses': lambda: PosesSink(folder),
            'stills': lambda: StillsSink(folder),
            'bag': lambda: BagSink(folder, self.resolve_topic_name),
        }
        names = self.get_parameter('record').value.replace(',', ' ').split()
        unknown = sorted(set(names) - makers.keys())
        if unknown:
            raise ValueError(f'record names {", ".join(unknown)}; give some of '
                             f'{", ".join(makers)}')
        folder.mkdir(parents=True, exist_ok=True)
        try:
            return [*(makers[name]() for name in dict.fromkeys(names)), OverviewSink(folder)]
        except ImportError as error:
            raise ValueError(str(error)) from error

    @property
    def step_seconds(self) -> float:
        """Mean time from frame to frame, 0 before there are three; start-up isn't counted."""
        moving = self._times[1:]
        return (moving[-1] - moving[0]) / (len(moving) - 1) if len(moving) > 1 else 0.0

    @property
    def waiting(self) -> int:
        """Recorded frames that aren't in the video yet."""
        return sum(sink.waiting for sink in self._sinks if isinstance(sink, VideoSink))

    def finish(self) -> list[Path]:
        """Finish the files; returns them, none if nothing was recorded."""
        if not self.frames:
            return []
        return [path for sink in self._sinks for path in sink.close()]

    def _take_frame(self, messages: dict[str, Any]) -> None:
        """Record a frame."""
        if self.frames == self.max_frames:
            return
        frame = RecordedFrame(self.frames, messages)
        for sink in self._sinks:
            sink.add(frame)
        self.pose = messages['pose'].pose
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


def main(args: Sequence[str] | None = None) -> int:
    """Run the recorder until it's interrupted; returns the exit code."""
    interrupted = False

    def interrupt(*_: object) -> None:
        nonlocal interrupted
        interrupted = True

    def record(node: RecorderNode) -> bool:
        while not interrupted:
            rclpy.spin_once(node, timeout_sec=0.1)
        for path in node.finish():
            node.get_logger().info(str(path))
        return True

    # A flag instead of an exception: no frame is left half written.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    return run_with(record, RecorderNode, RECORDER_PARAMETERS, args,
                    signal_handler_options=SignalHandlerOptions.NO)


if __name__ == '__main__':
    sys.exit(main())
