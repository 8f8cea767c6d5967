"""TensorFlow checkpoints without TensorFlow: the variables that ``tf.train.Saver`` wrote.

A checkpoint in the V2 format is an index beside one or more data files. The index is a table as
LevelDB writes them: sorted keys, the variables' names, and a protocol buffer for each that says
where in which data file its bytes lie. Everything has a check sum, and every one is checked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
import math
from pathlib import Path
import re
import struct

import numpy as np

from infinite_nature_ros.refining.crc32c import crc32c

_FOOTER_LENGTH = 48
_MAGIC = 0xDB4775248B80FB57
_TRAILER_LENGTH = 5  # of a block: compression and check sum
_FLOAT32 = 1  # DataType.DT_FLOAT
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types of protocol buffers

_SLICE = b'\0'  # begins the keys of a sliced variable's parts
_ENDING = re.compile(r'\.(index|meta|data-\d{5}-of-\d{5})$')


@dataclass(frozen=True)
class _Entry:
    """Where a variable lies (``BundleEntryProto``)."""

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    check_sum: int
    in_slices: bool


class TensorFlowCheckpoint(Mapping[str, np.ndarray]):
    """Variables by name; only those that are asked for are read."""

    def __init__(self, path: str | Path) -> None:
        """Read the index.

        Args:
            path: the checkpoint's prefix, as ``model.ckpt-6935893``, one of its files, or a
                folder that holds one checkpoint.

        Raises:
            ValueError: if a file is missing, truncated, damaged or of another kind.
        """
        self.prefix = find_prefix(path)
        self.index = _sibling(self.prefix, 'index')
        try:
            header, *records = _read_table(self.index.read_bytes())
            shards = range(_read_header(header))
            self._entries = {name.decode(): _read_entry(value)
                             for name, value in records if not name.startswith(_SLICE)}
        except (IndexError, OverflowError, TypeError, ValueError, struct.error) as error:
            raise ValueError(f'{self.index} is truncated, damaged or no index of a '
                             f'TensorFlow checkpoint ({error}); fetch it again') from error
        self._shards = [_sibling(self.prefix, f'data-{shard:05}-of-{len(shards):05}')
                        for shard in shards]
        self._check_shards()

    def __getitem__(self, name: str) -> np.ndarray:
        """Read a variable.

        Raises:
            KeyError: if there is none of that name.
            ValueError: if it isn't float32, in one piece and undamaged.
        """
        entry = self._entries[name]
        if entry.dtype != _FLOAT32 or entry.in_slices:
            raise ValueError(f'{self.prefix} holds {name} in slices or in another type than '
                             'float32; save it with a plain tf.train.Saver')
        with self._shards[entry.shard].open('rb') as file:
            file.seek(entry.offset)
            data = file.read(entry.size)
        if len(data) != 4 * math.prod(entry.shape) or _mask(crc32c(data)) != entry.check_sum:
            raise ValueError(f'{file.name} is damaged: {name} does not match its check sum; '
                             'fetch it again')
        return np.frombuffer(data, '<f4').reshape(entry.shape)

    def __contains__(self, name: object) -> bool:
        """Whether there is such a variable; nothing is read."""
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        """Names of the variables, sorted."""
        return iter(self._entries)

    def __len__(self) -> int:
        """Count the variables."""
        return len(self._entries)

    def _check_shards(self) -> None:
        """Raise a ValueError if a data file is missing, or too short for a variable."""
        missing = [shard.name for shard in self._shards if not shard.is_file()]
        if missing:
            raise ValueError(f'{self.prefix} is incomplete: {", ".join(missing)} is missing; put '
                             'it beside the index')
        sizes = [shard.stat().st_size for shard in self._shards]
        for name, entry in self._entries.items():
            end = entry.offset + entry.size
            if not 0 <= entry.shard < len(sizes):
                raise ValueError(f'{self.prefix} is damaged: {name} lies in data file '
                                 f'{entry.shard} of {len(sizes)}; fetch it again')
            if end > sizes[entry.shard]:
                raise ValueError(f'{self._shards[entry.shard]} is truncated: it has '
                                 f'{sizes[entry.shard]} bytes, but {name} lies at '
                                 f'{entry.offset} to {end}; fetch it again')


def find_prefix(path: str | Path) -> Path:
    """Find the common prefix of a checkpoint's files from it, one of them, or their folder.

    Raises:
        ValueError: if there is no checkpoint, or a folder holds several.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        found = sorted(path.glob('*.index'))
        if len(found) != 1:
            names = ', '.join(file.stem for file in found) or 'no file *.index'
            raise ValueError(f'folder {path} should hold one TensorFlow checkpoint, but there is '
                             f'{names}; give the path of one')
        path = found[0]
    prefix = path.with_name(_ENDING.sub('', path.name))
    index = _sibling(prefix, 'index')
    if not index.is_file():
        raise ValueError(f'there is no TensorFlow checkpoint {prefix}: {index.name} is missing; '
                         'give its folder, or the path of its files without their endings')
    return prefix


