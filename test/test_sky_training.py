"""What the sky detector is trained on, and that its training makes a file that works."""

from __future__ import annotations

from collections.abc import Iterator
import csv
import json
from pathlib import Path
import sys
import zipfile

import cv2
import numpy as np
import pytest
from safetensors import safe_open
import torch

from infinite_nature_ros.sky_network import SkyNetwork, tidy
from infinite_nature_training.sky_samples import draw_sample, read_faults, read_photos, SkyPhoto

sys.path.insert(0, str(Path(__file__).parents[1] / 'scripts'))
import train_sky_detector  # noqa: E402

MASKS = Path(__file__).parents[1] / 'training' / 'sky_masks.zip'
FREE = train_sky_detector.FREE_LICENCES


def photo(name: str = 'made', land: int = 0, sky: int = 255) -> SkyPhoto:
    """Bright above a slope, dark below."""
    rows, columns = np.mgrid[:360, :720]
    is_sky = rows < 120 + 0.1 * columns
    image = np.where(is_sky[..., None], sky, land).repeat(3, 2).astype(np.uint8)
    return SkyPhoto(name, 'CC0', image, is_sky.astype(np.uint8) * 255)


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Give the other tests back the threads that the script does without."""
    before = torch.get_num_threads(), cv2.getNumThreads()
    yield
    torch.set_num_threads(before[0])
    cv2.setNumThreads(before[1])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight photos with masks; two without licence, one held out, one with a fault."""
    licences = {'a': 'CC0', 'b': 'CC-BY-SA-4.0', 'c': 'public-domain', 'd': 'CC0', 'e': 'CC0',
                'f': 'CC0', 'g': '', 'h': 'CC0'}
    (tmp_path / 'sky').mkdir()
    for name in licences:
        cv2.imwrite(str(tmp_path / f'{name}.jpg'), photo().image)
        cv2.imwrite(str(tmp_path / 'sky' / f'{name}.png'), photo().sky)
    with (tmp_path / 'photos.csv').open('w', newline='') as file:
        csv.writer(file).writerows([('file', 'licence'), *(
            (f'{name}.jpg', licence) for name, licence in licences.items())])
    with (tmp_path / 'sky' / 'sky.csv').open('w', newline='') as file:
        csv.writer(file).writerows([('file', 'fault'), *(
            (f'{name}.png', 'half of it' if name == 'd' else '') for name in licences)])
    (tmp_path / 'held_out.txt').write_text('# one place\ne\n')
    return tmp_path


def test_only_free_photos_with_a_good_mask_that_are_not_held_out_are_read(folder):
    found = read_photos(folder, folder / 'sky', folder / 'photos.csv', folder / 'held_out.txt',
                        FREE)
    assert [(photo.name, photo.licence) for photo in found] == [
        ('a', 'CC0'), ('c', 'public-domain'), ('f', 'CC0'), ('h', 'CC0')]
    assert all((photo.sky == 255).sum() == (photo.image > 127).all(2).sum() for photo in found)


def test_the_masks_that_come_along_reach_the_top_and_name_their_faults(tmp_path):
    with zipfile.ZipFile(MASKS) as archive:
        archive.extractall(tmp_path)
    faults = read_faults(tmp_path)
    assert set(faults) == {path.stem for path in tmp_path.glob('*.png')}
    assert len(faults) > 250
    for name in (name for name, fault in faults.items() if not fault):
        mask = cv2.imread(str(tmp_path / f'{name}.png'), cv2.IMREAD_GRAYSCALE) > 127
        assert mask[0].any(), name
        assert tidy(mask).sum() > 0.95 * mask.sum() > 0, name


def test_a_folder_without_such_photos_is_refused(folder):
    with pytest.raises(ValueError, match='no photo .* under CC0-1.0'):
        read_photos(folder, folder / 'sky', folder / 'photos.csv', folder / 'held_out.txt',
                    ('CC0-1.0',))


def test_a_photo_without_its_mask_is_refused(folder):
    (folder / 'sky' / 'c.png').unlink()
    with pytest.raises(ValueError, match=r'c\.jpg or its mask'):
        read_photos(folder, folder / 'sky', folder / 'photos.csv', folder / 'held_out.txt', FREE)


@pytest.mark.parametrize('size', [(96, 160), (160, 96)])
def test_whatever_happens_to_a_picture_happens_to_its_mask(size):
    """Sky is brighter than land everywhere in these photos, so it must be in the samples."""
    random = np.random.default_rng(0)
    photos = [photo(land=30, sky=170), photo(land=60, sky=220)]
    shares = []
    for _ in range(60):
        image, sky = draw_sample(photos, size, random)
        assert image.shape == (*size, 3)
        assert sky.shape == size
        assert image.dtype == sky.dtype == np.uint8
        shares.append((sky > 127).mean())
        # Made-up pictures have any colours; they are told by their grain.
        inner = [cv2.erode(side.astype(np.uint8), np.ones((9, 9))) > 0
                 for side in (sky > 250, sky < 5)]
        if all(side.sum() > 50 for side in inner):
            bright, dark = (np.median(image[side]) for side in inner)
            assert bright > dark or image[inner[1]].std() > 5
    assert min(shares) == 0
    assert max(shares) == 1


