"""Clips of procedural coasts: a flight becomes an ACID bag."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from infinite_nature_ros.frame import Frame
from infinite_nature_ros.pixels import to_pixels
from infinite_nature_training.bags import ClipFrame, ClipInfo, ClipWriter
from infinite_nature_training.sources.coast.flight import fly
from infinite_nature_training.sources.coast.world import CoastWorld

LICENCE = 'CC0-1.0'
"""The pictures are nobody's: whoever makes them may do with them what they like."""

FRAME_RATE = 10
"""Frames a second that the stamps say."""


@dataclass(frozen=True)
class CoastOptions:
    """What the bags of a conversion have in common.

    Attributes:
        frames: frames per clip.
        height: rows of the frames.
        width: columns of the frames.
        speed: scene units per frame.
        split: 'train', 'validation', 'test' or ''.
        device: where to render, ``'cpu'`` or a CUDA device.
    """

    frames: int = 60
    height: int = 160
    width: int = 256
    speed: float = 0.2
    split: str = ''
    device: str = 'cpu'

    def __post_init__(self) -> None:
        """Refuse what can't be flown, before the first coast is made."""
        if self.frames < 1:
            raise ValueError(f'frames is {self.frames}; give at least 1')
        if min(self.height, self.width) < 16:
            raise ValueError(f'the size is {self.height} x {self.width}; give at least 16 x 16')
        if not -1 <= self.speed <= 1:
            raise ValueError(f'speed is {self.speed}; give scene units per frame from -1 to 1')


def make_clip(out: Path, name: str, seed: int, options: CoastOptions) -> list[str]:
    """Fly over the coast of a seed and write the flight as one bag.

    Args:
        out: folder of the bags.
        name: of the bag in it.
        seed: of the coast and the flight.
        options: the rest.

    Returns:
        the bag's name.

    Raises:
        ValueError: if the seed is negative.
        OSError: if the bag can't be written.
    """
    world = CoastWorld(seed, options.device)
    info = ClipInfo(
        source=f'procedural coast {seed}', licence=LICENCE, split=options.split,
        method='rendered: exact poses and disparity; flown by the autopilot',
        details={'seed': seed, 'place': world.kind, 'speed': options.speed})
    flight = fly(world, options.height, options.width, options.speed, seed)
    with ClipWriter(out / name, info) as writer:
        for number, frame in enumerate(islice(flight, options.frames)):
            writer.add(_clip_frame(number * 10**9 // FRAME_RATE, frame))
    return [name]


def _clip_frame(stamp: int, frame: Frame) -> ClipFrame:
    """Frame as the writer takes it."""
    return ClipFrame(stamp, to_pixels(frame.image)[0], frame.pose.double().cpu(),
                     frame.intrinsics.double().cpu(), frame.disparity[0, 0].cpu().numpy())
