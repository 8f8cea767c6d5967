"""What becomes of the sky: the same flights with it kept as a dome and without.

Both fly the way that the autopilot takes with the sky kept. Of every frame the mean colour is
taken over the pixels where the photo's sky lies by the camera's rotation alone, less what land has
come up in front of it (by the matte of the flight that keeps it). Its distance to two colours is
told: to that of all the sky in the photo, which changes too where the camera turns to another part
of it, and to that of the same piece of sky in the photo.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

from environment import describe
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm
import tyro

from infinite_nature_ros import Autopilot, camera, Flight, Frame
from infinite_nature_ros.pixels import to_pixels
from infinite_nature_ros.recording import save_picture

# Held out of all training, public domain or CC0, sky 17 to 50 %: one of each kind of place.
_PHOTOS = ('badlands8', 'beach2', 'canyon9', 'desert11', 'fields0', 'forest7', 'hills8', 'sea19',
           'snow3', 'valley2')

_SHOWN = (0, 10, 25, 50, 100)

# Pictures of a sheet, against the frames.
_SHEET_SCALE = 0.625

# Pixels from the edge of the sky inwards that aren't looked at.
_MARGIN = 2

# So much sky must be in view for its colour to say anything.
_LEAST_SKY = 0.01


class Change(NamedTuple):
    """Distances of the sky's mean colour to the photo's, in 8-bit RGB.

    Attributes:
        view: to all sky of the photo, at the last frame.
        view_mean: the same, mean over all frames.
        piece: to the same piece of sky in the photo, at the last frame.
        piece_mean: the same, mean over all frames.
    """

    view: float
    view_mean: float
    piece: float
    piece_mean: float


@dataclass(frozen=True)
class Comparison:
    """One photo's two flights.

    Attributes:
        kept: change with the sky kept.
        warped: change where it is warped and refined like everything else.
        frames_kept: the frames of the sheet, with the sky kept.
        frames_warped: the others.
    """

    kept: Change
    warped: Change
    frames_kept: list[Frame]
    frames_warped: list[Frame]


def compare(photo: Path, model: str = 'inpaint', size: tuple[int, int] = (160, 256),
            frames: int = 100) -> Comparison:
    """Fly into a photo with and without its sky kept.

    Raises:
        ValueError: if no sky is found in the photo.
    """
    flights = [Flight.from_photo(photo, model=model, size=size, disparity='horizon', seed=0,
                                 sky=sky) for sky in (True, False)]
    start = flights[0].start
    if (start.sky > 0.5).float().mean() < _LEAST_SKY:
        raise ValueError(f'no sky is found in {photo}; give photos that show some')
    pilot = Autopilot(start.intrinsics)
    views = [flight.frame for flight in flights]
    shown, colours = [views], [_sky_colours(start, views)]
    for step in tqdm(range(1, frames + 1), photo.stem, leave=False):
        pose = pilot.next_pose(views[0])
        views = [flight.step(pose) for flight in flights]
        colours.append(_sky_colours(start, views))
        if step in _SHOWN:
            shown.append(views)
    expected, *seen = np.stack(colours, axis=1)
    kept, warped = (_change(expected, flown) for flown in seen)
    return Comparison(kept, warped, *map(list, zip(*shown, strict=True)))


def _sky_colours(start: Frame, views: list[Frame]) -> np.ndarray:
    """8-bit RGB means ``[1 + flights, 3]`` over the pixels that should show the photo's sky.

    The first is the photo's, of the same piece of sky. NaN where hardly any is in view.

    Args:
        start: the photo.
        views: from one pose, the first with the sky kept.
    """
    turned = _turned_photo(start, views[0])
    region = torch.minimum(views[0].sky[0], turned[3:]) > 0.5
    # Pixels at the edge hold land, or what lies beside the photo.
    region = functional.avg_pool2d(region.float(), 2 * _MARGIN + 1, stride=1, padding=_MARGIN)[0]
    region = region > 0.99
    if region.float().mean() < _LEAST_SKY:
        return np.full((1 + len(views), 3), np.nan)
    pictures = [turned[:3], *(view.image[0] for view in views)]
    return np.stack([255 * picture[:, region].mean(1).numpy() for picture in pictures])


def _turned_photo(start: Frame, frame: Frame) -> Tensor:
    """``[4, H, W]`` the photo and its matte as seen after the camera's turn; 0 beside it."""
    height, width = frame.image.shape[2:]
    rays = camera.pixel_rays(frame.intrinsics, height, width).flatten(2)
    turn = start.pose[..., :3] @ frame.pose[..., :3].transpose(-1, -2)
    x, y, z = (turn @ rays)[0].unflatten(1, (height, width))
    fx, fy, cx, cy = start.intrinsics[0]
    grid = 2 * torch.stack([fx * x / z + cx, fy * y / z + cy], dim=-1)[None] - 1
    photo = torch.cat([start.image, start.sky], dim=1)
    return functional.grid_sample(photo, grid, align_corners=False)[0] * (z > 0)


