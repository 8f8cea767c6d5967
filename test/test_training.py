"""Training: runs that resume bit for bit, export, fly; the same on one process as on two."""

from __future__ import annotations

from dataclasses import replace
import json
import os
from pathlib import Path
import signal
import subprocess
import sys
import time

from clips import INFO, make_flight, write_clip
import pytest
from rclpy.lifecycle import TransitionCallbackReturn
from ros_probe import isolated_ros, make_photo, overrides, Probe, SIZE, write_photos
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
import torch
from torch import Tensor
from train_probe import losses_of

from infinite_nature_ros import Flight
from infinite_nature_ros.commands import main
from infinite_nature_ros.nodes.generator_node import GeneratorNode
from infinite_nature_ros.nodes.messages import rgb_array
from infinite_nature_ros.refining import (
    build_network,
    create_model,
    read_header,
    save_weights,
)
from infinite_nature_training.checkpoints import Checkpoints, load_checkpoint
from infinite_nature_training.configs import CONFIGS, load_config, TrainingConfig
from infinite_nature_training.flight_pool import FlightPool
from infinite_nature_training.objective import Objective
from infinite_nature_training.rollout import Unrolled, Unroller
from infinite_nature_training.sequence_trainer import SequenceTrainer
from infinite_nature_training.validation import direct_errors, measure

ROOT = Path(__file__).parents[1]
SMALL = ('size=64,96', 'batch_size=1', 'rollout_steps=2', 'discriminator_width=4',
         'perceptual_weight=0', 'workers=0', 'speed=0.05', 'log_every=1', 'checkpoint_every=10',
         'validate_every=10', 'validation_sequences=2', 'picture_every=10')


@pytest.fixture(scope='module')
def bags(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('bags')
    for name, split in (('a', 'train'), ('b', 'train'), ('c', 'validation'), ('d', 'test')):
        write_clip(folder / name, make_flight(10), replace(INFO, split=split))
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path_factory.getbasetemp() / 'cache'))


def command(bags: Path, out: Path, *more: str) -> list[str]:
    return ['train', str(bags), '--config', 'residual-tiny', '--out', str(out), '--set', *SMALL,
            *more]


def settings(*more: str) -> TrainingConfig:
    return load_config('residual-tiny').changed([*SMALL, *more])


def same(one: Path, other: Path) -> bool:
    """Whether two checkpoints hold the same bits."""
    left, right = load_checkpoint(one)[0], load_checkpoint(other)[0]
    return left.keys() == right.keys() and all(
        left[group].keys() == right[group].keys() and all(
            torch.equal(left[group][name], right[group][name]) for name in left[group])
        for group in left)


@pytest.mark.parametrize('more', [(), ('pool_flights=3', 'pool_steps=1')])
def test_killed_and_resumed_is_the_same_as_straight_on(bags: Path, tmp_path: Path,
                                                       more: tuple[str, ...]) -> None:
    assert main(command(bags, tmp_path / 'straight', 'iterations=20', *more)) == 0
    running = subprocess.Popen(
        [sys.executable, '-c', 'from infinite_nature_ros.commands import main; main()',
         *command(bags, tmp_path / 'killed', 'iterations=20', *more)], cwd=ROOT)
    first = tmp_path / 'killed' / 'checkpoints' / 'step-00000010'
    try:
        while not first.exists():
            assert running.poll() is None
            time.sleep(0.05)
    finally:
        os.kill(running.pid, signal.SIGKILL)
        running.wait()
    for later in first.parent.glob('step-*'):
        if later != first:
            os.rename(later, tmp_path / later.name)
    assert main(['train', str(bags), '--out', str(tmp_path / 'killed'), '--resume',
                 '--set', 'iterations=20']) == 0
    assert same(*(tmp_path / name / 'checkpoints' / 'step-00000020'
                  for name in ('straight', 'killed')))


