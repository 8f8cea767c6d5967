"""Start the generator: ``ros2 launch infinite_nature_ros generator.launch.py image:=my.jpg``."""

from launch import LaunchDescription

from infinite_nature_ros.nodes.launching import common_arguments, node, parameter_arguments


def generate_launch_description() -> LaunchDescription:
    """Describe the node and what can be said about it on the command line."""
    return LaunchDescription([
        *common_arguments(),
        *parameter_arguments(
            image='photo to fly into: path or name of a sample',
            model='refiner: registered name or path of its weights',
            scene_scale='metres per scene unit',
            frame_prefix='put before the names of all frames, as drone1/'),
        node('generator', image=str, model=str, scene_scale=float, frame_prefix=str),
    ])
