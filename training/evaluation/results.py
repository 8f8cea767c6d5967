"""What an evaluation yields: a file a flight, the settings of the run, and their summary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
import json
from pathlib import Path
import uuid
from zipfile import BadZipFile

import numpy as np

FEATURES = 2048

# Fields of a flight that are one number or word, and those that are a dict of arrays.
_FACTS = {'variant': str, 'start': str, 'seed': int, 'path_length': float, 'turned': float,
          'seconds': float}
_GROUPS = ('figures', 'comparisons')


@dataclass(frozen=True)
class Measures:
    """What is measured on a flight of F steps; frame 0 is the start.

    Attributes:
        features: Inception's of the frames 0, K, 2 K and so on, where K is the run's
            ``feature_every``: float16 ``[1 + F // K, 2048]``; ``[0, 2048]`` where they weren't
            read.
        figures: drift figures that need no reference, ``[F + 1]`` each, by name.
        comparisons: ``mse``, ``psnr``, ``ssim``, ``lpips`` of the frames 1 to n that there is a
            real frame for, ``[n]`` each; empty for photos.
        style: distance of style to the start, ``[F + 1]``; NaN but for every K-th frame up to 50,
            and every 5 K-th from there.
        path_length: of the camera, scene units.
        turned: radians of heading, left and right added up.
        thumbnails: JPEG files of chosen frames, by frame.
        seconds: that flying took, the measuring not counted.
    """

    features: np.ndarray
    figures: dict[str, np.ndarray]
    comparisons: dict[str, np.ndarray]
    style: np.ndarray
    path_length: float
    turned: float
    thumbnails: dict[int, bytes]
    seconds: float


@dataclass(frozen=True)
class FlightResult(Measures):
    """What was measured on one flight, and which one it was.

    Attributes:
        variant: name of what flew.
        start: name of the photo or clip that it flew from.
        seed: of the flight.
    """

    variant: str
    start: str
    seed: int

    @property
    def frames(self) -> int:
        """Frames that were flown, the start not counted."""
        return len(self.style) - 1

    def save(self, path: str | Path) -> None:
        """Write an ``.npz`` that is there whole or not at all.

        Raises:
            OSError: if it can't be written.
        """
        path = Path(path)
        arrays = {name: np.asarray(getattr(self, name)) for name in _FACTS}
        arrays |= {'features': self.features.astype(np.float16), 'style': self.style}
        arrays |= {f'{group}/{name}': values for group in _GROUPS
                   for name, values in getattr(self, group).items()}
        arrays |= {f'thumbnails/{frame}': np.frombuffer(jpeg, np.uint8)
                   for frame, jpeg in self.thumbnails.items()}
        unfinished = path.with_name(f'.{path.name}.{uuid.uuid4().hex}.partial')
        try:
            with open(unfinished, 'wb') as file:
                np.savez(file, **arrays)
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | Path, features: bool = True) -> FlightResult:
        """Read a file of :meth:`save`.

        Args:
            path: the file.
            features: whether to read the features too, which are most of it.

        Raises:
            ValueError: if it isn't such a file.
            OSError: if it can't be read.
        """
        try:
            with open(path, 'rb') as opened, np.load(opened) as file:
                facts = {name: kind(file[name].item()) for name, kind in _FACTS.items()}
                return cls(
                    **facts, **{group: _group(file, group) for group in _GROUPS},
                    features=file['features'] if features else np.zeros((0, FEATURES), np.float16),
                    style=file['style'],
                    thumbnails={int(frame): jpeg.tobytes() for frame, jpeg
                                in _group(file, 'thumbnails').items()})
        except (ValueError, KeyError, EOFError, BadZipFile) as error:
            raise ValueError(f'{path} is not a whole file of a flight ({error}); delete it, and '
                             'the flight is flown again') from error


@dataclass(frozen=True)
class Settings:
    """What a run of the evaluation was asked for and made with.

    Attributes:
        frames: steps of each flight.
        size: height and width of a frame.
        speed: scene units a step.
        seeds: of the flights.
        variants: how each variant flies, in words, with the model and its weights; by name.
        starts: names of photos and clips, in order.
        networks: file and short hash of the networks that measure: ``inception``, ``lpips``,
            ``style``.
        crops: name and short hash of the list of real images.
        references: how many real images there are.
        disparity: source of disparity where a start has none.
        backend: of rendering.
        machine: processor, cores, GPU.
        commit: of the checkout, '' where it is installed.
        versions: of the packages that figures depend on, by name.
        sky: whether the start's sky is kept as a far dome.
        feature_every: features are of every so many-th frame, K.
        extrapolated: frame up to which flights from clips go on as the clip did; behind it, the
            autopilot flies.
    """

    frames: int
    size: tuple[int, int]
    speed: float
    seeds: tuple[int, ...]
    variants: dict[str, str] = field(default_factory=dict)
    starts: tuple[str, ...] = ()
    networks: dict[str, str] = field(default_factory=dict)
    crops: str = ''
    references: int = 0
    disparity: str = 'auto'
    backend: str = 'warp'
    machine: str = ''
    commit: str = ''
    versions: dict[str, str] = field(default_factory=dict)
    sky: bool = True
    feature_every: int = 1
    extrapolated: int = 50

    def to_json(self) -> str:
        """Text of :meth:`from_json`."""
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """Read what :meth:`to_json` wrote.

        Raises:
            ValueError: if it is something else.
        """
        try:
            fields = json.loads(text)
            return cls(**{name: tuple(value) if isinstance(value, list) else value
                          for name, value in fields.items()})
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f'these are not the settings of an evaluation ({error})') from error


@dataclass(frozen=True)
class Summary:
    """All flights of a run in one.

    Attributes:
        settings: of the run.
        rows: a row a variant. ``variant``; ``flights``; ``images`` that FID and KID are over;
            ``mse``, ``psnr``, ``ssim``, ``lpips``, means over the first 10 frames, and
            ``compared``, how many frames that were; ``fid_50`` over frames 1 to 50, ``kid_100``
            and ``fid_100`` over frames 1 to 100, ``fid`` and ``kid`` over all; ``style`` over
            frames 1 to 50; ``collapses``, flights that did; ``path_length``, the shortest;
            ``seconds`` a frame. What wasn't measured is left out or NaN.
        curves: by variant and name, numbers of frames and values ``[n]``: ``fid_w20``,
            ``fid_w50``, ``kid_w20``, ``kid_w50`` in windows of so many frames, by the middle one.
        collapses: flights that collapsed, the worst first: variant, start, seed, and why.
        flights: all, without features.
    """

    settings: Settings
    rows: list[dict[str, float | str]]
    curves: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]
    collapses: list[tuple[str, str, int, list[str]]]
    flights: list[FlightResult]


def _group(file: Mapping[str, np.ndarray], group: str) -> dict[str, np.ndarray]:
    """Arrays of a file that belong to a group, by their names in it."""
    return {name.removeprefix(f'{group}/'): file[name] for name in file
            if name.startswith(f'{group}/')}
