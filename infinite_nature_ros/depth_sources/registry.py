"""The registry of disparity sources; a new source is one file and one entry of ``_MODULES``."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
import importlib
from pathlib import Path
from typing import TypeVar
import warnings

import torch
from torch import Tensor

from infinite_nature_ros.camera import MAX_DISPARITY, MIN_DISPARITY
from infinite_nature_ros.depth_sources.file import read_disparity

# Modules of this package that register sources when they are imported.
_MODULES = ('horizon', 'midas')

# What 'auto' stands for: the first of these that is ready without the network.
_PREFERRED = ('midas', 'horizon')

_FILE_PREFIX = 'file:'

Source = Callable[..., Tensor]
"""Takes images ``[B, 3, H, W]`` in [0, 1], returns disparity ``[B, 1, H, W]``."""

_S = TypeVar('_S', bound=Source)

# All of them take the sky as well; those that were registered without it get none.
_sources: dict[str, Callable[[Tensor, Tensor | None], Tensor]] = {}

_preparations: dict[str, Callable[[], None]] = {}


def register_source(name: str, *, prepare: Callable[[], None] | None = None,
                    takes_sky: bool = False) -> Callable[[_S], _S]:
    """Decorate a function from images to disparity, to make it known by a name.

    Args:
        name: name of the source.
        prepare: readies the source without the network, or raises ``ValueError``; for a source
            that 'auto' may find missing.
        takes_sky: call it with the sky ``[B, 1, H, W]`` too, or ``None`` where nobody knows it.

    Raises:
        ValueError: if the name is taken.
    """
    if name in _sources or name in ('auto', 'file'):
        raise ValueError(f'disparity source {name!r} is registered already; choose another name')

    def register(source: _S) -> _S:
        _sources[name] = source if takes_sky else lambda image, sky: source(image)
        if prepare is not None:
            _preparations[name] = prepare
        return source

    return register


def list_sources() -> list[str]:
    """Names that ``estimate_disparity`` takes beside 'auto'; 'file' wants ``file:PATH``."""
    return sorted([*_load_sources(), 'file'])


def estimate_disparity(image: Tensor, source: str | Path = 'auto',
                       sky: Tensor | None = None) -> Tensor:
    """Disparity of the first frame of a flight.

    Args:
        image: ``[B, 3, H, W]`` RGB in [0, 1].
        source: a name of ``list_sources()``, 'auto' for MiDaS if it's in the cache and the
            horizon otherwise, or a file, as a path or ``file:PATH``; the file serves every image
            of the batch.
        sky: ``[B, 1, H, W]`` in [0, 1] where it is known already: sources that would look for it
            take this one.

    Returns:
        ``[B, 1, H, W]`` in [0.01, 1], sky at 0.01.

    Raises:
        ValueError: for an unknown source, an image of another shape, a file that can't be used,
            or a source that yields something other than finite disparity of the image's size.
    """
    if not isinstance(image, Tensor) or image.dim() != 4 or image.shape[1] != 3:
        given = tuple(image.shape) if isinstance(image, Tensor) else type(image).__name__
        raise ValueError(f'image is {given}; give RGB in [0, 1] as a tensor [B, 3, H, W]')
    disparity = _find_source(source)(image, sky)
    expected = (len(image), 1, *image.shape[2:])
    if disparity.shape != expected or not torch.isfinite(disparity).all():
        raise ValueError(f'disparity source {str(source)!r} yields {tuple(disparity.shape)} or '
                         f'values that are not finite; it must yield {expected}')
    return disparity.to(image).clamp(MIN_DISPARITY, MAX_DISPARITY)


def is_ready(name: str) -> bool:
    """Tell whether a source is there and works without the network: MiDaS does once it's cached."""
    if name not in _load_sources():
        return False
    try:
        _preparations.get(name, lambda: None)()
    except ValueError:
        return False
    return True


def _load_sources() -> dict[str, Callable[[Tensor, Tensor | None], Tensor]]:
    for module in _MODULES:
        importlib.import_module(f'{__package__}.{module}')
    return _sources


def _find_source(source: str | Path) -> Callable[[Tensor, Tensor | None], Tensor]:
    sources = _load_sources()
    name = str(source)
    if name == 'auto':
        name = _best_ready()
    if name in sources:
        return sources[name]
    path = Path(name.removeprefix(_FILE_PREFIX))
    # A word without a suffix is more likely a mistyped name than a file.
    if isinstance(source, Path) or name.startswith(_FILE_PREFIX) or path.suffix or path.exists():
        return lambda image, sky: read_disparity(path, *image.shape[2:]).expand(
            len(image), -1, -1, -1)
    raise ValueError(f'there is no disparity source {name!r}; choose from auto, '
                     f'{", ".join(sorted(sources))} or file:PATH (npy, 16-bit PNG, EXR, official '
                     'pkl)')


def _best_ready() -> str:
    """Name of the preferred source, or of the last one if those before it aren't ready."""
    *better, last = _PREFERRED
    for name in better:
        try:
            _preparations[name]()
        except ValueError as error:
            _warn_once(f"disparity source 'auto' falls back from {name} to {last}: {error}")
        else:
            return name
    return last


@cache
def _warn_once(message: str) -> None:
    """Warn, but not again at every new photo of a flight."""
    warnings.warn(message, stacklevel=1)
