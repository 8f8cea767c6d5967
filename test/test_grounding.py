"""Grounding: parity with the release, and what it promises beyond."""

from pathlib import Path

import numpy as np
import pytest
import torch

from infinite_nature_ros.grounding import ground
from infinite_nature_ros.rendering import Rendered

GOLDEN = Path(__file__).parent / 'golden' / 'grounding.npz'


def as_rendered(disparity, known):
    return Rendered(disparity.repeat(1, 3, 1, 1), disparity, known)


def golden_case(name):
    with np.load(GOLDEN) as golden:
        return [torch.from_numpy(golden[f'{name}__{part}']).permute(2, 0, 1)[None]
                for part in ('rendered', 'mask', 'refined', 'out')]


@pytest.mark.parametrize('name', ['random', 'low_disparity', 'upscale_clips', 'empty_mask'])
def test_golden_parity(name):
    disparity, known, refined, expected = golden_case(name)
    grounded = ground(as_rendered(disparity, known), refined)
    assert (grounded - expected).abs().max() < 1e-5


def test_worlds_are_independent():
    first, second = golden_case('random'), golden_case('low_disparity')
    disparity, known, refined = (torch.cat(pair)
                                 for pair in zip(first[:3], second[:3], strict=True))
    both = ground(as_rendered(disparity, known), refined)
    assert (both - torch.cat([first[3], second[3]])).abs().max() < 1e-5


def test_nothing_known_gives_the_input_clipped():
    refined = torch.linspace(-0.5, 1.5, 48).reshape(1, 1, 6, 8)
    empty = torch.zeros_like(refined)
    assert torch.equal(ground(as_rendered(empty, empty), refined), refined.clamp(0, 1))


def test_undoes_a_change_of_scale():
    disparity = torch.linspace(0.05, 0.4, 400).reshape(1, 1, 20, 20)
    known = torch.ones_like(disparity)
    assert torch.allclose(ground(as_rendered(disparity, known), 2 * disparity), disparity,
                          atol=1e-5)


def test_gradients_flow_to_both_inputs():
    generator = torch.Generator().manual_seed(0)
    disparity = torch.rand(2, 1, 4, 5, generator=generator, dtype=torch.float64) * 0.4 + 0.1
    refined = torch.rand(2, 1, 4, 5, generator=generator, dtype=torch.float64) * 0.4 + 0.1
    known = torch.ones_like(disparity)
    inputs = (disparity.requires_grad_(), refined.requires_grad_())
    assert torch.autograd.gradcheck(lambda a, b: ground(as_rendered(a, known), b), inputs)


@pytest.mark.parametrize('shape', [(1, 1, 6, 9), (2, 1, 6, 8), (6, 8)])
def test_refuses_other_shapes(shape):
    disparity = torch.full((1, 1, 6, 8), 0.5)
    with pytest.raises(ValueError, match=r'in the shape of the rendered one, \(1, 1, 6, 8\)'):
        ground(as_rendered(disparity, torch.ones_like(disparity)), torch.zeros(shape))
