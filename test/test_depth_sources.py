"""Disparity of first frames: the horizon prior is geometry, files are read safely."""

from __future__ import annotations

import io
import math
import os
from pathlib import Path
import pickle

import numpy as np
import OpenEXR
from PIL import Image
import pytest
import torch

from infinite_nature_ros import camera
from infinite_nature_ros.depth_sources import (
    estimate_disparity,
    list_sources,
    load_official_sample,
    register_source,
    registry,
)
from infinite_nature_ros.photos import load_photo, sample_photos
from infinite_nature_ros.skyline import detect_sky, find_skyline

HEIGHT, WIDTH = 160, 256
BLANK = torch.full((1, 3, 32, 64), 0.5)


def scene(edge: np.ndarray, seed: int = 0) -> torch.Tensor:
    """Blue sky above the rows ``edge`` ``[W]`` (0 to 1), rough sea or land below."""
    rng = np.random.default_rng(seed)
    rows = (np.arange(HEIGHT)[:, None] + 0.5) / HEIGHT
    above = np.array([0.55, 0.7, 0.9]) + 0.1 * rows[..., None] + np.zeros((1, WIDTH, 1))
    below = np.array([0.2, 0.3, 0.35]) + 0.06 * rng.standard_normal((HEIGHT, WIDTH, 1))
    pixels = np.where((rows < edge[None])[..., None], above, below).clip(0, 1)
    return torch.from_numpy(pixels).float().permute(2, 0, 1)[None]


FLAT = np.full(WIDTH, 0.4)
CLIFF = np.where(np.arange(WIDTH) < 80, 0.15, 0.4)


def points_in_level_world(image: torch.Tensor, disparity: torch.Tensor) -> torch.Tensor:
    """``[3, H, W]`` as ``Flight`` sees them: pitch and roll from the skyline."""
    intrinsics = camera.default_intrinsics(HEIGHT, WIDTH)
    skyline = find_skyline(image)
    pose = camera.level_pose(camera.pitch_of_skyline(skyline.row, intrinsics), skyline.tilt)
    points = camera.pixel_rays(intrinsics, HEIGHT, WIDTH)[0] / disparity[0]
    return (camera.inverse(pose)[0, :, :3] @ points.flatten(1)).reshape(3, HEIGHT, WIDTH)


@pytest.mark.parametrize('row', [0.25, 0.4, 0.6])
@pytest.mark.parametrize('degrees', [0, 3])
def test_a_flat_sea_is_a_level_plane(row, degrees):
    slope = math.tan(math.radians(degrees)) * WIDTH / HEIGHT
    image = scene(row - slope * ((np.arange(WIDTH) + 0.5) / WIDTH - 0.5))
    disparity = estimate_disparity(image, 'horizon')
    heights = points_in_level_world(image, disparity)[1]
    ground = disparity[0, 0] > 0.03
    assert ground.float().mean() > 0.9 * (1 - row) - 0.05
    middle = heights[ground].median()
    assert middle > 0
    assert ((heights[ground] / middle - 1).abs() < 0.02).all()


def test_sky_is_at_the_far_end_and_the_ground_comes_near():
    disparity = estimate_disparity(scene(FLAT))
    assert disparity.shape == (1, 1, HEIGHT, WIDTH)
    assert (disparity[..., :60, :] == camera.MIN_DISPARITY).all()
    assert (disparity[..., -1, :] > 0.35).all()
    assert (disparity.diff(dim=2) >= 0).all()
    # The autopilot likes to be 0.8 to 2 units above the ground.
    height = points_in_level_world(scene(FLAT), disparity)[1][disparity[0, 0] > 0.1].median()
    assert 0.7 < height < 1.3


def test_a_sea_fades_into_the_far_end_without_a_step():
    disparity = estimate_disparity(scene(FLAT))
    assert disparity.diff(dim=2).max() < 0.03


