"""What the benchmarks make for the docs: tables, and sheets small enough for a repository."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from infinite_nature_ros.frame import Frame
from infinite_nature_ros.pixels import to_pixels
from infinite_nature_ros.recording import colourise, contact_sheet

_QUALITY = 75


def print_table(head: list[str], rows: Iterable[list[str]]) -> None:
    """Print a Markdown table."""
    for cells in (head, ['---'] * len(head), *rows):
        print('|', ' | '.join(cells), '|')


def rgbd(frame: Frame) -> np.ndarray:
    """RGB above disparity, uint8 ``[2 H, W, 3]``."""
    return np.concatenate([to_pixels(frame.image)[0],
                           colourise(frame.disparity[0, 0].cpu().numpy())])


def write_sheet(pictures: dict[int, np.ndarray], path: Path, columns: int = 4) -> None:
    """Write pictures, uint8 ``[H, W, 3]`` RGB by their numbers, as a contact sheet (JPEG)."""
    sheet = cv2.cvtColor(contact_sheet(pictures, columns), cv2.COLOR_RGB2BGR)
    cv2.imwrite(str(path), sheet, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
