"""``infinite-nature bag from-coast``: bags that are read back, made once, and refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
from rosbags.highlevel import AnyReader

from infinite_nature_ros.commands import main


def convert(out: Path, *options: str) -> int:
    return main(['bag', 'from-coast', str(out), '--count', '1', '--seed', '4', '--frames', '2',
                 '--size', '32', '64', '--workers', '1', *options])


def test_coasts_become_bags_once(tmp_path: Path) -> None:
    out = tmp_path / 'coasts'
    assert convert(out) == 0
    bag = out / 'coast_000004'
    with AnyReader([bag]) as reader:
        counts = {connection.topic: connection.msgcount for connection in reader.connections}
    assert counts['/infinite_nature/camera/disparity/image'] == 2
    assert counts['/infinite_nature/camera/image_raw/compressed'] == 2
    made = next(bag.glob('*.mcap')).stat().st_mtime_ns
    assert convert(out) == 0
    assert next(bag.glob('*.mcap')).stat().st_mtime_ns == made


@pytest.mark.parametrize(('options', 'message'), [
    (('--count', '0'), 'count is 0 and seed 4'),
    (('--speed', '7'), 'speed is 7.0; give scene units per frame'),
    (('--size', '4', '4'), 'the size is 4 x 4; give at least 16 x 16'),
])
def test_options_that_cannot_be_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                            options: tuple[str, ...], message: str) -> None:
    assert convert(tmp_path, *options) == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
