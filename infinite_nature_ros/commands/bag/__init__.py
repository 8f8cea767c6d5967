"""``infinite-nature bag``: ACID bags, one module per subcommand."""

from __future__ import annotations

from infinite_nature_ros.commands.bag.check import check
from infinite_nature_ros.commands.bag.from_acid import from_acid
from infinite_nature_ros.commands.bag.from_coast import from_coast
from infinite_nature_ros.commands.bag.from_photos import from_photos
from infinite_nature_ros.commands.bag.from_video import from_video
from infinite_nature_ros.commands.bag.info import info

COMMANDS = {
    'check': check,
    'from-acid': from_acid,
    'from-coast': from_coast,
    'from-photos': from_photos,
    'from-video': from_video,
    'info': info,
}
"""Functions by name of the subcommand."""
