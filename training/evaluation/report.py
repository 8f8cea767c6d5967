"""Report of an evaluation: one page that needs nothing beside it, and its figures as CSV."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
import csv
from dataclasses import dataclass
from importlib import resources
import math
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from infinite_nature_training.evaluation.bars import judge
from infinite_nature_training.evaluation.curves import (
    comparison_curves,
    Curves,
    drift_curves,
    limits_of_figures,
    nearest_limit,
    RATIOS,
    window_curves,
)
from infinite_nature_training.evaluation.drift import Limits
from infinite_nature_training.evaluation.plots import DARK, draw, LIGHT, Panel
from infinite_nature_training.evaluation.results import FlightResult, Settings, Summary

# Sheets of so many starts, and pictures of so many of the worst flights of each variant.
_SHEETS = 10
_WORST_SHOWN = 8

# Settings that have a place of their own on the page.
_OWN_PLACE = ('crops', 'references', 'machine', 'commit')

_SMALL_WINDOW = 'fid_w20'


@dataclass(frozen=True)
class Column:
    """Column of the table.

    Attributes:
        key: of the row, or of published.csv.
        title: head of the column.
        digits: behind the point.
        better: whether less (-1) or more (1) is better; 0 where it is no merit.
    """

    key: str
    title: str
    digits: int = 0
    better: int = 0


COLUMNS = (
    Column('fid_50', 'FID-50', 1, -1), Column('psnr', 'PSNR', 1, 1), Column('ssim', 'SSIM', 2, 1),
    Column('lpips', 'LPIPS', 2, -1), Column('mse', 'MSE', 3, -1),
    Column('fid_100', 'FID-100', 1, -1), Column('fid_w20', 'FID-w20', 1, -1),
    Column('kid_100_x10', 'KID-100 ×10', 2, -1), Column('style_x1e5', 'Style ×10⁵', 2, -1))
OWN_COLUMNS = (
    Column('flights', 'Flights'), Column('collapses', 'Collapsed', 0, -1), *COLUMNS,
    Column('fid', 'FID, all', 1, -1), Column('kid_x10', 'KID, all ×10', 2, -1),
    Column('images', 'Images'), Column('compared', 'Compared'),
    Column('path_length', 'Shortest path', 1), Column('seconds', 's/frame', 2))

TITLES = {
    'fid_w20': 'FID, window of 20 frames', 'fid_w50': 'FID, window of 50 frames',
    'kid_w20': 'KID, window of 20 frames', 'kid_w50': 'KID, window of 50 frames',
    'sharpness': 'sharpness, ratio to the start',
    'spectrum_slope': 'slope of the spectrum, less the start’s',
    'disparity_median': 'median disparity, ratio to the start',
    'disparity_low': '5 % disparity, ratio to the start',
    'disparity_high': '95 % disparity, ratio to the start',
    'sky_fraction': 'sky, share of the frame', 'hole_fraction': 'holes, share of the frame',
    'histogram_distance': 'colours, distance to the start',
    'style': 'style, distance to the start × 10⁵',
    'mse': 'MSE', 'psnr': 'PSNR', 'ssim': 'SSIM', 'lpips': 'LPIPS'}


def write_report(summary: Summary, folder: str | Path) -> Path:
    """Write ``report.html``, ``table.csv`` and ``curves.csv``.

    The page holds its pictures; it loads nothing from anywhere. ``table.csv`` has the rows as
    they are, ``curves.csv`` a line for each value that is drawn.

    Args:
        summary: what to report; anything in it may be empty.
        folder: where to write; it is made if it isn't there.

    Returns:
        The page's path.

    Raises:
        OSError: if a file can't be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    sections = {'windows': window_curves(summary), 'drift': drift_curves(summary.flights),
                'comparisons': comparison_curves(summary.flights)}
    _write_table(summary.rows, folder / 'table.csv')
    _write_curves(sections.values(), folder / 'curves.csv')
    page = folder / 'report.html'
    page.write_text(_render(summary, sections), encoding='utf-8')
    return page


