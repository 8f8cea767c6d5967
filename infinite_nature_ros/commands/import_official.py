"""``infinite-nature import-official``: the official releases' checkpoints become our weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro


def import_checkpoint(
    path: Annotated[Path, tyro.conf.Positional],
    out: Path | None = None,
    model: str | None = None,
    force: bool = False,
) -> int:
    """Turn a checkpoint of Infinite Nature or InfiniteNature-Zero into weights to fly with.

    Only the generator is read, and no code of the file's is run. TensorFlow is not needed.

    Example: infinite-nature import-official ckpt.tar.gz --out official.safetensors

    Args:
        path: of Infinite Nature ckpt.tar.gz as it was downloaded, or the folder that was in it,
            or the path of the checkpoint, as ckpt/model.ckpt-6935893; of InfiniteNature-Zero the
            zip archive as it was downloaded, or the file ending in latest.tar that was in it.
        out: file to write; by default, the name of the checkpoint with .safetensors, beside it.
        model: size of the network, a registered name; by default the release's,
            infinite-nature or comodgan.
        force: replace the file if it exists.

    Returns:
        Exit code: 0.

    Raises:
        ValueError: if the checkpoint is truncated, damaged, foreign, incomplete or malicious, or
            the file exists.
        OSError: if a file can't be read or written.
    """
    # Here, so that --help needn't wait for torch.
    from infinite_nature_ros.refining import save_weights
    from infinite_nature_ros.refining.official_files import open_checkpoint

    path = path.expanduser()
    try:
        with open_checkpoint(path) as checkpoint:
            name, model = checkpoint.name, model or checkpoint.default_model
            out = out or (path if path.is_dir() else path.parent) / f'{name}.safetensors'
            if out.exists() and not force:
                raise ValueError(f'{out} exists; replace it with --force, or choose another --out')
            print(f'Reading {name} ...')
            network = checkpoint.import_network(model)
            provenance = checkpoint.provenance()
    except ValueError as error:
        raise ValueError(f'{path} cannot be imported: {error}') from error
    out.parent.mkdir(parents=True, exist_ok=True)
    save_weights(network, out, provenance=provenance)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    print(f'{out}: {model}, {parameters:,} parameters. To fly with it:\n'
          f'infinite-nature fly --model {out}')
    return 0
