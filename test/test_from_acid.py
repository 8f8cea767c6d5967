"""``bag from-acid``: each quirk of the text format, and of the frames that belong to it."""

from __future__ import annotations

from collections.abc import Callable
import csv
from fractions import Fraction
import io
import math
import os
from pathlib import Path
import signal
import subprocess
import sys
import time

import av
from bag_contents import bags_in, contents, info_of, pictures_of, stamps_of
import numpy as np
import PIL.Image
import pytest
import torch

from infinite_nature_ros.camera import level_pose, pose_at
from infinite_nature_ros.commands import main
from infinite_nature_training.bags import ClipError
from infinite_nature_training.bags.clip import decode_picture, encode_jpeg
from infinite_nature_training.sources.acid import (
    acid_jobs,
    AcidOptions,
    find_texts,
    FrameFinder,
    make_bag,
    read_acid,
    video_id,
)

ADDRESS = 'https://www.youtube.com/watch?v=aBc-12_x'
FIRST, INTERVAL = 52_553_000, 33_367
SIZE = (72, 128)


def pose_of(number: int, speed: float = 0.1) -> torch.Tensor:
    """World to camera ``[3, 4]``: forward, a little right and down, nose down."""
    place = torch.tensor([[0.3, 0.2, 1.0]], dtype=torch.float64) * number * speed
    return pose_at(place, level_pose(0.1 + 0.01 * number).double()[:, :, :3])[0]


def line(number: int, *, microseconds: float | None = None, pose: torch.Tensor | None = None,
         focal: tuple[float, float] = (0.9, 1.6), unused: str = '0.000000000 0.000000000') -> str:
    microseconds = FIRST + INTERVAL * number if microseconds is None else microseconds
    matrix = (pose_of(number) if pose is None else pose).flatten().tolist()
    numbers = [*focal, 0.5, 0.5]
    return ' '.join([str(microseconds), *(f'{value:.9f}' for value in numbers), unused,
                     *(f'{value:.9f}' for value in matrix)])


def text_of(lines: list[str], address: str = ADDRESS) -> str:
    return '\n'.join([address, *lines, ''])


LINES = [line(number) for number in range(5)]


