"""The anchor measures a frame's detail, and brings a later frame's back to it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from scenes import sea
import torch
from torch import Tensor

from infinite_nature_ros.refining.anchor import (
    draw_variety,
    from_opponent,
    hold_detail,
    measure_detail,
    renew_far,
    to_opponent,
)
from infinite_nature_ros.refining.grain import shuffle_columns

SIZE = (64, 96)


@pytest.fixture(scope='module')
def first() -> tuple[Tensor, Tensor]:
    """Image and disparity of a textured ground under an even sky."""
    image, disparity, _ = sea(*SIZE)
    return image, disparity


def blurred(image: Tensor, sigma: float = 0.8) -> Tensor:
    picture = cv2.GaussianBlur(image[0].permute(1, 2, 0).numpy(), (0, 0), sigma)
    return torch.from_numpy(picture).permute(2, 0, 1)[None]


def strength(image: Tensor, disparity: Tensor) -> Tensor:
    """``[3, 5, 3]`` energies: by distance from far to near, by scale, and by channel."""
    return measure_detail(image, disparity)[0][0]


def held(image: Tensor, disparity: Tensor, measured: tuple[Tensor, Tensor],
         steps: int = 1) -> Tensor:
    for _ in range(steps):
        image = hold_detail(image, disparity, *measured).clamp(0, 1)
    return image


def ground(disparity: Tensor) -> Tensor:
    """Where there is ground, some way from the sky's edge."""
    return torch.nn.functional.max_pool2d((disparity <= 0.011).float(), 25, 1, 12) == 0


