"""``infinite-nature bag from-video``: plain videos become bags, by structure from motion."""

from __future__ import annotations

from pathlib import Path
import sys
from typing import Annotated, Literal

import tyro


def from_video(
    videos: Annotated[list[Path], tyro.conf.Positional],
    out: Path = Path('bags'),
    split: Literal['', 'train', 'validation', 'test'] = '',
    licence: str = '',
    focal: float | None = None,
    fov: float | None = None,
    height: int = 256,
    stride: int = 1,
    min_frames: int = 30,
    max_frames: int = 600,
    disparity: str = 'auto',
    detector: str = '',
    workers: int = 0,
    ray: bool = False,
    strict: bool = False,
) -> int:
    """Recover camera path and disparity of videos: one bag a run of good frames.

    Letterboxes are cropped, shots separated, and frames whose pose or disparity doesn't explain
    the pictures are left out; a video without any good run is skipped, and skipped.csv says why.
    Start it again, after Ctrl-C for example, and it goes on where it stopped.

    Example: infinite-nature bag from-video coast.mp4 --out bags --licence CC-BY-4.0

    Example: infinite-nature bag from-video drone_videos --out bags --fov 78 --split train

    Args:
        videos: video files, or folders of them, with any folders in them.
        out: folder for the bags.
        split: split of all clips.
        licence: licence of the videos, an SPDX name or words.
        focal: focal length in pixels of the video, for example from a calibration.
        fov: horizontal field of view of the video in degrees. Without this and focal it is taken
            to be 64, unless the points tell otherwise.
        height: height to bring the pictures to; lower ones stay as they are.
        stride: keep every so many frames.
        min_frames: shorter runs of good frames don't become a bag.
        max_frames: longer shots are divided into clips of this many frames of the video.
        disparity: first guess that is fitted to the tracked points: dense (triangulated from the
            video itself), midas or another registered source; auto is midas if it lies in
            torch.hub's cache, else dense.
        detector: module:function that takes a picture, uint8 [H, W, 3] RGB, and returns the share
            of it that people fill; frames above 10 % are dropped.
        workers: videos at once; 0 is one a core.
        ray: convert under Ray: in the cluster of RAY_ADDRESS, or a local one.
        strict: end at the first video that can't be used.

    Returns:
        Exit code: 0, or 1 if no video became a bag.

    Raises:
        ValueError: if an argument can't be used, or with strict, a video.
        OSError: if a file can't be read or written.
    """
    # Here, so that --help needn't wait for torch.
    from infinite_nature_ros.depth_sources import is_ready
    from infinite_nature_training.conversion import convert
    from infinite_nature_training.sources.video.pipeline import (
        convert_video,
        load_detector,
        video_jobs,
        VideoOptions,
    )

    if disparity == 'auto':
        disparity = 'midas' if is_ready('midas') else 'dense'
    load_detector(detector)
    options = VideoOptions(focal, fov, height, stride, min_frames, max_frames, disparity, detector,
                           licence, split)
    jobs = video_jobs([path.expanduser().absolute() for path in videos], options)
    if not licence:
        print('The licence of the videos is not known, the bags will say so; give it with '
              '--licence.', file=sys.stderr)
    return convert(convert_video, jobs, out, workers=workers, ray=ray, strict=strict).exit_code