def picture(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Picture whose brightness says its number."""
    return np.full((*size, 3), 60 + 12 * number, np.uint8)


def number_of(image: np.ndarray) -> int:
    return round((float(image.mean()) - 60) / 12)


def write_pictures(folder: Path, shift: int = 0, count: int = 5,
                   size: tuple[int, int] = SIZE) -> Path:
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / f'{FIRST + INTERVAL * number + shift}.jpg').write_bytes(
            encode_jpeg(picture(number, size)))
    return folder


def write_video(path: Path, times: list[int], size: tuple[int, int] = SIZE) -> Path:
    """Video of numbered pictures at times in microseconds, key frames far apart."""
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('libx264', rate=30)
        stream.height, stream.width = size
        stream.pix_fmt, stream.time_base = 'yuv420p', Fraction(1, 1_000_000)
        stream.codec_context.time_base = stream.time_base
        stream.codec_context.gop_size = 20
        for number, microseconds in enumerate(times):
            frame = av.VideoFrame.from_ndarray(picture(number % 16, size), format='rgb24')
            frame.pts, frame.time_base = microseconds, stream.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def convert_one(tmp_path: Path, text: str, frames: Path, **options: object) -> Path:
    """Bag of one clip."""
    file = tmp_path / 'texts' / 'clip.txt'
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(text.encode())
    job, = acid_jobs(find_texts(file), frames, '', AcidOptions(**options))[0]
    made, = make_bag(tmp_path / 'bags', job.name, *job.arguments)
    return tmp_path / 'bags' / made


def test_a_clip_becomes_a_bag(tmp_path: Path) -> None:
    frames = write_pictures(tmp_path / 'frames' / 'aBc-12_x')
    bag = convert_one(tmp_path, text_of(LINES), frames.parent, licence='CC-BY-3.0',
                      scene_scale=2.0)
    messages = contents(bag)
    info = info_of(bag)
    assert (info.source, info.licence, info.split, info.scene_scale) == (
        ADDRESS, 'CC-BY-3.0', '', 2.0)
    assert stamps_of(bag) == [FIRST + INTERVAL * number for number in range(5)]
    # From world to camera into camera in the world: X forward, Y left, Z up, two metres a unit.
    place = messages['pose'][4].pose.position
    np.testing.assert_allclose([place.x, place.y, place.z], [0.8, -0.24, -0.16], atol=1e-6)
    # Normalised, and not the same number although pixels are square.
    k = messages['camera/camera_info'][0].k
    np.testing.assert_allclose(k, [115.2, 0, 63.5, 0, 115.2, 35.5, 0, 0, 1], rtol=1e-9)
    # Pictures of the right size stay as they are.
    files = [path.read_bytes() for path in sorted(frames.iterdir())]
    assert [message.data.tobytes()
            for message in messages['camera/image_raw/compressed']] == files


def test_a_video_of_uneven_rate_is_joined_by_its_times(tmp_path: Path) -> None:
    # 60 frames, most of them not wanted; those that are, up to 7 ms off.
    times = [number * INTERVAL for number in range(60)]
    wanted = [1_300_000 + INTERVAL * number for number in range(5)]
    shifts = [3000, -7000, 6000, 0, 9000]
    nearest = [min(range(60), key=lambda index, moment=moment: abs(times[index] - moment))
               for moment in wanted]
    for index, moment, shift in zip(nearest, wanted, shifts, strict=True):
        times[index] = moment + shift
    video = write_video(tmp_path / 'aBc-12_x.mp4', times)
    text = text_of([line(number, microseconds=moment) for number, moment in enumerate(wanted)])
    bag = convert_one(tmp_path, text, tmp_path)
    # The last one is 9 ms off.
    assert stamps_of(bag) == wanted[:4]
    assert [number_of(image) for image in pictures_of(bag)] == [
        index % 16 for index in nearest[:4]]
    assert info_of(bag).method.count('nearest frame of the video within 8 ms') == 1
    bag = convert_one(tmp_path, text, video, slop=0.0095)
    assert stamps_of(bag) == wanted


def test_the_slop_of_pictures(tmp_path: Path) -> None:
    frames = write_pictures(tmp_path / 'frames', shift=5000)
    assert len(stamps_of(convert_one(tmp_path, text_of(LINES), frames))) == 5
    with pytest.raises(ClipError, match='--rate'):
        convert_one(tmp_path, text_of(LINES[:4]), frames, slop=0.004)


def test_numbered_pictures(tmp_path: Path) -> None:
    folder = tmp_path / 'frames'
    folder.mkdir()
    for number in range(1, 12):
        (folder / f'frame_{number:04}.png').write_bytes(
            encode_png(picture(number % 12)))
    text = text_of([line(number, microseconds=200_000 + 200_000 * number) for number in range(4)])
    bag = convert_one(tmp_path, text, folder, rate=10)
    # Frame 1 is at 0 s.
    assert [number_of(image) for image in pictures_of(bag)] == [3, 5, 7, 9]
    with pytest.raises(ClipError, match='--rate'):
        convert_one(tmp_path, text, folder)
    # As many pictures as poses: in their order.
    for number in range(5, 12):
        (folder / f'frame_{number:04}.png').unlink()
    bag = convert_one(tmp_path, text, folder)
    assert [number_of(image) for image in pictures_of(bag)] == [1, 2, 3, 4]
    assert 'in the order of their numbers' in info_of(bag).method


def encode_png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(image).save(buffer, 'PNG')
    return buffer.getvalue()


def test_missing_frames_are_left_out(tmp_path: Path) -> None:
    frames = write_pictures(tmp_path / 'frames')
    (frames / f'{FIRST + INTERVAL * 2}.jpg').unlink()
    assert stamps_of(convert_one(tmp_path, text_of(LINES), frames)) == [
        FIRST + INTERVAL * number for number in (0, 1, 3, 4)]
    with pytest.raises(ClipError, match='only 4 of 5 frames'):
        convert_one(tmp_path, text_of(LINES), frames, min_frames=5)
    assert not list((tmp_path / 'bags').glob('.*'))


@pytest.mark.parametrize(('given', 'lines', 'address', 'note'), [
    (text_of(LINES, address=f'\ufeff{ADDRESS} '), 5, ADDRESS, ''),
    (text_of(LINES).replace('\n', '\r\n'), 5, ADDRESS, ''),
    (text_of(LINES, address='my own flight'), 5, 'my own flight', ''),
    ('\n'.join([*LINES, '']), 5, '', 'without the address'),
    (text_of(['', *LINES[:2], '', '# half', *LINES[2:]]), 5, ADDRESS, ''),
    (text_of([part.replace(' ', '  ') for part in LINES]), 5, ADDRESS, ''),
    ('\n'.join([ADDRESS, *LINES]), 5, ADDRESS, ''),
    ('\n'.join([ADDRESS, *LINES])[:-4], 4, ADDRESS, 'cut short'),
    ('\n'.join([ADDRESS, *LINES])[:-90], 4, ADDRESS, 'cut short'),
    (text_of([*LINES[:2], *LINES[1:]]), 5, ADDRESS, '1 lines came twice'),
    (text_of([line(number, unused='-0.012 0.003') for number in range(5)]), 5, ADDRESS,
     'up to 0.012, may be distortion'),
    (text_of([line(number, microseconds=float(FIRST + INTERVAL * number))
              for number in range(5)]), 5, ADDRESS, ''),
], ids=['bom', 'crlf', 'title', 'no address', 'empty lines', 'spaces', 'no end', 'digits cut',
        'columns cut', 'twice', 'distortion', 'float times'])
def test_texts_that_are_understood(given: str, lines: int, address: str, note: str,
                                   tmp_path: Path) -> None:
    path = tmp_path / 'clip.txt'
    path.write_bytes(given.encode())
    clip = read_acid(path)
    assert clip.address == address
    assert clip.times == [(FIRST + INTERVAL * number) * 1000 for number in range(lines)]
    torch.testing.assert_close(clip.poses, torch.stack([pose_of(n) for n in range(lines)]),
                               atol=1e-6, rtol=0)
    torch.testing.assert_close(clip.intrinsics, torch.tensor(
        [[0.9, 1.6, 0.5, 0.5]], dtype=torch.float64).expand(lines, 4))
    assert note in '; '.join(clip.notes)
    assert bool(clip.notes) == bool(note)


def turned(change: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Second pose, its rotation changed."""
    pose = pose_of(1)
    return torch.cat([change(pose[:, :3]), pose[:, 3:]], dim=1)


@pytest.mark.parametrize(('text', 'reason'), [
    ('', 'is empty'),
    ('\n \n', 'is empty'),
    (f'{ADDRESS}\n', 'only the address'),
    (text_of([LINES[0], LINES[1].rpartition(' ')[0], LINES[2]]), 'line 3: it has 18 columns'),
    (text_of([f'{part} 0' for part in LINES]), 'line 2: it has 20 columns'),
    (text_of([LINES[0], LINES[1].replace('0.9', 'x'), LINES[2]]), 'line 3: could not convert'),
    (text_of([LINES[0], line(1, pose=pose_of(1) * math.nan)]), 'line 3: .*NaN'),
    (text_of([LINES[0], line(1, pose=turned(lambda r: r * 1.1))]), 'line 3: .*not orthonormal'),
    (text_of([LINES[0], line(1, pose=turned(torch.negative))]), 'line 3: .*mirror'),
    (text_of([LINES[0], line(1, focal=(115.2, 115.2))]), 'line 3: .*pixels'),
    (text_of([LINES[0], line(1, focal=(0.0, 1.6))]), 'line 3: .*positive'),
    (text_of([line(0).replace(' 0.500000000', ' 64.0'), LINES[1]]), 'line 2: .*normalised'),
    (text_of([LINES[1], LINES[0]]), 'line 3: its time 52553000 comes after 52586367'),
    (text_of([LINES[0], line(2, microseconds=FIRST)]), 'line 3: its time .* comes after'),
    (text_of([line(number, microseconds=50 + number * 0.033) for number in range(5)]),
     'cannot be microseconds'),
    (text_of([line(number, microseconds=50_000 + number * 33) for number in range(5)]),
     'cannot be microseconds'),
    (text_of([line(0, microseconds=math.nan), LINES[1]]), 'give microseconds'),
    ('<html>\n<body>not found</body>\n', 'line 2: it has 2 columns'),
    (text_of([line(number, focal=(0.3, 0.3 * 16 / 9)) for number in range(5)]),
     'field of view is 118 degrees'),
    (text_of([line(number, pose=pose_of(0)) for number in range(5)]), 'stands still'),
])
def test_texts_that_are_refused(text: str, reason: str, tmp_path: Path) -> None:
    frames = write_pictures(tmp_path / 'frames')
    with pytest.raises(ClipError, match=reason):
        convert_one(tmp_path, text, frames)
    assert not (tmp_path / 'bags').exists() or not list((tmp_path / 'bags').iterdir())


def test_rotations_that_are_rounded_are_put_right(tmp_path: Path) -> None:
    path = tmp_path / 'clip.txt'
    path.write_text(text_of([line(number, pose=(pose_of(number) * 1000).round() / 1000)
                             for number in range(5)]))
    rotation = read_acid(path).poses[:, :, :3]
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).double().expand(5, 3, 3),
                               atol=1e-12, rtol=0)


