"""Sequences out of ACID bags: the right frames, once each, the same wherever they are drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
import os
from pathlib import Path
import pickle
import warnings

import numpy as np
from PIL import Image
import pytest
import torch
from torch.utils.data import DataLoader

from infinite_nature_ros import camera
from infinite_nature_ros.photos import crop_and_resize
from infinite_nature_ros.rendering import render
from infinite_nature_training import datasets
from infinite_nature_training.augmentation import (
    Augmentation,
    change_colours,
    colour_matrix,
    mirror,
)
from infinite_nature_training.bags import ClipError, ClipFrame, ClipInfo, ClipWriter, read_clip
from infinite_nature_training.camera_speed import CameraSpeed
from infinite_nature_training.datasets import SequenceDataset, to_float

HEIGHT, WIDTH = 72, 96
SIZE = (32, 64)
INTRINSICS = torch.tensor([[0.9, 1.2, 0.55, 0.4]], dtype=torch.float64)
STEADY = 0.05 * np.arange(20)
"""Way of a camera that flies at 0.05 units a frame: strides 3, 4 and 5 are 0.15 to 0.25."""


def see_ground(pose: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Picture and disparity of a patterned plane one unit below the origin, under a sky."""
    rays = camera.pixel_rays(INTRINSICS.float(), HEIGHT, WIDTH).flatten(2)
    to_world = camera.inverse(pose.float())
    rays, origin = (to_world[..., :3] @ rays)[0], to_world[0, :, 3]
    depth = (1 - origin[1]) / rays[1]
    hits = origin[:, None] + depth * rays
    waves = torch.stack([(2 * hits[0] + hits[2]).sin(), hits[2].sin(), (hits[0] - hits[2]).cos()])
    ground = (depth > 0) & (depth < 100)
    image = torch.where(ground, 0.5 + 0.4 * waves, torch.tensor([[0.5], [0.7], [0.9]]))
    disparity = torch.where(ground, 1 / depth, torch.tensor(0.001))
    return ((255 * image).byte().T.reshape(HEIGHT, WIDTH, 3).numpy(),
            disparity.reshape(HEIGHT, WIDTH).numpy())


def write_clip(folder: Path, way: Sequence[float] = STEADY, *, split: str = 'train',
               depths: bool = True, scale: float = 2.0,
               picture: np.ndarray | None = None) -> Path:
    """Write a bag of a camera that looks ahead and down, and flies a way to its right."""
    rotation = camera.level_pose(0.2, 0.05).double()[:, :, :3]
    start, direction = torch.tensor([[[3.0, 0.0, 0.0]], [[0.6, 0.0, 0.8]]]).double()
    with ClipWriter(folder, ClipInfo('a test', 'CC0-1.0', split, scale)) as writer:
        for number, flown in enumerate(way):
            pose = camera.pose_at(start + float(flown) * direction, rotation)
            image, disparity = see_ground(pose)
            writer.add(ClipFrame(
                10**8 * (number + 1), image if picture is None else picture, pose, INTRINSICS,
                disparity if depths else None))
    return folder


