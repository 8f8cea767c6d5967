"""``infinite-nature bag check`` and ``info``: good bags pass, each fault is found and said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
import functools
import json
import math
from pathlib import Path
import shlex
from typing import Any

from clips import INFO, make_flight, messages_of, record, write_clip
import cv2
import numpy as np
import pytest
import torch
import tyro
import yaml

import infinite_nature_ros
from infinite_nature_ros.camera import position
from infinite_nature_ros.commands import bag as bag_commands, main
from infinite_nature_training.bags import ClipError, ClipFrame, ClipInfo, read_clip
from infinite_nature_training.bags.check import check_clip
from infinite_nature_training.bags.consistency import frame_errors, frame_of, warp_errors
from infinite_nature_training.bags.schema import absolute_name, NAMESPACE, TYPES

FLIGHT = make_flight(10)
ROOT = Path(infinite_nature_ros.__file__).parents[1]
IMAGE, POSE, CAMERA_INFO, DISPARITY, POINTS = (absolute_name(name) for name in (
    'camera/image_raw/compressed', 'pose', 'camera/camera_info', 'camera/disparity/image',
    'sfm_points'))


@pytest.fixture(scope='module')
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bag without a fault."""
    return write_clip(tmp_path_factory.mktemp('good') / 'good', FLIGHT)


def changed(**functions: Callable[[int, ClipFrame], Any]) -> list[ClipFrame]:
    """Flight whose frames have other fields, made of their number and themselves."""
    return [replace(frame, **{name: make(number, frame) for name, make in functions.items()})
            for number, frame in enumerate(FLIGHT)]


def test_exact_disparity_warps_better_than_standing_still() -> None:
    errors = warp_errors(FLIGHT[0], FLIGHT[4])
    assert errors.photometric < 0.4 * errors.static
    assert errors.disparity < 1e-4 < 0.02 < errors.static_disparity
    assert 0.9 < errors.covered <= 1
    assert errors.motion > 5
    same = warp_errors(FLIGHT[0], FLIGHT[0])
    assert same.static == same.static_disparity == same.motion == 0
    assert same.photometric < 0.01


def test_wrong_motion_warps_worse_than_standing_still() -> None:
    backward = replace(FLIGHT[4], pose=FLIGHT[0].pose)
    errors = warp_errors(FLIGHT[4], replace(backward, picture=FLIGHT[8].picture))
    assert errors.photometric > errors.static


def test_unit_of_length_does_not_matter() -> None:
    expected = warp_errors(FLIGHT[0], FLIGHT[6])
    for unit in (100.0, 0.05):
        scaled = [replace(frame, disparity=frame.disparity / np.float32(unit),
                          pose=frame.pose * torch.tensor([1, 1, 1, unit]))
                  for frame in (FLIGHT[0], FLIGHT[6])]
        errors = warp_errors(*scaled)
        assert errors.photometric == pytest.approx(expected.photometric, rel=0.02)
        assert errors.motion == pytest.approx(expected.motion, rel=0.02)


def test_mask_says_where_to_compare() -> None:
    upper = np.zeros((64, 96), bool)
    upper[:8] = True
    sky = warp_errors(FLIGHT[0], FLIGHT[6], (64, 96), upper)
    land = warp_errors(FLIGHT[0], FLIGHT[6], (64, 96), ~upper)
    assert sky.static < 0.1 * land.static
    nowhere = warp_errors(FLIGHT[0], FLIGHT[6], (64, 96), np.zeros((64, 96), bool))
    assert nowhere.covered == 0
    assert math.isnan(nowhere.photometric)
    assert math.isnan(nowhere.disparity)


def test_batch_of_pairs_is_pair_by_pair() -> None:
    pairs = [(FLIGHT[0], FLIGHT[3]), (FLIGHT[5], FLIGHT[9])]
    source, target = (
        infinite_nature_ros.Frame(**{name: torch.cat([frame_of(pair[place]).tensors()[name]
                                                      for pair in pairs])
                                     for name in frame_of(FLIGHT[0]).tensors()})
        for place in (0, 1))
    for errors, pair in zip(frame_errors(source, target), pairs, strict=True):
        assert vars(errors) == pytest.approx(vars(warp_errors(*pair)), rel=1e-4, abs=1e-6)


def test_no_disparity_nothing_to_warp() -> None:
    with pytest.raises(ClipError, match='no disparity'):
        warp_errors(replace(FLIGHT[0], disparity=None), FLIGHT[1])