def test_letterboxes_are_cropped_as_the_intrinsics_were(tmp_path: Path) -> None:
    """16:9 intrinsics; 4:3 downloads, with 12 black lines above and below."""
    frames = write_pictures(tmp_path / 'frames', size=(96, 128))
    for path in frames.iterdir():
        image = decode_picture(path.read_bytes())
        image[:12] = image[-12:] = 5
        path.write_bytes(encode_jpeg(image))
    bag = convert_one(tmp_path, text_of(LINES), frames)
    images = pictures_of(bag)
    assert {image.shape for image in images} == {(72, 128, 3)}
    assert [number_of(image) for image in images] == list(range(5))
    k = contents(bag)['camera/camera_info'][0].k
    assert (k[0], k[4]) == pytest.approx((115.2, 115.2))
    assert min(image.min() for image in images) > 50


def test_pillarboxes_are_cropped(tmp_path: Path) -> None:
    frames = write_pictures(tmp_path / 'frames', size=(72, 160))
    for path in frames.iterdir():
        image = decode_picture(path.read_bytes())
        image[:, :16] = image[:, -16:] = 0
        path.write_bytes(encode_jpeg(image))
    assert {image.shape for image in pictures_of(convert_one(tmp_path, text_of(LINES), frames))
            } == {(72, 128, 3)}


