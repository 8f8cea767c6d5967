"""Rasteriser and fused render step as NVIDIA Warp kernels: one source for CPU and CUDA."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
import warp as wp

from infinite_nature_ros import camera
from infinite_nature_ros.rendering import mesh
from infinite_nature_ros.rendering.backends import NEAR

wp.config.log_level = wp.LOG_WARNING
wp.init()
# Without fused multiply-add the two triangles at an edge compute exactly opposite numbers, so no
# sample falls between them, and CPU and torch agree to the bit. Gradients go through torch.
wp.set_module_options({'fuse_fp': False, 'enable_backward': False})

_NEAR = wp.constant(NEAR)
_MIN_DISPARITY = wp.constant(camera.MIN_DISPARITY)
_MAX_DISPARITY = wp.constant(camera.MAX_DISPARITY)
_MIN_SOBEL = wp.constant(mesh.MIN_SOBEL_DISPARITY)
_MAX_SOBEL = wp.constant(mesh.MAX_SOBEL_DISPARITY)
_SOBEL_EPSILON = wp.constant(mesh.SOBEL_EPSILON)
_EDGE_BETA = wp.constant(mesh.EDGE_BETA)
_ALPHA_THRESHOLD = wp.constant(mesh.ALPHA_THRESHOLD)
# The official background lies at depth 1000 and its disparity is 1 / clamp(depth, 0.01, 100).
_MIN_DEPTH = wp.constant(0.01)
_MAX_DEPTH = wp.constant(100.0)


@wp.func
def _edge_functions(a: wp.vec3, b: wp.vec3, c: wp.vec3, x: float, y: float):
    """Homogeneous edge functions at a sample (twin of ``torch_backend.edge_functions``)."""
    ax = a[0] - x * a[2]
    ay = a[1] - y * a[2]
    bx = b[0] - x * b[2]
    by = b[1] - y * b[2]
    cx = c[0] - x * c[2]
    cy = c[1] - y * c[2]
    return wp.vec3(bx * cy - cx * by, cx * ay - ax * cy, ax * by - bx * ay)


@wp.func
def _inverse_depth(e: wp.vec3, wa: float, wb: float, wc: float):
    """1 / w at the sample; 0 where the triangle doesn't cover it."""
    total = e[0] + e[1] + e[2]
    weighted = e[0] * wa + e[1] * wb + e[2] * wc
    inside = ((e[0] >= 0.0 and e[1] >= 0.0 and e[2] >= 0.0)
              or (e[0] <= 0.0 and e[1] <= 0.0 and e[2] <= 0.0))
    if inside and total != 0.0:
        if weighted / total > _NEAR:
            return total / weighted
    return 0.0


@wp.func
def _outside(a: wp.vec3, b: wp.vec3, c: wp.vec3, last_column: float, last_row: float):
    """Whether a triangle lies beyond one border, told without dividing by a w that may be < 0."""
    return (wp.max(a[0], wp.max(b[0], c[0])) < 0.0
            or wp.max(a[1], wp.max(b[1], c[1])) < 0.0
            or (a[0] > last_column * a[2] and b[0] > last_column * b[2]
                and c[0] > last_column * c[2])
            or (a[1] > last_row * a[2] and b[1] > last_row * b[2] and c[1] > last_row * c[2]))


@wp.kernel
def _rasterize(vertices: wp.array2d(dtype=wp.vec3), faces: wp.array(dtype=wp.vec3i),
               depth_keys: wp.array3d(dtype=wp.int64)):
    """One triangle: keep the nearest at every pixel it covers.

    The key holds the bits of 1 / w above the triangle number, so that one atomic maximum decides
    both and the result doesn't depend on the order in which a GPU runs the triangles.
    """
    world, triangle = wp.tid()
    face = faces[triangle]
    a = vertices[world, face[0]]
    b = vertices[world, face[1]]
    c = vertices[world, face[2]]
    if wp.max(a[2], wp.max(b[2], c[2])) <= _NEAR:
        return
    last_row = depth_keys.shape[1] - 1
    last_column = depth_keys.shape[2] - 1
    columns = float(last_column)
    rows = float(last_row)
    if _outside(a, b, c, columns, rows):
        return
    left = int(0)
    right = int(last_column)
    top = int(0)
    bottom = int(last_row)
    # A triangle that crosses the camera plane may reach anywhere.
    if wp.min(a[2], wp.min(b[2], c[2])) > _NEAR:
        ax = a[0] / a[2]
        ay = a[1] / a[2]
        bx = b[0] / b[2]
        by = b[1] / b[2]
        cx = c[0] / c[2]
        cy = c[1] / c[2]
        left = int(wp.clamp(wp.ceil(wp.min(ax, wp.min(bx, cx))), 0.0, columns + 1.0))
        right = int(wp.clamp(wp.floor(wp.max(ax, wp.max(bx, cx))), -1.0, columns))
        top = int(wp.clamp(wp.ceil(wp.min(ay, wp.min(by, cy))), 0.0, rows + 1.0))
        bottom = int(wp.clamp(wp.floor(wp.max(ay, wp.max(by, cy))), -1.0, rows))
    for y in range(top, bottom + 1):
        for x in range(left, right + 1):
            e = _edge_functions(a, b, c, float(x), float(y))
            inverse_depth = _inverse_depth(e, a[2], b[2], c[2])
            if inverse_depth > 0.0:
                key = wp.int64(wp.cast(inverse_depth, wp.int32)) << wp.int64(32)
                wp.atomic_max(depth_keys, world, y, x, key | wp.int64(triangle + 1))


