"""ACID and RealEstate10K: the text files of poses, joined with frames, become bags.

The datasets are text only, one file a clip: the address of a video, then a line a frame with
microseconds, normalised fx fy cx cy, two unused numbers and the 3 x 4 world-to-camera matrix.
Their scale is arbitrary, but such that the nearest things are about as near in every clip.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
import math
from pathlib import Path
import re
from urllib.parse import parse_qs, urlsplit

import numpy as np
import torch
from torch import Tensor

from infinite_nature_ros.camera import check_intrinsics, check_pose, position
from infinite_nature_ros.depth_sources import estimate_disparity
from infinite_nature_ros.pixels import from_pixels
from infinite_nature_ros.pose_files import REALESTATE10K_COLUMNS, RealEstate10KLine
from infinite_nature_training.bags import ClipError, ClipFrame, ClipInfo, ClipWriter
from infinite_nature_training.conversion import Job
from infinite_nature_training.sources.joining import join, list_pictures
from infinite_nature_training.sources.pictures import Cropper, read_picture
from infinite_nature_training.sources.video.decoding import SUFFIXES

NO_DISPARITY = 'none'
"""Disparity source of a bag without disparity."""

_SPLITS = {'train': 'train', 'training': 'train', 'validation': 'validation', 'val': 'validation',
           'test': 'test'}

# Rounded text is put right below this; above, the matrix is something else than a rotation.
_MAX_SHEAR = 0.02
# Scene units; pixelSplat skips less as well.
_LEAST_MOTION = 1e-3
# Microseconds between frames; milliseconds and nanoseconds look like other rates.
_FRAME_INTERVALS = (2_000, 10_000_000)


@dataclass(frozen=True)
class AcidOptions:
    """How clips become bags; see ``infinite-nature bag from-acid --help``."""

    slop: float = 0.008
    rate: float = 0.0
    height: int = 0
    licence: str = ''
    scene_scale: float = 1.0
    disparity: str = NO_DISPARITY
    min_frames: int = 2
    max_fov: float = 100.0


@dataclass(frozen=True)
class AcidFiles:
    """Files of a clip, as paths; ``frames`` is '' where there are none.

    Where the frames lie is no part of the ``repr``: videos that were moved or deleted since don't
    make another bag.
    """

    text: str
    frames: str = field(repr=False)


@dataclass(frozen=True, eq=False)
class AcidText:
    """A clip's text file.

    Attributes:
        address: of the video; '' where the file doesn't say.
        times: nanoseconds in the video, increasing.
        intrinsics: float64 ``[N, 4]`` fx, fy, cx, cy, normalised.
        poses: float64 ``[N, 3, 4]`` world to camera, rotations orthonormal.
        notes: what was passed over, in words.
    """

    address: str
    times: list[int]
    intrinsics: Tensor
    poses: Tensor
    notes: list[str] = field(default_factory=list)

    @property
    def aspect(self) -> float:
        """Width over height of the frames that the poses were found with: of square pixels."""
        fx, fy = self.intrinsics[0, :2].tolist()
        return fy / fx


def read_acid(path: Path) -> AcidText:
    """Read a text file of ACID or RealEstate10K.

    Missing addresses, byte order marks, CRLF, empty lines and comments are understood. A last line
    that was cut short and lines that come twice are left out.

    Raises:
        ClipError: if a line isn't 19 numbers, or they can't be those of a camera, or times don't
            increase; the line is named.
        OSError: if the file can't be read.
    """
    text = path.read_text(encoding='utf-8-sig', errors='replace')
    rows = [(number, line.split()) for number, line in enumerate(text.splitlines(), start=1)
            if line.strip() and not line.startswith('#')]
    if not rows:
        raise ClipError(f'{path.name} is empty')
    address = ''
    if not _is_number(rows[0][1][0]):
        address = ' '.join(rows.pop(0)[1])
    notes = [] if address else ['without the address of the video']
    if rows and not text.endswith('\n') and _is_cut(rows):
        rows.pop()
        notes.append('the last line was cut short')
    if not rows:
        raise ClipError(f'{path.name} holds no pose, only the address')
    rows = _drop_repeats(rows, notes)
    lines = []
    for number, words in rows:
        try:
            lines.append(_parse(words))
        except ValueError as error:
            raise ClipError(f'{path.name}, line {number}: {error}') from error
    _check_times(path.name, [line.microseconds for line in lines], [number for number, _ in rows])
    unused = max(abs(value) for line in lines for value in line.unused)
    if unused:
        notes.append(f'columns 6 and 7, up to {unused:g}, may be distortion, which is not undone')
    return AcidText(address, [round(line.microseconds) * 1000 for line in lines],
                    torch.cat([line.intrinsics for line in lines]),
                    torch.cat([line.pose for line in lines]), notes)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _is_cut(rows: list[tuple[int, list[str]]]) -> bool:
    """Whether the last line lacks columns, or digits that the line before has."""
    last = rows[-1][1]
    if len(last) < REALESTATE10K_COLUMNS or len(rows) < 2:
        return len(last) < REALESTATE10K_COLUMNS
    digits = [len(words[-1].partition('.')[2]) for _, words in rows[-2:]]
    return digits[1] < digits[0]


def _drop_repeats(rows: list[tuple[int, list[str]]],
                  notes: list[str]) -> list[tuple[int, list[str]]]:
    """Leave out lines that say the same as the one before."""
    kept = [row for row, before in zip(rows, [(0, ['']), *rows], strict=False)
            if row[1] != before[1]]
    if len(kept) < len(rows):
        notes.append(f'{len(rows) - len(kept)} lines came twice')
    return kept


def _parse(words: list[str]) -> RealEstate10KLine:
    """Read a line, its rotation made orthonormal.

    Raises:
        ValueError: if it isn't one.
    """
    if len(words) != REALESTATE10K_COLUMNS:
        raise ValueError(f'it has {len(words)} columns; give {REALESTATE10K_COLUMNS}: '
                         'microseconds, fx fy cx cy, two unused, the 12 of the 3 x 4 matrix')
    line = RealEstate10KLine.from_columns([float(word) for word in words])
    if not (math.isfinite(line.microseconds) and line.microseconds >= 0):
        raise ValueError(f'its time is {words[0]}; give microseconds')
    check_intrinsics(line.intrinsics)
    if not ((line.intrinsics[:, 2:] > 0) & (line.intrinsics[:, 2:] < 1)).all():
        raise ValueError(f'cx, cy are {words[3]}, {words[4]}; give them normalised, in the picture')
    pose = _orthonormal(line.pose)
    return RealEstate10KLine(line.microseconds, line.intrinsics, line.unused, pose)


def _orthonormal(pose: Tensor) -> Tensor:
    """Pose with the nearest rotation; text has it rounded.

    Raises:
        ValueError: if it holds NaN or is far from one.
    """
    if torch.isfinite(pose).all():
        left, stretch, right = torch.linalg.svd(pose[..., :3])
        if (stretch - 1).abs().max() < _MAX_SHEAR:
            pose = torch.cat([left @ right, pose[..., 3:]], dim=-1)
    return check_pose(pose, 'the pose')


def _check_times(name: str, times: list[float], numbers: list[int]) -> None:
    """Raise ``ClipError`` if times can't be microseconds, or don't increase."""
    shortest, longest = _FRAME_INTERVALS
    interval = np.median(np.diff(times)) if len(times) > 1 else shortest
    if 0 < interval < shortest or interval > longest:
        raise ClipError(f'{name}: frames are {interval:g} apart, which cannot be microseconds; '
                        'give those')
    for number, earlier, later in zip(numbers[1:], times, times[1:], strict=False):
        if later <= earlier:
            raise ClipError(f'{name}, line {number}: its time {later:.0f} comes after '
                            f'{earlier:.0f}; times of one clip increase')


def video_id(address: str) -> str:
    """Find what identifies a video in its address, as in names of downloads; '' if nothing."""
    parts = urlsplit(address.strip())
    from_query = parse_qs(parts.query).get('v')
    return from_query[0] if from_query else Path(parts.path).stem


class FrameFinder:
    """Finds the frames of clips in a folder of videos and of folders of pictures."""

    def __init__(self, source: Path) -> None:
        """Look through a folder once.

        Args:
            source: the folder, or one video.

        Raises:
            ClipError: if it isn't there.
        """
        if not source.exists():
            raise ClipError(f'{source} is not there; give a video, or a folder of videos or of '
                            'folders of pictures')
        self._source = source
        self.is_one = source.is_file() or bool(list_pictures(source))
        """Whether there are frames of one video only, for all clips."""
        self._entries: dict[str, Path] = {}
        folders = [] if self.is_one else [source, *(source / split for split in _SPLITS)]
        for folder in filter(Path.is_dir, folders):
            for path in sorted(folder.iterdir()):
                if path.is_dir():
                    self._entries[path.name] = path
                elif path.suffix.lower() in SUFFIXES:
                    # yt-dlp calls a file 'title [id].mp4'.
                    named = re.search(r'\[([^\[\]]+)\]$', path.stem)
                    self._entries[named[1] if named else path.stem] = path

    def find(self, name: str, video: str) -> Path | None:
        """Frames of a clip; ``None`` if there are none.

        Args:
            name: the clip's own, which may have folders in front.
            video: its video's identity, or ''.
        """
        if self.is_one:
            return self._source
        clip = Path(name).name
        of_video = self._entries.get(video)
        candidates = (self._source / name, self._entries.get(clip),
                      of_video and of_video / clip, of_video)
        return next((path for path in candidates if path and path.exists()), None)


def find_texts(path: Path, leave_out: Path | None = None) -> dict[str, Path]:
    """Text files of clips by the clips' names: one file, or all below a folder.

    Args:
        path: the file or folder.
        leave_out: folder of other things, which may be in it.

    Raises:
        ClipError: if there are none.
    """
    if path.is_file():
        return {path.stem: path}
    texts = {file.relative_to(path).with_suffix('').as_posix(): file
             for file in sorted(path.rglob('*.txt'))
             if leave_out is None or not file.is_relative_to(leave_out)}
    if not texts:
        raise ClipError(f'{path} holds no .txt; give a file of poses or a folder of them')
    return texts


def address_of(path: Path) -> str:
    """Address of the video in a text file's first line; '' where it has none."""
    with path.open(encoding='utf-8-sig', errors='replace') as file:
        words = file.readline().split()
    return '' if not words or _is_number(words[0]) else ' '.join(words)