def test_pictures_of_another_shape_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ClipError, match='128 x 96, but their poses .* 1.778 .* no black bar'):
        convert_one(tmp_path, text_of(LINES), write_pictures(tmp_path / 'a', size=(96, 128)))
    frames = write_pictures(tmp_path / 'b')
    (frames / f'{FIRST + INTERVAL}.jpg').write_bytes(encode_jpeg(picture(1, (144, 256))))
    with pytest.raises(ClipError, match='pictures are 128 x 72 and 256 x 144'):
        convert_one(tmp_path, text_of(LINES), frames)


def test_a_picture_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    frames = write_pictures(tmp_path / 'frames')
    cut = frames / f'{FIRST + INTERVAL}.jpg'
    cut.write_bytes(cut.read_bytes()[:-100])
    with pytest.raises(ClipError, match=f'{cut.name} is damaged'):
        convert_one(tmp_path, text_of(LINES), frames)


def test_a_damaged_video_is_refused(tmp_path: Path) -> None:
    video = tmp_path / 'aBc-12_x.mp4'
    video.write_bytes(b'no video')
    with pytest.raises(ClipError, match='aBc-12_x.mp4 cannot be decoded'):
        convert_one(tmp_path, text_of(LINES), video)


def test_height_and_disparity(tmp_path: Path) -> None:
    bag = convert_one(tmp_path, text_of(LINES), write_pictures(tmp_path / 'frames'), height=64,
                      disparity='horizon')
    messages = contents(bag)
    assert {image.shape for image in pictures_of(bag)} == {(64, 114, 3)}
    disparity = messages['camera/disparity/image']
    assert [(one.height, one.width) for one in disparity] == [(64, 114)] * 5
    assert 'not aligned to the poses' in info_of(bag).method


@pytest.mark.parametrize(('address', 'identity'), [
    (ADDRESS, 'aBc-12_x'), (f'{ADDRESS}&t=3', 'aBc-12_x'),
    ('https://youtu.be/aBc-12_x', 'aBc-12_x'),
    ('https://example.org/videos/coast.mp4', 'coast'), ('', ''),
])
def test_video_id(address: str, identity: str) -> None:
    assert video_id(address) == identity


@pytest.mark.parametrize('place', [
    'train/clip', 'clip', 'aBc-12_x/clip', 'aBc-12_x', 'train/aBc-12_x', 'aBc-12_x.webm',
    'Some coast [aBc-12_x].mp4', 'clip.mp4'])
def test_frames_are_found(place: str, tmp_path: Path) -> None:
    path = tmp_path / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('') if path.suffix else path.mkdir()
    finder = FrameFinder(tmp_path)
    assert finder.find('train/clip', 'aBc-12_x') == path
    assert finder.find('train/other', 'other') is None


