"""Compare the sky that is found in held-out photos with their masks; print the IoU.

The tables and the picture of ``docs/sky_detector.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
import time

import cv2
from environment import describe
import numpy as np
from PIL import Image
import torch
from tqdm import tqdm
import tyro

from infinite_nature_ros.photos import crop_and_resize, load_photo
from infinite_nature_ros.pixels import to_pixels
from infinite_nature_ros.recording import save_picture
from infinite_nature_ros.skyline import detect_sky
from infinite_nature_training.sky_samples import read_faults, rows_of_sky_alone, rows_with_sky
from infinite_nature_training.sources.photos import HELD_OUT_PHOTOS, read_names

SIZES = ((96, 160), (160, 256), (288, 512))

# Pieces without land or without sky are cut out where they are at least this high, of the photo.
_LEAST_PIECE = 0.25

# Fewer pixels than this share of the picture are no sky, or no land.
_NOTHING = 0.01

_DRAWN_AT = (160, 256)


def measure(photos: Path, masks: Path, held_out: Path = HELD_OUT_PHOTOS,
            picture: Path | None = None) -> None:
    """Print the tables, with machine, commit and versions; draw the picture if asked to.

    Example: python benchmarks/sky.py --photos photos --masks photos/sky

    Args:
        photos: folder of the photos, JPEG.
        masks: folder of their sky masks (PNG) with sky.csv; training/sky_masks.zip, unpacked.
        held_out: names of the photos to measure on, a line each.
        picture: file for the best, the median and the worst mask.
    """
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    faults = read_faults(masks)
    names = sorted(name for name in read_names(held_out) if (photos / f'{name}.jpg').exists())
    trusted = [name for name in names if not faults[name]]
    print(f'{describe()}\n\nphotos whose mask has no fault: {len(trusted)} of {len(names)}\n')
    for name in names:
        if faults[name]:
            print(f'- {name}: {faults[name]}')
    scores = {}
    print('\n| size | mean IoU | 10th percentile | worst | mean of all | ms |\n' + '|---' * 6 + '|')
    for size in SIZES:
        scores[size], seconds = find_in(names, size, photos, masks)
        print(_line(size, scores[size], trusted, seconds))
    print(f'\nfalse skies in pieces of land alone: {false_finds(trusted, photos, masks, land)}')
    print(f'land seen in pieces of sky alone: {false_finds(trusted, photos, masks, sky)}')
    if picture:
        draw({name: scores[_DRAWN_AT][name] for name in trusted}, photos, masks, picture)


def iou(found: np.ndarray, truth: np.ndarray) -> float:
    """Intersection over union of two masks, 1 where both are empty."""
    either = (found | truth).sum()
    return float((found & truth).sum() / either) if either else 1.0


def find_in(names: list[str], size: tuple[int, int], photos: Path,
            masks: Path) -> tuple[dict[str, float], float]:
    """IoU by name, of photos as a flight crops them, and seconds a photo."""
    scores, seconds = {}, 0.0
    for name in tqdm(names, disable=None, leave=False):
        image = load_photo(photos / f'{name}.jpg', size)
        start = time.perf_counter()
        found = detect_sky(image)
        seconds += time.perf_counter() - start
        scores[name] = iou(found[0, 0].numpy() > 0.5, _truth(masks / f'{name}.png', size))
    return scores, seconds / len(names)


def _line(size: tuple[int, int], scores: Mapping[str, float], trusted: list[str],
          seconds: float) -> str:
    """Line of the table."""
    good = np.array([scores[name] for name in trusted])
    return (f'| {size[0]} x {size[1]} | {good.mean():.3f} | {np.percentile(good, 10):.3f} '
            f'| {good.min():.3f} ({trusted[int(good.argmin())]}) '
            f'| {np.mean(list(scores.values())):.3f} | {1000 * seconds:.0f} |')


def land(mask: np.ndarray) -> tuple[int, int]:
    """First and last row of the part of a photo without sky."""
    return rows_with_sky(mask), len(mask)


def sky(mask: np.ndarray) -> tuple[int, int]:
    """First and last row of the part of a photo without land."""
    return 0, rows_of_sky_alone(mask)


def false_finds(names: list[str], photos: Path, masks: Path,
                part: Callable[[np.ndarray], tuple[int, int]]) -> str:
    """How many pieces of one kind seem to hold the other kind too, of how many."""
    wrong, pieces = 0, list(_pieces(names, photos, masks, part))
    for piece in tqdm(pieces, disable=None, leave=False):
        share = float((detect_sky(load_photo(piece, _DRAWN_AT)) > 0.5).float().mean())
        wrong += (share if part is land else 1 - share) > _NOTHING
    return f'{wrong} of {len(pieces)}'


def draw(found: Mapping[str, float], photos: Path, masks: Path, path: Path) -> None:
    """Draw the best, the median and the worst three masks: photo, what was found, the truth."""
    ordered = sorted(found, key=found.__getitem__)
    middle = len(ordered) // 2
    rows = [[_column(name, found[name], photos, masks) for name in chosen] for chosen in (
        ordered[:-4:-1], ordered[middle - 1:middle + 2], ordered[:3])]
    path.parent.mkdir(parents=True, exist_ok=True)
    save_picture(path, np.hstack([np.vstack(row) for row in rows]))


def _column(name: str, score: float, photos: Path, masks: Path) -> np.ndarray:
    """Photo, what was found and the truth side by side."""
    image = load_photo(photos / f'{name}.jpg', _DRAWN_AT)
    pixels = to_pixels(image)[0]
    found = detect_sky(image)[0, 0].numpy() > 0.5
    plain = pixels.copy()
    cv2.putText(plain, f'{name} {score:.3f}', (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.42,
                (255, 255, 0), 1, cv2.LINE_AA)
    truth = _truth(masks / f'{name}.png', _DRAWN_AT)
    return np.hstack([plain, *(_tint(pixels, mask) for mask in (found, truth))])


def _tint(pixels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Colour what is sky."""
    return np.where(mask[..., None], pixels // 2 + np.array([128, 0, 64], np.uint8), pixels)


def _truth(path: Path, size: tuple[int, int]) -> np.ndarray:
    """Mask of a photo, cropped as the photo is: bool ``[H, W]``."""
    with Image.open(path) as mask:
        return np.asarray(crop_and_resize(mask.convert('L'), *size)) > 127


def _pieces(names: list[str], photos: Path, masks: Path,
            part: Callable[[np.ndarray], tuple[int, int]]) -> Iterator[Image.Image]:
    """Whole width of one part of each photo, where that part is high enough."""
    for name in names:
        with Image.open(masks / f'{name}.png') as mask:
            first, last = part(np.asarray(mask.convert('L')))
            height = mask.height
        if last - first < _LEAST_PIECE * height:
            continue
        with Image.open(photos / f'{name}.jpg') as photo:
            yield photo.crop((0, round(first / height * photo.height), photo.width,
                              round(last / height * photo.height))).copy()


if __name__ == '__main__':
    tyro.cli(measure)
