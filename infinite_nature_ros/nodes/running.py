"""How the nodes start and end: configured and activated by themselves, errors in one line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import inspect
from pathlib import Path
import sys
from types import TracebackType
from typing import Any, TypeVar

import rclpy
from rclpy._rclpy_pybind11 import RCLError
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.node import Node
from rclpy.qos_overriding_options import InvalidQosOverridesError

from infinite_nature_ros.nodes.parameters import Parameter

_N = TypeVar('_N', bound=Node)


def run(create_node: type[LifecycleNode], table: tuple[Parameter, ...],
        args: Sequence[str] | None = None) -> int:
    """Configure, activate and run a node until it's interrupted; ``--help`` explains it instead.

    Args:
        create_node: class of the node; a ``ValueError`` of it is a bad parameter.
        table: its parameters.
        args: command line; ``None`` is that of the process.

    Returns:
        Exit code: 0 after an interruption, 1 if the node couldn't start.
    """
    return run_with(_activate_and_spin, create_node, table, args)


def run_with(work: Callable[[_N], bool], create_node: type[_N], table: tuple[Parameter, ...],
             args: Sequence[str] | None = None, **options: Any) -> int:
    """Create a node and let it work; ``--help`` explains it instead.

    Args:
        work: what the node is there for; tells whether it could be done.
        create_node: class of the node; a ``ValueError`` of it is a bad parameter.
        table: its parameters.
        args: command line; ``None`` is that of the process.
        options: further arguments of ``rclpy.init``.

    Returns:
        Exit code: 0 after its work or an interruption, else 1.
    """
    if '--help' in (sys.argv if args is None else args):
        _explain(create_node, table)
        return 0
    try:
        rclpy.init(args=args, **options)
        return 0 if work(create_node()) else 1
    except (KeyboardInterrupt, ExternalShutdownException):
        return 0
    except (ValueError, OSError, RCLError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    finally:
        rclpy.try_shutdown()


def _activate_and_spin(node: LifecycleNode) -> bool:
    """Spin, if the node can be started."""
    started = (node.trigger_configure() == TransitionCallbackReturn.SUCCESS
               and node.trigger_activate() == TransitionCallbackReturn.SUCCESS)
    if started:
        rclpy.spin(node)
    return started


def _explain(create_node: type[Node], table: tuple[Parameter, ...]) -> None:
    """Print what a node does and what can be set."""
    command = Path(sys.argv[0]).name
    print(f'usage: {command} --ros-args -p NAME:=VALUE ...\n\n'
          f'{inspect.getdoc(create_node)}\n\nparameters:')
    for parameter in table:
        print(f'  {parameter.name} (default {parameter.default!r})\n'
              f'      {parameter.description}')


# What the user can put right.
_BY_USER = (ValueError, OSError, ImportError, ParameterException, InvalidQosOverridesError)


class ConfigureGuard:
    """Context in which a failure of ``on_configure`` is logged; rclpy itself drops it silently.

    What the user can put right is logged in one line, anything else with its traceback.
    """

    def __init__(self, node: LifecycleNode) -> None:
        """Log through the node."""
        self.result = TransitionCallbackReturn.SUCCESS
        self._logger = node.get_logger()

    def __enter__(self) -> ConfigureGuard:
        """Return the guard, to read its result afterwards."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> bool:
        """Turn an error into a failed transition."""
        if not isinstance(error, Exception):
            return False
        self.result = TransitionCallbackReturn.FAILURE
        if isinstance(error, _BY_USER):
            self._logger.error(str(error))
        else:
            import traceback as traceback_module
            self._logger.error(''.join(traceback_module.format_exception(error)))
        return True
