"""The co-modulated family: its layers by other means, what is random, and flights."""

from __future__ import annotations

from collections.abc import Callable
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
import torch.nn.functional as F

from infinite_nature_ros import camera, Flight
from infinite_nature_ros.refining import (
    build_network,
    create_model,
    list_models,
    load_weights,
    Refiner,
    save_weights,
)
from infinite_nature_ros.refining.comodgan import comodgan, comodgan_tiny, CoModRefiner
from infinite_nature_ros.refining.stylegan2 import (
    blur,
    EqualConv,
    EqualLinear,
    ModulatedConv,
    StyledConv,
    upsample,
)
from infinite_nature_ros.rendering import Rendered

KERNEL = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64


def small(height: int = 64, width: int = 96, **options: bool) -> CoModRefiner:
    """Build a small network with random but fixed weights, a mean style and noise that counts."""
    torch.manual_seed(0)
    network = CoModRefiner('comodgan-tiny', 8, (height, width), **options).eval()
    network.mean_style.normal_()
    for name, parameter in network.named_parameters():
        if name.endswith('noise_strength'):
            parameter.data.fill_(0.3)
        elif 'to_picture.conv.weight' in name:
            parameter.data.mul_(0.2)
    return network


def random_frames(batch: int, height: int = 64, width: int = 96) -> tuple[Tensor, Tensor, Rendered]:
    """Image and disparity of first frames, and rendered views with holes."""
    generator = torch.Generator().manual_seed(3)
    image = torch.rand(batch, 3, height, width, generator=generator)
    disparity = torch.rand(batch, 1, height, width, generator=generator).clamp(0.01)
    known = (torch.rand(batch, 1, height, width, generator=generator) > 0.3).float()
    return image, disparity, Rendered(image * known, disparity * known, known)


def random_noise(network: CoModRefiner, batch: int) -> Tensor:
    return torch.randn(batch, network.noise_length, generator=torch.Generator().manual_seed(4))


def one(rendered: Rendered, world: int) -> Rendered:
    part = slice(world, world + 1)
    return Rendered(rendered.image[part], rendered.disparity[part], rendered.known[part])


def refine(network: CoModRefiner, rendered: Rendered, state: dict[str, Tensor]) -> Tensor:
    with torch.inference_mode():
        return torch.cat(network.refine(rendered, state), 1)


def correlate(image: np.ndarray, kernel: np.ndarray, padding: int) -> np.ndarray:
    """Slide a kernel over an image surrounded by zeros, by hand."""
    image = np.pad(image, padding)
    height, width = (side - size + 1 for side, size in zip(image.shape, kernel.shape, strict=True))
    return sum(weight * image[row:row + height, column:column + width]
               for (row, column), weight in np.ndenumerate(kernel))


def with_zeros_between(image: np.ndarray) -> np.ndarray:
    wide = np.zeros([2 * side - 1 for side in image.shape])
    wide[::2, ::2] = image
    return wide


# Layers

@pytest.mark.parametrize(('padding', 'gain'), [(1, 4.0), (2, 1.0)])
def test_blur_equals_sliding_the_kernel(padding: int, gain: float) -> None:
    x = torch.randn(2, 3, 6, 5, dtype=torch.float64)
    expected = [[correlate(channel, gain * KERNEL, padding) for channel in world]
                for world in x.numpy()]
    np.testing.assert_allclose(blur(x, padding=padding, gain=gain), expected, atol=1e-7)


def test_upsampling_blurs_pixels_set_apart() -> None:
    x = torch.randn(1, 2, 4, 5, dtype=torch.float64)
    # Of three zeros around the samples, one stands where the next sample would be.
    expected = [correlate(with_zeros_between(channel), 4 * KERNEL, 2) for channel in x[0].numpy()]
    assert upsample(x).shape == (1, 2, 8, 10)
    np.testing.assert_allclose(upsample(x)[0], expected, atol=1e-7)
    constant = upsample(torch.ones(1, 1, 8, 8))
    assert torch.allclose(constant[..., 1:-1, 1:-1], torch.ones(()))


