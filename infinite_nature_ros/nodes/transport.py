"""What the transport carries: Fast DDS' shared memory is too small for large images."""

from __future__ import annotations

import os
from pathlib import Path

from rclpy.impl.rcutils_logger import RcutilsLogger
from rclpy.utilities import get_rmw_implementation_identifier

LARGE_DATA_PROFILE = Path(__file__).parents[1] / 'assets' / 'fastdds_large_data.xml'
"""Fast DDS profile with shared memory for large images."""

# Shared memory of a Fast DDS participant unless a profile says otherwise.
_DEFAULT_SEGMENT = 512 * 1024

# rgb8, two of 32FC1, mono8.
_BYTES_PER_PIXEL = 3 + 4 + 4 + 1

# Fast DDS 2 (Jazzy) reads the first, Fast DDS 3 (Kilted) the second.
_PROFILE_VARIABLES = ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE')


def is_too_large(height: int, width: int) -> bool:
    """Whether the images of one frame exceed what Fast DDS carries, as it's set up now."""
    return (height * width * _BYTES_PER_PIXEL > _DEFAULT_SEGMENT
            and get_rmw_implementation_identifier().startswith('rmw_fastrtps')
            and not any(os.environ.get(name) for name in _PROFILE_VARIABLES))


def warn_if_too_large(logger: RcutilsLogger, height: int, width: int) -> None:
    """Say what to do where best-effort subscribers would lose images without a word."""
    if is_too_large(height, width):
        logger.warning(
            f'the images of a frame take {height * width * _BYTES_PER_PIXEL // 1024} KiB, and '
            f"Fast DDS' shared memory {_DEFAULT_SEGMENT // 1024} KiB: best-effort subscribers "
            'will lose images, and others wait longer; start all nodes with '
            f'{_PROFILE_VARIABLES[0]} (in Kilted {_PROFILE_VARIABLES[1]}) set to '
            f'{LARGE_DATA_PROFILE}')


def allow_large_images(height: int, width: int) -> None:
    """Have this process and its children use the large data profile, if such images need it.

    Call it before ``rclpy.init``: Fast DDS reads profiles once.
    """
    if is_too_large(height, width):
        os.environ |= dict.fromkeys(_PROFILE_VARIABLES, str(LARGE_DATA_PROFILE))
