"""Disparity from MiDaS (Ranftl et al., 2020 and 2021), the paper's source, through torch.hub.

The first use downloads the code and the weights of a model into torch.hub's cache
(``$TORCH_HOME/hub``); from then on nothing needs the network. A loaded model stays in memory.

Whoever asks for ``midas`` by name agrees to run the code of its repository, which is pinned to a
release; ``midas:MiDaS_small`` and ``midas:MiDaS`` run that of their backbone's repository too. The
source ``auto`` downloads nothing: it takes MiDaS only if it lies in the cache. On machines that
never reach the network, ``$INFINITE_NATURE_MIDAS`` names a folder with the repository.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
import os
from pathlib import Path
import re
import socket

import torch
from torch import nn, Tensor
from torch.nn import functional

from infinite_nature_ros.camera import MAX_DISPARITY, MIN_DISPARITY
from infinite_nature_ros.depth_sources.registry import register_source
from infinite_nature_ros.pixels import to_pixels

REPOSITORY_VARIABLE = 'INFINITE_NATURE_MIDAS'
"""Environment variable with another repository, ``owner/name:ref``, or a folder that holds one."""

# A release, not a branch: the same code tomorrow, and nobody needs to ask what the branch is.
_REPOSITORY = 'isl-org/MiDaS:v3_1'

# Once per flight quality counts more than time. DPT_Large is a few per cent better and thrice as
# large, MiDaS_small a good deal worse; those of v2.1 need a second repository.
_DEFAULT_MODEL = 'DPT_Hybrid'

# Without it, a network that swallows packets would hold up a node for minutes.
_TIMEOUT_SECONDS = 10.0

# A picture with relatively less depth than this is flat: stretching would show rounding errors.
_LEAST_RELIEF = 1e-3

_ADVICE = 'choose the disparity source horizon or file:PATH, which work offline'


@dataclass(frozen=True)
class _Model:
    """What is to be known of a model beside its name in the repository.

    Attributes:
        transform: attribute of the repository's ``transforms`` that prepares its input.
        weights: file in torch.hub's folder of checkpoints.
        backbone: repository that the model itself loads code from.
    """

    transform: str
    weights: str
    backbone: str | None = None


# Those of release 3.1 that keep the aspect ratio and run with today's timm.
_MODELS = {
    'DPT_Hybrid': _Model('dpt_transform', 'dpt_hybrid_384.pt'),
    'DPT_Large': _Model('dpt_transform', 'dpt_large_384.pt'),
    'MiDaS': _Model('default_transform', 'midas_v21_384.pt', 'facebookresearch/WSL-Images'),
    'MiDaS_small': _Model('small_transform', 'midas_v21_small_256.pt',
                          'rwightman/gen-efficientnet-pytorch'),
}


def midas_disparity(image: Tensor, model: str = _DEFAULT_MODEL) -> Tensor:
    """Disparity as MiDaS sees it, stretched to the contract (release, demo notebook).

    Args:
        image: ``[B, 3, H, W]`` RGB in [0, 1].
        model: one of the repository's models, as 'DPT_Hybrid'.

    Returns:
        ``[B, 1, H, W]``: the farthest of each picture is 0.01, the nearest 1; a picture without any
        depth in it is far all over.

    Raises:
        ValueError: if the model can't be loaded, naming the sources that need no network.
    """
    network, transform = _load(model, _repository())
    network = network.to(image.device)
    with torch.no_grad():
        # One by one: a world doesn't depend on its neighbours, not even in the last bit.
        raw = torch.cat([network(transform(picture).to(image.device))
                         for picture in to_pixels(image)])
    # Antialiased for the mean over what a pixel covers, bilinear for no overshoot at edges.
    raw = functional.interpolate(raw[:, None].float(), image.shape[2:], mode='bilinear',
                                 antialias=True)
    low, high = raw.amin((1, 2, 3), keepdim=True), raw.amax((1, 2, 3), keepdim=True)
    span = torch.maximum(high - low, high.abs() * _LEAST_RELIEF + _LEAST_RELIEF)
    return MIN_DISPARITY + (raw - low) / span * (MAX_DISPARITY - MIN_DISPARITY)


def _load_cached() -> None:
    """Load the default model without the network.

    Raises:
        ValueError: if it isn't in the cache, or can't be loaded from there.
    """
    repository = _repository()
    # Whoever names a folder vouches for what is in it.
    if not (Path(repository).is_dir() or _is_cached(_DEFAULT_MODEL, repository)):
        raise ValueError('MiDaS is not in the cache of torch.hub; fly once with the disparity '
                         'source midas to download it')
    _load(_DEFAULT_MODEL, repository)


register_source('midas', prepare=_load_cached)(midas_disparity)
for _name in _MODELS:
    register_source(f'midas:{_name}')(partial(midas_disparity, model=_name))


def _repository() -> str:
    """``owner/name:ref``, or a folder."""
    repository = os.environ.get(REPOSITORY_VARIABLE) or _REPOSITORY
    if not Path(repository).is_dir() and not re.fullmatch(r'[\w.-]+/[\w.-]+:[\w./-]+', repository):
        raise ValueError(f'{REPOSITORY_VARIABLE} is {repository!r}; give a folder that is there, '
                         f'or a repository and a tag or branch as {_REPOSITORY}; {_ADVICE}')
    return repository


def _is_cached(model: str, repository: str) -> bool:
    """Whether code and weights lie where torch.hub puts them."""
    cache = Path(torch.hub.get_dir())
    return ((cache / re.sub('[/:]', '_', repository)).is_dir()
            and (cache / 'checkpoints' / _MODELS[model].weights).is_file())


# One model is enough for one process; each takes up to 1.4 GB.
@lru_cache(maxsize=1)
def _load(model: str, repository: str) -> tuple[nn.Module, Callable]:
    """Network and the transform from uint8 ``[H, W, 3]`` to its input ``[1, 3, h, w]``."""
    try:
        with _impatient_network():
            network = _from_hub(repository, model, _MODELS[model].backbone)
            transforms = _from_hub(repository, 'transforms')
            return network.eval(), getattr(transforms, _MODELS[model].transform)
    except ImportError as error:
        raise ValueError(f'MiDaS needs a package that is missing ({error}); pip install timm '
                         f'torchvision, or {_ADVICE}') from error
    # The repository's code and what it downloads may fail in any way.
    except Exception as error:
        reason = ' '.join(f'{type(error).__name__}: {error}'.split())
        raise ValueError(f'MiDaS model {model!r} cannot be loaded from {repository} ({reason}); '
                         f'{_ADVICE}') from error


def _from_hub(repository: str, entry: str, backbone: str | None = None) -> nn.Module:
    """Whatever an entry of the repository yields."""
    if Path(repository).is_dir():
        return torch.hub.load(repository, entry, source='local')
    # Trusted because asked for, see above: a node has nobody to prompt. A tag or branch can't be
    # a fork's, so GitHub's rate-limited interface needn't be asked about it.
    trusted = {'trust_repo': True, 'skip_validation': True, 'verbose': False}
    if backbone:
        torch.hub.list(backbone, **trusted)
    return torch.hub.load(repository, entry, **trusted)


@contextmanager
def _impatient_network() -> Iterator[None]:
    """Give up on servers that don't answer; torch.hub has no such setting."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
