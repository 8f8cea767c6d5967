"""Registry of rendering backends: a new one is one file and one line here."""

from __future__ import annotations

import functools
import importlib
from typing import Protocol, runtime_checkable

from torch import Tensor

_MODULES = {
    'warp': 'infinite_nature_ros.rendering.warp_backend',
    'torch': 'infinite_nature_ros.rendering.torch_backend',
    'pytorch3d': 'infinite_nature_ros.rendering.pytorch3d_backend',
    'softmax': 'infinite_nature_ros.rendering.softmax_backend',
}

NEAR = 1e-5
"""Surfaces nearer than this to the camera plane are not seen (release, near plane)."""


class Rasterizer(Protocol):
    """What a backend module of the mesh offers: which triangle is seen at each pixel centre."""

    def rasterize(self, vertices: Tensor, faces: Tensor, height: int, width: int) -> Tensor:
        """Find the nearest triangle; both sides are drawn and ties go to the later triangle.

        Args:
            vertices: ``[B, V, 3]`` homogeneous pixel coordinates (``mesh.project_vertices``).
            faces: ``[F, 3]`` int32.
            height: rows of the target.
            width: columns of the target.

        Returns:
            ``[B, H, W]`` int64 triangle numbers, -1 where there is none.
        """


@runtime_checkable
class FusedRenderer(Protocol):
    """What a rasteriser may offer besides: the whole render step without gradients."""

    def render_fused(self, image: Tensor, disparity: Tensor, relative_pose: Tensor,
                     source_intrinsics: Tensor,
                     target_intrinsics: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Yield image, disparity and known of ``Rendered``."""


@runtime_checkable
class ViewRenderer(Protocol):
    """What a backend that isn't a rasteriser offers: whole views, with gradients."""

    def render_view(self, image: Tensor, disparity: Tensor, relative_pose: Tensor,
                    source_intrinsics: Tensor,
                    target_intrinsics: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Yield image, disparity and known of ``Rendered``.

        Args:
            image: ``[B, C, H, W]``; all channels are carried along likewise.
            disparity: ``[B, 1, H, W]``, to be clamped to [0.01, 1].
            relative_pose: ``[B, 3, 4]``, source camera to target camera.
            source_intrinsics: ``[B, 4]``, normalised.
            target_intrinsics: ``[B, 4]``, normalised.
        """


def list_backends() -> list[str]:
    """Names that ``render(backend=...)`` accepts, whether installed or not."""
    return list(_MODULES)


@functools.cache
def get_backend(name: str) -> Rasterizer | ViewRenderer:
    """Import a backend.

    Raises:
        ValueError: for a name that isn't registered.
        ImportError: where its library isn't installed, naming what to install.
    """
    if name not in _MODULES:
        raise ValueError(f'backend is {name!r}; choose one of {", ".join(_MODULES)}')
    return importlib.import_module(_MODULES[name])
