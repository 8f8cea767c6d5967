"""The loop: render, refine, ground, repeat, on synthetic scenes and on the bundled photos."""

import math
from unittest.mock import Mock

import numpy as np
from PIL import Image
import pytest
from scenes import sea
import torch
from transforms3d.euler import euler2mat

from infinite_nature_ros import camera, Flight, skyline
from infinite_nature_ros.photos import sample_photos

SIZE = (64, 96)


def flight(batch=1, **options):
    return Flight(*sea(*SIZE, batch=batch), **options)


def pose(forward=0.0, left=0.0, up=0.0, yaw=0.0, pitch=0.0):
    """World to camera of a place in ``map`` axes, radians."""
    rotation = torch.tensor(euler2mat(yaw, pitch, 0.0, 'rzyx'), dtype=torch.float32)[None]
    return camera.from_body_frame(torch.tensor([[forward, left, up]]), rotation)


def check_contract(frame):
    for name, value in frame.tensors().items():
        assert torch.isfinite(value).all(), name
    assert frame.image.min() >= 0
    assert frame.image.max() <= 1
    assert frame.disparity.min() >= 0.01
    assert frame.disparity.max() <= 1
    assert frame.known.min() >= 0
    assert frame.known.max() <= 1


def bytes_of(frame):
    return b''.join(value.numpy().tobytes() for value in frame.tensors().values())


def histogram_distance(one, other):
    """Bhattacharyya distance of joint colour histograms, 8 bins a channel."""
    histograms = []
    for image in (one, other):
        values = image[0].permute(1, 2, 0).reshape(-1, 3).numpy()
        counts, _ = np.histogramdd(values, bins=8, range=[(0, 1)] * 3)
        histograms.append(counts.ravel() / counts.sum())
    return -math.log(np.sqrt(histograms[0] * histograms[1]).sum())


def test_flying_ahead_brings_the_sea_nearer():
    """The disparity of a plane doesn't change when one flies level above it."""
    fly = flight()
    start = fly.frame
    for step in range(1, 11):
        frame = fly.step(pose(forward=0.2 * step))
        check_contract(frame)
    assert torch.equal(frame.pose, pose(forward=2.0))
    ground = slice(40, 60)
    error = (frame.disparity - start.disparity)[:, :, ground].abs().mean()
    assert error < 0.02
    assert not torch.equal(frame.image, start.image)


def test_sky_stays_where_it_is():
    fly = flight()
    start = fly.frame
    for step in range(1, 21):
        frame = fly.step(pose(forward=0.2 * step))
    upper = slice(0, 28)
    assert (start.sky[:, :, upper] > 0.99).all()
    assert (frame.sky[:, :, upper] > 0.99).all()
    assert (frame.image - start.image)[:, :, upper].abs().max() < 0.02
    assert (frame.disparity[:, :, upper] == 0.01).all()
    assert (frame.sky[:, :, 40:] == 0).all()
    assert torch.isinf(frame.depth[:, :, upper]).all()
    assert torch.isfinite(frame.depth[:, :, 40:]).all()


def test_sky_turns_with_the_camera():
    fly = flight()
    frame = fly.step(pose(pitch=0.2))
    horizon = 0.5 - 1.2 * math.tan(0.2)
    row = round(horizon * SIZE[0])
    assert (frame.sky[:, :, :row - 2] > 0.9).all()
    assert (frame.sky[:, :, row + 3:] < 0.1).all()


@pytest.mark.parametrize('target', [
    pose(yaw=math.pi / 2), pose(forward=10.0), pose(forward=-5.0), pose(yaw=math.pi),
    pose(left=3.0), pose(up=2.0),
], ids=['turn_90', 'ahead_10', 'backward', 'turn_180', 'sideways', 'climb'])
def test_far_targets_are_reached_without_an_empty_frame(target):
    fly = flight()
    start = fly.frame
    frame = fly.step(target)
    check_contract(frame)
    assert fly.sub_steps > 1
    assert torch.equal(frame.pose, target)
    assert frame.image.std() > 0.05
    assert histogram_distance(frame.image, start.image) < 1.0
    assert frame.disparity.max() > 0.1


def test_known_counts_from_the_last_yielded_frame():
    near = flight().step(pose(yaw=math.radians(4)))
    far = flight().step(pose(yaw=math.radians(44)))
    assert near.known.mean() > 0.9
    land = far.sky < 0.5
    assert 0.1 < far.known[land].mean() < 0.6


def test_a_step_of_nothing_changes_nearly_nothing():
    fly = flight()
    start = fly.frame
    frame = fly.step(start.pose)
    assert fly.sub_steps == 1
    assert (frame.disparity - start.disparity).abs().mean() < 1e-3
    assert (frame.image - start.image).abs().mean() < 0.02


def test_same_poses_give_the_same_bytes():
    poses = [pose(forward=0.2 * step, yaw=0.05 * step) for step in range(1, 6)]
    runs = []
    for _ in range(2):
        fly = flight(seed=7)
        runs.append([bytes_of(fly.step(target)) for target in poses])
    assert runs[0] == runs[1]


def test_worlds_of_a_batch_are_independent():
    both = flight(batch=2)
    targets = torch.cat([pose(forward=0.2), pose(yaw=0.08)])
    frame = both.step(targets)
    image, disparity, intrinsics = sea(*SIZE, batch=2)
    for world in range(2):
        alone = Flight(image[world:world + 1], disparity[world:world + 1],
                       intrinsics[world:world + 1])
        single = alone.step(targets[world:world + 1])
        assert (single.image - frame.image[world:world + 1]).abs().max() < 1e-5
        assert (single.disparity - frame.disparity[world:world + 1]).abs().max() < 1e-5


