"""Evaluation: what flies, from where and how far, what is kept of it, and runs that go on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
import io
import json
import math
from pathlib import Path

from clips import INTRINSICS, make_flight, write_clip
from judges import Judges
import numpy as np
from PIL import Image
import pytest
from scenes import sea
import torch
from torch import Tensor

from infinite_nature_ros import camera
from infinite_nature_ros.commands import main
from infinite_nature_ros.flight import Flight
from infinite_nature_ros.frame import Frame
from infinite_nature_ros.parallel import Outcome
from infinite_nature_ros.photos import sample_photos
from infinite_nature_ros.refining import build_network, save_weights
from infinite_nature_ros.rendering import Rendered
from infinite_nature_ros.skyline import detect_sky
from infinite_nature_training.bags import ClipError
from infinite_nature_training.evaluation import measuring, summary, variants
from infinite_nature_training.evaluation.measuring import measure
from infinite_nature_training.evaluation.results import FlightResult, Settings
from infinite_nature_training.evaluation.runner import (
    check_settings,
    Job,
    make_flight as make_one,
    read_settings,
    REFERENCES_FILE,
    run,
)
from infinite_nature_training.evaluation.starts import (
    extrapolate,
    find_starts,
    PhotoStart,
    Route,
    why_not,
)
from infinite_nature_training.evaluation.summary import measure_distances, summarise
from infinite_nature_training.evaluation.variants import choose_variants, fly, Variant

SIZE = (64, 96)
SETTINGS = Settings(frames=6, size=SIZE, speed=0.2, seeds=(0,), disparity='horizon',
                    feature_every=2)


class Shrinking:
    """Refiner that fills holes with red, and whose disparity is a tenth too small."""

    def begin(self, image: Tensor, disparity: Tensor, seed: int | None = None) -> Tensor:
        return image[:, :0, 0, 0]

    def refine(self, rendered: Rendered, state: Tensor) -> tuple[Tensor, Tensor]:
        red = torch.tensor([1.0, 0, 0]).reshape(1, 3, 1, 1)
        image = rendered.image + (1 - rendered.known.sqrt()) * red
        return image, 0.9 * torch.where(rendered.known > 0, rendered.disparity, 0.1)

    def to(self, device: torch.device | str) -> Shrinking:
        return self


class Poses:
    """Pilot that flies given poses."""

    def __init__(self, *poses: Tensor) -> None:
        self._poses = iter(poses)

    def next_pose(self, frame: Frame) -> Tensor:
        return next(self._poses)


@pytest.fixture
def start() -> Frame:
    image, disparity, intrinsics = sea(*SIZE)
    return Frame(image, disparity, torch.ones_like(disparity), camera.identity_pose(), intrinsics)


@pytest.fixture
def shrinking(monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a model that shrinks."""
    load = variants._load
    monkeypatch.setattr(variants, '_load',
                        lambda name: Shrinking() if name == 'shrinking' else load(name))
    return 'shrinking'


