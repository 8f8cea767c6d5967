"""``infinite-nature bag``: ACID bags, one module per subcommand."""

from __future__ import annotations

from infinite_nature_ros.commands.bag.check import check
from infinite_nature_ros.commands.bag.info import info

COMMANDS = {
    'check': check,
    'info': info,
}
"""Functions by name of the subcommand."""
