"""What the launch files share; imports no torch, for ``ros2 launch`` runs outside its environment.

A parameter is taken from the launch argument of its name if that isn't empty, else from
``params_file``, else from the package's own parameter file.
"""

from __future__ import annotations

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

PACKAGE = 'infinite_nature_ros'

_COMMON = {
    'namespace': ('infinite_nature', 'namespace of the nodes and their topics'),
    'params_file': ('', 'parameter file for the nodes; empty is the one of the package'),
    'use_sim_time': ('false', 'take the time from /clock: true or false'),
    'log_level': ('info', 'least severity that is logged: debug, info, warn, error, fatal'),
}


def common_arguments() -> list[DeclareLaunchArgument]:
    """Arguments that all launch files have."""
    return [DeclareLaunchArgument(name, default_value=default, description=meaning)
            for name, (default, meaning) in _COMMON.items()]


def parameter_arguments(**meanings: str) -> list[DeclareLaunchArgument]:
    """Arguments that go before the parameter files, unless they're empty."""
    return [DeclareLaunchArgument(
        name, default_value='', description=f'{meaning}; empty: as the parameter file says')
        for name, meaning in meanings.items()]


def share(*parts: str) -> str:
    """Path of an installed file of this package."""
    return str(Path(get_package_share_directory(PACKAGE), *parts))


def value_of(context: LaunchContext, argument: str) -> str:
    """Value of a launch argument."""
    return LaunchConfiguration(argument).perform(context)


def node(name: str, **parameters: type) -> OpaqueFunction:
    """One of our nodes.

    Args:
        name: name of the node; its executable is that with ``_node``.
        parameters: types of those of its parameters that are launch arguments, by name.
    """
    def start(context: LaunchContext) -> list[Node]:
        given = {parameter: kind(value_of(context, parameter))
                 for parameter, kind in parameters.items() if value_of(context, parameter)}
        given['use_sim_time'] = value_of(context, 'use_sim_time').lower() in ('true', '1')
        files = [share('config', f'{name}.yaml'), value_of(context, 'params_file')]
        return [Node(package=PACKAGE, executable=f'{name}_node', name=name,
                     namespace=value_of(context, 'namespace'), output='screen',
                     parameters=[*filter(None, files), given],
                     ros_arguments=['--log-level', value_of(context, 'log_level')])]

    return OpaqueFunction(function=start)
