"""The disparity benchmark finds what is known of a frame, and its figures say what they claim."""

from pathlib import Path
import sys

import numpy as np
import pytest
import torch

from infinite_nature_ros.camera import default_intrinsics, identity_pose
from infinite_nature_ros.frame import Frame


@pytest.fixture
def disparity(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / 'benchmarks'))
    import disparity
    yield disparity
    sys.modules.pop('disparity')


def test_scale_and_shift_do_not_count(disparity):
    truth = np.linspace(0.1, 0.9, 50)
    assert disparity.compare(3 * truth + 2, truth) == pytest.approx((1, 0), abs=1e-6)
    rank, error = disparity.compare(truth ** 3, truth)
    assert rank == pytest.approx(1)
    assert error > 0.05
    assert disparity.compare(-truth, truth)[0] == pytest.approx(-1)


def test_ties_share_their_rank(disparity):
    # Ranks 1.5, 1.5, 3.5, 3.5 beside 1, 2, 3, 4.
    rank, _ = disparity.compare(np.array([1., 1, 2, 2]), np.array([0.1, 0.2, 0.3, 0.4]))
    assert rank == pytest.approx(2 / np.sqrt(5))


def test_a_constant_has_an_error_and_no_rank(disparity):
    rank, error = disparity.compare(np.ones(2), np.array([0.1, 0.3]))
    assert np.isnan(rank)
    assert error == pytest.approx((np.log(2) + np.log(1.5)) / 2)


def test_sky_and_points_out_of_sight_are_not_compared(disparity):
    known = torch.linspace(0.2, 1, 32).expand(1, 1, 20, 32).clone()
    known[..., :10, :] = 0.01
    frame = Frame(torch.zeros(1, 3, 20, 32), known, torch.ones_like(known),
                  identity_pose(), default_intrinsics(20, 32))
    # Points on the right, at the depth of what is seen there; a few far out to the left.
    column = np.repeat([20, 24, 28], 15)
    depth = 1 / known[0, 0, 15, column].numpy()
    points = np.stack([((column + 0.5) / 32 - 0.5) / 0.8 * depth, 0.2 * depth, depth], axis=1)
    points = np.concatenate([points, [[-9, 0, 1]] * 5])
    found = disparity.known_disparity(frame, points)
    (rows, _), truth = found['disparity']
    assert rows.min() == 10
    assert len(truth) == 320
    pixels, truth = found['points']
    assert len(truth) == 45
    assert known[0, 0].numpy()[pixels] == pytest.approx(truth)
    assert 'points' not in disparity.known_disparity(frame, points[-5:])
