"""Training for long flights: photos, clips and a pool of flights, judged by frozen features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
import json
from pathlib import Path
import shutil

from clips import INFO, make_flight, write_clip
import pytest
from ros_probe import make_photo, write_photos
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d
from torch.utils.data import default_collate
from train_probe import losses_of, TINY_AERIAL, TINY_ENTRY, TinyAerial

from infinite_nature_ros import Autopilot, camera, Flight, Frame
from infinite_nature_ros.commands import main
from infinite_nature_ros.photos import sample_photos
from infinite_nature_ros.refining import create_model, read_header, registry
from infinite_nature_ros.refining.grain import detail_of
from infinite_nature_ros.sky import SkyDome
from infinite_nature_ros.stepping import Stepper
from infinite_nature_training.aerial_rollout import AerialUnroller, enlarge, Flights
from infinite_nature_training.aerial_trainer import AerialTrainer
from infinite_nature_training.camera_speed import CameraSpeed
from infinite_nature_training.checkpoints import load_checkpoint
from infinite_nature_training.configs import load_config, TrainingConfig
from infinite_nature_training.datasets import CLIP, SequenceDataset, to_float
from infinite_nature_training.paired_dataset import PairedDataset
from infinite_nature_training.photo_dataset import PhotoDataset
from infinite_nature_training.photo_pool import PhotoPool
from infinite_nature_training.projected import FeatureDistance, ProjectedDiscriminator
from infinite_nature_training.zero_rollout import there_and_back
from infinite_nature_training.zero_validation import first_frame

SIZE = (64, 96)
SMALL = (f'model={TINY_AERIAL}', 'size=64,96', 'batch_size=2', 'lead_steps=2', 'rollout_steps=2',
         'discriminator_width=4', 'workers=0', 'speed=0.05', 'log_every=1', 'checkpoint_every=2',
         'validate_every=100', 'validation_sequences=2', 'picture_every=100', 'pool_flights=4',
         'pool_batch=2', 'clip_batch=1', 'precision=no')


@pytest.fixture(scope='module')
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of four photos, one of them held out."""
    folder = write_photos(tmp_path_factory.mktemp('photos'))
    make_photo(folder / 'beach3.jpg', 100, 180)
    return folder


@pytest.fixture(scope='module')
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('clips')
    write_clip(folder / 'a', make_flight(10), replace(INFO, split='train'))
    return folder


@pytest.fixture(scope='module')
def dataset(photos: Path) -> PhotoDataset:
    return PhotoDataset(photos, size=SIZE, fine=2, augmentation=None, shuffle=False)


@pytest.fixture(scope='module')
def batch(dataset: PhotoDataset) -> dict[str, Tensor]:
    return to_float(default_collate([dataset[1], dataset[2]]))


@pytest.fixture(scope='module')
def photo(batch: dict[str, Tensor]) -> Frame:
    """First frames of two photos."""
    return first_frame(batch).map(Tensor.float)


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    registry.list_models()
    monkeypatch.setitem(registry._models, TINY_AERIAL, TINY_ENTRY)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path_factory.getbasetemp() / 'cache'))


def settings(*more: str) -> TrainingConfig:
    return load_config('aerial').changed([*SMALL, *more])


def command(photos: Path, clips: Path, out: Path, *more: str) -> list[str]:
    return ['train', str(photos), '--config', 'aerial', '--clips', str(clips), '--out', str(out),
            '--set', *SMALL, *more]


def checkpoint_of(run: Path, step: int) -> dict[str, dict[str, Tensor]]:
    return load_checkpoint(run / 'checkpoints' / f'step-{step:08d}')[0]


