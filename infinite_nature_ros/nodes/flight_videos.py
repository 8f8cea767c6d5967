"""Videos of a flight, made of its messages: of the frames as they are, or smoothed."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from infinite_nature_ros.camera import MAX_DISPARITY, MIN_DISPARITY
from infinite_nature_ros.frame import Frame
from infinite_nature_ros.interpolation import interpolate_frames
from infinite_nature_ros.nodes.messages import (
    image_array,
    intrinsics_from_message,
    pose_from_message,
)
from infinite_nature_ros.pixels import from_pixels, to_pixels
from infinite_nature_ros.recording import colourise, VideoWriter


class FlightVideo:
    """RGB beside coloured disparity, with a constant frame rate.

    Attributes:
        topics: topics whose messages it needs of each frame.
        path: file that is written.
    """

    topics: tuple[str, ...] = ('camera/image_raw', 'camera/disparity/image')

    def __init__(self, path: Path, rate: float) -> None:
        """Open the file, for ``rate`` frames per second."""
        self.path = path
        self._writer = VideoWriter(path, rate)

    @property
    def waiting(self) -> int:
        """Frames that were added but aren't written yet."""
        return 0

    def add(self, messages: Mapping[str, Any]) -> None:
        """Append a frame, given as its messages by topic."""
        self._write(image_array(messages['camera/image_raw']),
                    image_array(messages['camera/disparity/image']))

    def close(self) -> None:
        """Write what waits and finish the file."""
        self._writer.close()

    def _write(self, picture: np.ndarray, disparity: np.ndarray) -> None:
        self._writer.write(np.hstack([picture, colourise(disparity)]))


class SmoothFlightVideo(FlightVideo):
    """Video with further frames between those that were published.

    To blend them takes longer than to fly, so a thread does it, and what it hasn't come to waits
    in memory: half a megabyte a frame at 160 x 256.
    """

    topics = ('camera/camera_info', 'camera/depth/image_rect', 'camera/disparity/image',
              'camera/image_raw', 'camera/known/image', 'pose')

    def __init__(self, path: Path, rate: float, between: int) -> None:
        """Open the file.

        Args:
            path: file to write.
            rate: published frames per second; the video has ``between + 1`` times as many.
            between: frames to put between two that were published.

        Raises:
            ValueError: if a number is not positive.
        """
        if between < 1:
            raise ValueError(f'frames between two are {between}; give at least 1')
        super().__init__(path, rate * (between + 1))
        self._between = between
        self._last: Frame | None = None
        # With more threads it would only take the cores from the nodes that fly.
        self._worker = ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,))
        self._tasks: deque[Future[None]] = deque()

    @property
    def waiting(self) -> int:
        """Frames that were added but aren't written yet."""
        return sum(not task.done() for task in self._tasks)

    def add(self, messages: Mapping[str, Any]) -> None:
        """Append a frame and what leads to it; an earlier one's error is raised here."""
        self._tasks.append(self._worker.submit(self._blend, messages))
        while self._tasks and self._tasks[0].done():
            self._tasks.popleft().result()

    def close(self) -> None:
        """Write what waits and finish the file."""
        self._worker.shutdown()
        super().close()
        for task in self._tasks:
            task.result()

    def _blend(self, messages: Mapping[str, Any]) -> None:
        """Write the frames from the last one to this one, then this one as it is."""
        before, self._last = self._last, frame_from_messages(messages)
        if before is not None:
            for frame in interpolate_frames(before, self._last, self._between):
                self._write(to_pixels(frame.image)[0], frame.disparity[0, 0].numpy())
        super().add(messages)


def frame_from_messages(messages: Mapping[str, Any]) -> Frame:
    """Frame of batch size 1, as a generator with a ``scene_scale`` of 1 published it.

    Args:
        messages: messages by topic, those of ``SmoothFlightVideo.topics``.
    """
    disparity = _plane(image_array(messages['camera/disparity/image']))
    # REP 118: +Inf is beyond what can be measured, which here is the sky.
    sky = _plane(np.isinf(image_array(messages['camera/depth/image_rect'])))
    return Frame(
        image=from_pixels(image_array(messages['camera/image_raw']))[None],
        disparity=disparity.clamp(MIN_DISPARITY, MAX_DISPARITY),
        known=_plane(image_array(messages['camera/known/image'])) / 255,
        pose=pose_from_message(messages['pose'].pose, scene_scale=1.0).float(),
        intrinsics=intrinsics_from_message(messages['camera/camera_info']), sky=sky)


def _plane(values: np.ndarray) -> Tensor:
    """``[1, 1, H, W]`` float32 of ``[H, W]``."""
    return torch.from_numpy(values.astype(np.float32))[None, None]
