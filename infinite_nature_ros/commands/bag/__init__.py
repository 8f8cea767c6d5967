"""``infinite-nature bag``: ACID bags, one module per subcommand."""

from __future__ import annotations

from infinite_nature_ros.commands.bag.from_acid import from_acid
from infinite_nature_ros.commands.bag.from_photos import from_photos

COMMANDS = {
    'from-acid': from_acid,
    'from-photos': from_photos,
}
"""Functions by name of the subcommand."""
