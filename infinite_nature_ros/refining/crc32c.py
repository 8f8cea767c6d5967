"""CRC-32C (Castagnoli), the check sum of TensorFlow's files, at the speed of numpy."""

from __future__ import annotations

import numpy as np

_POLYNOMIAL = np.uint32(0x82F63B78)  # reflected, as in RFC 3720
_ALL_ONES = 0xFFFFFFFF

_LANES = 1024
_LEAST_LANE = 16  # bytes; shorter data isn't worth the lanes


def crc32c(data: bytes) -> int:
    """Check sum of ``data``, as RFC 3720 has it: 0xE3069283 for ``b'123456789'``.

    The bytes of one lane must be taken one after the other, but without its first value the sum
    is linear over XOR: long data is cut into lanes that advance together, and joined after.
    """
    length = len(data) // _LANES if len(data) >= _LANES * _LEAST_LANE else 0
    in_lanes = np.frombuffer(data, np.uint8, _LANES * length).reshape(_LANES, length)
    rest = np.frombuffer(data, np.uint8, offset=in_lanes.size)
    register = np.uint32(_ALL_ONES)
    if length:
        register = _join(register, in_lanes)
    return int(_advance(register, rest)) ^ _ALL_ONES


def _join(register: np.uint32, lanes: np.ndarray) -> np.uint32:
    """Advance a register over lanes ``[L, n]`` uint8, one lane after the other."""
    # What n zero bytes make of each single bit is what they make, by XOR, of any register.
    bits = np.uint32(1) << np.arange(32, dtype=np.uint32)
    starts = np.concatenate([np.zeros(len(lanes), np.uint32), bits])
    ends = _advance(starts, np.pad(lanes, ((0, len(bits)), (0, 0))).T.copy())
    of_lanes, of_bits = ends[:len(lanes)], ends[len(lanes):]
    for of_lane in of_lanes:
        register = np.bitwise_xor.reduce(of_bits[(register & bits) != 0]) ^ of_lane
    return register


def _advance(registers: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Take in the bytes ``steps``, the first axis one after the other."""
    for step in steps:
        registers = _TABLE[(registers ^ step) & np.uint32(0xFF)] ^ (registers >> np.uint32(8))
    return registers


def _make_table() -> np.ndarray:
    """``[256]`` what each low byte of a register becomes when a byte is taken in."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ _POLYNOMIAL, table >> 1).astype(np.uint32)
    return table


_TABLE = _make_table()