def _sibling(prefix: Path, ending: str) -> Path:
    return prefix.with_name(f'{prefix.name}.{ending}')


def _read_table(table: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a LevelDB table, sorted by key."""
    footer = table[-_FOOTER_LENGTH:]
    if len(footer) < _FOOTER_LENGTH or struct.unpack('<Q', footer[-8:])[0] != _MAGIC:
        raise ValueError('it does not end as a table does')
    *_, at = _read_handle(footer, 0)  # an index of meta data, of which checkpoints have none
    for _, handle in _read_block(table, *_read_handle(footer, at)[:2]):
        yield from _read_block(table, *_read_handle(handle, 0)[:2])


def _read_handle(data: bytes, at: int) -> tuple[int, int, int]:
    """Offset and size of a block, and where in ``data`` the handle ends."""
    offset, at = _read_varint(data, at)
    size, at = _read_varint(data, at)
    return offset, size, at


def _read_block(table: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a block; of each key only what differs from the last one is stored."""
    block = table[offset:offset + size]
    compression, check_sum = struct.unpack_from('<BI', table, offset + size)
    if _mask(crc32c(table[offset:offset + size + 1])) != check_sum:
        raise ValueError(f'the block at byte {offset} does not match its check sum')
    if compression:
        raise ValueError('it is compressed, as TensorFlow does not write it')
    restarts, = struct.unpack_from('<I', block, size - 4)
    end = size - 4 - 4 * restarts
    at, key = 0, b''
    while at < end:
        shared, at = _read_varint(block, at)
        added, at = _read_varint(block, at)
        length, at = _read_varint(block, at)
        key = key[:shared] + block[at:at + added]
        at += added + length
        yield key, block[at - length:at]


def _read_header(record: tuple[bytes, bytes]) -> int:
    """Count the data files (``BundleHeaderProto``)."""
    key, value = record
    fields = dict(_read_message(value))
    shards, big_endian = fields.get(1), fields.get(2, 0)
    if key or big_endian or not isinstance(shards, int):
        raise ValueError('it has no header of the V2 format in little-endian order')
    return shards


def _read_entry(value: bytes) -> _Entry:
    fields = dict(_read_message(value))
    dimensions = [dict(_read_message(dimension))
                  for number, dimension in _read_message(fields.get(2, b'')) if number == 2]
    return _Entry(dtype=fields.get(1, 0), shape=tuple(size.get(1, 0) for size in dimensions),
                  shard=fields.get(3, 0), offset=fields.get(4, 0), size=fields.get(5, 0),
                  check_sum=fields.get(6, 0), in_slices=7 in fields)


def _read_message(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Numbers and values of a protocol buffer's fields; of repeated ones each."""
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        kind = tag & 7
        if kind == _VARINT:
            value, at = _read_varint(data, at)
        elif kind == _BYTES:
            length, at = _read_varint(data, at)
            value, at = data[at:at + length], at + length
        elif kind in (_FIXED32, _FIXED64):
            form = '<I' if kind == _FIXED32 else '<Q'
            value, = struct.unpack_from(form, data, at)
            at += struct.calcsize(form)
        else:
            raise ValueError(f'a protocol buffer has a field of the unknown kind {kind}')
        yield tag >> 3, value


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Read an integer, 7 bits a byte, low ones first; also returns where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def _mask(check_sum: int) -> int:
    """Disguise a check sum as LevelDB does, so that sums over data with sums don't cancel."""
    return ((check_sum >> 15 | check_sum << 17) + 0xA282EAD8) & 0xFFFFFFFF
