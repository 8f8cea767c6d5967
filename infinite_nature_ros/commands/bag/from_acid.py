"""``infinite-nature bag from-acid``: text files of ACID or RealEstate10K and frames become bags."""

from __future__ import annotations

from pathlib import Path
import sys
from typing import Annotated, Literal

import tyro

_MISSING = 'missing_videos.txt'


def from_acid(
    poses: Annotated[Path, tyro.conf.Positional],
    frames: Annotated[Path, tyro.conf.Positional],
    out: Path = Path('bags'),
    split: Literal['', 'train', 'validation', 'test'] = '',
    licence: str = '',
    slop: float = 0.008,
    rate: float = 0.0,
    height: int = 0,
    scene_scale: float = 1.0,
    disparity: str = 'none',
    min_frames: int = 2,
    max_fov: float = 100.0,
    workers: int = 0,
    ray: bool = False,
    strict: bool = False,
) -> int:
    """Join the poses of ACID or RealEstate10K with frames: one bag a clip.

    Clips that can't be used are skipped; skipped.csv says why, and missing_videos.txt has the
    addresses of the videos that were not found. Start it again, after Ctrl-C or when more videos
    are there, and it goes on where it stopped.

    Example: infinite-nature bag from-acid acid/train videos --out bags --workers 8

    Example: infinite-nature bag from-acid 0a1b2c3d.txt video.mp4 --out bags --licence CC-BY-3.0

    Args:
        poses: text file of a clip, or a folder of them, with any folders in it; a folder called
            train, validation or test tells the split.
        frames: one video, one folder of pictures, or a folder that has, for each clip, a video or
            folder of pictures called as the clip or as its video's id. Pictures are named by
            their time in the video in microseconds (but see rate).
        out: folder for the bags.
        split: split of all clips; by default, what their folders say.
        licence: licence of the frames, an SPDX name or words.
        slop: seconds that a frame may be off its pose's time.
        rate: numbered pictures a second, if they aren't named by their time.
        height: height to bring the frames to; 0 keeps them, and JPEG files byte by byte.
        scene_scale: metres per unit of the poses.
        disparity: source of each frame's disparity, a registered name. The datasets have no points
            to align it to the poses with, so that its scale is its own; none leaves it out.
        min_frames: clips with fewer are skipped.
        max_fov: clips with a wider field of view, in degrees, are skipped.
        workers: clips at once; 0 is one a core.
        ray: convert under Ray: in the cluster of RAY_ADDRESS, or a local one.
        strict: end at the first clip that can't be used.

    Returns:
        Exit code: 0, or 1 if no clip became a bag.

    Raises:
        ValueError: if an argument can't be used, or with strict, a clip.
        OSError: if a file can't be read or written.
    """
    # Here, so that --help needn't wait for torch.
    from infinite_nature_training.conversion import convert
    from infinite_nature_training.sources.acid import (
        acid_jobs,
        AcidOptions,
        find_texts,
        make_bag,
    )

    out = out.expanduser()
    options = AcidOptions(slop, rate, height, licence, scene_scale, disparity, min_frames, max_fov)
    texts = find_texts(poses.expanduser().absolute(), leave_out=out.absolute())
    jobs, missing = acid_jobs(texts, frames.expanduser().absolute(), split, options)
    if not licence:
        print('The licence of the frames is not known, the bags will say so; give it with '
              '--licence.', file=sys.stderr)
    report = convert(make_bag, jobs, out, workers=workers, ray=ray, strict=strict)
    (out / _MISSING).write_text(''.join(f'{address}\n' for address in missing), encoding='utf-8')
    if missing:
        print(f'{out / _MISSING}: {len(missing)} videos that were not found')
    return report.exit_code
