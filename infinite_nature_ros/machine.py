"""The machine that runs this, in words: what measurements are told with."""

from __future__ import annotations

import os
from pathlib import Path
import platform

import torch


def describe_machine() -> str:
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
