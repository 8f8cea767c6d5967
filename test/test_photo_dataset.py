"""Photos as training samples: honest crops, the same wherever drawn, with masks and credits."""

from __future__ import annotations

from collections.abc import Callable
import json
import math
from pathlib import Path
import shutil

import numpy as np
from PIL import Image
import pytest
import torch
from torch.utils.data import DataLoader

from infinite_nature_ros import camera
from infinite_nature_ros.depth_sources import registry
from infinite_nature_ros.flight import Flight
from infinite_nature_ros.photos import sample_photos
from infinite_nature_ros.sky import keep_far
from infinite_nature_training.augmentation import Augmentation
from infinite_nature_training.bags import ClipError
from infinite_nature_training.datasets import to_float
from infinite_nature_training.photo_dataset import PhotoDataset
from infinite_nature_training.provenance import describe_run
from infinite_nature_training.sources.photos import choose, HELD_OUT_PHOTOS

SIZE = (32, 64)
MAP_HEIGHT, MAP_WIDTH = 300, 500
PLAIN = Augmentation(flip=0, brightness=0, contrast=0, saturation=0, hue=0)


def save_map(path: Path) -> None:
    """Save a picture that tells where its pixels lie: red across, green down, blue checkered."""
    y, x = np.mgrid[:MAP_HEIGHT, :MAP_WIDTH]
    Image.fromarray(np.stack([255 * x / (MAP_WIDTH - 1), 255 * y / (MAP_HEIGHT - 1),
                              255 * ((x + y) % 2)], axis=-1).round().astype(np.uint8)).save(path)


