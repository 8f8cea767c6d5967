"""What a run on photos has learned: held-out photos got back that were seen from elsewhere.

The table of ``docs/zero.md``: mean L1 and VGG distance of the end of a cycle (photo, nearby view,
back, refined) to the photo, for the averaged weights of a run, for what comes back unrefined, and
for the weight-free refiner.
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
from infinite_nature_training.datasets import to_float
from infinite_nature_training.features import load_vgg16
from infinite_nature_training.losses import PerceptualLoss
from infinite_nature_training.photo_dataset import PhotoDataset
from infinite_nature_training.runs import read_config
from infinite_nature_training.sources.photos import HELD_OUT_PHOTOS
from infinite_nature_training.zero_validation import go_there_and_back, measure_cycles


def compare(
    run: Annotated[Path, tyro.conf.Positional],
    photos: Annotated[Path, tyro.conf.Positional],
    masks: Path | None = None,
    checkpoint: str = 'best',
    picture: Path | None = None,
) -> None:
    """Print the table over all held-out photos of a folder, with machine, commit and versions.

    Example: python benchmarks/photo_learning.py run photos --masks photos/sky

    Args:
        run: folder of the training run.
        photos: folder; those that held_out.txt lists are used.
        masks: folder of their sky masks; by default it is detected.
        checkpoint: best, newest, or the name of one.
        picture: file for some photos: as they are, there and back, filled and refined.
    """
    config = read_config(run)
    dataset = PhotoDataset(photos, size=config.size, masks=masks, names=HELD_OUT_PHOTOS,
                           crop=(1.0, 1.0), augmentation=None, shuffle=False)
    batches = [to_float(batch) for batch in DataLoader(dataset, 4)]
    models = load_candidates(run, checkpoint, 'there and back')
    perceptual = PerceptualLoss(load_vgg16())
    print(describe())
    print(f'{len(dataset)} held-out photos, {config.size[0]} x {config.size[1]}')
    print('| | L1 | VGG |\n|---|---|---|')
    for title, model in tqdm(models.items(), 'models', leave=False):
        errors = measure_cycles(model, batches, perceptual, sky=config.sky)
        print(f'| {title} | {errors.l1[0]:.4f} | {errors.perceptual[0]:.1f} |')
    if picture:
        save_picture(picture, draw_rows(batches, lambda batch: [
            batch['image'][0, 0], *(go_there_and_back(model, batch, config.sky)[1][0]
                                    for model in models.values())]))


if __name__ == '__main__':
    tyro.cli(compare)
