"""Where pieces stand in a paragraph, as the original works it out (`run_squad.py`).

The original aligns the paragraph with its joined pieces by their longest common subsequence,
restricted to a band around the diagonal, and drops paragraphs in which too little matches. It
gives the blank before a word to the word's first piece, and guesses where characters changed in
the clean-up. The exact way is `Tokenizer.encode_batch_with_offsets`; this one is there to get the
original's numbers. Many paragraphs are worked off at once, row by row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from xlnet_jax.data.normalization import Normalization
from xlnet_jax.data.tokenizer import WORD_MARK

_MARGIN = 5  # of the band, beyond the difference of the lengths
_ENOUGH = 0.8  # share of the paragraph's characters that must match
_CELLS = 1 << 24  # of the tables held at once
_NEVER, _OUTSIDE = -1, -2  # codes equal to no character and not to each other
_UP, _LEFT, _BOTH = 0, 1, 2


@dataclasses.dataclass(frozen=True)
class Alignment:
    """Of one paragraph of N characters cut into T pieces with M characters in all.

    Attributes:
        begins: first character of each piece, int64 [T].
        ends: one behind the last character of each piece, int64 [T].
        to_joined: place of each character in the joined pieces, -1 for none, int64 [N].
        piece_of: piece of each character of the joined pieces, int64 [M].
    """

    begins: np.ndarray
    ends: np.ndarray
    to_joined: np.ndarray
    piece_of: np.ndarray

    def pieces_of(self, first: int, last: int) -> tuple[int, int]:
        """The pieces that the original takes for the characters first ... last of an answer."""
        ends = [_neighbour(self.to_joined, np.array([place]), None, is_start)[0]
                for place, is_start in ((first, True), (last, False))]  # fmt: skip
        return int(self.piece_of[ends[0]]), int(self.piece_of[ends[1]])


def align(
    texts: Sequence[str], pieces: Sequence[Sequence[str]], normalization: Normalization
) -> list[Alignment | None]:
    """The original's alignment of each text with its pieces; None where it gives up."""
    codes = _Codes(normalization)
    rows = [np.array([codes[character] for character in text], np.int32) for text in texts]
    joined = [_points("".join(parts).replace(WORD_MARK, " ")) for parts in pieces]
    bands = [abs(len(a) - len(b)) + _MARGIN for a, b in zip(rows, joined, strict=True)]
    found: list[np.ndarray | None] = [None] * len(rows)
    todo = [k for k in range(len(rows)) if len(rows[k]) and len(joined[k])]
    for is_last in (False, True):
        again = []
        for batch in _batches(todo, rows, bands):
            results = _common(
                [rows[k] for k in batch], [joined[k] for k in batch], [bands[k] for k in batch]
            )
            for k, (length, matches) in zip(batch, results, strict=True):
                if length > _ENOUGH * len(rows[k]) or is_last:
                    enough = length >= _ENOUGH * len(rows[k]) and (matches >= 0).any()
                    found[k] = matches if enough else None
                else:
                    again.append(k)
        todo = again
        for k in todo:
            bands[k] *= 2
    return [
        None if matches is None else _alignment(matches, parts)
        for matches, parts in zip(found, pieces, strict=True)
    ]


class _Codes(dict[str, int]):
    """What a character becomes when it is cleaned alone: its code point, or `_NEVER`."""

    def __init__(self, normalization: Normalization):
        self.clean = dataclasses.replace(normalization, collapse_whitespace=False).clean

    def __missing__(self, character: str) -> int:
        clean = self.clean(character)
        self[character] = code = ord(clean) if len(clean) == 1 else _NEVER
        return code


def _points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<i4")


def _batches(
    todo: list[int], rows: Sequence[np.ndarray], bands: Sequence[int]
) -> Iterator[list[int]]:
    """Cuts the paragraphs into batches of like bands and lengths."""
    batch: list[int] = []
    longest = 0
    for k in sorted(todo, key=lambda k: (bands[k], len(rows[k]))):
        longest = max(longest, len(rows[k]))
        if batch and (len(batch) + 1) * longest * 2 * bands[k] > _CELLS:
            yield batch
            batch, longest = [], len(rows[k])
        batch.append(k)
    if batch:
        yield batch


