"""Variants: what flies in an evaluation, the model itself and what it is compared to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
import functools
import hashlib
import math
from pathlib import Path
import re
from typing import Protocol

from torch import nn, Tensor

from infinite_nature_ros.flight import Flight, MAX_STEP
from infinite_nature_ros.frame import Frame
from infinite_nature_ros.refining import create_model, Refiner

# Nothing lies beyond such a step: every view comes straight from the start.
_AT_ONCE = (math.inf, math.inf)

# Names are those of folders, too.
_NAME = re.compile(r'[A-Za-z0-9][\w.+-]*')


class Pilot(Protocol):
    """Whoever says where to fly: an ``Autopilot``, or a ``starts.Route``."""

    def next_pose(self, frame: Frame) -> Tensor:
        """``[B, 3, 4]`` world to camera, to fly to from a frame."""


@dataclass(frozen=True)
class Variant:
    """A way to fly.

    Attributes:
        name: what the report calls it.
        model: a registered name or a weights file; '' is the model that is evaluated.
        grounding: hold the disparity's scale still; ``None``: where the model wants it.
        direct: warp every view straight from the start and refine it once, as single-image view
            synthesis does, instead of each from the last one.
        trained: why weights of its own are needed; '' where they aren't.
    """

    name: str
    model: str = ''
    grounding: bool | None = None
    direct: bool = False
    trained: str = ''

    def describe(self) -> str:
        """How it flies, in words: its model, what its weights hash to, and what is special.

        Raises:
            ValueError: if the model can't be loaded.
        """
        model = Path(self.model).name
        digest = digest_of(_load(self.model))
        words = [f'{model} ({digest})' if digest else model]
        if self.grounding is not None:
            words.append('grounded' if self.grounding else 'not grounded')
        if self.direct:
            words.append('each view straight from the start')
        return ', '.join(words)


BASELINES = {variant.name: variant for variant in (
    Variant('no-refine', 'no-refine'),
    Variant('inpaint', 'inpaint'),
    Variant('no-grounding', grounding=False),
    Variant('direct', direct=True),
    Variant('no-repeat', trained='it is a model that was trained for one step, as with '
                                 'infinite-nature train --config no-repeat'))}
"""What models are compared to (paper, section 6; see docs/evaluation.md), by name."""


def choose_variants(model: str, baselines: Sequence[str] = ()) -> dict[str, Variant]:
    """Find the variants of a run by what a user said.

    Args:
        model: the model that is evaluated, a registered name or a weights file.
        baselines: names of ``BASELINES``; or NAME=MODEL: a baseline with another model, or, under
            a name that is none, one more model.

    Returns:
        Variants by name, the model's own first: its name, or its file's without the suffix.

    Raises:
        ValueError: for a baseline that isn't known or needs weights, or a name that comes twice.
    """
    own = Path(model).name
    variants = [Variant(own.removesuffix('.safetensors'), model)]
    variants += [_baseline(text, model) for text in baselines]
    names = [variant.name for variant in variants]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f'there are two variants {name!r}; name one anew, as in '
                             f'other-{name}=MODEL')
        if not _NAME.fullmatch(name):
            raise ValueError(f'a variant is named {name!r}; give a name of letters, digits and '
                             '. _ + - alone, as in mine=MODEL')
    return dict(zip(names, variants, strict=True))


def fly(variant: Variant, start: Frame, pilot: Pilot, steps: int, seed: int, *,
        backend: str = 'warp', device: str = 'auto') -> Iterator[Frame]:
    """Fly a variant; yields the start and then a frame a step.

    Args:
        variant: what flies.
        start: first frame; where it has no sky, none is kept.
        pilot: says where to fly.
        steps: how many.
        seed: draws what is random about the model.
        backend: rasteriser.
        device: torch device.

    Raises:
        ValueError: for a model, frame or pose that can't be flown.
    """
    flight = Flight(start.image, start.disparity, start.intrinsics, model=_load(variant.model),
                    pose=start.pose, sky=False if start.sky is None else start.sky,
                    max_step=_AT_ONCE if variant.direct else MAX_STEP,
                    grounding=variant.grounding, backend=backend, device=device, seed=seed)
    yield flight.frame
    for _ in range(steps):
        pose = pilot.next_pose(flight.frame)
        if variant.direct:
            flight.reset(seed)
        yield flight.step(pose)


def _baseline(text: str, model: str) -> Variant:
    """Variant that a word on the command line means."""
    name, equals, own = text.partition('=')
    if equals and not own:
        raise ValueError(f'{text!r} says no model; give {name}=MODEL')
    if name not in BASELINES and not own:
        raise ValueError(f'no baseline is named {name!r}; give one of {", ".join(BASELINES)}, or '
                         'NAME=MODEL')
    baseline = BASELINES.get(name, Variant(name))
    if baseline.trained and not own:
        raise ValueError(f'{name} needs weights of its own ({baseline.trained}); '
                         f'give {name}=WEIGHTS')
    return replace(baseline, model=own or baseline.model or model)


@functools.cache
def _load(model: str) -> Refiner:
    """Load a model; refiners keep nothing of a flight, so that one serves all."""
    return create_model(model)


def digest_of(network: object) -> str:
    """Short hash of a network's weights; '' where there are none."""
    if not isinstance(network, nn.Module):
        return ''
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()[:8]