@pytest.fixture(scope='module')
def one_map(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of one such picture; its mask, at another size, has the left 40 % as sky."""
    folder = tmp_path_factory.mktemp('map')
    save_map(folder / 'map.png')
    (folder / 'masks').mkdir()
    mask = np.zeros((60, 100), np.uint8)
    mask[:, :40] = 255
    Image.fromarray(mask).save(folder / 'masks' / 'map.png')
    return folder


@pytest.fixture(scope='module')
def open_map(one_map: Path) -> Callable[..., PhotoDataset]:
    return lambda **settings: PhotoDataset(one_map, **{
        'size': SIZE, 'masks': one_map / 'masks', 'augmentation': None, 'disparity': 'horizon',
        'most_sky': 1.0} | settings)


@pytest.fixture(scope='module')
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the bundled photos, small; with credits."""
    folder = tmp_path_factory.mktemp('photos')
    (folder / 'far').mkdir()
    for name, path in sample_photos().items():
        place = folder / 'far' if name == 'lake' else folder
        with Image.open(path) as picture:
            picture.resize((256, 128)).save(place / f'{name}.jpg')
    (folder / 'credits.csv').write_text(
        'file,author,licence,comment\ncoast.jpg,Ann,CC0,"Cropped, twice."\n'
        'lake.jpg,Ann,CC0,"Cropped, twice."\nshore.jpg,Bob,CC-BY-SA-4.0,\n')
    return folder


def box_of(sample: dict) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a crop of the map in its pixels, read from its colours."""
    colours = sample['image'][0].double()
    across = colours[0].mean(0).numpy() / 255 * (MAP_WIDTH - 1) + 0.5
    down = colours[1].mean(1).numpy() / 255 * (MAP_HEIGHT - 1) + 0.5
    # Pixel centres lie at half pixels: a line through them reaches to the crop's edges.
    sides = []
    for centres in (across, down):
        slope, start = np.polyfit(np.arange(len(centres)) + 0.5, centres, 1)
        sides.append((start, start + slope * len(centres)))
    return sides[0][0], sides[1][0], sides[0][1], sides[1][1]


def test_crops_have_the_aspect_ratio_and_lie_anywhere(
        open_map: Callable[..., PhotoDataset]) -> None:
    dataset = open_map(crop=(0.3, 0.9))
    assert len(dataset) == 1
    boxes = np.array([box_of(dataset[index]) for index in range(200)])
    left, top, right, bottom = boxes.T
    assert boxes.min() > -0.7
    assert right.max() < MAP_WIDTH + 0.7
    assert bottom.max() < MAP_HEIGHT + 0.7
    np.testing.assert_allclose((right - left) / (bottom - top), 2, rtol=0.01)
    # The largest crop of 500 x 300 at 2 : 1 is 500 x 250.
    shares = np.log((bottom - top) / 250)
    assert math.log(0.3) - 0.01 < shares.min() < math.log(0.3) + 0.03
    assert math.log(0.9) - 0.03 < shares.max() < math.log(0.9) + 0.01
    assert shares.mean() == pytest.approx(math.log(0.3 * 0.9) / 2, abs=0.06)
    for place in (left / (MAP_WIDTH - (right - left)), top / (MAP_HEIGHT - (bottom - top))):
        assert place.mean() == pytest.approx(0.5, abs=0.06)
        assert place.std() == pytest.approx(1 / 12**0.5, abs=0.03)


def test_a_crop_is_averaged_down_together_with_its_mask(
        open_map: Callable[..., PhotoDataset]) -> None:
    for index in range(20):
        sample = open_map()[index]
        left, top, right, bottom = box_of(sample)
        # The checkered blue shows what wasn't averaged.
        assert (sample['image'][0, 2].double() - 127.5).abs().max() < 30
        edges = np.linspace(left, right, SIZE[1] + 1)
        covered = ((0.4 * MAP_WIDTH - edges[:-1]) / np.diff(edges)).clip(0, 1)
        sky = sample['sky'][0, 0].numpy() / 255
        assert np.ptp(sky, axis=0).max() == 0
        # The mask is five times coarser than the photo.
        assert np.abs(sky[0] - covered).sum() < 1


def test_what_a_sample_holds(open_map: Callable[..., PhotoDataset], one_map: Path) -> None:
    sample = open_map(augmentation=PLAIN)[3]
    shapes = {name: (tuple(value.shape), value.dtype) for name, value in sample.items()
              if isinstance(value, torch.Tensor)}
    assert shapes == {
        'image': ((1, 3, *SIZE), torch.uint8), 'disparity': ((1, 1, *SIZE), torch.float16),
        'sky': ((1, 1, *SIZE), torch.uint8), 'pose': ((1, 3, 4), torch.float64),
        'intrinsics': ((1, 4), torch.float64)}
    assert (sample['photo'], sample['index']) == ('map.png', 3)
    real = to_float(sample)
    torch.testing.assert_close(real['sky'], sample['sky'] / 255)
    torch.testing.assert_close(real['intrinsics'], camera.default_intrinsics(*SIZE))
    assert {value.dtype for value in real.values() if isinstance(value, torch.Tensor)} == {
        torch.float32}
    with pytest.raises(IndexError, match='index is -1'):
        open_map()[-1]


def test_disparity_is_of_the_named_source_with_the_sky_far(
        open_map: Callable[..., PhotoDataset], monkeypatch: pytest.MonkeyPatch) -> None:
    given = []

    def source(image: torch.Tensor, sky: torch.Tensor) -> torch.Tensor:
        given.append(sky)
        return image[:, :1] * 2

    monkeypatch.setitem(registry._load_sources(), 'twice-red', source)
    sample = open_map(disparity='twice-red')[1]
    sky = sample['sky'] / 255
    torch.testing.assert_close(given, [sky])
    expected = np.where(sky > 0.5, 0.01, (sample['image'][:, :1] / 255 * 2).clamp(0.01, 1))
    np.testing.assert_allclose(sample['disparity'], expected, rtol=1e-3)
    assert 0 < (sky > 0.5).float().mean() < 1


def test_a_whole_photo_is_as_a_flight_into_it_starts(photos: Path) -> None:
    dataset = PhotoDataset(photos, size=(64, 128), crop=(1, 1), augmentation=None,
                           disparity='horizon', match=['valley*'])
    sample = to_float(dataset[0])
    start = Flight.from_photo(photos / 'valley.jpg', size=(64, 128), disparity='horizon').start
    assert (sample['image'] - start.image).abs().max() < 0.5 / 255 + 1e-6
    torch.testing.assert_close(sample['pose'], start.pose)
    # A flight keeps what is far as it keeps the sky.
    sky, disparity = keep_far(sample['sky'], sample['disparity'], start.pose, start.intrinsics)
    assert (sky - start.sky).abs().max() < 0.01
    torch.testing.assert_close(disparity, start.disparity, rtol=1e-3, atol=0)


def test_the_pose_is_level_with_the_skyline_of_the_crop(tmp_path: Path) -> None:
    pixels = np.full((400, 640, 3), (90, 160, 230), np.uint8)
    noise = np.random.default_rng(0).integers(30, 90, (200, 640, 3), np.uint8)
    pixels[200:] = noise
    Image.fromarray(pixels).save(tmp_path / 'sea.png')
    mask = np.zeros((400, 640), np.uint8)
    mask[:200] = 255
    (tmp_path / 'masks').mkdir()
    Image.fromarray(mask).save(tmp_path / 'masks' / 'sea.png')
    dataset = PhotoDataset(tmp_path, size=(64, 96), masks=tmp_path / 'masks', augmentation=None,
                           disparity='horizon', most_sky=1)
    assert [photo['photo'] for photo in dataset] == ['sea.png']
    for index in range(12):
        sample = dataset[index]
        share = sample['sky'].double().mean() / 255
        if 0.1 < share < 0.9:
            # The horizon's row, seen by the level camera: R maps (0, 0, 1) there.
            ray = sample['pose'][0, :, 2]
            row = ray[1] / ray[2] * sample['intrinsics'][0, 1] + 0.5
            assert row == pytest.approx(share.item(), abs=0.02)
        assert not sample['pose'][0, :, 3].any()


def test_crops_with_too_much_sky_are_drawn_anew(open_map: Callable[..., PhotoDataset]) -> None:
    def shares(**settings: float) -> np.ndarray:
        dataset = open_map(crop=(0.3, 0.5), **settings)
        return np.array([dataset[index]['sky'].double().mean() / 255 for index in range(80)])

    free, limited, harsh = shares(), shares(most_sky=0.3), shares(most_sky=1e-6)
    assert (free > 0.3).mean() > 0.3
    assert limited.max() <= 0.3
    # Those that were good enough at first are the same.
    assert np.array_equal(limited[free <= 0.3], free[free <= 0.3])
    # Where none of ten draws is, the one with the least sky is taken.
    assert (harsh <= free + 1e-9).all()


def test_a_sample_depends_on_index_and_seed_alone(photos: Path) -> None:
    def opened(**settings: object) -> PhotoDataset:
        return PhotoDataset(photos, **{'size': SIZE, 'disparity': 'horizon', 'seed': 3} | settings)

    dataset, again = opened(), opened()
    assert len(dataset) == 5
    order = [dataset[index]['photo'] for index in range(15)]
    assert [set(order[epoch:epoch + 5]) for epoch in (0, 5, 10)] == [set(order[:5])] * 3
    assert len({tuple(order[epoch:epoch + 5]) for epoch in (0, 5, 10)}) > 1
    for index in (7, 2, 11):
        for name, value in dataset[index].items():
            other = again[index][name]
            assert torch.equal(value, other) if torch.is_tensor(value) else value == other, name
    crops = {dataset[index]['image'].numpy().tobytes() for index in range(15)}
    assert len(crops) == 15
    assert not torch.equal(opened(seed=4)[0]['image'], dataset[0]['image'])
    assert [list(dataset.shard(rank, 2, begin=4, end=8)) for rank in (0, 1)] == [[4, 6], [5, 7]]
    still = opened(shuffle=False)
    assert [still[index]['photo'] for index in range(5)] == sorted(order[:5])


def test_workers_yield_the_same(photos: Path) -> None:
    dataset = PhotoDataset(photos, size=SIZE, disparity='horizon')
    batch, = DataLoader(dataset, batch_size=3, sampler=dataset.shard(begin=4, end=7),
                        num_workers=1, multiprocessing_context='spawn')
    assert batch['photo'] == [dataset[index]['photo'] for index in (4, 5, 6)]
    for place in range(3):
        for name in ('image', 'sky', 'disparity', 'pose'):
            assert torch.equal(batch[name][place], dataset[4 + place][name])


def test_a_mirrored_sample_is_mirrored_whole(open_map: Callable[..., PhotoDataset]) -> None:
    # Of the same draws, but for the flip.
    sample, mirrored = (open_map(augmentation=Augmentation(flip, 0, 0, 0, 0))[5]
                        for flip in (0, 1))
    for name in ('image', 'sky', 'disparity'):
        assert torch.equal(mirrored[name], sample[name].flip(-1)), name


def test_credits_go_into_the_provenance(photos: Path) -> None:
    dataset = PhotoDataset(photos, size=SIZE, credits=str(photos / 'credits.csv'), licence='mine')
    infos = {Path(path).name: info for path, info in dataset.infos.items()}
    assert (infos['lake.jpg'].source, infos['lake.jpg'].licence) == ('far/lake.jpg', 'CC0')
    assert infos['lake.jpg'].details == {'author': 'Ann', 'comment': 'Cropped, twice.'}
    facts = json.loads(json.dumps(describe_run(dataset.infos, 0)))
    assert facts['licences'] == ['CC-BY-SA-4.0', 'CC0', 'mine']
    assert facts['credits'] == [
        {'licence': 'CC-BY-SA-4.0', 'author': 'Bob', 'comment': '', 'sources': ['shore.jpg']},
        {'licence': 'CC0', 'author': 'Ann', 'comment': 'Cropped, twice.',
         'sources': ['coast.jpg', 'far/lake.jpg']}]
    free = PhotoDataset(photos, size=SIZE, credits=photos / 'credits.csv', licences=['CC0'])
    assert {info.licence for info in free.infos.values()} == {'CC0'}
    assert len(free) == 2


def test_held_out_photos_are_left_out_by_their_bare_names(photos: Path, tmp_path: Path) -> None:
    for name in ('beach3.jpg', 'beach3@2x.jpg', 'deep/beach3.JPEG', 'beach33.jpg', 'valley.jpg'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(photos / 'valley.jpg', tmp_path / name)
    dataset = PhotoDataset(tmp_path, size=SIZE, leave_out=HELD_OUT_PHOTOS, shuffle=False)
    assert [dataset[index]['photo'] for index in range(len(dataset))] == [
        'beach33.jpg', 'valley.jpg']
    listed = tmp_path / 'list.txt'
    listed.write_text('# a bare name, and a path\n\nbeach3\nvalley.jpg\n')
    assert len(PhotoDataset(tmp_path, size=SIZE, names=listed)) == 4
    # A misspelt path would let a photo in; a bare name may be of another collection.
    listed.write_text('vally.jpg\n')
    with pytest.raises(ClipError, match=r"lists 'vally\.jpg', which is not among"):
        PhotoDataset(tmp_path, size=SIZE, leave_out=listed)
    listed.write_text('vally\n')
    assert len(choose(['valley.jpg'], leave_out=[listed])) == 1
    with pytest.raises(ClipError, match='none of the 1 photos is left'):
        choose(['valley.jpg'], only=listed)


def test_files_that_are_no_photos_are_skipped(photos: Path, tmp_path: Path) -> None:
    shutil.copy(photos / 'valley.jpg', tmp_path)
    (tmp_path / 'notes.jpg').write_bytes(b'no photo')
    Image.new('RGB', (20, 300)).save(tmp_path / 'thin.png')
    with pytest.warns(UserWarning, match='skipped: photo .*(notes|thin)') as warned:
        dataset = PhotoDataset(tmp_path, size=SIZE)
    assert len(warned) == 2
    assert {Path(path).name for path in dataset.skipped} == {'notes.jpg', 'thin.png'}
    assert [sample['photo'] for sample in dataset] == ['valley.jpg']
    with pytest.raises(ClipError, match='not an image'):
        PhotoDataset(tmp_path, size=SIZE, strict=True)
    (tmp_path / 'valley.jpg').write_bytes((photos / 'valley.jpg').read_bytes()[:3000])
    with pytest.raises(ValueError, match='valley.*cut short'):
        dataset[0]


def test_masks_must_be_of_the_photos(one_map: Path, tmp_path: Path) -> None:
    with pytest.raises(ClipError, match=r'has a mask of none of the photos.*map\.png'):
        PhotoDataset(one_map, size=SIZE, masks=tmp_path, match=['map.png'])
    Image.new('L', (100, 100)).save(tmp_path / 'map.png')
    dataset = PhotoDataset(one_map, size=SIZE, masks=tmp_path, match=['map.png'])
    with pytest.raises(ValueError, match='is 100 x 100, its photo 500 x 300'):
        dataset[0]
    (tmp_path / 'map.png').write_bytes(b'no mask')
    with pytest.raises(ValueError, match=r'mask .*map\.png is damaged'):
        dataset[0]


@pytest.mark.parametrize(('wrong', 'text'), [
    ({'size': (30, 64)}, 'size is 30 x 64'), ({'crop': (0, 1)}, 'crop is'),
    ({'crop': (0.8, 0.5)}, 'crop is'), ({'most_sky': 0}, 'most_sky is 0'),
    ({'disparity': 'midass'}, "disparity is 'midass'; choose from auto"),
    ({'disparity': 'file:x.npy'}, 'disparity is'), ({'seed': -1}, 'seed is -1')])
def test_settings_that_cannot_be_are_refused(open_map: Callable[..., PhotoDataset], wrong: dict,
                                             text: str) -> None:
    with pytest.raises(ValueError, match=text):
        open_map(**wrong)


def test_two_photos_of_one_name_are_refused(photos: Path, one_map: Path, tmp_path: Path) -> None:
    shutil.copy(photos / 'valley.jpg', tmp_path)
    with pytest.raises(ClipError, match='have one name'):
        PhotoDataset([photos, tmp_path], size=SIZE)
    assert len(PhotoDataset([photos, one_map], size=SIZE, masks=one_map / 'masks')) == 6