def split_of(path: Path) -> str:
    """Split that the folders of a path tell; '' if none does, as of ACID-Large."""
    return next((_SPLITS[part] for part in reversed(path.parent.parts) if part in _SPLITS), '')


def acid_jobs(texts: dict[str, Path], frames: Path, split: str,
              options: AcidOptions) -> tuple[list[Job], list[str]]:
    """Jobs for :func:`convert`, and the addresses of videos whose frames aren't there.

    Args:
        texts: of :func:`find_texts`.
        frames: a video, or a folder as :class:`FrameFinder` takes.
        split: of all clips; '' for what their folders say.
        options: for all clips.

    Raises:
        ClipError: if there are no frames at all, or those of one video for clips of several.
    """
    finder, jobs, missing = FrameFinder(frames), [], {}
    addresses = {name: address_of(path) for name, path in texts.items()}
    videos = {video_id(address) for address in addresses.values()} - {''}
    if finder.is_one and len(videos) > 1:
        raise ClipError(f'{frames} has the frames of one video, but the poses are of '
                        f'{len(videos)}; give a folder with a video or folder for each')
    for name, path in texts.items():
        address = addresses[name]
        found = finder.find(name, video_id(address))
        if found is None:
            missing[address] = None
        files = AcidFiles(str(path), str(found or ''))
        jobs.append(Job(name, (files, split or split_of(path), options)))
    return jobs, [address for address in missing if address]