def _common(
    rows: Sequence[np.ndarray], columns: Sequence[np.ndarray], bands: Sequence[int]
) -> Iterator[tuple[int, np.ndarray]]:
    """Length of the common subsequence in the band, and the place of each row's match or -1.

    Column k of the tables stands for place i - band + k in row i.
    """
    width, height = 2 * max(bands), max(map(len, rows))
    codes = np.full((len(rows), height), _NEVER, np.int32)
    padded = np.full((len(rows), height + width), _OUTSIDE, np.int32)
    for k, (row, column, band) in enumerate(zip(rows, columns, bands, strict=True)):
        codes[k, : len(row)] = row
        padded[k, band : band + len(column)] = column
    inside = np.arange(width) < 2 * np.array(bands)[:, None]
    moves = np.empty((height, len(rows), width), np.int8)
    ends = np.array([len(row) - 1 for row in rows])
    last = np.zeros((len(rows), width), np.int32)
    previous = np.zeros((len(rows), width + 1), np.int32)
    current = np.zeros((len(rows), width + 1), np.int32)
    for i in range(height):
        up = previous[:, 1:]
        match = (padded[:, i : i + width] == codes[:, i : i + 1]) & inside
        diagonal = (previous[:, :-1] + 1) * match
        best = np.maximum.accumulate(np.maximum(up, diagonal), axis=1)
        np.multiply(best, inside, out=current[:, :-1])
        left = np.zeros_like(best)
        left[:, 1:] = best[:, :-1]
        moves[i] = np.where(match & (diagonal > np.maximum(up, left)), _BOTH, left > up)
        last[ends == i] = current[ends == i, :-1]
        previous, current = current, previous
    for k, (row, column, band) in enumerate(zip(rows, columns, bands, strict=True)):
        corner = len(column) - len(row) + band
        yield int(last[k, corner]), _walk(moves[:, k], len(row), len(column), band)


def _walk(moves: np.ndarray, height: int, width: int, band: int) -> np.ndarray:
    """Follows the moves back from the last corner: the match of each row, -1 for none."""
    stride, table = moves.shape[1], moves.tobytes()
    matches = [-1] * height
    i, j = height - 1, width - 1
    while i >= 0 and j >= 0:
        k = j - i + band
        if not 0 <= k < 2 * band:
            break
        move = table[i * stride + k]
        if move == _BOTH:
            matches[i] = j
            i, j = i - 1, j - 1
        elif move == _LEFT:
            j -= 1
        else:
            i -= 1
    return np.array(matches, np.int64)


def _alignment(matches: np.ndarray, pieces: Sequence[str]) -> Alignment:
    sizes = np.array([len(piece) for piece in pieces])
    stops = np.cumsum(sizes)
    back = np.full(stops[-1], -1)
    matched = np.flatnonzero(matches >= 0)
    back[matches[matched]] = matched
    return Alignment(
        begins=_neighbour(back, stops - sizes, len(matches), True),
        ends=_neighbour(back, stops - 1, len(matches), False) + 1,
        to_joined=matches,
        piece_of=np.repeat(np.arange(len(pieces)), sizes),
    )


def _neighbour(
    index: np.ndarray, places: np.ndarray, size: int | None, is_start: bool
) -> np.ndarray:
    """`index[places]`, and where that is -1 a guess from the nearest known entries.

    Between two known entries it is what follows the left one (for a start) or precedes the right
    one (for an end); beyond all of them what is left up to the borders 0 and `size`.
    """
    numbers = np.arange(len(index))
    known = index >= 0
    left = np.maximum.accumulate(np.where(known, numbers, -1))[places]
    right = np.minimum.accumulate(np.where(known, numbers, len(index))[::-1])[::-1][places]
    has_left, has_right = left >= 0, right < len(index)
    before = np.where(has_left, index[left], -1)
    after = index[np.minimum(right, len(index) - 1)]
    if is_start:
        between = np.where(after > before + 1, before + 1, after)
        ahead = np.zeros_like(after)
    else:
        between = np.where(after > before + 1, after - 1, before)
        ahead = np.maximum(after - 1, 0)
    behind = before
    if size is not None:
        beyond = before + 1 if is_start else np.full_like(before, size - 1)
        behind = np.where(before < size - 1, beyond, before)
    guess = np.where(has_left & has_right, between, np.where(has_right, ahead, behind))
    return np.where(known[places], index[places], guess)