def _change(expected: np.ndarray, seen: np.ndarray) -> Change:
    """Change of colours ``[N, 3]``; the last frame is the last that shows enough sky."""
    figures: list[float] = []
    for reference in (expected[0], expected):
        distances = np.linalg.norm(seen - reference, axis=1)[1:]
        distances = distances[~np.isnan(distances)]
        figures += [float(distances[-1]), float(distances.mean())]
    return Change(*figures)


def main(
    folder: Annotated[Path, tyro.conf.Positional],
    photos: tuple[str, ...] = _PHOTOS,
    model: str = 'inpaint',
    size: tuple[int, int] = (160, 256),
    pictures: Path | None = None,
) -> None:
    """Fly 100 frames into each photo, twice; print a table with machine, commit and versions.

    Example: python benchmarks/sky_flights.py photos --pictures docs/images

    Args:
        folder: where the photos lie.
        photos: names of JPEG files in it; by default ten that nothing was trained on.
        model: name or weights file.
        size: height and width.
        pictures: folder for the sheets sky_with.jpg and sky_without.jpg.
    """
    print(describe())
    print(f'model: {model}, {size[0]} x {size[1]}, 100 frames\n')
    print('| photo | sky in view: kept | warped | ratio | same piece: kept | warped | ratio |')
    print('|---|---|---|---|---|---|---|')
    comparisons: list[Comparison] = []
    for name in photos:
        comparisons.append(compare(folder / f'{name}.jpg', model, size))
        print(_row(name, comparisons[-1:], 'view', 'piece'), flush=True)
    print(_row('mean of photos', comparisons, 'view', 'piece'))
    print(_row('mean of photos and frames', comparisons, 'view_mean', 'piece_mean'))
    if pictures:
        for name, side in (('sky_with', 'frames_kept'), ('sky_without', 'frames_warped')):
            rows = [getattr(one, side) for one in comparisons]
            save_picture(pictures / f'{name}.jpg', _sheet(rows))


def _row(name: str, comparisons: list[Comparison], *figures: str) -> str:
    """Line of the table: means of figures of ``Change``, both ways, and their ratio."""
    cells = [name]
    for figure in figures:
        kept, warped = (float(np.mean([getattr(getattr(one, way), figure)
                                       for one in comparisons])) for way in ('kept', 'warped'))
        cells += [f'{kept:.1f}', f'{warped:.1f}', f'{kept / warped:.2f}']
    return f'| {" | ".join(cells)} |'


def _sheet(rows: list[list[Frame]]) -> np.ndarray:
    """Pictures of flights, a row each."""
    def shrink(image: Tensor) -> Tensor:
        return functional.interpolate(image, scale_factor=_SHEET_SCALE, mode='area')[0]
    return to_pixels(torch.cat(
        [torch.cat([shrink(frame.image) for frame in row], dim=2) for row in rows], dim=1))


if __name__ == '__main__':
    tyro.cli(main)
