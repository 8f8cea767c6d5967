"""How many training sequences a second ``SequenceDataset`` yields, from a warm cache.

The table of ``docs/acid_bags_dataset.md``. Clips are made of a bundled photo, panned over; what is
in the pictures makes no difference to the time.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from resource import getrusage, RUSAGE_CHILDREN, RUSAGE_SELF
import tempfile
import time

from environment import describe
import numpy as np
from PIL import Image
import torch
from torch.utils.data import DataLoader
import tyro

from infinite_nature_ros.camera import default_intrinsics, pose_at
from infinite_nature_ros.photos import default_photo
from infinite_nature_training.bags import ClipFrame, ClipInfo, ClipWriter
from infinite_nature_training.datasets import SequenceDataset, to_float

HEIGHT, WIDTH = 160, 256
_UNITS_A_FRAME = 0.06
_PIXELS_A_FRAME = 3
_WINDOW_SECONDS = 1.0


def write_clips(folder: Path, clips: int, frames: int) -> None:
    """Write bags of a window that moves over a photo."""
    photo = np.asarray(Image.open(default_photo()).convert('RGB'))
    room = photo.shape[1] - 2 * WIDTH
    rotation = torch.eye(3, dtype=torch.float64)[None]
    disparity = np.tile(np.linspace(0.01, 1, HEIGHT, dtype=np.float32)[:, None], (1, WIDTH))
    for number in range(clips):
        with ClipWriter(folder / f'{number:03}', ClipInfo('pan', 'CC0-1.0')) as writer:
            for frame in range(frames):
                left = _PIXELS_A_FRAME * (number + frame) % room
                place = torch.tensor([[_UNITS_A_FRAME * frame, 0, 0]], dtype=torch.float64)
                writer.add(ClipFrame(
                    10**7 * (frame + 1),
                    np.ascontiguousarray(photo[:2 * HEIGHT, left:left + 2 * WIDTH]),
                    pose_at(place, rotation), default_intrinsics(HEIGHT, WIDTH).double(),
                    disparity))


def rates(dataset: SequenceDataset, batch: int, workers: int, windows: int) -> Iterator[float]:
    """Sequences a second that a ``DataLoader`` hands out, in one window of time after another."""
    batches = iter(DataLoader(dataset, batch_size=batch, num_workers=workers,
                              sampler=dataset.shard(end=10**9)))
    # What workers prepared while they started isn't counted.
    for _ in range(4 * max(1, workers)):
        to_float(next(batches))
    for _ in range(windows):
        drawn, start = 0, time.perf_counter()
        while time.perf_counter() < start + _WINDOW_SECONDS:
            drawn += len(to_float(next(batches))['index'])
        yield drawn / (time.perf_counter() - start)


def cost(dataset: SequenceDataset, batch: int, workers: int, sequences: int) -> float:
    """Seconds of processor time a sequence, of this process and the workers."""
    def spent() -> float:
        return sum(sum(getrusage(whose)[:2]) for whose in (RUSAGE_SELF, RUSAGE_CHILDREN))

    before = spent()
    for samples in DataLoader(dataset, batch_size=batch, num_workers=workers,
                              sampler=dataset.shard(end=sequences)):
        to_float(samples)
    return (spent() - before) / sequences


def main(clips: int = 20, frames: int = 60, batch: int = 8, windows: int = 15,
         folder: Path | None = None) -> None:
    """Print the table, under machine, commit and versions.

    Args:
        clips: how many bags are made.
        frames: frames of each.
        batch: sequences of a batch.
        windows: seconds that each rate is measured.
        folder: where bags and cache are made; the folder for temporary files if not given.
    """
    torch.set_num_threads(1)  # As each of DataLoader's workers has it.
    with tempfile.TemporaryDirectory(dir=folder) as name:
        bags, cache = Path(name, 'bags'), Path(name, 'cache')
        write_clips(bags, clips, frames)
        start = time.perf_counter()
        dataset = SequenceDataset(bags, cache=cache)
        seconds = time.perf_counter() - start
        print(f'{describe()}\nclips: {clips} of {frames} frames {2 * HEIGHT} x {2 * WIDTH}, '
              f'decoded to {HEIGHT} x {WIDTH} at {clips * frames / seconds:.0f} frames a second\n'
              f'sequences: T = 5, batches of {batch}, warm cache\n')
        print('| workers | best | median | processor ms a sequence |\n|---|---|---|---|')
        for workers in (0, 1, 2):
            measured = list(rates(dataset, batch, workers, windows))
            spent = cost(dataset, batch, workers, 100 * batch)
            print(f'| {workers} | {max(measured):.0f} | {np.median(measured):.0f} | '
                  f'{1000 * spent:.1f} |')


if __name__ == '__main__':
    tyro.cli(main)
