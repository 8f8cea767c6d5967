"""Autopilot: parity with the release, and safe flight over scenes whose true shape is known."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from worlds import (
    as_frame,
    BEND,
    Block,
    CANYON,
    FAR,
    Flown,
    fly,
    GAP,
    INTRINSICS,
    nearest_known_depth,
    pit,
    Scene,
    SCENES,
    SEA,
    see,
    SLOPE,
    WALL,
)

from infinite_nature_ros import Autopilot, camera, Flight
from infinite_nature_ros.photos import sample_photos

GOLDEN = Path(__file__).parent / 'golden' / 'autopilot.npz'


def assert_level_and_finite(flown):
    assert torch.isfinite(flown.poses).all()
    camera.check_pose(flown.poses)
    assert flown.poses[:, 0, 1].abs().max() < 1e-3, 'the camera rolls'
    assert flown.horizon.min() > 0.1
    assert flown.horizon.max() < 0.9


# The official mode.

@pytest.fixture(scope='module')
def golden():
    with np.load(GOLDEN) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays}


def golden_turn(step):
    return torch.tensor([[0.15 if step < 30 else -0.1, -0.05]])


GOLDEN_CASES = {
    'plain': ({}, None),
    'meander': ({'meander_period': (40, 70), 'meander_magnitude': (0.25, 0.1)}, None),
    'reverse': ({'speed': -0.2}, None),
    'turn': ({}, golden_turn),
}


@pytest.mark.parametrize('case', GOLDEN_CASES)
def test_official_mode_flies_as_the_release(golden, case):
    settings, steer = GOLDEN_CASES[case]
    pilot = Autopilot(golden['intrinsics'][None], 'official', **settings)
    frame = as_frame(golden['disparity'][None, None], golden['start_pose'][None])
    for step, expected in enumerate(golden[f'{case}_poses']):
        if steer:
            pilot.steer(steer(step))
        frame = frame.replace(pose=pilot.next_pose(frame))
        assert (frame.pose[0] - expected).abs().max() < 1e-4, f'step {step}'


def test_official_mode_steers_worlds_apart(golden):
    disparity = golden['disparity'].expand(2, 1, -1, -1)
    pilot = Autopilot(INTRINSICS.expand(2, 4), 'official', steering_decay=1.0)
    pilot.steer(torch.tensor([[0.2, 0.0], [-0.2, 0.0]]))
    frame = as_frame(disparity, camera.identity_pose(2))
    for _ in range(20):
        frame = frame.replace(pose=pilot.next_pose(frame))
    assert frame.pose[0, 2, 0] > frame.pose[1, 2, 0] + 0.1


# The safe mode.

@pytest.fixture(scope='module')
def safe_flights():
    """All scenes, flown as one batch."""
    return dict(zip(SCENES, fly(*SCENES.values(), steps=300), strict=True))


@pytest.mark.parametrize('scene', SCENES)
def test_safe_mode_keeps_clear_and_level(safe_flights, scene):
    flown = safe_flights[scene]
    assert_level_and_finite(flown)
    assert flown.distance.min() > 0.5


@pytest.mark.parametrize('scene', [name for name in SCENES
                                   if name not in ('steep', 'dead end', 'towers')])
def test_every_step_is_as_long_as_the_speed(safe_flights, scene):
    assert (safe_flights[scene].steps - 0.2).abs().max() < 1e-4


def test_turns_on_the_spot_where_there_is_no_room(safe_flights):
    flown = safe_flights['dead end']
    stopped = flown.steps < 1e-4
    assert (stopped | ((flown.steps - 0.2).abs() < 1e-4)).all()
    assert stopped.any()
    assert not stopped[-1]
    assert flown.position[-1, 2] < 0, 'did not find its way back'


def test_goes_on_over_open_ground(safe_flights):
    for scene in ('sea', 'low wall', 'slope', 'canyon', 'gap'):
        assert safe_flights[scene].position[-1, 2] > 30, scene
    assert safe_flights['bend'].position[-1, 0] > 15


def test_climbs_over_what_is_low_and_along_a_slope(safe_flights):
    low_wall, rising = safe_flights['low wall'], safe_flights['slope']
    assert low_wall.yaw.abs().max() < 1
    assert low_wall.position[:, 1].min() < -1.5
    assert rising.yaw.abs().max() < 1
    assert rising.distance.max() < 2


@pytest.mark.parametrize(('drop', 'lowest', 'highest'), [(0.4, 0.39, 1.2), (1.2, 1.1, 1.3),
                                                         (3.0, 1.9, 3.01)])
def test_keeps_its_height_over_a_flat_sea(drop, lowest, highest):
    flown, = fly(Scene(drop=drop), steps=300)
    assert_level_and_finite(flown)
    assert flown.distance.min() > lowest
    assert flown.distance.max() < highest
    assert 0.7 < flown.distance[-1] < 2.1
    assert flown.yaw.abs().max() < 0.1
    assert (flown.horizon[-50:] - 0.5).abs().max() < 0.02  # where it was at the start


def test_horizon_goes_where_it_is_wanted():
    flown, = fly(Scene(drop=1.2), steps=150, horizon=0.3)
    assert (flown.horizon[-50:] - 0.3).abs().max() < 0.02


def test_sinks_to_ground_out_of_view():
    flown, = fly(Scene(drop=8.0), steps=100)
    assert flown.distance[-1] < 6
    assert flown.horizon.min() > 0.1


def test_rises_where_there_is_no_room_at_all():
    flown, = fly(pit(1.2), steps=120)
    assert torch.isfinite(flown.poses).all()
    assert flown.position[:, 1].min() < -4
    assert flown.distance[-1] > 0.5


def test_never_turns_on_the_spot_for_ever():
    """What comes into view while turning must not make it turn to and fro."""
    for flown in fly(*(pit(radius) for radius in (2.1, 2.5, 4.0)), steps=250):
        stopped = (flown.steps < 1e-4).float()
        assert stopped.any()
        assert stopped.unfold(0, 80, 1).mean(-1).max() < 1
        assert flown.distance.min() > 0.5


def test_keeps_a_wall_in_mind_whose_edge_leaves_the_view():
    """Where a cell shows nothing but the ground before a wall, the wall is still there."""
    corner = Scene(Block((-FAR, -9.0, -FAR), (-2.13, 9.0, 18.87)),
                   Block((2.13, -9.0, -FAR), (FAR, 9.0, 9.87)),
                   Block((-FAR, -9.0, 13.97), (FAR, 9.0, FAR)))
    assert fly(corner, steps=80)[0].distance.min() > 0.6


def test_starts_level_from_a_tilted_photo():
    tilted = camera.level_pose(0.4, 0.1)
    flown, = fly(SEA, steps=60, pose=tilted)
    assert abs(float(flown.poses[1, 0, 1])) > 0.08, 'the picture jumps'
    assert_level_and_finite(Flown(flown.poses[-1:], flown.distance[-1:]))


def test_flies_backward_with_the_view_forward():
    flown, = fly(CANYON, steps=100, speed=-0.2)
    assert_level_and_finite(flown)
    assert flown.position[-1, 2] < -19
    assert flown.yaw.abs().max() < 20
    assert flown.distance.min() > 0.5
    assert (flown.steps - 0.2).abs().max() < 1e-4


def test_heading_changes_smoothly(safe_flights):
    for scene in ('wall', 'bend', 'gap'):
        change = safe_flights[scene].yaw.diff()
        assert change.abs().max() < 6, scene


def steered(offsets, steps=30, **settings):
    pilot = Autopilot(INTRINSICS, **settings)
    pilot.steer(torch.tensor([offsets]))
    return fly(Scene(drop=1.5), steps=steps, pilot=pilot)[0]


def test_steering_turns_and_climbs():
    straight, left, right = (steered((x, 0.0)) for x in (0.0, -0.3, 0.3))
    assert left.yaw[-1] < -5
    assert right.yaw[-1] > 5
    assert straight.yaw[-1].abs() < 0.1
    up, down = steered((0.0, -0.3)), steered((0.0, 0.3))
    assert up.position[-1, 1] < -0.3
    assert down.position[-1, 1] > 0.2
    assert_level_and_finite(up)


def test_steering_cannot_crash_it():
    for offsets in ((0.0, 0.5), (0.4, 0.3)):
        flown = steered(offsets, steps=80, steering_decay=1.0)
        assert_level_and_finite(flown)
        assert flown.distance.min() > 0.5


def test_steering_decays():
    pilot = Autopilot(INTRINSICS)
    pilot.steer(torch.tensor([[0.4, -0.2]]))
    frame = see([SEA], camera.identity_pose())
    pilot.next_pose(frame)
    assert torch.allclose(pilot.state_dict()['offsets'], torch.tensor([[0.36, -0.18]]))


def test_meander_swings_to_both_sides():
    flown, = fly(SEA, steps=80, meander_period=(40, 70), meander_magnitude=(0.25, 0.0))
    assert flown.yaw.max() > 5
    assert (flown.yaw[40] - flown.yaw[0]).abs() < 3, 'a whole period should turn back'
    assert_level_and_finite(flown)


def test_sky_is_free():
    """A wall of sky is no wall, whether known by the mask or by its disparity."""
    frame = see([SEA], camera.identity_pose())
    near_sky = torch.where(frame.disparity > 0.0101, frame.disparity, 0.3)
    masked = as_frame(near_sky, frame.pose, sky=(frame.disparity <= 0.0101).float())
    poses = [Autopilot(INTRINSICS).plan(view, 30)[:, -1]
             for view in (frame, masked, as_frame(near_sky, frame.pose))]
    assert torch.equal(poses[0], poses[1])
    assert not torch.allclose(poses[0], poses[2], atol=0.1)


def with_wrong_pixels(frame, share, generator):
    """The frame, as a refiner may spoil it: some pixels are anywhere near."""
    wrong = torch.rand(frame.disparity.shape, generator=generator) < share
    anywhere = 0.1 + 0.9 * torch.rand(frame.disparity.shape, generator=generator)
    return frame.replace(disparity=torch.where(wrong, anywhere, frame.disparity))


@pytest.mark.parametrize('scene', ['sea', 'canyon', 'gap'])
def test_single_wrong_pixels_do_not_stop_it(scene):
    generator = torch.Generator().manual_seed(0)
    pilot, pose = Autopilot(INTRINSICS), camera.identity_pose()
    for _ in range(100):
        frame = see([SCENES[scene]], pose)
        pose = pilot.next_pose(with_wrong_pixels(frame, 0.005, generator))
    x, _, z = camera.position(pose)[0]
    assert z > 18
    assert x.abs() < 3


def test_sees_a_pole_of_one_pixel():
    pole = Scene(Block((0.0, -9.0, 6.0), (0.1, 9.0, 6.1)))
    frame = see([pole], camera.identity_pose())
    assert (frame.disparity[0, 0, 5] > 0.1).sum() == 1
    plan = Autopilot(INTRINSICS).plan(frame, 40)[0]
    assert pole.distance(camera.position(plan)).min() > 0.5


@pytest.mark.parametrize('mode', ['safe', 'official'])
def test_plan_starts_with_the_next_pose(mode):
    pilot = Autopilot(INTRINSICS, mode)
    pose = camera.identity_pose()
    for _ in range(5):
        frame = see([WALL], pose)
        pose = pilot.next_pose(frame)
    frame = see([WALL], pose)
    before = pilot.state_dict()
    plan = pilot.plan(frame, 12)
    assert plan.shape == (1, 12, 3, 4)
    after = pilot.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(plan[:, 0], pilot.next_pose(frame))


def flown_and_planned(scene, planned_steps, plans=20):
    """Positions that were flown, and those that were planned for them: both [N, P, 3]."""
    pilot, pose = Autopilot(INTRINSICS), camera.identity_pose()
    flown, planned = [], []
    for step in range(5 * plans + planned_steps):
        frame = see([scene], pose)
        if step % 5 == 0 and len(planned) < plans:
            planned.append(camera.position(pilot.plan(frame, planned_steps)[0]))
        pose = pilot.next_pose(frame)
        flown.append(camera.position(pose)[0])
    return torch.stack(flown).unfold(0, planned_steps, 5)[:plans].mT, torch.stack(planned)


@pytest.mark.parametrize(('scene', 'steps', 'tolerance'), [
    ('sea', 20, 0.02), ('canyon', 20, 0.02), ('gap', 20, 0.02), ('slope', 20, 0.05),
    ('low wall', 20, 0.1), ('wall', 10, 0.15), ('bend', 10, 0.15),
])
def test_every_plan_is_what_is_then_flown(scene, steps, tolerance):
    """Along a wall and a bend new parts come into view while it turns: fewer steps hold there."""
    flown, planned = flown_and_planned(SCENES[scene], steps)
    off = (planned - flown).norm(dim=-1)
    assert off.max() < tolerance
    assert off[:, 0].max() < 1e-5
    assert SCENES[scene].distance(planned.flatten(0, 1)).min() > 0.5


def test_plans_anew_when_something_new_comes_into_view():
    pilot, pose = Autopilot(INTRINSICS), camera.identity_pose()
    before = camera.position(pilot.plan(see([SEA], pose), 45)[0])
    pose = pilot.next_pose(see([SEA], pose))
    after = camera.position(pilot.plan(see([WALL], pose), 45)[0])
    assert WALL.distance(before).min() < 0, 'the sea goes on through where the wall is'
    assert WALL.distance(after).min() > 0.5
    flown, = fly(WALL, steps=10, pilot=pilot, pose=pose)
    assert (flown.position[1:] - after[:10]).norm(dim=-1).max() < 0.15


def test_plan_passes_clear_of_what_is_seen():
    plan = Autopilot(INTRINSICS).plan(see([WALL], camera.identity_pose()), 25)[0]
    assert WALL.distance(camera.position(plan)).min() > 0.5


@pytest.mark.parametrize('mode', ['safe', 'official'])
def test_worlds_of_a_batch_do_not_touch(mode):
    alone = [fly(scene, steps=15, mode=mode)[0].poses for scene in (WALL, SLOPE)]
    together = [flown.poses for flown in fly(WALL, SLOPE, steps=15, mode=mode)]
    for one, other in zip(alone, together, strict=True):
        assert (one - other).abs().max() < 1e-5


@pytest.mark.parametrize('mode', ['safe', 'official'])
def test_resumes_from_its_state(mode):
    pilot = Autopilot(INTRINSICS, mode, meander_magnitude=(0.2, 0.1))
    pilot.steer(torch.tensor([[0.2, -0.1]]))
    pose = fly(GAP, steps=10, pilot=pilot)[0].poses[-1:]
    snapshot = pilot.state_dict()
    first = fly(GAP, steps=10, pilot=pilot, pose=pose)[0].poses
    other = Autopilot(INTRINSICS, mode, meander_magnitude=(0.2, 0.1))
    other.load_state_dict(snapshot)
    assert torch.equal(fly(GAP, steps=10, pilot=other, pose=pose)[0].poses, first)
    pilot.load_state_dict(snapshot)
    assert torch.equal(fly(GAP, steps=10, pilot=pilot, pose=pose)[0].poses, first)


def test_is_deterministic():
    first, second = (fly(BEND, steps=30)[0].poses for _ in range(2))
    assert torch.equal(first, second)


def test_reset_of_one_world_leaves_the_others():
    pilot = Autopilot(INTRINSICS.expand(2, 4))
    pilot.steer(torch.full((2, 2), 0.2))
    fly(GAP, BEND, steps=5, pilot=pilot)
    before = pilot.state_dict()
    pilot.reset([1])
    after, fresh = pilot.state_dict(), Autopilot(INTRINSICS.expand(2, 4)).state_dict()
    for name in before:
        assert torch.equal(after[name][0], before[name][0])
        assert torch.equal(after[name][1], fresh[name][1])
    pilot.reset()
    assert all(torch.equal(value, fresh[name]) for name, value in pilot.state_dict().items())


# Photos.

def test_keeps_clear_and_goes_on_over_photos():
    """300 frames over ten photos take minutes: ``benchmarks/autopilot.py`` flies those."""
    flight = Flight.from_photo(list(sample_photos().values()), size=(96, 160), seed=0)
    pilot = Autopilot(flight.intrinsics)
    for _ in range(60):
        target = pilot.next_pose(flight.frame)
        assert nearest_known_depth(flight.frame, target).min() > 0.5
        flight.step(target)
    _, y, z = camera.position(flight.frame.pose).unbind(-1)
    assert (z > 10).all()
    assert (y.abs() < 3).all()
    assert flight.frame.pose[:, 0, 1].abs().max() < 1e-3, 'the camera rolls'


# Bad input.

@pytest.mark.parametrize(('settings', 'message'), [
    ({'mode': 'fast'}, "one of 'safe', 'official'"),
    ({'speed': math.nan}, 'speed is nan'),
    ({'speed': math.inf}, 'speed is inf'),
    ({'horizon': 1.5}, 'horizon is 1.5'),
    ({'steering_decay': -0.1}, 'steering_decay is -0.1'),
    ({'lookahead': 0.0}, 'lookahead is 0'),
    ({'height': (2.0, 1.0)}, 'least, greatest'),
    ({'meander_period': (0, 100)}, 'two positive numbers'),
    ({'meander_magnitude': (math.nan, 0)}, 'two finite numbers'),
])
def test_refuses_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        Autopilot(INTRINSICS, **settings)


def test_refuses_frames():
    pilot = Autopilot(INTRINSICS)
    frame = see([SEA], camera.identity_pose())
    with pytest.raises(ValueError, match='2 poses and 2 disparity maps; give 1'):
        pilot.next_pose(as_frame(frame.disparity.repeat(2, 1, 1, 1), camera.identity_pose(2)))
    with pytest.raises(ValueError, match='NaN or infinity'):
        pilot.next_pose(frame.replace(pose=frame.pose * math.nan))
    for bad in (math.nan, 0.0, math.inf):
        with pytest.raises(ValueError, match='not finite or not positive'):
            pilot.next_pose(frame.replace(disparity=torch.full_like(frame.disparity, bad)))


@pytest.mark.parametrize('offsets', [torch.zeros(2), torch.zeros(2, 2), torch.zeros(1, 3),
                                     torch.full((1, 2), math.nan)])
def test_refuses_offsets(offsets):
    with pytest.raises(ValueError, match='give finite x and y per world'):
        Autopilot(INTRINSICS).steer(offsets)


def test_refuses_the_rest():
    pilot = Autopilot(INTRINSICS)
    with pytest.raises(ValueError, match='indices from 0 to 0'):
        pilot.reset([1])
    with pytest.raises(ValueError, match='at least 1'):
        pilot.plan(see([SEA], camera.identity_pose()), 0)
    state = pilot.state_dict()
    del state['time']
    with pytest.raises(ValueError, match='same batch and settings'):
        pilot.load_state_dict(state)
