"""Official weights: from the release's TensorFlow variables to our ``infinite-nature``."""

from __future__ import annotations

from collections.abc import Mapping
import re

import numpy as np
import torch
from torch import nn, Tensor

from infinite_nature_ros.refining.registry import build_network
from infinite_nature_ros.refining.spade import SpadeRefiner, spectral_convolutions
from infinite_nature_ros.refining.tensor_check import check_tensors

_SCOPES = {
    'encoder': 'generator/spade_encoder',
    'generator': 'generator/spade_network_noenc/spade_generator',
}


def import_official(variables: Mapping[str, np.ndarray],
                    model: str = 'infinite-nature') -> SpadeRefiner:
    """Build a network with the weights of a checkpoint of the official release.

    Spectral norm is folded as the release computes it at test time: with one power iteration
    from the stored ``u``.

    Args:
        variables: name to array, in TensorFlow's layouts. Variables of other networks, such as
            the discriminator's, and of the optimiser are not looked at.
        model: registered size of the SPADE family that they belong to.

    Returns:
        The network, in eval mode; ``save_weights`` writes it.

    Raises:
        ValueError: if variables are missing, have another shape or are not finite, or the model
            is of another family.
    """
    with torch.device('meta'):
        network = build_network(model)
    if not isinstance(network, SpadeRefiner):
        raise ValueError(f'model {model!r} is of another family than the official one; give '
                         "'infinite-nature' or another size of it")
    layers = _official_layers(network)
    variables = _pick_variables(variables, layers)
    state = {f'{path}.{leaf}': tensor
             for path, (scope, shapes) in layers.items()
             for leaf, tensor in _layer_state(scope, shapes, variables).items()}
    _flatten_channels_first(state, network)
    network.load_state_dict({name: tensor.float().contiguous() for name, tensor in state.items()},
                            assign=True)
    return network.eval()


def _official_layers(network: SpadeRefiner) -> dict[str, tuple[str, dict[str, list[int]]]]:
    """Layer path to its official scope and the shapes of the variables in it."""
    spectral = spectral_convolutions(network)
    layers = {}
    for path, module in network.named_modules():
        if not isinstance(module, nn.Conv2d | nn.Linear):
            continue
        part, rest = path.split('.', 1)
        scope = '/'.join([_SCOPES[part], *re.sub(r'\.(\d+)', r'_\1', rest).split('.')])
        outputs, inputs, *kernel = module.weight.shape
        shapes = {'kernel': [*kernel, inputs, outputs]}
        if module.bias is not None:
            shapes['bias'] = [outputs]
        if path in spectral:
            shapes['u'] = [1, outputs]
        else:  # only layers under spectral norm keep their variables at their own scope
            scope += '/dense' if isinstance(module, nn.Linear) else '/conv2d'
        layers[path] = (scope, shapes)
    return layers


def _pick_variables(variables: Mapping[str, np.ndarray],
                    layers: Mapping[str, tuple[str, dict[str, list[int]]]],
                    ) -> dict[str, Tensor]:
    """Take the variables of the given layers, each once: they may be read from a file.

    Raises:
        ValueError: naming what is missing, has another shape or is not finite.
    """
    expected = {f'{scope}/{leaf}': shape
                for scope, shapes in layers.values() for leaf, shape in shapes.items()}
    picked = {name: torch.tensor(variables[name]) for name in expected if name in variables}
    check_tensors(picked, expected, 'these are not the variables of an Infinite Nature checkpoint')
    return picked


def _layer_state(scope: str, shapes: Mapping[str, list[int]],
                 variables: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weight and bias of one layer in PyTorch's layout, float64, spectral norm folded."""
    values = {leaf: variables[f'{scope}/{leaf}'].double() for leaf in shapes}
    kernel = values['kernel']
    if 'u' in values:
        kernel = kernel / _spectral_norm(kernel.flatten(0, -2), values['u'])
    # HWIO to OIHW, or [in, out] to [out, in]
    state = {'weight': kernel.movedim((-1, -2), (0, 1))}
    if 'bias' in values:
        state['bias'] = values['bias']
    return state


def _spectral_norm(matrix: Tensor, u: Tensor) -> Tensor:
    """Estimate the largest singular value of ``[N, out]`` by one power iteration from ``u``."""
    v = nn.functional.normalize(u @ matrix.T, dim=1)
    # The new u is the normalised v @ matrix, so the value v @ matrix @ u.T is its length.
    return (v @ matrix).norm()


def _flatten_channels_first(state: dict[str, Tensor], network: SpadeRefiner) -> None:
    """Reorder the ends of the dense layers that see a grid, in place: from [h, w, c] to ours."""
    def reorder(name: str, dim: int, grid: tuple[int, int, int]) -> None:
        channels, height, width = grid
        in_grid = state[name].unflatten(dim, (height, width, channels))
        state[name] = in_grid.movedim(dim + 2, dim).flatten(dim, dim + 2)

    reorder('generator.linear.weight', 0, network.generator.start_grid)
    reorder('generator.linear.bias', 0, network.generator.start_grid)
    reorder('encoder.linear_mu.weight', 1, network.encoder.end_grid)
    reorder('encoder.linear_logvar.weight', 1, network.encoder.end_grid)
