"""Bags on disk: found, opened, and what is said of those that are damaged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
import os
from pathlib import Path
from typing import Any

from rosbags.interfaces import Connection
from rosbags.rosbag2 import Reader

from infinite_nature_training.bags.clip import ClipError
from infinite_nature_training.bags.schema import typestore

FILES = ('.mcap', '.db3')
"""Suffixes of files that are bags by themselves."""

_METADATA = 'metadata.yaml'


def find_clips(paths: Iterable[str | Path]) -> list[Path]:
    """Bags at and below paths: folders with ``metadata.yaml``, and .mcap and .db3 files alone.

    Hidden folders, where unfinished bags are, are passed over.

    Raises:
        ClipError: if a path doesn't exist, or there is no bag at or below it.
    """
    found: set[Path] = set()
    for path in map(Path, paths):
        if not path.exists():
            raise ClipError(f'{path} does not exist; give a bag or a folder of bags')
        bags = set(_bags_below(path)) if path.is_dir() else {path}
        if not bags:
            raise ClipError(f'no bag in {path}; a bag is a folder with {_METADATA}, '
                            'or an .mcap or .db3 file')
        found |= bags
    return sorted(found)


def _bags_below(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        if _METADATA in files:
            folders.clear()
            yield Path(place)
            continue
        folders[:] = [name for name in folders if not name.startswith('.')]
        yield from (Path(place, name) for name in files
                    if name.endswith(FILES) and not name.startswith('.'))


@contextmanager
def opened(path: Path) -> Iterator[Reader]:
    """Bag open for reading.

    Raises:
        ClipError: if there is none.
    """
    if not path.exists():
        raise ClipError('it does not exist; check the path')
    if path.is_dir() and not (path / _METADATA).exists():
        raise ClipError(f'{_METADATA} is missing; give the .mcap or .db3 file in it, '
                        f'or say: ros2 bag reindex {path}')
    if path.is_file() and path.suffix not in FILES:
        raise ClipError(f'a bag is a folder with {_METADATA}, or an .mcap or .db3 file')
    with Reader(path) as reader:
        yield reader


@contextmanager
def explaining(path: Path) -> Iterator[None]:
    """Turn what any library raises about a bag into a ``ClipError`` with its path."""
    try:
        yield
    except ClipError as error:
        raise ClipError(f'{path}: {error}') from error
    # Damaged files surface as almost any exception, by storage and compression.
    except Exception as error:
        raise ClipError(f'{path} is damaged or cut short ({type(error).__name__}: {error}); '
                        'copy it again, or repair it (mcap recover)') from error


def decode(connection: Connection, data: bytes) -> Any:
    """Message of a connection.

    The types that clips need are the same in all releases of ROS 2, so definitions in the bag
    aren't asked, and those of its other types can't stop anything.
    """
    return typestore().deserialize_cdr(data, connection.msgtype)


def connections_of(reader: Reader, topics: Iterable[str]) -> list[Connection]:
    """Return the connections of some topics."""
    return [connection for connection in reader.connections if connection.topic in topics]
