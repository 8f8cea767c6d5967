"""Fly into a photo: ``ros2 launch infinite_nature_ros fly.launch.py image:=my.jpg rviz:=true``."""

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.conditions import IfCondition
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from infinite_nature_ros.nodes.launching import (
    common_arguments,
    node,
    parameter_arguments,
    share,
    value_of,
)


def generate_launch_description() -> LaunchDescription:
    """Describe the generator, the autopilot, and what watches and records them if wanted."""
    return LaunchDescription([
        *common_arguments(),
        *parameter_arguments(
            mode='autopilot: safe, or official as in the release',
            folder='folder for what is recorded'),
        DeclareLaunchArgument('record', default_value='',
                              description='what to record: some of video,poses,stills,bag; '
                              'empty is nothing'),
        DeclareLaunchArgument('rviz', default_value='false',
                              description='watch the flight in RViz: true or false'),
        IncludeLaunchDescription(
            PythonLaunchDescriptionSource(share('launch', 'generator.launch.py'))),
        node('autopilot', mode=str, scene_scale=float),
        OpaqueFunction(function=_recorder),
        OpaqueFunction(function=_rviz, condition=IfCondition(LaunchConfiguration('rviz'))),
    ])


def _recorder(context: LaunchContext) -> list[OpaqueFunction]:
    """Start the recorder if something is to be recorded."""
    return [node('recorder', record=str, folder=str)] if value_of(context, 'record') else []


def _rviz(context: LaunchContext) -> list[Node]:
    """Start RViz; the topics in its configuration are relative to its namespace."""
    return [Node(package='rviz2', executable='rviz2', name='rviz', output='screen',
                 namespace=value_of(context, 'namespace'),
                 arguments=['-d', share('rviz', 'infinite_nature.rviz'),
                            '-f', f'{value_of(context, "frame_prefix")}map'])]
