"""Refiners: parity of the SPADE family with the official release, and the registry."""

from __future__ import annotations

import hashlib
from pathlib import Path
import runpy

import numpy as np
import pytest
import torch
from torch import Tensor

from infinite_nature_ros.refining import (
    build_network,
    create_model,
    factory,
    list_models,
    Refiner,
    register_model,
    registry,
    save_weights,
    shipped,
)
from infinite_nature_ros.refining.official import import_official
from infinite_nature_ros.refining.spade import add_spectral_norm
from infinite_nature_ros.rendering import Rendered

GOLDEN = Path(__file__).parent / 'golden'
SIZES = ('infinite-nature', 'infinite-nature-small', 'infinite-nature-tiny')


def random_frames(batch: int, height: int, width: int) -> tuple[Tensor, Tensor, Rendered]:
    """Image and disparity of first frames, and rendered views with holes."""
    generator = torch.Generator().manual_seed(3)
    image = torch.rand(batch, 3, height, width, generator=generator)
    disparity = torch.rand(batch, 1, height, width, generator=generator).clamp(0.01)
    known = (torch.rand(batch, 1, height, width, generator=generator) > 0.3).float()
    return image, disparity, Rendered(image * known, disparity * known, known)


def tiny(height: int = 64, width: int = 96) -> torch.nn.Module:
    """Build a small network with random but fixed weights."""
    torch.manual_seed(0)
    return build_network('infinite-nature-tiny', image_size=(height, width)).eval()


@pytest.fixture(scope='module')
def official_variables() -> dict[str, np.ndarray]:
    """Stand-in for a checkpoint of the release, in its names and layouts."""
    return runpy.run_path(str(GOLDEN / 'make_weights.py'))['weights']()


@pytest.fixture(scope='module')
def official_network(official_variables) -> torch.nn.Module:
    return import_official(official_variables)


def test_golden_weights_are_the_ones_that_made_the_golden_outputs(official_variables):
    rows = [line.split('\t') for line in
            (GOLDEN / 'generator_variables.txt').read_text().splitlines() if line[0] != '#']
    expected = {row[0]: row[4] for row in rows}
    # A failure here says that numpy's random stream changed, not that the network is wrong.
    assert {name: hashlib.sha256(array.tobytes()).hexdigest()
            for name, array in official_variables.items()} == expected


def test_outputs_equal_the_official_release(official_network):
    golden = np.load(GOLDEN / 'generator.npz')

    def tensor(name: str) -> Tensor:
        return torch.from_numpy(golden[name].astype(np.float32)).permute(2, 0, 1)[None]

    frame, rgbd = tensor('encoder_input'), tensor('rgbd')
    with torch.inference_mode():
        mu, logvar = official_network.encode(frame[:, :3], frame[:, 3:])
        image, disparity = official_network.refine(
            Rendered(rgbd[:, :3], rgbd[:, 3:], tensor('mask')),
            torch.from_numpy(golden['z'])[None])
        state = official_network.begin(frame[:, :3], frame[:, 3:], seed=5)
    refined = torch.cat([image, disparity], 1)[0].permute(1, 2, 0)[::4, ::4]
    assert np.abs(mu[0].numpy() - golden['encoder_mu']).max() < 1e-4
    assert np.abs(logvar[0].numpy() - golden['encoder_logvar']).max() < 1e-4
    assert np.abs(refined.numpy() - golden['refined_every_4th']).max() < 1e-4
    assert torch.equal(state, mu)


def test_variables_of_other_networks_and_the_optimiser_are_ignored(official_variables,
                                                                   official_network):
    others = {'discriminator/conv/kernel': np.zeros((4, 4, 4, 64), np.float32),
              'generator/spade_encoder/conv_0/kernel/Adam': np.zeros((3, 3, 4, 16), np.float32),
              'global_step': np.int64(6_935_893)}
    network = import_official({**official_variables, **others})
    expected = official_network.state_dict()
    assert all(torch.equal(tensor, expected[name])
               for name, tensor in network.state_dict().items())


def test_missing_and_misshaped_official_variables_are_named(official_variables):
    missing = 'generator/spade_encoder/conv_3/u'
    misshaped = 'generator/spade_network_noenc/spade_generator/conv/kernel'
    variables = {**official_variables, misshaped: np.zeros((3, 3, 16, 4), np.float32)}
    del variables[missing]
    with pytest.raises(ValueError, match='not the variables of an Infinite Nature') as error:
        import_official(variables)
    assert f'{missing} is missing' in str(error.value)
    assert f'{misshaped} is [3, 3, 16, 4] instead of [3, 3, 32, 4]' in str(error.value)
    assert '2 problems' in str(error.value)


@pytest.mark.parametrize(('name', 'parameters'), list(zip(
    SIZES, (35_852_596, 8_904_348, 3_398_704), strict=True)))
def test_sizes_have_their_documented_parameters(name, parameters):
    with torch.device('meta'):
        network = build_network(name)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


def test_worlds_of_a_batch_are_independent():
    # At the smallest sizes an instance norm of two pixels magnifies rounding errors.
    network = tiny(128, 160)
    image, disparity, rendered = random_frames(2, 128, 160)
    with torch.inference_mode():
        state = network.begin(image, disparity)
        together = torch.cat(network.refine(rendered, state), 1)
        for world in range(2):
            one = slice(world, world + 1)
            alone_state = network.begin(image[one], disparity[one])
            view = Rendered(rendered.image[one], rendered.disparity[one], rendered.known[one])
            alone = torch.cat(network.refine(view, alone_state), 1)
            assert (alone_state - state[one]).abs().max() < 1e-5
            assert (alone - together[one]).abs().max() < 1e-5
    assert (together[0] - together[1]).abs().max() > 1e-3


