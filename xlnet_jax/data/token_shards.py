"""Random access to the token shards of a data directory.

A data directory (written by `xlnet-jax corpus`) holds, for shard k, `shard-0000k.tokens` (raw token
ids), `shard-0000k.starts` (raw sorted offsets at which a sentence starts) and `shard-0000k.json`
with lengths and a CRC-32 per block of both. Files are memory-mapped and nothing is read before it
is asked for, so opening costs the same whatever the size and whatever the position. A block's
checksum is verified when the block is first touched (all blocks of `.starts` when its shard is).
"""

import dataclasses
import json
import mmap
import threading
import zlib
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import numpy as np
from etils import epath

from xlnet_jax.data import counter_random, staging
from xlnet_jax.data.manifest import Manifest

_ORDER = 0x5348  # keeps the draws of shard orders apart from all others
_REPAIR = "delete the shard's files and run the same `xlnet-jax corpus` command again"


class TokenShards:
    """The shards of one data directory.

    `manifest` says what they were made with; `lengths` and `sentences` (int64 [shards]) their
    sizes. At most `max_open` shards are mapped at a time.

    Raises FileNotFoundError or ValueError, naming the file, where something is missing or damaged;
    the same errors, with the byte offset, come from reading.
    """

    def __init__(
        self,
        data_dir: epath.PathLike,
        *,
        cache_dir: epath.PathLike | None = None,
        max_open: int = 256,
    ):
        self.data_dir = epath.Path(data_dir)
        self.manifest = Manifest.read(self.data_dir)
        shards = [shard for shard in self.manifest.shards if shard["tokens"] > 0]
        if not shards:
            raise ValueError(
                f"{self.data_dir}: no tokens in the manifest; run `xlnet-jax corpus` on more text"
            )
        self.names: list[str] = [shard["name"] for shard in shards]
        self.lengths = np.array([shard["tokens"] for shard in shards], np.int64)
        self.sentences = np.array([shard["sentences"] for shard in shards], np.int64)
        self._cache_dir = cache_dir
        self._max_open = max_open
        self._open: OrderedDict[int, _Shard] = OrderedDict()
        self._verified: dict[int, tuple[bytearray, bytearray]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Number of tokens."""
        return int(self.lengths.sum())

    def epoch(self, seed: int, epoch: int) -> "TokenStream":
        """All shards end to end, in an order that is a function of (seed, epoch)."""
        key = counter_random.make_key(_ORDER, seed, epoch, np.arange(len(self.names)))
        return TokenStream(self, np.argsort(key, kind="stable"))

    def shard(self, index: int) -> "_Shard":
        """The shard with this index in `names`, mapped."""
        with self._lock:
            shard = self._open.get(index)
            if shard is None:
                shard = self._open[index] = self._map(index)
                if len(self._open) > self._max_open:
                    self._open.popitem(last=False)
            else:
                self._open.move_to_end(index)
        return shard

    def _map(self, index: int) -> "_Shard":
        name, info = self.names[index], self._info(self.names[index])
        for key, wanted in (("tokens", self.lengths[index]), ("sentences", self.sentences[index])):
            if info[key] != wanted:
                raise ValueError(
                    f"{self.data_dir / name}.json: {info[key]} {key}, but the manifest says "
                    f"{wanted}: {_REPAIR}"
                )
        files = []
        for kind, dtype, count in (
            ("tokens", info["dtype"], info["tokens"]),
            ("starts", info["starts_dtype"], info["sentences"]),
        ):
            files.append(
                _CheckedFile(
                    self.data_dir / f"{name}.{kind}", np.dtype(dtype).newbyteorder("<"), count,
                    info["block_bytes"], info[f"crc32_{kind}"], self._cache_dir,
                )
            )  # fmt: skip
        if index in self._verified:
            files[0].verified, files[1].verified = self._verified[index]
        else:
            files[1].verify(0, info["sentences"])
            self._verified[index] = (files[0].verified, files[1].verified)
        return _Shard(files[0], files[1].array)

    def _info(self, name: str) -> dict[str, Any]:
        path = self.data_dir / f"{name}.json"
        try:
            return json.loads(path.read_text())
        except FileNotFoundError:
            raise FileNotFoundError(
                f"{path}: missing, though the manifest lists it: {_REPAIR}"
            ) from None
        except ValueError as error:
            raise ValueError(f"{path}: not JSON ({error}): {_REPAIR}") from None


class TokenStream:
    """Shards end to end as one stream of `len(stream)` tokens with random access."""

    def __init__(self, shards: TokenShards, order: np.ndarray):
        self._shards = shards
        self._order: list[int] = order.tolist()
        lengths, sentences = shards.lengths[order], shards.sentences[order]
        self._token_ends = np.cumsum(lengths)
        self._token_begins = self._token_ends - lengths
        self._start_ends = np.cumsum(sentences)
        self._start_begins = self._start_ends - sentences
        self._ends_list: list[int] = self._token_ends.tolist()
        self.sentences = int(self._start_ends[-1])

    def __len__(self) -> int:
        return self._ends_list[-1]

    def copy(self, begin: int, end: int, out: np.ndarray) -> None:
        """Writes tokens [begin, end) into `out`, of that length (cast to its type)."""
        written = 0
        while begin < end:
            place = bisect_right(self._ends_list, begin)
            stop = min(end, self._ends_list[place])
            shard = self._shards.shard(self._order[place])
            offset = begin - (self._ends_list[place] - len(shard.tokens.array))
            count = stop - begin
            shard.tokens.verify(offset, offset + count)
            out[written : written + count] = shard.tokens.array[offset : offset + count]
            written += count
            begin = stop

    def starts_before(self, positions: np.ndarray) -> np.ndarray:
        """How many sentences start before each position (0 … len): int64."""
        place = np.searchsorted(self._token_ends, positions, side="left")
        result = np.empty(positions.shape, np.int64)
        for k, chosen in _groups(place):
            starts = self._shards.shard(self._order[k]).starts
            offsets = (positions[chosen] - self._token_begins[k]).astype(starts.dtype)
            result[chosen] = np.searchsorted(starts, offsets, side="left") + self._start_begins[k]
        return result

    def start_at(self, numbers: np.ndarray) -> np.ndarray:
        """Where each sentence (0 … `sentences` - 1) starts; for `sentences` len(stream): int64."""
        place = np.searchsorted(self._start_ends, numbers, side="right")
        result = np.full(numbers.shape, len(self), np.int64)
        for k, chosen in _groups(place):
            if k < len(self._order):
                starts = self._shards.shard(self._order[k]).starts
                result[chosen] = (
                    starts[numbers[chosen] - self._start_begins[k]] + self._token_begins[k]
                )
        return result


def _groups(place: np.ndarray) -> Iterator[tuple[int, np.ndarray | slice]]:
    """The distinct values of `place` [N], each with the indices at which it stands."""
    if place.size and (place == place[0]).all():
        yield int(place[0]), slice(None)
        return
    order = np.argsort(place, kind="stable")
    values, begins = np.unique(place[order], return_index=True)
    yield from zip(values.tolist(), np.split(order, begins[1:]), strict=True)


@dataclasses.dataclass(frozen=True)
class _Shard:
    tokens: "_CheckedFile"
    starts: np.ndarray


class _CheckedFile:
    """A memory-mapped array whose blocks are verified when first touched."""

    def __init__(
        self, path: epath.Path, dtype: np.dtype, count: int, block_bytes: int, checksums: list[int],
        cache_dir: epath.PathLike | None,
    ):  # fmt: skip
        self.path = path
        self._block_bytes = block_bytes
        self._checksums = checksums
        self.verified = bytearray(len(checksums))
        size = count * dtype.itemsize
        if -(-size // block_bytes) != len(checksums):
            raise ValueError(
                f"{path}: {len(checksums)} checksums stored for {size} bytes: {_REPAIR}"
            )
        local = staging.local_copy(path, size, cache_dir)
        try:
            with local.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except FileNotFoundError:
            raise FileNotFoundError(
                f"{path}: missing, though its .json is there: {_REPAIR}"
            ) from None
        except ValueError:  # what mmap says of an empty file
            raise ValueError(f"{path}: truncated at byte 0 of {size}: {_REPAIR}") from None
        if len(self._map) != size:
            state = "truncated at" if len(self._map) < size else "longer than stated: goes on to"
            raise ValueError(f"{path}: {state} byte {len(self._map)} of {size}: {_REPAIR}")
        self.array = np.frombuffer(self._map, dtype)

    def verify(self, begin: int, end: int) -> None:
        """Checks the blocks that hold elements [begin, end); ValueError names file and offset."""
        width = self.array.itemsize
        for block in range(
            begin * width // self._block_bytes, (end * width - 1) // self._block_bytes + 1
        ):
            if not self.verified[block]:
                self._verify_block(block)

    def _verify_block(self, block: int) -> None:
        begin = block * self._block_bytes
        end = min(begin + self._block_bytes, len(self._map))
        with memoryview(self._map) as view:
            found = zlib.crc32(view[begin:end])
        if found != self._checksums[block]:
            raise ValueError(
                f"{self.path}: damaged between byte {begin} and {end} "
                f"(checksum {found:#010x}, wanted {self._checksums[block]:#010x}): {_REPAIR}"
            )
        self.verified[block] = 1
