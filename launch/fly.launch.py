"""Start both nodes: ``ros2 launch infinite_nature_ros fly.launch.py image:=my.jpg``."""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from launch import LaunchDescription


def generate_launch_description() -> LaunchDescription:
    """Describe the two nodes and what can be said about them on the command line."""
    config = Path(get_package_share_directory('infinite_nature_ros')) / 'config'
    arguments = [
        DeclareLaunchArgument('namespace', default_value='infinite_nature',
                              description='namespace of both nodes'),
        DeclareLaunchArgument('image', default_value='',
                              description='photo to fly into; empty is the default sample'),
        DeclareLaunchArgument('model', default_value='default',
                              description='refiner: registered name or path of its weights'),
        DeclareLaunchArgument('scene_scale', default_value='1.0',
                              description='metres per scene unit'),
        DeclareLaunchArgument('mode', default_value='safe',
                              description='autopilot: safe or official'),
    ]
    return LaunchDescription([
        *arguments,
        _node('generator', config, image=str, model=str, scene_scale=float),
        _node('autopilot', config, mode=str, scene_scale=float),
    ])


def _node(name: str, config: Path, **parameters: type) -> Node:
    """Node with its parameter file, and the launch arguments that go before it."""
    given = {parameter: ParameterValue(LaunchConfiguration(parameter), value_type=kind)
             for parameter, kind in parameters.items()}
    return Node(package='infinite_nature_ros', executable=f'{name}_node', name=name,
                namespace=LaunchConfiguration('namespace'), output='screen',
                parameters=[str(config / f'{name}.yaml'), given])
