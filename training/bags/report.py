"""Report of a check: what was found in a bag, and the table of many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
import math
import os
from pathlib import Path
from typing import Any

from infinite_nature_training.bags.consistency import WarpErrors


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        text: what, in words.
        fails: whether the bag can't be used; otherwise it only isn't the schema to the letter.
    """

    text: str
    fails: bool = True


@dataclass(frozen=True)
class Report:
    """What is known of a bag after its check.

    Attributes:
        path: the bag.
        frames: frames of the clip; 0 if it can't be read.
        seconds: from the first to the last.
        size: height and width of the pictures.
        with_disparity: frames with disparity.
        with_points: frames with points.
        stride: frames from the source to the target of a warp; 0 where nothing is warped.
        errors: means over the warped pairs; ``None`` where there is nothing to warp.
        findings: what is wrong.
    """

    path: Path
    frames: int = 0
    seconds: float = 0.0
    size: tuple[int, int] = (0, 0)
    with_disparity: int = 0
    with_points: int = 0
    stride: int = 0
    errors: WarpErrors | None = None
    findings: tuple[Finding, ...] = ()

    def passes(self, strict: bool = False) -> bool:
        """Whether there is nothing wrong; with ``strict``, not even a detail."""
        return not any(finding.fails or strict for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """All of it for JSON, where NaN is null."""
        values = asdict(self)
        if self.errors is not None:
            values['errors'] = {name: value if math.isfinite(value) else None
                                for name, value in values['errors'].items()}
        return {**values, 'path': str(self.path), 'passes': self.passes()}


def table(reports: Sequence[Report], strict: bool = False) -> str:
    """One line per bag, then what is wrong, bag by bag.

    Bags have their paths below the folder that they have in common.
    """
    above = os.path.commonpath([report.path.parent for report in reports])
    rows = [('bag', 'frames', 'seconds', 'size', 'warped', 'static', 'disparity', 'result')]
    rows += [_row(report, os.path.relpath(report.path, above), strict) for report in reports]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ['  '.join(cell.ljust(width) if place in (0, len(row) - 1) else cell.rjust(width)
                       for place, (cell, width) in enumerate(zip(row, widths, strict=True)))
             .rstrip() for row in rows]
    for report in reports:
        if report.findings:
            lines += ['', str(report.path)]
            lines += [f'  {"problem" if finding.fails else "remark "}  {finding.text}'
                      for finding in report.findings]
    return '\n'.join(lines)


def _row(report: Report, name: str, strict: bool) -> tuple[str, ...]:
    height, width = report.size
    errors = report.errors
    result = 'ok' if report.passes(strict) else 'failed'
    if not report.frames:
        return (name, *[''] * 6, result)
    warped = ('', '') if errors is None else (f'{errors.photometric:.4f}', f'{errors.static:.4f}')
    disparity = 'no disparity' if not report.with_disparity else (
        '' if errors is None else f'{errors.disparity:.1%}')
    return (name, str(report.frames), f'{report.seconds:.1f}', f'{width} x {height}',
            *warped, disparity, result)
