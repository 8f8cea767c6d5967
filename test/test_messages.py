"""Conversions between tensors and ROS messages: there and back, and what is refused."""

from __future__ import annotations

import math
import sys
from types import SimpleNamespace

from geometry_msgs.msg import Point, Pose, Quaternion
import numpy as np
import pytest
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header
import torch

from infinite_nature_ros import camera
from infinite_nature_ros.nodes import messages

_RANDOM = np.random.default_rng(0)
_HEADER = Header(frame_id='camera_optical_frame')


def _pixels(kind: type, *shape: int) -> np.ndarray:
    if kind is np.float32:
        return _RANDOM.normal(size=shape).astype(kind)
    return _RANDOM.integers(0, np.iinfo(kind).max, shape, dtype=kind, endpoint=True)


_IMAGES = {
    'rgb8': _pixels(np.uint8, 6, 10, 3), 'bgr8': _pixels(np.uint8, 6, 10, 3),
    'rgba8': _pixels(np.uint8, 6, 10, 4), 'bgra8': _pixels(np.uint8, 6, 10, 4),
    'mono8': _pixels(np.uint8, 6, 10), 'mono16': _pixels(np.uint16, 6, 10),
    '16UC1': _pixels(np.uint16, 6, 10), '32FC1': _pixels(np.float32, 6, 10),
}


@pytest.mark.parametrize('encoding', _IMAGES)
def test_image_there_and_back(encoding: str) -> None:
    sent = messages.image_message(_IMAGES[encoding], encoding, _HEADER)
    got = deserialize_message(serialize_message(sent), Image)
    pixels = messages.image_array(got)
    assert (got.height, got.width, got.header) == (6, 10, _HEADER)
    assert pixels.dtype == _IMAGES[encoding].dtype
    assert np.array_equal(pixels, _IMAGES[encoding])


@pytest.mark.parametrize('encoding', _IMAGES)
def test_padded_big_endian_image(encoding: str) -> None:
    pixels = _IMAGES[encoding]
    swapped = pixels.astype(pixels.dtype.newbyteorder('>')).reshape(6, -1)
    rows = [row.tobytes() + b'padding' for row in swapped]
    message = Image(height=6, width=10, encoding=encoding, is_bigendian=1, step=len(rows[0]),
                    data=b''.join(rows))
    got = messages.image_array(message)
    assert got.dtype.isnative
    assert np.array_equal(got, pixels)


def test_infinity_survives() -> None:
    depth = np.array([[1.5, np.inf]], np.float32)
    assert np.array_equal(messages.image_array(messages.image_message(depth, '32FC1', _HEADER)),
                          depth)


@pytest.mark.parametrize(('encoding', 'pixel', 'colour'), [
    ('rgb8', [1, 2, 3], [1, 2, 3]), ('bgr8', [1, 2, 3], [3, 2, 1]),
    ('rgba8', [1, 2, 3, 9], [1, 2, 3]), ('bgra8', [1, 2, 3, 9], [3, 2, 1]),
    ('mono8', 7, [7, 7, 7]), ('mono16', 0x1234, [0x12] * 3), ('16UC1', 0xffff, [255] * 3)])
def test_colours(encoding: str, pixel: list[int] | int, colour: list[int]) -> None:
    message = messages.image_message(np.array([[pixel] * 2]), encoding, _HEADER)
    got = messages.rgb_array(message)
    assert got.dtype == np.uint8
    assert got.tolist() == [[colour] * 2]


@pytest.mark.parametrize(('change', 'fix'), [
    ({'encoding': 'yuv422_yuy2'}, 'send one of rgb8'),
    ({'encoding': ''}, 'send one of rgb8'),
    ({'encoding': '32FC1', 'step': 40}, 'send rgb8'),
    ({'step': 20}, 'at least 30'),
    ({'height': 7}, 'step \\* height'),
    ({'width': 0}, '0 x 6'),
])
def test_bad_image(change: dict, fix: str) -> None:
    message = messages.image_message(_IMAGES['rgb8'], 'rgb8', _HEADER)
    for name, value in change.items():
        setattr(message, name, value)
    with pytest.raises(ValueError, match=fix):
        messages.rgb_array(message)


def test_cv_bridge_decodes_what_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    class StandInBridge:
        def imgmsg_to_cv2(self, message: Image, encoding: str) -> np.ndarray:
            assert encoding == 'rgb8'
            if message.encoding != 'bayer_rggb8':
                raise StandInError('no such encoding')
            return np.full((2, 3, 3), 7, np.uint8)

    class StandInError(Exception):
        pass

    monkeypatch.setitem(sys.modules, 'cv_bridge',
                        SimpleNamespace(CvBridge=StandInBridge, CvBridgeError=StandInError))
    assert (messages.rgb_array(Image(encoding='bayer_rggb8')) == 7).all()
    with pytest.raises(ValueError, match='no such encoding'):
        messages.rgb_array(Image(encoding='nonsense'))


