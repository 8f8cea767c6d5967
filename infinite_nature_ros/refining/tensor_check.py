"""Whether tensors that were read from a file are those of a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

# An error names so many problems; those of another network's file would go on for pages.
_NAMED = 5


def check_tensors(given: Mapping[str, Any], shapes: Mapping[str, Sequence[int]],
                  complaint: str) -> None:
    """Raise unless the given tensors are finite and exactly the expected ones.

    Args:
        given: what was read, by name.
        shapes: of the expected tensors, by name.
        complaint: how the error's message begins.

    Raises:
        ValueError: naming some of what is missing, unknown, no tensor, of another shape or not
            finite, and how much of that there is.
    """
    problems = [f'{name} is missing' for name in shapes if name not in given]
    problems += [f'{name} is unknown' for name in given if name not in shapes]
    problems += [f'{name} {flaw}' for name, shape in shapes.items()
                 if name in given and (flaw := _flaw(given[name], list(shape)))]
    if problems:
        raise ValueError(f'{complaint}: {"; ".join(problems[:_NAMED])} '
                         f'({len(problems)} problems in all)')


def _flaw(value: Any, shape: list[int]) -> str:
    """Tell what is wrong with a tensor, '' if nothing is."""
    if not isinstance(value, Tensor):
        return 'is no tensor'
    if list(value.shape) != shape:
        return f'is {list(value.shape)} instead of {shape}'
    return '' if torch.isfinite(value).all() else 'has NaN or infinity'
