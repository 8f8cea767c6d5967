"""Files of the official releases as they were downloaded: which they are, and what is in them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
import hashlib
from pathlib import Path
import re
import shutil
import tarfile
import tempfile
from typing import Protocol
import zipfile
import zlib

from torch import nn

from infinite_nature_ros.refining.official import import_official
from infinite_nature_ros.refining.official_zero import (
    import_official_zero,
    is_torch_file,
    read_zero_checkpoint,
)
from infinite_nature_ros.refining.tf_checkpoint import TensorFlowCheckpoint

_TENSORFLOW_FILE = re.compile(r'.+\.(index|data-\d{5}-of-\d{5})')
_ZERO_SUFFIX = 'latest.tar'


class OfficialCheckpoint(Protocol):
    """A checkpoint of a release.

    Attributes:
        name: of the checkpoint.
        default_model: registered name of the release's own network.
    """

    name: str
    default_model: str

    def provenance(self) -> str:
        """Say where weights that are imported from it come from."""
        ...

    def import_network(self, model: str) -> nn.Module:
        """Build a registered model with its weights.

        Raises:
            ValueError: if they can't be read, or belong to another model.
        """
        ...


@contextmanager
def open_checkpoint(path: Path) -> Iterator[OfficialCheckpoint]:
    """Look what a path is; archives are unpacked for as long as the context lasts.

    Args:
        path: of Infinite Nature ckpt.tar.gz, the folder that was in it, or the checkpoint in
            that; of InfiniteNature-Zero the zip archive, or the ``*latest.tar`` that was in it.

    Raises:
        ValueError: if it is none of them, or truncated, damaged or incomplete.
        OSError: if it can't be read.
    """
    with tempfile.TemporaryDirectory() as folder:
        unpacked = _unpack(path, Path(folder))
        yield _Zero(unpacked) if is_torch_file(unpacked) else _InfiniteNature(unpacked)


class _InfiniteNature:
    """The first paper's, written by TensorFlow."""

    default_model = 'infinite-nature'

    def __init__(self, path: Path) -> None:
        self._checkpoint = TensorFlowCheckpoint(path)
        self.name = self._checkpoint.prefix.name

    def provenance(self) -> str:
        # The index has the check sums of all variables, so its hash identifies them.
        return (f'imported from the TensorFlow checkpoint {self.name}, whose index has the '
                f'SHA-256 {_sha256(self._checkpoint.index)}')

    def import_network(self, model: str) -> nn.Module:
        return import_official(self._checkpoint, model)


class _Zero:
    """The second paper's, written by PyTorch."""

    default_model = 'comodgan'

    def __init__(self, path: Path) -> None:
        self._path = path
        self.name = path.stem

    def provenance(self) -> str:
        return (f'imported from the PyTorch checkpoint {self._path.name} of InfiniteNature-Zero '
                f'with the SHA-256 {_sha256(self._path)}')

    def import_network(self, model: str) -> nn.Module:
        return import_official_zero(read_zero_checkpoint(self._path), model)


def _unpack(path: Path, folder: Path) -> Path:
    """Unpack what lies in an archive; gives the path itself if it is none."""
    if not path.is_file():
        return path
    try:
        if tarfile.is_tarfile(path):
            with tarfile.open(path) as archive:
                return _unpack_tensorflow(archive, folder)
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return _unpack_zero(archive, folder) or path
    except (EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f'it is truncated or damaged ({error}); fetch it again') from error
    return path


def _unpack_tensorflow(archive: tarfile.TarFile, folder: Path) -> Path:
    """Write a checkpoint's files, all directly into the folder, wherever they want to lie."""
    for member in archive:
        file = Path(member.name).name
        if member.isfile() and _TENSORFLOW_FILE.fullmatch(file):
            with archive.extractfile(member) as source, (folder / file).open('wb') as target:
                shutil.copyfileobj(source, target)
    return folder


def _unpack_zero(archive: zipfile.ZipFile, folder: Path) -> Path | None:
    """Write the checkpoint that the release would load into the folder, if one is there."""
    found = sorted(name for name in archive.namelist() if name.endswith(_ZERO_SUFFIX))
    if not found:
        return None  # PyTorch's own files are zip archives, too
    unpacked = folder / Path(found[-1]).name
    with archive.open(found[-1]) as source, unpacked.open('wb') as target:
        shutil.copyfileobj(source, target)
    return unpacked


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open('rb') as file:
        for block in iter(lambda: file.read(1 << 20), b''):
            digest.update(block)
    return digest.hexdigest()
