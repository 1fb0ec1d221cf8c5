"""Token shards on disk: written whole, checked by block.

Shard NAME is three files. NAME.tokens holds little-endian uint16 tokens (uint32 for vocabularies
over 65,536); NAME.starts little-endian uint32 offsets, in tokens, where a sentence starts, sorted,
the first one 0; NAME.json, written last, says what they hold, with a CRC-32 for every block of
`BLOCK_BYTES` bytes. A shard exists if and only if its .json does.
"""

import json
import zlib
from typing import Any

import numpy as np
from etils import epath

from xlnet_jax.data.line_rules import Stream
from xlnet_jax.data.storage import write_atomic

BLOCK_BYTES = 1 << 20
STARTS_DTYPE = "uint32"


def token_dtype(vocab_size: int) -> str:
    """The narrower of the two token types that holds every id."""
    return "uint16" if vocab_size <= 1 << 16 else "uint32"


class ShardBuffer:
    """Gathers the tokens of one shard in the width they will have on disk."""

    def __init__(self, dtype: str):
        self.dtype = np.dtype(dtype).newbyteorder("<")
        self._tokens: list[np.ndarray] = []
        self._starts: list[np.ndarray] = []
        self.tokens = self.sentences = self.documents = 0
        self._last_document = -1

    def add(self, stream: Stream, chosen: np.ndarray | None = None) -> None:
        """Takes a stream, or only its runs where `chosen` (bool [runs]) is true."""
        tokens, lengths, starts = stream.tokens, stream.lengths, stream.starts
        documents, is_eod = stream.documents, stream.is_eod
        if chosen is not None:
            tokens = tokens[np.repeat(chosen, lengths)]
            lengths, starts = lengths[chosen], starts[chosen]
            documents, is_eod = documents[chosen], is_eod[chosen]
        if not len(tokens):
            return
        offsets = np.cumsum(lengths) - lengths
        if self.tokens == 0:
            starts = starts.copy()
            starts[0] = True  # a shard begins with a sentence, whatever came before it
        found = (offsets[starts] + self.tokens).astype("<u4")
        texts = documents[~is_eod]
        if len(texts):
            self.documents += int(np.count_nonzero(np.diff(texts, prepend=self._last_document)))
            self._last_document = int(texts[-1])
        self._tokens.append(tokens.astype(self.dtype))
        self._starts.append(found)
        self.tokens += len(tokens)
        self.sentences += len(found)

    def write(self, folder: epath.Path, name: str, facts: dict[str, Any]) -> None:
        """Writes the shard; `facts` go into its .json beside the sizes and the checksums."""
        sums = {}
        for suffix, parts in (("tokens", self._tokens), ("starts", self._starts)):
            view = memoryview(b"".join(part.tobytes() for part in parts))
            parts.clear()  # at most one copy of the shard stays in memory
            sums[suffix] = _block_sums(view)
            write_atomic(folder / f"{name}.{suffix}", [view])
        contents = {
            "tokens": self.tokens,
            "sentences": self.sentences,
            "documents": self.documents,
            "dtype": self.dtype.name,
            "starts_dtype": STARTS_DTYPE,
            "block_bytes": BLOCK_BYTES,
            "crc32_tokens": sums["tokens"],
            "crc32_starts": sums["starts"],
            **facts,
        }
        text = json.dumps(contents, ensure_ascii=False, indent=1) + "\n"
        write_atomic(folder / f"{name}.json", [text.encode()])


def _block_sums(view: memoryview) -> list[int]:
    return [zlib.crc32(view[at : at + BLOCK_BYTES]) for at in range(0, len(view), BLOCK_BYTES)]
