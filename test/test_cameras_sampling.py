"""Virtual views near photos: in their ranges, one flight's step behind, by index, above ground."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from infinite_nature_ros import camera
from infinite_nature_ros.autopilot import Autopilot
from infinite_nature_ros.frame import Frame
from infinite_nature_training.cameras import (
    CameraRanges,
    keep_above_ground,
    piloted_steps,
    sample_nearby_poses,
    sample_previous_poses,
)

HEIGHT, WIDTH = 64, 96
STILL = CameraRanges(speed=(0.2, 0.2), sideways=0, vertical=0, yaw=0, pitch=0, roll=0)
MANY = torch.arange(2000)


def turned(yaw: float, pitch: float = 0.0, roll: float = 0.0, at: tuple = (0, 0, 0)
           ) -> torch.Tensor:
    """Float64 pose by hand: yaw to the right, then nose down, then right side down."""
    cy, sy, cp, sp, cr, sr = (f(angle) for angle in (yaw, pitch, roll) for f in (np.cos, np.sin))
    rotation = (np.array([[cr, sr, 0], [-sr, cr, 0], [0, 0, 1]])
                @ np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
                @ np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]]))
    return torch.from_numpy(np.hstack([rotation, -rotation @ np.array(at)[:, None]]))[None]


def centre_of(pose: torch.Tensor) -> np.ndarray:
    """Camera centres ``[B, 3]``, by numpy."""
    matrix = pose.numpy()
    return -np.einsum('bji,bj->bi', matrix[..., :3], matrix[..., 3])


def ground_frame(pose: torch.Tensor, below: float = 1.0, wall: float = np.inf,
                 sky: torch.Tensor | None = None) -> Frame:
    """What cameras see of a level ground so far below the origin, and of a wall at world z."""
    intrinsics = camera.default_intrinsics(HEIGHT, WIDTH).expand(len(pose), 4)
    y, x = (np.mgrid[:HEIGHT, :WIDTH] + 0.5) / np.array([HEIGHT, WIDTH])[:, None, None]
    fx, fy = intrinsics[0, :2].tolist()
    rays = np.stack([(x - 0.5) / fx, (y - 0.5) / fy, np.ones_like(x)])
    world = np.einsum('bji,jhw->bihw', pose[..., :3].numpy(), rays)
    centre = centre_of(pose)[..., None, None]
    down = world[:, 1] / (below - centre[:, 1])
    ahead = world[:, 2] / (wall - centre[:, 2])
    disparity = torch.from_numpy(np.maximum(down, ahead).clip(0.01, 1))[:, None].float()
    return Frame(torch.zeros(len(pose), 3, HEIGHT, WIDTH), disparity, torch.ones_like(disparity),
                 pose.float(), intrinsics, sky)


def test_a_step_straight_ahead_by_hand() -> None:
    pose = torch.cat([turned(0.3, 0.2, at=(1, 2, 3)), turned(-1.2, -0.3, 0.1)])
    before = sample_nearby_poses(pose, torch.tensor([5, 6]), STILL)
    moved = centre_of(pose) - centre_of(before)
    # Level, however the camera is pitched: as flights go.
    expected = 0.2 * np.array([[np.sin(yaw), 0, np.cos(yaw)] for yaw in (0.3, -1.2)])
    np.testing.assert_allclose(moved, expected, atol=1e-7)
    np.testing.assert_allclose(before[..., :3], pose[..., :3], atol=1e-7)


def test_draws_fill_their_ranges_evenly() -> None:
    ranges = CameraRanges(speed=(0.1, 0.3), sideways=0.08, vertical=0.04, yaw=6, pitch=3, roll=2)
    yaw, pitch, roll = 0.4, 0.15, -0.05
    pose = turned(yaw, pitch, roll, at=(1, -2, 5)).expand(len(MANY), 3, 4)
    before = sample_nearby_poses(pose, MANY, ranges)
    moved = centre_of(pose) - centre_of(before)
    forward = moved @ [np.sin(yaw), 0, np.cos(yaw)]
    right = moved @ [np.cos(yaw), 0, -np.sin(yaw)]
    up = -moved[:, 1]
    rotation = before[..., :3].numpy()
    # The view's direction and, seen along it, the way the right side hangs.
    yaws = np.degrees(np.arctan2(rotation[:, 2, 0], rotation[:, 2, 2]) - yaw)
    for drawn, low, high in ((forward, 0.1, 0.3), (right, -0.08, 0.08), (up, -0.04, 0.04)):
        spread = (high - low) / np.sqrt(12)
        assert low <= drawn.min() + 1e-6
        assert drawn.max() <= high + 1e-6
        assert drawn.mean() == pytest.approx((low + high) / 2, abs=4 * spread / len(MANY)**0.5)
        assert drawn.std() == pytest.approx(spread, rel=0.05)
    # A nod of a rolled camera turns it a little: hence the tolerance.
    assert np.abs(yaws).max() == pytest.approx(6, abs=0.2)
    assert yaws.std() == pytest.approx(6 / 3**0.5, rel=0.05)
    # What one draws says nothing about the others.
    table = np.corrcoef([forward, right, up, yaws])
    assert np.abs(table - np.eye(4)).max() < 0.1


@pytest.mark.parametrize(('name', 'axis'), [('pitch', 0), ('yaw', 1), ('roll', 2)])
def test_turns_are_about_their_axes_and_as_large_as_said(name: str, axis: int) -> None:
    ranges = CameraRanges(**vars(STILL) | {name: 4.0})
    pose = turned(0.3, 0.2).expand(500, 3, 4)
    rotation = sample_nearby_poses(pose, MANY[:500], ranges)[..., :3].numpy()
    change = rotation @ pose[..., :3].numpy().transpose(0, 2, 1)
    if name == 'yaw':  # about the world's vertical
        change = pose[..., :3].numpy().transpose(0, 2, 1) @ rotation
    np.testing.assert_allclose(change[:, axis, axis], 1, atol=1e-6)
    angle = np.degrees(np.arccos(((np.trace(change, axis1=1, axis2=2) - 1) / 2).clip(-1, 1)))
    assert angle.max() <= 4 + 1e-3
    assert angle.mean() == pytest.approx(2, abs=0.25)
    np.testing.assert_allclose(np.linalg.det(rotation), 1, atol=1e-6)


def test_a_draw_depends_on_seed_and_index_alone() -> None:
    pose = turned(0.2, 0.1)
    frame = ground_frame(pose.expand(6, 3, 4))
    indices = torch.tensor([3, 99, 4, 10**9, 0, 7])
    for sample in (
            lambda rows: sample_nearby_poses(frame.pose[rows], indices[rows], seed=2),
            lambda rows: sample_previous_poses(Frame(**{
                name: value[rows] for name, value in frame.tensors().items()}), indices[rows],
                seed=2)):
        together = sample(torch.arange(6))
        alone = torch.cat([sample(torch.tensor([row])) for row in (4, 1, 2, 0, 3, 5)])
        torch.testing.assert_close(alone, together[[4, 1, 2, 0, 3, 5]], rtol=0, atol=1e-6)
        assert torch.equal(sample(torch.arange(6)), together)
        assert len({tuple(map(float, row.flatten())) for row in together}) == 6
    assert not torch.equal(sample_nearby_poses(pose, indices[:1], seed=1),
                           sample_nearby_poses(pose, indices[:1], seed=2))


def test_steps_are_those_of_the_autopilot() -> None:
    frame = ground_frame(turned(0.3, 0.1).expand(3, 3, 4))
    ranges = CameraRanges(**vars(STILL) | {'steering': (0.0, 0.0)})
    indices = torch.tensor([1, 2, 3])
    before = sample_nearby_poses(frame.pose, indices, ranges,
                                 steps=piloted_steps(frame, indices, ranges))
    target = Autopilot(frame.intrinsics).next_pose(frame)
    # As the photo's camera sees the next one, the one before sees the photo's.
    for start, end in ((before, frame.pose), (frame.pose, target)):
        seen = start[..., :3].numpy() @ (centre_of(end) - centre_of(start))[..., None]
        turn = end[..., :3].numpy() @ start[..., :3].numpy().transpose(0, 2, 1)
        if start is before:
            expected = seen, turn
    np.testing.assert_allclose(seen, expected[0], atol=1e-6)
    np.testing.assert_allclose(turn, expected[1], atol=1e-6)
    assert np.linalg.norm(seen, axis=1) == pytest.approx(0.2, abs=1e-5)


def test_steering_turns_both_ways_and_a_wall_sends_the_pilot_round_it() -> None:
    ranges = CameraRanges(**vars(STILL) | {'steering': (0.4, 0.1)})
    pose = turned(0, 0.1).expand(60, 3, 4)
    turns = -piloted_steps(ground_frame(pose), MANY[:60], ranges)[:, 0, 2].double().asin()
    degrees = np.degrees(turns.numpy())
    # Offsets of 0.4 look 26 degrees aside; a step of 0.2 units makes a tenth of a turn.
    assert -3 < degrees.min() < -1.5
    assert 1.5 < degrees.max() < 3
    straight = CameraRanges(**vars(STILL) | {'steering': (0.0, 0.0)})
    free, blocked = (piloted_steps(ground_frame(pose[:1], wall=wall), MANY[:1], straight)
                     for wall in (np.inf, 1.2))
    assert camera.rotation_angle(free[..., :3]).item() < np.radians(1)
    assert camera.rotation_angle(blocked[..., :3]).item() > np.radians(2)


def test_the_length_of_a_piloted_step_is_drawn() -> None:
    frame = ground_frame(turned(0, 0.1).expand(400, 3, 4))
    ranges = CameraRanges(**vars(STILL) | {'speed': (0.1, 0.3)})
    before = sample_previous_poses(frame, MANY[:400], ranges)
    length = np.linalg.norm(centre_of(frame.pose) - centre_of(before), axis=1)
    assert length.min() == pytest.approx(0.1, abs=0.01)
    assert length.max() == pytest.approx(0.3, abs=0.01)
    assert length.mean() == pytest.approx(0.2, abs=0.012)


def test_no_camera_is_inside_the_ground() -> None:
    frame = ground_frame(turned(0.2, 0.2).expand(4, 3, 4), below=0.8)
    pose = torch.cat([turned(0.2, 0.1, at=(0, y, -0.2)) for y in (0.1, 0.69, 0.75, 2)]).float()
    lifted = keep_above_ground(pose, frame)
    # The ground goes on level behind the camera; 0.1 above it is free.
    np.testing.assert_allclose(centre_of(lifted)[:, 1], [0.1, 0.69, 0.7, 0.7], atol=0.01)
    np.testing.assert_allclose(centre_of(lifted)[:, [0, 2]], [[0, -0.2]] * 4, atol=1e-6)
    np.testing.assert_array_equal(lifted[..., :3], pose[..., :3])
    wild = CameraRanges(**vars(STILL) | {'vertical': 1.0})
    frame = ground_frame(turned(0, 0.2).expand(200, 3, 4), below=0.8)
    height = -centre_of(sample_previous_poses(frame, MANY[:200], wild))[:, 1]
    assert height.min() == pytest.approx(-0.7, abs=0.01)
    assert height.max() > 0.8


def test_a_camera_behind_what_the_photo_shows_is_lifted_over_it() -> None:
    # A slope in view that rises above the ground at the camera: the place decides.
    wall = ground_frame(turned(0, 0.3), below=1.0, wall=2.0)
    inside, before = (keep_above_ground(turned(0, at=(0, 0.5, z)).float(), wall)
                      for z in (2.05, 1.0))
    assert centre_of(before)[0, 1] == pytest.approx(0.5)
    assert centre_of(inside)[0, 1] < 0.3


def test_without_ground_in_view_nothing_is_lifted() -> None:
    frame = ground_frame(turned(0, 0.1), sky=torch.ones(1, 1, HEIGHT, WIDTH))
    pose = turned(0, at=(0, 30, 0)).float()
    assert torch.equal(keep_above_ground(pose, frame)[..., :3], pose[..., :3])
    np.testing.assert_allclose(keep_above_ground(pose, frame), pose, atol=1e-6)


def test_a_photo_taken_on_the_ground_keeps_its_camera() -> None:
    frame = ground_frame(turned(0, 0.3), below=0.02)
    np.testing.assert_allclose(keep_above_ground(frame.pose, frame), frame.pose, atol=1e-6)


@pytest.mark.parametrize('wrong', [
    {'speed': (0.3, 0.2)}, {'speed': (-0.1, 0.2)}, {'sideways': -1}, {'yaw': 100},
    {'pitch': float('nan')}, {'steering': (0.6, 0)}])
def test_ranges_that_hold_no_camera_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=f'{next(iter(wrong))} is'):
        CameraRanges(**wrong)
