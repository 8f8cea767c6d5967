"""Make a bag of a video and tell how well its disparity and poses explain it, beside baselines.

The figures and pictures of ``docs/acid_bags.md``. Each frame is warped to one some frames later and
compared with it, on land only: with what was recovered, and with one part of it taken away.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
import tempfile
import time

from environment import describe
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
import numpy as np
import torch
import tyro

from infinite_nature_ros import camera
from infinite_nature_ros.camera import MIN_DISPARITY
from infinite_nature_ros.depth_sources import estimate_disparity
from infinite_nature_ros.pixels import from_pixels
from infinite_nature_ros.recording import colourise, contact_sheet, save_picture
from infinite_nature_ros.skyline import detect_sky
from infinite_nature_training.bags import ClipFrame, read_clip
from infinite_nature_training.bags.consistency import frame_of, SIZE, warp_errors
from infinite_nature_training.sources.video.alignment import fit_disparity
from infinite_nature_training.sources.video.pipeline import convert_video, VideoOptions

_KARMA = Path(__file__).parents[1] / 'test' / 'video' / 'karma.mp4'

_SHOWN_FRAMES = 4

# One of so many points is drawn, and none beyond this share of them.
_POINT_STRIDE, _DRAWN_SHARE = 7, 95


def measure(video: Path = _KARMA, bag: Path | None = None, gap: int = 6, last: int = 320,
            focal: float | None = None, pictures: Path | None = None) -> None:
    """Print the errors, with machine, commit and versions; write the pictures if asked to.

    Example: python benchmarks/video_clip.py --pictures docs/images

    Args:
        video: a video of one shot.
        bag: its bag, if there is one already; else it is made.
        gap: frames from one compared frame to the other.
        last: last frame to compare.
        focal: focal length of the video in pixels, if it is known.
        pictures: folder for video_trajectory.png and video_disparity.jpg.
    """
    print(describe())
    with tempfile.TemporaryDirectory() as folder:
        if bag is None:
            begun = time.perf_counter()
            options = VideoOptions(focal=focal, disparity='dense')
            bag = Path(folder) / convert_video(Path(folder), 'clip', video, options)[0]
            print(f'{video.name} became a bag in {time.perf_counter() - begun:.0f} s')
        clip = read_clip(bag)
        for name, value in clip.info.details.items():
            print(f'{name}: {value}')
        frames = list(clip.frames)
    print(table(compare(frames[:last + 1], gap)))
    if pictures is not None:
        draw_trajectory(frames, pictures / 'video_trajectory.png')
        save_picture(pictures / 'video_disparity.jpg', disparity_sheet(frames))


def compare(frames: list[ClipFrame], gap: int) -> dict[str, list[float]]:
    """Photometric errors on land of frames warped to those ``gap`` later, by what was used.

    Args:
        frames: consecutive frames of a clip, with disparity and points.
        gap: frames from source to target; every gap-th frame is a source.
    """
    straight = straight_path(frames)
    level = straight_path(frames, own_rotations=True)
    variants: dict[str, Callable[[int], tuple[ClipFrame, ClipFrame]]] = {
        'recovered': lambda i: (frames[i], frames[i + gap]),
        'ground ramp, same poses': lambda i: (with_ramp(frames[i]), frames[i + gap]),
        'straight path, same disparity': lambda i: (straight[i], straight[i + gap]),
        'straight path, own rotations': lambda i: (level[i], level[i + gap])}
    errors: dict[str, list[float]] = {name: [] for name in ('static', *variants)}
    for number in range(0, len(frames) - gap, gap):
        land = detect_sky(frame_of(frames[number + gap]).image)[0, 0].numpy() < 0.5
        for name, variant in variants.items():
            found = warp_errors(*variant(number), mask=land)
            errors[name].append(found.photometric)
            if name == 'recovered':
                errors['static'].append(found.static)
    return errors


def with_ramp(frame: ClipFrame) -> ClipFrame:
    """Replace a frame's disparity by the horizon's ground ramp, fitted to the frame's points."""
    image = from_pixels(frame.image())[None]
    matte = detect_sky(image)
    ramp = estimate_disparity(image, 'horizon', matte)[0, 0].numpy()
    sky = matte[0, 0].numpy() > 0.5
    scale, shift = fit_disparity(ramp, frame.points.astype(np.float64),
                                 frame.intrinsics[0].numpy())
    fitted = np.where(sky, MIN_DISPARITY, scale * ramp + shift).clip(MIN_DISPARITY)
    return replace(frame, disparity=fitted.astype(np.float32))


