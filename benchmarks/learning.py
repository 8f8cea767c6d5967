"""What a training run has learned: errors on held-out clips beside doing nothing and filling.

The table of ``docs/training.md``: the mean L1 and VGG distance of refined frames to the real ones,
by step of the roll-out, for the averaged weights of a run, for the bare render (iterated, and from
the first frame at once) and for the weight-free refiner.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from candidates import draw_rows, load_candidates
from environment import describe
from torch.utils.data import DataLoader
from tqdm import tqdm
import tyro

from infinite_nature_ros.recording import save_picture
from infinite_nature_training.camera_speed import CameraSpeed
from infinite_nature_training.datasets import SequenceDataset, to_float
from infinite_nature_training.features import load_vgg16
from infinite_nature_training.losses import PerceptualLoss
from infinite_nature_training.runs import read_config
from infinite_nature_training.validation import direct_errors, Errors, measure, roll_out

_STEPS = 5


def compare(
    run: Annotated[Path, tyro.conf.Positional],
    bags: Annotated[tuple[Path, ...], tyro.conf.Positional],
    checkpoint: str = 'best',
    count: int = 100,
    picture: Path | None = None,
) -> None:
    """Print the table, with machine, commit and versions.

    Example: python benchmarks/learning.py run held_out_bags

    Args:
        run: folder of the training run.
        bags: held-out bags.
        checkpoint: best, newest, or the name of one.
        count: sequences, evenly spaced.
        picture: file for some sequences, a row each: the first frame, then of step 5 the real one,
            rendered, filled and refined.
    """
    config = read_config(run)
    sequences = SequenceDataset(bags, steps=_STEPS, size=config.size, augmentation=None,
                                stride=CameraSpeed(config.speed), shuffle=False)
    count = min(count, len(sequences))
    indices = [place * len(sequences) // count for place in range(count)]
    batches = [to_float(batch) for batch in DataLoader(sequences, 4, sampler=indices)]
    models = load_candidates(run, checkpoint, 'render, repeated')
    perceptual = PerceptualLoss(load_vgg16())
    errors = {'render of the first frame': direct_errors(batches, perceptual)}
    for title, model in tqdm(models.items(), 'models'):
        errors[title] = measure(model, batches, perceptual)
    print(describe())
    print(f'{count} sequences of {_STEPS} steps, {config.size[0]} x {config.size[1]}')
    print(table(errors))
    if picture:
        save_picture(picture, draw_rows(batches, lambda batch: [
            batch['image'][0, 0], batch['image'][0, -1],
            *(roll_out(model, batch)[0][0, -1] for model in models.values())]))


def table(errors: dict[str, Errors]) -> str:
    """Rows of Markdown: errors at the first and the last step."""
    rows = ['| | L1, step 1 | L1, step 5 | VGG, step 1 | VGG, step 5 |', '|---|---|---|---|---|']
    for title, found in errors.items():
        rows.append(f'| {title} | {found.l1[0]:.4f} | {found.l1[-1]:.4f} '
                    f'| {found.perceptual[0]:.1f} | {found.perceptual[-1]:.1f} |')
    return '\n'.join(rows)


if __name__ == '__main__':
    tyro.cli(compare)
