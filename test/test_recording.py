"""Recording: files that open however the flight ended, and show what was flown."""

from __future__ import annotations

import os
from pathlib import Path
import signal
import subprocess
import sys

import av
import numpy as np
import pytest

from infinite_nature_ros import recording

_ENDLESS = """
import sys, numpy
from infinite_nature_ros.recording import VideoWriter
with VideoWriter(sys.argv[1], rate=10) as video:
    for number in range(10_000):
        video.write(numpy.full((64, 128, 3), number % 200 + 20, numpy.uint8))
        print(number, flush=True)
"""


def _picture(value: int, height: int = 64, width: int = 96) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def _frames(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format='rgb24') for frame in container.decode(video=0)]


def test_video_plays_with_a_constant_rate(tmp_path: Path) -> None:
    path = tmp_path / 'flight.mp4'
    with recording.VideoWriter(path, rate=12.5) as video:
        for number in range(30):
            video.write(_picture(number * 8))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == 'h264'
        times = [float(frame.pts * frame.time_base) for frame in container.decode(stream)]
    assert np.allclose(np.diff(times), 1 / 12.5)
    shown = [frame.mean() for frame in _frames(path)]
    assert np.allclose(shown, [number * 8 for number in range(30)], atol=3)


def test_video_refuses_odd_and_changing_sizes(tmp_path: Path) -> None:
    with recording.VideoWriter(tmp_path / 'odd.mp4', rate=10) as video, \
            pytest.raises(ValueError, match='even'):
        video.write(_picture(0, 63))
    with recording.VideoWriter(tmp_path / 'changing.mp4', rate=10) as video:
        video.write(_picture(0))
        with pytest.raises(ValueError, match='like the first one'):
            video.write(_picture(0, 128))
    with pytest.raises(ValueError, match='rate'):
        recording.VideoWriter(tmp_path / 'still.mp4', rate=0)


@pytest.mark.parametrize('kill', [signal.SIGINT, signal.SIGKILL])
def test_killed_video_plays(tmp_path: Path, kill: int) -> None:
    path = tmp_path / 'killed.mp4'
    process = subprocess.Popen([sys.executable, '-c', _ENDLESS, str(path)],
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        while int(process.stdout.readline()) < 50:
            pass
        os.kill(process.pid, kill)
        written = 50 + sum(1 for _ in process.stdout)
    finally:
        process.kill()
        process.wait(10)
    frames = _frames(path)
    # A killed process loses the half second (5 frames) in the making and what waits in pipes.
    assert len(frames) >= 45
    if kill == signal.SIGINT:
        assert len(frames) >= written
    for number, frame in enumerate(frames[:45]):
        assert abs(frame.mean() - (number % 200 + 20)) < 4


def test_colours_keep_the_order_of_the_disparity() -> None:
    colours = recording.colourise(np.linspace(0.0, 2.0, 64)[None].repeat(2, 0))
    brightness = colours[0].astype(int).sum(1)
    assert (colours.shape, colours.dtype) == ((2, 64, 3), np.uint8)
    assert (np.diff(brightness) >= -8).all()
    assert brightness[-1] > brightness[0] + 300


def test_sample_is_even_and_bounded() -> None:
    sample = recording.EvenSample(limit=10)
    for number in range(1000):
        sample.add(number, _picture(0))
        assert len(sample.pictures) <= 10
    numbers = list(sample.pictures)
    assert numbers[0] == 0
    assert len(numbers) >= 5
    assert len(set(np.diff(numbers))) == 1


def test_contact_sheet_shows_all_pictures(tmp_path: Path) -> None:
    pictures = {number * 7: _picture(40 + number * 30) for number in range(6)}
    sheet = recording.contact_sheet(pictures, columns=4)
    assert sheet.shape == (2 * 68, 4 * 100, 3)
    assert [sheet[y + 40, x + 50, 0] for y in (0, 68) for x in (0, 100, 200, 300)] == [
        40, 70, 100, 130, 160, 190, 255, 255]
    assert (sheet[:20, :30] != 40).any(), 'no number on the picture'
    recording.save_picture(tmp_path / 'sheet.png', sheet)
    with av.open(str(tmp_path / 'sheet.png')) as container:
        assert (next(container.decode(video=0)).to_ndarray(format='rgb24') == sheet).all()
    with pytest.raises(ValueError, match='at least one'):
        recording.contact_sheet({})
    with pytest.raises(OSError, match='sheet'):
        recording.save_picture(tmp_path / 'nowhere' / 'sheet.png', sheet)


def test_trajectory_is_plotted(tmp_path: Path) -> None:
    recording.plot_trajectory([[0, 0, 0], [1, 0.5, 0.1], [2, 1, 0.3]], tmp_path / 'one.png')
    recording.plot_trajectory([[0, 0, 0]], tmp_path / 'two.png')
    assert (tmp_path / 'one.png').read_bytes() != (tmp_path / 'two.png').read_bytes()
    with pytest.raises(ValueError, match='at least one'):
        recording.plot_trajectory([], tmp_path / 'none.png')
