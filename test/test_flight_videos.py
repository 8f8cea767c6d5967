"""Videos made of messages: every frame is in them, and smooth ones have what lies between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
from geometry_msgs.msg import PoseStamped
import numpy as np
import pytest
from std_msgs.msg import Header
from test_interpolation import plane, pose_at
import torch

from infinite_nature_ros.frame import Frame
from infinite_nature_ros.interpolation import interpolate_frames
from infinite_nature_ros.nodes import messages as ros
from infinite_nature_ros.nodes.flight_videos import (
    FlightVideo,
    frame_from_messages,
    SmoothFlightVideo,
)
from infinite_nature_ros.pixels import to_pixels

FLIGHT = [plane(pose_at(0.1 * number, 0.02 * number)) for number in range(4)]


def published(frame: Frame) -> dict[str, Any]:
    header = Header()
    pose = PoseStamped(pose=ros.pose_message(frame.pose, 1.0))
    info = ros.camera_info_message(frame.intrinsics, *frame.image.shape[2:], header)
    known = np.where(frame.known[0, 0].numpy() > 0.5, 255, 0)
    return {
        'camera/camera_info': info, 'pose': pose,
        'camera/image_raw': ros.image_message(to_pixels(frame.image)[0], 'rgb8', header),
        'camera/known/image': ros.image_message(known, 'mono8', header),
        'camera/disparity/image': ros.image_message(
            frame.disparity[0, 0].numpy(), '32FC1', header),
        'camera/depth/image_rect': ros.image_message(frame.depth[0, 0].numpy(), '32FC1', header)}


def pictures(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format='rgb24')[:, :96] for frame in container.decode(video=0)]


def difference(picture: np.ndarray, frame: Frame) -> float:
    """Mean difference but for the colours, which H.264 keeps at half the resolution."""
    return float(np.abs(picture.mean(2) - to_pixels(frame.image)[0].mean(2)).mean())


def test_messages_make_the_frame_that_was_published() -> None:
    frame = FLIGHT[2].replace(known=(torch.rand_like(FLIGHT[2].known) > 0.5).float())
    made = frame_from_messages(published(frame))
    for name, value in made.tensors().items():
        tolerance = 0.5 / 255 + 1e-6 if name == 'image' else 1e-5
        torch.testing.assert_close(value, getattr(frame, name), atol=tolerance, rtol=0)


def test_a_video_has_the_frames_as_they_are(tmp_path: Path) -> None:
    video = FlightVideo(tmp_path / 'flight.mp4', 10)
    for frame in FLIGHT:
        video.add(published(frame))
        assert video.waiting == 0
    video.close()
    shown = pictures(video.path)
    assert len(shown) == 4
    for picture, frame in zip(shown, FLIGHT, strict=True):
        assert difference(picture, frame) < 3


def test_a_smooth_video_has_what_lies_between_in_order(tmp_path: Path) -> None:
    video = SmoothFlightVideo(tmp_path / 'flight.mp4', 10, between=2)
    for frame in FLIGHT:
        video.add(published(frame))
    video.close()
    assert video.waiting == 0
    expected = [FLIGHT[0]]
    for before, after in zip(FLIGHT, FLIGHT[1:], strict=False):
        expected += [*interpolate_frames(before, after, 2), after]
    shown = pictures(video.path)
    assert len(shown) == 10
    for number, picture in enumerate(shown):
        differences = [difference(picture, frame) for frame in expected]
        assert differences[number] == min(differences) < 3
    with av.open(str(video.path)) as container:
        assert container.streams.video[0].average_rate == 30


def test_one_frame_has_nothing_between(tmp_path: Path) -> None:
    video = SmoothFlightVideo(tmp_path / 'flight.mp4', 10, between=4)
    video.add(published(FLIGHT[0]))
    video.close()
    assert len(pictures(video.path)) == 1


def test_an_error_in_the_making_is_not_lost(tmp_path: Path) -> None:
    video = SmoothFlightVideo(tmp_path / 'flight.mp4', 10, between=1)
    video.add(published(FLIGHT[0]))
    smaller = Frame(**{name: value[..., ::2] if value.dim() == 4 else value
                       for name, value in FLIGHT[1].tensors().items()})
    with pytest.raises(ValueError, match='of one flight'):  # noqa: PT012
        video.add(published(smaller))
        video.close()
    assert len(pictures(video.path)) == 1


def test_wrong_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='at least 1'):
        SmoothFlightVideo(tmp_path / 'flight.mp4', 10, between=0)
