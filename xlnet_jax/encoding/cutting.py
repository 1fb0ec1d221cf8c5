"""How a text goes through the network in parts, and which part speaks for which token.

Every part that ends a text (with windows: every part) carries <sep> <cls> behind its tokens, in
the segments of classification: 0 for the text and its <sep>, 2 for <cls>.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from xlnet_jax.data.tokenizer import SpecialIds

SEGMENT_TEXT, SEGMENT_CLS = 0, 2
ENDS = 2  # <sep> and <cls>


class Part(NamedTuple):
    """One row of a batch.

    Attributes:
        text: number of its text.
        tokens, segment_ids: int32 [L], nothing padded.
        first: which token of the text the row begins with.
        own: range of tokens of the text whose states are taken from this row; every token belongs
            to exactly one row.
        has_cls: whether the row ends with <sep> <cls>.
    """

    text: int
    tokens: np.ndarray
    segment_ids: np.ndarray
    first: int
    own: tuple[int, int]
    has_cls: bool

    @property
    def own_columns(self) -> slice:
        """Where the row holds the tokens that it speaks for."""
        return slice(self.own[0] - self.first, self.own[1] - self.first)


def windows(
    text: int, ids: np.ndarray, special: SpecialIds, length: int, stride: int
) -> list[Part]:
    """Overlapping parts of at most `length` tokens, <sep> and <cls> included, `stride` apart.

    The last one is as long as the others. A token is taken from the window in which it stands
    farther from the nearer end: windows hand over in the middle of their overlap.
    """
    size = length - ENDS
    count = len(ids)
    firsts = [*range(0, max(count - size, 0), stride), max(count - size, 0)]
    ends = [min(first + size, count) for first in firsts]
    borders = [(begin + end + 1) // 2 for begin, end in zip(firsts[1:], ends[:-1], strict=True)]
    owns = zip([0, *borders], [*borders, count], strict=True)
    tail = np.array([special.sep, special.cls], np.int32)
    return [
        Part(
            text,
            np.concatenate([ids[first:end], tail]),
            _segments(end - first + ENDS),
            first,
            own,
            True,
        )
        for first, end, own in zip(firsts, ends, owns, strict=True)
    ]


def segments(text: int, ids: np.ndarray, special: SpecialIds, length: int) -> list[Part]:
    """Parts of `length` tokens one behind the other, to be read with memory carried over.

    <sep> and <cls> end the last one, or make one of their own.
    """
    tokens = np.concatenate([ids, np.array([special.sep, special.cls], np.int32)])
    segment_ids = _segments(len(tokens))
    parts = []
    for first in range(0, len(tokens), length):
        end = min(first + length, len(tokens))
        own = (min(first, len(ids)), min(end, len(ids)))
        # <sep> and <cls> may come to lie in two parts: the row with <cls> is the one that counts.
        row = tokens[first:end], segment_ids[first:end]
        parts.append(Part(text, *row, first, own, end == len(tokens)))
    return parts


def padded(parts: Sequence[Part], rows: int, multiple: int, most: int) -> dict[str, np.ndarray]:
    """One batch: "tokens", "segment_ids" and "padding" [rows, T], padded on the right.

    T is the next multiple of `multiple`, at most `most`; rows beyond the parts are padding alone.
    """
    longest = max(len(part.tokens) for part in parts)
    width = min(-(-longest // multiple) * multiple, most)
    batch = {
        "tokens": np.zeros((rows, width), np.int32),
        "segment_ids": np.zeros((rows, width), np.int32),
        "padding": np.ones((rows, width), bool),
    }
    for row, part in enumerate(parts):
        here = row, slice(len(part.tokens))
        batch["tokens"][here] = part.tokens
        batch["segment_ids"][here] = part.segment_ids
        batch["padding"][here] = False
    return batch


def pooling_weights(
    pooling: str,
    parts: Sequence[Part],
    counts: np.ndarray,
    cls_counts: np.ndarray,
    shape: tuple[int, int],
) -> np.ndarray:
    """How much each token of a batch counts in its text's vector, float32 `shape`.

    A text's vector is the sum over all its parts. `counts` are the tokens of each text (by its
    number), `cls_counts` its <cls>. "mean" is over the text's tokens, each one once; "first" and
    "last" are its first and last token; "cls" the mean of <cls> over its windows.
    """
    weights = np.zeros(shape, np.float32)
    for row, part in enumerate(parts):
        begin, end = part.own
        if pooling == "cls":
            if part.has_cls:
                weights[row, len(part.tokens) - 1] = 1.0 / cls_counts[part.text]
        elif pooling == "mean":
            weights[row, part.own_columns] = 1.0 / max(counts[part.text], 1)
        elif begin < end and pooling == "first" and begin == 0:
            weights[row, 0] = 1.0
        elif begin < end and pooling == "last" and end == counts[part.text]:
            weights[row, end - 1 - part.first] = 1.0
    return weights


def word_spans(text: str, spans: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Words as the blanks of a text part them: which one each token is of, and their spans.

    Returns int64 [tokens], the row of the word that a token ends in, and int64 [words, 2], only
    words that some token is of. A token without a character of its own (a lone word mark) is of
    the word that follows it.
    """
    blank = np.array([character.isspace() for character in text] + [True])
    edges = np.flatnonzero(np.diff(np.concatenate([[True], blank]).astype(np.int8)))
    begins, ends = edges[::2], edges[1::2]
    if not len(begins) or not len(spans):
        return np.zeros(len(spans), np.int64), np.zeros((0, 2), np.int64)
    last = np.where(spans[:, 1] > spans[:, 0], spans[:, 1] - 1, spans[:, 0])
    word = np.minimum(np.searchsorted(ends, last, side="right"), len(begins) - 1)
    kept, rows = np.unique(word, return_inverse=True)
    return rows, np.stack([begins[kept], ends[kept]], axis=1)


def _segments(count: int) -> np.ndarray:
    segment_ids = np.full(count, SEGMENT_TEXT, np.int32)
    segment_ids[-1] = SEGMENT_CLS
    return segment_ids
