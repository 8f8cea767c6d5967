"""Fetches the photographs of training/photos.csv from Debian's package endless-sky-high-dpi.

usage: .venv/bin/python scripts/fetch_photos.py photos [--package FILE] [--list FILE]

The package (738 MB) is downloaded once into the folder, checked, read and removed; started again,
a download goes on where it stopped, and photographs that are there already are left alone. Each
one is checked against its SHA-256 in the package and becomes NAME.jpg, saved anew at JPEG quality
90 as those were that anything here is trained on: byte for byte the same, but for other versions
of Pillow's JPEG library. photos.csv has their credits and licences.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
import csv
from dataclasses import dataclass
import hashlib
from http.client import HTTPException
import io
import lzma
from pathlib import Path
import shutil
import sys
import tarfile
from typing import BinaryIO
import urllib.error
import urllib.request

from PIL import Image
from tqdm import tqdm

LIST = Path(__file__).resolve().parents[1] / 'training' / 'photos.csv'
CREDITS = 'photos.csv'

_QUALITY = 90

_CHUNK = 1 << 20
_TIMEOUT_SECONDS = 30

# ar: a magic word, then members, each behind a header and on an even offset.
_AR_MAGIC, _AR_HEADER = b'!<arch>\n', 60


class FetchError(Exception):
    """The photographs can't be had; the text says why, and what would help."""


@dataclass(frozen=True)
class Package:
    """A Debian package: what it is called, how large it is, its SHA-256, where it can be had."""

    name: str
    size: int
    sha256: str
    urls: tuple[str, ...]


PACKAGE = Package(
    'endless-sky-high-dpi_0.11.0-1_all.deb', 737712976,
    'bff96f1b0a395636bff43072f605e2e90be5fa7b4128917224e25e5647fc245d',
    ('https://deb.debian.org/debian/pool/main/e/endless-sky-high-dpi/'
     'endless-sky-high-dpi_0.11.0-1_all.deb',
     # By its SHA-1, for when Debian has a later one.
     'https://snapshot.debian.org/file/cc3b383fc3613bd10ac1572c817de77b89868e45'))


def fetch(folder: Path, *, package: Path | None = None, listed: Path = LIST) -> int:
    """Bring the listed photographs into a folder.

    Args:
        folder: where they go.
        package: a package at hand; ``None`` downloads one.
        listed: CSV file with the columns file and sha256 (in the package), and credits.

    Returns:
        How many weren't there yet.

    Raises:
        FetchError: if they can't be had, or aren't what the list says.
        OSError: if something can't be written.
    """
    with listed.open(encoding='utf-8', newline='') as lines:
        wanted = {row['file']: row['sha256'] for row in csv.DictReader(lines)}
    folder.mkdir(parents=True, exist_ok=True)
    missing = {name: wanted[name] for name in wanted if not (folder / name).exists()}
    if missing:
        data = download(folder) if package is None else package
        extract(data, missing, folder)
        if package is None:
            data.unlink()
    shutil.copyfile(listed, folder / CREDITS)
    return len(missing)


def download(folder: Path) -> Path:
    """Download the package, or the rest of it; returns the file once its hash is right."""
    partial = folder / f'{PACKAGE.name}.partial'
    reasons = []
    for url in PACKAGE.urls:
        try:
            _continue(url, partial)
            break
        except (urllib.error.URLError, HTTPException, ConnectionError, TimeoutError) as error:
            reasons.append(f'{url}: {error}')
    else:
        raise FetchError(
            f'{PACKAGE.name} cannot be downloaded; start again where there is a network, it goes '
            f'on where it stopped, or give the package with --package\n' + '\n'.join(reasons))
    with partial.open('rb') as file:
        found = _digest(file)
    if found != PACKAGE.sha256:
        partial.unlink()
        raise FetchError(f'{PACKAGE.name} was damaged on its way, and is removed; start again')
    return partial


def _continue(url: str, partial: Path) -> None:
    """Append to a file what it lacks of the package."""
    done = partial.stat().st_size if partial.exists() else 0
    if done >= PACKAGE.size:
        return
    request = urllib.request.Request(url, headers={'Range': f'bytes={done}-'})
    with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:
        done = done if answer.status == 206 else 0
        with partial.open('ab' if done else 'wb') as file, tqdm(
                total=PACKAGE.size, initial=done, unit='B', unit_scale=True,
                desc='package') as bar:
            while chunk := answer.read(_CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
    if partial.stat().st_size < PACKAGE.size:
        raise ConnectionError('the connection broke off')


def extract(package: Path, wanted: dict[str, str], folder: Path) -> None:
    """Take the wanted photographs out of a package, each whole or not at all.

    Args:
        package: a .deb file.
        wanted: SHA-256 of the photographs in the package by their names here.
        folder: where they go.

    Raises:
        FetchError: if the package lacks one, or has another, or is none.
    """
    # One of them is a .JPG there.
    places = {f'images/land/{Path(name).stem}@2x.jpg'.lower(): name for name in wanted}
    left = dict(wanted)
    with tqdm(total=len(wanted), desc='photographs', unit='file') as bar:
        for path, data in _members(package):
            name = places.get('/'.join(path.lower().split('/')[-3:]))
            if name not in left:
                continue
            if hashlib.sha256(data).hexdigest() != left.pop(name):
                raise FetchError(f'{name} in {package} is another picture than the listed one; '
                                 f'give {PACKAGE.name}')
            partial = folder / f'{name}.partial'
            with Image.open(io.BytesIO(data)) as picture:
                picture.convert('RGB').save(partial, 'JPEG', quality=_QUALITY)
            partial.replace(folder / name)
            bar.update()
            if not left:
                return
    raise FetchError(f'{package} lacks {len(left)} of the photographs, {min(left)} among them; '
                     f'give {PACKAGE.name}')


def _members(package: Path) -> Iterator[tuple[str, bytes]]:
    """Paths and contents of the files in a package."""
    with package.open('rb') as file:
        try:
            with tarfile.open(fileobj=_find_data(file, package), mode='r|*') as archive:
                for member in archive:
                    if member.isfile():
                        yield member.name, archive.extractfile(member).read()
        except (tarfile.TarError, lzma.LZMAError, EOFError, ValueError) as error:
            raise FetchError(f'{package} is damaged ({error}); get it again') from error


def _find_data(file: BinaryIO, package: Path) -> BinaryIO:
    """Bring a package to its part with the files."""
    if file.read(len(_AR_MAGIC)) != _AR_MAGIC:
        raise FetchError(f'{package} is no Debian package; give {PACKAGE.name}')
    while len(header := file.read(_AR_HEADER)) == _AR_HEADER:
        if header.startswith(b'data.tar'):
            return file
        size = int(header[48:58])
        file.seek(size + size % 2, io.SEEK_CUR)
    raise FetchError(f'{package} is cut short; get it again')


def _digest(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('folder', type=Path, help='where the photographs go')
    parser.add_argument('--package', type=Path, help=f'{PACKAGE.name}, if you have it')
    parser.add_argument('--list', type=Path, default=LIST, metavar='FILE',
                        help='another list, with the columns of training/photos.csv')
    options = parser.parse_args(arguments)
    try:
        count = fetch(options.folder, package=options.package, listed=options.list)
    except (FetchError, OSError) as error:
        print(f'fetch_photos: {error}', file=sys.stderr)
        return 1
    print(f'{count} photographs fetched into {options.folder}; {CREDITS} has their credits')
    return 0


if __name__ == '__main__':
    sys.exit(main())
