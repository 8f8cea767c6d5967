"""Stamps of the frames: the node's clock, or time of the flight's own that ``/clock`` tells."""

from __future__ import annotations

from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.time import Time

from infinite_nature_ros.nodes.qos import overridable

_REPEAT_SECONDS = 0.1


class FrameClock:
    """Gives every frame a stamp later than the last, over resets and restarts too.

    With ``publish_clock`` time goes on by ``1 / rate`` with every frame and stands still in
    between, however long a frame takes: to nodes with ``use_sim_time`` the camera is on time.
    """

    def __init__(self, node: Node) -> None:
        """Publish ``/clock`` if the node's parameters say so.

        Raises:
            ValueError: if the node itself is to follow the clock that it publishes.
        """
        self._node = node
        self._stamp = self._told = Time(clock_type=node.get_clock().clock_type)
        self._publisher = None
        if not node.get_parameter('publish_clock').value:
            return
        if node.get_parameter('use_sim_time').value:
            raise ValueError('publish_clock and use_sim_time are both true: the generator cannot '
                             'follow the clock that it publishes; set use_sim_time for the other '
                             'nodes only')
        from rosgraph_msgs.msg import Clock as ClockMessage
        self._message_type = ClockMessage
        self._publisher = node.create_publisher(ClockMessage, '/clock', **overridable(10))
        # Who comes while time stands still would wait for ever.
        self._timer = node.create_timer(_REPEAT_SECONDS, lambda: self.tell(self._told),
                                        clock=Clock(clock_type=ClockType.STEADY_TIME))

    @property
    def stamp(self) -> Time:
        """Stamp of the last frame, 0 before the first."""
        return self._stamp

    def advance(self, count: int = 1) -> list[Time]:
        """Stamps of new frames: the last one's is now, the others' are spread before it."""
        last = self._stamp.nanoseconds
        if self._publisher is not None:
            end = last + round(1e9 / self._node.get_parameter('rate').value)
        else:
            # Just after the last stamp where the clock stands still or went back.
            end = max(self._node.get_clock().now().nanoseconds, last + count)
        stamps = [self._at(last + (end - last) * number // count)
                  for number in range(1, count + 1)]
        self._stamp = stamps[-1]
        return stamps

    def tell(self, stamp: Time) -> None:
        """Publish ``/clock``, if the parameters say so: a frame of this stamp is to come."""
        self._told = stamp
        if self._publisher is not None:
            self._publisher.publish(self._message_type(clock=stamp.to_msg()))

    def resume(self, nanoseconds: int) -> None:
        """Go on from a stamp that an earlier run gave."""
        self._stamp = self._told = self._at(nanoseconds)

    def destroy(self) -> None:
        """Take the topic away."""
        if self._publisher is not None:
            self._node.destroy_timer(self._timer)
            self._node.destroy_publisher(self._publisher)

    def _at(self, nanoseconds: int) -> Time:
        return Time(nanoseconds=nanoseconds, clock_type=self._stamp.clock_type)
