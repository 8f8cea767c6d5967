"""What becomes of a model's own frames: flights into the bundled photos, models side by side.

Prints how sharp and how near the last frame is, as ratios to the first one, and draws a sheet: a
row a photo and model, columns frames of the flight.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from environment import describe
import torch
from tqdm import tqdm
import tyro

from infinite_nature_ros import Autopilot, Flight, Frame
from infinite_nature_ros.drift import drift
from infinite_nature_ros.photos import find_photo, sample_photos
from infinite_nature_ros.pixels import to_pixels
from infinite_nature_ros.recording import save_picture

_SHOWN = (0, 10, 25, 50, 100)


def fly(
    models: Annotated[tuple[str, ...], tyro.conf.Positional],
    size: tuple[int, int] = (96, 160),
    photos: tuple[str, ...] = (),
    picture: Path | None = None,
) -> None:
    """Fly 100 frames and print a table, with machine, commit and versions.

    Example: python benchmarks/long_flights.py inpaint run.safetensors --picture flights.png

    Args:
        models: names or weights files.
        size: height and width.
        photos: paths or names of samples to fly into; by default those that come along.
        picture: file of the sheet.
    """
    print(describe())
    print('| model | photo | sharpness | disparity |')
    print('|---|---|---|---|')
    rows = []
    for photo in photos or tuple(sample_photos()):
        for model in models:
            frames = _fly(photo, model, size)
            sharpness, disparity = drift(frames[0], frames[-1])
            print(f'| {Path(model).stem} | {Path(photo).stem} | {sharpness:.2f} '
                  f'| {disparity:.2f} |')
            rows.append(torch.cat([frame.image[0] for frame in frames], dim=2))
    if picture:
        save_picture(picture, to_pixels(torch.cat(rows, dim=1)))


def _fly(photo: str, model: str, size: tuple[int, int]) -> list[Frame]:
    """Frames of a flight that are shown."""
    flight = Flight.from_photo(find_photo(photo), model=model, size=size, disparity='horizon',
                               seed=0)
    pilot = Autopilot(flight.intrinsics)
    frames = [flight.frame]
    for step in tqdm(range(1, _SHOWN[-1] + 1), f'{Path(photo).stem}, {Path(model).stem}',
                     leave=False):
        frame = flight.step(pilot.next_pose(flight.frame))
        if step in _SHOWN:
            frames.append(frame)
    return frames


if __name__ == '__main__':
    tyro.cli(fly)