def test_a_cliff_stands_upright_where_its_foot_is():
    image = scene(CLIFF)
    disparity = estimate_disparity(image)
    x, y, z = points_in_level_world(image, disparity)
    cliff = slice(26, 64)
    distance = z[cliff, 10:70]
    assert 1 < distance.median() < 75
    # A wall: its distance changes far less than the ground's would over the same rows.
    assert (distance / distance.median() - 1).abs().max() < 0.1
    # It rises above the camera, and touches the ground at its foot: nothing floats.
    assert y[26, 40] < 0
    column = disparity[0, 0, :, 40]
    assert (column.diff()[26:] >= 0).all()
    assert column.diff()[26:].max() < 0.03
    # Clean edge against the sky.
    assert disparity[0, 0, 20, 40] == camera.MIN_DISPARITY
    # The sea beside it goes on to the horizon.
    assert disparity[0, 0, 66, 200] < 0.05


@pytest.mark.parametrize('name', list(sample_photos()))
def test_sample_photos_make_usable_geometry(name):
    image = load_photo(sample_photos()[name])
    disparity = estimate_disparity(image)
    assert disparity.min() == pytest.approx(0.01)
    assert 0.3 < disparity.max() <= 1
    sky = detect_sky(image) > 0.5
    assert (disparity[sky] == camera.MIN_DISPARITY).all()
    # Without blur: land keeps its distance up to the edge of the sky.
    assert (disparity[~sky] >= camera.MIN_DISPARITY).all()
    assert torch.equal(disparity, estimate_disparity(image))


@pytest.mark.parametrize('value', [0.0, 0.5, 1.0])
def test_pictures_of_nothing_stay_in_the_contract(value):
    disparity = estimate_disparity(torch.full((2, 3, 64, 96), value))
    assert disparity.shape == (2, 1, 64, 96)
    assert (disparity >= 0.01).all()
    assert (disparity <= 1).all()


def test_a_batch_gives_what_its_pictures_give_alone():
    images = torch.cat([scene(FLAT), scene(CLIFF)])
    together = estimate_disparity(images)
    assert torch.equal(together[1:], estimate_disparity(images[1:]))


def test_sources_are_registered_by_name(monkeypatch):
    assert {'file', 'horizon'} <= set(list_sources())
    monkeypatch.setattr(registry, '_sources', dict(registry._sources))

    @register_source('flat')
    def flat(image):
        return torch.full_like(image[:, :1], 5.0)

    assert 'flat' in list_sources()
    assert (estimate_disparity(BLANK, 'flat') == 1).all()
    with pytest.raises(ValueError, match='registered already'):
        register_source('flat')


def test_sources_that_yield_nonsense_are_caught(monkeypatch):
    monkeypatch.setattr(registry, '_sources', dict(registry._sources))
    register_source('shape')(lambda image: image)
    register_source('nan')(lambda image: image[:, :1] * torch.nan)
    for name in ('shape', 'nan'):
        with pytest.raises(ValueError, match='must yield'):
            estimate_disparity(BLANK, name)


def test_unknown_sources_and_wrong_images_are_refused():
    with pytest.raises(ValueError, match='choose from auto, horizon'):
        estimate_disparity(BLANK, 'midsa')
    with pytest.raises(ValueError, match='file:PATH'):
        estimate_disparity(BLANK, 'file')
    with pytest.raises(ValueError, match=r'\[B, 3, H, W\]'):
        estimate_disparity(BLANK[0])


RAMP = np.linspace(0.05, 0.9, 32 * 64, dtype=np.float32).reshape(32, 64)


def write_npy(path: Path, values: np.ndarray) -> Path:
    path = path.with_suffix('.npy')
    np.save(path, values)
    return path


def write_png(path: Path, values: np.ndarray) -> Path:
    path = path.with_suffix('.png')
    Image.fromarray(np.round(values * 65535).astype(np.uint16)).save(path)
    return path


def write_exr(path: Path, values: np.ndarray, channel: str = 'Y') -> Path:
    path = path.with_suffix('.exr')
    header = {'compression': OpenEXR.ZIP_COMPRESSION, 'type': OpenEXR.scanlineimage}
    OpenEXR.File(header, {channel: np.ascontiguousarray(values)}).write(str(path))
    return path


