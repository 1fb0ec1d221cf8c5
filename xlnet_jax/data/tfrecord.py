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

import google_crc32c
import numpy as np
from etils import epath

from xlnet_jax.data.storage import write_atomic

_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")
_REPAIR = "make or copy the file again"


def masked_crc32c(data: bytes) -> int:
    """CRC-32C of `data`, rotated and shifted by a constant as TFRecord files store it."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


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
