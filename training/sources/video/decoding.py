"""Frames of a video file, one after the other: upright, with square pixels and their times."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from infinite_nature_training.bags import ClipError

SUFFIXES = ('.avi', '.m4v', '.mkv', '.mov', '.mp4', '.mpeg', '.mpg', '.mts', '.webm')
"""What counts as a video in a folder."""


@dataclass(frozen=True, eq=False)
class VideoFrame:
    """One decoded frame.

    Attributes:
        number: counts up from 0 over the whole file.
        stamp: nanoseconds since the file's time 0; increasing.
        image: uint8 ``[H, W, 3]`` RGB.
    """

    number: int
    stamp: int
    image: np.ndarray


def read_frames(path: Path, first: int = 0, last: int | None = None, *,
                start: int = 0) -> Iterator[VideoFrame]:
    """Yield the frames of a video's first video stream, decoding as it goes.

    Frames are turned upright as the file's display matrix says, and squeezed pixels are stretched.
    A frame that comes without a time, or not later than the one before it, is passed over.

    Args:
        path: file of any kind that FFmpeg reads.
        first: number of the first frame to yield.
        last: number of the last one; ``None`` is the end of the file.
        start: nanoseconds; decoding begins at the last key frame before, and frames are counted
            from there.

    Raises:
        ClipError: if the file is missing, no video, or damaged.
    """
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ClipError(f'{path.name} has no video stream; give a video file')
            stream = container.streams.video[0]
            stream.thread_type = 'AUTO'
            if start:
                container.seek(int(start / stream.time_base / 10**9), stream=stream)
            decoded = enumerate(_in_order(container.decode(stream)))
            for number, (stamp, frame) in decoded:
                if number >= first:
                    yield VideoFrame(number, stamp, _upright(frame, stream.sample_aspect_ratio))
                if number == last:
                    return
    except (av.FFmpegError, OSError) as error:
        raise ClipError(f'{path.name} cannot be decoded ({error}); '
                        'copy it again, or convert it to MP4') from error


def _in_order(frames: Iterator[av.VideoFrame]) -> Iterator[tuple[int, av.VideoFrame]]:
    """Frames with their times in nanoseconds, those that go forward."""
    latest = -1
    for frame in frames:
        if frame.pts is None:
            continue
        stamp = int(frame.pts * frame.time_base * 10**9)
        if stamp > latest:
            latest = stamp
            yield stamp, frame


def _upright(frame: av.VideoFrame, pixel_aspect: Fraction | None) -> np.ndarray:
    """uint8 ``[H, W, 3]`` as a player shows it."""
    image = frame.to_ndarray(format='rgb24')
    if pixel_aspect and pixel_aspect != 1:
        width = round(image.shape[1] * float(pixel_aspect))
        image = cv2.resize(image, (width, len(image)), interpolation=cv2.INTER_LINEAR)
    # The display matrix turns counterclockwise, as rot90 does.
    turned = np.rot90(image, round(frame.rotation / 90) % 4)
    return np.ascontiguousarray(turned)
