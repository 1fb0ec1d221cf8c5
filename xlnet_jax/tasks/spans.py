"""Which tokens to predict: n-gram spans in their contexts, for a block of sequences at once.

The rule is that of `_sample_mask` in the original's `data_utils.py`. From the left: draw n of 1 …
max_gram with weight 1/n, give it a context of n * mask_alpha // mask_beta tokens, put a random
share of the context before the span and the rest behind it, let the span start at the next
word-start piece, and go on behind the context; stop when enough tokens are chosen, or before a span
that would reach the end of the sequence. Tokens that are still missing are then picked at random.

- pieces (reference): a span is n pieces, the missing ones are single pieces, and any token may be
  chosen.
- words (fixed): a span is n whole words, the missing ones are whole words, <sep> and <cls> are
  never chosen, and what goes beyond the goal is cut off. A word runs to the next piece that starts
  one, so this suits text with spaces between its words.
"""

import dataclasses

import numpy as np

from xlnet_jax.data import counter_random

_SPANS, _FILL = 1, 2
_DRAWN_AT_ONCE = 16


@dataclasses.dataclass(frozen=True)
class SpanRule:
    """How spans are drawn; see the module. `whole_words` False is the reference behaviour."""

    mask_alpha: int
    mask_beta: int
    max_gram: int
    whole_words: bool

    def ngram_thresholds(self) -> np.ndarray:
        """Cumulative weights of n = 1 … max_gram, without the last, as 32-bit numbers."""
        weights = 1.0 / np.arange(1, self.max_gram + 1)
        return (np.cumsum(weights)[:-1] / weights.sum() * 2.0**32).astype(np.uint64)


def choose(
    key: np.ndarray, starts: np.ndarray, barred: np.ndarray, goal: int | None, rule: SpanRule
) -> np.ndarray:
    """Chosen tokens of each sequence, bool [N, S].

    `starts` marks pieces that start a word, `barred` <sep> and <cls> (both bool [N, S], in reading
    order). With a goal, exactly that many are chosen in every row (`goal` must not be above S, or
    above the tokens that are not barred with whole words); with None, as many as the spans give.
    """
    if goal == 0:
        return np.zeros(starts.shape, bool)
    chosen, counts = _draw_spans(counter_random.make_key(key, _SPANS), starts, barred, goal, rule)
    if goal is not None:
        short = np.flatnonzero(counts < goal)
        if short.size:
            fill_key = counter_random.make_key(key[short], _FILL)
            taken = chosen[short] | barred[short] if rule.whole_words else chosen[short]
            unit = (starts | barred)[short] if rule.whole_words else None
            chosen[short] |= _fill(fill_key, taken, unit, goal - counts[short])
    return chosen


def _draw_spans(
    key: np.ndarray, starts: np.ndarray, barred: np.ndarray, goal: int | None, rule: SpanRule
) -> tuple[np.ndarray, np.ndarray]:
    """Spans of every row, one per row and round: bool [N, S] and how many tokens each row got."""
    rows, length = starts.shape
    table = _Edges(starts, barred, rule)
    thresholds = rule.ngram_thresholds()
    edges = np.zeros((rows, length + 1), np.int8)  # +1 where a span begins, -1 behind it
    live = np.arange(rows)  # rows that still take spans; the arrays below are theirs alone
    cursor = np.zeros(rows, np.int64)
    counts = np.zeros(rows, np.int64)
    drawn = 0
    while live.size:
        numbers = counter_random.draws(key[live], _DRAWN_AT_ONCE, first=drawn)
        drawn += _DRAWN_AT_ONCE
        sizes = 1 + np.searchsorted(thresholds, numbers >> np.uint64(32), side="right")
        shares = (numbers & np.uint64(0xFFFFFFFF)).astype(np.int64)
        running = np.ones(live.size, bool)
        position, count = cursor[live], counts[live]
        for size, share in zip(sizes.T, shares.T, strict=True):
            if goal is not None:
                size = np.minimum(size, goal - count)
            context = np.maximum(size, 0) * rule.mask_alpha // rule.mask_beta
            before = (share * context) >> 32
            begin = table.next_start(live, np.minimum(position + before, length))
            end = table.span_end(live, begin, size)
            if rule.whole_words and goal is not None:
                end = np.minimum(end, begin + goal - count)
            running &= (begin < length) & (end < length)
            edges[live[running], begin[running]] = (
                1  # context between spans: no place is used twice
            )
            edges[live[running], end[running]] = -1
            count = np.where(running, count + end - begin, count)
            position = np.where(running, end + context - before, position)
            running &= position < length
            if goal is not None:
                running &= count < goal
        counts[live], cursor[live] = count, position
        live = live[running]
    return np.cumsum(edges[:, :length], axis=1, dtype=np.int8).view(bool), counts


class _Edges:
    """Where words begin and end, for look-up by (row, position)."""

    def __init__(self, starts: np.ndarray, barred: np.ndarray, rule: SpanRule):
        self._length = starts.shape[1]
        self._words = rule.whole_words
        self._begins = _Marks(starts & ~barred if self._words else starts)
        if self._words:
            self._ends = _Marks(starts | barred)
            self._bars = _Marks(barred)

    def next_start(self, rows: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """First position from here on where a span may begin, or S."""
        return self._begins.at_or_after(rows, positions, 0)

    def span_end(self, rows: np.ndarray, begins: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """First position behind a span of `sizes` pieces or words; begins may be S."""
        if not self._words:
            return begins + sizes
        ends = self._ends.at_or_after(rows, begins, sizes)
        return np.minimum(ends, self._bars.at_or_after(rows, begins, 0))


class _Marks:
    """The marked positions of every row, each row closed by a mark at S."""

    def __init__(self, marked: np.ndarray):
        rows, length = marked.shape
        closed = np.ones((rows, length + 1), bool)
        closed[:, :length] = marked
        self._width = length + 1
        self._positions = np.flatnonzero(closed)
        before = np.cumsum(closed, dtype=np.int32)
        before -= closed.ravel()
        self._before = before  # marks in front of each position, in the flat order

    def at_or_after(
        self, rows: np.ndarray, positions: np.ndarray, further: np.ndarray | int
    ) -> np.ndarray:
        """The first mark from each position on, or the one `further` marks behind it; at most S."""
        base = rows * self._width
        number = np.minimum(self._before[base + positions] + further, len(self._positions) - 1)
        return np.minimum(self._positions[number] - base, self._width - 1)


def _fill(
    key: np.ndarray, taken: np.ndarray, unit: np.ndarray | None, missing: np.ndarray
) -> np.ndarray:
    """`missing` [N] random tokens among those not taken [N, S]: bool [N, S].

    `unit` marks the first token of each word, and whole words are picked in random order; None
    picks single tokens. Every token of a word gets the word's priority, so a sort keeps words
    together.
    """
    length = taken.shape[1]
    priority = counter_random.draws(key, length)
    if unit is not None:
        first = np.maximum.accumulate(np.where(unit, np.arange(length), 0), axis=1)
        priority = np.take_along_axis(priority, first, axis=1)
    priority[taken] = np.uint64(0xFFFFFFFFFFFFFFFF)
    order = counter_random.ranked_positions(priority)
    filled = np.zeros(taken.shape, bool)
    np.put_along_axis(filled, order, np.arange(length) < missing[:, None], axis=1)
    return filled
