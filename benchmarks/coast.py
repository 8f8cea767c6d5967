"""Frames a second of procedural coasts, how near they come to photographs, and how exact they are.

The tables and contact sheets of ``docs/acid_bags.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
import sys
import tempfile
import time
from typing import Any

import cv2
from environment import describe
import numpy as np
from output import print_table, rgbd, write_sheet
import torch
from tqdm import tqdm
import tyro

from infinite_nature_ros import Autopilot, camera, Frame
from infinite_nature_ros.photos import load_photo
from infinite_nature_ros.pixels import to_pixels
from infinite_nature_ros.rendering import render
from infinite_nature_training.sources.coast import CoastWorld, fly
from infinite_nature_training.sources.coast.clips import CoastOptions, make_clip

sys.path.insert(0, str(Path(__file__).parents[1] / 'test'))
from spectra import spectral_slope  # noqa: E402

SIZE = (160, 256)
INTRINSICS = camera.default_intrinsics(*SIZE)


def measure(frames: int = 60, processes: int = 2, seeds: int = 24, photos: Path | None = None,
            pictures: Path | None = None, device: str = 'cpu') -> None:
    """Print the tables, with machine, commit and versions; write the pictures if asked to.

    Example: python benchmarks/coast.py --pictures docs/images --photos FOLDER

    Args:
        frames: frames per clip.
        processes: clips made at once.
        seeds: coasts looked at, from 0 on.
        photos: folder of photographs to compare with.
        pictures: folder for coast_places.jpg, coast_flights.jpg and coast_disparity.jpg.
        device: where to render.
    """
    torch.set_num_threads(1)
    print(f'{describe()}\n')
    print_stages(device)
    print_clips(frames, processes, device)
    views = {seed: first_view(seed, device) for seed in tqdm(range(seeds), disable=None)}
    print_likeness({'coasts': [to_pixels(view.image)[0] for view in views.values()],
                    'photographs': list(read_photos(photos)) if photos else []})
    print_exactness(range(0, seeds, 3), device)
    if pictures:
        pictures.mkdir(parents=True, exist_ok=True)
        draw(views, frames, pictures, device)


def print_stages(device: str) -> None:
    """Print what the parts of a frame take on one core."""
    world = CoastWorld(0, device)
    flight = fly(world, *SIZE, speed=0.2, seed=0)
    frame = next(flight)
    pilot = Autopilot(INTRINSICS.to(device))
    stages = {'a new coast': lambda: CoastWorld(0, device),
              'a view from the same place': lambda: world.look(world.start, INTRINSICS, *SIZE),
              'a view 0.2 units on, autopilot included': lambda: next(flight),
              'the autopilot': lambda: pilot.next_pose(frame)}
    print(f'Parts of a frame of {SIZE[0]} x {SIZE[1]} in one process, on {device}:\n')
    print_table(['part', 'ms'], [[name, f'{1000 * median_time(call):.0f}']
                                 for name, call in stages.items()])


def median_time(call: Callable[[], Any], count: int = 9) -> float:
    """Seconds that a call takes, the first one not counted."""
    seconds = []
    for _ in range(count + 1):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds[1:]))


def print_clips(frames: int, processes: int, device: str) -> None:
    """Print how many frames a second become bags, in one process and in several at once."""
    rows = []
    for count in sorted({1, processes}):
        seconds, busy = clip_seconds(count, frames, device)
        rows.append([str(count), f'{seconds:.1f}', f'{count * frames / seconds:.1f}',
                     f'{1000 * busy / (count * frames):.0f}'])
    print(f'\nClips of {frames} frames, each in a process of its own, from the seed to the bag '
          '(new coast, flight, JPEG, mcap):\n')
    print_table(['clips at once', 's', 'frames a second', 'processor ms a frame'], rows)


def clip_seconds(count: int, frames: int, device: str) -> tuple[float, float]:
    """Seconds that some processes take for a clip each, and that they keep processors busy.

    Their start isn't counted. Where other programs want the processors too, the second figure is
    the one that is theirs.
    """
    options = CoastOptions(frames, *SIZE, device=device)
    with (tempfile.TemporaryDirectory() as folder,
          ProcessPoolExecutor(count, get_context('spawn'), torch.set_num_threads, (1,)) as pool):
        # A clip of one frame each loads the kernels.
        for length in (CoastOptions(1, *SIZE, device=device), options):
            start = time.perf_counter()
            jobs = [pool.submit(busy_seconds, Path(folder), seed, length)
                    for seed in range(count)]
            busy = sum(job.result() for job in jobs)
            seconds = time.perf_counter() - start
    return seconds, busy


def busy_seconds(folder: Path, seed: int, options: CoastOptions) -> float:
    """Make a clip; processor seconds that it took."""
    start = time.process_time()
    make_clip(folder, f'{seed}', seed, options)
    return time.process_time() - start


def first_view(seed: int, device: str) -> Frame:
    """View from the start of a coast."""
    world = CoastWorld(seed, device)
    return world.look(world.start, INTRINSICS, *SIZE)


def read_photos(folder: Path) -> Iterator[np.ndarray]:
    """Photographs of a folder, cropped and shrunk to the size of the views."""
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in ('.jpg', '.jpeg', '.png'):
            yield to_pixels(load_photo(path, SIZE))[0]


def print_likeness(pictures: dict[str, list[np.ndarray]]) -> None:
    """Print what is alike in photographs of landscapes: 10th, 50th and 90th percentile."""
    measures = {
        'brightness': lambda picture: picture.mean() / 255,
        'contrast (standard deviation)': lambda picture: picture.mean(-1).std() / 255,
        'saturation': lambda picture: cv2.cvtColor(picture, cv2.COLOR_RGB2HSV)[..., 1].mean() / 255,
        'exponent of the power spectrum': lambda picture: spectral_slope(picture.mean(-1)),
        'colours': lambda picture: len(np.unique(picture.reshape(-1, 3), axis=0)),
    }
    groups = {name: group for name, group in pictures.items() if group}
    print(f'\n{", ".join(f"{len(group)} {name}" for name, group in groups.items())}; '
          '10 %, half and 90 % of them are below:\n')
    print_table(['measure', *groups], [
        [name, *(' / '.join(f'{value:.4g}' for value in np.percentile(
            [function(picture) for picture in group], (10, 50, 90))) for group in groups.values())]
        for name, function in measures.items()])


def print_exactness(seeds: Iterable[int], device: str) -> None:
    """Print how well frames warped by their disparity meet the next one, sky left out."""
    rows = []
    for seed in seeds:
        world = CoastWorld(seed, device)
        first, second = islice(fly(world, *SIZE, speed=0.2, seed=seed), 2)
        view = render(first.image, first.disparity, first.pose, second.pose, first.intrinsics,
                      second.intrinsics)
        known = (view.known > 0.99) & (second.sky < 0.5)
        off = (view.disparity / second.disparity - 1).abs()[known]
        errors = [float(((image - second.image).abs() * known).sum() / (3 * known.sum()))
                  for image in (view.image, first.image)]
        rows.append([str(seed), world.kind, *(f'{error:.4f}' for error in errors),
                     f'{errors[0] / errors[1]:.2f}', f'{off.median():.1e}',
                     f'{off.quantile(0.95):.1e}'])
    print('\nA frame warped to the next, and left as it is; image error and share by which the '
          'disparity is off:\n')
    print_table(['seed', 'coast', 'warped', 'static', 'ratio', 'disparity, median', '95 %'], rows)


def draw(views: dict[int, Frame], frames: int, folder: Path, device: str) -> None:
    """Write the contact sheets."""
    write_sheet({seed: to_pixels(view.image)[0] for seed, view in views.items()},
                folder / 'coast_places.jpg')
    write_sheet({seed: rgbd(view) for seed, view in islice(views.items(), 12)},
                folder / 'coast_disparity.jpg')
    shown, columns = {}, 4
    for seed in tqdm(range(1, 7), disable=None):
        flight = fly(CoastWorld(seed, device), *SIZE, speed=0.2, seed=seed)
        step = (frames - 1) // (columns - 1)
        shown |= {100 * seed + number: to_pixels(frame.image)[0]
                  for number, frame in enumerate(islice(flight, frames)) if number % step == 0}
    write_sheet(shown, folder / 'coast_flights.jpg', columns)


if __name__ == '__main__':
    tyro.cli(measure)
