"""Poses, intrinsics, rays and frame conversions: the geometry that everything else shares.

A pose is ``world_to_camera`` ``[B, 3, 4]`` = [R | t] with OpenCV camera axes (X right, Y down,
Z forward). The world has the same axes but is level: its Y axis points along gravity. Intrinsics
are ``[B, 4]`` = (fx, fy, cx, cy), normalised by image width and height, so that the image spans
(0, 0) to (1, 1) and pixel i has its centre at (i + 0.5) / W (paper, section 3; release,
``geometry``).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

DEFAULT_FOCAL = 0.8
"""Focal length over image width when nothing is known: 64 degrees across, as in the release."""

MIN_DISPARITY = 0.01
MAX_DISPARITY = 1.0
"""The disparity contract of a ``Frame``: depth 1 to 100 scene units, sky at the bottom."""

# Rows are the body axes (X forward, Y left, Z up; REP 103) in OpenCV axes (X right, Y down,
# Z forward). The same matrix turns the level world into the ROS ``map`` frame.
_BODY_FROM_OPENCV = ((0.0, 0.0, 1.0), (-1.0, 0.0, 0.0), (0.0, -1.0, 0.0))

# A rotation that was stored as float32 text or as a quaternion is within this of orthonormal.
_ROTATION_TOLERANCE = 1e-3


def default_intrinsics(height: int, width: int, fov: float | None = None) -> Tensor:
    """Intrinsics of a camera with square pixels and a centred principal point.

    Args:
        height: image height in pixels.
        width: image width in pixels.
        fov: horizontal field of view in degrees; ``None`` is the release's 64.0 (fx = 0.8).

    Returns:
        ``[1, 4]`` fx, fy, cx, cy, normalised.

    Raises:
        ValueError: if the field of view is not between 5 and 170 degrees.
    """
    focal = DEFAULT_FOCAL
    if fov is not None:
        if not 5.0 <= fov <= 170.0:
            raise ValueError(f'fov is {fov} degrees; give a value from 5 to 170')
        focal = 0.5 / math.tan(math.radians(fov) / 2)
    return torch.tensor([[focal, focal * width / height, 0.5, 0.5]])


def identity_pose(batch: int = 1) -> Tensor:
    """``[B, 3, 4]`` poses at the world's origin, looking along its Z axis."""
    return torch.eye(3, 4).repeat(batch, 1, 1)


def level_pose(pitch: float | Tensor, roll: float | Tensor = 0.0) -> Tensor:
    """Pose at the world's origin of a camera that was pitched and rolled against the level world.

    Args:
        pitch: radians, positive is nose down (REP 103: about the body's Y axis).
        roll: radians, positive is right side down (REP 103: about the body's X axis).

    Returns:
        ``[B, 3, 4]`` world to camera; B is 1 for two floats.
    """
    pitch, roll = torch.broadcast_tensors(
        torch.as_tensor(pitch, dtype=torch.float32).reshape(-1),
        torch.as_tensor(roll, dtype=torch.float32).reshape(-1))
    zero, one = torch.zeros_like(pitch), torch.ones_like(pitch)
    cp, sp, cr, sr = pitch.cos(), pitch.sin(), roll.cos(), roll.sin()
    pitching = _rows((one, zero, zero), (zero, cp, -sp), (zero, sp, cp))
    rolling = _rows((cr, sr, zero), (-sr, cr, zero), (zero, zero, one))
    return torch.cat([rolling @ pitching, zero.reshape(-1, 1, 1).expand(-1, 3, 1)], dim=2)


def pitch_of_skyline(row: float | Tensor, intrinsics: Tensor) -> Tensor:
    """Camera pitch that puts the horizon at an image row.

    Args:
        row: height of the skyline in the image, 0 top to 1 bottom; a number or ``[B]``.
        intrinsics: ``[B, 4]``.

    Returns:
        ``[B]`` radians, positive is nose down.
    """
    row = torch.as_tensor(row, dtype=intrinsics.dtype, device=intrinsics.device)
    return torch.atan((intrinsics[:, 3] - row) / intrinsics[:, 1])


def _rows(*rows: tuple[Tensor, ...]) -> Tensor:
    """``[B, 3, 3]`` from nine ``[B]`` entries."""
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def inverse(pose: Tensor) -> Tensor:
    """Inverse of ``[B, 3, 4]`` rigid poses: camera to world from world to camera and back."""
    rotation = pose[..., :3].transpose(-1, -2)
    return torch.cat([rotation, -rotation @ pose[..., 3:]], dim=-1)


