"""Bars: what a flight's figures must reach before a model is given away, and whether they do."""

from __future__ import annotations

from dataclasses import dataclass
import math

from infinite_nature_training.evaluation.curves import Curve, window_curves
from infinite_nature_training.evaluation.results import Summary

# "Clearly below" inpainting is at most this share of its distance.
_CLEARLY_BELOW = 0.8

# A window counts for a frame if its middle is at most so many frames off.
_WINDOW_SLACK = 10


@dataclass(frozen=True)
class Bar:
    """A figure and what it must reach.

    Attributes:
        text: what is measured.
        value: what it is; NaN where it wasn't measured.
        limit: what it must reach.
        least: whether the limit is the least that it may be; else it is the most.
    """

    text: str
    value: float
    limit: float
    least: bool = False

    @property
    def met(self) -> bool | None:
        """Whether it is reached; ``None`` where it wasn't measured."""
        if math.isnan(self.value):
            return None
        return self.value >= self.limit if self.least else self.value <= self.limit


def judge(summary: Summary) -> list[Bar]:
    """Hold the first variant, the model, against the bars for the one that ships.

    Where a baseline was not flown, its bar isn't measured.
    """
    rows = {row['variant']: row for row in summary.rows}
    model = next(iter(rows.values()), {})
    windows = window_curves(summary).get(model.get('variant'), {}).get('kid_w50')
    settings = summary.settings
    return [
        Bar('starts', len(settings.starts), 40, least=True),
        Bar('frames of a flight', settings.frames, 500, least=True),
        Bar('length of the shortest path, scene units', _value(model, 'path_length'), 80,
            least=True),
        Bar('real images to compare with', settings.references, 5000, least=True),
        Bar('flights that collapse', _value(model, 'collapses'), 0),
        Bar('KID of frames 1 to 100, as a share of no-refine’s',
            _share(model, rows.get('no-refine'), 'kid_100'), 0.5),
        Bar('KID of frames 1 to 100, as a share of inpaint’s',
            _share(model, rows.get('inpaint'), 'kid_100'), _CLEARLY_BELOW),
        Bar('KID in a window of 50 frames, at frame 450 as a share of that at frame 50',
            _late_share(windows), 1.5),
        Bar('KID of all frames, as a share of no-grounding’s',
            _share(model, rows.get('no-grounding'), 'kid'), 1),
        Bar('KID of all frames, as a share of no-repeat’s',
            _share(model, rows.get('no-repeat'), 'kid'), 1)]


def _value(row: dict[str, float | str], name: str) -> float:
    return float(row.get(name, math.nan))


def _share(row: dict[str, float | str], other: dict[str, float | str] | None, name: str) -> float:
    return _divide(_value(row, name), _value(other or {}, name))


def _late_share(windows: Curve | None) -> float:
    if windows is None:
        return math.nan
    return _divide(windows.at(450, _WINDOW_SLACK), windows.at(50, _WINDOW_SLACK))


def _divide(value: float, other: float) -> float:
    """Share; NaN where there is none: an unbiased distance of like images may be below 0."""
    return value / other if other > 0 else math.nan
