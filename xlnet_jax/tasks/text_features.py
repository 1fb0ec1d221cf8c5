"""Texts to model inputs in the original's layout: A <sep> [B <sep>] <cls>, nothing padded yet.

Segments are 0 for A and its <sep>, 1 for B and its <sep>, 2 for <cls>; padding, wherever it comes
to stand, is token 0 in segment 4. Source: `convert_single_example` in the original's
classifier_utils.py.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar, overload

import numpy as np

from xlnet_jax.data.tokenizer import Tokenizer

SEGMENT_A, SEGMENT_B, SEGMENT_CLS, SEGMENT_PAD = 0, 1, 2, 4
PAD_TOKEN = 0  # the original pads with this id, <unk> of the released vocabularies, not with <pad>
CHUNK = 4096  # examples tokenized together
_THREADS = os.cpu_count() or 1

T = TypeVar("T")


class Ragged(Sequence[np.ndarray]):
    """Rows of differing lengths in one array; rows are views of it."""

    def __init__(self, flat: np.ndarray, lengths: np.ndarray):
        self.flat = flat
        self.ends = np.cumsum(lengths, dtype=np.int64)

    @classmethod
    def concatenate(cls, parts: Sequence[Ragged]) -> Ragged:
        """All rows of all parts, in order."""
        flat = [part.flat for part in parts]
        lengths = [part.lengths for part in parts]
        return cls(np.concatenate(flat), np.concatenate(lengths))

    @property
    def lengths(self) -> np.ndarray:
        """Length of every row, int64."""
        return np.diff(self.ends, prepend=0)

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice) -> list[np.ndarray]: ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        return self.flat[self.ends[number - 1] if number else 0 : self.ends[number]]

    def take(self, rows: np.ndarray) -> Ragged:
        """Rows by number, in that order, repeated where it repeats."""
        lengths = self.lengths[rows]
        return Ragged(self.flat[_places(self.ends[rows] - lengths, lengths)], lengths)

    def heads(self, most: np.ndarray | int) -> Ragged:
        """The first tokens of every row, at most that many."""
        lengths = np.minimum(self.lengths, most)
        return Ragged(self.flat[_places(self.ends - self.lengths, lengths)], lengths)

    def tails(self, most: np.ndarray | int) -> Ragged:
        """The last tokens of every row, at most that many."""
        lengths = np.minimum(self.lengths, most)
        return Ragged(self.flat[_places(self.ends - lengths, lengths)], lengths)


def chunks(items: Iterable[T], size: int = CHUNK) -> Iterator[list[T]]:
    """Lists of up to `size` items."""
    iterator = iter(items)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> Ragged:
    """Ids of many texts, which may hold line breaks; equal to `tokenizer.encode` on each."""
    clean = tokenizer.normalization
    if clean.collapse_whitespace:
        cleaned = clean.clean_lines(texts)
    else:
        cleaned = [clean.clean(text) for text in texts]
    return Ragged(*tokenizer.encode_batch(cleaned, num_threads=_THREADS, is_clean=True))


def truncated_lengths(
    first: np.ndarray, second: np.ndarray, limit: int
) -> tuple[np.ndarray, np.ndarray]:
    """How many tokens of each pair of texts stay, so that both have at most `limit` together.

    The original takes one token at a time from the end of the longer text, from the second if both
    are as long (`_truncate_seq_pair`); this is what it comes to.
    """
    fits = first + second <= limit
    half = limit // 2
    a = np.where(second <= half, limit - second, np.minimum(first, limit - half))
    b = np.where(first <= limit - half, limit - first, np.minimum(second, half))
    return np.where(fits, first, np.minimum(a, first)), np.where(
        fits, second, np.minimum(b, second)
    )


def join_texts(
    first: Ragged,
    second: Ragged | None,
    *,
    max_length: int,
    sep: int,
    cls: int,
    always_pairs: bool = False,
) -> tuple[Ragged, Ragged]:
    """Tokens (int32) and segments (int8) of texts or pairs of texts, cut to `max_length`.

    A second text without tokens counts as missing: no second <sep>. As in the original that is
    decided twice: before cutting (three places are kept for <sep> and <cls>, else two) and after.
    With `always_pairs` it keeps its <sep>.
    """
    a = first.lengths
    b = np.zeros_like(a) if second is None else second.lengths
    kept_a, kept_b = truncated_lengths(a, b, max(0, max_length - 3))
    is_pair = (b > 0) | always_pairs
    kept_a = np.where(is_pair, kept_a, np.minimum(a, max_length - 2))
    kept_b = np.where(is_pair, kept_b, 0)
    tail_b = np.where((kept_b > 0) | always_pairs, kept_b + 1, 0)
    lengths = kept_a + 1 + tail_b + 1
    ends = np.cumsum(lengths)
    starts = ends - lengths
    tokens = np.full(ends[-1] if len(ends) else 0, sep, np.int32)
    segments = np.full(tokens.shape, SEGMENT_A, np.int8)
    tokens[_places(starts, kept_a)] = first.heads(kept_a).flat
    if second is not None:
        begins = starts + kept_a + 1
        tokens[_places(begins, kept_b)] = second.heads(kept_b).flat
        segments[_places(begins, tail_b)] = SEGMENT_B
    tokens[ends - 1] = cls
    segments[ends - 1] = SEGMENT_CLS
    return Ragged(tokens, lengths), Ragged(segments, lengths)


def _places(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """starts[0], starts[0] + 1, … (lengths[0] numbers), then those of the next row, …"""
    shift = starts - (np.cumsum(lengths) - lengths)
    return np.repeat(shift, lengths) + np.arange(lengths.sum())
