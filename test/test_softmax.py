"""Softmax splatting against a plain loop over the points, and as a renderer of flights."""

import math

import pytest
from scenes import sea
import torch

from infinite_nature_ros import camera, Flight
from infinite_nature_ros.rendering import render

HEIGHT, WIDTH = 12, 16


def frame(height=HEIGHT, width=WIDTH, batch=1, seed=0, dtype=torch.float64):
    """A smooth ground with one near block, so that surfaces break and hide each other."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(batch, 3, height, width, generator=generator, dtype=dtype)
    disparity = 0.1 + 0.02 * torch.rand(batch, 1, height, width, generator=generator, dtype=dtype)
    disparity[..., height // 6:2 * height // 3, width // 4:3 * width // 4] += 0.6
    return image, disparity


def pose(forward=0.0, right=0.0, yaw=0.0, pitch=0.0, roll=0.0):
    turn = torch.tensor([[math.cos(yaw), 0, -math.sin(yaw)], [0, 1, 0],
                         [math.sin(yaw), 0, math.cos(yaw)]], dtype=torch.float64)
    rotation = camera.level_pose(pitch, roll)[..., :3].double() @ turn
    return camera.pose_at(torch.tensor([[right, 0.0, forward]], dtype=torch.float64), rotation)


def intrinsics(focal=0.8, centre=0.5):
    return torch.tensor([[focal, focal * WIDTH / HEIGHT, centre, 0.5]], dtype=torch.float64)


def alpha_at(disparity, row, column):
    """exp(-4 |Sobel|) of one pixel; the border repeats the edge."""
    height, width = len(disparity), len(disparity[0])

    def at(y, x):
        return disparity[min(max(y, 0), height - 1)][min(max(x, 0), width - 1)]
    weights = {-1: 1, 0: 2, 1: 1}
    across = sum(weight * (at(row + k, column + 1) - at(row + k, column - 1))
                 for k, weight in weights.items())
    down = sum(weight * (at(row + 1, column + k) - at(row - 1, column + k))
               for k, weight in weights.items())
    return math.exp(-4 * math.hypot(across, down))


def landings(disparity, relative_pose, source, target):
    """Source row and column, target x, y and z of every point in front of the camera."""
    fx, fy, cx, cy = target
    for row, line in enumerate(disparity):
        for column, value in enumerate(line):
            depth = 1 / min(max(value, 0.01), 1)
            point = [((column + 0.5) / WIDTH - source[2]) / source[0] * depth,
                     ((row + 0.5) / HEIGHT - source[3]) / source[1] * depth, depth]
            x, y, z = (sum(r * p for r, p in zip(line, point, strict=False)) + line[3]
                       for line in relative_pose)
            if z > 1e-5:
                yield (row, column, (fx * x / z + cx) * WIDTH - 0.5,
                       (fy * y / z + cy) * HEIGHT - 0.5, z)


def splat_by_loop(image, disparity, relative_pose, source, target):
    """One view ``[C + 2, H, W]`` (image, disparity, known), point by point."""
    image, disparity = image.tolist(), disparity[0].tolist()
    points = list(landings(disparity, relative_pose.tolist(), source.tolist(), target.tolist()))
    farthest = min(1 / z for *_, z in points)
    nearest = max(1 / z for *_, z in points)
    channels = len(image) + 3
    sums = [[[0.0] * channels for _ in range(WIDTH)] for _ in range(HEIGHT)]
    for row, column, x, y, z in points:
        weight = math.exp((1 / z - farthest) / (nearest - farthest + 1e-6) * 20 - 10)
        values = [plane[row][column] for plane in image]
        values += [1 / z, alpha_at(disparity, row, column), 1.0]
        for pixel_y in (math.floor(y), math.floor(y) + 1):
            for pixel_x in (math.floor(x), math.floor(x) + 1):
                if 0 <= pixel_y < HEIGHT and 0 <= pixel_x < WIDTH:
                    share = weight * (1 - abs(x - pixel_x)) * (1 - abs(y - pixel_y))
                    for channel, value in enumerate(values):
                        sums[pixel_y][pixel_x][channel] += share * value
    means = torch.tensor(sums, dtype=torch.float64)
    means = (means / (means[..., -1:] + 1e-7)).permute(2, 0, 1)
    known = ((means[-2:-1] > 0.3) & (means[-1:] > 0.9)).double()
    return torch.cat([means[:-3] * known, means[-3:-2].clamp(0.01, 1) * known, known])


MOVES = {
    'stay': pose(),
    'ahead': pose(forward=0.31),
    'back': pose(forward=-0.8),
    'sideways': pose(right=0.4),
    'turn': pose(forward=0.2, yaw=0.3, pitch=-0.1, roll=0.2),
    'into_the_block': pose(forward=1.7, right=-0.3, yaw=0.2),
    'turn_round': pose(yaw=2.6),
}


@pytest.mark.parametrize('move', MOVES)
def test_splats_as_the_loop_over_the_points_does(move):
    image, disparity = frame()
    start = camera.identity_pose().double()
    source, target = intrinsics(), intrinsics(0.9, 0.45)
    rendered = render(image, disparity, start, MOVES[move], source, target, backend='softmax')
    view = torch.cat([rendered.image, rendered.disparity, rendered.known], dim=1)[0]
    if move == 'turn_round':
        # Nothing of the frame is in front of this camera.
        assert not view.any()
        return
    expected = splat_by_loop(image[0], disparity[0], MOVES[move][0], source[0], target[0])
    assert 0.15 < expected[-1].mean() < 1
    assert torch.equal(view[-1], expected[-1])
    assert (view - expected).abs().max() < 1e-6


def test_what_is_behind_the_camera_is_not_drawn():
    image, disparity = frame()
    near = slice(0, WIDTH // 2)
    image[:], disparity[:] = 0.2, 0.05
    image[..., near], disparity[..., near] = 1, 1
    rendered = render(image, disparity, camera.identity_pose().double(), pose(forward=2.0),
                      intrinsics(), intrinsics(), backend='softmax')
    assert rendered.known.any()
    assert (rendered.image - 0.2 * rendered.known).abs().max() < 1e-3


def test_the_nearer_of_two_surfaces_is_seen():
    image, disparity = frame()
    near = disparity > 0.5
    image = torch.where(near, torch.ones_like(image), torch.zeros_like(image))
    rendered = render(image, disparity, camera.identity_pose().double(), pose(right=0.3),
                      intrinsics(), intrinsics(), backend='softmax')
    covered = rendered.disparity > 0.5
    assert covered.sum() > 5
    assert (rendered.image > 0.99)[covered.expand_as(image)].all()


def test_worlds_and_further_channels_ride_along():
    image, disparity = frame(batch=2, seed=3)
    image = torch.cat([image, image.flip(1)], dim=1)
    targets = torch.cat([pose(forward=0.3), pose(yaw=0.1)])
    start = camera.identity_pose().double()
    both = render(image, disparity, start, targets, intrinsics(), intrinsics(), 'softmax')
    assert both.image.shape == image.shape
    assert torch.equal(both.image[:, :3], both.image[:, 3:].flip(1))
    for world in range(2):
        one = render(image[world:world + 1, :3], disparity[world:world + 1], start,
                     targets[world:world + 1], intrinsics(), intrinsics(), 'softmax')
        assert torch.allclose(one.image, both.image[world:world + 1, :3])
        assert torch.equal(one.known, both.known[world:world + 1])


def test_same_bytes_whatever_the_number_of_threads():
    image, disparity = frame(96, 160, dtype=torch.float32)
    start, target = camera.identity_pose(), pose(forward=0.3, yaw=0.05).float()
    threads = torch.get_num_threads()
    views = []
    try:
        for number in (1, 2, 4):
            torch.set_num_threads(number)
            rendered = render(image, disparity, start, target, intrinsics().float(),
                              intrinsics().float(), 'softmax')
            views.append(rendered.image.numpy().tobytes() + rendered.disparity.numpy().tobytes())
    finally:
        torch.set_num_threads(threads)
    assert views[0] == views[1] == views[2]


def test_gradients_are_right_numerically():
    image, disparity = frame(6, 6, seed=1)
    inputs = [image, disparity, pose(right=0.02), pose(forward=0.13, yaw=0.11, pitch=0.07),
              intrinsics(), intrinsics(0.93, 0.48)]

    def view(*inputs):
        rendered = render(*inputs, backend='softmax')
        return rendered.image, rendered.disparity
    view_known = render(*inputs, backend='softmax').known
    assert 0.2 < view_known.mean() < 1
    inputs = [value.requires_grad_() for value in inputs]
    assert torch.autograd.gradcheck(view, inputs, eps=1e-7, atol=1e-4)


def test_gradients_stay_finite_where_points_are_behind_the_camera():
    image, disparity = frame()
    target = pose(forward=3.0, yaw=1.2)
    inputs = [value.requires_grad_() for value in (image, disparity, target)]
    rendered = render(image, disparity, camera.identity_pose().double(), target, intrinsics(),
                      intrinsics(), backend='softmax')
    (rendered.image.sum() + rendered.disparity.sum()).backward()
    assert all(torch.isfinite(value.grad).all() for value in inputs)


def test_flies():
    fly = Flight(*sea(64, 96), backend='softmax', device='cpu')
    start = fly.frame
    for step in range(1, 11):
        frame = fly.step(camera.pose_at(torch.tensor([[0.0, 0.0, 0.2 * step]]),
                                        start.pose[..., :3]))
    ground = slice(40, 60)
    assert (frame.disparity - start.disparity)[:, :, ground].abs().mean() < 0.02
    assert (frame.image - start.image)[:, :, :28].abs().max() < 0.02
    assert frame.known.mean() > 0.7