def make_bag(folder: Path, name: str, files: AcidFiles, split: str,
             options: AcidOptions) -> list[str]:
    """Make the bag of a clip; for :func:`convert`.

    Args:
        folder: where the bag goes.
        name: of the bag below it.
        files: what it is made from.
        split: as in ``ClipInfo``.
        options: as of the command.

    Returns:
        The name.

    Raises:
        ClipError: if the clip can't be used; it says why.
    """
    text, frames = Path(files.text), Path(files.frames)
    clip = _read_checked(text, options)
    if not files.frames:
        raise ClipError(f'its frames are not there; the video is {clip.address or "not named"}')
    joined = join(frames, clip.times, round(options.slop * 10**9), options.rate)
    info = ClipInfo(
        source=clip.address or frames.name, licence=options.licence, split=split,
        scene_scale=options.scene_scale, method='; '.join([
            'poses and intrinsics of an ACID or RealEstate10K text', f'frames: {joined.how}',
            'no disparity' if options.disparity == NO_DISPARITY else
            f'disparity of {options.disparity}, not aligned to the poses', *clip.notes]),
        details={'text': text.name, 'poses': len(clip.times)})
    with ClipWriter(folder / name, info) as writer:
        for frame in _frames(clip, joined.pictures, options):
            writer.add(frame)
        if writer.frames < options.min_frames:
            raise ClipError(f'only {writer.frames} of {len(clip.times)} frames are within '
                            f'{options.slop * 1000:g} ms of a pose in {frames.name}; '
                            f'at least {options.min_frames} are wanted')
    return [name]


def _read_checked(path: Path, options: AcidOptions) -> AcidText:
    """Read a text file, if its camera can be used."""
    clip = read_acid(path)
    fov = math.degrees(2 * math.atan(0.5 / clip.intrinsics[:, 0].min().item()))
    if fov > options.max_fov:
        raise ClipError(f'its field of view is {fov:.0f} degrees, above {options.max_fov:g}')
    centres = position(clip.poses)
    extent = (centres - centres[0]).norm(dim=1).max().item()
    if extent < _LEAST_MOTION:
        raise ClipError(f'the camera stands still, it moves by {extent:.2g} scene units')
    return clip


def _frames(clip: AcidText, pictures: Iterator[tuple[int, Path | np.ndarray]],
            options: AcidOptions) -> Iterator[ClipFrame]:
    cropper = Cropper(clip.aspect, options.height)
    for index, source in pictures:
        picture = cropper.fit(read_picture(source) if isinstance(source, Path) else source)
        frame = ClipFrame(clip.times[index], picture, clip.poses[index, None],
                          clip.intrinsics[index, None])
        if options.disparity != NO_DISPARITY:
            frame = replace(frame, disparity=_disparity(frame.image(), options.disparity))
        yield frame


def _disparity(image: np.ndarray, source: str) -> np.ndarray:
    """float32 ``[H, W]`` of uint8 ``[H, W, 3]``."""
    return estimate_disparity(from_pixels(image)[None], source)[0, 0].numpy()