@pytest.fixture(scope='module')
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of photos a to e."""
    folder = tmp_path_factory.mktemp('photos')
    for number, name in enumerate('abcde'):
        image = sea(*SIZE, seed=number)[0][0]
        pixels = (image * 255).byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(folder / f'{name}.png')
    return folder


@pytest.fixture(scope='module')
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('clips')
    write_clip(folder / 'plane', make_flight(count=24, step=0.2))
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path_factory.mktemp('cache')))


def forward(distance: float, turn: float = 0.0) -> Tensor:
    """Pose of a camera that went ahead and turned to the right."""
    sine, cosine = math.sin(turn), math.cos(turn)
    rotation = torch.tensor([[[cosine, 0, -sine], [0, 1, 0], [sine, 0, cosine]]])
    return camera.pose_at(torch.tensor([[0.0, 0, distance]]), rotation)


def median_of_land(frame: Frame) -> float:
    return frame.disparity[0, 0, SIZE[0] // 2 + 4:].median().item()


def test_the_model_comes_first_and_baselines_follow() -> None:
    chosen = choose_variants('/here/mine.safetensors', [
        'no-refine', 'inpaint', 'no-grounding', 'direct', 'no-repeat=one.safetensors',
        'official=/there/spade.safetensors', 'direct-fill=inpaint'])
    assert list(chosen) == ['mine', 'no-refine', 'inpaint', 'no-grounding', 'direct', 'no-repeat',
                            'official', 'direct-fill']
    own = '/here/mine.safetensors'
    assert [chosen[name].model for name in ('mine', 'no-grounding', 'direct')] == [own] * 3
    assert chosen['no-repeat'].model == 'one.safetensors'
    assert chosen['no-grounding'].grounding is False
    assert chosen['mine'].grounding is None
    assert [name for name, variant in chosen.items() if variant.direct] == ['direct']


@pytest.mark.parametrize(('baselines', 'told'), [
    (['no-such'], 'no-refine, inpaint'),
    (['no-repeat'], 'no-repeat=WEIGHTS'),
    (['other='], 'other=MODEL'),
    (['direct', 'direct=inpaint'], 'two variants'),
    (['../up=inpaint'], 'letters')])
def test_what_is_no_baseline_is_refused(baselines: list[str], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        choose_variants('inpaint', baselines)


def test_a_variant_tells_its_weights(tmp_path: Path) -> None:
    file = tmp_path / 'tiny.safetensors'
    described = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        save_weights(build_network('residual-tiny', image_size=SIZE), file, provenance='')
        variants._load.cache_clear()
        described.append(Variant('tiny', str(file), grounding=False).describe())
    assert all(text.startswith('tiny.safetensors (') for text in described)
    assert all(text.endswith('), not grounded') for text in described)
    assert described[0] != described[1]
    assert Variant('fill', 'inpaint').describe() == 'inpaint'


def test_the_start_comes_first_and_then_a_frame_a_step(start: Frame) -> None:
    frames = list(fly(Variant('fill', 'inpaint'), start, Poses(forward(0.2), forward(0.4)), 2, 0))
    assert len(frames) == 3
    assert torch.equal(frames[0].image, start.image)
    assert [camera.position(frame.pose)[0, 2].item() for frame in frames] == pytest.approx(
        [0, 0.2, 0.4])


def test_without_grounding_the_scale_drifts(start: Frame, shrinking: str) -> None:
    # Nothing at the ends of the disparity's range, where it can't shrink.
    slope = torch.linspace(0.3, 0.8, SIZE[0])[:, None].expand(1, 1, *SIZE).contiguous()
    start = start.replace(disparity=slope)
    held, lost = (
        list(fly(Variant('one', shrinking, grounding=grounding), start,
                 Poses(*[start.pose] * 5), 5, 0)) for grounding in (None, False))
    assert median_of_land(held[-1]) == pytest.approx(median_of_land(start), rel=0.05)
    assert median_of_land(lost[-1]) < 0.7 * median_of_land(start)


def test_direct_views_come_straight_from_the_start(start: Frame, shrinking: str) -> None:
    """Where the camera was in between doesn't show; in iterated flight it does."""
    target = forward(0.5, 0.1)
    away = forward(0.5, 1.5)

    def last(variant: Variant, *poses: Tensor) -> Frame:
        return list(fly(variant, start, Poses(*poses), len(poses), 0))[-1]

    direct = Variant('direct', shrinking, direct=True)
    seen = last(direct, target)
    assert torch.equal(last(direct, away, target).image, seen.image)
    # One render for all that way: what wasn't in the start is filled at once, unrepeated.
    holes = seen.known[0, 0] == 0
    assert holes.any()
    assert torch.equal(seen.image[0, :, holes].mean(1), torch.tensor([1.0, 0, 0]))
    iterated = Variant('iterated', shrinking)
    assert not torch.equal(last(iterated, away, target).image, last(iterated, target).image)