@pytest.mark.parametrize('up', [False, True])
@pytest.mark.parametrize('demodulate', [False, True])
def test_modulated_convolution_equals_weights_scaled_world_by_world(up: bool,
                                                                    demodulate: bool) -> None:
    layer = ModulatedConv(4, 3, 3, 6, up=up, demodulate=demodulate).double()
    x, style = torch.randn(2, 4, 6, 5).double(), torch.randn(2, 6).double()
    scales = (style @ layer.modulation.weight.T / math.sqrt(6) + 1).detach().numpy()
    given = layer(x, style).detach().numpy()
    for world in range(2):
        weight = layer.weight.detach().numpy() / 6 * scales[world][:, None, None]
        if demodulate:
            weight = weight / np.sqrt((weight ** 2).sum((1, 2, 3), keepdims=True) + 1e-8)
        for channel in range(3):
            expected = 0
            for pixels, kernel in zip(x[world].numpy(), weight[channel], strict=True):
                if up:  # a transposed convolution writes the kernel as it stands: flip to slide
                    wide = correlate(with_zeros_between(pixels), kernel[::-1, ::-1], 2)
                    expected = expected + correlate(wide, 4 * KERNEL, 1)
                else:
                    expected = expected + correlate(pixels, kernel, 1)
            np.testing.assert_allclose(given[world, channel], expected, atol=1e-6)


def test_shrinking_convolution_blurs_first() -> None:
    layer = EqualConv(2, 1, 3, down=True).double()
    x = torch.randn(1, 2, 6, 8).double()
    kernels = layer.weight[0].detach().numpy() / math.sqrt(18)
    dense = sum(correlate(correlate(pixels, KERNEL, 2), kernel, 0)
                for pixels, kernel in zip(x[0].numpy(), kernels, strict=True))[::2, ::2]
    expected = math.sqrt(2) * np.where(dense < 0, 0.2 * dense, dense)
    np.testing.assert_allclose(layer(x)[0, 0].detach(), expected, atol=1e-7)


def test_dense_layers_scale_their_weights_and_rate() -> None:
    layer = EqualLinear(25, 3, rate=0.01, bias=2.0)
    x = torch.randn(2, 25)
    assert torch.allclose(layer(x), x @ layer.weight.T * 0.01 / 5 + 0.02, atol=1e-6)
    assert 50 < layer.weight.std() < 200


def test_noise_is_added_by_its_strength_before_the_nonlinearity() -> None:
    layer = StyledConv(2, 3, 4)
    torch.nn.init.constant_(layer.noise_strength, 0.5)
    torch.nn.init.normal_(layer.bias)
    x, style, noise = torch.randn(2, 2, 5, 5), torch.randn(2, 4), torch.randn(2, 1, 5, 5)
    plain = layer.conv(x, style) + 0.5 * noise + layer.bias.reshape(1, 3, 1, 1)
    expected = math.sqrt(2) * torch.where(plain < 0, 0.2 * plain, plain)
    assert torch.allclose(layer(x, style, noise), expected, atol=1e-6)


def test_the_picture_sums_what_all_resolutions_add() -> None:
    network = small(64, 64)
    layers = [network.synthesis, *network.synthesis.blocks]
    for index, layer in enumerate(layers):
        torch.nn.init.zeros_(layer.to_picture.conv.weight)
        torch.nn.init.constant_(layer.to_picture.bias, 0.1 * 2 ** index)
    image, disparity, rendered = random_frames(1, 64, 64)
    painted = refine(network, rendered, network.begin(image, disparity))
    # Towards the borders, zeros from outside are blurred in.
    expected = 0.5 * (math.tanh(0.1 * (2 ** len(layers) - 1)) + 1)
    assert torch.allclose(painted[..., 31:33, 31:33], torch.tensor(expected))


