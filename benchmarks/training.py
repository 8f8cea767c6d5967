"""Memory and time of a training iteration, by configuration.

python benchmarks/training.py [CONFIGURATION...] [SETTING=VALUE...]
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
import resource
import subprocess
import sys
import tempfile
import time

from environment import describe
import torch

from infinite_nature_ros.refining.registry import model_entry
from infinite_nature_training.configs import CONFIGS, load_config, TrainingConfig
from infinite_nature_training.features import load_vgg16
from infinite_nature_training.losses import PerceptualLoss
from infinite_nature_training.rollout import draw_steps
from infinite_nature_training.runs import TRAINERS

_ITERATIONS = 3


def main(arguments: list[str]) -> None:
    """Print a table, a row a configuration; each runs in a process of its own."""
    names = [argument for argument in arguments if '=' not in argument]
    settings = [argument for argument in arguments if '=' in argument]
    print(describe())
    print('| configuration | size | T | batch | memory (GiB) | seconds an iteration |')
    print('|---|---|---|---|---|---|')
    for name in names or [name for name, config in CONFIGS.items()
                          if model_entry(config.model).needs_weights]:
        subprocess.run([sys.executable, __file__, '--one', name, *settings], check=True)


def measure(name: str, settings: list[str]) -> None:
    """Train a few iterations on noise and print the row."""
    config = replace(load_config(name).changed(settings), iterations=_ITERATIONS, workers=0,
                     cycle_iterations=0, growth_iterations=0)
    # Flights into photos are of random length: let the last one be the longest.
    config = replace(config, seed=next(seed for seed in count() if draw_steps(
        seed, _ITERATIONS - 1, config.rollout_steps - 1) == config.rollout_steps - 1))
    with tempfile.TemporaryDirectory() as folder:
        trainer = TRAINERS[config.learns_from](config, Path(folder), PerceptualLoss(load_vgg16()))
        times: list[float] = []
        trainer.run(_batches(config, times))
        times.append(time.perf_counter())
    if torch.cuda.is_available():
        memory = torch.cuda.max_memory_allocated() / 2**30
    else:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    seconds = (times[-1] - times[1]) / (len(times) - 2)
    height, width = config.size
    print(f'| {name} | {height} x {width} | {config.rollout_steps} | {config.batch_size} '
          f'| {memory:.1f} | {seconds:.1f} |', flush=True)


def _batches(config: TrainingConfig, times: list[float]) -> Iterator[dict[str, torch.Tensor]]:
    """Noise over a plane that the camera flies along; notes when each batch is asked for."""
    batch, (height, width) = config.batch_size, config.size
    frames = 1 if config.learns_from == 'photos' else config.lead_steps + config.rollout_steps + 1
    pose = torch.eye(3, 4).repeat(batch, frames, 1, 1)
    pose[:, :, 2, 3] = -0.1 * torch.arange(frames)
    disparity = torch.linspace(0.02, 0.8, height).reshape(1, 1, 1, height, 1)
    intrinsics = torch.tensor([0.8, 0.8 * width / height, 0.5, 0.5]).repeat(batch, frames, 1)
    while True:
        times.append(time.perf_counter())
        yield {'image': torch.randint(256, (batch, frames, 3, height, width)),
               'disparity': disparity.repeat(batch, frames, 1, 1, width),
               'sky': torch.zeros(batch, frames, 1, height, width),
               'pose': pose, 'intrinsics': intrinsics, 'index': torch.arange(batch)}


if __name__ == '__main__':
    if sys.argv[1:2] == ['--one']:
        measure(sys.argv[2], sys.argv[3:])
    else:
        main(sys.argv[1:])