def halves(values: np.ndarray, times: int) -> np.ndarray:
    """Means over blocks of 2 x 2, so many times."""
    for _ in range(times):
        height, width = values.shape[-2:]
        values = values.reshape(*values.shape[:-2], height // 2, 2, width // 2, 2).mean((-3, -1))
    return values


def doubled(values: np.ndarray) -> np.ndarray:
    return np.stack([cv2.resize(channel, None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR)
                     for channel in values])


def test_energies_are_those_of_a_laplacian_pyramid_by_distance() -> None:
    random = np.random.default_rng(0)
    image = random.uniform(0, 1, (3, *SIZE))
    # In the left half halfway from medium to near by its logarithm, in the right half far.
    disparity = np.full(SIZE, 0.02)
    disparity[:, :48] = np.sqrt(0.08 * 0.35)
    shares = np.zeros((3, *SIZE))
    shares[0, :, 48:], shares[1, :, :48], shares[2, :, :48] = 1, 0.5, 0.5
    y = image.mean(0)
    fine = np.stack([y, image[0] - y, image[2] - y])
    expected = np.empty((3, 5, 3))
    for scale in range(5):
        coarse = halves(fine, 1)
        squares = (fine - doubled(coarse)) ** 2
        share = halves(shares, scale)
        sums = np.einsum('dhw,chw->dc', share, squares)
        counts, prior = share.sum((1, 2))[:, None], 0.02 * share[0].size
        expected[:, scale] = (sums + prior * sums.sum(0) / counts.sum()) / (counts + prior)
        fine = coarse
    energy, colour = measure_detail(torch.from_numpy(image)[None],
                                    torch.from_numpy(disparity)[None, None])
    np.testing.assert_allclose(energy[0].numpy(), expected, rtol=1e-6)
    means = image[:, :, :48].mean((1, 2)), image[:, :, 48:].mean((1, 2))
    assert np.abs(colour[0, 0].numpy() - means[1]).max() < 0.01
    assert np.abs(colour[0, 2].numpy() - means[0]).max() < 0.01


def test_a_blurred_picture_gets_its_detail_back(first: tuple[Tensor, Tensor]) -> None:
    image, disparity = first
    measured = measure_detail(image, disparity)
    near = (2, slice(0, 2), 0)
    wanted = strength(image, disparity)[near]
    soft = blurred(image)
    found = [strength(held(soft, disparity, measured, steps), disparity)[near]
             for steps in (0, 1, 4, 12)]
    ratios = torch.stack(found) / wanted
    assert (ratios[0] < 0.7).all()
    assert (ratios.diff(dim=0)[:2] > 0).all()
    assert (ratios[-1] - 1).abs().max() < 0.15


def test_noise_is_taken_back(first: tuple[Tensor, Tensor]) -> None:
    image, disparity = first
    measured = measure_detail(image, disparity)
    torch.manual_seed(0)
    noisy = (image + 0.15 * torch.randn_like(image)).clamp(0, 1)
    wanted = strength(image, disparity)[2, 0]
    ratios = [strength(held(noisy, disparity, measured, steps), disparity)[2, 0] / wanted
              for steps in (0, 1, 12)]
    assert (ratios[0] > 2).all()
    assert (ratios[1] < ratios[0]).all()
    assert (ratios[2] < 1.25).all()


def test_what_is_as_it_was_stays(first: tuple[Tensor, Tensor]) -> None:
    image, disparity = first
    change = (held(image, disparity, measure_detail(image, disparity)) - image).abs()
    # Peaks alone are pressed, and those of even noise are few.
    assert change.mean() < 0.01


def test_the_sky_is_not_touched(first: tuple[Tensor, Tensor]) -> None:
    image, disparity = first
    energy, colour = measure_detail(image, disparity)
    torch.manual_seed(0)
    painted = image + 0.1 * torch.randn_like(image)
    painted = torch.where(disparity <= 0.01, painted, blurred(image) + 0.1)
    made = hold_detail(painted, disparity, energy, colour)
    # The coarsest detail of the land reaches a little over the horizon.
    rows = int((disparity[0, 0, :, 0] <= 0.01).sum())
    torch.testing.assert_close(made[:, :, :rows // 2], painted[:, :, :rows // 2], atol=1e-5,
                               rtol=0)
    assert (made - painted)[:, :, rows + 8:].abs().mean() > 0.005
    # Nor does it count: another sky, the same measures.
    other = torch.where(disparity <= 0.01, torch.rand_like(image), image)
    again, _ = measure_detail(other, disparity)
    torch.testing.assert_close(again[:, :, :1], energy[:, :, :1])


def test_colours_that_drifted_come_back(first: tuple[Tensor, Tensor]) -> None:
    image, disparity = first
    measured = measure_detail(image, disparity)
    land = ground(disparity).expand_as(image)
    tint = torch.tensor([0.1, 0.0, -0.05]).reshape(1, 3, 1, 1)
    drifted = image + tint
    shares = []
    for steps in (1, 20):
        left = (held(drifted, disparity, measured, steps) - image)[land].reshape(3, -1).mean(1)
        shares.append(left[[0, 2]] / tint[0, [0, 2], 0, 0])
    assert (shares[0] < 0.97).all()
    assert (shares[1].abs() < 0.3).all()


def test_odd_peaks_are_pressed(first: tuple[Tensor, Tensor]) -> None:
    image, disparity = first
    measured = measure_detail(image, disparity)
    odd = image.clone()
    odd[..., 56, 48] = 1
    excess = [(held(odd, disparity, measured, steps) - image)[0, :, 56, 48].min()
              for steps in (0, 1, 5)]
    assert excess[1] < 0.8 * excess[0]
    assert excess[2] < excess[1]


def test_gradients_pass_and_are_finite(first: tuple[Tensor, Tensor]) -> None:
    image, disparity = first
    energy, colour = measure_detail(image, disparity)
    painted = blurred(image).requires_grad_()
    depth = disparity.clone().requires_grad_()
    hold_detail(painted, depth, energy, colour).square().mean().backward()
    assert depth.grad is None
    assert torch.isfinite(painted.grad).all()
    assert (painted.grad.abs().amax((0, 1)) > 0).float().mean() > 0.99
    # Of even land as well, where nothing has any detail.
    even = torch.full_like(image, 0.5).requires_grad_()
    measured = measure_detail(even.detach(), disparity)
    hold_detail(even, disparity, *measured).sum().backward()
    assert torch.isfinite(even.grad).all()


def test_worlds_are_held_apart(first: tuple[Tensor, Tensor]) -> None:
    image, disparity = first
    others = torch.cat([image, blurred(image, 2.0)]), disparity.expand(2, -1, -1, -1)
    energy, colour = measure_detail(*others)
    made = hold_detail(others[0].flip(0), others[1], energy, colour)
    alone = hold_detail(others[0][:1], disparity, energy[1:], colour[1:])
    torch.testing.assert_close(made[1:], alone)


def test_opponent_colours_are_undone() -> None:
    image = torch.rand(2, 3, 4, 5)
    opponent = to_opponent(image)
    torch.testing.assert_close(from_opponent(opponent), image)
    torch.testing.assert_close(opponent[:, 0], image.mean(1))
    assert to_opponent(torch.full((1, 3, 1, 1), 0.7))[0, 1:].abs().max() < 1e-6


def test_far_land_alone_is_renewed(first: tuple[Tensor, Tensor]) -> None:
    image, disparity = first
    renewed = renew_far(image, disparity, draw_variety(image), measure_detail(*first)[0])
    changed = (renewed - image).abs().amax(1, keepdim=True)
    assert changed[disparity <= 0.0101].max() == 0
    assert changed[disparity > 0.13].max() < 1e-6
    far = (disparity > 0.02) & (disparity < 0.06)
    assert 0.002 < changed[far].mean() < 0.1


def test_stripes_of_the_far_are_forgotten_and_patches_come(
        first: tuple[Tensor, Tensor]) -> None:
    image, disparity = first
    energy = measure_detail(image, disparity)[0]
    stripes = 0.5 + 0.2 * torch.sign(torch.sin(torch.arange(SIZE[1]) / 4)).expand_as(image)
    variety, picture, shifts = draw_variety(image), stripes, []
    for _ in range(80):
        shifted = shuffle_columns(variety, picture)
        shifts.append(shifted[0, 0, 0, 0].item())
        picture = renew_far(picture, disparity, shifted, energy)
    assert len(set(shifts)) > 10
    row = int((disparity[0, 0, :, 0] - 0.035).abs().argmin())
    before, after = stripes[0, 0, row], picture[0, 0, row]
    remains = ((after - after.mean()) * (before - before.mean())).mean() / before.var()
    assert remains.abs() < 0.2
    assert after.std() > 0.01
    near = disparity[0, 0, :, 0] > 0.13
    assert torch.equal(picture[:, :, near], stripes[:, :, near])


def test_variety_is_always_the_same() -> None:
    image = torch.rand(2, 3, *SIZE)
    variety = draw_variety(image)
    assert torch.equal(variety, draw_variety(torch.zeros_like(image)))
    assert torch.equal(variety[0], variety[1])
    assert variety[0].std().item() == pytest.approx(1, abs=1e-3)
    assert variety[0, 0].std() > 2 * variety[0, 1].std()