def write_pkl(path: Path, values: np.ndarray, protocol: int = 3) -> Path:
    path = path.with_suffix('.pkl')
    rgbd = np.concatenate([np.full((*values.shape, 3), 0.25, np.float32), values[..., None]], -1)
    sample = {'input_rgbd': rgbd, 'input_intrinsics': np.array([0.8, 1.28, 0.5, 0.5])}
    path.write_bytes(pickle.dumps(sample, protocol))
    return path


WRITERS = [write_npy, write_png, write_exr, write_pkl]


@pytest.mark.parametrize('write', WRITERS)
def test_files_in_the_contract_are_taken_as_they_are(write, tmp_path):
    path = write(tmp_path / 'map', RAMP)
    expected = torch.from_numpy(RAMP)[None, None]
    for source in (path, str(path), f'file:{path}'):
        disparity = estimate_disparity(BLANK, source)
        torch.testing.assert_close(disparity, expected, atol=1e-5, rtol=0)
    assert estimate_disparity(BLANK.expand(3, -1, -1, -1), path).shape == (3, 1, 32, 64)


def test_other_ranges_are_stretched_to_the_contract(tmp_path):
    midas = RAMP * 1000 - 200
    disparity = estimate_disparity(BLANK, write_npy(tmp_path / 'map', midas))
    expected = 0.01 + 0.99 * (RAMP - RAMP.min()) / (RAMP.max() - RAMP.min())
    torch.testing.assert_close(disparity[0, 0], torch.from_numpy(expected), atol=1e-5, rtol=0)


@pytest.mark.parametrize('shape', [(1, 32, 64), (32, 64, 1), (1, 1, 32, 64)])
def test_arrays_may_have_leading_and_trailing_ones(shape, tmp_path):
    path = write_npy(tmp_path / 'map', RAMP.astype(np.float64).reshape(shape))
    torch.testing.assert_close(estimate_disparity(BLANK, path)[0, 0], torch.from_numpy(RAMP))