def test_samples_are_the_same_for_the_same_seed():
    photos = [photo(), photo(land=90)]
    one, other, third = ([draw_sample(photos, (96, 160), random)[0] for _ in range(5)]
                         for random in map(np.random.default_rng, (1, 1, 2)))
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one, third, strict=True))


def test_loss_is_cross_entropy_plus_what_is_missing_of_the_soft_iou():
    random = np.random.default_rng(0)
    score, sky = random.normal(size=(2, 1, 8, 9)), random.random((2, 1, 8, 9))
    found = 1 / (1 + np.exp(-score))
    entropy = -(sky * np.log(found) + (1 - sky) * np.log(1 - found)).mean()
    missing = [1 - (a * b + 0.002).mean() / (a + b - a * b + 0.002).mean()
               for a, b in zip(found, sky, strict=True)]
    loss = train_sky_detector.sky_loss(torch.from_numpy(score), torch.from_numpy(sky))
    assert loss.item() == pytest.approx(entropy + np.mean(missing))


def test_normalisation_is_folded_into_the_encoders_convolutions():
    """One block of the made-up EfficientNet, layer by layer, is one of ours."""
    torch.manual_seed(0)
    given, layers = {}, {}
    for name, tensor in SkyNetwork().state_dict().items():
        if not name.startswith(('stem', 'stages')) or name.endswith('bias'):
            continue
        outputs, inputs, size, _ = tensor.shape
        groups = outputs if '.filter.' in name else 1
        convolution = torch.nn.Conv2d(inputs * groups, outputs, size, padding=size // 2,
                                      groups=groups, bias=False)
        norm = torch.nn.BatchNorm2d(outputs, eps=1e-3)
        for values in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            torch.nn.init.uniform_(values, 0.5, 2)
        layers[name.removesuffix('.weight')] = torch.nn.Sequential(convolution, norm).eval()
    # Our names in their order, and what the blocks are called there.
    numbers = {name: number for number, name in enumerate(
        dict.fromkeys(name.rsplit('.', 1)[0] for name in layers if name != 'stem'))}
    theirs = {'expand': ('_expand_conv', '_bn0'), 'filter': ('_depthwise_conv', '_bn1'),
              'project': ('_project_conv', '_bn2')}
    for name, (convolution, norm) in layers.items():
        block, _, layer = name.rpartition('.')
        prefix = f'_blocks.{numbers[block]}.' if block else ''
        names = theirs[layer] if block else ('_conv_stem', '_bn0')
        for module, source in zip((convolution, norm), names, strict=True):
            given |= {f'{prefix}{source}.{key}': value
                      for key, value in module.state_dict().items()}
    network = SkyNetwork()
    missing = network.load_state_dict(train_sky_detector.convert_encoder(given), strict=False)
    assert not missing.unexpected_keys
    assert not [name for name in missing.missing_keys if name.startswith(('stem', 'stages'))]
    features = torch.rand(1, 24, 6, 7)
    wide = layers['stages.1.1.expand'](features).clamp(0, 6)
    wide = layers['stages.1.1.filter'](wide).clamp(0, 6)
    expected = features + layers['stages.1.1.project'](wide)
    torch.testing.assert_close(network.stages[1][1](features), expected)


def test_another_encoder_file_is_refused(tmp_path):
    (tmp_path / 'other.pth').write_bytes(b'other')
    with pytest.raises(ValueError, match=r'other\.pth is not the efficientnet-lite0'):
        train_sky_detector.read_encoder(tmp_path / 'other.pth')


def test_training_writes_weights_and_where_they_come_from(folder, monkeypatch):
    monkeypatch.setattr(train_sky_detector, '_BATCH', 2)
    monkeypatch.setattr(train_sky_detector, 'read_encoder', lambda path: {
        name: tensor for name, tensor in SkyNetwork().state_dict().items()
        if name.startswith(('stem', 'stages'))})
    out = folder / 'new' / 'detector.safetensors'
    train_sky_detector.train(folder, folder / 'sky', folder / 'encoder.pth', out=out, steps=2,
                             credits=folder / 'photos.csv', held_out=folder / 'held_out.txt')
    with safe_open(out, framework='pt') as file:
        facts = json.loads(file.metadata()['provenance'])
        names = set(file.keys())
    assert facts['photos'] == ['a', 'c', 'f', 'h']
    assert facts['licences'] == ['CC0', 'public-domain']
    assert facts['seed'] == 0
    assert 'IoU' in facts['validation']
    assert names == set(SkyNetwork().state_dict())