def test_disparity_is_brought_to_size_and_scene_units() -> None:
    metric = np.full((80, 200), 0.05, np.float32)
    metric[:, 100:] = 0.2
    got = messages.disparity_from_message(
        messages.image_message(metric, '32FC1', _HEADER), 64, 96, 10.0)
    assert got.shape == (1, 1, 64, 96)
    assert got[0, 0, :, 10].tolist() == pytest.approx([0.5] * 64)
    assert (got[0, 0, :, 80] == 1).all()
    for pixels, encoding, problem in ((metric * np.nan, '32FC1', 'NaN'),
                                      (_IMAGES['16UC1'], '16UC1', '32FC1')):
        with pytest.raises(ValueError, match=problem):
            messages.disparity_from_message(
                messages.image_message(pixels, encoding, _HEADER), 64, 96, 1.0)


def test_camera_info() -> None:
    intrinsics = camera.default_intrinsics(160, 256)
    info = messages.camera_info_message(intrinsics, 160, 256, _HEADER)
    assert (info.height, info.width, info.distortion_model) == (160, 256, 'plumb_bob')
    assert list(info.d) == [0.0] * 5
    assert list(info.r) == [1, 0, 0, 0, 1, 0, 0, 0, 1]
    assert list(info.k) == pytest.approx([204.8, 0, 127.5, 0, 204.8, 79.5, 0, 0, 1], rel=1e-6)
    assert list(info.p) == pytest.approx([204.8, 0, 127.5, 0, 0, 204.8, 79.5, 0, 0, 0, 1, 0],
                                         rel=1e-6)
    back = messages.intrinsics_from_message(info)
    assert torch.allclose(back, intrinsics, atol=1e-6)
    # ROS counts pixels from centre to centre: the ray through pixel (3, 2) says the same.
    ray = camera.pixel_rays(intrinsics, 160, 256)[0, :, 2, 3]
    pixel = np.array(info.k).reshape(3, 3) @ ray.double().numpy()
    assert pixel[:2] / pixel[2] == pytest.approx([3, 2], abs=1e-3)


def test_uncalibrated_camera_info() -> None:
    with pytest.raises(ValueError, match='not calibrated'):
        messages.intrinsics_from_message(CameraInfo(height=4, width=4))


@pytest.mark.parametrize('scale', [1.0, 10.0, 0.3])
def test_pose_there_and_back(scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        rotation = torch.linalg.qr(torch.randn(3, 3, generator=generator))[0]
        rotation = rotation * torch.linalg.det(rotation).sign()
        pose = camera.pose_at(torch.randn(1, 3, generator=generator) * 10, rotation[None])
        back = messages.pose_from_message(messages.pose_message(pose, scale), scale)
        assert torch.allclose(back, pose.double(), atol=1e-5)
        # Sent again, it is flown to the same float32.
        again = messages.pose_from_message(messages.pose_message(back, scale), scale)
        assert torch.allclose(again, back, rtol=1e-13, atol=1e-13)


def test_pose_is_in_ros_axes_and_metres() -> None:
    # One unit ahead, nose 90 degrees to the right: in map X is ahead, and right is minus yaw.
    turn = torch.tensor([[[0.0, 0, -1], [0, 1, 0], [1, 0, 0]]])
    pose = camera.pose_at(torch.tensor([[0.5, -0.25, 1.0]]), turn)
    message = messages.pose_message(pose, 10.0)
    place, quaternion = message.position, message.orientation
    assert (place.x, place.y, place.z) == pytest.approx((10, -5, 2.5))
    half = math.sqrt(0.5)
    assert [quaternion.w, quaternion.x, quaternion.y, quaternion.z] == pytest.approx(
        [half, 0, 0, -half], abs=1e-6)


def test_sloppy_quaternion_is_normalised() -> None:
    exact = messages.pose_from_message(Pose(orientation=Quaternion(w=1.0)), 1.0)
    sloppy = messages.pose_from_message(Pose(orientation=Quaternion(w=1.02)), 1.0)
    assert torch.equal(sloppy, exact)


@pytest.mark.parametrize(('pose', 'problem'), [
    (Pose(position=Point(x=math.nan)), 'NaN'), (Pose(position=Point(z=math.inf)), 'infinity'),
    (Pose(orientation=Quaternion(w=math.nan)), 'NaN'),
    (Pose(orientation=Quaternion(w=0.0)), 'zero quaternion')])
def test_bad_pose(pose: Pose, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        messages.pose_from_message(pose, 1.0)


def test_same_pose_allows_rounding_only() -> None:
    def pose(x: float, z: float = 0.0) -> Pose:
        return Pose(position=Point(x=x), orientation=Quaternion(w=math.sqrt(1 - z * z), z=z))

    assert messages.same_pose(pose(1.0), pose(1.0004), 1e-3)
    assert messages.same_pose(pose(5000.0), pose(5000.004), 1e-3)
    assert messages.same_pose(pose(1.0, 0.001), pose(1.0), 1e-3)
    assert not messages.same_pose(pose(1.0), pose(1.01), 1e-3)
    assert not messages.same_pose(pose(1.0, 0.02), pose(1.0), 1e-3)
    negated = Pose(orientation=Quaternion(w=-1.0))
    assert messages.same_pose(negated, pose(0.0), 1e-3)