def straight_path(frames: list[ClipFrame], own_rotations: bool = False) -> list[ClipFrame]:
    """Move the frames onto the straight line, flown at one speed, that fits their places best.

    Args:
        frames: frames of a clip.
        own_rotations: keep each frame's rotation; else all look where they look on average.
    """
    poses = torch.cat([frame.pose for frame in frames])
    number = torch.arange(len(frames), dtype=torch.float64)
    system = torch.stack([number, torch.ones_like(number)], dim=1)
    places = system @ torch.linalg.lstsq(system, camera.position(poses)).solution
    rotations = poses[..., :3]
    if not own_rotations:
        u, _, vt = torch.linalg.svd(rotations.mean(0, keepdim=True))
        rotations = (u @ vt).expand_as(rotations)
    straight = camera.pose_at(places, rotations)
    return [replace(frame, pose=pose[None])
            for frame, pose in zip(frames, straight, strict=True)]


def table(errors: dict[str, list[float]]) -> str:
    """Markdown table of mean errors, and how much less the recovered one is."""
    ours = float(np.mean(errors['recovered']))
    lines = ['| what is warped | error on land | recovered is less by |', '|---|---|---|']
    for name, values in errors.items():
        mean = float(np.mean(values))
        gain = '' if name == 'recovered' else f'{1 - ours / mean:.0%}'
        lines.append(f'| {name} | {mean:.4f} | {gain} |')
    count = len(errors['recovered'])
    return '\n'.join([*lines, f'{count} pairs at {SIZE[0]} x {SIZE[1]}, mean absolute difference '
                      'of RGB in [0, 1]'])


def draw_trajectory(frames: list[ClipFrame], path: Path) -> None:
    """Draw the camera's places and the points, from above and from the side, as a PNG file."""
    places, _ = camera.to_body_frame(torch.cat([frame.pose for frame in frames]))
    points = []
    for frame in frames[::10]:
        to_world = camera.inverse(frame.pose)[0].numpy()
        points.append(frame.points[::_POINT_STRIDE] @ to_world[:, :3].T + to_world[:, 3])
    # OpenCV axes (right, down, forward) as forward, left and up.
    cloud = np.concatenate(points)[:, [2, 0, 1]] * (1, -1, -1)
    cloud = cloud[cloud[:, 0] < np.percentile(cloud[:, 0], _DRAWN_SHARE)]
    figure = Figure(figsize=(10, 8), layout='constrained')
    views = zip(figure.subplots(2, 1), (1, 2), ('left', 'up'), ('from above', 'from the side'),
                strict=True)
    for axes, column, name, title in views:
        axes.plot(cloud[:, 0], cloud[:, column], '.', color='0.6', markersize=2, label='points')
        axes.plot(places[:, 0], places[:, column], 'b-', label='camera')
        axes.plot(places[0, 0], places[0, column], 'bo', label='start')
        axes.set(xlabel='forward (m)', ylabel=f'{name} (m)', title=title)
        axes.set_aspect('equal', adjustable='datalim')
        axes.grid(alpha=0.3)
        axes.legend(loc='upper right')
    FigureCanvasAgg(figure).print_png(str(path))


def disparity_sheet(frames: list[ClipFrame]) -> np.ndarray:
    """Frames, evenly spaced, with their disparity beside them, numbered."""
    numbers = np.linspace(0, len(frames) - 1, _SHOWN_FRAMES).round().astype(int).tolist()
    return contact_sheet({number: np.concatenate(
        [frames[number].image(), colourise(frames[number].disparity)], axis=1)
        for number in numbers}, columns=1)


if __name__ == '__main__':
    tyro.cli(measure)
