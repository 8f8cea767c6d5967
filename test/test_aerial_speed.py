"""What was made fast computes what it is to: against plain forms, and between runtimes."""

import copy

import pytest
from scenes import sea
import torch
from torch.nn import functional

from infinite_nature_ros.pyramid import halve, resize
from infinite_nature_ros.refining import anchor, build_network, openvino_runtime
from infinite_nature_ros.refining.anchor import hold_detail, measure_detail
from infinite_nature_ros.rendering import Rendered

SIZES = [(64, 96), (48, 80), (32, 32)]

needs_openvino = pytest.mark.skipif(not openvino_runtime.has_openvino(),
                                    reason='OpenVINO is optional and not installed')


def picture(size, seed=0):
    """Two worlds of textured sea with an island that stands before the sky."""
    image, disparity, _ = sea(*size, batch=2, seed=seed)
    image = (image + 0.2 * torch.rand(image.shape, generator=torch.manual_seed(seed))).clamp(0, 1)
    disparity = disparity.clone()
    disparity[:, :, size[0] // 4:size[0] // 2, size[1] // 2:] = 0.06
    return image, disparity


def plain_weights(disparity):
    """Weights by distance with a maximum over 9 x 9 pixels."""
    log = disparity.clamp(min=anchor.MIN_DISPARITY).log()
    far, medium, near = torch.tensor(anchor._DISTANCES).log()
    beyond = ((log - far) / (medium - far)).clamp(0, 1)
    close = ((log - medium) / (near - medium)).clamp(0, 1)
    sky = (disparity <= anchor._SKY_DISPARITY).float()
    return (torch.cat([1 - beyond, beyond - close, close], 1)
            * (1 - functional.max_pool2d(sky, 9, 1, 4)))


def plain_bands(image):
    """Laplacian pyramid by PyTorch's own pooling and resizing."""
    bands, image = [], anchor.to_opponent(image)
    for _ in range(anchor._SCALES):
        coarse = functional.avg_pool2d(image, 2, ceil_mode=True)
        bands.append(image - functional.interpolate(coarse, image.shape[2:], mode='bilinear'))
        image = coarse
    return bands, image


def plain_energy(bands, weights):
    """Mean squares by distance, band and channel, each weight averaged from full size."""
    energies = []
    for band in bands:
        share = functional.adaptive_avg_pool2d(weights, band.shape[2:])[:, :, None]
        square = band.square()[:, None]
        sums, counts = (share * square).sum((3, 4)), share.sum((3, 4))
        overall = sums.sum(1, keepdim=True) / counts.sum(1, keepdim=True).clamp(min=1e-6)
        prior = anchor._PRIOR_SHARE * band[0, 0].numel()
        energies.append((sums + prior * overall) / (counts + prior))
    return torch.stack(energies, 2).clamp(min=1e-7)


def plain_hold(image, disparity, energy, shift):
    """``hold_detail`` pixel by pixel, with a shift of colours that is given."""
    weights = plain_weights(disparity)
    bands, result = plain_bands(image)
    gains = (energy / plain_energy([band.detach() for band in bands], weights)).log() * 0.25
    gains = gains.exp().clamp(1 / anchor._LARGEST_GAIN, anchor._LARGEST_GAIN) - 1
    moves = (disparity / anchor._MOVING).clamp(max=1)
    for number in reversed(range(anchor._SCALES)):
        band, size = bands[number], bands[number].shape[2:]
        share = functional.adaptive_avg_pool2d(weights, size)
        move = functional.adaptive_avg_pool2d(moves, size)
        land = share.sum(1, keepdim=True)
        gain = 1 + move * torch.einsum('bdhw,bdc->bchw', share, gains[:, :, number])
        square = torch.einsum('bdhw,bdc->bchw', share, energy[:, :, number])
        limit = anchor._LIMIT * (square / land.clamp(min=1e-3)).sqrt()
        pressed = limit * torch.tanh(gain * band / limit.clamp(min=1e-4))
        result = (functional.interpolate(result, size, mode='bilinear')
                  + band + land * (pressed - band))
    return anchor.from_opponent(result) + torch.einsum('bdhw,bdc->bchw', weights, shift)


@pytest.mark.parametrize('size', SIZES)
def test_detail_is_measured_as_plainly(size):
    image, disparity = picture(size)
    energy, _ = measure_detail(image, disparity)
    expected = plain_energy(plain_bands(image)[0], plain_weights(disparity))
    torch.testing.assert_close(energy, expected, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize('size', SIZES)
def test_detail_is_held_as_plainly_with_the_same_gradients(size):
    energy, colour = measure_detail(*picture(size, seed=1))
    image, disparity = picture(size)
    shift = anchor._COLOUR_RATE * (colour - measure_detail(image, disparity)[1])
    results, gradients = [], []
    for hold, colours in ((hold_detail, colour), (plain_hold, shift)):
        given = (0.8 * image).requires_grad_()
        if hold is hold_detail:
            colours = colours - 0.2 * measure_detail(image, disparity)[1]
        held = hold(given, disparity, 2 * energy, colours)
        (held * torch.linspace(-1, 1, held.numel()).view_as(held)).sum().backward()
        results.append(held.detach())
        gradients.append(given.grad)
    assert (results[0] - image).abs().max() > 0.02
    torch.testing.assert_close(*results, rtol=0, atol=1e-5)
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-5)


@pytest.mark.parametrize('sideways', [False, True])
def test_halve_is_average_pooling(sideways):
    values = torch.rand(2, 3, 6, 8, generator=torch.manual_seed(0))
    expected = functional.avg_pool2d(values, (1, 2) if sideways else 2)
    torch.testing.assert_close(halve(values, sideways=sideways), expected)


@pytest.mark.parametrize('size', [(10, 14), (5, 14), (10, 7), (5, 7), (9, 14), (11, 3)])
def test_resize_is_bilinear_with_its_gradient(size):
    values = torch.rand(2, 3, 5, 7, generator=torch.manual_seed(0))
    results, gradients = [], []
    for grow in (resize, lambda given, size: functional.interpolate(given, size, mode='bilinear')):
        given = values.clone().requires_grad_()
        results.append(grow(given, size))
        results[-1].square().sum().backward()
        gradients.append(given.grad)
    torch.testing.assert_close(*results)
    torch.testing.assert_close(*gradients)


def finished_refiner():
    """An ``aerial-small`` in eval mode that adds something, whose weights are random."""
    torch.manual_seed(0)
    refiner = build_network('aerial-small').eval()
    for weight in refiner.parameters():
        if weight.dim() == 4 and not weight.any():
            torch.nn.init.normal_(weight, std=0.02)
    return refiner


def view_of(image, disparity):
    """A rendered view with a hole."""
    known = torch.ones_like(disparity)
    known[..., 20:30, 40:50] = 0
    return Rendered(image * known, disparity * known, known)


@needs_openvino
@torch.no_grad()
def test_openvino_refines_as_torch_does_and_repeats_itself(monkeypatch):
    refiner = finished_refiner()
    image, disparity = picture((64, 96))
    view, state = view_of(image, disparity), refiner.begin(image, disparity)
    fast, again = refiner.refine(view, state), refiner.refine(view, state)
    first = {name: value[:1] for name, value in state.items()}
    alone = refiner.refine(Rendered(view.image[:1], view.disparity[:1], view.known[:1]), first)
    monkeypatch.setattr(openvino_runtime, 'has_openvino', lambda: False)
    plain = refiner.refine(view, state)
    for one, same, single, other in zip(fast, again, alone, plain, strict=True):
        assert torch.equal(one, same)
        assert (one[:1] - single).abs().max() < 1e-5
        assert (one - other).abs().max() < 1e-4


@needs_openvino
@torch.no_grad()
def test_bf16_is_near_and_other_precisions_are_refused():
    refiner = finished_refiner()
    image, disparity = picture((64, 96))
    view, state = view_of(image, disparity), refiner.begin(image, disparity)
    exact, _ = refiner.refine(view, state)
    refiner.precision = 'bf16'
    rough, _ = refiner.refine(view, state)
    assert (rough - exact).abs().max() < 2e-2
    refiner.precision = 'int3'
    with pytest.raises(ValueError, match='int3.*bf16'):
        refiner.refine(view, state)


@needs_openvino
@torch.no_grad()
def test_openvino_notices_that_weights_changed_and_copies_are_their_own():
    runtime = openvino_runtime.OpenVinoRuntime()
    network = torch.nn.Conv2d(1, 1, 1).eval()
    network.weight.fill_(2)
    network.bias.fill_(0)
    ones = torch.ones(1, 1, 4, 4)
    assert torch.equal(runtime.run(network, ones), 2 * ones)
    other = copy.deepcopy(runtime)
    network.weight.fill_(3)
    assert torch.equal(runtime.run(network, ones), 3 * ones)
    network.weight = torch.nn.Parameter(torch.full((1, 1, 1, 1), 4.0))
    assert torch.equal(runtime.run(network, ones), 4 * ones)
    assert torch.equal(other.run(network, ones), 4 * ones)


@needs_openvino
def test_openvino_stays_away_from_training():
    network = torch.nn.Conv2d(1, 1, 1)
    ones = torch.ones(1, 1, 4, 4)
    with torch.no_grad():
        assert not openvino_runtime.fits_openvino(network, ones)
        assert openvino_runtime.fits_openvino(network.eval(), ones)
        assert not openvino_runtime.fits_openvino(network, ones.bfloat16())
        with torch.autocast('cpu', torch.bfloat16):
            assert not openvino_runtime.fits_openvino(network, ones)
    assert not openvino_runtime.fits_openvino(network, ones)
