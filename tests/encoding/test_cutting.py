"""Parts of long texts: nothing left out, nothing twice, and words found again."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlnet_jax.data.tokenizer import SpecialIds
from xlnet_jax.encoding import cutting

SPECIAL = SpecialIds(unk=0, bos=1, eos=2, cls=3, sep=4, pad=5, mask=6, eod=7, eop=8)


def ids_of(count):
    return np.arange(100, 100 + count, dtype=np.int32)


def owned(parts):
    return [part.tokens[part.own_columns] for part in parts]


@given(st.data(), st.integers(0, 60), st.integers(3, 20))
def test_windows_hold_every_token_once_in_its_best_place(data, count, length):
    room = length - cutting.ENDS
    stride = data.draw(st.integers(1, room))
    parts = cutting.windows(7, ids_of(count), SPECIAL, length, stride)
    np.testing.assert_array_equal(np.concatenate(owned(parts)), ids_of(count))
    for part in parts:
        assert part.text == 7
        assert part.has_cls
        assert len(part.tokens) == min(count, room) + 2 == len(part.segment_ids)
        text = ids_of(count)[part.first : part.first + room]
        np.testing.assert_array_equal(part.tokens, [*text, SPECIAL.sep, SPECIAL.cls])
        assert list(part.segment_ids) == [0] * (len(text) + 1) + [2]
    firsts = [part.first for part in parts]
    assert all(0 < b - a <= stride for a, b in itertools.pairwise(firsts))

    def context(part, token):
        return min(token - part.first, part.first + room - 1 - token)

    for part in parts:
        for token in range(*part.own):
            holders = [p for p in parts if p.first <= token < p.first + room]
            assert context(part, token) == max(context(p, token) for p in holders)


@given(st.integers(0, 40), st.integers(3, 12))
def test_segments_are_the_text_in_a_row(count, length):
    parts = cutting.segments(0, ids_of(count), SPECIAL, length)
    whole = [*ids_of(count), SPECIAL.sep, SPECIAL.cls]
    np.testing.assert_array_equal(np.concatenate([part.tokens for part in parts]), whole)
    segments = np.concatenate([part.segment_ids for part in parts])
    assert list(segments) == [0] * (count + 1) + [2]
    assert all(len(part.tokens) == length for part in parts[:-1])
    assert [part.has_cls for part in parts] == [False] * (len(parts) - 1) + [True]
    np.testing.assert_array_equal(np.concatenate(owned(parts)), ids_of(count))


@given(st.integers(0, 30), st.integers(3, 9), st.booleans())
def test_weights_of_a_text_sum_to_one_over_its_parts(count, length, in_windows):
    if in_windows:
        parts = cutting.windows(0, ids_of(count), SPECIAL, length, 1)
    else:
        parts = cutting.segments(0, ids_of(count), SPECIAL, length)
    shape = (len(parts), length)
    cls = np.array([sum(part.has_cls for part in parts)])
    tokens = np.zeros(shape, np.int64)
    for row, part in enumerate(parts):
        tokens[row, : len(part.tokens)] = part.tokens
    for pooling in ("mean", "first", "last", "cls"):
        weights = cutting.pooling_weights(pooling, parts, np.array([count]), cls, shape)
        nothing = count == 0 and pooling != "cls"
        assert weights.sum() == pytest.approx(0 if nothing else 1)
        held = set(tokens[weights > 0].tolist())
        wanted = {
            "mean": set(ids_of(count).tolist()),
            "first": set(ids_of(count)[:1].tolist()),
            "last": set(ids_of(count)[-1:].tolist()),
            "cls": {SPECIAL.cls},
        }[pooling]
        assert held == wanted
        assert (weights > 0).sum() == (len(parts) if in_windows else 1) or pooling != "cls"


def test_padded_batches():
    parts = cutting.windows(0, ids_of(3), SPECIAL, 16, 1)
    parts += cutting.windows(1, ids_of(1), SPECIAL, 16, 1)
    batch = cutting.padded(parts, 4, 4, 16)
    assert batch["tokens"].shape == (4, 8)
    assert (~batch["padding"]).sum(axis=1).tolist() == [5, 3, 0, 0]
    assert cutting.padded(parts, 2, 4, 7)["tokens"].shape == (2, 7)


def test_words():
    text = " eins, zwei\n\tdrei "
    spans = np.array([[1, 1], [1, 5], [5, 6], [7, 9], [9, 11], [13, 17]])
    rows, places = cutting.word_spans(text, spans)
    assert rows.tolist() == [0, 0, 0, 1, 1, 2]
    assert [text[begin:end] for begin, end in places] == ["eins,", "zwei", "drei"]
    rows, places = cutting.word_spans(text, spans[3:5])  # words without a token are left out
    assert rows.tolist() == [0, 0]
    assert places.tolist() == [[7, 11]]
    for nothing in ("", "  "):
        rows, places = cutting.word_spans(nothing, np.zeros((0, 2), np.int64))
        assert rows.shape == (0,)
        assert places.shape == (0, 2)
