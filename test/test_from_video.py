"""Bags from plain videos: decoding, shots, letterbox, structure from motion, what fails and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
import struct

import av
from bag_contents import contents, info_of, stamps_of
import cv2
import numpy as np
import pytest
import torch

from infinite_nature_ros import camera
from infinite_nature_ros.commands import main
from infinite_nature_ros.depth_sources import is_ready
from infinite_nature_ros.recording import VideoWriter
from infinite_nature_training.bags import ClipError
from infinite_nature_training.sources.video import frames
from infinite_nature_training.sources.video.alignment import (
    find_sky_edge,
    fit_disparity,
    level_world,
    near_plane_scale,
    turn_against_sky,
)
from infinite_nature_training.sources.video.decoding import read_frames
from infinite_nature_training.sources.video.densify import DenseTriangulation
from infinite_nature_training.sources.video.frames import FrameMaker
from infinite_nature_training.sources.video.keyframes import choose_keyframes
from infinite_nature_training.sources.video.letterbox import BarFinder, Crop
from infinite_nature_training.sources.video.neighbours import list_neighbours, slide
from infinite_nature_training.sources.video.pipeline import (
    convert_video,
    follow_points,
    load_detector,
    video_jobs,
    VideoOptions,
)
from infinite_nature_training.sources.video.shots import find_shots
from infinite_nature_training.sources.video.structure import recover_structure
from infinite_nature_training.sources.video.tracking import Tracks

KARMA = Path(__file__).parent / 'video' / 'karma.mp4'

# Frames of the excerpt, the size they are shrunk to, and the bars added above and below.
FIRST, COUNT, SIZE, BARS = 150, 48, (224, 400), (24, 32)

OPTIONS = VideoOptions(height=120, stride=3, min_frames=8, licence='MIT', split='test')


def write_video(path: Path, pictures: Sequence[np.ndarray], rate: float = 30) -> Path:
    with VideoWriter(path, rate) as writer:
        for picture in pictures:
            writer.write(picture)
    return path


@pytest.fixture(scope='module')
def flight() -> list[np.ndarray]:
    """Pictures of a second of the drone's flight, small."""
    return [cv2.resize(frame.image, SIZE[::-1], interpolation=cv2.INTER_AREA)
            for frame in read_frames(KARMA, FIRST, FIRST + COUNT - 1)]


