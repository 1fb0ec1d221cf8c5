"""Rows of the token stream, and the pair of segments that follows an example's reused tokens.

The stream of an epoch is cut into equal rows, one per row of the global batch. With `bi_data` an
even row and the odd row behind it share one stretch of text: the even row reads it forward, the odd
row backward. Positions below are positions in a row, in its reading order.
"""

import dataclasses

import numpy as np

from xlnet_jax.data import counter_random
from xlnet_jax.data.token_shards import TokenStream


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Segments of N examples: `a_length` tokens from their begin, `b_length` from `b_begin`; int64.

    `label` is 1 where B follows A in the text, else 0.
    """

    a_length: np.ndarray
    b_begin: np.ndarray
    b_length: np.ndarray
    label: np.ndarray


class TextRows:
    """An epoch's stream as `rows` rows of `length` tokens; the rest of the stream is left out."""

    def __init__(self, stream: TokenStream, rows: int, *, bi_data: bool):
        self.stream = stream
        self.length = row_length(len(stream), rows, bi_data=bi_data)
        self._bi_data = bi_data

    def read(self, row: int, begin: int, end: int, out: np.ndarray) -> None:
        """Writes tokens [begin, end) of a row into `out`."""
        low = (row // 2 if self._bi_data else row) * self.length
        if self._bi_data and row % 2:
            high = low + self.length
            self.stream.copy(high - end, high - begin, out[::-1])
        else:
            self.stream.copy(low + begin, low + end, out)

    def backward(self, row: np.ndarray) -> np.ndarray:
        """Which rows read their text backward: bool like `row`."""
        return (row % 2 == 1) & self._bi_data

    def boundaries_from(self, row: np.ndarray, position: np.ndarray) -> np.ndarray:
        """First position from `position` (at least 1) on where a sentence begins, or `length`."""
        low, high, back = self._edges(row)
        key = np.where(back, high - position, low + position)
        place = self.stream.start_at(self.stream.starts_before(key + back) - back)
        return np.where(back, high - np.maximum(place, low), np.minimum(place, high) - low)

    def boundaries_to(self, row: np.ndarray, position: np.ndarray) -> np.ndarray:
        """Last position at or in front of `position` where a sentence begins, or 0."""
        low, high, back = self._edges(row)
        key = np.where(back, high - position, low + position)
        place = self.stream.start_at(self.stream.starts_before(key + ~back) - ~back)
        return np.where(back, high - np.minimum(place, high), np.maximum(place, low) - low)

    def inner_boundaries(
        self, row: np.ndarray, begin: np.ndarray, end: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Boundaries strictly between `begin` and `end`: number of the first in the text; count."""
        low, high, back = self._edges(row)
        first = np.where(back, high - end, low + begin) + 1
        last = np.where(back, high - begin, low + end)
        counted = self.stream.starts_before(np.concatenate([first, last]))
        number, behind = counted[: len(row)], counted[len(row) :]
        return number, np.maximum(behind - number, 0)

    def boundary_position(self, row: np.ndarray, number: np.ndarray) -> np.ndarray:
        """Row position of the boundary with this number in the text."""
        low, high, back = self._edges(row)
        place = self.stream.start_at(number)
        return np.where(back, high - place, place - low)

    def _edges(self, row: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        low = (row // 2 if self._bi_data else row) * self.length
        return low, low + self.length, self.backward(row)


def row_length(tokens: int, rows: int, *, bi_data: bool) -> int:
    """Tokens of each row when `tokens` are cut into `rows` rows."""
    return tokens // (rows // 2 if bi_data else rows)


def draw(key: np.ndarray, text: TextRows, row: np.ndarray, begin: np.ndarray, total: int) -> Pairs:
    """One pair per example, `total` tokens together, A from `begin` (row, begin int64 [N]).

    A ends at a sentence boundary within the next `total` tokens, if there is one; with probability
    1/2 B follows, else B starts at the first token of the sentence that a random position of the
    row falls in. Both then run on for whole sentences and are cut to `total`. Needs begin + total <
    text.length. Source: `_split_a_and_b` of the original's `data_utils.py`.
    """
    numbers = counter_random.draws(key, 3)
    stop = text.boundaries_from(row, begin + total)
    first_cut, cuts = text.inner_boundaries(row, begin, begin + total)
    cut = first_cut + counter_random.below(numbers[:, 0], np.maximum(cuts, 1))
    has_cut = cuts > 0
    a_end = np.where(has_cut, text.boundary_position(row, np.where(has_cut, cut, 0)), stop)
    follows = has_cut & (numbers[:, 1] < np.uint64(1 << 63))

    wanted = np.maximum(1, total - (a_end - begin))
    somewhere = counter_random.below(numbers[:, 2], text.length - wanted)
    random_begin = text.boundaries_to(row, somewhere)
    random_end = np.minimum(text.boundaries_from(row, somewhere + wanted), text.length - 1)
    b_begin = np.where(follows, a_end, random_begin)
    b_end = np.where(follows, stop, random_end)
    a_length, b_length = cut_to_total(a_end - begin, b_end - b_begin, total)
    return Pairs(a_length, b_begin, b_length, follows.astype(np.int64))


def cut_to_total(
    a_length: np.ndarray, b_length: np.ndarray, total: int
) -> tuple[np.ndarray, np.ndarray]:
    """Lengths after taking tokens one by one from the longer segment (B on a tie) down to `total`.

    In closed form: a segment of at most half keeps its length and the other gets the rest; if both
    are longer, A keeps the larger half. Needs a_length + b_length >= total.
    """
    smaller, larger = total // 2, total - total // 2
    a_length = np.where(b_length <= smaller, total - b_length, np.minimum(a_length, larger))
    return a_length, total - a_length
