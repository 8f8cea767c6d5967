"""Epochs: datasets whose samples depend on a global index, the seed and the files alone."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
from torch.utils.data import Dataset

# What is drawn: the order of an epoch, or what is random in a sample.
_ORDER, _SAMPLE = 0, 1


class EpochDataset(Dataset[dict[str, Any]]):
    """Samples by global indices, which count on through the epochs.

    ``len(dataset)`` is the number of samples of an epoch, index ``len(dataset)`` is the first of
    the second epoch, and so on. In each epoch everything comes once, in an order of its own. What
    an index yields depends on the seed and the files, and on nothing else: not on workers, ranks
    or batches.

    Args:
        shuffle: an order of its own for each epoch; otherwise always the files' own.
        seed: draws orders and samples; at least 0.

    Raises:
        ValueError: for a negative seed.
    """

    def __init__(self, *, shuffle: bool, seed: int) -> None:
        if seed < 0:
            raise ValueError(f'seed is {seed}; give 0 or more')
        self._shuffle = shuffle
        self._seed = seed
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, int))

    @abstractmethod
    def __len__(self) -> int:
        """Count the samples of an epoch."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Go through the first epoch."""
        return (self[index] for index in range(len(self)))

    def shard(self, rank: int = 0, ranks: int = 1, *, begin: int = 0,
              end: int | None = None) -> range:
        """Return the indices of one of several processes, the ``sampler`` of its ``DataLoader``.

        Batches that the ranks draw at the same time are together the batch that one process
        would draw.

        Args:
            rank: number of this process, from 0.
            ranks: how many there are.
            begin: first index of all ranks: what was trained already, when one goes on.
            end: behind the last index of all ranks; ``None`` is the end of the first epoch. Give
                ``begin`` plus a multiple of the batch of all ranks, so that none draws more
                batches than another.

        Raises:
            ValueError: if there is no such rank.
        """
        if not 0 <= rank < ranks:
            raise ValueError(f'rank is {rank} of {ranks}; ranks count from 0')
        return range(begin + rank, len(self) if end is None else end, ranks)

    def _draw(self, index: int) -> tuple[int, np.random.Generator]:
        """Which of the epoch's samples a global index is, and what draws the rest of it.

        Raises:
            IndexError: for a negative index.
        """
        if index < 0:
            raise IndexError(f'index is {index}; indices begin at 0 and count on through epochs')
        epoch, place = divmod(index, len(self))
        return (self._number(epoch, place),
                np.random.default_rng((self._seed, _SAMPLE, index)))

    def _number(self, epoch: int, place: int) -> int:
        """Sample at a place of an epoch."""
        if not self._shuffle:
            return place
        if self._order[0] != epoch:
            random = np.random.default_rng((self._seed, _ORDER, epoch))
            self._order = epoch, random.permutation(len(self))
        return int(self._order[1][place])