@pytest.mark.parametrize(('factory', 'parameters'), [
    (comodgan, {'mapping': 2_101_248, 'style_encoder': 18_317_952,
                'feature_encoder': 18_732_416, 'synthesis': 26_088_227}),
    (comodgan_tiny, {'mapping': 132_096, 'style_encoder': 1_538_976,
                     'feature_encoder': 1_171_808, 'synthesis': 1_634_531})])
def test_sizes_have_their_documented_parameters(factory: Callable[[], CoModRefiner],
                                                parameters: dict[str, int]) -> None:
    with torch.device('meta'):
        network = factory()
    assert {part: sum(parameter.numel() for parameter in module.parameters())
            for part, module in network.named_children()} == parameters
    assert f'{sum(parameters.values()):,} parameters' in factory.__doc__


# Codes and noise

def test_a_flights_style_is_truncated_toward_the_mean() -> None:
    network = small()
    image, disparity, _ = random_frames(1)
    state = network.begin(image, disparity, seed=5)
    drawn = torch.randn(32 + state['noise'].shape[1], generator=torch.Generator().manual_seed(5))
    mean = network.mean_style
    expected = mean + 0.7 * (network.mapping(drawn[None, :32]) - mean)
    assert torch.allclose(state['style'], expected, atol=1e-5)
    assert torch.equal(state['noise'][0], drawn[32:])


def test_the_mean_style_is_the_mean_of_mapped_noise() -> None:
    network = small()
    network.update_mean_style(2500)
    with torch.no_grad():
        expected = network.mapping(torch.randn(
            100_000, 32, generator=torch.Generator().manual_seed(1))).mean(0)
        spread = network.mapping(torch.randn(1000, 32)).std(0)
    assert ((network.mean_style - expected).abs() < 6 * spread / math.sqrt(2500)).all()
    again = network.mean_style.clone()
    network.update_mean_style(2500)
    assert torch.equal(network.mean_style, again)
    assert 'mean_style' in network.state_dict()


def test_the_mean_style_follows_in_training_alone() -> None:
    network = small()
    image, disparity, _ = random_frames(2)
    before, noise = network.mean_style.clone(), random_noise(network, 2)
    network.style(image, disparity, noise)
    assert torch.equal(network.mean_style, before)
    drawn = network.train().style(image, disparity, noise)['style']
    expected = 0.98 * before + 0.02 * drawn.mean(0)
    assert torch.allclose(network.mean_style, expected, atol=1e-6)
    assert not network.mean_style.requires_grad
    network.mean_style.zero_()
    network.style(image, disparity, noise)
    assert torch.allclose(network.mean_style, drawn.mean(0), atol=1e-6)


def test_noise_for_training_maps_drops_and_roughens() -> None:
    network = small()
    image, disparity, _ = random_frames(2)
    noise = random_noise(network, 2)
    state = network.style(image, disparity, noise)
    whole = network.style(image, disparity, None)
    assert torch.equal(state['style'], network.mapping(noise[:, :32]))
    kept = noise[:, 32:64] > 0
    assert torch.allclose(state['global_code'][kept], 2 * whole['global_code'][kept])
    assert (state['global_code'][~kept] == 0).all()
    assert torch.equal(state['noise'], noise[:, 64:])
    assert torch.equal(whole['style'], network.mean_style.expand(2, 32))
    assert (whole['noise'] == 0).all()
    assert whole['noise'].shape == state['noise'].shape


def test_a_seed_decides_all_that_is_random() -> None:
    network = small()
    image, disparity, rendered = random_frames(1)
    before = torch.get_rng_state()
    first, again, other = (refine(network, rendered, network.begin(image, disparity, seed))
                           for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, again)
    assert (first - other).abs().max() > 1e-3
    anew = [network.begin(image, disparity) for _ in range(2)]
    assert not torch.equal(anew[0]['style'], anew[1]['style'])
    assert not torch.equal(anew[0]['noise'], anew[1]['noise'])


