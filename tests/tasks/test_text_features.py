"""The layout itself is compared with the original's in tests/parity."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlnet_jax.data.normalization import Normalization
from xlnet_jax.data.tokenizer import Tokenizer
from xlnet_jax.tasks.text_features import Ragged, chunks, encode, join_texts, truncated_lengths

MODEL = Path(__file__).parents[1] / "goldens/tokenization/en/spiece.model"
ROWS = st.lists(st.lists(st.integers(10, 99), max_size=9), min_size=1, max_size=6)


def ragged(rows):
    flat = np.array([token for row in rows for token in row], np.int32)
    return Ragged(flat, np.array([len(row) for row in rows], np.int64))


def lists(rows):
    return [row.tolist() for row in rows]


def pops(first, second, limit):
    """What truncation is defined to be: one token at a time from the longer text."""
    while first + second > limit:
        if first > second:
            first -= 1
        else:
            second -= 1
    return first, second


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 60))
def test_pairs_are_cut_as_if_token_by_token(first, second, limit):
    got = truncated_lengths(np.array([first]), np.array([second]), limit)
    assert (got[0][0], got[1][0]) == pops(first, second, limit)


def joined(a, b, length):
    """The layout, written down for one example."""
    if b:
        kept = pops(len(a), len(b), max(0, length - 3))
        a, b = a[: kept[0]], b[: kept[1]]
    else:
        a = a[: length - 2]
    tail = [*b, 4] if b else []
    return [*a, 4, *tail, 3], [0] * (len(a) + 1) + [1] * len(tail) + [2]


@given(ROWS, st.data(), st.integers(4, 16))
def test_all_examples_at_once_are_as_one_by_one(first, data, length):
    rows = st.lists(st.integers(10, 99), max_size=9)
    second = [data.draw(rows) for _ in first]
    tokens, segments = join_texts(ragged(first), ragged(second), max_length=length, sep=4, cls=3)
    wanted = [joined(a, b, length) for a, b in zip(first, second, strict=True)]
    assert lists(tokens) == [row for row, _ in wanted]
    assert lists(segments) == [row for _, row in wanted]
    alone = join_texts(ragged(first), None, max_length=length, sep=4, cls=3)
    assert lists(alone[0]) == [joined(a, [], length)[0] for a in first]
    assert (tokens.flat.dtype, segments.flat.dtype) == (np.int32, np.int8)


@given(ROWS, st.integers(0, 9))
def test_rows_of_differing_lengths(rows, most):
    made = ragged(rows)
    assert lists(made) == rows
    assert len(made) == len(rows)
    assert lists(made[1:]) == rows[1:]
    assert made[-1].tolist() == rows[-1]
    assert lists(made.heads(most)) == [row[:most] for row in rows]
    assert lists(made.tails(most)) == [row[max(0, len(row) - most) :] for row in rows]
    order = np.array([len(rows) - 1, 0, 0])
    assert lists(made.take(order)) == [rows[i] for i in order]
    assert lists(Ragged.concatenate([made, made])) == rows + rows
    with pytest.raises(IndexError):
        made[len(rows)]


@pytest.mark.parametrize("collapse", [True, False])
def test_texts_with_line_breaks_are_encoded_like_single_ones(collapse):
    tokenizer = Tokenizer(MODEL, Normalization("reference", collapse_whitespace=collapse))
    texts = ["one\ntwo\r\nthree", "", "café 2003, 1,500", "``a''\u2028b"] * 30
    assert lists(encode(tokenizer, texts)) == [tokenizer.encode(text) for text in texts]


def test_chunks():
    assert list(chunks(iter(range(5)), 2)) == [[0, 1], [2, 3], [4]]