def test_files_are_cropped_and_averaged_as_the_photo_is(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.uniform(0.1, 0.9, (96, 400)).astype(np.float32)
    disparity = estimate_disparity(BLANK, write_npy(tmp_path / 'map', values))
    photo = load_photo(values, (32, 64))
    torch.testing.assert_close(disparity[0, 0], photo[0, 0], atol=0.01, rtol=0)


def test_integers_are_read(tmp_path):
    values = np.round(RAMP * 255).astype(np.uint8)
    disparity = estimate_disparity(BLANK, write_npy(tmp_path / 'map', values))
    assert disparity.max() == 1
    assert disparity.min() == pytest.approx(0.01)


@pytest.mark.parametrize(('values', 'advice'), [
    pytest.param(np.where(RAMP > 0.5, np.nan, RAMP), 'NaN or infinite', id='nan'),
    pytest.param(np.where(RAMP > 0.5, np.inf, RAMP), 'NaN or infinite', id='inf'),
    pytest.param(np.zeros((32, 64)), 'all over', id='constant'),
    pytest.param(np.zeros((32, 64, 3)), r'numbers \[H, W\]', id='rgb'),
    pytest.param(np.zeros((0, 4)), r'numbers \[H, W\]', id='empty'),
    pytest.param(np.array([['a', 'b']] * 2), r'numbers \[H, W\]', id='text'),
    pytest.param(np.array([[{}, {}]] * 2), 'allow_pickle', id='object'),
])
def test_arrays_that_are_no_disparity_are_refused(values, advice, tmp_path):
    with pytest.raises(ValueError, match=advice):
        estimate_disparity(BLANK, write_npy(tmp_path / 'map', values))


def test_pictures_of_other_kinds_are_refused(tmp_path):
    path = tmp_path / 'map.png'
    Image.fromarray(np.zeros((32, 64), np.uint8)).save(path)
    with pytest.raises(ValueError, match='16-bit'):
        estimate_disparity(BLANK, path)


def test_an_exr_of_depth_is_refused(tmp_path):
    with pytest.raises(ValueError, match='1/depth'):
        estimate_disparity(BLANK, write_exr(tmp_path / 'map', RAMP, 'Z'))


def test_an_exr_of_half_floats_and_colours_is_read(tmp_path):
    colours = np.repeat(RAMP[..., None], 3, 2).astype(np.float16)
    path = write_exr(tmp_path / 'map', colours, 'RGB')
    torch.testing.assert_close(estimate_disparity(BLANK, path)[0, 0], torch.from_numpy(RAMP),
                               atol=1e-3, rtol=0)


@pytest.mark.parametrize('suffix', ['.npy', '.png', '.exr', '.pkl'])
def test_missing_and_damaged_files_are_refused(suffix, tmp_path):
    path = tmp_path / f'map{suffix}'
    with pytest.raises(ValueError, match='does not exist'):
        estimate_disparity(BLANK, path)
    for content in (b'', b'\x93NUMPY\x01\x00junk', b'\x80\x03}q\x00X'):
        path.write_bytes(content)
        with pytest.raises(ValueError, match='map'):
            estimate_disparity(BLANK, path)


def test_unknown_kinds_of_files_are_refused(tmp_path):
    path = tmp_path / 'map.mat'
    path.touch()
    with pytest.raises(ValueError, match=r'\.npy, \.png, \.exr, \.pkl'):
        estimate_disparity(BLANK, path)


@pytest.mark.parametrize('protocol', [0, 2, 3, 4, 5])
def test_official_samples_load_with_every_pickle_protocol(protocol, tmp_path):
    image, disparity = load_official_sample(write_pkl(tmp_path / 'input1', RAMP, protocol))
    assert torch.equal(image, torch.full((1, 3, 32, 64), 0.25))
    assert torch.equal(disparity, torch.from_numpy(RAMP)[None, None])


def test_samples_pickled_by_numpy_1_load(tmp_path):
    path = write_pkl(tmp_path / 'input1', RAMP)
    path.write_bytes(path.read_bytes().replace(b'numpy._core', b'numpy.core'))
    assert torch.equal(load_official_sample(path)[1], torch.from_numpy(RAMP)[None, None])


def test_official_samples_are_clamped_as_the_renderer_does(tmp_path):
    values = RAMP.copy()
    values[:10] = 0
    _, disparity = load_official_sample(write_pkl(tmp_path / 'input1', values))
    expected = torch.from_numpy(values)[None, None].clamp(min=0.01)
    assert torch.equal(disparity, expected)


class Malice:
    """Pickles into a call of ``os.system``."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize('protocol', [0, 2, 4, 5])
def test_malicious_pickles_are_refused_and_never_run(protocol, tmp_path):
    harmed = tmp_path / 'harmed'
    path = tmp_path / 'input1.pkl'
    sample = {'input_rgbd': np.zeros((32, 64, 4)), 'x': Malice(f'touch {harmed}')}
    path.write_bytes(pickle.dumps(sample, protocol))
    with pytest.raises(ValueError, match=r'asks for (posix|nt)\.system'):
        load_official_sample(path)
    assert not harmed.exists()


@pytest.mark.parametrize('name', ['builtins.eval', 'builtins.getattr', 'numpy.load',
                                  'numpy.core.multiarray.fromfile', 'pickle.loads'])
def test_other_globals_are_refused_by_name(name, tmp_path):
    module, _, function = name.rpartition('.')
    path = tmp_path / 'input1.pkl'
    path.write_bytes(f'c{module}\n{function}\n.'.encode())
    with pytest.raises(ValueError, match=name):
        load_official_sample(path)


@pytest.mark.parametrize('content', [
    [1, 2], {'rgbd': 1}, {'input_rgbd': [1.0]}, {'input_rgbd': np.zeros((32, 64, 3))},
    {'input_rgbd': np.full((32, 64, 4), np.nan)}, {'input_rgbd': np.zeros((4, 4, 4), object)}])
def test_other_pickles_are_refused(content, tmp_path):
    path = tmp_path / 'input1.pkl'
    buffer = io.BytesIO()
    pickle.dump(content, buffer)
    path.write_bytes(buffer.getvalue())
    with pytest.raises(ValueError, match='input_rgbd'):
        load_official_sample(path)
