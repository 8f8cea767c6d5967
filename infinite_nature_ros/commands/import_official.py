"""``infinite-nature import-official``: the official release's checkpoint becomes our weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
import hashlib
from pathlib import Path
import re
import shutil
import tarfile
import tempfile
from typing import Annotated
import zlib

import tyro

_CHECKPOINT_FILE = re.compile(r'.+\.(index|data-\d{5}-of-\d{5})')


def import_checkpoint(
    path: Annotated[Path, tyro.conf.Positional],
    out: Path | None = None,
    model: str = 'infinite-nature',
    force: bool = False,
) -> int:
    """Turn a TensorFlow checkpoint of the official release into weights to fly with.

    Only the generator is read. TensorFlow is not needed.

    Example: infinite-nature import-official ckpt.tar.gz --out official.safetensors

    Args:
        path: ckpt.tar.gz as it was downloaded, or the folder that was in it, or the path of the
            checkpoint, as ckpt/model.ckpt-6935893.
        out: file to write; by default, the name of the checkpoint with .safetensors, beside it.
        model: size of the network, a registered name; the release's is infinite-nature.
        force: replace the file if it exists.

    Returns:
        Exit code: 0.

    Raises:
        ValueError: if the checkpoint is truncated, damaged, foreign or incomplete, or the file
            exists.
        OSError: if a file can't be read or written.
    """
    # Here, so that --help needn't wait for torch.
    from infinite_nature_ros.refining import save_weights
    from infinite_nature_ros.refining.official import import_official
    from infinite_nature_ros.refining.tf_checkpoint import TensorFlowCheckpoint

    path = path.expanduser()
    try:
        with _unpacked(path) as unpacked:
            checkpoint = TensorFlowCheckpoint(unpacked)
            name = checkpoint.prefix.name
            out = out or (path if path.is_dir() else path.parent) / f'{name}.safetensors'
            if out.exists() and not force:
                raise ValueError(f'{out} exists; replace it with --force, or choose another --out')
            print(f'Reading {name} ...')
            network = import_official(checkpoint, model)
            # The index has the check sums of all variables, so its hash identifies them.
            identity = hashlib.sha256(checkpoint.index.read_bytes()).hexdigest()
    except ValueError as error:
        raise ValueError(f'{path} cannot be imported: {error}') from error
    out.parent.mkdir(parents=True, exist_ok=True)
    save_weights(network, out, provenance=f'imported from the TensorFlow checkpoint {name}, whose '
                                          f'index has the SHA-256 {identity}')
    parameters = sum(parameter.numel() for parameter in network.parameters())
    print(f'{out}: {model}, {parameters:,} parameters. To fly with it:\n'
          f'infinite-nature fly --model {out}')
    return 0


@contextmanager
def _unpacked(path: Path) -> Iterator[Path]:
    """Yield the path itself, or the folder that a tar archive was unpacked into for a while."""
    if not (path.is_file() and tarfile.is_tarfile(path)):
        yield path
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            with tarfile.open(path) as archive:
                _unpack_checkpoint(archive, folder)
        except (EOFError, tarfile.TarError, zlib.error) as error:
            raise ValueError(f'it is truncated or damaged ({error}); fetch it again') from error
        yield folder


def _unpack_checkpoint(archive: tarfile.TarFile, folder: Path) -> None:
    """Write a checkpoint's files, all directly into the folder, wherever they want to lie."""
    for member in archive:
        file = Path(member.name).name
        if member.isfile() and _CHECKPOINT_FILE.fullmatch(file):
            with archive.extractfile(member) as source, (folder / file).open('wb') as target:
                shutil.copyfileobj(source, target)
