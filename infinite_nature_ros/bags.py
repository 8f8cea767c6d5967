"""Bags: a flight as rosbag2 (mcap) that is whole at every moment of its making. Knows no ROS."""

from __future__ import annotations

from collections.abc import Mapping
import json
import os
from pathlib import Path
import struct
from typing import Any

try:
    from mcap.data_stream import RecordBuilder
    from mcap.records import DataEnd, Footer
    from mcap.writer import MCAP0_MAGIC, Writer
    from rosbags.typesys import get_typestore, Stores
except ImportError as error:
    raise ImportError(f'bags need {error.name}, which is not installed; '
                      "say: pip install 'infinite_nature_ros[data]'") from error

# Of the records that the MCAP specification leaves to applications; readers skip them.
_PRIVATE_RECORD = 0x80
_PREFIX = struct.Struct('<BQ')
_LENGTH = struct.Struct('<Q')

# The file grows in steps, by a hole that takes no room on the disk.
_GROWTH = 1 << 20

_INFINITE = {'sec': 9223372036, 'nsec': 854775807}
_FRAME_QOS = [{
    'history': 'keep_last', 'depth': 5, 'reliability': 'reliable',
    'durability': 'transient_local', 'deadline': _INFINITE, 'lifespan': _INFINITE,
    'liveliness': 'automatic', 'liveliness_lease_duration': _INFINITE,
    'avoid_ros_namespace_conventions': False}]


