"""Sky and skyline are found in pictures whose truth is known, and in the sample photos."""

from __future__ import annotations

from importlib import resources
import json
import math
from pathlib import Path

import numpy as np
from PIL import Image
import pytest
from safetensors import safe_open
import torch

from infinite_nature_ros import camera
from infinite_nature_ros.photos import crop_and_resize, load_photo, sample_photos
from infinite_nature_ros.sky_network import weights_path
from infinite_nature_ros.skyline import detect_sky, find_skyline

MASKS = Path(__file__).parent / 'data' / 'sky'

HEIGHT, WIDTH = 160, 256

# Height of the horizon and a place in the land and in the sky of each sample photo, by eye.
HORIZONS = {
    'coast': (0.38, 0.46),
    'lake': (0.60, 0.75),
    'plain': (0.58, 0.63),
    'shore': (0.36, 0.48),
    'valley': (0.60, 0.72),
}


def scene(edge: np.ndarray, sky=(0.55, 0.7, 0.9), land=(0.3, 0.35, 0.2), seed=0) -> torch.Tensor:
    """Smooth sky above the rows ``edge`` ``[W]`` (0 to 1), rough land below."""
    rng = np.random.default_rng(seed)
    rows = (np.arange(HEIGHT)[:, None] + 0.5) / HEIGHT
    is_sky = (rows < edge[None])[..., None]
    above = np.array(sky) + 0.1 * rows[..., None] + np.zeros((1, WIDTH, 1))
    below = np.array(land) + 0.06 * rng.standard_normal((HEIGHT, WIDTH, 1))
    pixels = np.where(is_sky, above, below).clip(0, 1)
    return torch.from_numpy(pixels).float().permute(2, 0, 1)[None]


def mask(edge: np.ndarray) -> torch.Tensor:
    rows = (torch.arange(HEIGHT)[:, None] + 0.5) / HEIGHT
    return (rows < torch.from_numpy(edge)[None])[None, None].float()


def iou(found: torch.Tensor, truth: torch.Tensor) -> float:
    found, truth = found > 0.5, truth > 0.5
    return ((found & truth).sum() / (found | truth).sum()).item()


FLAT = np.full(WIDTH, 0.4)
ACROSS = (np.arange(WIDTH) + 0.5) / WIDTH - 0.5
PEAKS = 0.5 - 0.2 * np.abs(np.sin(9 * ACROSS))


@pytest.mark.parametrize('edge', [FLAT, PEAKS], ids=['flat', 'peaks'])
@pytest.mark.parametrize(('sky', 'land'), [
    ((0.55, 0.7, 0.9), (0.3, 0.35, 0.2)),
    ((0.7, 0.7, 0.72), (0.25, 0.25, 0.25)),
    ((0.8, 0.5, 0.3), (0.15, 0.1, 0.1)),
], ids=['blue', 'grey', 'sunset'])
def test_sky_is_cut_along_the_edge(edge, sky, land):
    found = detect_sky(scene(edge, sky, land))
    assert found.shape == (1, 1, HEIGHT, WIDTH)
    assert 0 <= found.min() < 0.01
    assert 0.99 < found.max() <= 1
    assert iou(found, mask(edge)) > 0.98


def test_a_lake_as_blue_as_the_sky_is_not_sky():
    picture = scene(FLAT)
    picture[..., 110:140, 60:200] = picture[..., :30, 60:200]
    assert detect_sky(picture)[..., 110:140, :].max() < 0.5


def test_birds_and_hanging_clouds_belong_to_the_sky():
    picture = scene(FLAT)
    picture[..., 20:24, 100:106] = 0.05
    picture[..., :8, 180:220] = 0.1
    assert iou(detect_sky(picture), mask(FLAT)) > 0.98


def test_a_picture_without_sky_has_none():
    ground = scene(np.zeros(WIDTH), land=(0.3, 0.35, 0.2))
    assert detect_sky(ground).max() == 0
    skyline = find_skyline(ground)
    assert skyline.row.item() == 0
    assert skyline.tilt.item() == 0


def test_a_picture_of_sky_alone_has_its_horizon_at_the_bottom():
    picture = scene(np.ones(WIDTH))
    assert find_skyline(picture, torch.ones(1, 1, HEIGHT, WIDTH)).row.item() == 1


@pytest.mark.parametrize('value', [0.0, 0.5, 1.0])
def test_uniform_pictures_do_not_break_it(value):
    picture = torch.full((1, 3, 64, 64), value)
    found = detect_sky(picture)
    assert torch.isfinite(found).all()
    assert torch.isfinite(find_skyline(picture).row).all()


def test_a_batch_gives_what_its_pictures_give_alone_and_always_the_same():
    pictures = torch.cat([scene(FLAT), scene(PEAKS, seed=1)])
    together = detect_sky(pictures)
    for index in range(2):
        assert torch.equal(together[index:index + 1], detect_sky(pictures[index:index + 1]))
    skylines = find_skyline(pictures)
    assert skylines.row.shape == skylines.tilt.shape == (2,)


@pytest.mark.parametrize('size', [(64, 64), (256, 160), (320, 512)])
def test_other_sizes(size):
    picture = torch.nn.functional.interpolate(scene(FLAT), size, mode='area')
    skyline = find_skyline(picture)
    assert abs(skyline.row.item() - 0.4) < 0.02


