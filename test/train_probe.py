"""What tests of training share: a tiny aerial network, and a run that writes its losses down.

As a script, alone or under torchrun: python train_probe.py CONFIG SOURCE CLIPS OUT SETTINGS...,
where CLIPS may be empty.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
import subprocess
import sys
from typing import Any

import torch
from torch import Tensor

from infinite_nature_ros.refining import registry
from infinite_nature_ros.refining.aerial import AerialRefiner

_ROOT = Path(__file__).parents[1]

TINY_AERIAL = 'aerial-tiny'


class TinyAerial(AerialRefiner):
    """A few channels, in any precision."""

    def __init__(self, grounding: bool = True, image_size: Any = None) -> None:
        super().__init__(TINY_AERIAL, (8, 12), grounding)

    def style(self, image: Tensor, disparity: Tensor, noise: Tensor | None) -> dict[str, Tensor]:
        return {name: value.to(image.dtype)
                for name, value in super().style(image, disparity, noise).items()}


TINY_ENTRY = registry.ModelEntry(TinyAerial, needs_weights=True)


def losses_of(ranks: int, config: str, source: str, clips: str, out: str,
              *settings: str) -> list[dict[str, float]]:
    """Losses by step of a run in processes of its own; arguments as of ``main``."""
    start = [sys.executable]
    if ranks > 1:
        start += ['-m', 'torch.distributed.run', '--nproc-per-node', str(ranks), '--master-port',
                  '0', '--rdzv-backend', 'c10d', '--rdzv-endpoint', 'localhost:0']
    done = subprocess.run([*start, __file__, config, source, clips, out, *settings], cwd=_ROOT,
                          env=os.environ | {'PYTHONPATH': os.pathsep.join(sys.path)},
                          capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads((Path(out) / 'losses.json').read_text())


def main(config: str, source: str, clips: str, out: str, *settings: str) -> None:
    """Train; rank 0 writes the losses of all steps to ``losses.json``."""
    from infinite_nature_training import runs
    from infinite_nature_training.configs import load_config
    from infinite_nature_training.trainer import Trainer

    torch.set_num_threads(1)
    registry._models[TINY_AERIAL] = TINY_ENTRY
    losses = []
    log = Trainer._log

    def remember(self: Trainer, *arguments: Any) -> None:
        log(self, *arguments)
        losses.append(dict(self.history))

    Trainer._log = remember
    files = runs.PhotoFiles(clips=(Path(clips),) if clips else ())
    trainer = runs.train(load_config(config).changed(settings), [Path(source)], Path(out),
                         photo_files=files)
    if trainer.processes[0] == 0:
        (Path(out) / 'losses.json').write_text(json.dumps(losses))


if __name__ == '__main__':
    main(*sys.argv[1:])
