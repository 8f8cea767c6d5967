"""Curves of an evaluation: each figure over the frames, many flights of a variant in one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from infinite_nature_training.evaluation.drift import Limits
from infinite_nature_training.evaluation.results import FlightResult, Summary

# Figures that mean something beside the start's only: as a share of it, or less it.
RATIOS = ('sharpness', 'disparity_median', 'disparity_low', 'disparity_high')
DIFFERENCES = ('spectrum_slope',)

# Smaller ratios are as bad as this.
_LEAST_RATIO = 1e-6

Curves = dict[str, dict[str, 'Curve']]


@dataclass(frozen=True)
class Curve:
    """A figure over the frames.

    Attributes:
        frames: their numbers, ``[n]``.
        values: ``[n]``; medians where there is one of each flight.
        low: lowest flight's, ``[n]``; none where there is one figure of all flights.
        high: highest flight's likewise.
    """

    frames: np.ndarray
    values: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None

    def at(self, frame: int, slack: int = 0) -> float:
        """Value at the frame nearest to the given one; NaN if none is within ``slack``."""
        if not len(self.frames):
            return float('nan')
        nearest = int(np.abs(self.frames - frame).argmin())
        near = abs(self.frames[nearest] - frame) <= slack
        return float(self.values[nearest]) if near else float('nan')


def window_curves(summary: Summary) -> Curves:
    """Distances in windows that slide over the flights, by variant and name."""
    return {variant: {name: Curve(np.asarray(frames), np.asarray(values, dtype=float))
                      for name, (frames, values) in curves.items()}
            for variant, curves in summary.curves.items()}


def drift_curves(flights: Iterable[FlightResult]) -> Curves:
    """Drift figures and style, beside the start where it matters, by variant and name."""
    return _curves_by_variant((flight.variant, relative_figures(flight)) for flight in flights)


def comparison_curves(flights: Iterable[FlightResult]) -> Curves:
    """Errors beside real frames, by variant and name; frame 1 is the first."""
    return _curves_by_variant((flight.variant, flight.comparisons) for flight in flights
                              if flight.comparisons)


def relative_figures(flight: FlightResult) -> dict[str, np.ndarray]:
    """Drift figures of a flight and its style, ``[F]`` each, the start left out.

    What depends on the photo is a ratio to the start (``RATIOS``), NaN if that is 0, or what was
    added to it (``DIFFERENCES``).
    """
    figures = {}
    for name, values in {**flight.figures, 'style': flight.style}.items():
        start, later = values[0], values[1:].astype(float)
        if name in RATIOS:
            later = later / (start or np.nan)
        elif name in DIFFERENCES:
            later = later - start
        figures[name] = later
    return figures


def limits_of_figures(limits: Limits) -> dict[str, tuple[float, float]]:
    """Least and greatest value of the figures that ``relative_figures`` gives and that count."""
    return {'sharpness': limits.sharpness, 'spectrum_slope': (-limits.slope, limits.slope),
            'disparity_median': limits.disparity, 'sky_fraction': limits.sky}


def nearest_limit(flight: FlightResult, limits: Limits) -> tuple[float, str]:
    """How far a flight went on the way to a limit: 0 at its middle, 1 there, and to which.

    Medians over windows count, as where it is told whether a flight collapsed; no figure that was
    beyond its limit at the start.
    """
    nearness = {}
    relative = relative_figures(flight)
    for name, (least, greatest) in limits_of_figures(limits).items():
        values, bounds = relative.get(name, np.array([])), np.array([least, greatest])
        if not len(values) or (name not in RATIOS + DIFFERENCES
                               and not least <= flight.figures[name][0] <= greatest):
            continue
        if name in RATIOS:
            values, bounds = np.log(np.maximum(values, _LEAST_RATIO)), np.log(bounds)
        windows = np.lib.stride_tricks.sliding_window_view(values, min(limits.window, len(values)))
        way = np.abs(np.median(windows, axis=1) - bounds.mean()) / (np.ptp(bounds) / 2)
        nearness[name] = float(np.nan_to_num(way, nan=np.inf).max())
    name = max(nearness, key=nearness.__getitem__, default='')
    return nearness.get(name, 0.0), name


def _curves_by_variant(flights: Iterable[tuple[str, Mapping[str, np.ndarray]]]) -> Curves:
    """Curves over flights, whose figures have a value a frame, frame 1 first."""
    gathered: dict[str, dict[str, list[np.ndarray]]] = {}
    for variant, figures in flights:
        for name, values in figures.items():
            gathered.setdefault(variant, {}).setdefault(name, []).append(values)
    return {variant: {name: _over_flights(rows) for name, rows in figures.items()}
            for variant, figures in gathered.items()}


def _over_flights(rows: list[np.ndarray]) -> Curve:
    """Median, lowest and highest of flights that may be of different lengths, or have gaps."""
    table = np.full((len(rows), max(map(len, rows))), np.nan)
    for row, values in zip(table, rows, strict=True):
        row[:len(values)] = values
    measured = ~np.isnan(table).all(axis=0)
    table = table[:, measured]
    return Curve(1 + np.flatnonzero(measured), np.nanmedian(table, axis=0),
                 np.nanmin(table, axis=0), np.nanmax(table, axis=0))
