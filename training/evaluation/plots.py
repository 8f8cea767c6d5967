"""Pictures of curves for the report: SVG that can be read on a light and on a dark page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
import io

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
import numpy as np

from infinite_nature_training.evaluation.curves import Curve


@dataclass(frozen=True)
class Theme:
    """Colours of a page: of the text, of the grid, and one for each curve in turn."""

    text: str
    grid: str
    curves: tuple[str, ...]


# Okabe and Ito's colours, which the colour-blind can tell apart, darker or brighter where they
# would not stand out from the page.
LIGHT = Theme('#1f2328', '#d0d7de', ('#0072b2', '#d55e00', '#00805c', '#b3508a', '#8a6d00',
                                     '#3a8fc4', '#5b5b5b'))
DARK = Theme('#e6edf3', '#3d444d', ('#56b4e9', '#ff9b54', '#2bc79b', '#e79bc8', '#f0e442',
                                    '#9ecbff', '#b8b8b8'))

_DASHES = ('-', '--', '-.', ':')

# A ratio is drawn within these bounds: what has collapsed would flatten all others.
_RATIO_BOUNDS = (0.05, 20.0)

_PANEL = (4.0, 2.6)


@dataclass(frozen=True)
class Panel:
    """What is drawn in one picture.

    Attributes:
        title: what it shows.
        curves: by variant.
        limits: lines that the curves should stay between, if there are any.
        ratio: whether the values are ratios, which are drawn on a logarithmic axis.
    """

    title: str
    curves: Mapping[str, Curve]
    limits: tuple[float, float] | None = None
    ratio: bool = False

    def describe(self) -> str:
        """Say in words what is to be seen, for those who can't see it."""
        ends = [f'{variant} {_number(curve.values[0])} to {_number(curve.values[-1])}'
                for variant, curve in self.curves.items() if len(curve.values)]
        return f'{self.title}, first to last: {"; ".join(ends)}.'


def draw(panels: Sequence[Panel], variants: Sequence[str], theme: Theme, columns: int) -> bytes:
    """Draw panels in rows over one legend.

    Args:
        panels: at least one.
        variants: all names, in the order of their colours; the first one's range is shaded.
        theme: colours.
        columns: panels in a row.

    Returns:
        An SVG file with nothing behind the curves; the same bytes for the same panels.
    """
    rows = -(-len(panels) // columns)
    style = {'svg.hashsalt': 'evaluation', 'svg.fonttype': 'none', 'font.size': 9,
             'font.family': 'sans-serif', 'text.color': theme.text, 'axes.labelcolor': theme.text,
             'xtick.color': theme.text, 'ytick.color': theme.text, 'axes.edgecolor': theme.text,
             'grid.color': theme.grid, 'axes.facecolor': 'none', 'figure.facecolor': 'none'}
    with rc_context(style):
        figure = Figure((columns * _PANEL[0], rows * _PANEL[1] + 0.5), layout='constrained')
        axes = figure.subplots(rows, columns, squeeze=False).flat
        handles = {}
        for panel, axis in zip(panels, axes, strict=False):
            handles |= _draw_panel(axis, panel, variants, theme)
        for axis in axes[len(panels):]:
            axis.set_axis_off()
        figure.legend(handles.values(), handles, loc='outside lower center', frameon=False,
                      ncols=2 * columns)
        file = io.BytesIO()
        FigureCanvasSVG(figure).print_svg(file, metadata={'Date': None})
    return file.getvalue()


def _draw_panel(axis: Axes, panel: Panel, variants: Sequence[str],
                theme: Theme) -> dict[str, object]:
    """Draw one; return what the legend shows, by name."""
    axis.set_title(panel.title, fontsize=10)
    axis.set_xlabel('frame')
    axis.grid(linewidth=0.6)
    handles = {}
    for place, variant in enumerate(variants):
        curve = panel.curves.get(variant)
        if curve is None:
            continue
        colour = theme.curves[place % len(theme.curves)]
        handles[variant], = axis.plot(
            curve.frames, curve.values, _DASHES[place % len(_DASHES)], color=colour,
            linewidth=1.8 if place == 0 else 1.2, zorder=3 if place == 0 else 2)
        if place == 0 and curve.low is not None:
            shade = axis.fill_between(curve.frames, curve.low, curve.high, color=colour,
                                      alpha=0.18, linewidth=0)
            handles[f'range of {variant}'] = shade
    if panel.ratio:
        _set_ratio_scale(axis)
    for limit in panel.limits or ():
        handles['limit'] = axis.axhline(limit, color=theme.text, linewidth=0.9,
                                        linestyle=(0, (1, 1.5)))
    return handles


def _set_ratio_scale(axis: Axes) -> None:
    """Let equal factors be equal steps, from the start's own value up and down."""
    axis.set_yscale('log')
    low, high = axis.get_ylim()
    axis.set_ylim(np.clip(low, _RATIO_BOUNDS[0], 0.4), np.clip(high, 2.5, _RATIO_BOUNDS[1]))
    ticks = [tick for tick in (0.05, 0.1, 0.25, 0.5, 1, 2, 4, 10, 20)
             if axis.get_ylim()[0] <= tick <= axis.get_ylim()[1]]
    axis.set_yticks(ticks, [f'{tick:g}' for tick in ticks])
    axis.minorticks_off()


def _number(value: float) -> str:
    return f'{value:.3g}' if np.isfinite(value) else 'unknown'
