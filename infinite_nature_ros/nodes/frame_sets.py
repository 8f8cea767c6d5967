"""Brings together the messages of one frame, by their stamp."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.subscription import Subscription

from infinite_nature_ros.nodes.messages import stamp_of
from infinite_nature_ros.nodes.qos import FRAME_QOS, overridable


def subscribe_frames(node: Node, topics: Mapping[str, type],
                     callback: Callable[[dict[str, Any]], None],
                     depth: int = FRAME_QOS.depth) -> list[Subscription]:
    """Call back with the messages of each frame, once all have come.

    ``message_filters`` isn't on PyPI; frames have exactly equal stamps, so this is all it takes.

    Args:
        node: node to subscribe with.
        topics: message types by topic.
        callback: is given the messages by topic.
        depth: messages per topic that may wait.

    Returns:
        The subscriptions, to destroy them.
    """
    qos = QoSProfile(depth=depth, durability=FRAME_QOS.durability)
    incomplete: dict[tuple[int, int], dict[str, Any]] = {}

    def take(topic: str, message: Any) -> None:
        stamp = stamp_of(message)
        messages = incomplete.setdefault(stamp, {})
        messages[topic] = message
        if len(messages) == len(topics):
            callback(incomplete.pop(stamp))
        elif len(incomplete) > depth:
            incomplete.pop(min(incomplete))

    return [node.create_subscription(kind, topic, partial(take, topic), **overridable(qos))
            for topic, kind in topics.items()]
