"""Keeps a flight in a file, so that a generator that was killed goes on where it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
import json
import os
from pathlib import Path
from typing import Any

from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, Pose, PoseStamped, Quaternion
import numpy as np
from rclpy.serialization import deserialize_message, serialize_message
from safetensors import safe_open, SafetensorError
from safetensors.torch import save_file
import torch
from torch import Tensor

from infinite_nature_ros.nodes.messages import header_at

_FLIGHT = 'flight.'


@dataclass(frozen=True)
class SavedFlight:
    """What a generator needs to go on.

    Attributes:
        snapshot: ``Flight.state_dict`` of the flight.
        stamp: nanoseconds of the last frame.
        path: poses of the last frames; when read, without frame ids.
        command: the last command that was flown, which may be sent again; ``None`` if none was.
    """

    snapshot: dict[str, Tensor]
    stamp: int
    path: Sequence[PoseStamped]
    command: PoseStamped | None


class FlightStore:
    """A file of safetensors that is whole at any moment, whenever the process dies."""

    def __init__(self, path: Path, kind: Mapping[str, Any]) -> None:
        """Keep a flight.

        Args:
            path: the file; its folder must be there.
            kind: settings that make the flight what it is; only a flight with the same goes on.
        """
        self._path = path
        self._kind = dict(kind)

    def save(self, flight: SavedFlight) -> None:
        """Replace what was saved before.

        Raises:
            OSError: if the file can't be written.
        """
        tensors = {_FLIGHT + name: value.contiguous() for name, value in flight.snapshot.items()}
        tensors['stamp'] = torch.tensor([flight.stamp])
        tensors['path'] = _rows(flight.path)
        command = b'' if flight.command is None else serialize_message(flight.command)
        tensors['command'] = torch.from_numpy(np.frombuffer(command, np.uint8).copy())
        # Whole or not at all: a process may be killed while it writes, but not while it renames.
        unfinished = self._path.with_name(f'{self._path.name}.unfinished')
        try:
            save_file(tensors, unfinished, {'kind': json.dumps(self._kind)})
        except SafetensorError as error:
            raise OSError(f'state_file {self._path} cannot be written: {error}') from error
        os.replace(unfinished, self._path)

    def load(self) -> SavedFlight | None:
        """Read what was saved; ``None`` if nothing was.

        Raises:
            ValueError: if the file is something else, or another kind of flight.
            OSError: if the file can't be read.
        """
        if not self._path.exists():
            return None
        try:
            with safe_open(self._path, 'pt') as file:
                kind = json.loads((file.metadata() or {}).get('kind', '{}'))
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(f'state_file {self._path} is not a saved flight ({error}); '
                             'give another name') from error
        odd = sorted(name for name in self._kind if kind.get(name) != self._kind[name])
        if odd:
            differs = ', '.join(f'{name} {kind.get(name)!r}, now {self._kind[name]!r}'
                                for name in odd)
            raise ValueError(f'state_file {self._path} is of another flight ({differs}); '
                             'delete it to start over, or give another name')
        return _saved_flight(tensors)


def _saved_flight(tensors: dict[str, Tensor]) -> SavedFlight:
    """Undo ``FlightStore.save``."""
    command = tensors['command'].numpy().tobytes()
    return SavedFlight(
        snapshot={name.removeprefix(_FLIGHT): value for name, value in tensors.items()
                  if name.startswith(_FLIGHT)},
        stamp=int(tensors['stamp']), path=_path(tensors['path']),
        command=deserialize_message(command, PoseStamped) if command else None)


def _rows(path: Sequence[PoseStamped]) -> Tensor:
    """Poses as numbers ``[N, 9]``: seconds, nanoseconds, x, y, z and the quaternion x, y, z, w."""
    rows = []
    for stamped in path:
        stamp, place, turn = stamped.header.stamp, stamped.pose.position, stamped.pose.orientation
        rows.append((stamp.sec, stamp.nanosec, place.x, place.y, place.z,
                     turn.x, turn.y, turn.z, turn.w))
    return torch.tensor(rows, dtype=torch.float64).reshape(-1, 9)


def _path(rows: Tensor) -> list[PoseStamped]:
    """Undo ``_rows``, without frame ids."""
    return [PoseStamped(
        header=header_at(Time(sec=int(row[0]), nanosec=int(row[1])), ''),
        pose=Pose(position=Point(x=row[2], y=row[3], z=row[4]),
                  orientation=Quaternion(x=row[5], y=row[6], z=row[7], w=row[8])))
        for row in rows.tolist()]