@pytest.fixture(scope='module')
def bags(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clips of a steady camera."""
    folder = tmp_path_factory.mktemp('bags')
    write_clip(folder / 'coast' / 'one')
    write_clip(folder / 'coast' / 'two', STEADY[:14])
    write_clip(folder / 'karma', STEADY[:16], split='test')
    return folder


@pytest.fixture(scope='module')
def open_bags(bags: Path, tmp_path_factory: pytest.TempPathFactory
              ) -> Callable[..., SequenceDataset]:
    """Open datasets of those clips, with one cache."""
    cache = tmp_path_factory.mktemp('cache')
    return lambda **settings: SequenceDataset(
        bags, **{'steps': 2, 'size': SIZE, 'cache': cache, 'seed': 5} | settings)


def assert_same(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, other[name]), name
        else:
            assert value == other[name], name


def test_a_sample_is_what_the_bag_says(open_bags: Callable[..., SequenceDataset],
                                       bags: Path) -> None:
    dataset = open_bags(augmentation=None)
    sample = to_float(dataset[7])
    shapes = {name: (tuple(value.shape), value.dtype) for name, value in sample.items()
              if isinstance(value, torch.Tensor)}
    real = torch.float32
    assert shapes == {
        'image': ((3, 3, *SIZE), real), 'disparity': ((3, 1, *SIZE), real),
        'pose': ((3, 3, 4), real), 'intrinsics': ((3, 4), real), 'frames': ((3,), torch.int64)}
    assert sample['index'] == 7
    path, = bags.rglob(sample['clip'])
    frames = [read_clip(path).frames[number] for number in sample['frames'].tolist()]
    for number, frame in enumerate(frames):
        picture = crop_and_resize(Image.fromarray(frame.image()), *SIZE)
        np.testing.assert_allclose(sample['image'][number].permute(1, 2, 0).numpy(),
                                   np.asarray(picture) / 255, atol=1e-6)
        expected = np.asarray(crop_and_resize(Image.fromarray(frame.disparity), *SIZE))
        np.testing.assert_allclose(sample['disparity'][number, 0].numpy(),
                                   expected.clip(0.01, 1), rtol=6e-4)
    # 72 x 96 is cropped to 48 x 96: 2/3 of the height.
    np.testing.assert_allclose(sample['intrinsics'], [[0.9, 1.8, 0.55, 0.35]] * 3, rtol=1e-5)
    pose = torch.cat([frame.pose for frame in frames])
    np.testing.assert_allclose(camera.position(sample['pose'][:1]), [[0, 0, 0]], atol=1e-6)
    np.testing.assert_allclose(
        camera.relative_pose(sample['pose'][:-1], sample['pose'][1:]),
        camera.relative_pose(pose[:-1], pose[1:]), atol=1e-5)


def test_disparity_is_in_the_contract(open_bags: Callable[..., SequenceDataset]) -> None:
    disparity = to_float(open_bags()[0])['disparity']
    assert disparity.min() == pytest.approx(0.01, abs=1e-5)
    assert 0.01 <= disparity.min() < disparity.max() <= 1


def test_strides_of_a_steady_camera(open_bags: Callable[..., SequenceDataset]) -> None:
    dataset = open_bags(include=['one'])
    # 20 frames, two steps of at least 3 frames: starts 0 to 13.
    assert len(dataset) == 14
    for epoch in range(2):
        samples = [dataset[epoch * len(dataset) + place] for place in range(len(dataset))]
        assert {int(sample['frames'].diff()[0]) for sample in samples} == {3, 4, 5}


def test_strides_as_computed_one_by_one(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    way = np.cumsum(random.uniform(0.02, 0.1, 80))
    speed = CameraSpeed(target=0.3, variation=0.25, max_stride=8)
    dataset = SequenceDataset(write_clip(tmp_path / 'clip', way), steps=3, size=SIZE,
                              stride=speed, cache=tmp_path / 'cache')
    expected = {
        (start, stride) for stride in range(1, 9) for start in range(80 - 3 * stride)
        if all(0.225 <= way[start + (step + 1) * stride] - way[start + step * stride] <= 0.375
               for step in range(3))}
    assert {stride for _, stride in expected} == {4, 5, 6}
    assert len(dataset) == len({start for start, _ in expected})
    drawn = set()
    for index in range(20 * len(dataset)):
        frames = dataset[index]['frames']
        assert len(set(frames.diff().tolist())) == 1
        drawn.add((int(frames[0]), int(frames[1] - frames[0])))
    assert drawn == expected


def test_a_fixed_stride_asks_for_no_speed(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / 'clip', np.zeros(9))
    dataset = SequenceDataset(clip, steps=2, size=SIZE, stride=4, cache=tmp_path / 'cache')
    assert [sample['frames'].tolist() for sample in dataset] == [[0, 4, 8]]


@pytest.mark.parametrize(('way', 'text'), [
    ([0.0], 'has 1 frame to use; a sequence of 2 steps needs 3'),
    (STEADY * 10, 'too fast: 0.5 units from frame to frame, not 0.14 to 0.26'),
    (STEADY / 100, 'too slow: 0.015 units in 30 frames'),
    ([0, 0.2, 0.21, 0.91, 1.01], 'too unsteady'),
])
def test_a_clip_without_sequences_is_skipped_with_the_reason(
        way: Sequence[float], text: str, tmp_path: Path) -> None:
    good, bad = write_clip(tmp_path / 'good'), write_clip(tmp_path / 'bad', way)
    settings = {'steps': 2, 'size': SIZE, 'cache': tmp_path / 'cache'}
    with pytest.warns(UserWarning, match=f'skipped: .*bad.*{text}'):
        dataset = SequenceDataset([good, bad], **settings)
    assert {sample['clip'] for sample in dataset} == {'good'}
    assert list(dataset.skipped) == [str(bad)]
    with pytest.raises(ClipError, match=text):
        SequenceDataset([good, bad], strict=True, **settings)
    with pytest.warns(UserWarning, match=text), pytest.raises(ClipError, match=text):
        SequenceDataset(bad, **settings)


def test_a_damaged_bag_is_skipped_and_leaves_nothing(tmp_path: Path) -> None:
    good, bad = write_clip(tmp_path / 'good'), write_clip(tmp_path / 'bad')
    file, = bad.glob('*.mcap')
    file.write_bytes(file.read_bytes()[:5000])
    settings = {'steps': 2, 'size': SIZE, 'cache': tmp_path / 'cache'}
    with pytest.warns(UserWarning, match='skipped: .*bad'):
        dataset = SequenceDataset([good, bad], **settings)
    assert {sample['clip'] for sample in dataset} == {'good'}
    assert len(list((tmp_path / 'cache').iterdir())) == 1
    with pytest.raises(ClipError, match='bad'):
        SequenceDataset([good, bad], strict=True, **settings)


def test_disparity_is_estimated_only_where_asked_for(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / 'clip', depths=False)
    settings = {'steps': 2, 'size': SIZE, 'cache': tmp_path / 'cache', 'augmentation': None}
    with pytest.raises(ClipError, match="clip.*no disparity.*disparity='horizon'"):
        SequenceDataset(clip, strict=True, **settings)
    assert not list((tmp_path / 'cache').iterdir())
    sample = SequenceDataset(clip, disparity='horizon', **settings)[0]
    disparity = to_float(sample)['disparity']
    assert disparity[:, :, -1].mean() > 5 * disparity[:, :, 0].mean()


def test_clips_are_chosen_by_split_name_and_frames(
        open_bags: Callable[..., SequenceDataset]) -> None:
    def names(**choice: object) -> set[str]:
        return {sample['clip'] for sample in open_bags(**choice)}

    assert names() == {'one', 'two', 'karma'}
    assert names(split='train') == {'one', 'two'}
    assert names(split='test') == {'karma'}
    assert names(include=['coast/*']) == {'one', 'two'}
    assert names(exclude=['t*', 'karma']) == {'one'}
    frames = torch.cat([sample['frames'] for sample in open_bags(include=['one'],
                                                                 frames=(4, 13))])
    assert (frames.min(), frames.max()) == (4, 12)
    with pytest.raises(ClipError, match='none of 3 clips is of the wanted names'):
        open_bags(include=['other'])
    with pytest.raises(ClipError, match="none of 3 clips is of split 'validation'"):
        open_bags(split='validation')


@pytest.mark.parametrize(('setting', 'value'), [
    ('steps', 0), ('seed', -1), ('stride', 0)])
def test_settings_that_cannot_be_are_refused(setting: str, value: int, bags: Path,
                                             tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=setting):
        SequenceDataset(bags, cache=tmp_path / 'cache', **{setting: value})
    assert not (tmp_path / 'cache').exists()


def test_a_speed_range_and_augmentation_that_cannot_be_are_refused() -> None:
    for settings in ({'target': 0}, {'variation': 1.5}, {'max_stride': 0}):
        with pytest.raises(ValueError, match=next(iter(settings))):
            CameraSpeed(**settings)
    with pytest.raises(ValueError, match='flip is 2'):
        Augmentation(flip=2)


def test_a_cache_that_cannot_be_made_is_refused(bags: Path, tmp_path: Path) -> None:
    (tmp_path / 'file').touch()
    with pytest.raises(ValueError, match='another folder'):
        SequenceDataset(bags, cache=tmp_path / 'file' / 'cache')


def test_epochs_have_the_same_starts_in_orders_of_their_own(
        open_bags: Callable[..., SequenceDataset]) -> None:
    dataset = open_bags()

    def starts(epoch: int, of: SequenceDataset = dataset) -> list[tuple[str, int]]:
        samples = [of[epoch * len(of) + place] for place in range(len(of))]
        return [(sample['clip'], int(sample['frames'][0])) for sample in samples]

    assert len(set(starts(0))) == len(dataset)
    assert starts(0) != starts(1)
    assert sorted(starts(0)) == sorted(starts(1))
    assert starts(1) != starts(1, open_bags(seed=6))
    in_order = open_bags(shuffle=False)
    assert starts(0, in_order) == starts(1, in_order) == sorted(starts(0), key=lambda start: (
        ['one', 'two', 'karma'].index(start[0]), start[1]))
    with pytest.raises(IndexError):
        dataset[-1]


def test_the_same_seed_gives_the_same_samples(open_bags: Callable[..., SequenceDataset]) -> None:
    dataset = open_bags()
    # Neither what was drawn before nor another object of the same settings makes a difference.
    for index in (40, 3, 100):
        assert_same(dataset[index], open_bags()[index])
        assert_same(pickle.loads(pickle.dumps(dataset))[index], dataset[index])
    one, other = (open_bags(seed=seed, shuffle=False)[3]['image'] for seed in (5, 6))
    assert not torch.equal(one, other)


def test_ranks_and_workers_share_the_samples_of_one_process(
        open_bags: Callable[..., SequenceDataset]) -> None:
    dataset = open_bags()
    end = 40  # The epoch has fewer: the second one begins in the middle of it.
    assert len(dataset) < end
    alone = list(DataLoader(dataset, batch_size=8, sampler=dataset.shard(end=end)))
    shared = [list(DataLoader(dataset, batch_size=4, num_workers=2,
                              sampler=dataset.shard(rank, 2, end=end))) for rank in range(2)]
    seen = [index for rank in shared for batch in rank for index in batch['index'].tolist()]
    assert sorted(seen) == list(range(end))
    for whole, *parts in zip(alone, *shared, strict=True):
        order = torch.cat([part['index'] for part in parts]).argsort()
        for name, value in whole.items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(value, torch.cat([part[name] for part in parts])[order])
    rest = list(DataLoader(dataset, batch_size=8, sampler=dataset.shard(begin=16, end=end)))
    assert_same(rest[0], alone[2])
    with pytest.raises(ValueError, match='rank is 2 of 2'):
        dataset.shard(2, 2)


def test_workers_can_be_spawned(open_bags: Callable[..., SequenceDataset]) -> None:
    dataset = open_bags()
    batch, = DataLoader(dataset, batch_size=3, sampler=dataset.shard(end=3), num_workers=1,
                        multiprocessing_context='spawn')
    for place in range(3):
        assert torch.equal(batch['image'][place], dataset[place]['image'])


def test_processes_fill_the_cache_with_the_same(bags: Path, tmp_path: Path) -> None:
    alone, shared = (SequenceDataset(bags, steps=2, size=SIZE, cache=tmp_path / name,
                                     workers=workers)
                     for name, workers in (('alone', 1), ('shared', 2)))
    files = sorted(path.relative_to(tmp_path / 'alone')
                   for path in (tmp_path / 'alone').rglob('*.*'))
    assert len(files) == 12
    for file in files:
        assert (tmp_path / 'alone' / file).read_bytes() == \
            (tmp_path / 'shared' / file).read_bytes()
    assert len(alone) == len(shared)


def test_a_cached_clip_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    monkeypatch.setattr(datasets, 'read_clip', lambda path: read.append(path) or read_clip(path))
    settings = {'steps': 2, 'cache': tmp_path / 'cache', 'augmentation': None}
    bag = write_clip(tmp_path / 'clip')
    before = SequenceDataset(bag, size=SIZE, **settings)[0]
    assert_same(SequenceDataset(bag, size=SIZE, **settings)[0], before)
    assert len(read) == 1
    SequenceDataset(bag, size=(32, 32), **settings)
    assert len(read) == 2
    file, = bag.glob('*.mcap')
    os.utime(file, (1, 1))
    SequenceDataset(bag, size=SIZE, **settings)
    assert len(read) == 3
    write_clip(bag, STEADY[:-1], picture=np.full((HEIGHT, WIDTH, 3), 51, np.uint8))
    after = SequenceDataset(bag, size=SIZE, **settings)[0]['image']
    assert len(read) == 4
    assert (after.int() - 51).abs().max() < 3


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def fill(file: Path) -> None:
    file.write_bytes(b'\0' * file.stat().st_size)


@pytest.mark.parametrize('damage', [cut, fill, Path.unlink])
@pytest.mark.parametrize('name', ['image.npy', 'disparity.npy', 'cameras.npy', 'clip.json'])
def test_a_damaged_cache_entry_is_made_again(name: str, damage: Callable[[Path], None],
                                             tmp_path: Path) -> None:
    bag, cache = write_clip(tmp_path / 'clip', STEADY[:8]), tmp_path / 'cache'
    before = SequenceDataset(bag, steps=2, size=SIZE, cache=cache)[0]
    entry, = cache.iterdir()
    damage(entry / name)
    with pytest.warns(UserWarning, match='damaged'):
        after = SequenceDataset(bag, steps=2, size=SIZE, cache=cache)[0]
    assert_same(before, after)
    assert [path.name for path in cache.iterdir()] == [entry.name]
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        SequenceDataset(bag, steps=2, size=SIZE, cache=cache)


def test_many_may_fill_a_cache_at_once(tmp_path: Path) -> None:
    bag = write_clip(tmp_path / 'clip')

    def first(_: int) -> dict:
        return SequenceDataset(bag, steps=2, size=SIZE, cache=tmp_path / 'cache')[0]

    with ThreadPoolExecutor(4) as pool:
        samples = list(pool.map(first, range(4)))
    for sample in samples[1:]:
        assert_same(sample, samples[0])
    assert len(list((tmp_path / 'cache').iterdir())) == 1


def test_a_mirrored_sequence_renders_as_the_mirror_image(
        open_bags: Callable[..., SequenceDataset]) -> None:
    sample = to_float(open_bags(augmentation=None, size=(64, 96))[0])

    def step(of: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        image, disparity, pose, intrinsics = (
            of[name] for name in ('image', 'disparity', 'pose', 'intrinsics'))
        view = render(image[:1], disparity[:1], pose[:1], pose[1:2], intrinsics[:1],
                      intrinsics[1:2])
        seen = (view.known > 0.9).float()
        error = ((view.image - image[1:2]).abs() * seen).sum() / seen.sum() / 3
        return view.image, view.known, error

    image, known, error = step(sample)
    mirrored = mirror(sample)
    mirror_image, mirror_known, mirror_error = step(mirrored)
    # The quads of the mesh are cut along the same diagonal either way.
    assert (mirror_image.flip(-1) - image).abs().mean() < 2e-3
    assert (mirror_known.flip(-1) - known).abs().mean() < 2e-3
    assert error < 0.02
    assert mirror_error == pytest.approx(error.item(), rel=0.02)
    # With what belongs to the picture before it was mirrored, another view comes out.
    for name in ('pose', 'intrinsics'):
        other, _, _ = step(mirrored | {name: sample[name]})
        assert (other.flip(-1) - image).abs().mean() > 4e-3, name
    assert_same(mirror(mirrored), sample)


def test_mirroring_is_done_to_the_wanted_share(open_bags: Callable[..., SequenceDataset]) -> None:
    plain = {'brightness': 0, 'contrast': 0, 'saturation': 0, 'hue': 0}
    for share, low, high in ((0.0, 0, 0), (0.5, 20, 60), (1.0, 80, 80)):
        dataset = open_bags(augmentation=Augmentation(flip=share, **plain))
        flipped = sum(dataset[index]['intrinsics'][0, 2].item() < 0.5 for index in range(80))
        assert low <= flipped <= high


def test_colours_change_alike_in_all_frames_of_a_sequence(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    bag = write_clip(tmp_path / 'clip', picture=picture)
    settings = {'steps': 2, 'size': SIZE, 'cache': tmp_path / 'cache'}
    plain = SequenceDataset(bag, augmentation=None, **settings)
    dataset = SequenceDataset(bag, augmentation=Augmentation(flip=0), **settings)
    changes = set()
    for index in range(6):
        image, before = (to_float(of[index])['image'] for of in (dataset, plain))
        assert torch.equal(image[0], image[1])
        assert torch.equal(image[0], image[2])
        changes.add(round((image - before).abs().mean().item(), 5))
        assert torch.equal(dataset[index]['disparity'], plain[index]['disparity'])
        assert torch.equal(dataset[index]['pose'], plain[index]['pose'])
    assert len(changes) == 6
    assert min(changes) > 1e-3


def test_colour_changes_by_hand() -> None:
    def change(colour: Sequence[float], **changes: float) -> list[float]:
        neutral = {'brightness': 1, 'contrast': 1, 'saturation': 1, 'hue': 0}
        image = (255 * torch.tensor(colour)).round().byte().reshape(1, 3, 1, 1).repeat(1, 1, 5, 7)
        changed = change_colours(image, colour_matrix(**neutral | changes)) / 255
        assert changed.shape == image.shape
        assert changed.flatten(2).std(dim=2).max() == 0
        return changed[0, :, 0, 0].tolist()

    colour = [0.2, 0.4, 0.6]
    luma = 0.299 * 0.2 + 0.587 * 0.4 + 0.114 * 0.6
    assert change(colour) == pytest.approx(colour, abs=3e-3)
    assert change(colour, brightness=1.5) == pytest.approx([0.3, 0.6, 0.9], abs=3e-3)
    assert change(colour, brightness=2) == pytest.approx([0.4, 0.8, 1.0], abs=3e-3)
    assert change(colour, contrast=0.5) == pytest.approx([0.35, 0.45, 0.55], abs=3e-3)
    assert change(colour, saturation=0) == pytest.approx([luma] * 3, abs=5e-3)
    assert change([0.3] * 3, hue=0.2, saturation=2) == pytest.approx([0.3] * 3, abs=5e-3)
    turned = change(colour, hue=0.5)
    assert np.mean([turned, colour], axis=0) == pytest.approx([luma] * 3, abs=5e-3)
    # A small positive turn of red goes through orange or through purple, not both at once.
    red = change([0.6, 0.3, 0.3], hue=0.05)
    assert (red[1] > 0.3) != (red[2] > 0.3)


def test_the_visible_share_of_a_wall_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / 'benchmarks'))
    from camera_speed import visible_share

    intrinsics = camera.default_intrinsics(160, 256).expand(2, 4)
    disparity = torch.full((2, 1, 160, 256), 0.5)
    pose = camera.identity_pose(2)
    assert visible_share(disparity.expand(-1, 3, -1, -1), disparity, pose, intrinsics) == 1
    # 0.2 units aside at depth 2: fx times 0.1 of the width leaves the picture.
    pose[1, 0, 3] = -0.2
    share = visible_share(disparity.expand(-1, 3, -1, -1), disparity, pose, intrinsics)
    assert share.item() == pytest.approx(1 - 0.8 * 0.1, abs=2 / 256)
