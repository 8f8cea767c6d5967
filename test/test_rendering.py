"""The renderer against the official release's outputs, and its backends against each other."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from infinite_nature_ros import camera
from infinite_nature_ros.rendering import list_backends, mesh, render
from infinite_nature_ros.rendering.backends import get_backend

GOLDEN = np.load(Path(__file__).parent / 'golden' / 'render.npz')
CASES = [str(name) for name in GOLDEN['case_names']]
RGBD = torch.from_numpy(GOLDEN['rgbd']).permute(2, 0, 1)[None]


def installed_rasterizers():
    """PyTorch3D is tested where somebody built it; the other two are always there."""
    names = list_backends()
    names.remove('softmax')  # Another renderer, with other outputs: test_softmax.py.
    if importlib.util.find_spec('pytorch3d') is None:
        names.remove('pytorch3d')
    return names


def golden(case, key):
    return torch.from_numpy(GOLDEN[f'{case}__{key}'])[None]


def cameras(case):
    return [golden(case, key) for key in
            ('source_pose', 'target_pose', 'source_intrinsics', 'target_intrinsics')]


def smooth_disparity(height=40, width=64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 1, 5, 8, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, size=(height, width), mode='bicubic')
    return fine.clamp(0.01, 1)


def test_source_mask_is_the_official_one():
    mask = mesh.surface_mask(RGBD[:, 3:])
    assert torch.equal(mask[0, 0], torch.from_numpy(GOLDEN['source_mask']).reshape(64, 96))


@pytest.mark.parametrize('gradient', [False, True], ids=['fused', 'differentiable'])
@pytest.mark.parametrize('backend', installed_rasterizers())
@pytest.mark.parametrize('case', CASES)
def test_golden_output(case, backend, gradient):
    rgbd = RGBD.clone().requires_grad_(gradient)
    rendered = render(rgbd[:, :3], rgbd[:, 3:], *cameras(case), backend=backend)
    view = torch.cat([rendered.image, rendered.disparity], dim=1).detach()[0].permute(1, 2, 0)
    error = (view - golden(case, 'out_rgbd')[0]).abs()
    mask = golden(case, 'out_mask').reshape(64, 96)
    mask_error = (rendered.known.detach()[0, 0] - mask).abs()
    worst = torch.maximum(error.amax(-1), mask_error)
    assert error.median() < 1e-5
    assert (error < 1e-3).float().mean() > 0.999
    assert (worst > 1e-3).float().mean() <= 0.003


@pytest.mark.parametrize('backend', installed_rasterizers())
@pytest.mark.parametrize('case', CASES)
def test_golden_gradients(case, backend):
    rgbd = RGBD.clone().requires_grad_()
    source, target, source_intrinsics, target_intrinsics = cameras(case)
    target.requires_grad_()
    rendered = render(rgbd[:, :3], rgbd[:, 3:], source, target, source_intrinsics,
                      target_intrinsics, backend=backend)
    weight = torch.from_numpy(GOLDEN['loss_weight_rgbd']).permute(2, 0, 1)[None]
    mask_weight = torch.from_numpy(GOLDEN['loss_weight_mask']).reshape(1, 1, 64, 96)
    view = torch.cat([rendered.image, rendered.disparity], dim=1)
    ((view * weight).sum() + (rendered.known * mask_weight).sum()).backward()
    expected = golden(case, 'grad_rgbd').permute(0, 3, 1, 2)
    assert relative_error(rgbd.grad[:, :3], expected[:, :3]) < 0.02
    assert relative_error(rgbd.grad[:, 3:], expected[:, 3:]) < 0.02
    assert relative_error(target.grad, golden(case, 'grad_target_pose')) < 0.02


def relative_error(value, expected):
    return ((value - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize('case', CASES)
def test_warp_draws_what_the_torch_reference_draws(case):
    source, target, source_intrinsics, target_intrinsics = cameras(case)
    vertices = mesh.project_vertices(RGBD[:, 3:], camera.relative_pose(source, target),
                                     source_intrinsics, target_intrinsics)
    faces = mesh.grid_faces(64, 96, vertices.device)
    drawn = [get_backend(name).rasterize(vertices, faces, 64, 96) for name in ('warp', 'torch')]
    assert torch.equal(*drawn)


@pytest.mark.parametrize('ahead', [1.5, 3.0, 20.0])
def test_triangles_that_cross_the_camera_plane(ahead):
    disparity = smooth_disparity()
    intrinsics = camera.default_intrinsics(40, 64)
    pose = camera.identity_pose()
    pose[0, 2, 3] = -ahead
    vertices = mesh.project_vertices(disparity, pose, intrinsics, intrinsics)
    assert (vertices[..., 2] < 0).any()
    faces = mesh.grid_faces(40, 64, vertices.device)
    drawn = [get_backend(name).rasterize(vertices, faces, 40, 64) for name in ('warp', 'torch')]
    assert torch.equal(*drawn)


def test_ties_go_to_the_later_triangle_and_both_sides_are_drawn():
    corners = torch.tensor([[[-8.0, -8.0, 1.0], [24.0, -8.0, 1.0], [-8.0, 24.0, 1.0]]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 1]], dtype=torch.int32)
    for name in ('warp', 'torch'):
        assert (get_backend(name).rasterize(corners, faces, 6, 6) == 1).all()
        assert (get_backend(name).rasterize(corners, faces[:1], 6, 6) == 0).all()


def test_same_pose_gives_the_frame_back_where_the_surface_is_whole():
    disparity = smooth_disparity() * 0.05 + 0.2
    image = torch.rand(1, 3, 40, 64, generator=torch.Generator().manual_seed(1))
    pose, intrinsics = camera.level_pose(0.3, -0.2), camera.default_intrinsics(40, 64)
    rendered = render(image, disparity, pose, pose, intrinsics, intrinsics)
    whole = rendered.known > 0.99
    assert whole.float().mean() > 0.9
    assert (rendered.image - image).abs()[whole.expand_as(image)].max() < 1e-3
    assert (rendered.disparity - disparity).abs()[whole].max() < 1e-4


def test_batch_equals_single_worlds():
    disparity = torch.cat([smooth_disparity(seed=2), smooth_disparity(seed=3)])
    image = torch.rand(2, 3, 40, 64)
    poses = torch.cat([camera.level_pose(0.1), camera.level_pose(-0.1, 0.2)])
    start, intrinsics = camera.identity_pose(), camera.default_intrinsics(40, 64)
    both = render(image, disparity, start, poses, intrinsics, intrinsics)
    for world in range(2):
        one = render(image[world:world + 1], disparity[world:world + 1], start,
                     poses[world:world + 1], intrinsics, intrinsics)
        assert torch.equal(one.image, both.image[world:world + 1])
        assert torch.equal(one.known, both.known[world:world + 1])


def test_further_channels_are_carried_along():
    disparity, image = smooth_disparity(), torch.rand(1, 5, 40, 64)
    pose, target = camera.identity_pose(), camera.level_pose(0.1, 0.2)
    intrinsics = camera.default_intrinsics(40, 64)
    five = render(image, disparity, pose, target, intrinsics, intrinsics)
    three = render(image[:, :3], disparity, pose, target, intrinsics, intrinsics)
    assert torch.equal(five.image[:, :3], three.image)
    assert torch.equal(five.known, three.known)


def test_gradients_are_right_numerically():
    disparity = smooth_disparity(8, 8).double() * 0.1 + 0.3
    image = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    pose = camera.identity_pose().double()
    intrinsics = camera.default_intrinsics(8, 8).double()
    target = camera.level_pose(0.013, 0.017).double()

    def view(image, disparity, target):
        rendered = render(image, disparity, pose, target, intrinsics, intrinsics, backend='torch')
        return rendered.image, rendered.disparity, rendered.known
    inputs = [value.requires_grad_() for value in (image, disparity, target)]
    assert torch.autograd.gradcheck(view, inputs, eps=1e-7, atol=1e-4)


def test_wrong_input_is_refused():
    image, disparity = torch.rand(1, 3, 8, 8), torch.rand(1, 1, 8, 8)
    pose, intrinsics = camera.identity_pose(), camera.default_intrinsics(8, 8)
    with pytest.raises(ValueError, match='choose one of warp, torch, pytorch3d'):
        render(image, disparity, pose, pose, intrinsics, intrinsics, backend='opengl')
    with pytest.raises(ValueError, match='disparity is'):
        render(image, disparity[..., 1:], pose, pose, intrinsics, intrinsics)
    with pytest.raises(ValueError, match='image is'):
        render(image[0], disparity, pose, pose, intrinsics, intrinsics)
    with pytest.raises(ValueError, match='target_pose has batch 2'):
        render(image, disparity, pose, pose.repeat(2, 1, 1), intrinsics, intrinsics)
