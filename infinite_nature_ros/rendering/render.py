"""The render step: RGB-D frame to a new view, differentiable or fused."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from infinite_nature_ros import camera
from infinite_nature_ros.rendering import mesh
from infinite_nature_ros.rendering.backends import (
    FusedRenderer,
    get_backend,
    Rasterizer,
    ViewRenderer,
)
from infinite_nature_ros.rendering.torch_backend import edge_functions

# Rendered disparity is 1 / clamp(depth, 0.01, 100) (release, ``render``).
_MIN_DEPTH, _MAX_DEPTH = 0.01, 100.0


@dataclass(frozen=True)
class Rendered:
    """A warped view with its holes, exactly as the official renderers leave it.

    Attributes:
        image: ``[B, 3, H, W]`` RGB times the mask, 0 in holes.
        disparity: ``[B, 1, H, W]`` in [0, 100], 0 in holes; clamped by backend 'softmax' only.
        known: ``[B, 1, H, W]`` in [0, 1]: the rendered mask squared, 1 carried over, 0 hole; 0 or
            1 from backend 'softmax'.
    """

    image: Tensor
    disparity: Tensor
    known: Tensor

    @property
    def mask(self) -> Tensor:
        """``[B, 1, H, W]`` in [0, 1]: the mask itself, which image and disparity are times."""
        # The root's gradient at 0 is infinite.
        seen = self.known > 0
        return torch.where(seen, self.known, torch.ones_like(self.known)).sqrt() * seen


def render(image: Tensor, disparity: Tensor, source_pose: Tensor, target_pose: Tensor,
           source_intrinsics: Tensor, target_intrinsics: Tensor,
           backend: str = 'warp') -> Rendered:
    """Show an RGB-D frame from another camera (paper, section 3.1; release, ``render``).

    Differentiable with respect to image, disparity, poses and intrinsics; not to visibility, but
    for backend 'softmax', which splats points instead of drawing a mesh (InfiniteNature-Zero).
    Where no gradient is asked for and all is float32, a rasteriser's fused path runs.

    Args:
        image: ``[B, 3, H, W]`` RGB in [0, 1]; more channels are carried along likewise.
        disparity: ``[B, 1, H, W]`` inverse depth; depth is taken of it clamped to [0.01, 1].
        source_pose: ``[B, 3, 4]`` world to camera, of the frame.
        target_pose: ``[B, 3, 4]`` world to camera, of the wanted view.
        source_intrinsics: ``[B, 4]`` normalised.
        target_intrinsics: ``[B, 4]`` normalised.
        backend: a name out of ``list_backends()``.

    Returns:
        ``Rendered`` of the same size as the image.

    Raises:
        ValueError: for wrong shapes or an unknown backend.
        ImportError: where the backend's library is missing.
    """
    _check(image, disparity)
    batch = len(image)
    # The geometry of a view is told by the way from camera to camera, so that a world far from
    # the origin loses no precision.
    relative_pose = camera.relative_pose(_expand(source_pose, batch, 'source_pose'),
                                         _expand(target_pose, batch, 'target_pose'))
    source_intrinsics = _expand(source_intrinsics, batch, 'source_intrinsics')
    target_intrinsics = _expand(target_intrinsics, batch, 'target_intrinsics')
    renderer = get_backend(backend)
    inputs = (image, disparity, relative_pose, source_intrinsics, target_intrinsics)
    if isinstance(renderer, ViewRenderer):
        return Rendered(*renderer.render_view(*inputs))
    if isinstance(renderer, FusedRenderer) and not _wants_gradient(*inputs) and all(
            tensor.dtype is torch.float32 for tensor in inputs):
        return Rendered(*renderer.render_fused(*inputs))
    return _render_differentiable(renderer, *inputs)


def _check(image: Tensor, disparity: Tensor) -> None:
    if image.dim() != 4 or min(image.shape[2:]) < 2:
        raise ValueError(f'image is {tuple(image.shape)}; give [B, 3, H, W] of at least 2 x 2')
    if disparity.shape != (len(image), 1, *image.shape[2:]):
        raise ValueError(f'disparity is {tuple(disparity.shape)}; to an image of '
                         f'{tuple(image.shape)} belongs {(len(image), 1, *image.shape[2:])}')


def _expand(value: Tensor, batch: int, name: str) -> Tensor:
    """One pose or camera serves all worlds of a batch."""
    if len(value) not in (1, batch):
        raise ValueError(f'{name} has batch {len(value)}; the image has {batch}')
    return value.expand(batch, *value.shape[1:])


def _wants_gradient(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def _render_differentiable(rasterizer: Rasterizer, image: Tensor, disparity: Tensor,
                           relative_pose: Tensor, source_intrinsics: Tensor,
                           target_intrinsics: Tensor) -> Rendered:
    height, width = image.shape[2:]
    vertices = mesh.project_vertices(disparity, relative_pose, source_intrinsics,
                                     target_intrinsics)
    faces = mesh.grid_faces(height, width, image.device)
    # Which triangle a pixel shows has no gradient, and is decided in float32 for every type.
    triangles = rasterizer.rasterize(vertices.float(), faces, height, width).flatten(1)
    attributes = torch.cat([image, mesh.surface_mask(disparity)], dim=1).flatten(2)
    attributes = torch.cat([attributes.transpose(1, 2), vertices[..., 2:]], dim=2)
    values = _interpolate(triangles, faces, vertices, attributes, width)
    values = values.transpose(1, 2).unflatten(2, (height, width))
    colours, mask, depth = values.split([image.shape[1], 1, 1], dim=1)
    rendered_disparity = 1 / depth.clamp(_MIN_DEPTH, _MAX_DEPTH)
    return Rendered(colours * mask, rendered_disparity * mask, mask.square())


def _interpolate(triangles: Tensor, faces: Tensor, vertices: Tensor, attributes: Tensor,
                 width: int) -> Tensor:
    """Perspective-correct attributes at all pixels; 0 where there is no triangle.

    Args:
        triangles: ``[B, H W]`` triangle numbers, -1 for none.
        faces: ``[F, 3]`` vertex numbers.
        vertices: ``[B, V, 3]`` homogeneous pixel coordinates.
        attributes: ``[B, V, C]``.
        width: columns of the target.

    Returns:
        ``[B, H W, C]``.
    """
    covered = triangles >= 0
    corner_index = faces[triangles.clamp(min=0)].long()
    world = torch.arange(len(vertices), device=vertices.device)[:, None, None]
    pixel = torch.arange(triangles.shape[1], device=vertices.device)
    pixels = torch.stack([pixel % width, pixel // width], dim=-1).to(vertices.dtype)
    edges = edge_functions(vertices[world, corner_index], pixels)
    total = edges.sum(-1, keepdim=True)
    # Divide by 1 where nothing is covered: 0 / 0 there would send NaN gradients everywhere.
    barycentrics = edges / torch.where(covered[..., None], total, torch.ones_like(total))
    barycentrics = barycentrics * covered[..., None]
    return (barycentrics[..., None] * attributes[world, corner_index]).sum(-2)
