"""InfiniteNature-Zero: losses, cycles, flights, and runs that learn from a folder of photos."""

from __future__ import annotations

import json
import math
from pathlib import Path
import shutil

import numpy as np
import pytest
from ros_probe import make_photo, write_photos
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
import torch
from torch import Tensor
from torch.utils.data import default_collate

from infinite_nature_ros import Autopilot, camera, Flight, Frame
from infinite_nature_ros.commands import main
from infinite_nature_ros.refining import build_network, create_model, read_header
from infinite_nature_ros.refining.spade import add_spectral_norm
from infinite_nature_ros.sky import SkyDome
from infinite_nature_ros.stepping import Stepper
from infinite_nature_training.checkpoints import load_checkpoint
from infinite_nature_training.configs import load_config, TrainingConfig
from infinite_nature_training.datasets import to_float
from infinite_nature_training.discriminator import Judgement
from infinite_nature_training.photo_dataset import PhotoDataset
from infinite_nature_training.rollout import draw_steps
from infinite_nature_training.zero_losses import (
    gradient_penalty,
    logistic_discriminator_loss,
    nonsaturating_generator_loss,
)
from infinite_nature_training.zero_rollout import there_and_back, ZeroRollout, ZeroUnroller
from infinite_nature_training.zero_trainer import longest_flight, ZeroTrainer
from infinite_nature_training.zero_validation import first_frame, measure_cycles

SIZE = (64, 96)
SMALL = ('size=64,96', 'batch_size=2', 'rollout_steps=3', 'discriminator_width=4', 'workers=0',
         'perceptual_weight=0', 'log_every=1', 'checkpoint_every=2', 'validate_every=100',
         'validation_sequences=2', 'picture_every=100', 'cycle_iterations=1',
         'growth_iterations=1')


