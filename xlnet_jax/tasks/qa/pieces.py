"""Paragraphs as pieces, with their places in the text."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from xlnet_jax.data.tokenizer import Tokenizer
from xlnet_jax.tasks.qa import alignment
from xlnet_jax.tasks.qa.config import DataConfig


@dataclasses.dataclass(frozen=True)
class Pieces:
    """The paragraphs, encoded. Paragraph p has the pieces ``bounds[p] : bounds[p + 1]``.

    Attributes:
        contexts: the paragraphs as written.
        ids: int32 [all pieces].
        begins: first character of each piece in its paragraph, int64 [all pieces].
        ends: one behind its last character, int64 [all pieces].
        bounds: int64 [paragraphs + 1].
        alignments: of the original, by paragraph (None: it gives up); None with exact offsets.
    """

    contexts: list[str]
    ids: np.ndarray
    begins: np.ndarray
    ends: np.ndarray
    bounds: np.ndarray
    alignments: list[alignment.Alignment | None] | None = None


def encode_paragraphs(
    contexts: list[str], tokenizer: Tokenizer, config: DataConfig, threads: int = 1
) -> Pieces:
    """Encodes paragraphs with the offsets that `config.alignment` asks for."""
    if config.alignment == "exact":
        ids, spans, counts = tokenizer.encode_batch_with_offsets(contexts, num_threads=threads)
        return Pieces(contexts, ids, spans[:, 0], spans[:, 1], bounds_of(counts))
    cut = [tokenizer.encode_as_pieces(context) for context in contexts]
    found = alignment.align(contexts, cut, tokenizer.normalization)
    ids = np.array([tokenizer.piece_to_id(piece) for parts in cut for piece in parts], np.int32)
    nowhere = [np.zeros(len(parts), np.int64) for parts in cut]
    begins = [n if a is None else a.begins for a, n in zip(found, nowhere, strict=True)]
    ends = [n if a is None else a.ends for a, n in zip(found, nowhere, strict=True)]
    return Pieces(
        contexts, ids, _joined(begins), _joined(ends), bounds_of([len(n) for n in nowhere]), found
    )


def bounds_of(counts: Sequence[int] | np.ndarray) -> np.ndarray:
    """Where each of several stretches in a row begins, and the end: int64 [stretches + 1]."""
    return np.concatenate([[0], np.cumsum(np.asarray(counts, np.int64))])


def _joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.int64), *arrays])