def test_no_refine_leaves_holes(start: Frame) -> None:
    variant = choose_variants('inpaint', ['no-refine'])['no-refine']
    *_, last = fly(variant, start, Poses(forward(0, 0.3)), 1, 0)
    holes = last.known[0, 0] == 0
    assert holes.float().mean() > 0.1
    assert (last.image[0, :, holes] == 0).all()


def test_photos_are_chosen_by_name_and_spread(photos: Path, tmp_path: Path) -> None:
    def names(**choice: object) -> list[str]:
        return [found.name for found in find_starts([photos], SETTINGS, **choice)]

    (tmp_path / 'names.txt').write_text('# three of them\nb\nc\ne\n')
    assert names() == ['a', 'b', 'c', 'd', 'e']
    assert names(limit=2) == ['a', 'c']
    assert names(names=tmp_path / 'names.txt') == ['b', 'c', 'e']
    assert [found.name for found in find_starts([photos / 'd.png'], SETTINGS)] == ['d']


def test_a_photo_starts_as_any_flight_does(photos: Path) -> None:
    found, = find_starts([photos / 'a.png'], SETTINGS)
    scene = found.load(SETTINGS)
    flown = Flight.from_photo(photos / 'a.png', model='inpaint', size=SIZE, disparity='horizon')
    for name, value in flown.start.tensors().items():
        assert torch.equal(scene.frame.tensors()[name], value)
    assert len(scene.truth) == len(scene.poses) == 0
    assert found.load(replace(SETTINGS, sky=False)).frame.sky is None


def test_sources_that_cannot_be_told_apart_or_found_are_refused(photos: Path,
                                                                tmp_path: Path) -> None:
    (tmp_path / 'a.png').write_bytes((photos / 'a.png').read_bytes())
    with pytest.raises(ValueError, match='one name'):
        find_starts([photos, tmp_path], SETTINGS)
    with pytest.raises(ClipError, match='does not exist'):
        find_starts([tmp_path / 'none'], SETTINGS)


def test_a_clip_is_flown_along_and_on(clips: Path) -> None:
    settings = replace(SETTINGS, frames=40, extrapolated=14)
    found = find_starts([clips], settings, limit=3)
    assert len(found) == 3
    assert [begun.name for begun in found] == sorted(begun.name for begun in found)
    scene = found[0].load(settings)
    first = int(found[0].name.removeprefix('plane-'))
    frames = make_flight(count=24, step=0.2)[first:first + 11]
    assert len(scene.truth) == 10
    assert len(scene.poses) == 14
    real = torch.from_numpy(frames[4].picture).permute(2, 0, 1) / 255
    assert (scene.truth[3] - real).abs().mean() < 0.02
    for pose, frame in zip(scene.poses.split(1), frames[1:], strict=False):
        assert torch.allclose(camera.relative_pose(scene.frame.pose, pose).double(),
                              camera.relative_pose(frames[0].pose, frame.pose), atol=1e-4)
    motions = [camera.relative_pose(*scene.poses[number:number + 2].split(1))
               for number in range(8, 13)]
    assert all(torch.allclose(motion, motions[0], atol=1e-4) for motion in motions)


def test_clips_may_head_anywhere_in_their_own_world(tmp_path: Path) -> None:
    """The world is turned to the start, upright; the dome of the sky is told of there."""
    settings, last = replace(SETTINGS, frames=14), []
    for name, turn in (('ahead', 0.0), ('behind', 2.5)):
        around = forward(0, turn).double()
        write_clip(tmp_path / name, [replace(frame, pose=camera.compose(frame.pose, around))
                                     for frame in make_flight(count=14, step=0.2)])
        found, = find_starts([tmp_path / name], settings)
        scene = found.load(settings)
        assert scene.frame.pose[0, 2, 0].item() == pytest.approx(0, abs=1e-5)
        assert scene.frame.pose[0, 2, 2] > 0.9
        assert scene.frame.pose[0, :, 1] == pytest.approx(found.sample['pose'][0, :, 1].float())
        route = Route(scene.poses, scene.frame.intrinsics, 0.2, (0, 'a'))
        *_, frame = fly(Variant('fill', 'no-refine'), scene.frame, route, 10, 0)
        last.append(frame.image)
    assert (last[0] - last[1]).abs().mean() < 1e-3


