"""The paper's pipeline from a plain video to ACID bags (section 4 and supplement 1.1)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from importlib.metadata import version
import logging
import math
from pathlib import Path
from threading import RLock
from typing import TypeVar

import cv2
import numpy as np
import torch
from tqdm import tqdm

from infinite_nature_ros import camera
from infinite_nature_training.bags import ClipError, ClipFrame, ClipInfo, ClipWriter
from infinite_nature_training.conversion import Job
from infinite_nature_training.sources.video.alignment import (
    level_world,
    near_plane_scale,
    turn_against_sky,
)
from infinite_nature_training.sources.video.decoding import read_frames, SUFFIXES
from infinite_nature_training.sources.video.frames import (
    DENSE,
    Detector,
    FrameMaker,
    MadeFrame,
)
from infinite_nature_training.sources.video.keyframes import choose_keyframes
from infinite_nature_training.sources.video.shots import find_shots, Shot
from infinite_nature_training.sources.video.structure import recover_structure, Structure
from infinite_nature_training.sources.video.tracking import (
    find_sky,
    PointFollower,
    resize_to_width,
    Tracks,
    WORK_WIDTH,
)

_log = logging.getLogger(__name__)

T = TypeVar('T')


@dataclass(frozen=True)
class VideoOptions:
    """How videos become bags.

    Attributes:
        focal: focal length in pixels of the video, or ``None``.
        fov: horizontal field of view of the whole frame in degrees, or ``None``. Without either,
            64 degrees (the release's) are assumed, and kept unless the points tell otherwise.
        height: height of the pictures in the bag; lower videos stay as they are.
        stride: keep every so many frames of the video.
        min_frames: runs with fewer good frames don't become a bag.
        max_frames: longer shots are divided into shots of this length.
        disparity: first guess, 'dense' or a source of ``estimate_disparity``.
        detector: ``module:function`` that takes uint8 ``[H, W, 3]`` RGB and returns the share of
            the picture that people fill; frames above 10 % are dropped. '' drops none.
        licence: of the videos.
        split: of the clips.
        progress: show how far each pass over a shot is: of use for one video at a time. Not part
            of what a video becomes, hence not of the text that conversions remember.
    """

    focal: float | None = None
    fov: float | None = None
    height: int = 256
    stride: int = 1
    min_frames: int = 30
    max_frames: int = 600
    disparity: str = DENSE
    detector: str = ''
    licence: str = ''
    split: str = ''
    progress: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        """Refuse what can't be."""
        if self.focal is not None and self.fov is not None:
            raise ValueError('give the focal length or the field of view, not both')
        if self.focal is not None and not (math.isfinite(self.focal) and self.focal > 0):
            raise ValueError(f'focal is {self.focal}; give pixels, > 0')
        if self.fov is not None and not 5 <= self.fov <= 170:
            raise ValueError(f'fov is {self.fov} degrees; give a value from 5 to 170')
        for name, least in (('height', 64), ('stride', 1), ('min_frames', 2)):
            if getattr(self, name) < least:
                raise ValueError(f'{name} is {getattr(self, name)}; give at least {least}')
        if self.max_frames < self.min_frames * self.stride:
            raise ValueError(f'max_frames is {self.max_frames}; give at least '
                             f'{self.min_frames * self.stride}, min_frames times stride')


def video_jobs(paths: Sequence[Path], options: VideoOptions) -> list[Job]:
    """Jobs for ``conversion.convert``: one a video, called as the file without its suffix.

    Args:
        paths: video files, and folders that have some, in any folders.
        options: how.

    Raises:
        ClipError: if a path doesn't exist, or a folder has no video.
    """
    jobs = []
    for path in paths:
        if not path.exists():
            raise ClipError(f'{path} does not exist; give a video file or a folder of them')
        files = [path] if path.is_file() else sorted(
            file for file in path.rglob('*') if file.suffix.lower() in SUFFIXES)
        if not files:
            raise ClipError(f'{path} has no video in it; videos end in {", ".join(SUFFIXES)}')
        base = path.parent if path.is_file() else path
        jobs += [Job(file.relative_to(base).with_suffix('').as_posix(), (file, options))
                 for file in files]
    if len(jobs) == 1:
        return [replace(jobs[0], arguments=(jobs[0].arguments[0],
                                            replace(options, progress=True)))]
    return jobs


def convert_video(out: Path, name: str, path: Path, options: VideoOptions) -> list[str]:
    """Make the bags of one video.

    Args:
        out: folder that the bags go to.
        name: name of the video's own folder in it.
        path: video file.
        options: how.

    Returns:
        Names of the bags, relative to ``out``.

    Raises:
        ClipError: if no bag comes out of it, with what went wrong in each shot.
        ValueError: if the detector can't be found.
    """
    detector = load_detector(options.detector)
    bags, flaws = [], []
    for shot in find_shots(path, options.max_frames):
        where = f'{path.name}, frames {shot.first} to {shot.last}'
        try:
            for info, frames in _convert_shot(path, shot, options, detector):
                bags.append(f'{name}/{len(bags):03d}')
                _write(out / bags[-1], info, frames)
        except ClipError as flaw:
            flaws.append(f'{where}: {flaw}')
            _log.warning('skipped %s', flaws[-1])
    if not bags:
        raise ClipError('; '.join(flaws))
    return bags


def load_detector(name: str) -> Detector | None:
    """Find a person detector by ``module:function``; ``None`` for ''.

    Raises:
        ValueError: if there is none of that name.
    """
    if not name:
        return None
    module, _, function = name.partition(':')
    try:
        detector = getattr(import_module(module), function)
    except (AttributeError, ImportError, ValueError) as error:
        raise ValueError(f'detector {name!r} cannot be loaded ({error}); '
                         'give module:function, the module on PYTHONPATH') from error
    return detector


def _convert_shot(path: Path, shot: Shot, options: VideoOptions, detector: Detector | None,
                  ) -> list[tuple[ClipInfo, list[ClipFrame]]]:
    """Clips of a shot.

    Raises:
        ClipError: if there are none.
    """
    needed = options.min_frames * options.stride
    if len(shot) < needed:
        raise ClipError(f'a shot of {len(shot)} frames is too short, {needed} are needed')
    tracks, skies = follow_points(path, shot, options.progress)
    intrinsics = _intrinsics(shot, options)
    keyframes = choose_keyframes(tracks, intrinsics)
    structure = recover_structure(tracks, keyframes, intrinsics,
                                  fixed_focal=bool(options.focal or options.fov))
    structure = structure.scaled(near_plane_scale(structure.points))
    maker = FrameMaker(path, shot, structure, skies, options.height, options.disparity, detector)
    made = list(_shown(maker.frames(options.stride), len(structure) // options.stride,
                       'disparity', options.progress))
    runs = _good_runs(made, options.min_frames)
    if not runs:
        raise ClipError(_why_no_run(made, options.min_frames))
    info = ClipInfo(path.name, options.licence, options.split, method=_method(options),
                    details=_shot_details(shot, structure, keyframes, made))
    return [_clip(run, structure, info) for run in runs]


def follow_points(path: Path, shot: Shot,
                  progress: bool = False) -> tuple[Tracks, list[np.ndarray]]:
    """Tracks of a shot, and the sky of each of its frames."""
    follower, skies = PointFollower(), []
    for frame in _shown(read_frames(path, shot.first, shot.last), len(shot), 'points', progress):
        picture = resize_to_width(shot.crop.of(frame.image), WORK_WIDTH)
        skies.append(find_sky(picture))
        follower.add(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), skies[-1])
    return follower.tracks(), skies