@wp.func
def _reflect(i: int, size: int):
    """Index of a border that reflects without repeating the edge."""
    if i < 0:
        return -i
    if i >= size:
        return 2 * size - 2 - i
    return i


@wp.func
def _sobel_tap(disparity: wp.array3d(dtype=float), world: int, y: int, x: int):
    row = _reflect(y, disparity.shape[1])
    column = _reflect(x, disparity.shape[2])
    return wp.clamp(disparity[world, row, column], _MIN_SOBEL, _MAX_SOBEL)


@wp.func
def _is_surface(disparity: wp.array3d(dtype=float), world: int, y: int, x: int):
    """1 on continuous surface, 0 at a break (twin of ``mesh.surface_mask``)."""
    nw = _sobel_tap(disparity, world, y - 1, x - 1)
    n = _sobel_tap(disparity, world, y - 1, x)
    ne = _sobel_tap(disparity, world, y - 1, x + 1)
    w = _sobel_tap(disparity, world, y, x - 1)
    e = _sobel_tap(disparity, world, y, x + 1)
    sw = _sobel_tap(disparity, world, y + 1, x - 1)
    s = _sobel_tap(disparity, world, y + 1, x)
    se = _sobel_tap(disparity, world, y + 1, x + 1)
    gx = (ne - nw) + 2.0 * (e - w) + (se - sw)
    gy = (sw - nw) + 2.0 * (s - n) + (se - ne)
    magnitude = wp.sqrt(gx * gx + gy * gy + _SOBEL_EPSILON)
    return wp.where(wp.exp(-_EDGE_BETA * magnitude) > _ALPHA_THRESHOLD, 1.0, 0.0)


@wp.kernel
def _project(disparity: wp.array3d(dtype=float), relative_pose: wp.array3d(dtype=float),
             source: wp.array(dtype=wp.vec4), target: wp.array(dtype=wp.vec4),
             vertices: wp.array2d(dtype=wp.vec3), surface: wp.array2d(dtype=float)):
    """One source pixel: its vertex in the target's homogeneous pixels, and its mask."""
    world, row, column = wp.tid()
    height = float(disparity.shape[1])
    width = float(disparity.shape[2])
    depth = 1.0 / wp.clamp(disparity[world, row, column], _MIN_DISPARITY, _MAX_DISPARITY)
    s = source[world]
    x = ((float(column) + 0.5) / width - s[2]) / s[0] * depth
    y = ((float(row) + 0.5) / height - s[3]) / s[1] * depth
    q = wp.vec3()
    for k in range(3):
        q[k] = (relative_pose[world, k, 0] * x + relative_pose[world, k, 1] * y
                + relative_pose[world, k, 2] * depth + relative_pose[world, k, 3])
    t = target[world]
    vertex = row * disparity.shape[2] + column
    vertices[world, vertex] = wp.vec3((t[0] * q[0] + t[2] * q[2]) * width - 0.5 * q[2],
                                      (t[1] * q[1] + t[3] * q[2]) * height - 0.5 * q[2], q[2])
    surface[world, vertex] = _is_surface(disparity, world, row, column)