def test_clips_take_turns(clips: Path, tmp_path: Path) -> None:
    write_clip(tmp_path / 'other', make_flight(count=24, step=0.2))
    def names(limit: int = 0) -> list[str]:
        return [found.name[:5] for found in find_starts(
            [clips, tmp_path], replace(SETTINGS, frames=20), limit=limit)]

    assert names() == ['other', 'plane']
    assert names(4) == ['other', 'other', 'plane', 'plane']


def sample(step: Tensor, disparity: float = 0.05) -> dict[str, Tensor]:
    """A clip of ten steps, each the same motion, before a wall."""
    poses = extrapolate(torch.cat([camera.identity_pose(), step]).double(), 10)
    return {'pose': poses, 'intrinsics': INTRINSICS.expand(11, 4),
            'disparity': torch.full((11, 1, *SIZE), disparity, dtype=torch.float64)}


@pytest.mark.parametrize(('step', 'disparity', 'told'), [
    (forward(0.2), 0.05, ''),
    (forward(-0.2), 0.05, 'forward'),
    (camera.pose_at(torch.tensor([[0.2, 0, 0.1]]), torch.eye(3)[None]), 0.05, 'forward'),
    # The wall stands 8 ahead of the tenth frame, and frame 50 is 8.0 from there.
    (forward(0.2), 0.13, 'inside the scene'),
    (camera.pose_at(torch.tensor([[0.15, 0, 0.17]]), torch.eye(3)[None]), 0.05, 'outside')])
def test_clips_that_would_collide_are_left_out(step: Tensor, disparity: float, told: str) -> None:
    reason = why_not(sample(step, disparity), 50)
    assert told in reason
    assert bool(reason) == bool(told)


def test_without_any_sequence_the_reasons_are_told(tmp_path: Path) -> None:
    write_clip(tmp_path / 'back', make_flight(count=16, step=-0.2))
    with pytest.raises(ClipError, match='does not fly forward'):
        find_starts([tmp_path], replace(SETTINGS, frames=20))


def test_a_route_is_given_first_and_then_drawn_by_the_seed(start: Frame) -> None:
    def path(seed: int, name: str = 'a') -> Tensor:
        given = torch.cat([forward(0.1), forward(0.2)])
        route = Route(given, start.intrinsics, 0.2, (seed, name))
        return torch.cat([frame.pose for frame in fly(Variant('none', 'no-refine'), start, route,
                                                      30, 0)])

    one = path(0)
    assert torch.equal(one[1:3], torch.cat([forward(0.1), forward(0.2)]))
    steps = camera.position(one).diff(dim=0).norm(dim=1)
    assert steps[2:] == pytest.approx(torch.full((28,), 0.2), abs=1e-4)
    assert torch.equal(path(0), one)
    assert not torch.equal(path(1), one)
    assert not torch.equal(path(0, 'b'), one)


def still_frames(start: Frame, count: int) -> Iterator[Frame]:
    """Frames of a camera that goes ahead by 0.2 and turns by 0.1 to and fro, over one picture."""
    for number in range(count):
        yield start.replace(pose=forward(0.2 * number, 0.1 * (number % 2)))


