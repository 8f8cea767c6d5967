"""What a measurement was made on and with: the lines that stand above every benchmark's figures."""

from __future__ import annotations

from importlib import metadata
import os
from pathlib import Path
import platform
import subprocess

import torch

_PACKAGES = ('torch', 'warp-lang', 'numpy', 'openvino', 'pytorch3d')


def describe() -> str:
    """Machine, commit and versions, a line each."""
    versions = [f'Python {platform.python_version()}']
    versions += [f'{name} {version}' for name in _PACKAGES if (version := _version(name))]
    return (f'machine: {_machine()}\n'
            f'commit: {_commit()}\n'
            f'versions: {", ".join(versions)}')


def _machine() -> str:
    """Processor, cores this process may use, GPU where there is one."""
    cores = len(os.sched_getaffinity(0))
    parts = [f'{_processor()}, {cores} core{"s" * (cores != 1)}']
    if torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name())
    return ', '.join(parts)


def _processor() -> str:
    """Name of the processor; its architecture where the system doesn't tell."""
    cpuinfo = Path('/proc/cpuinfo')
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding='utf-8').splitlines():
            name, _, value = line.partition(':')
            if name.strip() == 'model name':
                return value.strip()
    return platform.machine()


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
