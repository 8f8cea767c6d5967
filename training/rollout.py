"""Roll-out: T steps of render, refine, repeat, with gradients through all of them (paper, 3.3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
import functools
import itertools

import torch
from torch import nn, Tensor
from torch.nn.utils import parametrize
from torch.utils.checkpoint import checkpoint

from infinite_nature_ros.camera import MAX_DISPARITY, MIN_DISPARITY
from infinite_nature_ros.grounding import ground
from infinite_nature_ros.refining.spade import SpadeRefiner, STYLE_LENGTH
from infinite_nature_ros.rendering import render


@dataclass(frozen=True)
class Unrolled:
    """What came of a roll-out.

    Attributes:
        frames: ``[B, T, 4, H, W]`` refined RGB-D, what losses judge.
        rendered: ``[B, T, 4, H, W]`` RGB-D before refining, 0 in holes.
        known: ``[B, T, 1, H, W]`` in [0, 1], 0 in holes.
        mu: ``[B, 256]`` mean of the style code.
        logvar: ``[B, 256]`` log variance of it.
        lead: steps that were flown in front of these.
    """

    frames: Tensor
    rendered: Tensor
    known: Tensor
    mu: Tensor
    logvar: Tensor
    lead: int = 0


class Unroller(nn.Module):
    """A refiner with its roll-out as one module, so that DDP sees one forward and one backward.

    Args:
        refiner: the network that learns.
        grounding: scale each disparity to the one carried over; the paper does so only in tests.
        checkpointing: keep only the frames between two steps and compute the rest again on the
            way back: memory of one step instead of T.
        backend: rasteriser.
    """

    def __init__(self, refiner: SpadeRefiner, *, grounding: bool = False,
                 checkpointing: bool = False, backend: str = 'warp') -> None:
        super().__init__()
        self.refiner = refiner
        self._grounding = grounding
        self._checkpointing = checkpointing
        self._backend = backend

    def forward(self, image: Tensor, disparity: Tensor, poses: Tensor, intrinsics: Tensor,
                noise: Tensor | None = None, style: Tensor | None = None,
                lead: int = 0) -> Unrolled:
        """Fly along given poses.

        Args:
            image: ``[B, 3, H, W]`` first frames, RGB in [0, 1].
            disparity: ``[B, 1, H, W]`` of them, in [0.01, 1].
            poses: ``[B, T + 1, 3, 4]`` world to camera, the first frames' own in front.
            intrinsics: ``[B, 4]``.
            noise: ``[B, 256]`` standard normal, to draw the style code with; ``None`` takes the
                mean, as in flight.
            style: ``[B, 256]`` code of a flight that goes on; then nothing is encoded, and ``mu``
                is the code itself.
            lead: that many steps are flown first, without gradient; nothing is told of them.
        """
        fill_parametrization_cache(self.refiner)
        if style is None:
            mu, logvar = self.refiner.encode(image, disparity)
            style = mu if noise is None else mu + noise * (0.5 * logvar).exp()
        else:
            mu, logvar = style, torch.zeros_like(style)
        steps = []
        for index, (before, after) in enumerate(itertools.pairwise(poses.unbind(1))):
            with torch.set_grad_enabled(torch.is_grad_enabled() and index >= lead):
                step = self._run(self._step, image, disparity, before, after, intrinsics, style)
            steps.append(step)
            image, disparity = step[0], step[1].clamp(MIN_DISPARITY, MAX_DISPARITY)
        del steps[:lead]
        frames, rendered, known = [], [], []
        for refined_image, refined_disparity, *view in steps:
            frames.append(torch.cat([refined_image, refined_disparity], dim=1))
            rendered.append(torch.cat(view[:2], dim=1))
            known.append(view[2])
        return Unrolled(*(torch.stack(parts, dim=1) for parts in (frames, rendered, known)),
                        mu, logvar, lead)

    def _run(self, function: Callable[..., tuple[Tensor, ...]],
             *inputs: Tensor) -> tuple[Tensor, ...]:
        if not (self._checkpointing and torch.is_grad_enabled()):
            return function(*inputs)
        # Nothing in a step draws random numbers.
        return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)

    def _step(self, image: Tensor, disparity: Tensor, before: Tensor, after: Tensor,
              intrinsics: Tensor, style: Tensor) -> tuple[Tensor, ...]:
        """Image, disparity, and the view they were refined from, in parts."""
        # The geometry keeps its precision where the networks run in half.
        with torch.autocast(image.device.type, enabled=False):
            view = render(image.to(before), disparity.to(before), before, after, intrinsics,
                          intrinsics, backend=self._backend)
        refined_image, refined_disparity = self.refiner.refine(view, style)
        if self._grounding:
            refined_disparity = ground(view, refined_disparity)
        return refined_image, refined_disparity, view.image, view.disparity, view.known


def style_noise(seed: int, indices: Tensor, like: Tensor,
                length: int = STYLE_LENGTH) -> Tensor:
    """Noise of style codes, drawn for each sample by its global index.

    However samples are spread over batches and ranks, each gets the same noise.

    Args:
        seed: of the training run.
        indices: ``[B]`` integers.
        like: a tensor whose device and type the noise gets.
        length: of the noise.

    Returns:
        ``[B, length]`` standard normal.
    """
    rows = []
    for index in indices.tolist():
        generator = torch.Generator().manual_seed((seed * 1_000_003 + index) % 2**63)
        rows.append(torch.randn(length, generator=generator, dtype=torch.float64))
    return torch.stack(rows).to(like)


def draw_steps(seed: int, iteration: int, most: int) -> int:
    """Draw a number of steps, 0 to ``most``, that is the same on all ranks."""
    generator = torch.Generator().manual_seed((seed * 1_000_003 + iteration) % 2**63)
    return int(torch.randint(most + 1, (), generator=generator))


def fill_parametrization_cache(network: nn.Module) -> None:
    """Normalise all weights now, so that it doesn't happen within what is computed again."""
    for module in network.modules():
        if parametrize.is_parametrized(module):
            for name in module.parametrizations:
                getattr(module, name)


def one_normalisation(function: Callable[..., object]) -> Callable[..., object]:
    """Decorate a training step: spectral norm iterates once in it, however often weights are used.

    Steps that are computed again on the way back then see the same weights.
    """
    @functools.wraps(function)
    def run(*args: object, **kwargs: object) -> object:
        with parametrize.cached():
            return function(*args, **kwargs)

    return run