def test_reset_of_one_world():
    fly = flight(batch=2)
    start = fly.frame
    moved = fly.step(torch.cat([pose(forward=0.2), pose(forward=0.2)]))
    frame = fly.reset(worlds=[1])
    assert torch.equal(frame.image[0], moved.image[0])
    assert torch.equal(frame.image[1], start.image[1])
    assert torch.equal(frame.pose, torch.cat([pose(forward=0.2), start.pose[1:]]))
    assert bytes_of(fly.reset()) == bytes_of(start)
    with pytest.raises(ValueError, match='world 2'):
        fly.reset(worlds=[2])


def test_snapshot_goes_back_and_on():
    fly = flight()
    fly.step(pose(forward=0.2))
    snapshot = fly.state_dict()
    expected = bytes_of(fly.step(pose(forward=0.4)))
    fly.step(pose(yaw=0.5))
    fly.load_state_dict(snapshot)
    assert bytes_of(fly.step(pose(forward=0.4))) == expected
    other = Flight(*sea(*SIZE, seed=5))
    other.load_state_dict(snapshot)
    assert bytes_of(other.step(pose(forward=0.4))) == expected
    with pytest.raises(ValueError, match='same model, size, batch'):
        flight(batch=2).load_state_dict(snapshot)


@pytest.mark.parametrize(('target', 'message'), [
    (pose() * torch.nan, 'NaN'),
    (pose() * 1.1, 'not orthonormal'),
    (pose()[0], r'\[B, 3, 4\]'),
    (pose().repeat(3, 1, 1), '1 worlds'),
])
def test_bad_poses_are_refused_and_the_flight_goes_on(target, message):
    fly = flight()
    start = fly.frame
    with pytest.raises(ValueError, match=message):
        fly.step(target)
    assert fly.frame is start
    check_contract(fly.step(pose(forward=0.2)))


def test_bad_starts_are_refused():
    image, disparity, intrinsics = sea(*SIZE)
    with pytest.raises(ValueError, match='divisible by 32'):
        Flight(image[..., 1:], disparity[..., 1:], intrinsics)
    with pytest.raises(ValueError, match='disparity goes from'):
        Flight(image, 30 * disparity, intrinsics)
    with pytest.raises(ValueError, match='image goes from'):
        Flight(image * 255, disparity, intrinsics)
    with pytest.raises(ValueError, match='image goes from'):
        Flight(image * torch.nan, disparity, intrinsics)
    with pytest.raises(ValueError, match='sky is'):
        Flight(image, disparity, intrinsics, sky=disparity[..., 1:])
    with pytest.raises(ValueError, match='no model is named'):
        Flight(image, disparity, intrinsics, model='no-such-model')
    with pytest.raises(ValueError, match='device'):
        Flight(image, disparity, intrinsics, device='no-such-device')
    with pytest.raises(ValueError, match='max_step'):
        Flight(image, disparity, intrinsics, max_step=(0.0, 1.0))


@pytest.mark.parametrize('name', list(sample_photos())[:3])
def test_fifty_frames_into_a_photo_still_look_like_the_place(name):
    fly = Flight.from_photo(sample_photos()[name])
    start = fly.frame
    heading = start.pose[:, :, :3]
    for step in range(1, 51):
        frame = fly.step(camera.pose_at(torch.tensor([[0.0, 0.0, 0.2 * step]]), heading))
        check_contract(frame)
    ratio = frame.disparity.median() / start.disparity.median()
    assert 0.5 < ratio < 2
    assert histogram_distance(frame.image, start.image) < 0.3
    # Not a smear: neighbouring pixels still differ about as much as they did.
    sharpness = frame.image.diff(dim=3).abs().mean() / start.image.diff(dim=3).abs().mean()
    assert 0.5 < sharpness < 2


@pytest.mark.parametrize('mode', ['RGB', 'L', 'RGBA', 'CMYK', 'I;16', 'P'])
@pytest.mark.parametrize('shape', [(4000, 3000), (70, 200)], ids=['portrait_12MP', 'small'])
def test_photos_of_every_kind_fly(tmp_path, mode, shape):
    rows = np.linspace(0, 255, shape[0]).astype(np.uint8)[:, None, None]
    grey = Image.fromarray(np.broadcast_to(rows, (*shape, 3)).copy())
    photo = grey.convert('L').convert(mode) if mode in ('I;16', 'P') else grey.convert(mode)
    path = tmp_path / ('photo.tif' if mode == 'CMYK' else 'photo.png')
    photo.save(path)
    fly = Flight.from_photo(path, size=(64, 96))
    check_contract(fly.step(fly.frame.pose))


def test_a_list_of_photos_makes_a_batch():
    photos = list(sample_photos().values())[:2]
    fly = Flight.from_photo(photos, size=(64, 96))
    assert fly.frame.image.shape == (2, 3, 64, 96)
    check_contract(fly.step(fly.frame.pose))


def test_the_sky_of_a_photo_is_looked_for_once(monkeypatch):
    find_sky = Mock(wraps=skyline.find_sky)
    monkeypatch.setattr(skyline, 'find_sky', find_sky)
    fly = Flight.from_photo(sample_photos()['lake'], size=SIZE, disparity='horizon')
    assert find_sky.call_count == 1
    far = fly.frame.disparity == camera.MIN_DISPARITY
    assert far[fly.frame.sky > 0.5].all()


def test_portrait_photos_and_other_fields_of_view():
    fly = Flight.from_photo(next(iter(sample_photos().values())), size=(128, 64), fov=40)
    assert fly.frame.image.shape == (1, 3, 128, 64)
    assert fly.intrinsics[0, 0] == pytest.approx(0.5 / math.tan(math.radians(20)))
    check_contract(fly.step(fly.frame.pose))
