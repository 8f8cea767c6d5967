"""Checkpoints: everything that a run goes on from, as safetensors and JSON, whole or not there."""

from __future__ import annotations

from collections.abc import Mapping
import json
import os
from pathlib import Path
import shutil
from typing import Any

from safetensors import safe_open, SafetensorError
from safetensors.torch import save_file
import torch
from torch import Tensor

_TENSORS, _FACTS = 'state.safetensors', 'state.json'
_BEST = 'best.json'


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Tensors of an optimiser's state, by ``parameter.name``."""
    return {f'{number}.{name}': value
            for number, state in optimizer.state_dict()['state'].items()
            for name, value in state.items()}


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what :func:`optimizer_tensors` gave; rates stay as they are set now."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, name = key.split('.', 1)
        state.setdefault(int(number), {})[name] = value
    groups = optimizer.state_dict()['param_groups']
    optimizer.load_state_dict({'state': state, 'param_groups': groups})


class Checkpoints:
    """Checkpoints of one run, each a folder ``step-00000500``, the newest few and the best."""

    def __init__(self, folder: Path, keep: int) -> None:
        """Take the folder they are in.

        Args:
            folder: made where it isn't there.
            keep: how many of the newest are kept.
        """
        self._folder = folder
        self._keep = keep
        folder.mkdir(parents=True, exist_ok=True)

    def save(self, step: int, groups: Mapping[str, Mapping[str, Tensor]],
             facts: Mapping[str, Any]) -> Path:
        """Write a checkpoint, then remove those that are too many.

        Args:
            step: iterations done.
            groups: tensors by name of the part that they belong to, and name.
            facts: what else is to be remembered; JSON.

        Raises:
            OSError: if it can't be written; the older ones are still there then.
        """
        final = self._folder / f'step-{step:08d}'
        partial = self._folder / f'.{final.name}.partial'
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        tensors = {f'{group}/{name}': tensor.detach().cpu().contiguous()
                   for group, members in groups.items() for name, tensor in members.items()}
        try:
            # Copies: safetensors refuses tensors that share their memory.
            save_file({name: tensor.clone() for name, tensor in tensors.items()},
                      partial / _TENSORS)
            (partial / _FACTS).write_text(json.dumps({'step': step, **facts}), encoding='utf-8')
            for file in partial.iterdir():
                _flush(file)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise OSError(f'checkpoint {final} cannot be written ({error}); free some space, then '
                          'go on with --resume') from error
        shutil.rmtree(final, ignore_errors=True)
        partial.replace(final)
        self._prune()
        return final

    def newest(self) -> Path | None:
        """Return the folder of the newest checkpoint, if there is one."""
        folders = self._folders()
        return folders[-1] if folders else None

    def mark_best(self, checkpoint: Path, metric: float) -> None:
        """Remember a checkpoint as the best so far; it is kept."""
        partial = self._folder / f'{_BEST}.partial'
        partial.write_text(json.dumps({'checkpoint': checkpoint.name, 'metric': metric}),
                           encoding='utf-8')
        partial.replace(self._folder / _BEST)

    def best(self) -> tuple[Path, float] | None:
        """Return the best checkpoint and its metric, if one was marked."""
        try:
            marked = json.loads((self._folder / _BEST).read_text(encoding='utf-8'))
        except FileNotFoundError:
            return None
        return self._folder / marked['checkpoint'], marked['metric']

    def _folders(self) -> list[Path]:
        return sorted(self._folder.glob('step-*'))

    def _prune(self) -> None:
        best = self.best()
        for folder in self._folders()[:-self._keep]:
            if best is None or folder != best[0]:
                shutil.rmtree(folder)


def load_checkpoint(folder: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Read what :meth:`Checkpoints.save` wrote: tensors by group and name, and facts.

    Raises:
        ValueError: if there is no checkpoint, or it is damaged.
    """
    try:
        facts = json.loads((folder / _FACTS).read_text(encoding='utf-8'))
        groups: dict[str, dict[str, Tensor]] = {}
        with safe_open(folder / _TENSORS, framework='pt') as file:
            for key in file.keys():  # noqa: SIM118
                group, name = key.split('/', 1)
                groups.setdefault(group, {})[name] = file.get_tensor(key)
    except (OSError, SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(f'{folder} is no whole checkpoint ({error}); remove it to go on from '
                         'the one before') from error
    return groups, facts


def _flush(file: Path) -> None:
    """Bring a file to the disk, so that a crash of the machine can't leave it empty."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
