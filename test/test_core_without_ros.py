"""The core imports no ROS, and the public names are there."""

import subprocess
import sys

_PROBE = """
import sys
class NoROS:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('rclpy', 'sensor_msgs', 'geometry_msgs', 'std_msgs', 'nav_msgs'):
            raise ImportError(f'{name} is ROS')
sys.meta_path.insert(0, NoROS())
import pkgutil, importlib, infinite_nature_ros
skipped = ('nodes', 'commands', 'pytorch3d_backend', '__main__')
for module in pkgutil.walk_packages(infinite_nature_ros.__path__, 'infinite_nature_ros.'):
    if not any(name in module.name.split('.') for name in skipped):
        importlib.import_module(module.name)
        print(module.name)
for name in infinite_nature_ros.__all__:
    getattr(infinite_nature_ros, name)
"""


def test_core_needs_no_ros() -> None:
    done = subprocess.run([sys.executable, '-c', _PROBE], capture_output=True, text=True,
                          timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    modules = done.stdout.split()
    assert 'infinite_nature_ros.flight' in modules
    assert 'infinite_nature_ros.recording' in modules