def _shown(frames: Iterable[T], count: int, name: str, progress: bool) -> Iterator[T]:
    """Frames, with a bar below that of the conversion."""
    # Its usual lock is for processes, and a worker that ends leaves it behind.
    tqdm.set_lock(RLock())
    return iter(tqdm(frames, name, count, unit='frame', leave=False, position=1,
                     disable=not progress))


def _intrinsics(shot: Shot, options: VideoOptions) -> np.ndarray:
    """``[4]`` fx, fy, cx, cy of the cropped picture: its lens is centred in the whole frame."""
    (frame_height, frame_width), (height, width) = shot.size, shot.crop.size
    if options.focal is not None:
        focal = options.focal
    elif options.fov is not None:
        focal = frame_width / 2 / math.tan(math.radians(options.fov) / 2)
    else:
        focal = camera.DEFAULT_FOCAL * max(height, width)
    return np.array([focal / width, focal / height,
                     (frame_width / 2 - shot.crop.left) / width,
                     (frame_height / 2 - shot.crop.top) / height])


def _good_runs(made: Sequence[MadeFrame], least: int) -> list[list[MadeFrame]]:
    """Split off the runs of consecutive good frames that are long enough."""
    runs: list[list[MadeFrame]] = [[]]
    for frame in made:
        if frame.flaw:
            runs.append([])
        else:
            runs[-1].append(frame)
    return [run for run in runs if len(run) >= least]