def compose(after: Tensor, before: Tensor) -> Tensor:
    """``[B, 3, 4]`` pose that applies ``before``, then ``after`` (matrix product)."""
    rotation = after[..., :3] @ before[..., :3]
    return torch.cat([rotation, after[..., :3] @ before[..., 3:] + after[..., 3:]], dim=-1)


def relative_pose(source_pose: Tensor, target_pose: Tensor) -> Tensor:
    """``[B, 3, 4]`` transform of source camera coordinates into target camera coordinates."""
    return compose(target_pose, inverse(source_pose))


def position(pose: Tensor) -> Tensor:
    """``[B, 3]`` camera centres in the world, scene units."""
    return inverse(pose)[..., 3]


def pose_at(position: Tensor, rotation: Tensor) -> Tensor:
    """``[B, 3, 4]`` world to camera, from centres ``[B, 3]`` and world-to-camera ``[B, 3, 3]``."""
    return torch.cat([rotation, -rotation @ position[..., None]], dim=-1)


def pixel_grid(height: int, width: int, device: torch.device | str = 'cpu') -> Tensor:
    """``[2, H, W]`` normalised x and y of all pixel centres."""
    y = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) / height
    x = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) / width
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)])


def pixel_rays(intrinsics: Tensor, height: int, width: int) -> Tensor:
    """Rays through all pixel centres, in camera axes, scaled to z = 1.

    Args:
        intrinsics: ``[B, 4]``.
        height: image height in pixels.
        width: image width in pixels.

    Returns:
        ``[B, 3, H, W]``; times depth it is the point that the pixel shows.
    """
    grid = pixel_grid(height, width, intrinsics.device)
    focal, centre = intrinsics[:, :2, None, None], intrinsics[:, 2:, None, None]
    xy = (grid - centre) / focal
    return torch.cat([xy, torch.ones_like(xy[:, :1])], dim=1)


def camera_matrix(intrinsics: Tensor, height: int, width: int) -> Tensor:
    """Intrinsics in pixels as OpenCV and ``CameraInfo`` have them: pixel (0, 0) lies at (0, 0).

    Args:
        intrinsics: ``[B, 4]``, normalised.
        height: image height in pixels.
        width: image width in pixels.

    Returns:
        float64 ``[B, 4]`` fx, fy, cx, cy of the matrix K.
    """
    size = torch.tensor([width, height], dtype=torch.float64, device=intrinsics.device)
    focal, centre = intrinsics.double().split(2, dim=1)
    return torch.cat([focal * size, centre * size - 0.5], dim=1)


def from_camera_matrix(matrix: Tensor, height: int, width: int) -> Tensor:
    """Normalised intrinsics, float64 ``[B, 4]``: the inverse of :func:`camera_matrix`."""
    size = torch.tensor([width, height], dtype=torch.float64, device=matrix.device)
    focal, centre = matrix.double().split(2, dim=1)
    return torch.cat([focal / size, (centre + 0.5) / size], dim=1)


def to_body_frame(pose: Tensor) -> tuple[Tensor, Tensor]:
    """Camera poses as ROS says them: ``camera_link`` in ``map`` (REP 103 axes).

    Args:
        pose: ``[B, 3, 4]`` world to camera.

    Returns:
        positions ``[B, 3]`` (scene units) and rotations ``[B, 3, 3]`` (body to map).
    """
    change = torch.tensor(_BODY_FROM_OPENCV, dtype=pose.dtype, device=pose.device)
    camera_to_world = inverse(pose)
    return camera_to_world[..., 3] @ change.T, change @ camera_to_world[..., :3] @ change.T


def from_body_frame(position: Tensor, rotation: Tensor) -> Tensor:
    """World-to-camera poses ``[B, 3, 4]`` from ``camera_link`` in ``map``.

    Args:
        position: ``[B, 3]``, scene units, in ``map``.
        rotation: ``[B, 3, 3]``, body to map.
    """
    change = torch.tensor(_BODY_FROM_OPENCV, dtype=position.dtype, device=position.device)
    world_to_camera = (change.T @ rotation @ change).transpose(-1, -2)
    return pose_at(position @ change, world_to_camera)


def rotation_angle(rotation: Tensor) -> Tensor:
    """``[B]`` angles in radians of rotation matrices ``[B, 3, 3]``, exact for small ones too."""
    axis = torch.stack([rotation[..., 2, 1] - rotation[..., 1, 2],
                        rotation[..., 0, 2] - rotation[..., 2, 0],
                        rotation[..., 1, 0] - rotation[..., 0, 1]], dim=-1)
    trace = rotation.diagonal(dim1=-2, dim2=-1).sum(-1)
    return torch.atan2(axis.norm(dim=-1), trace - 1)


