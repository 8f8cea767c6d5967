"""What a measurement was made on and with: the lines that stand above every benchmark's figures."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
import platform
import subprocess

from infinite_nature_ros.machine import describe_machine

_PACKAGES = ('torch', 'warp-lang', 'numpy', 'openvino', 'pytorch3d')


def describe() -> str:
    """Machine, commit and versions, a line each."""
    versions = [f'Python {platform.python_version()}']
    versions += [f'{name} {version}' for name in _PACKAGES if (version := _version(name))]
    return (f'machine: {describe_machine()}\n'
            f'commit: {_commit()}\n'
            f'versions: {", ".join(versions)}')


def _commit() -> str:
    """Short hash of the checkout this file lies in, marked where files differ from it."""
    root = Path(__file__).parent
    try:
        return subprocess.run(['git', 'describe', '--always', '--dirty', '--exclude=*'], cwd=root,
                              check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return 'unknown (not a git checkout)'


def _version(package: str) -> str | None:
    """Version of an installed package, or ``None``."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


if __name__ == '__main__':
    print(describe())
