"""The registry of refiners by name; a new family is one file and one entry of ``_FAMILIES``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
import importlib
from typing import Any, TypeVar

from infinite_nature_ros.refining.refiner import Refiner

# Modules of this package that register models when they are imported.
_FAMILIES = ('aerial', 'comodgan', 'inpaint', 'no_refine', 'residual', 'shipped', 'spade')

DEFAULT_MODEL = 'inpaint'
"""What the name 'default' stands for."""

_Factory = TypeVar('_Factory', bound=Callable[..., Refiner])


@dataclass(frozen=True)
class ModelEntry:
    """A registered model.

    Attributes:
        factory: builds the refiner; takes the options of the model as keyword arguments.
        needs_weights: true for a network that is of no use before weights are loaded into it.
    """

    factory: Callable[..., Refiner]
    needs_weights: bool


_models: dict[str, ModelEntry] = {}


def register_model(name: str, *, needs_weights: bool = False) -> Callable[[_Factory], _Factory]:
    """Decorate a class or function that builds a refiner, to make it known by a name.

    Args:
        name: what people type, words joined by hyphens.
        needs_weights: whether ``create_model`` must refuse the bare name, because an untrained
            network would fly into noise.

    Raises:
        ValueError: if the name is taken.
    """
    if name in _models or name == 'default':
        raise ValueError(f'model {name!r} is registered already; choose another name')

    def register(factory: _Factory) -> _Factory:
        _models[name] = ModelEntry(factory, needs_weights)
        return factory

    return register


def list_models() -> list[str]:
    """Names of all registered models, those that need a weights file included, sorted."""
    for family in _FAMILIES:
        importlib.import_module(f'infinite_nature_ros.refining.{family}')
    return sorted(_models)


def model_entry(name: str) -> ModelEntry:
    """Look up a registered model.

    Raises:
        ValueError: if there is no such model.
    """
    if name not in list_models():
        raise ValueError(f'no model is named {name!r}; give one of {", ".join(list_models())}, '
                         "'default', or the path of a .safetensors file")
    return _models[name]


def build_network(name: str, **options: Any) -> Refiner:
    """Build a registered model as it is before any weights are loaded: for training and tests.

    Args:
        name: a registered name.
        options: arguments of the model's own factory, such as ``image_size``.

    Raises:
        ValueError: if there is no such model, or it refuses the options.
    """
    return model_entry(name).factory(**options)
