"""``infinite-nature info``: what is installed here, what isn't, and why, for bug reports."""

from __future__ import annotations

from collections.abc import Callable
import functools
import importlib
from importlib import metadata
import os
from pathlib import Path
import platform
import sys

PACKAGE = __name__.partition('.')[0]

_LIBRARIES = ('torch', 'warp', 'numpy', 'cv2', 'av', 'PIL', 'OpenEXR', 'matplotlib', 'safetensors',
              'transforms3d', 'tqdm', 'tyro')
_ROS = ('rclpy', 'diagnostic_msgs', 'geometry_msgs', 'nav_msgs', 'rosgraph_msgs', 'sensor_msgs',
        'std_msgs', 'std_srvs')
# What is done with them, where they are there.
_OPTIONAL = {
    'tf2_msgs': 'for /tf and /tf_static, comes with a ROS distribution',
    'accelerate': "for training, pip install 'infinite_nature_ros[train]'",
    'tensorboard': "for training, pip install 'infinite_nature_ros[train]'",
    'jinja2': "for evaluations, pip install 'infinite_nature_ros[eval]'",
    'torchmetrics': "for evaluations, pip install 'infinite_nature_ros[eval]'",
    'openvino': "for speed on CPUs, pip install 'infinite_nature_ros[openvino]'",
    'cv_bridge': 'for seed images in rare encodings, comes with a ROS distribution',
    'launch_ros': 'for launch files, comes with a ROS distribution',
    'mcap': "for bags, pip install 'infinite_nature_ros[data]'",
    'rosbags': "for bags, pip install 'infinite_nature_ros[data]'",
    'pycolmap': "for bags of videos, pip install 'infinite_nature_ros[data]'",
    'ray': "for conversions on many machines, pip install 'infinite_nature_ros[ray]'",
    'timm': "for MiDaS, pip install 'infinite_nature_ros[midas]'",
    'pytorch3d': 'for the backend of that name, built from source',
}


def info() -> int:
    """Say what is installed here, what is missing and why: put it into a bug report.

    Example: infinite-nature info

    Returns:
        Exit code: 0.
    """
    print(report())
    return 0


def report() -> str:
    """Text of all sections; what can't be found out says so and stops nothing."""
    sections = {'': _system, 'libraries': lambda: _versions(_LIBRARIES), 'ROS 2': _ros,
                'devices': _devices, 'rendering backends': _backends, 'models': _models,
                'disparity sources': _sources, 'optional': _optional}
    return '\n\n'.join(_section(title, tell) for title, tell in sections.items())


def _section(title: str, tell: Callable[[], dict[str, str]]) -> str:
    try:
        rows = tell()
    except Exception as error:  # whatever is broken here is what the report is for
        rows = {'unknown': _reason(error)}
    width = max(map(len, rows), default=0)
    lines = [f'  {name:{width}}  {value}' for name, value in rows.items()]
    return '\n'.join([title, *lines] if title else lines)


def _system() -> dict[str, str]:
    try:
        version = metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        version = 'not installed, run from its sources'
    try:
        name = platform.freedesktop_os_release()['PRETTY_NAME']
    except (OSError, KeyError):
        name = 'unknown distribution'
    return {PACKAGE: f'{version} ({Path(__file__).parents[1]})',
            'python': f'{platform.python_version()} ({sys.executable})',
            'system': f'{name}, {platform.platform()}',
            'CPUs': f'{len(os.sched_getaffinity(0))} of {os.cpu_count()} usable'}


def _versions(modules: tuple[str, ...]) -> dict[str, str]:
    return {module: _outcome(lambda module=module: _version(module)) for module in modules}


def _outcome(find_out: Callable[[], str]) -> str:
    """Return what is found out, or why it isn't."""
    try:
        return find_out()
    except Exception as error:  # a broken library can raise anything when it is imported
        return f'MISSING: {_reason(error)}'


def _reason(error: Exception) -> str:
    first_line = str(error).strip().partition('\n')[0]
    return first_line if isinstance(error, ImportError) else f'{type(error).__name__} {first_line}'


def _version(module: str) -> str:
    """Version of a module that can be imported."""
    imported = importlib.import_module(module)
    distributions = _distributions().get(module)
    if distributions:
        return metadata.version(distributions[0])
    return str(getattr(imported, '__version__', 'installed'))


@functools.cache
def _distributions() -> dict[str, list[str]]:
    """Modules to the distributions that brought them; takes a moment to find out."""
    return dict(metadata.packages_distributions())


def _ros() -> dict[str, str]:
    def middleware() -> str:
        import rclpy
        return rclpy.get_rmw_implementation_identifier()

    distribution = os.environ.get('ROS_DISTRO', 'none is sourced; wheels from PyPI do as well')
    domain = os.environ.get('ROS_DOMAIN_ID', 'not set')
    return {'distribution': distribution, **_versions(_ROS), 'middleware': _outcome(middleware),
            'ROS_DOMAIN_ID': domain}


def _devices() -> dict[str, str]:
    import torch

    rows = {'cpu': f'{torch.get_num_threads()} threads'}
    for number in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(number)
        rows[f'cuda:{number}'] = f'{device.name}, {device.total_memory / 2**30:.0f} GiB'
    if not torch.cuda.is_available():
        rows['cuda'] = f'MISSING: {_why_no_cuda()}'
    return rows


def _why_no_cuda() -> str:
    import torch

    if torch.version.cuda is None:
        return f'torch {torch.__version__} is built without CUDA'
    try:
        torch.cuda.init()
    except Exception as error:  # RuntimeError, or AssertionError, by torch's build
        return _reason(error)
    return 'torch finds no device'


def _backends() -> dict[str, str]:
    from infinite_nature_ros.rendering.backends import get_backend, list_backends

    def tell(name: str) -> str:
        get_backend(name)
        return 'installed'

    return {name: _outcome(lambda name=name: tell(name)) for name in list_backends()}


def _models() -> dict[str, str]:
    from infinite_nature_ros.refining import list_models
    from infinite_nature_ros.refining.registry import DEFAULT_MODEL, model_entry

    def tell(name: str) -> str:
        if model_entry(name).needs_weights:
            return 'needs weights: give the path of its .safetensors file instead of the name'
        return 'ready' + (', the default' if name == DEFAULT_MODEL else '')

    return {name: tell(name) for name in list_models()}


def _sources() -> dict[str, str]:
    from infinite_nature_ros.depth_sources import list_sources

    return dict.fromkeys(list_sources(), 'registered')


def _optional() -> dict[str, str]:
    return {module: f'{version}; {_OPTIONAL[module]}'
            for module, version in _versions(tuple(_OPTIONAL)).items()}
