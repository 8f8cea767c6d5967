"""The ``infinite-nature`` command: one module per subcommand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import sys

from tyro.extras import SubcommandApp

from infinite_nature_ros.commands import bag
from infinite_nature_ros.commands.evaluate import evaluate
from infinite_nature_ros.commands.export import export
from infinite_nature_ros.commands.fly import fly
from infinite_nature_ros.commands.import_official import import_checkpoint
from infinite_nature_ros.commands.info import info
from infinite_nature_ros.commands.train import train

_COMMANDS = {
    'evaluate': evaluate,
    'export': export,
    'fly': fly,
    'import-official': import_checkpoint,
    'info': info,
    'train': train,
}


_GROUPS = {
    'bag': (bag.COMMANDS, 'Make, read and check ACID bags: training data as ROS 2 bags.'),
}


def main(args: Sequence[str] | None = None) -> int:
    """Run a subcommand; returns the exit code.

    A ``ValueError``, ``OSError`` or ``ImportError`` is something the user can put right: it ends in
    one line.
    """
    try:
        return _application().cli(prog='infinite-nature', args=args,
                                  description='Fly forever into a photo, as a ROS 2 sensor.')
    except (ValueError, OSError, ImportError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _application() -> SubcommandApp:
    """Command line parser of all subcommands and groups of them."""
    application = _subcommands(_COMMANDS)
    for name, (functions, text) in _GROUPS.items():
        application.command(_subcommands(functions), name=name, help=text)
    return application


def _subcommands(functions: Mapping[str, Callable[..., int]]) -> SubcommandApp:
    group = SubcommandApp()
    for name, function in functions.items():
        group.command(function, name=name)
    return group
