"""The sampling rules one example at a time, to be read rather than run fast.

With numpy's legacy generator and Python's `random`, asked in the original's order, these give the
original's own numbers (checked against the goldens); the fast sampler is compared with them in
distribution.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterator

import numpy as np

SEP, CLS, EOD = 4, 3, 7


@dataclasses.dataclass(frozen=True)
class Rule:
    """How many tokens of how much context, and in what spans."""

    mask_alpha: int = 6
    mask_beta: int = 1
    max_gram: int = 5
    whole_words: bool = False


def choose_tokens(
    ids: np.ndarray,
    starts_word: np.ndarray,
    goal: int | None,
    rule: Rule,
    numbers: np.random.RandomState,
    *,
    backward: bool = False,
) -> np.ndarray:
    """Tokens of one part to predict, bool [S]; `starts_word` is bool [vocabulary]."""
    if backward:
        ids = ids[::-1]
    starts = starts_word[ids]
    barred = np.isin(ids, (SEP, CLS)) & rule.whole_words
    chosen = np.zeros(len(ids), bool)
    for begin, end in _spans(starts, barred, goal, rule, numbers):
        chosen[begin:end] = True
    if goal is not None:
        fill = _fill_with_words if rule.whole_words else _fill_with_pieces
        fill(chosen, starts, barred, goal, numbers)
    return chosen[::-1] if backward else chosen


def _spans(
    starts: np.ndarray,
    barred: np.ndarray,
    goal: int | None,
    rule: Rule,
    numbers: np.random.RandomState,
) -> Iterator[tuple[int, int]]:
    length, position, count = len(starts), 0, 0
    sizes = np.arange(1, rule.max_gram + 1)
    weights = (1.0 / sizes) / (1.0 / sizes).sum(keepdims=True)
    while position < length and (goal is None or count < goal):
        size = numbers.choice(sizes, p=weights)
        if goal is not None:
            size = min(size, goal - count)
        context = size * rule.mask_alpha // rule.mask_beta
        before = numbers.choice(context)
        begin = position + before
        while begin < length and (barred[begin] or not starts[begin]):
            begin += 1
        if begin == length:
            return
        if rule.whole_words:
            end = begin
            for _ in range(size):
                if end < length and not barred[end]:
                    end += 1
                while end < length and not barred[end] and not starts[end]:
                    end += 1
            if goal is not None:
                end = min(end, begin + goal - count)
        else:
            end = begin + size
        if end >= length:
            return
        yield begin, end
        count += end - begin
        position = end + context - before


def _fill_with_pieces(
    chosen: np.ndarray,
    starts: np.ndarray,
    barred: np.ndarray,
    goal: int,
    numbers: np.random.RandomState,
) -> None:
    count = chosen.sum()
    while count < goal:
        place = numbers.randint(len(chosen))
        if not chosen[place]:
            chosen[place] = True
            count += 1


def _fill_with_words(
    chosen: np.ndarray,
    starts: np.ndarray,
    barred: np.ndarray,
    goal: int,
    numbers: np.random.RandomState,
) -> None:
    words: list[list[int]] = []
    for place in range(len(chosen)):
        if place == 0 or starts[place] or barred[place] or barred[place - 1]:
            words.append([])
        words[-1].append(place)
    words = [word for word in words if not chosen[word].any() and not barred[word].any()]
    for index in numbers.permutation(len(words)):
        missing = goal - int(chosen.sum())
        chosen[words[index][:missing]] = True


@dataclasses.dataclass(frozen=True)
class Pair:
    """Segments as half-open ranges, whether B follows A, and where text goes on."""

    a: tuple[int, int]
    b: tuple[int, int]
    follows: int
    next_begin: int


def split_pair(sentence: np.ndarray, begin: int, total: int, numbers: random.Random) -> Pair | None:
    """A and B of `total` tokens from `begin`; `sentence` [N] changes where a sentence begins.

    None where the row is too short for it.
    """
    length = len(sentence)
    if begin + total >= length:
        return None
    cuts, stop = [], begin + 1
    while stop < length:
        if sentence[stop] != sentence[stop - 1]:
            if stop - begin >= total:
                break
            cuts.append(stop)
        stop += 1
    if not cuts or numbers.random() < 0.5:
        follows, a_end = 0, numbers.choice(cuts) if cuts else stop
        wanted = max(1, total - (a_end - begin))
        b_begin = numbers.randint(0, length - 1 - wanted)
        b_end = b_begin + wanted
        while b_begin > 0 and sentence[b_begin] == sentence[b_begin - 1]:
            b_begin -= 1
        while b_end < length - 1 and sentence[b_end] == sentence[b_end - 1]:
            b_end += 1
        next_begin = a_end
    else:
        follows, a_end = 1, numbers.choice(cuts)
        b_begin, b_end, next_begin = a_end, stop, stop
    while a_end - begin + b_end - b_begin > total:
        if a_end - begin > b_end - b_begin:
            a_end -= 1
        else:
            b_end -= 1
    return Pair((begin, a_end), (b_begin, b_end), follows, next_begin)


def batchify(values: np.ndarray, rows: int) -> np.ndarray:
    """A stream cut into equal rows, without what is left over."""
    width = len(values) // rows
    return values[: rows * width].reshape(rows, width)


def read_lines(
    lines: list[str], encode: Callable[[str], list[int]], *, use_eod: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of a file, and a parity that changes from sentence to sentence: int64, bool [N].

    Every line flips the parity, also one without tokens; <eod> has the parity of the line before.
    """
    tokens: list[int] = []
    parity: list[bool] = []
    current = True
    for line in lines:
        if line.strip():
            ids = encode(line.strip())
        elif use_eod:
            ids, current = [EOD], not current
        else:
            continue
        tokens += ids
        parity += [current] * len(ids)
        current = not current
    return np.array(tokens, np.int64), np.array(parity, bool)