def interpolate_poses(start: Tensor, end: Tensor, fraction: float | Tensor) -> Tensor:
    """Poses on the way: centres on the straight line, rotations along the shortest arc.

    Args:
        start: ``[B, 3, 4]`` world to camera.
        end: ``[B, 3, 4]`` world to camera.
        fraction: 0 (start) to 1 (end); a number or ``[B]``.

    Returns:
        ``[B, 3, 4]``; exactly ``end`` where the fraction is 1.
    """
    fraction = torch.as_tensor(fraction, dtype=start.dtype, device=start.device).reshape(-1, 1)
    centre = torch.lerp(position(start), position(end), fraction)
    turn = end[..., :3] @ start[..., :3].transpose(-1, -2)
    way = pose_at(centre, _partial_rotation(turn, fraction) @ start[..., :3])
    return torch.where(fraction[..., None] >= 1, end, way)


def _partial_rotation(rotation: Tensor, fraction: Tensor) -> Tensor:
    """``[B, 3, 3]`` the given fraction ``[B, 1]`` of a rotation, about its own axis."""
    angle = rotation_angle(rotation)[:, None]
    # The axis spans the kernel of R - I; an SVD finds it at half a turn too, where the
    # antisymmetric part vanishes.
    eye = torch.eye(3, dtype=rotation.dtype, device=rotation.device)
    axis = torch.linalg.svd(rotation - eye).Vh[:, 2]
    skew = _skew(axis)
    sign = torch.sign((rotation * skew).sum((-1, -2)))[:, None]
    angle = angle * fraction * torch.where(sign == 0, torch.ones_like(sign), sign)
    sine, cosine = angle.sin()[..., None], angle.cos()[..., None]
    return eye + sine * skew + (1 - cosine) * (skew @ skew)


def _skew(vector: Tensor) -> Tensor:
    """``[B, 3, 3]`` cross-product matrices of ``[B, 3]``."""
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    return _rows((zero, -z, y), (z, zero, -x), (-y, x, zero))


def check_pose(pose: Tensor, name: str = 'pose') -> Tensor:
    """Return the pose if it is one.

    Raises:
        ValueError: if it isn't ``[B, 3, 4]``, finite, with an orthonormal right-handed rotation.
    """
    if not isinstance(pose, Tensor) or pose.dim() != 3 or pose.shape[1:] != (3, 4):
        given = tuple(pose.shape) if isinstance(pose, Tensor) else type(pose).__name__
        raise ValueError(f'{name} is {given}; give a world-to-camera tensor [B, 3, 4]')
    if not torch.isfinite(pose).all():
        raise ValueError(f'{name} holds NaN or infinity; give finite numbers')
    rotation = pose[..., :3]
    eye = torch.eye(3, dtype=pose.dtype, device=pose.device)
    error = (rotation @ rotation.transpose(-1, -2) - eye).abs().max().item()
    if error > _ROTATION_TOLERANCE:
        raise ValueError(f'the rotation of {name} is not orthonormal (off by {error:.3g}); '
                         'give a rotation matrix, without scale or shear')
    if (torch.linalg.det(rotation) < 0).any():
        raise ValueError(f'the rotation of {name} is a mirror image (determinant -1); '
                         'give a right-handed rotation')
    return pose


def check_intrinsics(intrinsics: Tensor, name: str = 'intrinsics') -> Tensor:
    """Return the intrinsics if they can be used.

    Raises:
        ValueError: if they aren't ``[B, 4]``, finite, normalised, with positive focal lengths.
    """
    if not isinstance(intrinsics, Tensor) or intrinsics.dim() != 2 or intrinsics.shape[1] != 4:
        given = (tuple(intrinsics.shape) if isinstance(intrinsics, Tensor)
                 else type(intrinsics).__name__)
        raise ValueError(f'{name} is {given}; give fx, fy, cx, cy as a tensor [B, 4]')
    if not torch.isfinite(intrinsics).all() or (intrinsics[:, :2] <= 0).any():
        raise ValueError(f'{name} is {intrinsics.tolist()}; '
                         'give finite numbers with positive focal lengths')
    if (intrinsics[:, :2] > 50).any():
        raise ValueError(f'{name} is {intrinsics.tolist()}, which looks like pixels; '
                         'divide fx, cx by the width and fy, cy by the height')
    return intrinsics
