"""``infinite-nature bag``: ACID bags, one module per subcommand."""

from __future__ import annotations

from infinite_nature_ros.commands.bag.from_acid import from_acid

COMMANDS = {
    'from-acid': from_acid,
}
"""Functions by name of the subcommand."""