def test_same_input_gives_the_same_bytes():
    network = tiny()
    image, disparity, rendered = random_frames(1, 64, 96)
    with torch.inference_mode():
        first, second = (network.refine(rendered, network.begin(image, disparity))
                         for _ in range(2))
    assert torch.equal(torch.cat(first, 1), torch.cat(second, 1))


def test_gradients_reach_every_parameter_and_the_view():
    network = tiny().train()
    image, disparity, rendered = random_frames(1, 64, 96)
    view = rendered.image.requires_grad_()
    mu, logvar = network.encode(image, disparity)
    z = mu + (logvar / 2).exp()
    refined = torch.cat(network.refine(rendered, z), 1)
    (refined * torch.linspace(-1, 1, 96)).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        # A bias in front of an instance norm has none by definition.
        assert name.endswith('bias') or parameter.grad.abs().max() > 0, name
    assert view.grad.abs().max() > 0


@pytest.mark.parametrize('size', [(64, 64), (128, 64), (96, 160)])
def test_views_of_any_size_divisible_by_32_are_refined(size):
    network = tiny()
    image, disparity, rendered = random_frames(2, *size)
    with torch.inference_mode():
        refined_image, refined_disparity = network.refine(rendered,
                                                          network.begin(image, disparity))
    assert refined_image.shape == (2, 3, *size)
    assert refined_disparity.shape == (2, 1, *size)
    assert torch.isfinite(refined_image).all()
    assert torch.isfinite(refined_disparity).all()


def test_the_smallest_image_size_is_trained_and_flown():
    network = tiny(64, 64)
    image, disparity, rendered = random_frames(1, 64, 64)
    refined_image, _ = network.refine(rendered, network.begin(image, disparity))
    assert torch.isfinite(refined_image).all()


def test_unfit_shapes_are_refused():
    network = tiny()
    image, disparity, rendered = random_frames(1, 64, 96)
    state = network.begin(image, disparity)
    with pytest.raises(ValueError, match=r'70 x 96; .* divisible by 32'):
        build_network('infinite-nature-tiny', image_size=(70, 96))
    with pytest.raises(ValueError, match=r'32 x 96; .* at least 64'):
        build_network('infinite-nature-tiny', image_size=(32, 96))
    with pytest.raises(ValueError, match='divisible by 32'):
        network.refine(random_frames(1, 64, 100)[2], state)
    with pytest.raises(ValueError, match=r'state is \[2, 256\] for 1 views'):
        network.refine(rendered, state.repeat(2, 1))
    with pytest.raises(ValueError, match=r'image is \[1, 1, 64, 96\]'):
        network.begin(disparity, disparity)


def test_spectral_norm_bounds_all_convolutions_but_those_of_spade():
    network = tiny()
    convolutions = {name: module for name, module in network.named_modules()
                    if isinstance(module, torch.nn.Conv2d)}
    for module in convolutions.values():
        module.weight.data *= 100
    add_spectral_norm(network)
    bounded = {name for name, module in convolutions.items()
               if torch.linalg.matrix_norm(module.weight.flatten(1), 2) < 1.1}
    of_spade = {name for name in convolutions if name.endswith(('conv_cond', 'gamma', 'beta'))}
    assert len(of_spade) == 54
    assert bounded == set(convolutions) - of_spade


def test_default_is_a_refiner_without_weights():
    model = create_model('default')
    assert isinstance(model, Refiner)
    assert type(model) is type(create_model('inpaint'))


def test_shipped_weights_fly_by_their_name_and_as_default(monkeypatch, tmp_path):
    known = {name: registry.model_entry(name) for name in list_models() if name != 'aerial'}
    monkeypatch.setattr(registry, '_models', known)
    shipped.register_shipped(tmp_path)
    assert 'aerial' not in list_models()
    torch.manual_seed(0)
    network = build_network('aerial-small')
    save_weights(network, tmp_path / 'aerial_small.safetensors', provenance='')
    shipped.register_shipped(tmp_path)
    monkeypatch.setattr(factory, 'DEFAULT_MODEL', 'aerial')
    assert 'aerial' in list_models()
    assert not registry.model_entry('aerial').needs_weights
    for name in ('aerial', 'default'):
        weights = create_model(name).state_dict()
        assert all(torch.equal(value, weights[key]) for key, value in network.state_dict().items())
    with pytest.raises(ValueError, match=r'image_size.*leave them out'):
        create_model('aerial', image_size=(64, 96))


def test_networks_are_refiners_and_listed():
    assert isinstance(tiny(), Refiner)
    assert {*SIZES, 'inpaint'} <= set(list_models())


@pytest.mark.parametrize('name', SIZES)
def test_untrained_networks_do_not_fly(name):
    with pytest.raises(ValueError, match=rf"'{name}' is a network without weights.*safetensors"):
        create_model(name)


@pytest.mark.parametrize('make', [create_model, build_network])
def test_unknown_names_are_refused_with_the_known_ones(make):
    with pytest.raises(ValueError, match=r"'infinite-natur'.*inpaint"):
        make('infinite-natur')


def test_registering_makes_a_model_known_by_name(monkeypatch):
    monkeypatch.setattr(registry, '_models', dict(registry._models))

    @register_model('identity')
    class Identity:
        def __init__(self, gain: float = 1.0) -> None:
            self.gain = gain

    assert 'identity' in list_models()
    assert create_model('identity', gain=2.0).gain == 2.0
    with pytest.raises(ValueError, match="'identity' is registered already"):
        register_model('identity')