def join_files(
    files: list[tuple[np.ndarray, np.ndarray]], numbers: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray]:
    """Files (tokens, sentence parity) end to end in random order; parity changes between."""
    tokens: list[np.ndarray] = []
    sentences: list[np.ndarray] = []
    for index in numbers.permutation(len(files)):
        ids, parity = files[index]
        if sentences and sentences[-1][-1] == parity[0]:
            parity = ~parity
        tokens.append(ids)
        sentences.append(parity)
    return np.concatenate(tokens), np.concatenate(sentences)


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """What one run of the original program is told."""

    bsz_per_host: int
    num_core_per_host: int
    seq_len: int
    reuse_len: int
    bi_data: bool
    num_predict: int | None
    rule: Rule


def records(
    tokens: np.ndarray,
    sentence: np.ndarray,
    settings: RunSettings,
    starts_word: np.ndarray,
    numbers: np.random.RandomState,
    choices: random.Random,
) -> Iterator[list[dict[str, np.ndarray]]]:
    """The batches of features that the original writes, record by record."""
    size, cores = settings.bsz_per_host, settings.num_core_per_host
    half = size // cores // 2  # records of one direction on one core
    if settings.bi_data:
        rows = []
        for values in (tokens, sentence):
            forward = batchify(values, size // 2).reshape(cores, 1, half, -1)
            both = np.concatenate([forward, forward[..., ::-1]], axis=1)
            rows.append(both.reshape(size, -1))
        tokens, sentence = rows
    else:
        tokens, sentence = batchify(tokens, size), batchify(sentence, size)
    begin = 0
    while begin + settings.seq_len <= tokens.shape[1]:
        batch = []
        for row in range(size):
            backward = settings.bi_data and row // half % 2 == 1
            record = _record(
                tokens[row], sentence[row], begin, backward, settings, starts_word, numbers, choices
            )
            if record is None:
                return
            batch.append(record)
        yield batch
        begin += settings.reuse_len


def _record(
    tokens: np.ndarray,
    sentence: np.ndarray,
    begin: int,
    backward: bool,
    settings: RunSettings,
    starts_word: np.ndarray,
    numbers: np.random.RandomState,
    choices: random.Random,
) -> dict[str, np.ndarray] | None:
    reuse_len, total = settings.reuse_len, settings.seq_len - settings.reuse_len - 3
    pair = split_pair(sentence, begin + reuse_len, total, choices)
    if pair is None or max(pair.a[1], pair.b[1]) >= len(tokens):
        return None  # the original wants one more token of each for next-token targets
    first = tokens[begin : begin + reuse_len]
    a, b = tokens[slice(*pair.a)], tokens[slice(*pair.b)]
    second = np.concatenate([a, [SEP], b, [SEP, CLS]])
    if settings.num_predict is None:
        goals: tuple[int | None, int | None] = (None, None)
    else:
        goals = (settings.num_predict - settings.num_predict // 2, settings.num_predict // 2)
    masks = [
        choose_tokens(part, starts_word, goal, settings.rule, numbers, backward=backward)
        for part, goal in zip((first, second), goals, strict=True)
    ]
    next_first = tokens[begin + 1 : begin + reuse_len + 1]
    next_a = tokens[pair.a[0] + 1 : pair.a[1] + 1]
    next_b = tokens[pair.b[0] : pair.b[1] + 1]  # its first stands at the <sep> before B
    return {
        "input": np.concatenate([first, second]),
        "target": np.concatenate([next_first, next_a, next_b, [CLS, CLS]]),
        "seg_id": np.repeat([0, 1, 2], [reuse_len + len(a) + 1, len(b) + 1, 1]),
        "is_masked": np.concatenate(masks).astype(np.int64),
        "label": np.array([pair.follows]),
    }


def order_mask(
    order: np.ndarray, ids: np.ndarray, masked: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The original's mask of one part, 1 = may not be seen, [S, S], and its targets, bool [S].

    Row i of a target is its query's row; row i of any other token is the content's. `order` gives
    the factorization index within each block of len(order) tokens.
    """
    length, size = len(ids), len(order)
    functional = np.isin(ids, (SEP, CLS))
    hidden = masked | functional
    targets = masked & ~functional
    index = [order[i % size] + i // size * size if hidden[i] else -1 for i in range(length)]
    mask = np.zeros((length, length))
    for i in range(length):
        own = index[i] if targets[i] else index[i] + 1
        for j in range(length):
            mask[i, j] = hidden[j] and own <= index[j]
    return mask, targets
