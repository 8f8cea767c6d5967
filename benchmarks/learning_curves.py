"""Learning curves of training runs, out of their TensorBoard logs, in one picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import matplotlib.pyplot as plt
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
import tyro

# What is drawn, a panel each: the log's name and what it is.
_PANELS = {
    'validation/l1_1': 'L1, held out, step 1', 'validation/l1_5': 'L1, held out, step 5',
    'validation/perceptual_1': 'VGG, held out, step 1',
    'validation/perceptual_5': 'VGG, held out, step 5',
    'loss/discriminator': 'discriminator (weighted)',
    'loss/pool_adversarial': "pool's adversarial (weighted)"}

# Losses of single batches jump: each point of their curve is the mean of this many.
_WINDOW = 20


def draw(runs: Annotated[tuple[Path, ...], tyro.conf.Positional], picture: Path) -> None:
    """Draw errors on held-out clips and adversarial losses over the iterations.

    Example: python benchmarks/learning_curves.py run other_run --picture curves.png

    Args:
        runs: folders of training runs.
        picture: file to write.
    """
    logs = {run.name: EventAccumulator(str(run / 'log')).Reload() for run in runs}
    shown = [name for name in _PANELS
             if any(name in log.Tags()['scalars'] for log in logs.values())]
    figure, axes = plt.subplots((len(shown) + 1) // 2, 2, squeeze=False, layout='constrained',
                                figsize=(9, 2.4 * ((len(shown) + 1) // 2)))
    for axis, name in zip(axes.flat, shown, strict=False):
        for number, (title, log) in enumerate(logs.items()):
            if name in log.Tags()['scalars']:
                axis.plot(*_curve(log, name), label=title, color=f'C{number}')
        if name.startswith('validation'):
            axis.set_yscale('log')
            axis.yaxis.set_minor_formatter('{x:.3g}')
            axis.tick_params(which='both', labelsize=8)
        axis.set_title(_PANELS[name], fontsize=10)
        axis.set_xlabel('iterations')
        axis.grid(alpha=0.3)
    axes.flat[0].legend(fontsize=8)
    for axis in axes.flat[len(shown):]:
        axis.set_axis_off()
    figure.savefig(picture, dpi=100)


def _curve(log: EventAccumulator, name: str) -> tuple[list[int], list[float]]:
    """Read iterations and values; losses are smoothed."""
    events = log.Scalars(name)
    window = 1 if name.startswith('validation') else min(_WINDOW, len(events))
    places = range(window - 1, len(events), max(1, window // 4))
    means = [sum(event.value for event in events[place - window + 1:place + 1]) / window
             for place in places]
    return [events[place].step for place in places], means


if __name__ == '__main__':
    tyro.cli(draw)
