"""``infinite-nature bag from-coast``: procedural coasts become ACID bags."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro


def from_coast(
    out: Annotated[Path, tyro.conf.Positional],
    count: int = 100,
    frames: int = 60,
    size: tuple[int, int] = (160, 256),
    seed: int = 0,
    speed: float = 0.2,
    split: Literal['', 'train', 'validation', 'test'] = 'train',
    device: str = 'cpu',
    workers: int = 0,
    ray: bool = False,
    strict: bool = False,
) -> int:
    """Fly over procedural coasts and write every flight as a bag, with exact disparity.

    Every seed is another coast: its own land, weather and light. A conversion that was stopped
    goes on where it was when the command is given again.

    Example: infinite-nature bag from-coast coasts --count 100

    Args:
        out: folder for the bags, coast_<seed>.
        count: how many coasts.
        frames: frames per clip.
        size: height and width of the frames.
        seed: of the first coast; the others have those that follow.
        speed: scene units per frame, -1 to 1.
        split: what the clips are for; '' is undecided.
        device: where to render: cpu, or a CUDA device as cuda:0.
        workers: clips made at once; 0 is one a core.
        ray: make them in Ray tasks, on all machines of its cluster.
        strict: end at the first clip that can't be made.

    Returns:
        Exit code: 0 if there are bags.

    Raises:
        ValueError: if an option is out of range.
        OSError: if a bag can't be written.
    """
    # Here, so that --help needn't wait for torch.
    from infinite_nature_training.conversion import convert, Job
    from infinite_nature_training.sources.coast.clips import CoastOptions, make_clip

    if count < 1 or seed < 0:
        raise ValueError(f'count is {count} and seed {seed}; give at least 1 coast, '
                         'and a seed of 0 or more')
    options = CoastOptions(frames, *size, speed, split, device)
    jobs = [Job(f'coast_{number:06d}', (number, options)) for number in range(seed, seed + count)]
    report = convert(make_clip, jobs, out.expanduser(), workers=workers, ray=ray, strict=strict)
    return report.exit_code
