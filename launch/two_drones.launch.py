"""Fly two drones side by side, each into its photo and with frames of its own."""

from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    GroupAction,
    IncludeLaunchDescription,
    OpaqueFunction,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource

from infinite_nature_ros.nodes.launching import common_arguments, share, value_of

_DRONES = ('drone1', 'drone2')


def generate_launch_description() -> LaunchDescription:
    """Describe both; the other arguments of ``fly.launch.py`` hold for both of them."""
    return LaunchDescription([
        *(argument for argument in common_arguments() if argument.name != 'namespace'),
        *(DeclareLaunchArgument(f'image_{drone}', default_value='',
                                description=f'photo for {drone}; empty is the default sample')
          for drone in _DRONES),
        DeclareLaunchArgument('folder', default_value='flight',
                              description='folder for what is recorded of both'),
        *(OpaqueFunction(function=_fly, args=[drone]) for drone in _DRONES),
    ])


def _fly(context: LaunchContext, drone: str) -> list[GroupAction]:
    """Start the nodes of one drone; its arguments stay within the group."""
    return [GroupAction([IncludeLaunchDescription(
        PythonLaunchDescriptionSource(share('launch', 'fly.launch.py')),
        launch_arguments={
            'namespace': drone, 'frame_prefix': f'{drone}/',
            'image': value_of(context, f'image_{drone}'),
            'folder': f'{value_of(context, "folder")}/{drone}'}.items())])]
