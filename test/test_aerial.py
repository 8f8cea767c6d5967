"""The aerial family: a filled view, what a network adds to it within bounds, and the anchor."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from scenes import sea
import torch
from torch import Tensor

from infinite_nature_ros import Autopilot, Flight
from infinite_nature_ros.filling import fill_holes
from infinite_nature_ros.refining import (
    aerial,
    build_network,
    create_model,
    load_weights,
    save_weights,
    TrainableRefiner,
)
from infinite_nature_ros.refining.aerial import AerialRefiner
from infinite_nature_ros.refining.anchor import hold_detail, renew_far
from infinite_nature_ros.refining.grain import detail_of, shuffle_columns
from infinite_nature_ros.rendering import Rendered
from infinite_nature_training.rollout import style_noise

SIZE = (64, 96)


def network_of(seed: int = 0, scale: float = 0.05) -> AerialRefiner:
    """Small network that changes what it sees, as a trained one does."""
    torch.manual_seed(seed)
    network = AerialRefiner('aerial-small', (8, 12, 16))
    for module in (network.network.last, *(block.second for block in network.network.before)):
        torch.nn.init.normal_(module.weight, std=scale)
    return network.eval().requires_grad_(False)


def view_of(batch: int = 2) -> tuple[Tensor, Tensor, Rendered]:
    """First frames, and a view of them with a hole a world."""
    image, disparity, _ = sea(*SIZE, batch=batch)
    known = torch.ones_like(disparity)
    for world in range(batch):
        known[world, :, 30:50, 20 * world + 10:20 * world + 25] = 0
    return image, disparity, Rendered(image * known, disparity * known, known)


def filled_and_renewed(view: Rendered, state: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """What the network adds to."""
    image, disparity = fill_holes(view)
    variety = shuffle_columns(state['variety'], image)
    return renew_far(image, disparity, variety, state['energy']), disparity


def test_untrained_it_fills_renews_and_holds() -> None:
    image, disparity, view = view_of()
    network = build_network('aerial-small', image_size=SIZE)
    state = network.begin(image, disparity)
    with torch.no_grad():
        made, made_disparity = network.refine(view, state)
    filled, filled_disparity = filled_and_renewed(view, state)
    held = hold_detail(filled, filled_disparity, state['energy'], state['colour']).clamp(0, 1)
    assert torch.equal(made, held)
    assert torch.equal(made_disparity, filled_disparity)


def test_worlds_are_apart() -> None:
    image, disparity, view = view_of()
    network = network_of()
    state = network.begin(image, disparity)
    both = network.refine(view, state)
    assert (both[0] - fill_holes(view)[0]).abs().max() > 0.02
    for world in range(2):
        rows = slice(world, world + 1)
        own = network.begin(image[rows], disparity[rows])
        for name, value in state.items():
            torch.testing.assert_close(own[name], value[rows], atol=1e-5, rtol=1e-4)
        part = Rendered(view.image[rows], view.disparity[rows], view.known[rows])
        for alone, together in zip(network.refine(part, own), both, strict=True):
            torch.testing.assert_close(alone, together[rows], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize('sign', [-1, 1])
def test_changes_are_bounded_little_where_the_view_is_known(
        sign: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aerial, 'hold_detail', lambda image, *_: image)
    image, disparity, view = view_of()
    network = network_of()
    torch.nn.init.constant_(network.network.last.bias, sign * 1e3)
    state = network.begin(image, disparity)
    made, made_disparity = network.refine(view, state)
    filled, filled_disparity = filled_and_renewed(view, state)
    known, hole = (view.known == number for number in (1, 0))
    for where, change, log_change in ((known, 0.25, 0.03), (hole, 0.6, 0.5)):
        expected = (filled + sign * change).clamp(0, 1)
        wide = where.expand_as(made)
        torch.testing.assert_close(made[wide], expected[wide])
        expected = (filled_disparity * math.exp(sign * log_change)).clamp(0.01, 1)
        torch.testing.assert_close(made_disparity[where], expected[where])


def test_sides_that_cannot_be_halved_are_refused() -> None:
    network = network_of()
    image, disparity = torch.rand(1, 3, 72, 96), torch.full((1, 1, 72, 96), 0.3)
    with pytest.raises(ValueError, match='72 x 96.*divisible by 16'):
        network.begin(image, disparity)
    with pytest.raises(ValueError, match='give'):
        network.begin(image, disparity[..., :64])
    network.begin(image[:, :, :48], disparity[:, :, :48])


def test_weights_are_saved_and_loaded(tmp_path: Path) -> None:
    image, disparity, view = view_of(1)
    torch.manual_seed(0)
    network = build_network('aerial-small', grounding=False).eval()
    torch.nn.init.normal_(network.network.last.weight, std=0.1)
    save_weights(network, tmp_path / 'model.safetensors', provenance='test')
    loaded = load_weights(tmp_path / 'model.safetensors')
    assert loaded.config == {'name': 'aerial-small', 'grounding': False}
    assert not loaded.grounding
    with torch.no_grad():
        one, other = (model.refine(view, model.begin(image, disparity))
                      for model in (network, loaded))
    for before, after in zip(one, other, strict=True):
        torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match='without weights'):
        create_model('aerial-small')


def test_it_flies() -> None:
    frames = []
    for _ in range(2):
        flight = Flight(*sea(*SIZE), model=network_of(), device='cpu')
        pilot = Autopilot(flight.intrinsics)
        for _ in range(10):
            frame = flight.step(pilot.next_pose(flight.frame))
            assert torch.isfinite(frame.image).all()
            assert frame.image.min() >= 0
            assert frame.image.max() <= 1
            assert frame.disparity.min() >= 0.01
            assert frame.disparity.max() <= 1
        assert frame.image[:, :, 40:].std() > 0.03
        frames.append(frame)
    assert torch.equal(frames[0].image, frames[1].image)
    assert torch.equal(frames[0].disparity, frames[1].disparity)


def test_grain_is_drawn_by_the_picture() -> None:
    torch.manual_seed(0)
    grain, image = torch.randn(2, 3, 8, 96), torch.rand(2, 3, 8, 96)
    shifted = shuffle_columns(grain, image)
    assert torch.equal(shifted, shuffle_columns(grain, image))
    shifts = []
    for world in range(2):
        shift, = (shift for shift in range(96)
                  if torch.equal(grain[world].roll(shift, -1), shifted[world]))
        shifts.append(shift)
    assert shifts[0] != shifts[1]
    assert torch.equal(shuffle_columns(grain, image.flip(0)).flip(0)[1],
                       grain[0].roll(shifts[1], -1))
    # A level more in one pixel, another place.
    image[0, 0, 0, 0] = 0.2
    before = shuffle_columns(grain, image)[0]
    image[0, 0, 0, 0] += 1 / 255
    assert not torch.equal(shuffle_columns(grain, image)[0], before)


def test_grain_is_the_finest_detail_and_the_network_sees_it() -> None:
    image, disparity, view = view_of(1)
    assert detail_of(torch.full((1, 3, 8, 8), 0.3)).abs().max() < 1e-6
    ramp = torch.linspace(0, 1, 16).expand(1, 3, 16, 16)
    assert detail_of(ramp)[..., 1:-1, 1:-1].abs().max() < 1e-6
    network = network_of()
    state = network.begin(image, disparity)
    assert state['grain'].square().mean().sqrt().item() == pytest.approx(1, rel=1e-4)
    other = network.refine(view, state | {'grain': state['grain'].flip(-1)})[0]
    assert (other - network.refine(view, state)[0]).abs().max() > 1e-3


def test_there_is_no_noise_to_draw() -> None:
    image, disparity, _ = view_of()
    network = network_of()
    assert isinstance(network, TrainableRefiner)
    noise = style_noise(0, torch.arange(2), image, network.noise_length)
    assert noise.shape == (2, 0)
    for name, value in network.style(image, disparity, noise).items():
        assert torch.equal(value, network.begin(image, disparity, seed=4)[name])


def test_all_of_it_learns() -> None:
    image, disparity, view = view_of()
    network = network_of().requires_grad_()
    made = torch.cat(network.refine(view, network.style(image, disparity, None)), dim=1)
    (made - 0.4).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
