"""From a model's name or path to a refiner that is ready to fly."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from infinite_nature_ros.refining.refiner import Refiner
from infinite_nature_ros.refining.registry import (
    build_network,
    DEFAULT_MODEL,
    list_models,
    model_entry,
)
from infinite_nature_ros.refining.weights import load_weights


def create_model(name_or_path: str | Path, **options: Any) -> Refiner:
    """Create a refiner by its registered name, or from a weights file.

    Args:
        name_or_path: a name of ``list_models()``, 'default', or the path of a ``.safetensors``
            file, which says itself what model it belongs to.
        options: arguments of a named model's own factory; a weights file takes none.

    Raises:
        ValueError: if there is no such model or file, the file can't be used, or the model is a
            network and no weights were given.
    """
    name = DEFAULT_MODEL if name_or_path == 'default' else name_or_path
    if _is_path(name):
        if options:
            raise ValueError(f'options {sorted(options)} were given with the weights file {name}; '
                             'leave them out, the file holds its own')
        return load_weights(name)
    if model_entry(name).needs_weights:
        raise ValueError(f'model {name!r} is a network without weights of its own; give the path '
                         f'of a .safetensors file trained for it (build_network({name!r}) makes '
                         'an untrained one)')
    return build_network(name, **options)


def _is_path(name_or_path: str | Path) -> bool:
    """Whether a path is meant; a registered name stays a name even if a file is called so."""
    if isinstance(name_or_path, Path):
        return True
    looks_like_path = os.sep in name_or_path or Path(name_or_path).suffix != ''
    return name_or_path not in list_models() and (looks_like_path or Path(name_or_path).exists())
