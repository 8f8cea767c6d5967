"""What a training run has learned, beside doing nothing and filling: refiners, and their sheets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
import tempfile

import numpy as np
import torch
from torch import Tensor

from infinite_nature_ros.pixels import to_pixels
from infinite_nature_ros.refining import create_model, Refiner
from infinite_nature_training.runs import export, read_config

_ROWS = 6


def load_candidates(run: Path, checkpoint: str, unrefined: str) -> dict[str, Refiner]:
    """Refiners that are compared, by their titles.

    Args:
        run: folder of the training run.
        checkpoint: best, newest, or the name of one.
        unrefined: title of what isn't refined at all.
    """
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / 'run.safetensors'
        name = export(run, weights, checkpoint).name
        return {unrefined: create_model('no-refine'), 'inpaint': create_model('inpaint'),
                f'{read_config(run).model}, {name}': create_model(weights)}


@torch.no_grad()
def draw_rows(batches: Sequence[Mapping[str, object]],
              pictures_of: Callable[[dict[str, Tensor]], list[Tensor]]) -> np.ndarray:
    """Draw a row of pictures for the first sample of some batches.

    Args:
        batches: as a ``DataLoader`` makes them.
        pictures_of: pictures ``[3, H, W]`` in [0, 1] of a batch of one.

    Returns:
        uint8 ``[h, w, 3]`` RGB.
    """
    rows = []
    for batch in batches[::max(1, len(batches) // _ROWS)][:_ROWS]:
        first = {name: value[:1] for name, value in batch.items() if isinstance(value, Tensor)}
        rows.append(torch.cat(pictures_of(first), dim=2))
    return to_pixels(torch.cat(rows, dim=1))