@wp.kernel
def _resolve(depth_keys: wp.array3d(dtype=wp.int64), vertices: wp.array2d(dtype=wp.vec3),
             faces: wp.array(dtype=wp.vec3i), colours: wp.array3d(dtype=float),
             surface: wp.array2d(dtype=float), image: wp.array4d(dtype=float),
             disparity: wp.array3d(dtype=float), known: wp.array3d(dtype=float)):
    """One target pixel: interpolate what its triangle carries; holes stay 0."""
    world, row, column = wp.tid()
    triangle = int(depth_keys[world, row, column] & wp.int64(0xFFFFFFFF)) - 1
    if triangle < 0:
        return
    face = faces[triangle]
    a = vertices[world, face[0]]
    b = vertices[world, face[1]]
    c = vertices[world, face[2]]
    e = _edge_functions(a, b, c, float(column), float(row))
    bary = e / (e[0] + e[1] + e[2])
    mask = (bary[0] * surface[world, face[0]] + bary[1] * surface[world, face[1]]
            + bary[2] * surface[world, face[2]])
    for channel in range(colours.shape[1]):
        image[world, channel, row, column] = mask * (
            bary[0] * colours[world, channel, face[0]] + bary[1] * colours[world, channel, face[1]]
            + bary[2] * colours[world, channel, face[2]])
    depth = bary[0] * a[2] + bary[1] * b[2] + bary[2] * c[2]
    disparity[world, row, column] = mask / wp.clamp(depth, _MIN_DEPTH, _MAX_DEPTH)
    known[world, row, column] = mask * mask


@contextmanager
def on_device(device: torch.device) -> Iterator[str]:
    """Run launches on torch's device and, under CUDA, in torch's current stream.

    Yields the name of the device as Warp has it.
    """
    if device.type != 'cuda':
        yield 'cpu'
        return
    with wp.ScopedStream(wp.stream_from_torch(torch.cuda.current_stream(device))):
        yield str(wp.device_from_torch(device))


def rasterize(vertices: Tensor, faces: Tensor, height: int, width: int) -> Tensor:
    """See ``backends.Rasterizer``."""
    vertices = vertices.detach().contiguous()
    with on_device(vertices.device) as device:
        keys = _depth_keys(wp.from_torch(vertices, dtype=wp.vec3), _faces(faces),
                           (len(vertices), height, width), vertices.device, device)
    return (keys & 0xFFFFFFFF) - 1


def render_fused(image: Tensor, disparity: Tensor, relative_pose: Tensor,
                 source_intrinsics: Tensor,
                 target_intrinsics: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """See ``backends.FusedRenderer``."""
    batch, _, height, width = image.shape
    shape = (batch, height, width)
    image, disparity = image.detach().contiguous(), disparity.detach().contiguous()
    out_image = torch.zeros_like(image)
    out_disparity, out_known = torch.zeros_like(disparity), torch.zeros_like(disparity)
    with on_device(image.device) as device:
        faces = _faces(mesh.grid_faces(height, width, image.device))
        vertices = wp.empty((batch, height * width), dtype=wp.vec3, device=device)
        surface = wp.empty((batch, height * width), dtype=float, device=device)
        wp.launch(_project, dim=shape, device=device, inputs=[
            _array(disparity[:, 0]), _array(relative_pose), _vectors(source_intrinsics),
            _vectors(target_intrinsics), vertices, surface])
        keys = _depth_keys(vertices, faces, shape, image.device, device)
        wp.launch(_resolve, dim=shape, device=device, inputs=[
            _array(keys, wp.int64), vertices, faces, _array(image.flatten(2)), surface,
            _array(out_image), _array(out_disparity[:, 0]), _array(out_known[:, 0])])
    return out_image, out_disparity, out_known


def _depth_keys(vertices: wp.array, faces: wp.array, shape: tuple[int, int, int],
                torch_device: torch.device, device: str) -> Tensor:
    """``[B, H, W]`` depth and number + 1 of the nearest triangle, packed; 0 where none is."""
    keys = torch.zeros(shape, dtype=torch.int64, device=torch_device)
    wp.launch(_rasterize, dim=(shape[0], len(faces)), device=device,
              inputs=[vertices, faces, _array(keys, wp.int64)])
    return keys


def _array(tensor: Tensor, dtype: type = wp.float32) -> wp.array:
    return wp.from_torch(tensor.detach(), dtype=dtype)


def _vectors(intrinsics: Tensor) -> wp.array:
    return wp.from_torch(intrinsics.detach().contiguous(), dtype=wp.vec4)


def _faces(faces: Tensor) -> wp.array:
    return wp.from_torch(faces, dtype=wp.vec3i)