@pytest.mark.parametrize('row', [0.15, 0.4, 0.7])
def test_a_level_sea_gives_its_row(row):
    skyline = find_skyline(scene(np.full(WIDTH, row)))
    assert abs(skyline.row.item() - row) < 0.01
    assert skyline.tilt.item() == 0


@pytest.mark.parametrize('degrees', [-3.0, 2.0, 4.0])
def test_a_tilted_sea_gives_the_roll_that_levels_it(degrees):
    """The horizon that ``level_pose`` draws at that roll is found again."""
    pitch, roll = 0.1, math.radians(degrees)
    intrinsics = camera.default_intrinsics(HEIGHT, WIDTH)
    rays = camera.pixel_rays(intrinsics, HEIGHT, WIDTH)
    rotation = camera.level_pose(pitch, roll)[0, :, :3]
    down = (rotation.T @ rays[0].flatten(1))[1].reshape(HEIGHT, WIDTH)
    edge = (down < 0).sum(0).numpy() / HEIGHT
    skyline = find_skyline(scene(edge), mask(edge))
    assert abs(skyline.tilt.item() - roll) < math.radians(0.3)
    assert abs(camera.pitch_of_skyline(skyline.row, intrinsics).item() - pitch) < 0.01


def test_a_cliff_beside_the_sea_does_not_move_the_horizon():
    edge = FLAT.copy()
    edge[:100] = 0.15
    skyline = find_skyline(scene(edge))
    assert abs(skyline.row.item() - 0.4) < 0.01
    assert skyline.tilt.item() == 0


def test_behind_mountains_the_horizon_is_the_plain_at_their_feet():
    edge = 0.35 - 0.25 * np.abs(np.sin(9 * ACROSS))
    picture = scene(edge)
    picture[..., int(0.45 * HEIGHT):, :] += torch.tensor([0.3, 0.25, 0.1])[None, :, None, None]
    assert abs(find_skyline(picture).row.item() - 0.45) < 0.02


def test_behind_mountains_without_a_plain_the_horizon_is_below_their_silhouette():
    row = find_skyline(scene(PEAKS)).row.item()
    assert 0.48 < row < 0.65


@pytest.mark.parametrize('name', list(sample_photos()))
def test_sample_photos(name):
    image = load_photo(sample_photos()[name])
    sky = detect_sky(image)
    skyline = find_skyline(image, sky)
    low, high = HORIZONS[name]
    assert low < skyline.row.item() < high
    assert skyline.tilt.item() == 0
    assert sky[..., :5, :].mean() > 0.95
    assert sky[..., int(high * HEIGHT) + 8:, :].max() == 0


@pytest.mark.parametrize('size', [(96, 160), (160, 256), (288, 512), (256, 160)])
def test_sky_of_the_sample_photos_is_that_of_their_masks(size):
    scores = []
    for name, path in sample_photos().items():
        with Image.open(MASKS / f'{name}.png') as whole:
            truth = np.asarray(crop_and_resize(whole.convert('L'), *size)) > 127
        scores.append(iou(detect_sky(load_photo(path, size))[0, 0], torch.from_numpy(truth)))
    assert np.mean(scores) >= 0.95
    assert min(scores) >= 0.9


# Not the lake's and the shore's: a pale river bed, and water that mirrors, pass for a sky.
@pytest.mark.parametrize('name', ['coast', 'plain', 'valley'])
def test_a_piece_of_a_photo_that_holds_no_sky_has_none(name):
    with Image.open(sample_photos()[name]) as photo:
        land = photo.crop((0, int(0.7 * photo.height), photo.width, photo.height))
    image = load_photo(land)
    assert detect_sky(image).max() == 0
    assert find_skyline(image).row.item() == 0


@pytest.mark.parametrize('name', list(sample_photos()))
def test_a_piece_of_a_photo_that_holds_sky_alone_is_all_sky(name):
    with Image.open(sample_photos()[name]) as photo:
        sky = photo.crop((0, 0, photo.width, int(0.2 * photo.height)))
    assert (detect_sky(load_photo(sky)) > 0.5).float().mean() > 0.99


@pytest.mark.parametrize('size', [(1, 1), (2, 3), (5, 400), (400, 5)])
def test_tiny_and_narrow_pictures_do_not_break_it(size):
    found = detect_sky(torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0)))
    assert found.shape == (1, 1, *size)
    assert torch.isfinite(found).all()


def test_the_network_says_what_it_was_trained_on_and_never_saw_a_held_out_photo():
    with safe_open(weights_path(), framework='pt') as file:
        facts = json.loads(file.metadata()['provenance'])
    lines = (resources.files('infinite_nature_training') / 'held_out.txt').read_text().splitlines()
    assert len(set(facts['photos'])) == len(facts['photos']) > 100
    assert not set(facts['photos']) & set(lines)
    assert set(facts['licences']) <= {'public-domain', 'CC0'}
    assert {'seed', 'steps', 'commit', 'masks', 'validation'} <= set(facts)
    assert weights_path().stat().st_size < 3_000_000


@pytest.mark.parametrize('picture', [torch.zeros(3, 64, 64), torch.zeros(1, 4, 64, 64), None])
def test_other_shapes_are_refused(picture):
    with pytest.raises(ValueError, match=r'\[B, 3, H, W\]'):
        detect_sky(picture)