@pytest.fixture(scope='module')
def trained(photos: Path, clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run of four iterations."""
    run = tmp_path_factory.mktemp('runs') / 'straight'
    with pytest.MonkeyPatch.context() as patch:
        registry.list_models()
        patch.setitem(registry._models, TINY_AERIAL, TINY_ENTRY)
        patch.setenv('XDG_CACHE_HOME', str(tmp_path_factory.getbasetemp() / 'cache'))
        assert main(command(photos, clips, run, 'iterations=4', 'validate_every=4',
                            'picture_every=4')) == 0
    return run


def test_train_export_fly(trained: Path, photos: Path, tmp_path: Path) -> None:
    log = EventAccumulator(str(trained / 'log'))
    log.Reload()
    assert set(log.Tags()['scalars']) >= {
        'loss/cycles', 'loss/clips', 'loss/adversarial', 'loss/discriminator'}
    file = tmp_path / 'model.safetensors'
    assert main(['export', str(trained), '--out', str(file), '--checkpoint', 'newest']) == 0
    facts = json.loads(read_header(file).provenance)
    # Three photos and a clip; what is held out is not among them.
    assert (facts['step'], facts['clips']) == (4, 4)
    assert 'beach3' not in json.dumps(facts)
    flight = Flight.from_photo(photos / 'hill.jpg', model=file, size=SIZE, device='cpu')
    pilot = Autopilot(flight.intrinsics)
    for _ in range(3):
        frame = flight.step(pilot.next_pose(flight.frame))
    assert frame.image.std() > 0.05


def test_resumed_is_the_same_as_straight_on(trained: Path, photos: Path, clips: Path,
                                            tmp_path: Path) -> None:
    half = tmp_path / 'half'
    shutil.copytree(trained, half)
    shutil.rmtree(half / 'checkpoints' / 'step-00000004')
    (half / 'checkpoints' / 'best.json').unlink(missing_ok=True)
    assert main(['train', str(photos), '--clips', str(clips), '--out', str(half),
                 '--resume']) == 0
    one, other = (checkpoint_of(run, 4) for run in (trained, half))
    assert one.keys() == other.keys()
    assert 'pool' in one
    for group, tensors in one.items():
        assert tensors.keys() == other[group].keys()
        for name, tensor in tensors.items():
            assert torch.equal(tensor, other[group][name]), (group, name)


def test_two_processes_learn_as_one_with_twice_the_batch(photos: Path, clips: Path,
                                                         tmp_path: Path) -> None:
    # All of what is a number of things is halved, so that the ranks' pools are together the one;
    # flights start anew in between, into photos of their own rank, and some are steered.
    rates = ('iterations=4', 'precision=float64', 'generator_rate=2e-5',
             'discriminator_rate=2e-5', 'pool_age=5', 'pool_growth=0.1')
    one, two = (
        losses_of(ranks, 'aerial', str(photos), str(clips), str(tmp_path / str(ranks)), *SMALL,
                  *rates, *(f'{name}={count // ranks}' for name, count in (
                      ('batch_size', 2), ('clip_batch', 2), ('pool_flights', 4),
                      ('pool_batch', 2)))) for ranks in (1, 2))
    assert len(one) == 4
    for alone, together in zip(one, two, strict=True):
        assert together == pytest.approx(alone, rel=1e-4, abs=1e-9)


def test_a_run_starts_from_anothers_networks(trained: Path, photos: Path, clips: Path,
                                             tmp_path: Path) -> None:
    trainer = AerialTrainer(settings(), tmp_path / 'other')
    trainer.start_from(trained / 'checkpoints' / 'step-00000004')
    assert trainer.step == 0
    for name, tensor in checkpoint_of(trained, 4)['refiner'].items():
        assert torch.equal(trainer.refiner.state_dict()[name], tensor)
    run = tmp_path / 'run'
    assert main([*command(photos, clips, run, 'iterations=1', 'generator_rate=0',
                          'discriminator_rate=0'), '--start-from', str(trained)]) == 0
    begun = checkpoint_of(run, 1)
    for group in ('refiner', 'discriminator'):
        for name, tensor in checkpoint_of(trained, 4)[group].items():
            if not name.endswith(('_u', '_v')):  # spectral norm iterates on
                assert torch.equal(begun[group][name], tensor), name


def test_a_discriminator_that_wins_rests(trained: Path, photos: Path, clips: Path,
                                         tmp_path: Path) -> None:
    moved = {}
    for rest in ('0', '100'):
        run = tmp_path / rest
        assert main([*command(photos, clips, run, 'iterations=1', f'discriminator_rest={rest}'),
                     '--start-from', str(trained)]) == 0
        before, after = (checkpoint_of(*at)['discriminator'] for at in ((trained, 4), (run, 1)))
        moved[rest] = {name for name, tensor in before.items() if name.startswith('heads.')
                       and name.endswith('original') and not torch.equal(after[name], tensor)}
    assert moved['0']
    assert not moved['100']


def test_what_is_frozen_stays_and_is_not_optimised(trained: Path) -> None:
    fresh, groups = ProjectedDiscriminator(4), checkpoint_of(trained, 4)
    learned = {name for name, parameter in fresh.named_parameters() if parameter.requires_grad}
    assert {name.partition('.')[0] for name in learned} == {'heads', 'patches'}
    for name, tensor in fresh.state_dict().items():
        if name.startswith(('across.', 'along.')):
            assert torch.equal(groups['discriminator'][name], tensor), name
    assert not any('encoder' in name for name in fresh.state_dict())
    moments = [name for name in groups['discriminator_optimizer'] if name.endswith('.exp_avg')]
    assert len(moments) == len(learned)


def judged(network: ProjectedDiscriminator, frames: Tensor) -> Tensor:
    return torch.cat([one.logits.flatten(1) for one in network(frames)], dim=1)


def test_judgements_reach_the_frames_and_are_each_pictures_own() -> None:
    torch.manual_seed(0)
    network = ProjectedDiscriminator(4).double().eval()
    frames = torch.rand(3, 4, *SIZE, dtype=torch.float64, requires_grad=True)
    said = judged(network, frames)
    assert said.dtype is torch.float64
    said.mean().backward()
    # A place of it is cut out, all of that is looked at.
    seen = frames.grad.abs() > 0
    assert torch.isfinite(frames.grad).all()
    assert (seen.flatten(1).float().mean(1) > 0.4).all()
    assert seen.any(-1).any(-1).all()
    for row in range(3):
        torch.testing.assert_close(judged(network, frames[row:row + 1]), said[row:row + 1])
    assert torch.equal(judged(network, frames), said)


def test_a_frame_that_is_not_finite_is_judged_so() -> None:
    frames = torch.full((1, 4, *SIZE), torch.nan)
    assert torch.isnan(judged(ProjectedDiscriminator(4), frames)).all()


def test_feature_distance_grows_with_what_differs(photo: Frame) -> None:
    distance = FeatureDistance()
    image = photo.image
    torch.manual_seed(0)
    noise = torch.randn_like(image)
    found = [distance((image + share * noise).clamp(0, 1), image).item()
             for share in (0, 0.02, 0.05, 0.15)]
    assert found[0] == 0
    assert found == sorted(found)
    assert found[1] > 1e-3
    other = image.flip(-1)
    apart = [distance(other[row:row + 1], image[row:row + 1]) for row in range(2)]
    torch.testing.assert_close(distance(other, image), sum(apart) / 2)
    exact = distance.double()(other.double(), image.double())
    assert exact.dtype is torch.float64
    assert exact.item() == pytest.approx(distance.float()(other, image).item(), rel=1e-4)
    made = image.clone().requires_grad_()
    distance(made, other).backward()
    assert made.grad.abs().max() > 0


def test_a_fine_way_there_blurs_nothing(tmp_path: Path) -> None:
    for name in ('plain', 'valley'):  # these have the pixels that it takes
        shutil.copy(sample_photos()[name], tmp_path)
    photos = PhotoDataset(tmp_path, size=(96, 160), fine=2, augmentation=None, shuffle=False,
                          crop=(1, 1), disparity='horizon')
    batch = to_float(default_collate([photos[0], photos[1]]))
    photo = first_frame(batch).map(Tensor.float)
    large = enlarge(photo, batch['fine'][:, 0])
    assert large.image.shape[-2:] == (192, 320)
    assert (avg_pool2d(large.image, 2) - photo.image).abs().mean() < 0.01
    away = camera.compose(camera.pose_at(torch.tensor([[0.0, 0.0, 0.2]] * 2),
                                         torch.eye(3).expand(2, 3, 3)), photo.pose)
    refiner = create_model('no-refine')

    def stepper(frame: Frame) -> Stepper:
        return Stepper(refiner, SkyDome.of(frame))

    seen = [stepper(frame).warp(frame, away, torch.ones_like(frame.known)).view.image
            for frame in (photo, large)]
    sharpness = [strength_of_detail(image, photo) for image in (
        photo.image, seen[0], avg_pool2d(seen[1], 2),
        there_and_back(stepper(photo), photo, away).image,
        there_and_back(stepper(photo), photo, away, stepper(large), large).image)]
    there, fine_there, back, fine_back = (value / sharpness[0] for value in sharpness[1:])
    assert fine_there > 1.1 * there
    assert fine_back > 1.03 * back


def strength_of_detail(image: Tensor, photo: Frame) -> float:
    """Root mean square of the detail of what is near."""
    near = (photo.disparity > 0.05).expand_as(image)
    return detail_of(image)[near].square().mean().sqrt().item()


@pytest.fixture
def advance(photo: Frame) -> Callable[..., Flights]:
    refiner = TinyAerial()
    unroller = AerialUnroller(refiner)

    def run(pool: PhotoPool, steps: int, photo: Frame = photo) -> Flights:
        flights = pool.take(refiner, photo, progress=1.0)
        made = unroller(photo, photo.image, photo.pose, flights, steps)
        assert made.path.shape == (steps * len(flights.frame.image), 4, *SIZE)
        assert made.path.requires_grad
        pool.put(flights)
        return flights

    return run


def test_flights_of_the_pool_grow_old_and_start_anew_at_limits_of_their_own(
        advance: Callable[..., Flights]) -> None:
    config = settings('pool_flights=3', 'pool_batch=2', 'pool_steps=1', 'pool_age=4')
    pool = PhotoPool(config, torch.device('cpu'))
    ages = []
    for _ in range(9):
        advance(pool, 1)
        ages.append(pool.state_dict()['age'].tolist())
    # Their limits are 0.3, 0.59 and 0.87 of 4, rounded down; two are taken in turn.
    assert ages == [[1, 1, -1], [1, 1, 1], [1, 2, 2], [1, 1, 2], [1, 1, 3], [1, 2, 1], [1, 1, 1],
                    [1, 1, 2], [1, 2, 3]]


def test_domes_are_of_the_photos_that_flights_began_at(advance: Callable[..., Flights],
                                                       photo: Frame) -> None:
    config = settings('pool_flights=4', 'pool_batch=2', 'pool_steps=1', 'pool_age=90')
    pool = PhotoPool(config, torch.device('cpu'))
    red, blue = (photo.replace(image=torch.zeros_like(photo.image).index_fill_(
        1, torch.tensor([channel]), 1.0)) for channel in (0, 2))
    advance(pool, 1, red)
    advance(pool, 1, blue)
    for channel in (0, 2):
        flights = advance(pool, 1, photo)
        assert (flights.start.image[:, channel] == 1).all()
        sky = (flights.frame.sky > 0.99).expand_as(flights.frame.image)
        assert sky.any()
        seen = flights.frame.image[sky].reshape(-1)
        assert set(seen.round().tolist()) == {0, 1}
        means = (flights.frame.image * sky).sum((0, 2, 3)) / sky.sum((0, 2, 3))
        assert means.argmax() == channel
        assert means[channel] > 0.99


def test_a_stored_pool_goes_on_the_same(advance: Callable[..., Flights]) -> None:
    config = settings('pool_flights=4', 'pool_batch=2', 'pool_steps=1', 'pool_age=3')
    pool, other = (PhotoPool(config, torch.device('cpu')) for _ in range(2))
    advance(pool, 1)
    other.load_state_dict({name: value.clone() for name, value in pool.state_dict().items()})
    for _ in range(3):
        advance(pool, 1)
        advance(other, 1)
    assert pool.state_dict().keys() == other.state_dict().keys()
    for name, value in pool.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_every_flight_is_steered_now_and_then(photo: Frame) -> None:
    config = settings('pool_flights=8', 'pool_batch=1', 'pool_age=1000')
    refiner = TinyAerial()
    pools = {ranks: [PhotoPool(config.changed([f'pool_flights={8 // ranks}']),
                               torch.device('cpu'), (rank, ranks)) for rank in range(ranks)]
             for ranks in (1, 2)}
    steered = [0] * 8
    for take in range(160):
        flights = pools[1][0].take(refiner, photo, 1.0)
        offsets = flights.pilot.state_dict()['offsets'][0]
        steered[take % 8] += bool(offsets.abs().sum() > 0)
        assert (offsets.abs() <= torch.tensor([0.35, 0.08])).all()
    assert all(0 < count < 12 for count in steered)
    # Those of two processes are each steered in another way.
    ways = [[pool.take(refiner, photo, 1.0).pilot.state_dict()['offsets'].tolist()
             for _ in range(20)] for pool in pools[2]]
    assert ways[0] != ways[1]


def test_a_photo_comes_with_a_sequence(dataset: PhotoDataset, photos: Path, clips: Path) -> None:
    def build() -> PairedDataset:
        return PairedDataset(
            PhotoDataset(photos, size=SIZE, fine=2, seed=3),
            SequenceDataset(clips, steps=2, size=SIZE, stride=CameraSpeed(0.05), seed=3))

    pairs = build()
    assert len(pairs) == 4
    assert len(pairs.infos) == 5
    sample = pairs[1]
    own = {name for name in sample if not name.startswith(CLIP)}
    assert own == set(dataset[0])
    assert {name.removeprefix(CLIP) for name in sample if name.startswith(CLIP)} == {
        'image', 'disparity', 'pose', 'intrinsics', 'frames', 'clip', 'index'}
    assert sample['fine'].shape == (1, 3, 128, 192)
    assert sample[f'{CLIP}image'].shape == (3, 3, *SIZE)
    converted = to_float(sample)
    assert converted[f'{CLIP}image'].max() <= 1
    assert converted[f'{CLIP}disparity'].dtype is torch.float32
    for index in (1, 9):  # in the third epoch of photos as well
        one, other = pairs[index], build()[index]
        for name, value in one.items():
            assert (torch.equal(value, other[name]) if isinstance(value, Tensor)
                    else value == other[name]), name


def test_mistakes_are_explained(photos: Path, clips: Path, tmp_path: Path,
                                capsys: pytest.CaptureFixture) -> None:
    (tmp_path / 'empty').mkdir()
    run = tmp_path / 'run'
    for arguments, text in (
            (command(tmp_path / 'empty', clips, run), 'holds no photos'),
            (command(photos, tmp_path / 'empty', run), 'empty'),
            (command(photos, clips, run, 'pool_flights=0'), 'pool_flights is 0'),
            (command(photos, clips, run, 'pool_steps=0'), 'pool_steps is 0'),
            (command(photos, clips, run, 'clip_batch=0'), 'clip_batch is 0'),
            (command(photos, clips, run, 'model=residual-tiny'), 'give aerial-small'),
            (['train', str(photos), '--config', 'zero-tiny', '--clips', str(clips), '--out',
              str(run)], 'configurations such as aerial'),
            (['train', str(clips), '--config', 'residual-tiny', '--clips', str(clips), '--out',
              str(run)], 'configurations such as aerial'),
            ([*command(photos, clips, run), '--start-from', str(tmp_path / 'nowhere')],
             'nowhere holds no training run')):
        capsys.readouterr()
        assert main(arguments) == 1
        assert text in capsys.readouterr().err
        assert not (run / 'config.json').exists()
    assert not (tmp_path / 'nowhere').exists()