def test_every_layer_has_noise_of_its_own() -> None:
    network = small()
    image, disparity, rendered = random_frames(1)
    state = network.begin(image, disparity, seed=0)
    plain = refine(network, rendered, state)
    ends = np.cumsum([2 * 3] + [2 * 3 * 4 ** level for level in (1, 1, 2, 2, 3, 3, 4, 4, 5, 5)])
    assert ends[-1] == state['noise'].shape[1]
    for end in ends:
        noise = state['noise'].clone()
        noise[:, end - 1] += 3
        assert not torch.equal(refine(network, rendered, {**state, 'noise': noise}), plain)


def test_edges_of_the_mask_are_undone() -> None:
    network = small()
    image, disparity, _ = random_frames(1)
    state = network.begin(image, disparity, seed=0)
    known = torch.tensor([0.0, 0.2, 0.64, 1.0]).repeat(64, 24)[None, None]
    whole = (known > 0.5).float()
    dimmed = Rendered(image * known.sqrt(), 50 * disparity * known.sqrt(), known)
    plain = Rendered(image * whole, (50 * disparity).clamp(0.01, 1) * whole, whole)
    assert (refine(network, dimmed, state) - refine(network, plain, state)).abs().max() < 1e-4
    holes = Rendered(image * whole * 0, disparity * 0, known * 0)
    assert (refine(network, holes, state) - refine(network, plain, state)).abs().max() > 1e-3


# As a refiner

def test_gradients_reach_every_parameter_the_view_and_the_first_frame() -> None:
    network = small().train()
    image, disparity, rendered = random_frames(1)
    view, first = rendered.image.requires_grad_(), image.clone().requires_grad_()
    state = network.style(first, disparity, random_noise(network, 1))
    refined = torch.cat(network.refine(rendered, state), 1)
    (refined * torch.linspace(-1, 1, 96)).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name
    assert view.grad.abs().max() > 0
    assert first.grad.abs().max() > 0


def test_gradients_equal_finite_differences() -> None:
    network = small(32, 32).double()
    image, disparity, rendered = random_frames(1, 32, 32)
    state = network.style(image.double(), disparity.double(), random_noise(network, 1).double())
    view = Rendered(*(part.double() for part in vars(rendered).values()))
    step = torch.randn(view.image.shape, dtype=torch.float64) * view.known

    def along(distance: Tensor) -> Tensor:
        moved = Rendered(view.image + distance * step, view.disparity, view.known)
        return torch.cat(network.refine(moved, state), 1).square().sum()

    assert torch.autograd.gradcheck(along, torch.zeros((), dtype=torch.float64).requires_grad_())


def test_worlds_of_a_batch_are_independent() -> None:
    network = small()
    image, disparity, rendered = random_frames(2)
    state = network.begin(image, disparity, seed=1)
    together = refine(network, rendered, state)
    alone = network.begin(image[:1], disparity[:1], seed=1)
    for name, value in alone.items():
        assert torch.allclose(value, state[name][:1], atol=1e-5), name
    assert (refine(network, one(rendered, 0), alone) - together[:1]).abs().max() < 1e-5
    assert not torch.equal(state['style'][0], state['style'][1])


@pytest.mark.parametrize('size', [(32, 32), (64, 128), (160, 96)])
def test_views_of_any_size_divisible_by_32_are_refined(size: tuple[int, int]) -> None:
    network = small()
    image, disparity, rendered = random_frames(2, *size)
    refined = refine(network, rendered, network.begin(image, disparity))
    assert refined.shape == (2, 4, *size)
    assert ((refined > 0) & (refined < 1)).float().mean() > 0.9