def test_good_bag_passes(bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(['bag', 'check', str(bag), '--strict', '--json', str(tmp_path / 'a.json')]) == 0
    heading, row = capsys.readouterr().out.splitlines()
    assert heading.split()[:3] == ['bag', 'frames', 'seconds']
    assert row.split()[:6] == ['good', '10', '0.4', '96', 'x', '64']
    assert row.endswith('ok')
    report, = json.loads((tmp_path / 'a.json').read_text())
    assert (report['passes'], report['findings'], report['with_points']) == (True, [], 10)
    assert report['errors']['photometric'] < report['errors']['static']
    assert report['errors']['motion'] > 2


def test_bag_without_disparity_passes(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = write_clip(tmp_path / 'a', changed(disparity=lambda *_: None,
                                                points=lambda *_: None))
    assert main(['bag', 'check', str(folder), '--strict']) == 0
    assert 'no disparity  ok' in capsys.readouterr().out


def test_bag_of_a_single_frame_passes(tmp_path: Path) -> None:
    report = check_clip(write_clip(tmp_path / 'photo', FLIGHT[:1]))
    assert report.passes(strict=True)
    assert (report.frames, report.with_disparity, report.errors) == (1, 1, None)


def _jump(number: int, frame: ClipFrame) -> torch.Tensor:
    return frame.pose + (number >= 5) * torch.tensor([[[0, 0, 0, 2.0]] + [[0, 0, 0, 0]] * 2])


def _turn(number: int, frame: ClipFrame) -> torch.Tensor:
    return frame.pose * torch.tensor([-1, 1, -1, 1]) if number >= 5 else frame.pose


@pytest.mark.parametrize(('frames', 'text'), [
    (changed(pose=_jump), 'the camera moves by'),
    (changed(pose=_turn), 'the camera turns by 3.1'),
    (changed(pose=lambda number, _: FLIGHT[-1 - number].pose), 'do not belong together'),
    (changed(points=lambda _, frame: frame.points * 2), 'points are at 2 times the depth'),
    (changed(points=lambda _, frame: frame.points * np.float32([-1, -9, 1])), 'no point is in'),
    (changed(disparity=lambda _, frame: frame.disparity * 1000), 'is scene_scale right'),
    (changed(disparity=lambda _, frame: frame.disparity[:, :50]), 'of another shape'),
    (changed(intrinsics=lambda *_: torch.tensor([[20, 30, 0.5, 0.5]])), 'field of view'),
    (changed(intrinsics=lambda *_: torch.tensor([[0.8, 1.2, 0.5, 0.9]])), 'principal point'),
    (changed(picture=lambda number, frame: frame.picture[:64 - 2 * number]), 'size'),
])
def test_fault_of_a_clip(frames: list[ClipFrame], text: str, tmp_path: Path,
                         capsys: pytest.CaptureFixture) -> None:
    write_clip(tmp_path / 'bad', frames)
    assert main(['bag', 'check', str(tmp_path)]) == 1
    row, _, *details = capsys.readouterr().out.splitlines()[1:]
    assert row.endswith('failed')
    assert any(line.startswith('  problem') and text in line for line in details)


def test_disparity_that_moves_wrongly_is_found(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    report = check_clip(write_clip(tmp_path / 'bad', changed(
        disparity=lambda _, frame: frame.disparity * np.float32(random.uniform(0.6, 1.6)),
        points=lambda *_: None)))
    assert any('warped disparity differs' in finding.text for finding in report.findings)


def test_camera_that_hardly_moves(tmp_path: Path) -> None:
    report = check_clip(write_clip(tmp_path / 'still', changed(
        **{name: lambda _, frame, name=name: getattr(FLIGHT[0], name)
           for name in ('pose', 'picture', 'disparity', 'points')})))
    assert report.passes()
    assert not report.passes(strict=True)
    assert 'hardly moves' in report.findings[0].text


def test_slow_camera_is_warped_further(tmp_path: Path) -> None:
    slow = write_clip(tmp_path / 'slow', make_flight(20, step=0.005))
    report = check_clip(slow)
    assert report.stride > 1
    assert report.passes()
    assert check_clip(slow, stride=3).stride == 3


def _backward(messages: list) -> list:
    poses = [row for row in messages if row[0] == POSE]
    swapped = iter([poses[1], poses[0], *poses[2:]])
    return [row if row[0] != POSE else (POSE, row[1], next(swapped)[2]) for row in messages]


def _with(topic: str, change: Callable[[Any], Any]) -> Callable[[list], list]:
    """Change the third message of a topic."""
    def apply(messages: list) -> list:
        change([content for name, _, content in messages if name == topic][2])
        return messages
    return apply


def _spoil(message: Any) -> None:
    message.data = message.data.copy()
    message.data[:4] = np.array([np.nan], '<f4').view(np.uint8)


def _behind(message: Any) -> None:
    message.data = message.data.copy()
    message.data[8:12] = np.array([-1], '<f4').view(np.uint8)


def _renamed(messages: list) -> list:
    return [(topic.replace(NAMESPACE, '/drone'), time, content)
            for topic, time, content in messages]


def _late(messages: list) -> list:
    for topic, _, content in messages:
        if topic == CAMERA_INFO:
            _after(content, 1000)
    return messages


@pytest.mark.parametrize(('change', 'text', 'fails'), [
    (_backward, 'stamps of /infinite_nature/pose go back 1 times', True),
    (_with(DISPARITY, _spoil), '1 of 10 frames have disparity that is not finite', True),
    (_with(POINTS, _behind), '1 of 10 frames have points that are not finite and in front', True),
    (_with(POINTS, lambda message: setattr(message.header, 'frame_id', 'map')), "'map'", True),
    (_with(CAMERA_INFO, lambda message: setattr(message, 'width', 90)), 'size', True),
    (_with(IMAGE, lambda message: setattr(message, 'data', message.data[:300])), 'picture', True),
    (_with(POSE, lambda message: setattr(message.pose.orientation, 'w', 2.0)),
     'quaternion has the length', True),
    (_with(CAMERA_INFO, lambda message: setattr(message, 'd', np.full(5, 0.1))), 'lens', False),
    (_renamed, 'not a topic of the schema', False),
    (_late, 'no camera_info at their very stamp', False),
    (lambda messages: [row for row in messages if row[0] != POSE], '/tf only', False),
    (lambda messages: [row for row in messages if 'clip_info' not in row[0]], 'clip_info', False),
])
def test_fault_of_a_bag(change: Callable[[list], list], text: str, fails: bool, bag: Path,
                        tmp_path: Path) -> None:
    report = check_clip(record(tmp_path / 'bag', change(messages_of(bag))))
    assert any(text in finding.text for finding in report.findings)
    assert report.passes() is not fails
    assert not report.passes(strict=True)


def test_many_bags_are_checked_whatever_is_wrong_with_some(
        bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_clip(tmp_path / 'clips' / 'b', FLIGHT[:4])
    (tmp_path / 'clips' / 'a.mcap').write_bytes(b'\x89MCAP0\r\n')
    assert main(['bag', 'check', str(tmp_path / 'clips'), str(bag)]) == 1
    lines = capsys.readouterr().out.splitlines()
    paths = [Path(line.split()[0]) for line in lines[1:4]]
    # Below the folder that they have in common.
    assert paths[1].parent == paths[2].parent
    assert [path.name for path in paths] == ['good', 'a.mcap', 'b']
    assert not any(path.is_absolute() for path in paths)
    assert [line.split()[-1] for line in lines[1:4]] == ['ok', 'failed', 'ok']
    assert any('damaged or cut short' in line for line in lines)
    assert main(['bag', 'check', str(tmp_path / 'none')]) == 1
    assert 'does not exist' in capsys.readouterr().err


def test_info_tells_and_draws(bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_clip(tmp_path / 'clips' / 'deep' / 'b', changed(disparity=lambda *_: None,
                                                          points=lambda *_: None))
    (tmp_path / 'clips' / 'a.mcap').touch()
    out = tmp_path / 'out'
    assert main(['bag', 'info', str(tmp_path / 'clips'), '--out', str(out)]) == 0
    printed = capsys.readouterr()
    assert INFO.source in printed.out
    assert '10 in 0.36 s, 25 a second' in printed.out
    assert 'skipped' in printed.err
    picture = cv2.imread(str(out / 'deep' / 'b' / 'contact.png'))
    # Ten pictures of 256 x 171 in rows of four, without disparity.
    assert picture.shape == (3 * (171 + 4), 4 * (256 + 4), 3)
    assert main(['bag', 'info', str(bag), '--out', str(out)]) == 0
    assert cv2.imread(str(out / 'good' / 'contact.png')).shape[0] == 3 * (2 * 171 + 4)
    assert cv2.imread(str(out / 'good' / 'trajectory.png')).std() > 0
    assert main(['bag', 'info', str(tmp_path / 'clips'), '--strict']) == 1
    assert 'damaged or cut short' in capsys.readouterr().err


def test_topics_and_slop_are_the_users(bag: Path, tmp_path: Path,
                                       capsys: pytest.CaptureFixture) -> None:
    messages = messages_of(bag)
    folder = str(record(tmp_path / 'two', [*messages, *(
        ('/cam1/image_raw/compressed', time, content) for topic, time, content in messages
        if topic == IMAGE)]))
    for command in ('check', 'info'):
        assert main(['bag', command, folder]) == 1
        assert 'topics can be the image' in ''.join(capsys.readouterr())
        assert main(['bag', command, folder, '--topics', 'image', IMAGE]) == 0
    late = str(record(tmp_path / 'late', [
        (topic, time, _after(content, 10_000_000) if topic == POSE else content)
        for topic, time, content in messages]))
    arguments = ['bag', 'check', late, '--topics', 'pose', POSE, 'image', IMAGE]
    assert main(arguments) == 0
    assert main([*arguments, '--slop', '0.005']) == 1


def _after(message: Any, nanoseconds: int) -> Any:
    whole = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec + nanoseconds
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(whole, 10**9)
    return message


@pytest.mark.parametrize('name', bag_commands.COMMANDS)
def test_every_command_has_an_example_that_is_understood(
        name: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as ended:
        main(['bag', name, '--help'])
    assert ended.value.code == 0
    examples = [line.partition(' ')[2] for line in capsys.readouterr().out.splitlines()
                if line.startswith('Example: ')]
    assert examples
    for example in examples:
        program, group, called, *arguments = shlex.split(example)
        assert (program, group, called) == ('infinite-nature', 'bag', name)
        stand_in = functools.wraps(bag_commands.COMMANDS[name])(lambda *_, **__: 'called')
        assert tyro.cli(stand_in, args=arguments) == 'called'


def test_facts_are_in_metres(bag: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(['bag', 'info', str(bag)]) == 0
    way, = (line for line in capsys.readouterr().out.splitlines() if line.split()[:1] == ['way'])
    places = position(read_clip(bag).poses)
    assert float(way.split()[1]) == pytest.approx(
        10 * (places[1:] - places[:-1]).norm(dim=1).sum().item(), rel=1e-3)


def test_rviz_shows_topics_of_the_schema() -> None:
    view = yaml.safe_load((ROOT / 'rviz' / 'clip.rviz').read_text())
    kinds = {'Image': 'sensor_msgs/msg/Image', 'PointCloud2': 'sensor_msgs/msg/PointCloud2',
             'Pose': 'geometry_msgs/msg/PoseStamped'}
    shown = {}
    for display in view['Visualization Manager']['Displays']:
        if 'Topic' in display:
            shown[display['Topic']['Value']] = kinds[display['Class'].partition('/')[2]]
    # Republished, for RViz wants plain pictures.
    assert shown.pop('camera/image_raw') == 'sensor_msgs/msg/Image'
    assert shown
    assert all(TYPES[topic] == kind for topic, kind in shown.items())


def test_documented_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                capsys: pytest.CaptureFixture) -> None:
    write_clip(tmp_path / 'clip', FLIGHT[:4])
    monkeypatch.chdir(tmp_path)
    text = (ROOT / 'docs' / 'acid_bags.md').read_text()
    code = '\n'.join(block.partition('```')[0] for block in text.split('```python\n')[1:])
    exec(compile(code, 'docs/acid_bags.md', 'exec'), {})
    printed = capsys.readouterr().out
    assert f'clip {INFO.source} CC0-1.0 4' in printed
    assert 'geometry_msgs__msg__Point' in printed
    assert check_clip(tmp_path / 'mine').frames == 3


def test_documented_schema_is_the_schema() -> None:
    text = (ROOT / 'docs' / 'acid_bags.md').read_text()
    rows = [[cell.strip() for cell in line.split('|')[1:-1]] for line in text.splitlines()
            if line.startswith('| `')]
    documented = {row[0].strip('`'): row[1].partition(',')[0].replace('/', '/msg/')
                  for row in rows if len(row) == 4}
    assert documented == TYPES
    assert {row[0].strip('`') for row in rows if len(row) == 2} == {
        field.name for field in fields(ClipInfo)}
