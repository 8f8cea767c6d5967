"""Stepping: one render, refine, ground and sky, from a frame to the next (paper, section 3).

What a flight does without gradients, training does with them: both call this.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from infinite_nature_ros import camera, sky as skies
from infinite_nature_ros.frame import Frame
from infinite_nature_ros.grounding import ground
from infinite_nature_ros.refining import Refiner
from infinite_nature_ros.rendering import render, Rendered


@dataclass(frozen=True)
class Warped:
    """A frame seen from another pose, as the refiner gets it.

    Attributes:
        view: RGB-D with its holes; the sky counts as known.
        known: ``[B, 1, H, W]`` in [0, 1], what of it was carried over.
        sky: ``[B, 1, H, W]`` matte in [0, 1]; ``None`` where no sky is kept.
        dome: ``[B, 3, H, W]`` the sky all over the view, likewise.
    """

    view: Rendered
    known: Tensor
    sky: Tensor | None = None
    dome: Tensor | None = None


class Stepper:
    """Takes frames of one size and batch to their next poses; every operation is differentiable.

    Args:
        refiner: paints what is missing.
        dome: the sky that is kept; ``None`` keeps none.
        grounding: hold the disparity's scale still.
        backend: rasteriser, a name of ``rendering.list_backends()``.
        timed: gives a context for the work on 'render', 'refine', 'ground' and 'sky'.
    """

    def __init__(self, refiner: Refiner, dome: skies.SkyDome | None = None, *,
                 grounding: bool = True, backend: str = 'warp',
                 timed: Callable[[str], AbstractContextManager] = nullcontext) -> None:
        self._refiner = refiner
        self._dome = dome
        self._grounding = grounding
        self._backend = backend
        self._timed = timed

    def advance(self, frame: Frame, pose: Tensor, state: Any, carried: Tensor) -> Frame:
        """Render from a pose, refine, ground, and keep the sky.

        Args:
            frame: the last one.
            pose: ``[B, 3, 4]`` world to camera.
            state: of the refiner.
            carried: ``[B, 1, H, W]`` in [0, 1], what of the last frame counts as known.
        """
        with self._timed('render'):
            warped = self.warp(frame, pose, carried)
        with self._timed('refine'):
            image, disparity = self._refiner.refine(warped.view, state)
        with self._timed('ground'):
            if self._grounding:
                disparity = ground(warped.view, disparity)
            disparity = disparity.clamp(camera.MIN_DISPARITY, camera.MAX_DISPARITY)
        if warped.sky is not None:
            with self._timed('sky'):
                image, disparity = skies.keep_sky(image, disparity, warped.sky, warped.dome)
        return Frame(image.clamp(0, 1), disparity, warped.known.clamp(0, 1), pose,
                     frame.intrinsics, warped.sky)

    def warp(self, frame: Frame, pose: Tensor, carried: Tensor) -> Warped:
        """Render from a pose, with the sky put in; arguments as of ``advance``."""
        # The geometry keeps its precision where networks run in half.
        with torch.autocast(frame.image.device.type, enabled=False):
            return self._warp(frame, pose, carried)

    def _warp(self, frame: Frame, pose: Tensor, carried: Tensor) -> Warped:
        if self._dome is None:
            rendered = self._render(torch.cat([frame.image, carried], dim=1), frame.disparity,
                                    frame, pose)
            view, (share,) = _split(rendered)
            return Warped(view, share * rendered.mask)
        rendered = self._render(torch.cat([frame.image, carried, frame.sky], dim=1),
                                skies.ground_disparity(frame.disparity, frame.sky), frame, pose)
        view, (share, rendered_sky) = _split(rendered)
        dome, expected = self._dome.view(pose, frame.intrinsics)
        matte = skies.warped_matte(rendered_sky, view, pose, frame.intrinsics, expected)
        view = skies.insert_sky(view, matte, dome)
        known = torch.minimum(share, view.known)
        return Warped(view, torch.where(matte > 0.5, view.known, known), matte, dome)

    def _render(self, layers: Tensor, disparity: Tensor, frame: Frame, pose: Tensor) -> Rendered:
        return render(layers, disparity, frame.pose, pose, frame.intrinsics, frame.intrinsics,
                      backend=self._backend)


def _split(rendered: Rendered) -> tuple[Rendered, Sequence[Tensor]]:
    """Part the RGB that refiners see from the channels that rode along."""
    colours, riders = rendered.image[:, :3], rendered.image[:, 3:]
    return Rendered(colours, rendered.disparity, rendered.known), riders.split(1, dim=1)
