"""``infinite-nature export``: the averaged weights of a training run as a file to fly with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro


def export(
    run: Annotated[Path, tyro.conf.Positional],
    out: Path = Path('model.safetensors'),
    checkpoint: str = 'best',
) -> int:
    """Write the averaged weights of a training run, with where they come from, as one file.

    Example: infinite-nature export run --out coast.safetensors

    Args:
        run: folder of the run, the --out of infinite-nature train.
        out: file to write; what was there is replaced.
        checkpoint: best (by validation), newest, or the name of one, as step-00000500.

    Returns:
        Exit code: 0.

    Raises:
        ValueError: if there is no such run or checkpoint.
        OSError: if the file can't be written.
    """
    from infinite_nature_training import runs

    chosen = runs.export(run, out, checkpoint)
    print(f'{out}: weights of {chosen.name}. To fly with it:\n'
          f'infinite-nature fly --model {out}')
    return 0
