"""Poses, rays and the change between OpenCV and ROS axes."""

import math

from hypothesis import given, settings, strategies as st
import numpy as np
import pytest
import torch
from transforms3d.euler import euler2mat

from infinite_nature_ros import camera

ANGLES = st.floats(-3.0, 3.0)


def pose_of(pitch, roll, yaw, position):
    """Camera at a position of the ``map`` frame with REP 103 angles."""
    rotation = torch.tensor(euler2mat(yaw, pitch, roll, 'rzyx'), dtype=torch.float32)[None]
    return camera.from_body_frame(torch.tensor([position]), rotation)


def test_default_intrinsics_are_those_of_the_release():
    intrinsics = camera.default_intrinsics(160, 256)
    assert torch.allclose(intrinsics, torch.tensor([[0.8, 1.28, 0.5, 0.5]]))
    fov = math.degrees(2 * math.atan(0.5 / 0.8))
    assert torch.allclose(camera.default_intrinsics(160, 256, fov), intrinsics)
    with pytest.raises(ValueError, match='from 5 to 170'):
        camera.default_intrinsics(160, 256, 180)


@settings(deadline=None, max_examples=50)
@given(ANGLES, ANGLES, ANGLES)
def test_inverse_undoes_a_pose(pitch, roll, yaw):
    pose = pose_of(pitch, roll, yaw, (1.0, -2.0, 3.0))
    back = camera.compose(camera.inverse(pose), pose)
    assert torch.allclose(back, camera.identity_pose(), atol=1e-5)


@settings(deadline=None, max_examples=50)
@given(ANGLES, ANGLES, ANGLES)
def test_body_frame_round_trip(pitch, roll, yaw):
    pose = pose_of(pitch, roll, yaw, (1.0, -2.0, 3.0))
    again = camera.from_body_frame(*camera.to_body_frame(pose))
    assert torch.allclose(again, pose, atol=1e-5)


def test_ros_axes():
    """A camera 1 unit ahead, 2 left and 3 up of the first one (REP 103)."""
    pose = camera.pose_at(torch.tensor([[-2.0, -3.0, 1.0]]), torch.eye(3)[None])
    position, rotation = camera.to_body_frame(pose)
    assert torch.allclose(position, torch.tensor([[1.0, 2.0, 3.0]]))
    assert torch.allclose(rotation, torch.eye(3)[None])


@settings(deadline=None, max_examples=30)
@given(st.floats(-1.2, 1.2), st.floats(-1.2, 1.2))
def test_level_pose_has_the_pitch_and_roll_of_rep_103(pitch, roll):
    expected = pose_of(pitch, roll, 0.0, (0.0, 0.0, 0.0))
    assert torch.allclose(camera.level_pose(pitch, roll), expected, atol=1e-6)


@pytest.mark.parametrize('row', [0.3, 0.5, 0.62])
def test_skyline_row_and_pitch(row):
    intrinsics = camera.default_intrinsics(160, 256)
    pose = camera.level_pose(camera.pitch_of_skyline(row, intrinsics))
    horizon = pose[0, :, :3] @ torch.tensor([0.0, 0.0, 1.0])
    assert horizon[1] / horizon[2] * intrinsics[0, 1] + 0.5 == pytest.approx(row, abs=1e-6)


def test_rays_go_through_pixel_centres():
    rays = camera.pixel_rays(camera.default_intrinsics(4, 8), 4, 8)
    x = rays[0, 0, 0, 0] * 0.8 + 0.5
    y = rays[0, 1, 3, 0] * 1.6 + 0.5
    assert x == pytest.approx(0.5 / 8)
    assert y == pytest.approx(3.5 / 4)
    assert (rays[:, 2] == 1).all()


@settings(deadline=None, max_examples=50)
@given(ANGLES, ANGLES, ANGLES, st.floats(0.0, 1.0))
def test_interpolated_poses_are_on_the_way(pitch, roll, yaw, fraction):
    start = pose_of(0.2, 0.1, -0.4, (0.0, 0.0, 0.0))
    end = pose_of(pitch, roll, yaw, (4.0, 2.0, 0.0))
    way = camera.check_pose(camera.interpolate_poses(start, end, fraction))
    whole = camera.rotation_angle(end[..., :3] @ start[..., :3].mT).item()
    part = camera.rotation_angle(way[..., :3] @ start[..., :3].mT).item()
    assert part == pytest.approx(fraction * whole, abs=3e-3)
    centre = torch.lerp(camera.position(start), camera.position(end), fraction)
    assert torch.allclose(camera.position(way), centre, atol=1e-4)
    assert torch.equal(camera.interpolate_poses(start, end, 1.0), end)


def test_interpolation_of_half_a_turn():
    start, end = camera.identity_pose(), pose_of(0.0, 0.0, math.pi, (0.0, 0.0, 0.0))
    half = camera.check_pose(camera.interpolate_poses(start, end, 0.5))
    angle = camera.rotation_angle(half[..., :3]).item()
    assert angle == pytest.approx(math.pi / 2, abs=1e-3)


@pytest.mark.parametrize(('pose', 'message'), [
    (torch.eye(4)[None], r'give a world-to-camera tensor \[B, 3, 4\]'),
    (np.eye(3, 4)[None], 'give a world-to-camera tensor'),
    (torch.full((1, 3, 4), torch.nan), 'NaN or infinity'),
    (2 * camera.identity_pose(), 'not orthonormal'),
    (camera.identity_pose() * torch.tensor([1.0, 1.0, -1.0, 1.0]), 'mirror image'),
])
def test_bad_poses_are_refused(pose, message):
    with pytest.raises(ValueError, match=message):
        camera.check_pose(pose)


@pytest.mark.parametrize(('intrinsics', 'message'), [
    (torch.ones(4), r'tensor \[B, 4\]'),
    (torch.tensor([[0.0, 1.0, 0.5, 0.5]]), 'positive focal'),
    (torch.tensor([[200.0, 200.0, 128.0, 80.0]]), 'looks like pixels'),
])
def test_bad_intrinsics_are_refused(intrinsics, message):
    with pytest.raises(ValueError, match=message):
        camera.check_intrinsics(intrinsics)
