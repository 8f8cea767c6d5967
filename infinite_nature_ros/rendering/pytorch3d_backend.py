"""Rasteriser adapter for PyTorch3D, for those who have it installed (it has no wheel)."""

from __future__ import annotations

import torch
from torch import Tensor

from infinite_nature_ros.rendering.backends import NEAR

try:
    from pytorch3d.renderer.mesh.rasterize_meshes import rasterize_meshes
    from pytorch3d.structures import Meshes
except ImportError as error:
    raise ImportError('backend "pytorch3d" needs PyTorch3D, which is built from source: '
                      'pip install "git+https://github.com/facebookresearch/pytorch3d.git"; '
                      'or choose backend "warp"') from error

# Where PyTorch3D cuts triangles that cross the camera plane. At the near plane itself its float32
# coordinates grow so large that pixels are wrong; 1e-3 meets the golden outputs.
_Z_CLIP = 1e-3


def rasterize(vertices: Tensor, faces: Tensor, height: int, width: int) -> Tensor:
    """See ``backends.Rasterizer``.

    Of triangles at exactly the same depth PyTorch3D may show another one than the others do.
    """
    meshes = Meshes(verts=list(_to_ndc(vertices.detach(), height, width)),
                    faces=[faces.long()] * len(vertices))
    triangles, _, _, _ = rasterize_meshes(
        meshes, image_size=(height, width), blur_radius=0.0, faces_per_pixel=1,
        perspective_correct=True, cull_backfaces=False, z_clip_value=_Z_CLIP)
    triangles = triangles[..., 0]
    # PyTorch3D numbers the triangles of a batch through.
    first = torch.arange(len(vertices), device=triangles.device)[:, None, None] * len(faces)
    return torch.where(triangles >= 0, triangles - first, triangles)


def _to_ndc(vertices: Tensor, height: int, width: int) -> Tensor:
    """``[B, V, 3]`` PyTorch3D screen positions: X left, Y up, the shorter side spans -1 to 1."""
    x, y, w = vertices.unbind(-1)
    # Vertices in the camera plane itself have no position; PyTorch3D clips them by their depth.
    w_safe = torch.where(w.abs() < NEAR, torch.full_like(w, NEAR), w)
    shorter = min(height, width)
    ndc_x = (width - 1 - 2 * x / w_safe) / shorter
    ndc_y = (height - 1 - 2 * y / w_safe) / shorter
    return torch.stack([ndc_x, ndc_y, w], dim=-1)