def write_dataset(folder: Path) -> tuple[Path, Path]:
    """Texts in folders by split, two clips of one video, bad ones of each kind between."""
    texts = {
        'train/0good': text_of(LINES), 'train/1same_video': text_of(LINES[1:4]),
        'train/2columns': text_of([part.rpartition(' ')[0] for part in LINES]),
        'validation/3gone': text_of(LINES, ADDRESS.replace('aBc', 'gone')),
        'test/4empty': '', 'test/5good': text_of(LINES, ADDRESS.replace('aBc', 'two')),
        '6good': text_of(LINES)}
    for name, text in texts.items():
        path = folder / 'acid' / f'{name}.txt'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    write_pictures(folder / 'frames' / 'aBc-12_x')
    write_pictures(folder / 'frames' / 'two-12_x')
    return folder / 'acid', folder / 'frames'


def test_a_dataset_is_converted_and_what_is_skipped_is_told(
        tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    acid, frames = write_dataset(tmp_path)
    out = tmp_path / 'bags'
    call = ['bag', 'from-acid', str(acid), str(frames), '--out', str(out), '--workers', '1']
    assert main(call) == 0
    good = ['6good', 'test/5good', 'train/0good', 'train/1same_video']
    assert list(bags_in(out)) == good
    assert [info_of(out / name).split for name in good] == ['', 'test', 'train', 'train']
    assert len(stamps_of(out / 'train/1same_video')) == 3
    with (out / 'skipped.csv').open(newline='') as file:
        skipped = dict(list(csv.reader(file))[1:])
    assert list(skipped) == ['test/4empty', 'train/2columns', 'validation/3gone']
    assert '18 columns' in skipped['train/2columns']
    assert (out / 'missing_videos.txt').read_text() == f'{ADDRESS.replace("aBc", "gone")}\n'
    assert '4 bags made, 0 there before, 3 clips skipped' in capsys.readouterr().out
    # A video that comes later is taken in; those that are gone by then stay.
    before = bags_in(out)
    write_pictures(frames / 'gone-12_x')
    (frames / 'two-12_x').rename(tmp_path / 'two')
    assert main(call) == 0
    assert '1 bag made, 4 there before' in capsys.readouterr().out
    assert {**before, 'validation/3gone': bags_in(out)['validation/3gone']} == bags_in(out)
    assert main([*call, '--slop', '0.02']) == 1
    assert 'were made with other options' in capsys.readouterr().err


def test_one_video_is_not_taken_for_another(tmp_path: Path) -> None:
    acid, frames = write_dataset(tmp_path)
    with pytest.raises(ClipError, match='frames of one video, but the poses are of 3'):
        acid_jobs(find_texts(acid), frames / 'aBc-12_x', '', AcidOptions())
    jobs, missing = acid_jobs(find_texts(acid / 'train'), frames / 'aBc-12_x', '', AcidOptions())
    assert len(jobs) == 3
    assert not missing
    assert not any('aBc-12_x' in repr(job.arguments) for job in jobs)
    with pytest.raises(ClipError, match='is not there'):
        acid_jobs(find_texts(acid), frames / 'nowhere', '', AcidOptions())
    with pytest.raises(ClipError, match=r'holds no \.txt'):
        find_texts(acid, leave_out=acid)


def test_strict_ends_with_an_error(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    acid, frames = write_dataset(tmp_path)
    assert main(['bag', 'from-acid', str(acid / 'test'), str(frames), '--out',
                 str(tmp_path / 'bags'), '--workers', '1', '--strict']) == 1
    assert 'error: 4empty: 4empty.txt is empty' in capsys.readouterr().err


def test_kill_9_and_start_again(tmp_path: Path) -> None:
    acid, frames = tmp_path / 'acid', tmp_path / 'frames'
    acid.mkdir()
    for number in range(8):
        (acid / f'{number:02}.txt').write_text(text_of([line(index) for index in range(12)]))
    write_pictures(frames / 'aBc-12_x', count=12, size=(360, 640))
    out, undisturbed = tmp_path / 'killed', tmp_path / 'undisturbed'
    for job in acid_jobs(find_texts(acid), frames, '', AcidOptions(height=180))[0]:
        make_bag(undisturbed, job.name, *job.arguments)
    call = ['bag', 'from-acid', str(acid), str(frames), '--height', '180', '--workers', '2',
            '--out', str(out)]
    process = subprocess.Popen(
        [sys.executable, '-m', 'infinite_nature_ros.commands', *call],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, sys.path))})
    while len(bags_in(out)) < 3 and process.poll() is None:
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    killed = bags_in(out)
    assert 3 <= len(killed) < 8
    assert all(bags_in(undisturbed)[name] == bag for name, bag in killed.items())
    assert main(call) == 0
    assert bags_in(out) == bags_in(undisturbed)
    assert len(bags_in(out)) == 8
    assert not list(out.rglob('*.partial'))
