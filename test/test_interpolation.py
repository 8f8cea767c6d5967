"""Frames between frames: truer to the scene than their neighbours, whole, and reproducible."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from infinite_nature_ros import camera, Flight
from infinite_nature_ros.frame import Frame
from infinite_nature_ros.interpolation import interpolate_frames

HEIGHT, WIDTH = 64, 96
EYE_HEIGHT = 1.0
INTRINSICS = camera.default_intrinsics(HEIGHT, WIDTH)


def pose_at(forward: float, yaw: float = 0.0, right: float = 0.0) -> Tensor:
    """Level camera, yaw in radians to the right."""
    cosine, sine = math.cos(yaw), math.sin(yaw)
    rotation = torch.tensor([[[cosine, 0, -sine], [0, 1, 0], [sine, 0, cosine]]])
    return camera.pose_at(torch.tensor([[right, 0.0, forward]]), rotation)


def plane(pose: Tensor, sky: bool = True) -> Frame:
    """What a camera truly sees of a patterned plane under a sky that pales towards the horizon."""
    rays = camera.pixel_rays(INTRINSICS, HEIGHT, WIDTH)
    world = (pose[:, :, :3].transpose(1, 2) @ rays.flatten(2)).reshape(rays.shape)
    disparity = world[:, 1:2] / EYE_HEIGHT
    ground = disparity > 0
    depth = 1 / disparity.clamp(min=0.01)
    place = camera.position(pose)[..., None, None] + world * depth
    x, z = place[:, 0:1], place[:, 2:3]
    # The pattern fades in the distance, where pixels would be too coarse for it.
    contrast = 0.3 * (disparity * 4).clamp(max=1)
    pattern = torch.cat([(4 * x).sin() * (4 * z).cos(), (3 * z).sin(), (3 * x).cos()], dim=1)
    heaven = torch.tensor([0.5, 0.7, 0.9]).reshape(3, 1, 1) - 0.3 * world[:, 1:2].clamp(max=0)
    image = torch.where(ground, 0.4 + contrast * pattern, heaven).clamp(0, 1)
    disparity = disparity.clamp(camera.MIN_DISPARITY, camera.MAX_DISPARITY)
    return Frame(image, disparity, torch.ones_like(disparity), pose, INTRINSICS,
                 (~ground).float() if sky else None)


def error(frame: Frame, truth: Frame) -> float:
    return (frame.image - truth.image).abs().mean().item()


@pytest.mark.parametrize('sky', [True, False])
@pytest.mark.parametrize('end', [(0.4,), (0.2, 0.1), (0.1, -0.05, 0.2), (-0.3,)],
                         ids=['forward', 'turning', 'drifting', 'backward'])
def test_the_middle_is_closer_to_the_truth_than_either_neighbour(end, sky):
    before, after = plane(pose_at(0.0), sky), plane(pose_at(*end), sky)
    (middle,) = interpolate_frames(before, after, 1)
    truth = plane(camera.interpolate_poses(before.pose, after.pose, 0.5), sky)
    assert torch.equal(middle.pose, truth.pose)
    assert error(middle, truth) < 0.4 * min(error(before, truth), error(after, truth))
    assert (middle.disparity - truth.disparity).abs().mean() < 0.01
    if sky:
        assert (middle.sky - truth.sky).abs().mean() < 0.03


def test_frames_are_evenly_spaced_between_the_neighbours():
    before, after = plane(pose_at(0.0)), plane(pose_at(0.5, 0.1))
    frames = interpolate_frames(before, after, 4)
    ways = [camera.position(frame.pose)[0, 2].item() for frame in frames]
    assert ways == pytest.approx([0.1, 0.2, 0.3, 0.4], abs=1e-5)
    # Near an end they look like it.
    assert error(frames[0], before) < error(frames[1], before) < error(frames[3], before)
    assert error(frames[3], after) < error(frames[2], after) < error(frames[0], after)
    for frame in frames:
        assert error(frame, plane(frame.pose)) < 0.03


@pytest.mark.parametrize('sky', [True, False])
def test_between_equal_frames_lies_the_same_frame(sky):
    frame = plane(pose_at(1.0, 0.3), sky)
    (middle,) = interpolate_frames(frame, frame, 1)
    assert (middle.image - frame.image).abs().mean() < 0.004
    # The lowest row lies on the border of the mesh.
    torch.testing.assert_close(middle.disparity[..., :-1, :], frame.disparity[..., :-1, :],
                               atol=1e-4, rtol=0)
    torch.testing.assert_close(middle.pose, frame.pose)


def test_weights_go_from_one_neighbour_to_the_other():
    """Where neighbours disagree (the refiner repainted), the blend fades over."""
    frame = plane(pose_at(0.0), sky=False)
    dark = frame.replace(image=torch.full_like(frame.image, 0.2))
    bright = frame.replace(image=torch.full_like(frame.image, 0.8))
    means = [between.image.mean().item() for between in interpolate_frames(dark, bright, 3)]
    assert means == pytest.approx([0.35, 0.5, 0.65], abs=0.003)


def wall(pose: Tensor, colour: float) -> Frame:
    """Near wall in the left half before a far ground of another colour."""
    frame = plane(pose, sky=False)
    near = torch.arange(WIDTH) < WIDTH // 2
    disparity = torch.where(near, 0.9, 0.1).expand(1, 1, HEIGHT, WIDTH)
    image = torch.where(near, colour, 0.3).expand(1, 3, HEIGHT, WIDTH)
    return frame.replace(image=image.contiguous(), disparity=disparity.contiguous())


def test_what_only_one_neighbour_sees_is_not_darkened():
    """Holes of a view are 0: blended without regard to what is known, they'd show as shadows."""
    before, after = wall(pose_at(0.0), 0.6), wall(pose_at(0.0, 0.0, 0.4), 0.6)
    for frame in interpolate_frames(before, after, 4):
        assert frame.image.min() > 0.29
        assert frame.image.max() < 0.61
        assert frame.disparity.min() >= 0.09


