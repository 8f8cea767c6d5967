"""Official weights of InfiniteNature-Zero: from the release's PyTorch file to our ``comodgan``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
import re
from typing import Any
import warnings
import zipfile
import zlib

import torch
from torch import nn, Tensor

from infinite_nature_ros.refining.comodgan import CoModRefiner
from infinite_nature_ros.refining.registry import build_network
from infinite_nature_ros.refining.stylegan2 import (
    blur_kernel,
    EqualConv,
    EqualLinear,
    StyledConv,
    ToPicture,
)
from infinite_nature_ros.refining.tensor_check import check_tensors

_GENERATOR = 'netG_ema'

# What DataParallel puts before all names.
_PARALLEL_PREFIX = 'module.'

# How the restricted reader names what it doesn't admit.
_ASKED_FOR = re.compile(r'(?:GLOBAL|Unsupported class) (\S+)')

# How PyTorch's formats begin, the new one and the old: a zip archive, and a pickle.
_ZIP, _PICKLE = b'PK\x03\x04', b'\x80'

_IMAGE_SIZE = (128, 128)

# Our name of a tensor in a layer to the release's.
_LEAVES: dict[type[nn.Module], dict[str, str]] = {
    EqualLinear: {'weight': 'weight', 'bias': 'bias'},
    EqualConv: {'weight': '0.weight', 'bias': '1.bias'},
    StyledConv: {'conv.weight': 'conv.weight',
                 'conv.modulation.weight': 'conv.modulation.weight',
                 'conv.modulation.bias': 'conv.modulation.bias',
                 'noise_strength': 'noise.weight',
                 'bias': 'activate.bias'},
    ToPicture: {'conv.weight': 'conv.weight',
                'conv.modulation.weight': 'conv.modulation.weight',
                'conv.modulation.bias': 'conv.modulation.bias',
                'bias': 'bias'},
}

# A convolution that shrinks has its filter first.
_SHRINKING_LEAVES = {'weight': '1.weight', 'bias': '2.bias'}


def is_torch_file(path: Path) -> bool:
    """Whether a file begins as those of PyTorch do, which other pickles and zip archives do too."""
    return path.is_file() and _begins_with(path, _ZIP, _PICKLE)


def read_zero_checkpoint(path: Path) -> dict[str, Tensor]:
    """Read the averaged generator of a checkpoint of the release.

    PyTorch's restricted reader is used, which admits tensors and plain containers and runs
    nothing of the file's choosing.

    Returns:
        The variables by their official names.

    Raises:
        ValueError: if the file is truncated or damaged, asks for code, or has no generator.
        OSError: if it can't be read.
    """
    content = _load(path)
    generator = content.get(_GENERATOR) if isinstance(content, dict) else None
    if not isinstance(generator, dict):
        raise ValueError(f'{path.name} is no checkpoint of InfiniteNature-Zero: it has no '
                         f'{_GENERATOR}; give the *latest.tar of the release')
    return {str(name).removeprefix(_PARALLEL_PREFIX): value for name, value in generator.items()}


def import_official_zero(variables: Mapping[str, Any], model: str = 'comodgan') -> CoModRefiner:
    """Build a network with the weights of a checkpoint of the official release.

    The mean style is not among them; it is computed as the release does whenever it starts.

    Args:
        variables: of the generator, by their official names.
        model: registered size of the co-modulated family that they belong to.

    Returns:
        The network, in eval mode; ``save_weights`` writes it.

    Raises:
        ValueError: if variables are missing, unknown, not tensors, of another shape or not
            finite, the filters are others, or the model is of another family or image size.
    """
    with torch.device('meta'):
        network = build_network(model)
    if not isinstance(network, CoModRefiner) or network.image_size != _IMAGE_SIZE:
        raise ValueError(f'model {model!r} is of another family or image size than the official '
                         "one; give 'comodgan'")
    names = _official_names(network)
    kernels = _official_kernels(network)
    own = network.state_dict()
    shapes = {theirs: _official_shape(theirs, list(own[name].shape))
              for name, theirs in names.items()}
    check_tensors(variables, shapes | dict.fromkeys(kernels, [4, 4]),
                  'these are not the variables of an InfiniteNature-Zero generator')
    for name, gain in kernels.items():
        if not torch.allclose(variables[name].float(), blur_kernel(gain), atol=1e-5):
            raise ValueError(f'{name} is another filter than that of the release')
    state = {name: variables[theirs].float().reshape(own[name].shape).contiguous()
             for name, theirs in names.items()}
    state['mean_style'] = torch.zeros(network.code_length)
    network.load_state_dict(state, assign=True)
    network.update_mean_style()
    return network.eval()


def _begins_with(path: Path, *signatures: bytes) -> bool:
    with path.open('rb') as file:
        return file.read(4).startswith(signatures)


def _load(path: Path) -> Any:
    if _begins_with(path, _ZIP):
        _check_sums(path)
    try:
        with warnings.catch_warnings():
            # Of pickles in another protocol than PyTorch's, which are refused anyway.
            warnings.simplefilter('ignore')
            return torch.load(path, map_location='cpu', weights_only=True)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # there is nothing that a damaged pickle can't make it stumble over
        if wanted := _ASKED_FOR.search(str(error)):
            raise ValueError(f'{path.name} asks for {wanted[1]}, more than tensors and plain '
                             'containers: it may be malicious, or damaged; none of it was '
                             'run') from error
        raise _unreadable(path) from error


def _check_sums(path: Path) -> None:
    """Raise a ValueError unless a zip archive is whole; PyTorch doesn't look."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise _unreadable(path) from error
    if damaged:
        raise ValueError(f'{path.name} is damaged: {damaged} does not match its check sum; fetch '
                         'it again')