@pytest.fixture(scope='module')
def boxed(flight: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The flight as a video with a letterbox, wider below than above."""
    boxed = [cv2.copyMakeBorder(picture, *BARS, 0, 0, cv2.BORDER_CONSTANT) for picture in flight]
    return write_video(tmp_path_factory.mktemp('video') / 'boxed.mp4', boxed)


@pytest.fixture(scope='module')
def bag(boxed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp('bags')
    assert convert_video(out, 'boxed', boxed, OPTIONS) == ['boxed/000']
    return out / 'boxed' / '000'


def positions(messages: dict[str, list]) -> np.ndarray:
    return np.array([[place.pose.position.x, place.pose.position.y, place.pose.position.z]
                     for place in messages['pose']])


def test_video_becomes_a_bag_with_a_straight_flight_forward(bag: Path) -> None:
    path = positions(contents(bag))
    assert len(path) == COUNT // 3
    way = path[-1] - path[0]
    # Level, as the skyline is, and straight ahead.
    assert way[0] > 0.99 * np.linalg.norm(way)
    fractions = np.linspace(0, 1, len(path))[:, None]
    assert np.linalg.norm(path - (path[0] + fractions * way), axis=1).max() < (
        0.03 * np.linalg.norm(way))


def details(bag: Path) -> dict:
    return info_of(bag).details


def test_intrinsics_are_those_of_the_picture_inside_the_letterbox(bag: Path) -> None:
    size, left, top = details(bag)['crop'].split('+')
    width, height = map(int, size.split('x'))
    # The edges of the bars are soft.
    assert (width, int(left)) == (SIZE[1], 0)
    assert BARS[0] <= int(top) <= BARS[0] + 2
    assert SIZE[0] + BARS[0] - 2 <= int(top) + height <= SIZE[0] + BARS[0]
    info = contents(bag)['camera/camera_info'][0]
    assert (info.height, info.width) == (120, round(width * 120 / height))
    assert info.k[0] == pytest.approx(0.8 * info.width)
    assert info.k[4] == pytest.approx(0.8 * width * 120 / height)
    # The lens looked at the middle of the whole frame, bars included.
    middle = (SIZE[0] + sum(BARS)) / 2 - int(top)
    assert info.k[5] == pytest.approx(middle * 120 / height - 0.5)


def test_near_plane_and_disparity_fit_the_points(bag: Path) -> None:
    messages = contents(bag)
    near = []
    for cloud, image, info in zip(messages['sfm_points'], messages['camera/disparity/image'],
                                  messages['camera/camera_info'], strict=True):
        points = cloud.data.view('<f4').reshape(-1, 3).astype(np.float64)
        disparity = image.data.view('<f4').reshape(image.height, image.width)
        assert disparity.min() >= 0.0099
        pixels = points[:, :2] / points[:, 2:] * info.k[[0, 4]] + info.k[[2, 5]]
        column, row = pixels.round().astype(int).clip(0, (image.width - 1, image.height - 1)).T
        ratio = disparity[row, column] * points[:, 2]
        assert np.median(np.abs(np.log(ratio))) < 0.08
        near.append(np.percentile(points[:, 2], 5))
    assert 1.2 < np.median(near) < 1.6


def test_bag_says_how_it_was_made_and_warps_better_than_standing_still(bag: Path) -> None:
    info = info_of(bag)
    assert (info.source, info.licence, info.split) == ('boxed.mp4', 'MIT', 'test')
    assert details(bag)['warp_error'] < 0.6 * details(bag)['static_error']
    assert details(bag)['reprojection_error_px'] < 1


def test_stamps_are_the_times_of_the_video(bag: Path) -> None:
    stamps = stamps_of(bag)
    assert np.allclose(np.diff(stamps), 1e5, atol=2e3)


def panned(count: int, step: float) -> list[np.ndarray]:
    """A camera on a tripod that turns: a photograph through rotations, without parallax."""
    from infinite_nature_ros.photos import sample_photos
    photo = cv2.cvtColor(cv2.imread(str(sample_photos()['plain'])), cv2.COLOR_BGR2RGB)
    height, width = photo.shape[:2]
    focal = 0.8 * width
    lens = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    seen = np.array([[0.8 * 320, 0, 160], [0, 0.8 * 320, 90], [0, 0, 1]])
    pictures = []
    for number in range(count):
        turn, _ = cv2.Rodrigues(np.array([0.05, (number - count / 2) * step, 0]))
        pictures.append(cv2.warpPerspective(photo, seen @ turn @ np.linalg.inv(lens), (320, 180),
                                            flags=cv2.INTER_AREA))
    return pictures


def skip_reason(path: Path, tmp_path: Path) -> str:
    with pytest.raises(ClipError) as caught:
        convert_video(tmp_path / 'out', 'clip', path, replace(OPTIONS, stride=1))
    assert not list((tmp_path / 'out').rglob('*.mcap'))
    return str(caught.value)


def test_still_video_is_skipped(flight: list[np.ndarray], tmp_path: Path) -> None:
    video = write_video(tmp_path / 'still.mp4', flight[:1] * 10)
    assert 'nothing moves' in skip_reason(video, tmp_path)


def test_turning_camera_is_skipped(tmp_path: Path) -> None:
    video = write_video(tmp_path / 'pan.mp4', panned(10, 0.01))
    assert 'it turns, and without parallax' in skip_reason(video, tmp_path)


def test_picture_without_texture_is_skipped(tmp_path: Path) -> None:
    grey = np.full((180, 320, 3), 120, np.uint8)
    assert 'too little texture' in skip_reason(
        write_video(tmp_path / 'grey.mp4', [grey] * 10), tmp_path)


def test_shuffled_video_is_skipped(flight: list[np.ndarray], tmp_path: Path) -> None:
    other = panned(30, 0.006)
    mixed = [cv2.resize(picture, SIZE[::-1]) for pair in zip(flight, other, strict=False)
             for picture in pair]
    assert 'too short' in skip_reason(write_video(tmp_path / 'mixed.mp4', mixed), tmp_path)


@pytest.fixture(scope='module')
def maker(boxed: Path) -> FrameMaker:
    """Makes frames of the flight."""
    shot, = find_shots(boxed, 600)
    tracks, skies = follow_points(boxed, shot)
    intrinsics = np.array([0.8, 0.8 * SIZE[1] / SIZE[0], 0.5, 0.5])
    structure = recover_structure(tracks, choose_keyframes(tracks, intrinsics), intrinsics, True)
    structure = structure.scaled(near_plane_scale(structure.points))
    return FrameMaker(boxed, shot, structure, skies, 120, 'dense', None)


def flaws(maker: FrameMaker, stride: int = 12) -> list[str]:
    return [frame.flaw for frame in maker.frames(stride)]


def test_first_guess_of_a_source_is_brought_to_scale(maker: FrameMaker, tmp_path: Path) -> None:
    assert flaws(maker) == [''] * 4
    dense = next(maker.frames(12)).disparity.astype(np.float32)
    np.save(tmp_path / 'guess.npy', 0.3 * dense + 0.3)
    aligned = next(replace(maker, source=f'file:{tmp_path / "guess.npy"}').frames(12))
    assert aligned.flaw == ''
    assert np.median(np.abs(aligned.disparity / dense - 1)) < 0.03


def test_a_source_takes_the_sky_that_was_found_already(
        maker: FrameMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    def estimate(image: torch.Tensor, source: str, sky: torch.Tensor) -> torch.Tensor:
        assert source == 'horizon'
        taken.append(sky)
        return torch.rand(1, 1, *image.shape[2:])

    taken: list[torch.Tensor] = []
    monkeypatch.setattr(frames, 'estimate_disparity', estimate)
    next(replace(maker, source='horizon').frames(12))
    sky = cv2.resize(maker.skies[maker.structure.first].astype(np.float32),
                     taken[0].shape[:1:-1]) > 0.5
    assert (taken[0][0, 0].numpy() == sky).all()


def test_frames_are_dropped_where_poses_do_not_fit(maker: FrameMaker) -> None:
    """A path that bends although its points are well: only the warp can tell."""
    poses = maker.structure.poses.copy()
    poses[:, 0, 3] += 0.05 * np.arange(len(poses))
    bent = replace(maker, structure=replace(maker.structure, poses=poses))
    assert all('pose or disparity is wrong' in flaw or 'reversed' in flaw for flaw in flaws(bent))


def test_frames_without_points_are_dropped(maker: FrameMaker) -> None:
    points = [seen[:10 * (number > 18)] for number, seen in enumerate(maker.structure.points)]
    bare = replace(maker, structure=replace(maker.structure, points=points))
    assert flaws(bare) == ['no tracked points'] * 2 + ['10 tracked points, 30 are needed'] * 2


def test_frames_are_dropped_where_points_do_not_fit_the_pose(maker: FrameMaker) -> None:
    fits = np.where(np.arange(len(maker.structure)) > 18, 0.3, 0.9)
    astray = replace(maker, structure=replace(maker.structure, fits=fits))
    assert flaws(astray) == [''] * 2 + [
        'only 30% of the tracked points are seen where its pose says'] * 2


def test_frames_with_people_are_dropped_if_a_detector_is_given(maker: FrameMaker) -> None:
    def crowd(picture: np.ndarray) -> float:
        assert picture.shape[0] == 120
        assert picture.dtype == np.uint8
        return 0.5

    assert flaws(replace(maker, detector=crowd)) == ['people fill 50% of the picture'] * 4
    assert flaws(replace(maker, detector=lambda _: 0.1)) == [''] * 4


def test_detector_that_is_not_there_is_named() -> None:
    assert load_detector('') is None
    for name in ('nowhere:people', 'os:people', 'people'):
        with pytest.raises(ValueError, match=f'detector .{name}'):
            load_detector(name)


def test_shots_are_split_where_the_place_changes(
        flight: list[np.ndarray], tmp_path: Path) -> None:
    other = [cv2.resize(picture, SIZE[::-1]) for picture in panned(25, 0.006)]
    video = write_video(tmp_path / 'cut.mp4', [*flight[:20], *other, *flight[30:]])
    shots = [(shot.first, shot.last) for shot in find_shots(video, 600)]
    assert shots == [(0, 19), (20, 44), (45, 62)]


def test_command_makes_the_same_bytes_and_says_what_it_skipped(
        boxed: Path, bag: Path, flight: list[np.ndarray], tmp_path: Path,
        capsys: pytest.CaptureFixture[str]) -> None:
    videos = tmp_path / 'videos'
    videos.mkdir()
    (videos / boxed.name).write_bytes(boxed.read_bytes())
    write_video(videos / 'still.mp4', flight[:1] * 30)
    out = tmp_path / 'bags'
    options = ['--out', str(out), '--stride', '3', '--min-frames', '8', '--height', '120',
               '--licence', 'MIT', '--split', 'test', '--disparity', 'dense']
    assert main(['bag', 'from-video', str(videos), *options]) == 0
    assert '1 bag made, 0 there before, 1 clip skipped' in capsys.readouterr().out
    assert 'nothing moves' in (out / 'skipped.csv').read_text()
    made, = (out / 'boxed').rglob('*.mcap')
    assert made.read_bytes() == next(bag.glob('*.mcap')).read_bytes()
    assert main(['bag', 'check', str(out)]) == 0


def test_long_shots_are_divided(boxed: Path) -> None:
    assert [(shot.first, shot.last) for shot in find_shots(boxed, 20)] == [
        (0, 19), (20, 39), (40, 47)]


def test_bars_are_found_and_dark_pictures_kept() -> None:
    generator = np.random.default_rng(0)
    finder = BarFinder(100, 160)
    for _ in range(3):
        picture = np.full((100, 160, 3), 16, np.uint8)
        picture[12:90, 20:] = generator.integers(0, 255, (78, 140, 3))
        finder.add(picture + generator.integers(0, 4, picture.shape, np.uint8))
    assert finder.crop() == Crop(13, 89, 21, 160)
    night = BarFinder(100, 160)
    dark = np.full((100, 160, 3), 10, np.uint8)
    dark[50:60, 70:90] = 200
    night.add(dark)
    assert night.crop() == Crop(0, 100, 0, 160)


def test_display_matrix_turns_frames_upright(flight: list[np.ndarray], tmp_path: Path) -> None:
    """A telephone held upright writes frames that lie, and a matrix that says so."""
    video = write_video(tmp_path / 'lying.mp4', flight[:2])
    data = bytearray(video.read_bytes())
    # Of the track header, after version, flags, times, ids and volume: 3 x 3, row by row.
    matrix = data.index(b'tkhd') + 4 + 40
    one = 1 << 16
    data[matrix:matrix + 36] = struct.pack('>9i', 0, one, 0, -one, 0, 0, 0, 0, 1 << 30)
    video.write_bytes(data)
    upright = next(read_frames(video)).image
    assert upright.shape == (SIZE[1], SIZE[0], 3)
    assert np.abs(upright.astype(int) - np.rot90(flight[0], -1)).mean() < 4


def test_squeezed_pixels_are_stretched(flight: list[np.ndarray], tmp_path: Path) -> None:
    path = tmp_path / 'squeezed.mp4'
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('libx264', rate=30)
        stream.height, stream.width, stream.pix_fmt = *SIZE, 'yuv420p'
        stream.codec_context.sample_aspect_ratio = Fraction(3, 2)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(flight[0], format='rgb24')))
        container.mux(stream.encode(None))
    assert next(read_frames(path)).image.shape == (SIZE[0], SIZE[1] * 3 // 2, 3)


def test_files_that_are_no_videos_are_named(boxed: Path, tmp_path: Path) -> None:
    nonsense = tmp_path / 'nonsense.mp4'
    nonsense.write_bytes(b'this is no video' * 100)
    sound = tmp_path / 'sound.wav'
    with av.open(str(sound), 'w') as container:
        stream = container.add_stream('pcm_s16le', rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout='mono')
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    cut = tmp_path / 'cut.mp4'
    cut.write_bytes(boxed.read_bytes()[:600])
    for path, reason in ((nonsense, 'cannot be decoded'), (sound, 'no video stream'),
                         (tmp_path / 'absent.mp4', 'cannot be decoded'), (cut, 'cut.mp4')):
        assert reason in skip_reason(path, tmp_path)


def synthetic(turning: bool, focal: float, frames: int = 30) -> tuple[Tracks, np.ndarray]:
    """Exact tracks of random points, and the poses of the camera that flew through them."""
    generator = np.random.default_rng(0)
    space = generator.uniform((-8, -3, 2), (8, 3, 30), (600, 3))
    size = (240, 400)
    poses, start, point, xy = [], [0], [], []
    for number in range(frames):
        yaw = 0.25 * np.sin(number / 6) if turning else 0.0
        rotation, _ = cv2.Rodrigues(np.array([0.1, yaw, 0.0]))
        place = np.array([np.sin(number / 8) if turning else 0.0, 0, number * 0.15])
        pose = np.concatenate([rotation, -rotation @ place[:, None]], axis=1)
        local = space @ rotation.T + pose[:, 3]
        image = local[:, :2] / local[:, 2:] * focal * size[1] + (size[1] / 2, size[0] / 2)
        seen = np.flatnonzero((local[:, 2] > 0.5) & (image > 0).all(1)
                              & (image < size[::-1]).all(1))
        poses.append(pose)
        start.append(start[-1] + len(seen))
        point.append(seen)
        xy.append(image[seen] + generator.normal(0, 0.05, (len(seen), 2)))
    return Tracks(size, np.array(start), np.concatenate(point), np.concatenate(xy)), (
        np.stack(poses))


def lens(focal: float) -> np.ndarray:
    return np.array([focal, focal * 400 / 240, 0.5, 0.5])


def similar_places(found: np.ndarray, true: np.ndarray) -> float:
    """Largest distance between two paths after the best similarity, over their length."""
    a, b = (camera.position(torch.from_numpy(poses)).numpy() for poses in (found, true))
    a, b = a - a.mean(0), b - b.mean(0)
    u, s, vt = np.linalg.svd(a.T @ b)
    flip = np.array([1, 1, np.linalg.det(u @ vt)])
    fitted = (s * flip).sum() / (a * a).sum() * a @ (u * flip) @ vt
    return np.linalg.norm(fitted - b, axis=1).max() / np.linalg.norm(b[-1] - b[0])


def test_straight_flight_is_recovered_straight() -> None:
    tracks, poses = synthetic(turning=False, focal=0.8)
    structure = recover_structure(tracks, choose_keyframes(tracks, lens(0.8)), lens(0.8), True)
    true = poses[structure.first:structure.first + len(structure)]
    assert len(structure) > 20
    assert similar_places(structure.poses, true) < 0.01
    turned = structure.poses[:, :, :3] @ structure.poses[:1, :, :3].transpose(0, 2, 1)
    assert np.abs(turned - np.eye(3)).max() < 0.01


def test_focal_length_is_found_where_the_camera_turns_and_kept_where_given() -> None:
    tracks, poses = synthetic(turning=True, focal=1.1)
    keyframes = choose_keyframes(tracks, lens(0.8))
    found = recover_structure(tracks, keyframes, lens(0.8), fixed_focal=False)
    assert found.intrinsics[0] == pytest.approx(1.1, rel=0.05)
    assert similar_places(found.poses, poses[found.first:found.first + len(found)]) < 0.05
    kept = recover_structure(tracks, keyframes, lens(0.8), fixed_focal=True)
    assert kept.intrinsics[0] == 0.8


def test_dense_triangulation_measures_a_plane() -> None:
    """A textured wall in front of a camera that comes nearer."""
    generator = np.random.default_rng(0)
    texture = cv2.GaussianBlur(generator.uniform(0, 255, (600, 600)).astype(np.float32), (0, 0), 2)
    texture = cv2.normalize(texture, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    height, width, depth = 120, 200, 4.0
    intrinsics = np.array([0.8, 0.8 * width / height, 0.5, 0.5])
    poses, pictures = [], {}
    for number in range(7):
        ahead = 0.1 * (number - 3)
        poses.append(np.concatenate([np.eye(3), [[-0.02 * number], [0], [-ahead]]], axis=1))
        zoom = 0.8 * width / (depth - ahead)
        home = np.array([[zoom, 0, width / 2 - zoom * (0.02 * number + 3)],
                         [0, zoom, height / 2 - zoom * 3], [0, 0, 1]])
        pictures[number] = cv2.warpAffine(
            texture, (home @ np.diag([0.01, 0.01, 1]))[:2], (width, height))
    dense = DenseTriangulation(np.stack(poses), intrinsics)
    sky = np.zeros((height, width), bool)
    sky[:20] = True
    disparity = dense.disparity(3, list_neighbours(3, 2, 7), pictures, sky)
    assert (disparity[sky] == np.float32(camera.MIN_DISPARITY)).all()
    assert np.abs(disparity[30:] * depth - 1).mean() < 0.05


def test_scale_and_shift_are_those_of_the_supplement() -> None:
    generator = np.random.default_rng(0)
    inverse_depth = np.linspace(0.05, 0.9, 40 * 60, dtype=np.float64).reshape(40, 60)
    rows, columns = generator.integers(0, 40, 200), generator.integers(0, 60, 200)
    z = 1 / inverse_depth[rows, columns]
    intrinsics = np.array([0.8, 1.2, 0.5, 0.5])
    flat = np.stack([(columns + 0.5) / 60, (rows + 0.5) / 40], axis=1)
    points = np.concatenate([(flat - 0.5) / intrinsics[:2] * z[:, None], z[:, None]], axis=1)
    guess = (inverse_depth - 0.07) / 0.6
    assert fit_disparity(guess, points, intrinsics) == pytest.approx((0.6, 0.07))
    with pytest.raises(ClipError, match='reversed'):
        fit_disparity(-guess, points, intrinsics)
    with pytest.raises(ClipError, match='12 tracked points'):
        fit_disparity(guess, points[:12], intrinsics)


def test_near_plane_is_a_low_percentile_of_the_points() -> None:
    depths = np.stack([np.zeros(100), np.zeros(100), np.arange(100) + 1.0], axis=1)
    scale = near_plane_scale([depths] * 20 + [depths * 9, depths[:3] * 1e-3])
    assert np.percentile(depths[:, 2], 5) * scale == pytest.approx(1.25)
    with pytest.raises(ClipError, match='no frame sees'):
        near_plane_scale([depths[:3]])


def pitched(angles: np.ndarray) -> np.ndarray:
    """Poses of a camera that is pitched by angles in radians, nose down, and flies ahead."""
    level = [camera.level_pose(angle)[0].double().numpy() for angle in angles.tolist()]
    return np.stack([np.concatenate([pose[:, :3], pose[:, :3] @ [[0], [0], [-0.1 * number]]], 1)
                     for number, pose in enumerate(level)])


def test_world_is_level_as_most_skylines_say() -> None:
    true = pitched(np.linspace(0.3, 0.2, 20))
    downs = [pose[:, 1] for pose in true]
    downs[3], downs[8] = None, np.array([0, 0.8, 0.6])
    turn, _ = cv2.Rodrigues(np.array([0.4, -0.2, 0.3]))
    tilted = np.concatenate([true[:, :, :3] @ turn, true[:, :, 3:]], axis=2)
    assert level_world(tilted, downs) == pytest.approx(true, abs=1e-6)
    assert level_world(tilted, [None] * 20)[0, :, 3] == pytest.approx(0)


def sky_under(pitch: float, roll: float) -> np.ndarray:
    """Sky of a level world, through a camera."""
    lens = camera.default_intrinsics(90, 160)
    rays = camera.pixel_rays(lens, 90, 160).flatten(2)
    down = camera.level_pose(pitch, roll)[:, :, :3].transpose(1, 2) @ rays
    return (down[0, 1] < 0).reshape(90, 160).numpy()


@pytest.mark.parametrize(('pitch', 'roll'), [(0.0, 0.0), (0.15, 0.0), (-0.1, 0.1), (0.1, -0.2)])
def test_edge_of_the_sky_is_the_horizon_over_a_plain(pitch: float, roll: float) -> None:
    lens = camera.default_intrinsics(90, 160)[0].double().numpy()
    edge = find_sky_edge(sky_under(pitch, roll), lens)
    assert edge == pytest.approx(camera.level_pose(pitch, roll)[0, :, 1].numpy(), abs=0.02)
    assert find_sky_edge(np.ones((90, 160), bool), lens) is None


def test_path_that_bends_against_the_sky_is_refused() -> None:
    still = [pose[:, 1] for pose in pitched(np.full(40, 0.1))]
    bent = pitched(np.concatenate([np.linspace(0, 0.7, 12), np.full(28, 0.7)]))
    with pytest.raises(ClipError, match='where the edge of the sky does not'):
        turn_against_sky(bent, still)
    assert turn_against_sky(bent, [pose[:, 1] for pose in bent]) == pytest.approx(0, abs=0.1)
    assert turn_against_sky(bent, [None] * 40) is None
    # A sky that jumps by itself tells nothing about the path.
    jumping = still[:20] + [pose[:, 1] for pose in pitched(np.full(20, 0.6))]
    assert turn_against_sky(pitched(np.full(40, 0.1)), jumping) == pytest.approx(0, abs=0.1)


def test_window_has_all_near_frames_and_no_more() -> None:
    reach = 30
    for number, window in slide(range(100)):
        assert sorted(window) == list(range(max(number - reach, 0), min(number + reach, 99) + 1))
    assert number == 99
    assert [number for number, _ in slide(range(5))] == [0, 1, 2, 3, 4]


def test_source_is_ready_if_it_works_without_the_network() -> None:
    assert is_ready('horizon')
    assert not is_ready('midas')
    assert not is_ready('nothing')


def test_jobs_are_named_as_the_files_in_their_folders(tmp_path: Path) -> None:
    for name in ('a.mp4', 'b/c.MOV', 'b/notes.txt'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [job.name for job in video_jobs([tmp_path, tmp_path / 'a.mp4'], OPTIONS)] == [
        'a', 'b/c', 'a']
    (tmp_path / 'empty').mkdir()
    with pytest.raises(ClipError, match='no video in it'):
        video_jobs([tmp_path / 'empty'], OPTIONS)
    with pytest.raises(ClipError, match='does not exist'):
        video_jobs([tmp_path / 'absent.mp4'], OPTIONS)


@pytest.mark.parametrize(('wrong', 'reason'), [
    ({'focal': 500.0, 'fov': 64.0}, 'not both'), ({'focal': -1.0}, 'focal is -1'),
    ({'fov': 200.0}, 'fov is 200'), ({'stride': 0}, 'stride is 0'), ({'height': 10}, 'height is'),
    ({'max_frames': 10}, 'max_frames is 10')])
def test_wrong_options_are_refused(wrong: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        VideoOptions(**wrong)