def published_rows() -> list[dict[str, str]]:
    """Figures of the papers as they were printed, a row each; '' where there is none."""
    with resources.files(__package__).joinpath('published.csv').open(encoding='utf-8') as file:
        return list(csv.DictReader(file))


def _write_table(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row)) or ['variant']
    with path.open('w', newline='', encoding='utf-8') as file:
        writer = csv.DictWriter(file, names, lineterminator='\n')
        writer.writeheader()
        writer.writerows(rows)


def _write_curves(sections: Iterable[Curves], path: Path) -> None:
    """Write a line a value; the lowest and highest flight's beside it where there are such."""
    with path.open('w', newline='', encoding='utf-8') as file:
        writer = csv.writer(file, lineterminator='\n')
        writer.writerow(['variant', 'figure', 'frame', 'value', 'low', 'high'])
        for section in sections:
            for variant, curves in section.items():
                for name, curve in curves.items():
                    nothing = [''] * len(curve.frames)
                    low, high = ([nothing, nothing] if curve.low is None
                                 else [curve.low, curve.high])
                    for line in zip(curve.frames, curve.values, low, high, strict=True):
                        writer.writerow([variant, name, *line])


def _render(summary: Summary, sections: Mapping[str, Curves]) -> str:
    """Fill the template."""
    template = resources.files(__package__).joinpath('report.html.jinja')
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True,
                              lstrip_blocks=True)
    names = [str(row['variant']) for row in summary.rows]
    return environment.from_string(template.read_text(encoding='utf-8')).render(
        settings=summary.settings, names=names, bars=judge(summary),
        **_own_table(summary, sections['windows']), published=_published_tables(),
        plots={name: _plot(curves, names) for name, curves in sections.items() if curves},
        sheets=_sheets(summary, names), worst=_worst(summary, names),
        asked=_asked(summary.settings),
        collapsed={name: sum(name == entry[0] for entry in summary.collapses) for name in names},
        flights=len(summary.flights))


def _asked(settings: Settings) -> dict[str, str]:
    """Tell the settings that are numbers and words; lists stand by themselves."""
    return {name.replace('_', ' '): str(value) for name, value in vars(settings).items()
            if isinstance(value, bool | int | float | str) and name not in _OWN_PLACE}


def _own_table(summary: Summary, windows: Curves) -> dict[str, Any]:
    """Columns that hold anything, and the rows: name, and of each cell its text, and if best."""
    rows = []
    for row in summary.rows:
        curve = windows.get(str(row['variant']), {}).get(_SMALL_WINDOW)
        early = curve.values[curve.frames <= 100] if curve is not None else ()
        rows.append({**row, 'fid_w20': sum(early) / len(early) if len(early) else math.nan,
                     'kid_100_x10': 10 * _number(row, 'kid_100'),
                     'kid_x10': 10 * _number(row, 'kid'), 'style_x1e5': _number(row, 'style')})
    columns = [column for column in OWN_COLUMNS
               if not all(math.isnan(_number(row, column.key)) for row in rows)]
    best = [_best(rows, column) for column in columns]
    return {'columns': columns, 'table': [
        (row['variant'], [(_text(_number(row, column.key), column.digits),
                           _number(row, column.key) == top)
                          for column, top in zip(columns, best, strict=True)])
        for row in rows]}


def _published_tables() -> list[dict[str, Any]]:
    """Make a table for each paper and data set, with the columns that it has."""
    tables: dict[str, list[dict[str, str]]] = {}
    for row in published_rows():
        tables.setdefault(f'{row["source"]}: {row["data"]}', []).append(row)
    blocks = []
    for title, rows in tables.items():
        columns = [column for column in COLUMNS if any(row[column.key] for row in rows)]
        blocks.append({'title': title, 'columns': columns, 'rows': [
            (row['variant'], [row[column.key] for column in columns]) for row in rows]})
    return blocks


def _best(rows: Sequence[Mapping[str, Any]], column: Column) -> float | None:
    """Best value of a column where there is something to choose between."""
    values = [value for row in rows if math.isfinite(value := _number(row, column.key))]
    if not column.better or len(set(values)) < 2:
        return None
    return max(values, key=lambda value: value * column.better)