def test_train_export_fly(bags: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run, file = tmp_path / 'run', tmp_path / 'model.safetensors'
    assert main(command(bags, run, 'iterations=3', 'validate_every=2')) == 0
    assert main(['export', str(run), '--out', str(file), '--checkpoint', 'newest']) == 0
    assert str(file) in capsys.readouterr().out
    facts = json.loads(read_header(file).provenance)
    assert (facts['step'], facts['clips'], facts['licences']) == (3, 2, ['CC0-1.0'])
    assert facts['config']['seed'] == 0
    averaged = load_checkpoint(run / 'checkpoints' / 'step-00000003')[0]['ema']
    torch.testing.assert_close(load_file(file)['generator.conv.weight'],
                               averaged['module.generator.conv.weight'])
    with isolated_ros():
        fly_ten_frames(make_photo(tmp_path / 'photo.png'), file)


def fly_ten_frames(photo: str, model: Path) -> None:
    """Command ten poses of a generator node with the model and wait for their frames."""
    probe = Probe()
    node = GeneratorNode(parameter_overrides=overrides(image=photo, model=str(model), **SIZE))
    probe.executor_.add_node(node)
    try:
        assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
        probe.wait_for_frames(1)
        probe.spin_until(probe.command.get_subscription_count)
        probe.send(*((0.1 * step, 0.0, 0.0) for step in range(1, 11)))
        probe.wait_for_frames(11)
        assert rgb_array(probe.frame(10)['camera/image_raw']).std() > 5
    finally:
        for one in (node, probe):
            probe.executor_.remove_node(one)
            one.destroy_node()


@pytest.mark.parametrize(('config', 'more'), [
    ('residual-tiny', ('divergence_weight=0.01', 'lead_steps=2')),
    ('zero-tiny', ('cycle_iterations=4', 'growth_iterations=4', 'r1_every=4'))])
def test_two_processes_learn_as_one_with_twice_the_batch(
        bags: Path, tmp_path: Path, config: str, more: tuple[str, ...]) -> None:
    source = bags if config == 'residual-tiny' else write_photos(tmp_path)
    # Adam's first steps blow rounding up, ever more at higher rates.
    small = [*SMALL, 'iterations=20', 'precision=float64', 'generator_rate=2e-5',
             'discriminator_rate=2e-5', 'validate_every=100', *more]
    one, two = (
        losses_of(ranks, config, str(source), '', str(tmp_path / str(ranks)), *small,
                  f'batch_size={2 // ranks}') for ranks in (1, 2))
    assert len(one) == 20
    for alone, together in zip(one, two, strict=True):
        assert together == pytest.approx(alone, rel=1e-4, abs=0)


def test_accumulated_batches_are_one_batch(bags: Path, tmp_path: Path) -> None:
    exact = ('iterations=3', 'precision=float64', 'divergence_weight=0.01', 'generator_rate=1e-6',
             'discriminator_rate=1e-6', 'checkpoint_every=3', 'validate_every=100')
    for name, more in (('whole', 'batch_size=2'), ('parts', 'accumulate=2')):
        assert main(command(bags, tmp_path / name, *exact, more)) == 0
    whole, parts = (load_checkpoint(tmp_path / name / 'checkpoints' / 'step-00000003')[0]
                    for name in ('whole', 'parts'))
    for group in ('refiner', 'discriminator'):
        for name, tensor in whole[group].items():
            torch.testing.assert_close(parts[group][name], tensor, rtol=0, atol=2e-8)


def test_half_precision_learns_as_well(bags: Path, tmp_path: Path) -> None:
    found = {}
    for precision in ('no', 'bf16'):
        run = tmp_path / precision
        assert main(command(bags, run, f'precision={precision}', 'iterations=2',
                            'generator_rate=1e-3')) == 0
        groups, facts = load_checkpoint(run / 'checkpoints' / 'step-00000002')
        assert groups['refiner']['generator.conv.weight'].dtype is torch.float32
        found[precision] = facts['metrics']
    assert found['bf16'] != found['no']
    assert found['bf16'] == pytest.approx(found['no'], rel=0.1, abs=0.02)


def test_the_log_has_losses_errors_and_pictures(bags: Path, tmp_path: Path) -> None:
    run = tmp_path / 'run'
    assert main(command(bags, run, 'iterations=2', 'picture_every=2', 'validate_every=2')) == 0
    log = EventAccumulator(str(run / 'log'))
    log.Reload()
    scalars = log.Tags()['scalars']
    for name in ('reconstruction', 'divergence', 'adversarial', 'feature_matching',
                 'discriminator'):
        assert [event.step for event in log.Scalars(f'loss/{name}')] == [1, 2]
    assert 'loss/perceptual' not in scalars
    assert {'validation/l1_1', 'validation/l1_5'} <= set(scalars)
    picture = log.Images('steps')[0]
    # A row a step; rendered, refined, real, and two disparities beside each other.
    assert (picture.height, picture.width) == (2 * 64, 5 * 96)
    assert log.Images('input')[0].height == 64


def test_after_steps_in_front_later_frames_are_the_targets(
        bags: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    of_generator = Objective.of_generator

    def look(self: Objective, unrolled: Unrolled, targets: Tensor,
             *arguments: object) -> dict[str, Tensor]:
        compared.append((unrolled.lead, unrolled.frames.detach(), targets))
        return of_generator(self, unrolled, targets, *arguments)

    monkeypatch.setattr(Objective, 'of_generator', look)
    assert main(command(bags, tmp_path / 'run', 'iterations=6', 'lead_steps=2', 'augment=false',
                        'generator_rate=0', 'seed=3')) == 0
    assert {lead for lead, _, _ in compared} == {0, 1, 2}
    for _, frames, targets in compared:
        # Untrained, the network shows the filled view: of its own frame, not of a later one.
        wrong = (frames[:, 0] - targets[:, 1]).abs().mean()
        assert (frames[:, 0] - targets[:, 0]).abs().mean() < 0.8 * wrong


def test_a_nan_stops_with_its_batch_saved(bags: Path, tmp_path: Path) -> None:
    run = tmp_path / 'run'
    trainer = SequenceTrainer(settings('iterations=5'), run)
    batch = {'image': torch.full((1, 3, 3, 64, 96), 100.0),
             'disparity': torch.full((1, 3, 1, 64, 96), 0.3),
             'pose': torch.eye(3, 4).repeat(1, 3, 1, 1), 'index': torch.arange(1),
             'intrinsics': torch.tensor([0.8, 1.2, 0.5, 0.5]).repeat(1, 3, 1)}
    broken = batch | {'image': torch.full((1, 3, 3, 64, 96), torch.nan)}
    with pytest.raises(FloatingPointError, match='step 2'):
        trainer.run(iter([batch, batch, broken]))
    saved, = run.glob('not_finite*.safetensors')
    assert torch.isnan(load_file(saved)['image']).all()


def test_the_newest_and_the_best_checkpoints_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in range(1, 6):
        folder = checkpoints.save(step, {'group': {'tensor': torch.tensor([step])}}, {'fact': 1})
        if step == 2:
            checkpoints.mark_best(folder, 0.5)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        'best.json', 'step-00000002', 'step-00000004', 'step-00000005']
    groups, facts = load_checkpoint(checkpoints.best()[0])
    assert (groups['group']['tensor'].tolist(), facts) == ([2], {'step': 2, 'fact': 1})


def test_a_full_disk_leaves_the_older_checkpoints(tmp_path: Path,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.save(1, {'group': {'tensor': torch.ones(1)}}, {})

    def full(*_: object) -> None:
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('infinite_nature_training.checkpoints.save_file', full)
    with pytest.raises(OSError, match='free some space'):
        checkpoints.save(2, {'group': {'tensor': torch.ones(1)}}, {})
    assert [path.name for path in tmp_path.iterdir()] == ['step-00000001']


def test_mistakes_are_explained(bags: Path, tmp_path: Path,
                                capsys: pytest.CaptureFixture) -> None:
    run = tmp_path / 'run'
    assert main(command(bags, run, 'iterations=1')) == 0
    for arguments, text in (
            (command(bags, run), 'holds a run already'),
            (command(tmp_path / 'nowhere', tmp_path / 'x'), 'nowhere does not exist'),
            (command(bags, tmp_path / 'x', 'colour=3'), 'unknown'),
            (command(bags, tmp_path / 'x', 'batch_size=few'), 'cannot be read'),
            (command(bags, tmp_path / 'x', 'batch_size=0'), 'give 1 or more'),
            (command(bags, tmp_path / 'x', 'pool_flights=1'), 'pool_batch is 2'),
            (command(bags, tmp_path / 'x', 'pool_flights=4', 'adversarial_weight=0',
                     'feature_matching_weight=0'), 'adversarial_weight > 0'),
            (['train', str(bags), '--config', 'none-such'], 'no configuration is named'),
            (['train', str(bags), '--out', str(tmp_path / 'y'), '--resume'], 'no training run'),
            (['export', str(tmp_path)], 'no training run'),
            (['export', str(run), '--checkpoint', 'step-9'], 'no whole checkpoint')):
        capsys.readouterr()
        assert main(arguments) == 1
        assert text in capsys.readouterr().err


def test_every_configuration_can_be_written_and_read() -> None:
    for config in CONFIGS.values():
        assert TrainingConfig.from_json(config.to_json()) == config
    assert settings('size=96,128', 'augment=false').size == (96, 128)
    assert CONFIGS['infinite-nature'] == TrainingConfig()
    assert CONFIGS['no-repeat'].rollout_steps == 1


def test_configurations_are_listed(capsys: pytest.CaptureFixture) -> None:
    assert main(['train', '--list-configs']) == 0
    text = capsys.readouterr().out
    assert 'rollout_steps=5' in text
    assert all(name in text for name in CONFIGS)


def test_every_setting_says_what_it_means(capsys: pytest.CaptureFixture) -> None:
    main(['train', '--list-configs'])
    lines = capsys.readouterr().out.splitlines()
    for name in vars(TrainingConfig()):
        row, = (number for number, line in enumerate(lines) if line.startswith(f'  {name}='))
        assert lines[row + 1].startswith('      ')
        assert len(lines[row + 1].split()) > 1


def test_nothing_to_learn_is_said(bags: Path, tmp_path: Path,
                                  capsys: pytest.CaptureFixture) -> None:
    assert main(['train', str(bags), '--config', 'no-refine', '--out', str(tmp_path / 'run'),
                 '--set', 'speed=0.05', 'size=64,96', 'perceptual_weight=0']) == 1
    assert 'nothing to learn' in capsys.readouterr().err


def test_a_model_without_grounding_flies_without(tmp_path: Path) -> None:
    disparity = torch.full((1, 1, 64, 96), 0.3)
    image, intrinsics = torch.rand(1, 3, 64, 96), torch.tensor([[0.8, 1.2, 0.5, 0.5]])
    painted = {}
    for grounding in (True, False):
        torch.manual_seed(0)
        network = build_network('infinite-nature-tiny', image_size=(64, 96), grounding=grounding)
        save_weights(network, tmp_path / 'model.safetensors', provenance='test')
        flight = Flight(image, disparity, intrinsics, model=tmp_path / 'model.safetensors',
                        sky=False)
        painted[grounding] = flight.step(torch.eye(3, 4)[None]).disparity.median().item()
    # An untrained network paints 0.5 or so, where 0.3 was.
    assert painted[True] == pytest.approx(0.3, rel=0.1)
    assert painted[False] == pytest.approx(0.5, rel=0.1)


def test_flights_of_the_pool_grow_old_and_start_anew() -> None:
    config = settings('pool_flights=3', 'pool_batch=2', 'pool_steps=2', 'pool_age=4')
    unroller = Unroller(build_network('residual-tiny', image_size=(64, 96)))
    pool = FlightPool(config, torch.device('cpu'))
    batch = {'image': torch.rand(1, 3, 3, 64, 96),
             'disparity': torch.linspace(0.02, 0.4, 64)[:, None].expand(1, 3, 1, 64, 96),
             'pose': torch.eye(3, 4).repeat(1, 3, 1, 1),
             'intrinsics': torch.tensor([0.8, 1.2, 0.5, 0.5]).repeat(1, 3, 1)}
    ages = []
    for _ in range(6):
        frames = pool.advance(unroller, batch, progress=1.0)
        assert frames.shape == (4, 4, 64, 96)
        assert frames.requires_grad
        ages.append(pool.state_dict()['age'].tolist())
    # Two flights in turn, two steps each; at the age of 4 they begin again.
    assert ages == [[2, 2, -1], [4, 2, 2], [4, 4, 4], [2, 2, 4], [4, 2, 2], [4, 4, 4]]
    moved = pool.state_dict()['pose'][:, 2, 3]
    assert (moved < -0.1).all()


def test_errors_are_means_over_all_sequences() -> None:
    def batch(number: int, shift: float) -> dict[str, torch.Tensor]:
        images = torch.full((number, 3, 3, 64, 96), 0.5)
        images[:, 1:] += shift
        return {'image': images, 'disparity': torch.full((number, 3, 1, 64, 96), 0.3),
                'pose': torch.eye(3, 4).repeat(number, 3, 1, 1),
                'intrinsics': torch.tensor([0.8, 1.2, 0.5, 0.5]).repeat(number, 3, 1)}

    def largest(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return (one - other).abs()[..., 8:-8, 8:-8].max()

    batches = [batch(3, 0.1), batch(1, 0.3)]
    found = measure(create_model('no-refine'), batches, largest)
    # Nothing moves, so but for the border the first frame is the render: 3 of 0.1 and 1 of 0.3.
    assert found.perceptual == pytest.approx([0.15, 0.15], abs=1e-5)
    assert direct_errors(batches, largest).perceptual == pytest.approx([0.15] * 2, abs=1e-5)
    parts = [measure(create_model('no-refine'), [part]).l1 for part in batches]
    assert found.l1 == pytest.approx([(3 * one + other) / 4 for one, other
                                      in zip(*parts, strict=True)])
    with pytest.raises(ValueError, match='nothing to validate'):
        measure(create_model('no-refine'), [])