def test_far_land_is_no_sky() -> None:
    flight = Flight.from_photo(sample_photos()['valley'], size=SIZE, disparity='horizon', seed=0)
    sky, far = detect_sky(flight.frame.image), flight.frame.sky
    assert sky.mean() < far.mean() - 0.02
    turned = camera.compose(camera.level_pose(0.1), flight.frame.pose)
    frames = [flight.frame, flight.step(turned)]
    measures = measure(frames, torch.empty(0), Judges().load(), every=5)
    found = measures.figures['sky_fraction']
    assert found[0] == pytest.approx(sky.mean().item(), abs=0.01)
    assert found[1] < found[0] - 0.05


def test_what_is_measured_on_a_flight(start: Frame) -> None:
    measures = measure(still_frames(start, 8), torch.cat([start.image, start.image / 2]),
                       Judges().load(), every=3)
    assert measures.path_length == pytest.approx(1.4, rel=1e-4)
    assert measures.turned == pytest.approx(0.7, rel=1e-4)
    assert measures.features.shape == (3, 36)
    assert measures.features.dtype == np.float16
    assert np.isnan(measures.style).tolist() == [False, True, True, False, True, True, False, True]
    assert measures.style[[0, 3, 6]] == pytest.approx([0, 0, 0], abs=1e-6)
    assert {len(values) for values in measures.figures.values()} == {8}
    assert {'sharpness', 'disparity_median', 'sky_fraction'} <= measures.figures.keys()
    assert not measures.figures['sky_fraction'].any()
    assert measures.comparisons['mse'][0] == 0
    assert measures.comparisons['mse'][1] == pytest.approx(
        (start.image / 2).square().mean().item(), rel=1e-4)
    assert sorted(measures.thumbnails) == [0, 7]
    picture = np.asarray(Image.open(io.BytesIO(measures.thumbnails[7])), dtype=float) / 255
    assert np.abs(picture - start.image[0].permute(1, 2, 0).numpy()).mean() < 0.05


def test_photos_are_compared_with_nothing(start: Frame) -> None:
    measures = measure(still_frames(start, 3), start.image[:0], Judges().load(), every=1)
    assert measures.comparisons == {}


@pytest.mark.parametrize('change', [
    {'frames': 0}, {'size': (50, 96)}, {'speed': 0.0}, {'seeds': ()}, {'seeds': (-1,)},
    {'feature_every': 0}, {'extrapolated': -1}, {'backend': 'none'}])
def test_settings_that_cannot_be_are_refused(change: Mapping[str, object]) -> None:
    assert check_settings(SETTINGS) == SETTINGS
    with pytest.raises(ValueError, match='give|choose'):
        check_settings(replace(SETTINGS, **change))


def arrays(file: Path) -> dict[str, bytes]:
    """What a flight's file holds, but for how long it took."""
    with np.load(file) as stored:
        return {name: stored[name].tobytes() for name in stored if name != 'seconds'}


def test_runs_go_on_where_they_stopped(photos: Path, tmp_path: Path,
                                       capsys: pytest.CaptureFixture[str]) -> None:
    """A flight that fails stops no other, and is flown when it can be; the others are left."""
    one, two = find_starts([photos], SETTINGS, limit=2)
    gone = PhotoStart(two.name, tmp_path / 'gone.png')
    chosen = choose_variants('inpaint', ['no-refine'])
    folder = tmp_path / 'run'
    failed = run(SETTINGS, chosen, [one, gone], folder, networks=Judges(), workers=1)
    assert sorted((outcome.job.variant.name, outcome.job.start.name) for outcome in failed) == [
        ('inpaint', 'c'), ('no-refine', 'c')]
    assert 'no-refine from c with seed 0 failed' in capsys.readouterr().err
    assert 'Traceback' in (folder / 'failed.txt').read_text()
    made = {file: file.stat().st_mtime_ns for file in folder.rglob('*.npz')}
    assert sorted(str(file.relative_to(folder)) for file in made) == [
        'flights/inpaint/a_0.npz', 'flights/no-refine/a_0.npz']

    (tmp_path / 'gone.png').write_bytes(two.path.read_bytes())
    assert run(SETTINGS, chosen, [one, gone], folder, networks=Judges(), workers=1) == []
    assert {file: file.stat().st_mtime_ns for file in made} == made
    assert len(list(folder.rglob('*.npz'))) == 4
    assert not list(folder.rglob('*.partial'))

    # The same flight, made by this process.
    again = tmp_path / 'again.npz'
    make_one(SETTINGS, Judges(), 'cpu', Job(chosen['inpaint'], one, 0, again))
    assert arrays(again) == arrays(folder / 'flights' / 'inpaint' / 'a_0.npz')
    result = FlightResult.load(again)
    assert (result.variant, result.start, result.seed, result.frames) == ('inpaint', 'a', 0, 6)
    assert 0.6 < result.path_length < 1.3


