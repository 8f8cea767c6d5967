"""Diagnostics of a flight: how fast it is, what it had to invent, how far it has drifted."""

from __future__ import annotations

from collections.abc import Mapping
import time

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from infinite_nature_ros.drift import drift
from infinite_nature_ros.frame import Frame
from infinite_nature_ros.nodes.messages import header_at
from infinite_nature_ros.nodes.qos import overridable

_PERIOD_SECONDS = 1.0

# So long the flight may stand still before the log says so, in periods.
_PATIENCE = 3


class FlightMonitor:
    """Publishes ``/diagnostics`` once a second, and when a flight that stood still goes on.

    Stage times are means over the steps since the last message; drift compares the last frame
    with the first one.
    """

    def __init__(self, node: Node, device: str) -> None:
        """Start to publish.

        Args:
            node: the generator.
            device: where it computes.
        """
        self._node = node
        self._device = device
        self._first: Frame | None = None
        self._last: Frame | None = None
        self._steps = self._sub_steps = 0
        self._seconds: dict[str, float] = {}
        self._since = time.monotonic()
        # Periods without a step, None before the first one.
        self._still: int | None = None
        self._held = ''
        self._publisher = node.create_publisher(DiagnosticArray, '/diagnostics', **overridable(10))
        self._timer = node.create_timer(_PERIOD_SECONDS, self._tick,
                                        clock=Clock(clock_type=ClockType.STEADY_TIME))

    def start(self, first: Frame) -> None:
        """Compare with this first frame of a flight from now on."""
        self._first = self._last = first

    def hold(self, reason: str) -> None:
        """Say why the flight stands still on purpose; empty: it doesn't."""
        self._held = reason

    def note(self, frame: Frame, seconds: Mapping[str, float], sub_steps: int) -> None:
        """Count a step.

        Args:
            frame: what was seen.
            seconds: how long its stages took, by name.
            sub_steps: renders that it took.
        """
        self._last = frame
        self._steps += 1
        self._sub_steps += sub_steps
        for stage, duration in seconds.items():
            self._seconds[stage] = self._seconds.get(stage, 0.0) + duration
        if self._still is not None and self._still >= _PATIENCE:
            self._node.get_logger().info('commands come again, the flight goes on')
        if self._still != 0:
            self._publish()
        self._still = 0

    def destroy(self) -> None:
        """Take the topic away."""
        self._node.destroy_timer(self._timer)
        self._node.destroy_publisher(self._publisher)

    def _tick(self) -> None:
        """Publish, and say it once if the commands have ended."""
        if self._still is not None and not self._steps:
            self._still += 1
            if self._still == _PATIENCE and not self._held:
                self._node.get_logger().warning(
                    f'no pose to fly to for {_PATIENCE * _PERIOD_SECONDS:.0f} s: the flight '
                    'waits for the next command')
        self._publish()

    def _publish(self) -> None:
        """Publish what happened since the last message."""
        stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(DiagnosticArray(header=header_at(stamp, ''),
                                                status=[self._status()]))
        self._since = time.monotonic()
        self._steps = self._sub_steps = 0
        self._seconds = {}

    def _status(self) -> DiagnosticStatus:
        level, message = self._judge()
        steps = max(self._steps, 1)
        values = {
            'rate (1/s)': f'{self._steps / max(time.monotonic() - self._since, 1e-3):.2f}',
            'steps': str(self._steps),
            **{f'{stage} (ms)': f'{1000 * duration / steps:.3f}'
               for stage, duration in self._seconds.items()},
            'sub-steps': f'{self._sub_steps / steps:.2f}',
            **({} if self._last is None else _measure(self._first, self._last))}
        return DiagnosticStatus(
            level=level, name=f'{self._node.get_fully_qualified_name()[1:]}: flight',
            message=message, hardware_id=self._device,
            values=[KeyValue(key=key, value=value) for key, value in values.items()])

    def _judge(self) -> tuple[bytes, str]:
        """Level and message: a warning where steps take too long for the wanted rate."""
        if not self._steps:
            return DiagnosticStatus.OK, self._held or 'waiting for a pose to fly to'
        fastest = self._steps / sum(self._seconds.values())
        wanted = self._node.get_parameter('rate').value
        if fastest < wanted:
            return DiagnosticStatus.WARN, (
                f'{fastest:.3g} frames/s at most, rate asks for {wanted:.3g}; take smaller '
                'frames, a smaller model, or a GPU')
        return DiagnosticStatus.OK, 'flying'


def _measure(first: Frame, last: Frame) -> dict[str, str]:
    """Holes and drift."""
    holes = (last.known <= 0.5).float().mean().item()
    sharpness, disparity = drift(first, last)
    return {'invented (%)': f'{100 * holes:.2f}', 'sharpness ratio': f'{sharpness:.3f}',
            'disparity median ratio': f'{disparity:.3f}'}