class McapFile:
    """File that ends as the MCAP format demands, at whatever moment the program is killed.

    The file is: records, one private record as padding, ``DataEnd``, ``Footer``, magic. What is
    added goes into the padding, where no reader looks, together with the header of a new padding
    behind it; then the old padding's length is set to 0, and all of it is in the file at once.
    That length is 8 aligned bytes of one memory page: no signal comes between them. To grow, the
    padding first gets a length beyond the end, which readers seek over, then a new end is written.
    """

    def __init__(self, path: Path) -> None:
        """Make the file under a temporary name; it gets its own with the first commit."""
        self._path = path
        self._unborn = path.with_suffix('.tmp')
        self._file = os.open(self._unborn, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
        self._pending = bytearray()
        self._begin = 0
        self._end = 0

    def tell(self) -> int:
        """Offset in the file of what is written next."""
        return self._begin + len(self._pending)

    def write(self, data: bytes) -> None:
        """Add bytes of whole records to the next commit."""
        self._pending += data

    def flush(self) -> None:
        """Commit what was written."""
        # Fillers have at least the 9 bytes of a prefix; lengths lie at multiples of 8.
        gap = -(self.tell() + 1) % 8
        if gap:
            self.write(_PREFIX.pack(_PRIVATE_RECORD, gap - 1) + bytes(gap - 1))
        begin = self.tell() + _PREFIX.size
        self._reserve(begin)
        self._write_at(self._begin, bytes(self._pending)
                       + _PREFIX.pack(_PRIVATE_RECORD, self._end - begin))
        self._set_padding(0)
        self._pending.clear()
        self._begin = begin

    def close(self) -> None:
        """Commit what was written, which must be the end of an MCAP file, and cut the padding."""
        size = self.tell()
        self._reserve(size)
        self._write_at(self._begin, bytes(self._pending))
        # From here on the index is found, and with it all records.
        os.ftruncate(self._file, size)
        self._set_padding(0)
        os.close(self._file)

    def _reserve(self, size: int) -> None:
        """Let the padding reach at least so far into the file."""
        if size <= self._end:
            return
        ending = _ending()
        # The end of the file is the end of a memory page.
        self._end = -(-(size + len(ending)) // _GROWTH) * _GROWTH - len(ending)
        self._set_padding(self._end - self._begin)
        self._write_at(self._end, ending)

    def _set_padding(self, length: int) -> None:
        """Change the length of the padding; the first commit is the birth of the file instead."""
        if self._begin:
            self._write_at(self._begin - _LENGTH.size, _LENGTH.pack(length))
        elif not length:
            self._unborn.replace(self._path)

    def _write_at(self, offset: int, data: bytes) -> None:
        """Write all of the data; a full disk is an ``OSError``."""
        while data:
            written = os.pwrite(self._file, data, offset)
            data, offset = data[written:], offset + written


def _ending() -> bytes:
    """Last records of an MCAP file without an index."""
    builder = RecordBuilder()
    DataEnd(0).write(builder)
    Footer(0, 0, 0).write(builder)
    return builder.end() + MCAP0_MAGIC


class BagWriter:
    """rosbag2 folder of messages as they came over the wire: ``metadata.yaml`` and one mcap file.

    After ``kill -9`` all frames but the one in the making are there; :meth:`close` adds the
    index. The bag appears with its first frame and takes the place of one of the same name.
    """

    def __init__(self, folder: Path, types: Mapping[str, str]) -> None:
        """Say what will be written.

        Args:
            folder: folder of the bag.
            types: message type by topic, as ``{'/pose': 'geometry_msgs/msg/PoseStamped'}``.
        """
        self.folder = folder
        self._types = types
        self._typestore = get_typestore(Stores.ROS2_JAZZY)
        self._file: McapFile | None = None
        self._counts = dict.fromkeys(types, 0)
        self._times = (0, 0)

    def add(self, stamp: int, messages: Mapping[str, bytes]) -> None:
        """Write the messages of one frame.

        Args:
            stamp: nanoseconds, under which all of them are logged; where a clock goes back, the
                last one is kept, for a bag is in order.
            messages: CDR by topic.

        Raises:
            OSError: if the bag can't be written.
        """
        if self._file is None:
            self._open()
            self._times = (stamp, stamp)
        self._times = (self._times[0], max(stamp, self._times[1]))
        for topic, data in messages.items():
            self._writer.add_message(self._channels[topic], log_time=self._times[1], data=data,
                                     publish_time=stamp)
            self._counts[topic] += 1
        self._writer.flush()
        self._write_metadata()

    def close(self) -> None:
        """Finish the file; may be called again."""
        if self._file is not None:
            self._writer.finish()
            self._file.close()
            self._file = None

    def _open(self) -> None:
        """Start the mcap file with the definitions of all types."""
        self.folder.mkdir(parents=True, exist_ok=True)
        # Without it the folder is no bag: not yet, and not that of an earlier flight any more.
        (self.folder / 'metadata.yaml').unlink(missing_ok=True)
        self._file = McapFile(self.folder / self._mcap_name)
        self._writer = Writer(self._file)
        self._writer.start(profile='ros2', library='infinite_nature_ros')
        schemas = {
            kind: self._writer.register_schema(
                kind, 'ros2msg', self._typestore.generate_msgdef(kind, ros_version=2)[0].encode())
            for kind in set(self._types.values())}
        self._channels = {
            topic: self._writer.register_channel(
                topic, 'cdr', schemas[kind], {'offered_qos_profiles': json.dumps(_FRAME_QOS)})
            for topic, kind in self._types.items()}

    @property
    def _mcap_name(self) -> str:
        """Name of the file, as rosbag2 names the first one of a bag."""
        return f'{self.folder.name}_0.mcap'

    def _write_metadata(self) -> None:
        """Put the present metadata in the place of the last."""
        extent: dict[str, Any] = {
            'duration': {'nanoseconds': self._times[1] - self._times[0]},
            'starting_time': {'nanoseconds_since_epoch': self._times[0]},
            'message_count': sum(self._counts.values())}
        information = {
            'version': 9, 'storage_identifier': 'mcap', **extent,
            'topics_with_message_count': [
                {'topic_metadata': {
                    'name': topic, 'type': kind, 'serialization_format': 'cdr',
                    'offered_qos_profiles': _FRAME_QOS,
                    'type_description_hash': self._typestore.hash_rihs01(kind)},
                 'message_count': self._counts[topic]}
                for topic, kind in self._types.items()],
            'compression_format': '', 'compression_mode': '',
            'relative_file_paths': [self._mcap_name],
            'files': [{'path': self._mcap_name, **extent}],
            'custom_data': None, 'ros_distro': 'jazzy'}
        new = self.folder / 'metadata.yaml.tmp'
        # JSON is YAML.
        new.write_text(json.dumps({'rosbag2_bagfile_information': information}, indent=1),
                       encoding='utf-8')
        new.replace(self.folder / 'metadata.yaml')
