"""What a run on photos has learned: held-out photos got back that were seen from elsewhere.

The table of ``docs/zero.md``: mean L1 and VGG distance of the end of a cycle (photo, nearby view,
back, refined) to the photo, for the averaged weights of a run, for what comes back unrefined, and
for the weight-free refiner.
"""

from __future__ import annotations

from pathlib import Path
import tempfile
from typing import Annotated

from environment import describe
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm
import tyro

from infinite_nature_ros.recording import save_picture
from infinite_nature_ros.refining import create_model, Refiner
from infinite_nature_training.datasets import to_float
from infinite_nature_training.features import load_vgg16
from infinite_nature_training.losses import PerceptualLoss
from infinite_nature_training.photo_dataset import PhotoDataset
from infinite_nature_training.runs import export, read_config
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
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / 'run.safetensors'
        name = export(run, weights, checkpoint).name
        models = {'there and back': create_model('no-refine'), 'inpaint': create_model('inpaint'),
                  f'{config.model}, {name}': create_model(weights)}
    perceptual = PerceptualLoss(load_vgg16())
    print(describe())
    print(f'{len(dataset)} held-out photos, {config.size[0]} x {config.size[1]}')
    print('| | L1 | VGG |\n|---|---|---|')
    for title, model in tqdm(models.items(), 'models', leave=False):
        errors = measure_cycles(model, batches, perceptual, sky=config.sky)
        print(f'| {title} | {errors.l1[0]:.4f} | {errors.perceptual[0]:.1f} |')
    if picture:
        save_picture(picture, sheet(list(models.values()), batches, config.sky))


@torch.no_grad()
def sheet(models: list[Refiner], batches: list[dict[str, torch.Tensor]], sky: bool,
          rows: int = 6):
    """Picture uint8: a row a photo; as it is, then as it comes back from each model."""
    lines = []
    for batch in batches[::max(1, len(batches) // rows)][:rows]:
        first = {name: value[:1] for name, value in batch.items()
                 if isinstance(value, torch.Tensor)}
        shown = [first['image'][0, 0],
                 *(go_there_and_back(model, first, sky)[1][0] for model in models)]
        lines.append(torch.cat(shown, dim=2))
    pixels = torch.cat(lines, dim=1).clamp(0, 1).permute(1, 2, 0)
    return (pixels * 255).round().to(torch.uint8).numpy()


if __name__ == '__main__':
    tyro.cli(compare)
