"""Weights files: what is saved comes back, and nothing else is ever loaded or run."""

from __future__ import annotations

import json
from pathlib import Path
import pickle

import pytest
from safetensors.torch import load_file, save_file
import torch
from torch import nn

from infinite_nature_ros.refining import (
    build_network,
    create_model,
    load_weights,
    read_header,
    save_weights,
)
from infinite_nature_ros.refining.spade import add_spectral_norm

TINY = {'name': 'infinite-nature-tiny', 'image_size': [64, 96]}


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return build_network(**TINY)


@pytest.fixture
def path(network, tmp_path) -> Path:
    """A good weights file."""
    path = tmp_path / 'tiny.safetensors'
    save_weights(network, path, provenance='random numbers, seed 0')
    return path


def rewrite(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Exchange the tensors of a weights file, keeping what it says about itself."""
    header = {'config': TINY, 'provenance': ''}
    save_file(tensors, path, metadata={'infinite_nature_ros': json.dumps(header)})


def test_what_is_saved_comes_back(network, path):
    loaded = load_weights(path)
    expected = network.state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name])
               for name, tensor in loaded.state_dict().items())
    assert loaded.config == TINY
    assert not loaded.training
    assert all(parameter.requires_grad for parameter in loaded.parameters())


def test_the_header_says_size_and_provenance(path):
    header = read_header(path)
    assert header.config == TINY
    assert header.provenance == 'random numbers, seed 0'


def test_saving_twice_writes_the_same_bytes(network, path, tmp_path):
    again = tmp_path / 'again.safetensors'
    save_weights(network, again, provenance='random numbers, seed 0')
    assert again.read_bytes() == path.read_bytes()


def test_loading_draws_no_random_numbers(path):
    before = torch.get_rng_state()
    load_weights(path)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize('as_type', [str, Path])
def test_a_model_is_created_by_its_weights_file(path, as_type):
    model = create_model(as_type(path))
    image, disparity = torch.rand(2, 3, 64, 96), torch.rand(2, 1, 64, 96)
    assert model.begin(image, disparity).shape == (2, 256)


def test_a_weights_file_takes_no_options(path):
    with pytest.raises(ValueError, match=r'image_size.*leave them out'):
        create_model(path, image_size=(64, 64))


def test_half_precision_files_are_loaded_as_float32(path):
    rewrite(path, {name: tensor.half() for name, tensor in load_file(path).items()})
    assert {tensor.dtype for tensor in load_weights(path).state_dict().values()} == {torch.float32}


def test_half_precision_halves_the_file(network, path):
    full = path.stat().st_size
    save_weights(network, path, provenance='', half=True)
    assert path.stat().st_size < 0.52 * full
    expected = network.state_dict()
    assert all(torch.equal(tensor, expected[name].half().float())
               for name, tensor in load_weights(path).state_dict().items())


def test_half_precision_refuses_what_it_cannot_hold(network, path):
    before = path.read_bytes()
    network.generator.conv.bias.data[0] = -7e4
    with pytest.raises(ValueError, match=r'generator\.conv\.bias has values up to 70000'):
        save_weights(network, path, provenance='', half=True)
    assert path.read_bytes() == before
    save_weights(network, path, provenance='')
    assert load_weights(path).generator.conv.bias[0] == -7e4


def test_spectral_norm_is_folded_when_saved(network, path):
    add_spectral_norm(network).eval()
    save_weights(network, path, provenance='')
    loaded = load_weights(path)
    image, disparity = torch.rand(1, 3, 64, 96), torch.rand(1, 1, 64, 96)
    with torch.inference_mode():
        expected, given = (net.encode(image, disparity)[0] for net in (network, loaded))
    assert (expected - given).abs().max() < 1e-5
    assert any('parametrizations' in name for name in network.state_dict())


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r'there is no weights file .*none\.safetensors'):
        create_model(str(tmp_path / 'none.safetensors'))


def test_a_file_of_somebody_else_is_refused(path):
    save_file({'weight': torch.zeros(3)}, path, metadata={'format': 'pt'})
    with pytest.raises(ValueError, match='does not say which network it is for'):
        load_weights(path)


@pytest.mark.parametrize('config', [{'name': 'unheard-of'}, {**TINY, 'colour': 'red'},
                                    {**TINY, 'image_size': [50, 50]}, {}, []])
def test_a_network_that_cannot_be_built_is_refused(path, config):
    header = json.dumps({'config': config, 'provenance': ''})
    save_file({'weight': torch.zeros(3)}, path, metadata={'infinite_nature_ros': header})
    with pytest.raises(ValueError, match='cannot be built here'):
        load_weights(path)


def test_tensors_that_do_not_fit_are_named(path):
    tensors = load_file(path)
    tensors['generator.conv.weight'] = torch.zeros(4, 5, 3, 3)
    tensors['generator.conv.bias'].fill_(torch.nan)
    tensors['surplus'] = torch.zeros(1)
    del tensors['encoder.linear_mu.bias']
    rewrite(path, tensors)
    with pytest.raises(ValueError, match='does not fit its network') as error:
        load_weights(path)
    for problem in ('encoder.linear_mu.bias is missing', 'surplus is unknown',
                    'generator.conv.weight is [4, 5, 3, 3] instead of [4, 8, 3, 3]',
                    'generator.conv.bias has NaN or infinity', '4 problems in all'):
        assert problem in str(error.value)


def test_a_truncated_file_is_refused(path):
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match='damaged or no safetensors file'):
        load_weights(path)


class Trap:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize(('name', 'complaint'), [
    ('model.pt', 'never opened'), ('model.ckpt', 'never opened'), ('model', 'never opened'),
    ('model.safetensors', 'damaged or no safetensors file')])
def test_pickles_are_refused_and_never_run(tmp_path, name, complaint):
    mark, path = tmp_path / 'mark', tmp_path / name
    path.write_bytes(pickle.dumps(Trap(mark)))
    with pytest.raises(ValueError, match=complaint):
        create_model(str(path))
    assert not mark.exists()
    pickle.loads(path.read_bytes())
    assert mark.exists(), 'the trap itself must work'


def test_weights_are_written_as_safetensors_only(network, tmp_path):
    with pytest.raises(ValueError, match=r'not a \.safetensors file'):
        save_weights(network, tmp_path / 'tiny.pt', provenance='')
    assert not list(tmp_path.iterdir())
