"""The ``infinite-nature`` command: one module per subcommand."""

from __future__ import annotations

from collections.abc import Sequence
import sys

import tyro

from infinite_nature_ros.commands.fly import fly
from infinite_nature_ros.commands.import_official import import_checkpoint
from infinite_nature_ros.commands.info import info

_COMMANDS = {
    'fly': fly,
    'import-official': import_checkpoint,
    'info': info,
}


def main(args: Sequence[str] | None = None) -> int:
    """Run a subcommand; returns the exit code.

    A ``ValueError`` or ``OSError`` is something the user can put right: it ends in one line.
    """
    try:
        return tyro.extras.subcommand_cli_from_dict(
            _COMMANDS, prog='infinite-nature', args=args,
            description='Fly forever into a photo, as a ROS 2 sensor.')
    except (ValueError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
