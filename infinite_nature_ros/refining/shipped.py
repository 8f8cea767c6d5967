"""Shipped models: trained weights that come with the package, each known by a name of its own."""

from __future__ import annotations

from functools import partial
from importlib import resources
from pathlib import Path

from infinite_nature_ros.refining.factory import create_model
from infinite_nature_ros.refining.registry import register_model

# Weights files in assets/ by name; one more model is one more file and one more line.
_WEIGHTS = {'aerial': 'aerial_small.safetensors'}


def register_shipped(folder: Path) -> None:
    """Register the models whose weights are in a folder: they are ready to fly by their names."""
    for name, file in _WEIGHTS.items():
        if (folder / file).is_file():
            register_model(name)(partial(create_model, folder / file))


register_shipped(Path(str(resources.files('infinite_nature_ros'))) / 'assets')