def test_a_folder_is_for_flights_of_one_kind(photos: Path, tmp_path: Path,
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    def begin(settings: Settings, model: str = 'inpaint', name: str = 'own') -> Settings:
        run(settings, {name: Variant(name, model)}, [], tmp_path, networks=Judges())
        return read_settings(tmp_path)

    begin(SETTINGS)
    with pytest.raises(ValueError, match='frames 6 and not 7'):
        begin(replace(SETTINGS, frames=7))
    with pytest.raises(ValueError, match="'own' is inpaint, and not no-refine"):
        begin(SETTINGS, model='no-refine')
    joined = begin(replace(SETTINGS, seeds=(1,)), model='no-refine', name='other')
    assert joined.variants == {'own': 'inpaint', 'other': 'no-refine'}
    assert joined.seeds == (0, 1)
    assert joined.networks['inception'] == 'shrunken-0'


def keep_flight(folder: Path, variant: str, start: str, seed: int = 0, frames: int = 120,
                fade: float = 0.0, shift: float = 0.0) -> None:
    """Store a flight that was never flown."""
    random = np.random.default_rng((len(variant), ord(start), seed))
    figures = {name: np.full(frames + 1, 1.0) for name in ('sharpness', 'disparity_median')}
    figures['sharpness'] = np.linspace(1, 1 - fade, frames + 1)
    figures |= {'spectrum_slope': np.full(frames + 1, -2.5),
                'sky_fraction': np.full(frames + 1, 0.3)}
    style = np.full(frames + 1, np.nan)
    style[:61:20] = [0, 1, 3, 100]
    file = folder / 'flights' / variant / f'{start}_{seed}.npz'
    file.parent.mkdir(parents=True, exist_ok=True)
    FlightResult(random.standard_normal((1 + frames // 5, 8)) + shift,
                 figures, {'mse': np.array([0.1, 0.3])} if start == 'a' else {}, style,
                 20.0 + ord(start), 1.0, {}, 2.0, variant, start, seed).save(file)


def test_flights_are_summed_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(replace(SETTINGS, frames=120, feature_every=5),
        {'good': Variant('good', 'inpaint'), 'bad': Variant('bad', 'no-refine')}, [], tmp_path,
        networks=Judges())
    for start in 'ab':
        keep_flight(tmp_path, 'good', start)
        keep_flight(tmp_path, 'bad', start, fade=0.9 if start == 'b' else 0, shift=1)
    summed = summarise(tmp_path)
    good, bad = summed.rows
    assert (good['variant'], good['flights'], good['collapses']) == ('good', 2, 0)
    assert (bad['variant'], bad['flights'], bad['collapses']) == ('bad', 2, 1)
    assert good['mse'] == pytest.approx(0.2)
    assert good['compared'] == 2
    assert good['style'] == pytest.approx(2)
    assert good['path_length'] == 20 + ord('a')
    assert summed.collapses[0][:3] == ('bad', 'b', 0)
    assert 'sharpness' in summed.collapses[0][3][0]
    assert summed.curves == {}
    assert 'fid' not in good


def test_distances_are_computed_once_for_the_same_flights(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(replace(SETTINGS, frames=120, feature_every=5), {'good': Variant('good', 'inpaint')}, [],
        tmp_path, networks=Judges())
    keep_flight(tmp_path, 'good', 'a')
    references = np.random.default_rng(0).standard_normal((50, 8)).astype(np.float16)
    np.save(tmp_path / REFERENCES_FILE, references)
    settings = replace(read_settings(tmp_path), references=50, crops='crops.csv (0)')
    (tmp_path / 'settings.json').write_text(settings.to_json())
    first, = summarise(tmp_path, workers=1).rows
    assert first['images'] == 24

    # What was computed is taken as it is.
    kept = tmp_path / 'scores' / 'good.json'
    known = json.loads(kept.read_text())
    known['row']['fid'] = 12345
    kept.write_text(json.dumps(known))
    monkeypatch.setattr(summary, 'run_jobs', lambda function, jobs, **_: (
        Outcome(job, function(job)) for job in jobs))
    assert summarise(tmp_path).rows[0]['fid'] == 12345
    keep_flight(tmp_path, 'good', 'b')
    second, = summarise(tmp_path).rows
    assert second['images'] == 48
    assert second['fid'] != 12345


def test_distances_of_the_first_frames_and_in_windows() -> None:
    random = np.random.default_rng(0)
    references = random.standard_normal((300, 8))
    early, late = (random.standard_normal((10, 35, 8)) + shift for shift in (0, 2))
    frames = np.concatenate([np.full((10, 1, 8), 50), early[:, :10], late[:, 10:]], axis=1)
    distances = measure_distances(list(frames), references, every=5)
    assert distances.row['images'] == 10 * 35
    assert distances.row['kid_50'] < 0.1 * distances.row['kid']
    assert distances.row['fid_50'] < distances.row['fid_100'] < distances.row['fid']
    middles, values = distances.curves['kid_w20']
    assert middles[:3].tolist() == [10, 30, 50]
    # Up to frame 50 all is well, whatever the start looks like.
    assert values[:2].max() < 0.2 * values[3:].min()
    assert distances.curves['fid_w50'][0].tolist() == [25, 75, 125]


def test_a_short_flight_is_described_by_its_length(tmp_path: Path) -> None:
    features = [np.random.default_rng(seed).standard_normal((9, 8)) for seed in range(2)]
    distances = measure_distances(features, np.random.default_rng(5).standard_normal((20, 8)), 5)
    assert distances.row['fid'] == distances.row['fid_50'] == distances.row['fid_100']
    assert distances.curves['fid_w20'][0].tolist() == [10, 20, 30]
    assert 'fid_w50' not in distances.curves


def test_the_command_flies_and_reports(photos: Path, clips: Path, tmp_path: Path,
                                       monkeypatch: pytest.MonkeyPatch,
                                       capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(measuring, 'NetworkFiles', lambda *files: Judges())
    arguments = ['evaluate', str(photos), str(clips), '--model', 'no-refine', '--frames', '12',
                 '--size', '64', '96', '--starts', '1', '--disparity', 'horizon', '--out',
                 str(tmp_path / 'out'), '--feature-every', '3', '--workers', '1']
    assert main(arguments) == 0
    assert 'report.html' in capsys.readouterr().out
    assert (tmp_path / 'out' / 'report.html').stat().st_size > 1000
    row = (tmp_path / 'out' / 'table.csv').read_text().splitlines()
    named = dict(zip(row[0].split(','), row[1].split(','), strict=True))
    assert (named['variant'], named['flights'], named['compared']) == ('no-refine', '2', '10')
    # What opens between ground and sky stays black, without a refiner.
    assert 0 < float(named['mse']) < 0.1
    assert main([*arguments, '--frames', '13']) == 1
    assert 'give another --out' in capsys.readouterr().err