def test_unfit_shapes_are_refused() -> None:
    network = small()
    image, disparity, rendered = random_frames(1)
    state = network.begin(image, disparity)
    with pytest.raises(ValueError, match=r'70 x 96; .* divisible by 32'):
        build_network('comodgan-tiny', image_size=(70, 96))
    with pytest.raises(ValueError, match='0 x 96; .* divisible by 32'):
        build_network('comodgan-tiny', image_size=(0, 96))
    with pytest.raises(ValueError, match='divisible by 32'):
        network.begin(*random_frames(1, 64, 100)[:2])
    with pytest.raises(ValueError, match='divisible by 32'):
        network.refine(random_frames(1, 64, 100)[2], state)
    with pytest.raises(ValueError, match=r'not of 2 flights of 64 x 96'):
        network.refine(random_frames(2)[2], state)
    with pytest.raises(ValueError, match=r'not of 1 flights of 96 x 96; .*size of the views'):
        network.refine(random_frames(1, 96, 96)[2], state)
    with pytest.raises(ValueError, match=r'image is \[1, 1, 64, 96\]'):
        network.begin(disparity, disparity)
    length = network.noise_length
    with pytest.raises(ValueError, match=rf'noise is \[2, {length}\] for 1 frames of 64 x 96'):
        network.style(image, disparity, random_noise(network, 2))


def test_it_is_a_registered_refiner_that_needs_weights() -> None:
    assert {'comodgan', 'comodgan-tiny'} <= set(list_models())
    assert isinstance(small(), Refiner)
    with pytest.raises(ValueError, match="'comodgan-tiny' is a network without weights"):
        create_model('comodgan-tiny')


def test_grounding_is_off_unless_asked_for() -> None:
    assert not small().grounding
    assert small(grounding=True).grounding
    assert small().config == {'name': 'comodgan-tiny', 'image_size': [64, 96]}
    with torch.device('meta'):
        again = build_network(**small(grounding=True).config)
    assert again.grounding


@pytest.mark.parametrize('grounding', [False, True])
def test_what_is_saved_comes_back(tmp_path: Path, grounding: bool) -> None:
    network = build_network('comodgan-tiny', image_size=(32, 64), grounding=grounding)
    network.mean_style.normal_()
    path = tmp_path / 'tiny.safetensors'
    save_weights(network, path, provenance='random numbers')
    loaded = load_weights(path)
    image, disparity, rendered = random_frames(1, 32, 64)
    first, second = (refine(part, rendered, part.begin(image, disparity, seed=3))
                     for part in (network, loaded))
    assert torch.equal(first, second)
    assert loaded.grounding is grounding
    assert torch.equal(loaded.mean_style, network.mean_style)


def test_an_untrained_network_flies_within_the_contract() -> None:
    image, disparity, _ = random_frames(2)
    image, disparity = F.avg_pool2d(image, 5, 1, 2), F.avg_pool2d(disparity, 5, 1, 2).clamp(0.01)

    def fly(seed: int) -> tuple[Flight, list]:
        flight = Flight(image, disparity, camera.default_intrinsics(64, 96), model=small(),
                        sky=False, device='cpu', seed=seed)
        forward = torch.tensor([0, 0, 0, -0.1]).expand(2, 3, 4)
        return flight, [flight.step(flight.frame.pose + forward) for _ in range(3)]

    flight, frames = fly(7)
    for frame in frames:
        assert ((frame.image >= 0) & (frame.image <= 1)).all()
        assert ((frame.disparity >= 0.01) & (frame.disparity <= 1)).all()
    assert torch.equal(frames[-1].image, fly(7)[1][-1].image)
    assert not torch.equal(frames[-1].image, fly(8)[1][-1].image)
    snapshot = flight.state_dict()
    flight.reset(seed=9, worlds=[1])
    after = flight.state_dict()
    for name in ('style', 'global_code', 'noise'):
        assert torch.equal(after[f'state.{name}'][0], snapshot[f'state.{name}'][0])
    assert not torch.equal(after['state.style'][1], snapshot['state.style'][1])
    flight.load_state_dict(snapshot)
    assert torch.equal(flight.state_dict()['state.noise'], snapshot['state.noise'])
