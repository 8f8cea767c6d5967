"""How topics are delivered: defaults of the nodes, which ``qos_overrides`` may change."""

from __future__ import annotations

from copy import copy
from typing import Any

from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions

FRAME_QOS = QoSProfile(depth=5, durability=DurabilityPolicy.TRANSIENT_LOCAL)
"""Reliable, and whoever comes late gets the latest: no node needs to start before another."""

COMMAND_QOS = QoSProfile(depth=1000)
"""Reliable, with room for all that is commanded while a frame is in the making."""

LATCHED_QOS = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
"""Reliable, and whoever comes late gets the last message."""


def overridable(qos: QoSProfile | int) -> dict[str, Any]:
    """Quality of service as the parameter file may override it.

    Parameters ``qos_overrides.TOPIC.publisher.depth`` (or ``subscription``; or ``history``,
    ``reliability``) come to be with the topic, declared by rclpy.

    Args:
        qos: default, or depth of a reliable one.

    Returns:
        Keyword arguments for ``create_publisher`` and ``create_subscription``.
    """
    # A copy, for rclpy writes the overrides into the profile that it is given.
    profile = QoSProfile(depth=qos) if isinstance(qos, int) else copy(qos)
    return {'qos_profile': profile,
            'qos_overriding_options': QoSOverridingOptions.with_default_policies()}