def test_holes_of_both_are_filled():
    """Far apart and turned away from each other, neighbours leave much of the middle unseen."""
    before, after = plane(pose_at(0.0, -0.6)), plane(pose_at(0.0, 0.6, 3.0))
    (middle,) = interpolate_frames(before, after, 1)
    for value in middle.tensors().values():
        assert torch.isfinite(value).all()
    assert middle.image.min() > 0.05
    assert middle.disparity.min() >= camera.MIN_DISPARITY
    assert middle.disparity.max() <= camera.MAX_DISPARITY


def test_known_is_what_the_first_frame_showed():
    before, after = plane(pose_at(0.0), sky=False), plane(pose_at(0.0, 0.4), sky=False)
    invented = after.replace(known=torch.zeros_like(after.known))
    (middle,) = interpolate_frames(before, invented, 1)
    # Turning right: what comes in from the right was not in the first frame.
    assert (middle.known[..., 4:60, 5:60] > 0.9).all()
    assert (middle.known[..., 4:60, -10:] < 0.1).all()
    (middle,) = interpolate_frames(before, after, 1)
    assert (middle.known[..., 4:60, -10:] > 0.9).all()


def test_a_batch_gives_what_its_worlds_give_alone_and_the_same_again():
    pairs = [(plane(pose_at(0.0)), plane(pose_at(0.3))),
             (plane(pose_at(1.0, 0.2)), plane(pose_at(1.1, 0.25, 0.1)))]
    before, after = (Frame(**{name: torch.cat([pair[side].tensors()[name] for pair in pairs])
                              for name in pairs[0][side].tensors()}) for side in (0, 1))
    together = interpolate_frames(before, after, 2)
    again = interpolate_frames(before, after, 2)
    for number, pair in enumerate(pairs):
        alone = interpolate_frames(*pair, 2)
        for index in range(2):
            for name, value in alone[index].tensors().items():
                torch.testing.assert_close(together[index].tensors()[name][number:number + 1],
                                           value, atol=1e-5, rtol=0)
    for one, other in zip(together, again, strict=True):
        for name, value in one.tensors().items():
            assert torch.equal(value, other.tensors()[name])


def test_frames_of_a_flight_can_be_interpolated():
    start = plane(pose_at(0.0))
    flight = Flight(start.image, start.disparity, INTRINSICS, sky=start.sky, seed=0, device='cpu')
    before, after = flight.frame, flight.step(pose_at(0.2))
    (middle,) = interpolate_frames(before, after, 1)
    truth = plane(pose_at(0.1))
    assert error(middle, truth) < min(error(before, truth), error(after, truth))


def test_no_frames_and_wrong_frames():
    before, after = plane(pose_at(0.0)), plane(pose_at(0.2))
    assert interpolate_frames(before, after, 0) == []
    with pytest.raises(ValueError, match='count is -1'):
        interpolate_frames(before, after, -1)
    with pytest.raises(ValueError, match='of one flight'):
        interpolate_frames(before, plane(pose_at(0.2), sky=False), 1)
    smaller = Frame(**{name: value[..., ::2] if value.dim() == 4 else value
                       for name, value in after.tensors().items()})
    with pytest.raises(ValueError, match='of one flight'):
        interpolate_frames(before, smaller, 1)
