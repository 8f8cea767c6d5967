"""Fly the autopilot through scenes of known shape and into photos; print how near it came.

The tables and pictures of ``docs/autopilot.md``: safe and official mode side by side.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
import sys
import time

from environment import describe
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
import numpy as np
from output import print_table, rgbd, write_sheet
import torch
from torch import Tensor
from tqdm import tqdm
import tyro

from infinite_nature_ros import Autopilot, camera, Flight, Frame
from infinite_nature_ros.autopilot import MODES
from infinite_nature_ros.photos import sample_photos

sys.path.insert(0, str(Path(__file__).parents[1] / 'test'))
from worlds import Flown, fly, nearest_known_depth, Scene, SCENES  # noqa: E402

# A surface that was seen is remembered for so many frames, of every so many pixels along x and y.
_REMEMBERED = 60
_STRIDE = 4

# A photo may have been taken lower than the autopilot flies: by then it has left the start.
_STARTED = 30

_ABOVE, _SIDE = 'from above', 'from the side'
_DRAWN = (('wall', _ABOVE), ('wall', _SIDE), ('canyon', _ABOVE), ('canyon', _SIDE),
          ('gap', _ABOVE), ('gap', _SIDE), ('sea', _SIDE), ('slope', _SIDE),
          ('bend', _ABOVE), ('low wall', _SIDE), ('dead end', _ABOVE), ('towers', _ABOVE))
_STYLES = {'safe': 'b-', 'official': 'r--'}
_SHEET_FRAMES = 12


def measure(photos: Path | None = None, frames: int = 300, model: str = 'default',
            seed: int = 0, pictures: Path | None = None, sheet_of: str = 'plain') -> None:
    """Print the tables, with machine, commit and versions; write the pictures if asked to.

    Example: python benchmarks/autopilot.py --pictures docs/images

    Args:
        photos: folder of photos to fly into; without it those that come along.
        frames: steps of every flight.
        model: refiner of the photo flights.
        seed: draws what is random about the model.
        pictures: folder for autopilot_scenes.png and autopilot_flight.jpg.
        sheet_of: stem of the photo whose safe flight becomes autopilot_flight.jpg.
    """
    torch.set_num_threads(1)
    print(f'{describe()}\n')
    flown = {mode: fly(*SCENES.values(), steps=frames, mode=mode) for mode in MODES}
    print(f'Least distance to the true surface in {frames} frames, scene units '
          '(below 0: inside it):\n')
    print_table(['scene', *MODES], [
        [name, *(f'{flown[mode][number].distance.min():.2f}' for mode in MODES)]
        for number, name in enumerate(SCENES)])
    if pictures:
        pictures.mkdir(parents=True, exist_ok=True)
        draw_scenes({mode: dict(zip(SCENES, flown[mode], strict=True)) for mode in MODES},
                    pictures / 'autopilot_scenes.png')
    paths = sorted(photos.iterdir()) if photos else list(sample_photos().values())
    flights = [(path.stem, mode, PhotoFlight.fly(path, mode, frames, model, seed))
               for path in tqdm(paths, disable=None) for mode in MODES]
    print(f'\nFlights of {frames} frames into photos, model {model!r}, seed {seed}:\n')
    print_table(['photo', 'mode', 'least depth', 'closest pass', 'way', 'height',
                  'horizon row', 'on the spot', 'ms a step'],
                 [[name, mode, *flight.figures()] for name, mode, flight in flights])
    for name, mode, flight in flights:
        if pictures and (name, mode) == (sheet_of, 'safe'):
            write_sheet({number: rgbd(frame) for number, frame in flight.frames.items()},
                        pictures / 'autopilot_flight.jpg')


@dataclass
class PhotoFlight:
    """What was measured on a flight into one photo.

    Attributes:
        depth: ``[N]`` least depth of known pixels in the target views, before any clipping.
        passed: ``[N]`` distance to the nearest surface that earlier frames showed.
        positions: ``[N, 3]`` of the camera.
        horizon: ``[N]`` image rows.
        seconds: ``[N]`` that the autopilot took.
        frames: the frames of the contact sheet, by number.
    """

    depth: Tensor
    passed: Tensor
    positions: Tensor
    horizon: Tensor
    seconds: Tensor
    frames: dict[int, Frame]

    @classmethod
    def fly(cls, path: Path, mode: str, frames: int, model: str, seed: int) -> PhotoFlight:
        """Fly into a photo and measure."""
        flight = Flight.from_photo(path, model=model, seed=seed)
        pilot = Autopilot(flight.intrinsics, mode)
        surfaces: list[Tensor] = []
        rows, kept = [], {0: flight.frame}
        for number in range(1, frames + 1):
            start = time.process_time()
            target = pilot.next_pose(flight.frame)
            seconds = torch.tensor([time.process_time() - start])
            depth = nearest_known_depth(flight.frame, target)
            surfaces = [*surfaces[1 - _REMEMBERED:], _surface(flight.frame)]
            place = camera.position(target)
            passed = (torch.cat(surfaces) - place).norm(dim=-1).amin()[None]
            frame = flight.step(target)
            rows.append((depth, passed, place, _horizon(frame), seconds))
            if number % (frames // (_SHEET_FRAMES - 1)) == 0:
                kept[number] = frame
        return cls(*(torch.cat(column) for column in zip(*rows, strict=True)), kept)

    def figures(self) -> list[str]:
        """Cells of the table."""
        steps = self.positions.diff(dim=0).norm(dim=-1)
        height = -self.positions[:, 1]
        return [f'{self.depth.min():.2f}', f'{self.passed[_STARTED:].min():.2f}',
                f'{(self.positions[-1] - self.positions[0]).norm():.0f}',
                f'{height.min():.1f} to {height.max():.1f}',
                f'{self.horizon.min():.2f} to {self.horizon.max():.2f}',
                f'{(steps < 1e-4).sum()}', f'{1000 * self.seconds.median():.1f}']


def _surface(frame: Frame) -> Tensor:
    """World points ``[N, 3]`` of known pixels whose depth isn't clipped, thinned out."""
    grid = (..., slice(_STRIDE // 2, None, _STRIDE), slice(_STRIDE // 2, None, _STRIDE))
    rays = camera.pixel_rays(frame.intrinsics, *frame.disparity.shape[2:])
    points = (rays / frame.disparity)[grid].flatten(2)[0]
    disparity = frame.disparity[grid].flatten()
    known = frame.known[grid].flatten() > 0.5
    kept = known & (disparity > 1.01 * camera.MIN_DISPARITY) & (disparity < camera.MAX_DISPARITY)
    to_world = camera.inverse(frame.pose)[0]
    return (to_world[:, :3] @ points[:, kept] + to_world[:, 3:]).T


def _horizon(frame: Frame) -> Tensor:
    """``[B]`` image row of the horizon straight ahead."""
    x, y, z = frame.pose[:, 2, :3].unbind(-1)
    return frame.intrinsics[:, 3] - frame.intrinsics[:, 1] * y / torch.hypot(x, z)


def draw_scenes(flown: dict[str, dict[str, Flown]], path: Path) -> None:
    """Draw the paths over the scenes' geometry, from above or from the side."""
    figure = Figure(figsize=(11, 12), layout='constrained', dpi=80)
    panels = figure.subplots(len(_DRAWN) // 2, 2).flat
    for axes, (name, view) in zip(panels, _DRAWN, strict=True):
        _draw(axes, SCENES[name], {mode: flown[mode][name] for mode in MODES}, view)
        axes.set_title(f'{name}, {view}', fontsize='medium')
    figure.axes[0].legend(loc='upper right', fontsize='small')
    FigureCanvasAgg(figure).print_png(str(path))


def _draw(axes: Axes, scene: Scene, flights: dict[str, Flown], view: str) -> None:
    """Draw one view: world Z to the right; what is solid in the plane of the start is grey."""
    # World X, or height, goes up the picture.
    axis, sign, low, high = (0, 1, -4, 8) if view == _ABOVE else (1, -1, -2, 10)
    forward, upward = np.linspace(-2, 30, 321), np.linspace(low, high, 121)
    points = np.zeros((len(upward), len(forward), 3), np.float32)
    points[..., 2] = forward
    points[..., axis] = sign * upward[:, None]
    distance = scene.distance(torch.from_numpy(points))
    axes.contourf(forward, upward, distance, levels=[-np.inf, 0], colors=['0.75'])
    for mode, flight in flights.items():
        along, across = flight.position[:, 2], sign * flight.position[:, axis]
        near = flight.distance < 0.5
        axes.plot(along, across, _STYLES[mode], linewidth=1.5, label=mode)
        axes.plot(along[near], across[near], _STYLES[mode][0] + 'x', markersize=4)
    axes.set(xlim=(forward[0], forward[-1]), ylim=(low, high), aspect='equal',
             ylabel='right' if view == _ABOVE else 'up')


if __name__ == '__main__':
    tyro.cli(measure)
