"""A checkpoint as the InfiniteNature-Zero release's, with invented weights.

The published one can't be had where this was written; ``golden/zero_variables.txt`` has its names
and shapes. ``python test/zero_checkpoint.py zero_latest.tar`` writes one of the full size, 249 MB.
"""

from __future__ import annotations

import ast
from pathlib import Path
import sys

import numpy as np
import torch
from torch import Tensor

LISTING = Path(__file__).parent / 'golden' / 'zero_variables.txt'

SHRINK = 16
"""What the channels are divided by for the small checkpoint of the tests."""


def variables(shrink: int = SHRINK) -> dict[str, Tensor]:
    """Invent the generator's variables; always the same ones."""
    # Unlike a newer generator's, the stream of this one is the same for ever.
    random = np.random.RandomState(20220722)
    rows = [line.split('\t') for line in LISTING.read_text().splitlines() if line[0] != '#']
    return {name: torch.from_numpy(_values(name, ast.literal_eval(shape), shrink, random))
            for name, shape in rows}


def write(path: Path, shrink: int = SHRINK, **options: bool) -> None:
    """Write a checkpoint with what else the release's has in it."""
    torch.save({'netG_ema': variables(shrink), 'global_step': 7, 'epoch': 1}, path, **options)


def _values(name: str, shape: list[int], shrink: int,
            random: np.random.RandomState) -> np.ndarray:
    """Values of a variable, of the size that they have in a trained network."""
    if name.endswith('kernel'):
        line = np.array([1, 3, 3, 1]) / 8
        enlarging = 'synthesis' in name
        return np.float32(np.outer(line, line) * (4 if enlarging else 1))
    # All numbers of channels are 64 and more, and nothing else is.
    shape = [side // shrink if side >= 64 else side for side in shape]
    values = invent(random, shape)
    if 'Dense' in name and 'mapping' in name:
        values *= 100 if name.endswith('weight') else 10
    elif name.endswith(('bias', 'noise.weight')):
        values *= 0.2
    elif name.endswith('ToRGB.conv.weight'):
        values *= 0.2  # more would paint black and white alone
    if name.endswith('modulation.bias'):
        values += 1
    return values.astype(np.float32)


def invent(random: np.random.RandomState, shape: list[int]) -> np.ndarray:
    return random.standard_normal(shape)


if __name__ == '__main__':
    write(Path(sys.argv[1]), shrink=1)
