"""What is kept of a flight: video, contact sheet and a plot of the trajectory. Knows no ROS."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import cv2
import numpy as np

from infinite_nature_ros.camera import MAX_DISPARITY, MIN_DISPARITY

_SHEET_GAP = 4
_LABEL_SCALE = 0.5

# x264's constant rate factor, 0 lossless to 51 worst: hardly any loss to see.
_RATE_FACTOR = '18'


def colourise(disparity: np.ndarray) -> np.ndarray:
    """Colours of a disparity: bright is near, dark is far.

    The range is that of the disparity contract and the same for all frames, so a video doesn't
    flicker; the square root gives the far half of a landscape its share of the colours.

    Args:
        disparity: ``[H, W]``, 1 / scene units.

    Returns:
        uint8 ``[H, W, 3]`` RGB.
    """
    share = (disparity - MIN_DISPARITY) / (MAX_DISPARITY - MIN_DISPARITY)
    grey = (np.sqrt(np.clip(share, 0, 1)) * 255).round().astype(np.uint8)
    return cv2.cvtColor(cv2.applyColorMap(grey, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)


class VideoWriter:
    """H.264 video with a constant frame rate that plays however the program ends.

    The MP4 is written in fragments of half a second, each complete in itself: after ``kill -9``
    only the fragment in the making is lost, after :meth:`close` nothing.
    """

    def __init__(self, path: str | Path, rate: float) -> None:
        """Open the file; its size is taken from the first frame.

        Args:
            path: file to write, ``.mp4``.
            rate: frames per second.

        Raises:
            ValueError: if the rate isn't positive.
            OSError: if the file can't be written.
        """
        if not rate > 0:
            raise ValueError(f'rate is {rate} frames per second; give a positive number')
        self.path = Path(path)
        self.frames = 0
        self._rate = Fraction(rate).limit_denominator(1000)
        # flush_packets writes each fragment when it's complete, not when a buffer is full.
        self._container = av.open(
            str(path), 'w', format='mp4',
            options={'movflags': 'frag_keyframe+empty_moov+default_base_moof',
                     'flush_packets': '1'})
        self._stream: av.VideoStream | None = None

    def write(self, image: np.ndarray) -> None:
        """Append a frame.

        Args:
            image: uint8 ``[H, W, 3]`` RGB; H and W even, and the same for all frames.

        Raises:
            ValueError: if the frame has another size than the first one, or an odd one.
        """
        if self._stream is None:
            self._stream = self._open_stream(*image.shape[:2])
        expected = (self._stream.height, self._stream.width, 3)
        if image.shape != expected or image.dtype != np.uint8:
            raise ValueError(f'frame is {image.dtype} {image.shape}; '
                             f'give uint8 {expected} like the first one')
        frame = av.VideoFrame.from_ndarray(image, format='rgb24')
        frame.pts = self.frames
        self.frames += 1
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Finish the file; may be called again."""
        if self._stream is not None:
            self._container.mux(self._stream.encode(None))
            self._stream = None
        self._container.close()

    def _open_stream(self, height: int, width: int) -> av.VideoStream:
        """Add an encoder of the first frame's size."""
        if height % 2 or width % 2:
            raise ValueError(f'frame is {width} x {height}; H.264 needs even sizes')
        stream = self._container.add_stream('libx264', rate=self._rate)
        stream.width, stream.height, stream.pix_fmt = width, height, 'yuv420p'
        stream.codec_context.gop_size = max(1, round(self._rate / 2))
        # Without look-ahead a frame is in the file as soon as its fragment is.
        stream.options = {'crf': _RATE_FACTOR, 'tune': 'zerolatency'}
        return stream

    def __enter__(self) -> VideoWriter:
        """Return the writer itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        """Finish the file."""
        self.close()


class EvenSample:
    """Few pictures of a flight of unknown length, evenly spaced, with their numbers."""

    def __init__(self, limit: int = 24) -> None:
        """Keep from half the limit to the limit, once there are as many."""
        self.pictures: dict[int, np.ndarray] = {}
        self._limit = limit
        self._stride = 1

    def wants(self, number: int) -> bool:
        """Whether a picture of this number would be kept now."""
        return number % self._stride == 0

    def add(self, number: int, picture: np.ndarray) -> None:
        """Offer a picture; numbers count up from 0."""
        if not self.wants(number):
            return
        self.pictures[number] = picture
        if len(self.pictures) > self._limit:
            self._stride *= 2
            self.pictures = {number: picture for number, picture in self.pictures.items()
                             if number % self._stride == 0}


def contact_sheet(pictures: dict[int, np.ndarray], columns: int = 4) -> np.ndarray:
    """Sheet of pictures with their frame numbers, row by row.

    Args:
        pictures: uint8 ``[H, W, 3]`` RGB of one size, by frame number.
        columns: pictures in a row.

    Returns:
        uint8 ``[rows * (H + 4), columns * (W + 4), 3]`` RGB.

    Raises:
        ValueError: if there are no pictures.
    """
    if not pictures:
        raise ValueError('a contact sheet needs at least one picture')
    height, width = next(iter(pictures.values())).shape[:2]
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    sheet = np.full((rows * (height + _SHEET_GAP), columns * (width + _SHEET_GAP), 3), 255,
                    np.uint8)
    for place, (number, picture) in enumerate(pictures.items()):
        y = place // columns * (height + _SHEET_GAP)
        x = place % columns * (width + _SHEET_GAP)
        sheet[y:y + height, x:x + width] = _labelled(picture, str(number))
    return sheet


def _labelled(picture: np.ndarray, text: str) -> np.ndarray:
    """Copy of a picture with a text in its upper left corner, readable on any ground."""
    picture = np.ascontiguousarray(picture).copy()
    for colour, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.putText(picture, text, (5, 17), cv2.FONT_HERSHEY_SIMPLEX, _LABEL_SCALE, colour,
                    thickness, cv2.LINE_AA)
    return picture


def save_picture(path: str | Path, picture: np.ndarray) -> None:
    """Write uint8 ``[H, W, 3]`` RGB as a file of the type that its name says.

    Raises:
        OSError: if the file can't be written.
    """
    if not cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)):
        raise OSError(f'cannot write {path}')


def plot_trajectory(positions: Sequence[Sequence[float]] | np.ndarray, path: str | Path,
                    landmarks: np.ndarray | None = None) -> None:
    """Plot where the camera was, from above and from the side, to equal scales.

    Args:
        positions: ``[N, 3]`` metres in ``map``: X forward, Y left, Z up (REP 103).
        path: PNG file to write.
        landmarks: ``[K, 3]`` likewise, points of the scene.

    Raises:
        ValueError: if there are no positions.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    points = np.asarray(positions, dtype=np.float64).reshape(-1, 3)
    if not len(points):
        raise ValueError('a trajectory needs at least one position')
    figure = Figure(figsize=(9, 7), layout='constrained')
    top, side = figure.subplots(2, 1)
    for axes, axis, label in ((top, 1, 'left, y (m)'), (side, 2, 'up, z (m)')):
        across = points[:, axis]
        if landmarks is not None:
            axes.plot(landmarks[:, 0], landmarks[:, axis], ',', color='0.6', zorder=0)
        axes.plot(points[:, 0], across, '.-', markersize=3, linewidth=1)
        axes.plot(points[0, 0], across[0], 'o', label='start')
        axes.set(xlabel='forward, x (m)', ylabel=label)
        axes.set_aspect('equal', adjustable='datalim')
        axes.grid(alpha=0.3)
        axes.legend()
    top.set_title('from above')
    side.set_title('from the side')
    FigureCanvasAgg(figure).print_png(str(path))
