"""Procedural coasts: the same from everywhere and every time, exact, and no test card."""

from __future__ import annotations

import hashlib
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from spectra import spectral_slope
import torch

from infinite_nature_ros import camera, Frame
from infinite_nature_ros.pixels import to_pixels
from infinite_nature_ros.rendering import render
from infinite_nature_training.sources.coast import CoastWorld, fly
from infinite_nature_training.sources.coast.clips import CoastOptions, make_clip

HEIGHT, WIDTH = 96, 160
INTRINSICS = camera.default_intrinsics(HEIGHT, WIDTH)


@pytest.fixture(scope='module')
def world() -> CoastWorld:
    return CoastWorld(1)


@pytest.fixture(scope='module')
def flight(world: CoastWorld) -> list[Frame]:
    return list(islice(fly(world, HEIGHT, WIDTH, speed=0.2, seed=1), 60))


def error(image: torch.Tensor, other: torch.Tensor, known: torch.Tensor) -> float:
    return float(((image - other).abs() * known).sum() / known.sum())


def warped(source: Frame, target: Frame) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Picture and disparity of the source, seen by the target, and where they are known."""
    view = render(source.image, source.disparity, source.pose, target.pose, source.intrinsics,
                  target.intrinsics)
    return view.image, view.disparity, (view.known > 0.99).float()


def test_the_disparity_is_that_of_the_picture(flight: list[Frame]) -> None:
    # From one frame to the next, land and sea move as the disparity says.
    for source, target in zip(flight[:50:10], flight[1:51:10], strict=True):
        image, disparity, known = warped(source, target)
        land = known * (1 - target.sky)
        assert error(image, target.image, land) < 0.6 * error(source.image, target.image, land)
        off = (disparity / target.disparity - 1).abs()[land > 0]
        assert off.median() < 0.005
        assert (off < 0.1).float().mean() > 0.95


def test_the_sea_is_flat(flight: list[Frame]) -> None:
    # Where a ray's depth puts it on the sea, it is on the sea exactly; nothing lies below.
    frame = flight[0]
    points = camera.pixel_rays(INTRINSICS, HEIGHT, WIDTH) / frame.disparity
    rotation = camera.inverse(frame.pose)
    y = (rotation[:, 1:2, :3] @ points.flatten(2) + rotation[:, 1:2, 3:]).reshape(HEIGHT, WIDTH)
    seen = (frame.disparity[0, 0] > camera.MIN_DISPARITY) & (frame.sky[0, 0] == 0)
    assert (y[seen] < 2e-3).all()
    assert (y[seen].abs() < 1e-3).float().mean() > 0.05


def test_a_flight_stays_above_the_ground(world: CoastWorld, flight: list[Frame]) -> None:
    poses = torch.cat([frame.pose for frame in flight])
    assert world.clearance(poses).min() > 0.4
    way = camera.position(poses)
    assert (way[-1] - way[0]).norm() > 5
    assert (way.diff(dim=0).norm(dim=-1) < 0.2001).all()


def test_frames_keep_the_contract(flight: list[Frame]) -> None:
    for frame in flight:
        assert all(torch.isfinite(value).all() for value in frame.tensors().values())
        assert frame.image.amin() >= 0
        assert frame.image.amax() <= 1
        assert frame.disparity.amin() >= camera.MIN_DISPARITY
        assert frame.disparity.amax() <= camera.MAX_DISPARITY
        assert (frame.disparity[frame.sky > 0] == camera.MIN_DISPARITY).all()
        camera.check_pose(frame.pose)


def test_views_show_sky_land_and_sea() -> None:
    for seed in (2, 9):
        world = CoastWorld(seed)
        frame = world.look(world.start, INTRINSICS, HEIGHT, WIDTH)
        assert 0.05 < frame.sky.mean() < 0.6
        assert frame.disparity.amax() < 0.8
        assert 0.3 < frame.image.mean() < 0.7
        # Level: the right of the camera is level, and so is the horizon.
        assert abs(float(world.start[0, 0, 1])) < 1e-6


def test_a_picture_is_no_test_card(flight: list[Frame]) -> None:
    for frame in flight[::20]:
        picture = to_pixels(frame.image)[0]
        colours = len(np.unique(picture.reshape(-1, 3), axis=0))
        assert colours > 0.2 * HEIGHT * WIDTH
        # Of the power spectra of 110 landscape photographs at this size, 80 % fall with an
        # exponent of -3.3 to -2.3.
        assert -3.5 < spectral_slope(picture.mean(-1)) < -2.0
        # Texture down to the pixel: no two neighbouring rows or columns are alike.
        for axis in (0, 1):
            assert np.abs(np.diff(picture.astype(int), axis=axis)).mean((1 - axis, 2)).min() > 0.2


def test_a_view_does_not_depend_on_the_way_there(world: CoastWorld, flight: list[Frame]) -> None:
    # The grids of this world have moved along; those of a new one are computed at once.
    last = flight[-1]
    fresh = CoastWorld(1).look(last.pose, INTRINSICS, HEIGHT, WIDTH)
    assert torch.equal(fresh.image, last.image)
    assert torch.equal(fresh.disparity, last.disparity)


def test_a_world_has_no_borders(world: CoastWorld) -> None:
    far = world.start.clone()
    far[:, :, 3:] -= far[:, :, :3] @ torch.tensor([[[900.0], [0.0], [-2000.0]]])
    height = world.clearance(far)[0] - 3
    far[:, :, 3:] += far[:, :, :3] @ torch.tensor([[[0.0], [-height], [0.0]]])
    image, disparity = world.render(far, INTRINSICS, HEIGHT, WIDTH)
    assert image.std() > 0.05
    assert disparity.amax() > 0.02


def test_a_batch_is_seen_as_one_by_one(world: CoastWorld, flight: list[Frame]) -> None:
    poses = torch.cat([flight[0].pose, flight[30].pose])
    image, disparity = world.render(poses, INTRINSICS, HEIGHT, WIDTH)
    assert torch.equal(image, torch.cat([flight[0].image, flight[30].image]))
    assert torch.equal(disparity, torch.cat([flight[0].disparity, flight[30].disparity]))


def test_waves_and_clouds_move_with_time_and_nothing_else(world: CoastWorld) -> None:
    still = world.look(world.start, INTRINSICS, HEIGHT, WIDTH)
    later = world.look(world.start, INTRINSICS, HEIGHT, WIDTH, time=2.0)
    assert not torch.equal(still.image, later.image)
    assert torch.equal(still.disparity, later.disparity)


def digests(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob('*')) if path.is_file()}


def test_a_seed_gives_the_same_bytes_and_another_one_another_coast(tmp_path: Path) -> None:
    options = CoastOptions(frames=2, height=32, width=64, split='test')
    for folder, seed in (('a', 5), ('b', 5), ('c', 6)):
        assert make_clip(tmp_path / folder, 'clip', seed, options) == ['clip']
    bags = {name: digests(tmp_path / name / 'clip') for name in 'abc'}
    assert bags['a'] == bags['b']
    assert bags['a'] != bags['c']


@pytest.mark.parametrize(('options', 'message'), [
    ({'frames': 0}, 'frames is 0; give at least 1'),
    ({'height': 8}, 'the size is 8 x 256; give at least 16 x 16'),
    ({'speed': 3.0}, 'speed is 3.0; give scene units per frame'),
])
def test_options_that_cannot_be_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CoastOptions(**options)


def test_a_world_refuses_what_it_cannot_show(world: CoastWorld) -> None:
    with pytest.raises(ValueError, match='seed is -1; give 0 or more'):
        CoastWorld(-1)
    with pytest.raises(ValueError, match='the size is 1 x 9; give at least'):
        world.look(world.start, INTRINSICS, 1, 9)
    with pytest.raises(ValueError, match='not orthonormal'):
        world.look(2 * world.start, INTRINSICS, HEIGHT, WIDTH)
