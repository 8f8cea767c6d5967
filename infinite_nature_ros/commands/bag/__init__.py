"""``infinite-nature bag``: ACID bags, one module per subcommand."""

from __future__ import annotations

from infinite_nature_ros.commands.bag.from_coast import from_coast

COMMANDS = {
    'from-coast': from_coast,
}
"""Functions by name of the subcommand."""
