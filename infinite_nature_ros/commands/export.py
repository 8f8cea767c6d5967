"""``infinite-nature export``: the averaged weights of a training run as a file to fly with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro


def export(
    run: Annotated[Path, tyro.conf.Positional],
    out: Path = Path('model.safetensors'),
    checkpoint: str = 'best',
    half: bool = False,
) -> int:
    """Write the averaged weights of a training run, with where they come from, as one file.

    Example: infinite-nature export run --out coast.safetensors

    Args:
        run: folder of the run, the --out of infinite-nature train.
        out: file to write; what was there is replaced.
        checkpoint: best (by validation), newest, or the name of one, as step-00000500.
        half: write half precision: a file of half the size, as for weights that are to ship.

    Returns:
        Exit code: 0.

    Raises:
        ValueError: if there is no such run or checkpoint, or half precision can't hold it.
        OSError: if the file can't be written.
    """
    from infinite_nature_training import runs

    chosen = runs.export(run, out, checkpoint, half=half)
    print(f'{out}: weights of {chosen.name}. To fly with it:\n'
          f'infinite-nature fly --model {out}')
    return 0
