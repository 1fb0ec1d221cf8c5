"""The TFRecord container: random access to records with every checksum verified, and writing.

A record is its length (uint64), the masked CRC-32C of these 8 bytes, the bytes, and their masked
CRC-32C, all little-endian. There is no index in the file, so one is made by hopping from length to
length.
"""

import functools
import mmap
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from etils import epath

from xlnet_jax.data.storage import write_atomic

_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")
_POLYNOMIAL = 0x82F63B78  # Castagnoli, reflected
_CHUNK = 4096
_ALL_ONES = 0xFFFFFFFF
_SHORT = 32
_REPAIR = "make or copy the file again"


def masked_crc32c(data: bytes | memoryview) -> int:
    """CRC-32C of `data`, rotated and shifted by a constant as TFRecord files store it."""
    crc = _crc32c(data) if len(data) > _SHORT else _bytewise(_ALL_ONES, data) ^ _ALL_ONES
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & _ALL_ONES


def _crc32c(data: bytes | memoryview) -> int:
    """A CRC is linear: the exclusive or of what each byte by itself would leave at the end.

    The register before a chunk acts like an exclusive or with the chunk's first four bytes.
    """
    register, effects, places = _ALL_ONES, *_byte_effects()
    end = len(data) - len(data) % 4
    for begin in range(0, end, _CHUNK):
        chunk = np.frombuffer(data[begin : min(begin + _CHUNK, end)], np.uint8)
        index = places[-len(chunk) :] + chunk
        index[:4] = places[-len(chunk) :][:4] + (chunk[:4] ^ _register_bytes(register))
        register = int(np.bitwise_xor.reduce(effects.take(index)))
    return _bytewise(register, data[end:]) ^ _ALL_ONES


def _register_bytes(register: int) -> np.ndarray:
    return np.frombuffer(_FOOTER.pack(register), np.uint8)


def _bytewise(register: int, data: bytes | memoryview) -> int:
    table = _byte_steps()
    for byte in data:
        register = table[(register ^ byte) & 0xFF] ^ register >> 8
    return register


@functools.cache
def _byte_steps() -> list[int]:
    """What each byte leaves in a register of 0."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, table >> 1 ^ np.uint32(_POLYNOMIAL), table >> 1)
    return [int(entry) for entry in table]


@functools.cache
def _byte_effects() -> tuple[np.ndarray, np.ndarray]:
    """What byte b at place p of a chunk leaves behind: uint32 [p * 256 + b]; and p * 256."""
    step = np.array(_byte_steps(), np.uint32)
    table = np.empty((_CHUNK, 256), np.uint32)
    table[-1] = step
    for place in range(_CHUNK - 2, -1, -1):
        table[place] = step[table[place + 1] & 0xFF] ^ table[place + 1] >> 8
    return table.ravel(), np.arange(_CHUNK) * 256


class RecordFile:
    """One TFRecord file, mapped. `path` is what errors call it (and `local` where it lies).

    Raises FileNotFoundError, or ValueError naming file and byte offset where the file is damaged;
    so do the methods.
    """

    def __init__(self, path: epath.PathLike, local: Path | None = None):
        self.path = path
        try:
            with open(local or path, "rb") as file:
                size = file.seek(0, 2)
                self._data: mmap.mmap | bytes = (
                    mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
                )
        except FileNotFoundError:
            raise FileNotFoundError(f"{path}: no such file") from None

    @functools.cached_property
    def offsets(self) -> np.ndarray:
        """Where each record's length field is, int64 [records]; scans the lengths alone."""
        found, position, size = [], 0, len(self._data)
        while position < size:
            found.append(position)
            position += _HEADER.size + self._length(position) + _FOOTER.size
        return np.array(found, np.int64)

    def __len__(self) -> int:
        return len(self.offsets)

    def __iter__(self) -> Iterator[bytes]:
        return map(self.read, range(len(self)))

    def read(self, index: int) -> bytes:
        """The bytes of one record."""
        offset = int(self.offsets[index])
        begin = offset + _HEADER.size
        end = begin + self._length(offset)
        data = self._data[begin:end]
        if masked_crc32c(data) != _FOOTER.unpack_from(self._data, end)[0]:
            raise ValueError(
                f"{self.path}: record {index} at byte {offset} is damaged (its checksum does not "
                f"match); {_REPAIR}"
            )
        return data

    def _length(self, offset: int) -> int:
        size = len(self._data)
        if offset + _HEADER.size <= size:
            length, checksum = _HEADER.unpack_from(self._data, offset)
            if masked_crc32c(self._data[offset : offset + 8]) != checksum:
                raise ValueError(
                    f"{self.path}: damaged at byte {offset} (the checksum of a record's length "
                    f"does not match); {_REPAIR}"
                )
            if offset + _HEADER.size + length + _FOOTER.size <= size:
                return int(length)
        raise ValueError(
            f"{self.path}: truncated at byte {size}, within the record that starts at byte "
            f"{offset}; {_REPAIR}"
        )


def write_records(path: epath.PathLike, records: Iterable[bytes]) -> None:
    """Writes a TFRecord file that appears only when complete."""
    write_atomic(epath.Path(path), map(_framed, records))


def _framed(record: bytes) -> bytes:
    length = struct.pack("<Q", len(record))
    return b"".join(
        (length, _FOOTER.pack(masked_crc32c(length)), record, _FOOTER.pack(masked_crc32c(record)))
    )
