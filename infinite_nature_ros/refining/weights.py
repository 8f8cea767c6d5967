"""Weights files: safetensors that say in their metadata which network they belong to."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass
import json
import os
from pathlib import Path
from typing import Any

from safetensors import safe_open, SafetensorError
from safetensors.torch import save_file
import torch
from torch import nn, Tensor
from torch.nn.utils import parametrize

from infinite_nature_ros.refining.registry import build_network
from infinite_nature_ros.refining.tensor_check import check_tensors

# Everything sits under one key: safetensors writes several in an order that varies by run.
_METADATA_KEY = 'infinite_nature_ros'


@dataclass(frozen=True)
class Header:
    """What a weights file says about itself.

    Attributes:
        config: the arguments of ``build_network``: ``name``, and options such as ``image_size``.
        provenance: where the weights come from: data, training run, licence.
    """

    config: dict[str, Any]
    provenance: str


def save_weights(network: nn.Module, path: str | Path, *, provenance: str,
                 half: bool = False) -> None:
    """Write a network's weights, plain: parametrisations such as spectral norm are folded.

    The file appears when it is complete; what was there before is replaced then.

    Args:
        network: a network with a ``config`` attribute, the arguments of ``build_network``.
        path: file to write, ending in ``.safetensors``.
        provenance: where the weights come from: data, training run, licence.
        half: write float16, a file of half the size; ``load_weights`` makes float32 of it.

    Raises:
        ValueError: if the path has another ending, or, with ``half``, a weight is beyond float16.
        OSError: if it can't be written.
    """
    path = _check_extension(path)
    header = json.dumps(asdict(Header(network.config, provenance)))
    tensors = {name: tensor.detach().cpu().contiguous()
               for name, tensor in _plain_state_dict(network).items()}
    if half:
        tensors = {name: _halved(name, tensor) for name, tensor in tensors.items()}
    partial = path.with_name(f'{path.name}.{os.getpid()}.partial')
    try:
        save_file(tensors, partial, metadata={_METADATA_KEY: header})
        partial.replace(path)
    except SafetensorError as error:
        raise OSError(f'{path} cannot be written: {error}') from error
    finally:
        partial.unlink(missing_ok=True)


def load_weights(path: str | Path) -> nn.Module:
    """Build the network that a weights file is for, with its weights, float32, on the CPU.

    Returns:
        The network, in eval mode.

    Raises:
        ValueError: if the file is missing, damaged, of another kind or from elsewhere, or its
            tensors are not the network's, or not finite.
    """
    config = read_header(path).config
    try:
        with torch.device('meta'):  # draws no random numbers and fills no memory
            network = build_network(**config)
    except (TypeError, ValueError) as error:
        raise ValueError(f'{path} is for a network that cannot be built here: {error}') from error
    with _open(path) as file:
        tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
    check_tensors(tensors, shapes, f'{path} does not fit its network')
    network.load_state_dict(tensors, assign=True)
    return network.eval()


def read_header(path: str | Path) -> Header:
    """Read what a weights file says about itself, without its tensors.

    Raises:
        ValueError: if the file is missing, damaged, of another kind or from elsewhere.
    """
    with _open(path) as file:
        metadata = file.metadata() or {}
    try:
        return Header(**json.loads(metadata[_METADATA_KEY]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f'{path} does not say which network it is for; give a file written by '
                         'infinite_nature_ros (refining.save_weights)') from error


def _halved(name: str, tensor: Tensor) -> Tensor:
    """Turn a tensor into float16, if that can hold it."""
    halved = tensor.half()
    if not torch.isfinite(halved).all():
        raise ValueError(f'{name} has values up to {tensor.abs().max():g}, beyond the range of '
                         f'float16 ({torch.finfo(torch.float16).max:g}); save it without half')
    return halved


def _check_extension(path: str | Path) -> Path:
    path = Path(path).expanduser()
    if path.suffix != '.safetensors':
        raise ValueError(f'{path} is not a .safetensors file; pickles and checkpoints (.pt, .pth, '
                         '.ckpt, ...) can run code and are never opened: convert them first')
    return path


def _open(path: str | Path) -> safe_open:
    """Open a weights file for reading."""
    path = _check_extension(path)
    if not path.is_file():
        raise ValueError(f'there is no weights file {path}; check the path')
    try:
        return safe_open(path, framework='pt')
    except SafetensorError as error:
        raise ValueError(f'{path} is damaged or no safetensors file ({error}); '
                         'fetch or write it again') from error


def _plain_state_dict(network: nn.Module) -> dict[str, Tensor]:
    """State dict in which every parametrised tensor is the plain one that it amounts to."""
    network = copy.deepcopy(network).eval()  # in training mode, spectral norm would iterate on
    state = {name: tensor for name, tensor in network.state_dict().items()
             if '.parametrizations.' not in name}
    for path, module in network.named_modules():
        if parametrize.is_parametrized(module):
            state |= {f'{path}.{name}': getattr(module, name) for name in module.parametrizations}
    return state
