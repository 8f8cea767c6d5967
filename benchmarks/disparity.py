"""Compare disparity sources with what is known of bags: exact disparity, or tracked points.

Each frame's guess is compared on land alone, where the truth isn't at the far end of the disparity
contract. The rank correlation asks whether what is nearer comes out nearer. The error is that of a
guess whose scale and shift were fitted to the truth, as the paper fits MiDaS.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from environment import describe
import numpy as np
from torch import Tensor
from tqdm import tqdm
import tyro

from infinite_nature_ros.camera import MIN_DISPARITY
from infinite_nature_ros.depth_sources import estimate_disparity, is_ready, list_sources
from infinite_nature_ros.frame import Frame
from infinite_nature_training.bags import find_clips, read_clip
from infinite_nature_training.bags.consistency import frame_of
from infinite_nature_training.sources.video.alignment import MIN_POINTS

# Sky and what is as far is left out: within so much of the far end.
_FARTHEST = 1.01 * MIN_DISPARITY

# What knows nothing: the same everywhere.
_NOTHING = 'constant'

Pixels = tuple[np.ndarray, np.ndarray]


def measure(bags: Annotated[tuple[Path, ...], tyro.conf.Positional],
            sources: tuple[str, ...] = (), every: int = 10,
            size: tuple[int, int] = (160, 256)) -> None:
    """Print the table, with machine, commit and versions.

    Example: python benchmarks/disparity.py bags/karma_001 coasts

    Args:
        bags: bags with disparity, or folders of them; a part of the table each.
        sources: sources to compare, as ``estimate_disparity`` takes them; by default all that
            work without the network, variants (NAME:VARIANT) left out.
        every: one frame of so many is looked at.
        size: height and width of the pictures.
    """
    print(f'{describe()}\n\none frame of {every}, at {size[0]} x {size[1]}\n')
    sources = sources or tuple(name for name in list_sources()
                               if ':' not in name and is_ready(name))
    print('| bags | truth | source | frames | rank correlation | least | log error | most |\n'
          + '|---' * 8 + '|')
    for folder in bags:
        scores: dict[tuple[str, str], list[tuple[float, float]]] = {}
        for frame, points in tqdm(_frames(folder, every, size), disable=None, leave=False):
            truths = known_disparity(frame, points)
            for source in (*sources, _NOTHING):
                guess = _guess(frame.image, source)
                for truth, (pixels, known) in truths.items():
                    scores.setdefault((truth, source), []).append(compare(guess[pixels], known))
        for (truth, source), values in scores.items():
            print(_line(folder.name, truth, source, np.array(values)))


def compare(guess: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Compare disparity with the truth, ``[K]`` each.

    Returns:
        Spearman's rank correlation, NaN for a constant; and the mean absolute logarithm of the
        guess over the truth, after scale and shift were fitted by least squares.
    """
    system = np.stack([guess, np.ones_like(guess)], axis=1)
    fitted = (system @ np.linalg.lstsq(system, truth, rcond=None)[0]).clip(MIN_DISPARITY)
    ranks = _ranks(guess), _ranks(truth)
    correlation = np.corrcoef(*ranks)[0, 1] if np.ptp(ranks[0]) else np.nan
    return float(correlation), float(np.abs(np.log(fitted / truth)).mean())


def _ranks(values: np.ndarray) -> np.ndarray:
    """Places in order; equal values share theirs."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[places]


def _frames(folder: Path, every: int,
            size: tuple[int, int]) -> Iterator[tuple[Frame, np.ndarray | None]]:
    """Frames of all bags of a folder with their points, camera axes."""
    for bag in find_clips([folder]):
        for frame in read_clip(bag).frames[::every]:
            yield frame_of(frame, size), frame.points


def known_disparity(frame: Frame,
                    points: np.ndarray | None) -> dict[str, tuple[Pixels, np.ndarray]]:
    """Find what is known of a frame's land: rows and columns, and disparity there.

    Args:
        frame: frame of a bag with its disparity.
        points: ``[K, 3]`` that were tracked in it, camera axes; none where there are too few.
    """
    dense = frame.disparity[0, 0].numpy()
    land = np.nonzero(dense > _FARTHEST)
    known = {'disparity': (land, dense[land])}
    if points is not None:
        places = points[:, :2] / points[:, 2:] * frame.intrinsics[0, :2].numpy() + (
            frame.intrinsics[0, 2:].numpy())
        inside = ((places >= 0) & (places < 1)).all(axis=1) & (1 / points[:, 2] > _FARTHEST)
        if inside.sum() >= MIN_POINTS:
            columns, rows = (places[inside] * dense.shape[::-1]).astype(int).T
            known['points'] = (rows, columns), 1 / points[inside, 2]
    return known


def _guess(image: Tensor, source: str) -> np.ndarray:
    """``[H, W]``."""
    if source == _NOTHING:
        return np.ones(image.shape[2:])
    return estimate_disparity(image, source)[0, 0].double().numpy()


def _line(name: str, truth: str, source: str, scores: np.ndarray) -> str:
    """Line of the table; of ``[N, 2]`` the means and the worst."""
    (correlation, error), least, most = scores.mean(0), scores[:, 0].min(), scores[:, 1].max()
    ranks = '| – | –' if np.isnan(correlation) else f'| {correlation:.3f} | {least:.3f}'
    return (f'| {name} | {truth} | {source} | {len(scores)} {ranks} | {error:.3f} '
            f'| {most:.3f} |')


if __name__ == '__main__':
    tyro.cli(measure)
