"""Rows of text and pairs of segments, against a slow reading and in distribution."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tests.data.shard_files import random_sentences, write_data_dir
from tests.tasks import reference_sampling as slow
from tests.tasks.test_spans import same_distribution
from xlnet_jax.data import counter_random
from xlnet_jax.data.token_shards import TokenShards
from xlnet_jax.tasks import pairs

TOTAL = 30


@pytest.fixture(scope="module")
def stream(tmp_path_factory):
    shards = [random_sentences(seed, 60, longest=25) for seed in range(4)]
    return TokenShards(write_data_dir(tmp_path_factory.mktemp("pairs"), shards)).epoch(0, 0)


def slow_row(stream, rows, row, *, bi_data):
    """Tokens of one row, and a number that grows at every sentence of the text."""
    tokens = np.empty(len(stream), np.int64)
    stream.copy(0, len(stream), tokens)
    sentence = np.zeros(len(stream), np.int64)
    sentence[stream.start_at(np.arange(stream.sentences))] = 1
    numbers = np.cumsum(sentence)
    text = rows // 2 if bi_data else rows
    cut = [
        slow.batchify(values, text)[row // 2 if bi_data else row] for values in (tokens, numbers)
    ]
    return [values[::-1] if bi_data and row % 2 else values for values in cut]


@pytest.mark.parametrize(("rows", "bi_data"), [(3, False), (4, True), (1, False)])
def test_rows_are_those_of_the_stream(stream, rows, bi_data):
    text = pairs.TextRows(stream, rows, bi_data=bi_data)
    for row in range(rows):
        wanted, _ = slow_row(stream, rows, row, bi_data=bi_data)
        assert text.length == len(wanted)
        for begin, end in ((0, len(wanted)), (5, 6), (100, 333)):
            found = np.empty(end - begin, np.int32)
            text.read(row, begin, end, found)
            assert (found == wanted[begin:end]).all()


@settings(max_examples=60)
@given(rows=st.integers(1, 3), bi_data=st.booleans(), data=st.data())
def test_boundaries_are_where_the_sentence_changes(stream, rows, bi_data, data):
    rows *= 2
    text = pairs.TextRows(stream, rows, bi_data=bi_data)
    row = data.draw(st.integers(0, rows - 1))
    _, sentence = slow_row(stream, rows, row, bi_data=bi_data)
    changes = 1 + np.flatnonzero(np.diff(sentence))
    begin = data.draw(st.integers(0, text.length - 1))
    end = data.draw(st.integers(begin + 1, text.length))
    ask = [np.array([value]) for value in (row, begin, end)]
    inside = changes[(changes > begin) & (changes < end)]
    after, before = changes[changes >= begin], changes[changes <= begin]
    if begin:
        assert text.boundaries_from(*ask[:2]) == (after[0] if len(after) else text.length)
    assert text.boundaries_to(*ask[:2]) == (before[-1] if len(before) else 0)
    number, count = text.inner_boundaries(*ask)
    assert count == len(inside)
    found = [int(text.boundary_position(ask[0], number + k)[0]) for k in range(len(inside))]
    assert sorted(found) == inside.tolist()


@given(a=st.integers(1, 80), b=st.integers(1, 80), data=st.data())
def test_the_longer_segment_is_cut_first(a, b, data):
    total = data.draw(st.integers(2, a + b))
    found = pairs.cut_to_total(np.array([a]), np.array([b]), total)
    while a + b > total:
        if a > b:
            a -= 1
        else:
            b -= 1
    assert (int(found[0][0]), int(found[1][0])) == (a, b)


def drawn(text, row, begins, seed=0):
    keys = counter_random.make_key(seed, np.arange(len(begins)))
    return pairs.draw(keys, text, np.full(len(begins), row), begins, TOTAL)


def drawn_slowly(stream, row, begins, *, bi_data):
    _, sentence = slow_row(stream, 2, row, bi_data=bi_data)
    numbers = random.Random(0)
    found = [slow.split_pair(sentence, int(begin), TOTAL, numbers) for begin in begins]
    columns = [(p.a[1] - p.a[0], p.b[0], p.b[1] - p.b[0], p.follows) for p in found]
    return pairs.Pairs(*np.array(columns).T)


def compare(one, other):
    found = {
        name: same_distribution(getattr(one, name), getattr(other, name))
        for name in ("a_length", "b_length", "label")
    }
    found["b_begin"] = same_distribution(one.b_begin // 16, other.b_begin // 16)
    found["b_begin of random B"] = stats.ks_2samp(
        one.b_begin[one.label == 0], other.b_begin[other.label == 0]
    ).pvalue
    return found


@pytest.mark.parametrize(("row", "bi_data"), [(0, False), (1, False), (1, True)])
def test_fast_and_slow_pairs_have_one_distribution(stream, row, bi_data):
    text = pairs.TextRows(stream, 2, bi_data=bi_data)
    begins = np.tile(np.arange(0, 400, 2), 25)
    found = compare(drawn(text, row, begins), drawn_slowly(stream, row, begins, bi_data=bi_data))
    assert min(found.values()) > 1e-3, found


def test_a_wrong_pair_sampler_is_seen(stream, monkeypatch):
    text = pairs.TextRows(stream, 2, bi_data=False)
    begins = np.tile(np.arange(0, 400, 2), 25)
    wanted = drawn_slowly(stream, 0, begins, bi_data=False)
    with monkeypatch.context() as patch:  # B goes on from where it falls, not from its sentence
        patch.setattr(pairs.TextRows, "boundaries_to", lambda self, row, position: position)
        assert min(compare(drawn(text, 0, begins), wanted).values()) < 1e-6
    with monkeypatch.context() as patch:  # always the first cut
        patch.setattr(counter_random, "below", lambda draw, bound: np.zeros(draw.shape, np.int64))
        assert compare(drawn(text, 0, begins), wanted)["a_length"] < 1e-6


def test_every_boundary_of_a_pair_lies_where_a_sentence_begins_or_the_total_cuts(stream):
    text = pairs.TextRows(stream, 2, bi_data=True)
    begins = np.tile(np.arange(0, 400, 2), 4)
    for row in (0, 1):
        pair = drawn(text, row, begins, seed=1)
        assert (pair.a_length + pair.b_length == TOTAL).all()
        assert pair.a_length.min() >= 1
        assert pair.b_length.min() >= 1
        assert (pair.b_begin + pair.b_length <= text.length).all()
        inside = pair.b_begin[pair.b_begin > 0]  # a row may begin amid a sentence
        assert (text.boundaries_from(np.full(len(inside), row), inside) == inside).all()
        follows = pair.label == 1
        assert (pair.b_begin >= begins + pair.a_length)[follows].all()
        assert 0.35 < follows.mean() < 0.5  # half, less the places without a boundary in reach