def _number(row: Mapping[str, Any], key: str) -> float:
    return float(row.get(key, math.nan))


def _text(value: float, digits: int) -> str:
    return '–' if math.isnan(value) else f'{value:.{digits}f}'


def _plot(curves: Curves, names: Sequence[str]) -> dict[str, Any]:
    """Pictures of a section for a light and a dark page, and what they show in words."""
    figures = dict.fromkeys(figure for by_name in curves.values() for figure in by_name)
    ordered = sorted(figures, key=lambda name: list(TITLES).index(name) if name in TITLES else 99)
    limits = limits_of_figures(Limits())
    panels = [Panel(TITLES.get(name, name), {variant: by_name[name] for variant, by_name
                                             in curves.items() if name in by_name},
                    limits.get(name), ratio=name in RATIOS) for name in ordered]
    columns = min(len(panels), 3 if len(panels) > 4 else 2)
    return {'light': _data_uri(draw(panels, names, LIGHT, columns), 'svg+xml'),
            'dark': _data_uri(draw(panels, names, DARK, columns), 'svg+xml'),
            'columns': columns, 'text': ' '.join(panel.describe() for panel in panels)}


def _sheets(summary: Summary, names: Sequence[str]) -> list[dict[str, Any]]:
    """Contact sheets of starts evenly out of all: a row a variant, a column a frame."""
    worlds: dict[tuple[str, int], dict[str, FlightResult]] = {}
    for flight in summary.flights:
        worlds.setdefault((flight.start, flight.seed), {})[flight.variant] = flight
    first_seeds = {start: (start, seed) for start, seed in reversed(sorted(worlds))}
    chosen = sorted(first_seeds.values())
    step = max(1, len(chosen) / _SHEETS)
    chosen = [chosen[int(place * step)] for place in range(min(_SHEETS, len(chosen)))]
    return [{'start': start, 'seed': seed, **_sheet(worlds[start, seed], names)}
            for start, seed in chosen]


def _sheet(flights: Mapping[str, FlightResult], names: Sequence[str]) -> dict[str, Any]:
    frames = sorted({frame for flight in flights.values() for frame in flight.thumbnails})
    return {'frames': frames, 'rows': [(name, [_thumbnail(flights[name], frame)
                                               for frame in frames])
                                       for name in names if name in flights]}


def _worst(summary: Summary, names: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Worst flights by variant with why, the first few with pictures.

    Those that collapsed; where few of the first variant's did, those that came nearest to it
    follow.
    """
    collapses = {tuple(key): '; '.join(reasons) for *key, reasons in summary.collapses}
    lists: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    ways = [(flight, *nearest_limit(flight, Limits())) for flight in summary.flights]
    ways.sort(key=lambda entry: (_key(entry[0]) in collapses, entry[1]), reverse=True)
    for flight, way, figure in ways:
        name, why = flight.variant, collapses.get(_key(flight))
        shown = len(lists[name]) < _WORST_SHOWN
        if why or (shown and name == names[0]):
            lists[name].append({
                'start': flight.start, 'seed': flight.seed, 'why': why or _held(way, figure),
                'pictures': _sheet({name: flight}, [name]) if shown else None})
    return lists


def _key(flight: FlightResult) -> tuple[str, str, int]:
    return flight.variant, flight.start, flight.seed


def _held(way: float, figure: str) -> str:
    """Say how near a flight came to a limit, and to which."""
    of = TITLES[figure].partition(',')[0] if figure else ''
    return f'held; came {way:.0%} of the way to a limit of {of}' if of else 'held'


def _thumbnail(flight: FlightResult, frame: int) -> str | None:
    jpeg = flight.thumbnails.get(frame)
    return _data_uri(jpeg, 'jpeg') if jpeg is not None else None


def _data_uri(picture: bytes, kind: str) -> Markup:
    return Markup(f'data:image/{kind};base64,{base64.b64encode(picture).decode()}')