@pytest.fixture(scope='module')
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of four photos, one of them held out, with credits."""
    folder = write_photos(tmp_path_factory.mktemp('photos'))
    make_photo(folder / 'beach3.jpg', 100, 180)
    (folder / 'credits.csv').write_text(
        'file,licence,author\nhill.jpg,CC0-1.0,Ann\nbay.jpg,CC0-1.0,Bo\nmoor.jpg,CC-BY-4.0,Cy\n')
    return folder


@pytest.fixture(scope='module')
def photo(photos: Path) -> Frame:
    """First frames of two photos."""
    dataset = PhotoDataset(photos, size=SIZE, augmentation=None, shuffle=False)
    return first_frame(to_float(default_collate([dataset[0], dataset[1]])))


def settings(*more: str) -> TrainingConfig:
    return load_config('zero-tiny').changed([*SMALL, *more])


def command(photos: Path, out: Path, *more: str) -> list[str]:
    return ['train', str(photos), '--config', 'zero-tiny', '--out', str(out), '--credits',
            str(photos / 'credits.csv'), '--set', *SMALL, *more]


def refiner_of(seed: int = 0) -> torch.nn.Module:
    """Residual network that changes what it sees a little."""
    torch.manual_seed(seed)
    network = build_network('residual-tiny', image_size=SIZE)
    torch.nn.init.normal_(network.generator.conv.weight, std=0.02)
    return network


def judgements(*scales: list[float]) -> list[Judgement]:
    return [Judgement(torch.tensor(logits).reshape(1, 1, 1, -1), []) for logits in scales]


def test_losses_are_the_logarithms_of_what_is_thought_likely() -> None:
    def likely(logit: float) -> float:
        return 1 / (1 + math.exp(-logit))

    real, fake = judgements([2.0, -1.0], [0.5]), judgements([0.3, -4.0], [1.0])
    generator = (-(math.log(likely(0.3)) + math.log(likely(-4.0))) / 2 - math.log(likely(1.0))) / 2
    discriminator = (
        -(math.log(likely(2.0)) + math.log(likely(-1.0))) / 2
        - (math.log(1 - likely(0.3)) + math.log(1 - likely(-4.0))) / 2
        - math.log(likely(0.5)) - math.log(1 - likely(1.0))) / 2
    assert nonsaturating_generator_loss(fake).item() == pytest.approx(generator)
    assert logistic_discriminator_loss(real, fake).item() == pytest.approx(discriminator)


def test_the_gradient_penalty_of_squares_is_known() -> None:
    frames = torch.rand(3, 4, 2, 2, dtype=torch.float64, requires_grad=True)
    factor = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    logits = factor * frames.square().sum(1, keepdim=True)
    coarse = frames.sum(1, keepdim=True)[..., :1, :1]
    penalty = gradient_penalty(frames, [Judgement(logits, []), Judgement(coarse, [])])
    # Of one pixel: the mean over 4 patches, then over two scales.
    gradient = 2 * 1.5 * frames.detach().numpy() / 4 / 2
    gradient[..., 0, 0] += 1 / 2
    assert penalty.item() == pytest.approx((gradient ** 2).sum((1, 2, 3)).mean())
    penalty.backward()
    assert factor.grad.item() > 0


def test_flights_grow_as_told() -> None:
    config = settings('cycle_iterations=10', 'growth_iterations=5', 'rollout_steps=4')
    lengths = [longest_flight(config, step) for step in range(32)]
    assert lengths == [0] * 10 + [1] * 5 + [2] * 5 + [3] * 5 + [4] * 7
    at_once = settings('cycle_iterations=0', 'growth_iterations=0', 'rollout_steps=4')
    assert {longest_flight(at_once, step) for step in range(9)} == {4}


def test_steps_are_drawn_evenly_and_by_the_iteration_alone() -> None:
    drawn = [draw_steps(3, step, 4) for step in range(4000)]
    assert drawn == [draw_steps(3, step, 4) for step in range(4000)]
    assert np.bincount(drawn) == pytest.approx(np.full(5, 800), abs=100)
    assert drawn != [draw_steps(4, step, 4) for step in range(4000)]


def test_there_and_back_loses_what_the_other_view_does_not_see() -> None:
    # A wall at distance 2, seen from 0.5 to the left: all moves by 0.5 * 0.5 * fx W = 16 pixels.
    height, width = 32, 64
    torch.manual_seed(0)
    image = torch.rand(1, 3, height, width)
    intrinsics = torch.tensor([[1.0, 2.0, 0.5, 0.5]])
    disparity = torch.full((1, 1, height, width), 0.5)
    frame = Frame(image, disparity, torch.ones_like(disparity), camera.identity_pose(), intrinsics)
    away = camera.pose_at(torch.tensor([[-0.5, 0.0, 0.0]]), torch.eye(3)[None])
    view = there_and_back(Stepper(create_model('no-refine')), frame, away)
    # From the left, the wall's right edge falls out of the view.
    assert (view.known[..., -15:] == 0).all()
    assert (view.image[..., -15:] == 0).all()
    torch.testing.assert_close(view.image[..., 2:-2, 2:-18], image[..., 2:-2, 2:-18], atol=1e-3,
                               rtol=0)
    assert (view.known[..., 2:-2, 2:-18] > 0.99).all()


@pytest.mark.parametrize('sky', [True, False])
def test_what_is_trained_is_what_flies(photo: Frame, sky: bool) -> None:
    refiner = refiner_of().eval()
    noise = torch.zeros(2, refiner.noise_length)
    made = ZeroUnroller(refiner, sky=sky, grounding=True)(
        photo, photo.pose.float(), noise, steps=3)
    flight = Flight(photo.image, photo.disparity, photo.intrinsics.float(), model=refiner,
                    pose=photo.pose.float(), sky=photo.sky if sky else False)
    pilot = Autopilot(flight.intrinsics)
    assert made.path.shape == (2, 3, 4, *SIZE)
    for step in range(3):
        frame = flight.step(pilot.next_pose(flight.frame))
        torch.testing.assert_close(made.path[:, step, :3], frame.image, atol=2e-3, rtol=0)
        torch.testing.assert_close(made.path[:, step, 3:], frame.disparity, atol=2e-3, rtol=0.02)


def unrolled(photo: Frame, refiner: torch.nn.Module, **how: int) -> ZeroRollout:
    away = camera.pose_at(torch.tensor([[0.0, 0.0, -0.2]] * 2), torch.eye(3).expand(2, 3, 3))
    elsewhere = camera.compose(away, photo.pose.float())
    return ZeroUnroller(refiner)(photo, elsewhere, torch.randn(2, refiner.noise_length), **how)


def test_steps_in_front_have_no_gradient(photo: Frame) -> None:
    torch.manual_seed(0)
    whole = unrolled(photo, refiner_of(), steps=4)
    torch.manual_seed(0)
    refiner = refiner_of()
    part = unrolled(photo, refiner, steps=4, lead=2)
    torch.testing.assert_close(part.path, whole.path[:, 2:])
    assert part.path.requires_grad
    torch.manual_seed(0)
    assert not unrolled(photo, refiner_of(), steps=4, lead=4).path.shape[1]


def test_gradients_reach_all_that_is_trained_and_are_finite(photo: Frame) -> None:
    refiner = add_spectral_norm(refiner_of()).train()
    made = unrolled(photo, refiner, steps=2, late=True)
    wanted = (made.cycle, made.late_cycle)
    loss = sum((cycle.refined - cycle.target).square().mean() for cycle in wanted)
    (loss + made.path[:, -1].mean()).backward()
    for name, parameter in refiner.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


def test_a_late_cycle_is_around_the_last_frame(photo: Frame) -> None:
    made = unrolled(photo, refiner_of(), steps=2, late=True)
    torch.testing.assert_close(made.late_cycle.target, made.path[:, -1].detach())
    assert not made.late_cycle.target.requires_grad
    assert made.late_cycle.refined.requires_grad
    assert unrolled(photo, refiner_of(), steps=2).late_cycle is None
    assert unrolled(photo, refiner_of(), late=True).late_cycle is None


@pytest.mark.parametrize(('more', 'judged'), [
    ((), [1, 2, 3]), (('balanced=false',), [1, 2, 3]), (('rollout_steps=1',), [1, 1, 1])])
def test_what_is_judged(photos: Path, tmp_path: Path, more: tuple[str, ...],
                        judged: list[int]) -> None:
    config = settings('iterations=3', 'growth_iterations=1', 'gradient_steps=0',
                      'cycle_iterations=0', *more)
    trainer = ZeroTrainer(config, tmp_path)
    seen: list[Tensor] = []
    trainer.discriminator.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    dataset = PhotoDataset(photos, size=SIZE, seed=0)
    batches = iter([default_collate([dataset[2 * step], dataset[2 * step + 1]])
                    for step in range(3)])
    trainer.run(batches)
    # Each iteration shows the discriminator the made frames, then real and made ones.
    lengths = [1 + draw_steps(0, step, most - 1) for step, most in enumerate(judged)]
    frames = [1] * 3 if config.balanced else lengths
    assert [len(given) for given in seen[::2]] == [2 * count for count in frames]
    assert [len(given) for given in seen[1::2]] == [2 + 2 * count for count in frames]


def logged(run: Path) -> set[str]:
    log = EventAccumulator(str(run / 'log'))
    log.Reload()
    return {name.removeprefix('loss/') for name in log.Tags()['scalars']}


def test_train_resume_export_fly(photos: Path, tmp_path: Path) -> None:
    assert main(command(photos, tmp_path / 'straight', 'iterations=4', 'r1_every=2',
                        'validate_every=4', 'picture_every=4')) == 0
    assert logged(tmp_path / 'straight') >= {
        'reconstruction', 'late_reconstruction', 'adversarial', 'discriminator', 'r1',
        'validation/l1_1'}
    half = tmp_path / 'half'
    assert main(command(photos, half, 'iterations=4', 'r1_every=2', 'validate_every=4')) == 0
    shutil.rmtree(half / 'checkpoints' / 'step-00000004')
    (half / 'checkpoints' / 'best.json').unlink(missing_ok=True)
    assert main(['train', str(photos), '--out', str(half), '--resume']) == 0
    one, other = (load_checkpoint(run / 'checkpoints' / 'step-00000004')[0]
                  for run in (tmp_path / 'straight', half))
    for group, tensors in one.items():
        for name, tensor in tensors.items():
            assert torch.equal(tensor, other[group][name]), (group, name)
    file = tmp_path / 'model.safetensors'
    assert main(['export', str(tmp_path / 'straight'), '--out', str(file)]) == 0
    facts = json.loads(read_header(file).provenance)
    assert facts['clips'] == 3
    assert 'beach3' not in json.dumps(facts)
    assert facts['licences'] == ['CC-BY-4.0', 'CC0-1.0']
    assert 'Ann' in json.dumps(facts['credits'])
    flight = Flight.from_photo(photos / 'hill.jpg', model=file, size=SIZE)
    pilot = Autopilot(flight.intrinsics)
    for _ in range(3):
        frame = flight.step(pilot.next_pose(flight.frame))
    assert frame.image.std() > 0.05


def test_licences_and_held_out_photos(photos: Path, tmp_path: Path,
                                      capsys: pytest.CaptureFixture) -> None:
    run = tmp_path / 'run'
    arguments = command(photos, run, 'iterations=1')
    assert main([*arguments, '--licences', 'CC0-1.0']) == 0
    assert main(['export', str(run), '--out', str(tmp_path / 'm.safetensors')]) == 0
    assert json.loads(read_header(tmp_path / 'm.safetensors').provenance)['clips'] == 2
    (tmp_path / 'list.txt').write_text('hill\nbeach3\n')
    for option, left in (('--names', ['hill.jpg']), ('--leave-out', ['bay.jpg', 'moor.jpg'])):
        run = tmp_path / option
        assert main([*command(photos, run, 'iterations=1'), option,
                     str(tmp_path / 'list.txt')]) == 0
        facts = load_checkpoint(run / 'checkpoints' / 'step-00000001')[1]
        assert facts['sources'] == left
    assert main([*command(photos, tmp_path / 'none', 'iterations=1'), '--licences', 'MIT']) == 1
    assert 'MIT' in capsys.readouterr().err


@pytest.mark.parametrize(('name', 'losses', 'missing'), [
    ('zero-no-cycle', {'adversarial', 'discriminator'}, {'reconstruction', 'disparity'}),
    ('zero', {'disparity', 'adversarial', 'late_disparity'}, {'reconstruction', 'divergence'}),
    ('zero-no-progressive', {'adversarial'}, set()),
    ('zero-no-balance', {'adversarial'}, set()),
    ('zero-no-sky', {'adversarial'}, set()),
    ('zero-comodgan', {'disparity', 'adversarial'}, set())])
def test_named_configurations_learn(photos: Path, tmp_path: Path, name: str, losses: set[str],
                                    missing: set[str]) -> None:
    model = 'comodgan-tiny' if 'comodgan' in name else 'residual-tiny'
    arguments = ['train', str(photos), '--config', name, '--out', str(tmp_path / 'run'), '--set',
                 f'model={model}', 'size=64,64', 'batch_size=1', 'rollout_steps=2',
                 'discriminator_width=4', 'perceptual_weight=0', 'workers=0', 'log_every=1',
                 'iterations=2']
    if load_config(name).cycle_iterations:
        arguments += ['cycle_iterations=1', 'growth_iterations=1']
    assert main(arguments) == 0
    found = logged(tmp_path / 'run')
    assert losses <= found
    assert not missing & found


def test_ablations_change_one_thing() -> None:
    full = vars(load_config('zero'))
    changed = {name: {field for field, value in vars(load_config(f'zero-{name}')).items()
                      if value != full[field]}
               for name in ('no-balance', 'no-progressive', 'no-sky', 'no-cycle')}
    assert changed == {
        'no-balance': {'balanced'}, 'no-sky': {'sky'},
        'no-progressive': {'cycle_iterations', 'growth_iterations'},
        'no-cycle': {'perceptual_weight', 'disparity_weight', 'cycle_iterations'}}


def test_cycles_of_a_perfect_refiner_have_no_error(photos: Path) -> None:
    dataset = PhotoDataset(photos, size=SIZE, augmentation=None, shuffle=False)
    batch = to_float(default_collate([dataset[0], dataset[1]]))

    class Remembers:
        """Knows the photos."""

        def begin(self, image: Tensor, disparity: Tensor, seed: int | None = None) -> Tensor:
            return image

        def refine(self, rendered: object, state: Tensor) -> tuple[Tensor, Tensor]:
            return state, state[:, :1]

    assert measure_cycles(Remembers(), [batch]).l1 == [0]
    bare, filled = (measure_cycles(create_model(name), [batch]).l1[0]
                    for name in ('no-refine', 'inpaint'))
    assert bare > filled > 0


def test_the_sky_of_a_cycle_is_the_photos(photo: Frame) -> None:
    dome = SkyDome.of(photo)
    away = camera.compose(camera.pose_at(torch.tensor([[0.0, 0.0, -0.3]] * 2),
                                         torch.eye(3).expand(2, 3, 3)), photo.pose.float())
    view = there_and_back(Stepper(create_model('no-refine'), dome), photo, away)
    certain = (photo.sky > 0.99).float()
    inner = -torch.nn.functional.max_pool2d(-certain, 9, 1, 4) > 0
    assert inner.float().mean() > 0.1
    assert (view.known[inner] > 0.99).all()
    difference = (view.image - photo.image).abs().amax(1, keepdim=True)
    assert difference[inner].max() < 0.03
