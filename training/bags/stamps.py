"""What belongs together, by its stamps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from infinite_nature_training.bags.clip import ClipError


def stamp_of(message: Any) -> int:
    """Nanoseconds in a message's header."""
    stamp = message.header.stamp
    return stamp.sec * 10**9 + stamp.nanosec


def nearest(stamps: np.ndarray, others: np.ndarray) -> np.ndarray:
    """For each stamp, the index of the nearest other one."""
    order = np.argsort(others, kind='stable')
    ordered = others[order]
    after = np.searchsorted(ordered, stamps).clip(max=len(others) - 1)
    before = (after - 1).clip(min=0)
    closer = np.abs(stamps - ordered[before]) < np.abs(ordered[after] - stamps)
    return order[np.where(closer, before, after)]


def partners(stamps: np.ndarray, others: np.ndarray, slop: int) -> np.ndarray:
    """For each stamp, the other that is within the slop and has no nearer one; else -1."""
    closest = nearest(stamps, others)
    mutual = nearest(others, stamps)[closest] == np.arange(len(stamps))
    return np.where(mutual & (np.abs(others[closest] - stamps) <= slop), closest, -1)


def check_stamps(stamps: np.ndarray) -> None:
    """Refuse pictures of the same stamp.

    Raises:
        ClipError: if there are any.
    """
    same = np.flatnonzero(np.diff(stamps) == 0)
    if len(same):
        raise ClipError(f'{len(same) + 1} pictures share stamps, the first {stamps[same[0]]} ns; '
                        'record with the stamp of each picture in its header')


def kept_range(stamps: np.ndarray, known: Mapping[str, Sequence[bool]], slop: int) -> slice:
    """Range of pictures of which everything is known.

    Args:
        stamps: nanoseconds of the pictures.
        known: whether each has it, by name of what it may lack.
        slop: nanoseconds, to say it.

    Raises:
        ClipError: if there is none, or one in the middle lacks something.
    """
    for name, values in known.items():
        there = np.flatnonzero(values)
        if not len(there):
            raise ClipError(f'no {name} within {slop / 1e9:g} s of any picture; give more --slop, '
                            'or record them with the stamps of the pictures')
        missing = np.setdiff1d(np.arange(there[0], there[-1]), there)
        if len(missing):
            raise ClipError(
                f'{len(missing)} of {len(stamps)} pictures have no {name} within '
                f'{slop / 1e9:g} s, the first at {stamps[missing[0]]} ns; give more --slop, '
                'or cut the bag there')
    there = np.flatnonzero(np.logical_and.reduce([np.asarray(values)
                                                  for values in known.values()]))
    if not len(there):
        raise ClipError(f'no picture has both {" and ".join(known)} within {slop / 1e9:g} s')
    return slice(int(there[0]), int(there[-1]) + 1)