def _why_no_run(made: Sequence[MadeFrame], least: int) -> str:
    flawed = [frame for frame in made if frame.flaw]
    if not flawed:
        return f'only {len(made)} frames could be placed, {least} are needed'
    return (f'{len(flawed)} of {len(made)} frames failed and no {least} good ones follow each '
            f'other; the first: {flawed[0].flaw}')


def _clip(run: Sequence[MadeFrame], structure: Structure,
          info: ClipInfo) -> tuple[ClipInfo, list[ClipFrame]]:
    """Facts and frames of a bag."""
    poses = np.stack([structure.poses[frame.number] for frame in run])
    turn = turn_against_sky(poses, [frame.edge for frame in run])
    poses = level_world(poses, [frame.down for frame in run])
    details = {name: round(float(np.mean([getattr(frame, name) for frame in run])), 5)
               for name in ('warp_error', 'static_error')}
    if turn is not None:
        details['turn_against_sky_degrees'] = round(turn, 2)
    intrinsics = torch.from_numpy(structure.intrinsics)[None]
    frames = [ClipFrame(frame.stamp, frame.jpeg, pose[None], intrinsics,
                        frame.disparity.astype(np.float32),
                        structure.points[frame.number].astype(np.float32))
              for frame, pose in zip(run, torch.from_numpy(poses), strict=True)]
    return replace(info, details=info.details | details), frames


def _write(folder: Path, info: ClipInfo, frames: Sequence[ClipFrame]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with ClipWriter(folder, info) as writer:
        for frame in frames:
            writer.add(frame)


def _method(options: VideoOptions) -> str:
    guess = ('optical flow triangulated with the poses' if options.disparity == DENSE
             else options.disparity)
    return ('points followed on land, COLMAP global mapping, '
            f'disparity: {guess}, scale and shift fitted to the points of each frame')


def _shot_details(shot: Shot, structure: Structure, keyframes: Sequence[int],
                  made: Sequence[MadeFrame]) -> dict[str, str | float | int]:
    height, width = shot.crop.size
    return {
        'first_frame_of_shot': shot.first,
        'last_frame_of_shot': shot.last,
        'frames_failed_in_shot': sum(bool(frame.flaw) for frame in made),
        'crop': f'{width}x{height}+{shot.crop.left}+{shot.crop.top}',
        'focal_px': round(float(structure.intrinsics[0]) * width, 2),
        'reprojection_error_px': round(structure.error * width, 4),
        'keyframes': len(keyframes),
        'pycolmap': version('pycolmap'),
        'opencv': cv2.__version__,
    }