def _unreadable(path: Path) -> ValueError:
    return ValueError(f'{path.name} is truncated, damaged, or no file of PyTorch; give the '
                      '*latest.tar of the release, or fetch it again')


def _official_layers(levels: int) -> Iterator[tuple[str, str]]:
    """Our path and the official one of each layer."""
    for layer in range(8):
        yield f'mapping.layers.{layer}', f'G_mapping.G_mapping.Dense{layer}'
    finest = f'{_IMAGE_SIZE[0]}x{_IMAGE_SIZE[1]}'
    for encoder in ('style_encoder', 'feature_encoder'):
        yield f'{encoder}.input', f'{encoder}.E.{finest}_0.FromRGB'
        for level in range(levels):
            side = _IMAGE_SIZE[0] >> level
            yield f'{encoder}.blocks.{level}.conv', f'{encoder}.E.{side}x{side}.Conv0'
            yield f'{encoder}.blocks.{level}.down', f'{encoder}.E.{side}x{side}.Conv1_down'
        yield f'{encoder}.last', f'{encoder}.E.4x4.Conv'
    yield 'style_encoder.linear', 'style_encoder.E.4x4.Dense0'
    yield 'synthesis.conv', 'G_synthesis.G_4x4.Conv'
    yield 'synthesis.to_picture', 'G_synthesis.G_4x4.ToRGB'
    for level in range(levels):
        scope = f'G_synthesis.G_{8 << level}x{8 << level}'
        yield f'synthesis.blocks.{level}.up', f'{scope}.Conv0_up'
        yield f'synthesis.blocks.{level}.conv', f'{scope}.Conv1'
        yield f'synthesis.blocks.{level}.to_picture', f'{scope}.ToRGB'


def _official_names(network: CoModRefiner) -> dict[str, str]:
    """Our name of each tensor to the official one."""
    names = {}
    for path, scope in _official_layers(len(network.synthesis.blocks)):
        layer = network.get_submodule(path)
        shrinking = isinstance(layer, EqualConv) and layer.down
        leaves = _SHRINKING_LEAVES if shrinking else _LEAVES[type(layer)]
        names |= {f'{path}.{own}': f'{scope}.{leaf}' for own, leaf in leaves.items()}
    return names


def _official_kernels(network: CoModRefiner) -> dict[str, float]:
    """Official names of the filters, which are constants of ours, and their sums."""
    kernels = {}
    for path, scope in _official_layers(len(network.synthesis.blocks)):
        if path.endswith('.down'):
            kernels[f'{scope}.0.kernel'] = 1.0
        elif path.endswith('.up'):
            kernels[f'{scope}.conv.blur.kernel'] = 4.0
        elif re.fullmatch(r'synthesis\.blocks\.\d+\.to_picture', path):
            kernels[f'{scope}.upsample.kernel'] = 4.0
    return kernels


def _official_shape(name: str, shape: list[int]) -> list[int]:
    """Shape of a variable of the release, which keeps some dimensions of length 1."""
    if name.endswith('.conv.weight'):
        return [1, *shape]
    return [1, *shape, 1, 1] if name.endswith('ToRGB.bias') else shape
