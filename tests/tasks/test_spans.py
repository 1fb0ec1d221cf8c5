"""The fast choice of tokens against the slow one, in distribution and in what must always hold."""

import dataclasses
import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tests.tasks import reference_sampling as slow
from xlnet_jax.data import counter_random
from xlnet_jax.tasks import spans

LENGTH, EXAMPLES, SLOW_EXAMPLES = 64, 8_000, 2_500
STARTS = np.array([False] * 9 + [True] * 60 + [False] * 31)  # a vocabulary: two thirds start a word
STARTS[[slow.SEP, slow.CLS]] = True


def draw_ids(numbers, rows):
    """Sequences like a second part: words, with <sep> inside and <sep> <cls> at the end."""
    ids = numbers.integers(9, 100, (rows, LENGTH))
    ids[np.arange(rows), numbers.integers(1, LENGTH - 3, rows)] = slow.SEP
    ids[:, -2:] = slow.SEP, slow.CLS
    return ids


def fast(ids, goal, rule, seed=0):
    keys = counter_random.make_key(seed, np.arange(len(ids)))
    barred = (ids == slow.SEP) | (ids == slow.CLS)
    return spans.choose(keys, STARTS[ids], barred, goal, rule)


def slowly(ids, goal, rule, seed=0):
    numbers = np.random.RandomState(seed)
    slow_rule = slow.Rule(rule.mask_alpha, rule.mask_beta, rule.max_gram, rule.whole_words)
    return np.stack([slow.choose_tokens(row, STARTS, goal, slow_rule, numbers) for row in ids])


def statistics(ids, chosen, numbers):
    """Numbers that are independent from example to example: name -> int [examples]."""
    found = {"count": chosen.sum(axis=1)}
    edges = np.diff(np.pad(chosen, ((0, 0), (1, 1))).astype(int), axis=1)
    found["runs"] = (edges == 1).sum(axis=1)
    length, place, first = [], [], []
    for row in edges:
        begins, ends = np.flatnonzero(row == 1), np.flatnonzero(row == -1)
        if len(begins):
            pick = numbers.integers(len(begins))
            length.append(ends[pick] - begins[pick])
            place.append(begins[pick] // 8)
            first.append(begins[0])
    found["length of a run"] = np.array(length)
    found["place of a run"] = np.array(place)
    found["first place"] = np.array(first)
    found["chosen that start a word"] = (chosen & STARTS[ids]).sum(axis=1)
    found["chosen <sep> and <cls>"] = (chosen & (ids < 9)).sum(axis=1)
    return found


def same_distribution(one, other) -> float:
    """p-value of a chi-square test that two samples of integers have one distribution."""
    values = np.unique(np.concatenate([one, other]))
    if len(values) == 1:
        return 1.0
    table = np.array([[(sample == value).sum() for value in values] for sample in (one, other)])
    order = np.argsort(table.sum(axis=0))
    merged = np.cumsum(table[:, order], axis=1)
    rare = int((merged.sum(axis=0) < 60).sum())  # pool what is too rare for the test
    pooled = np.concatenate([merged[:, rare : rare + 1], table[:, order][:, rare + 1 :]], axis=1)
    if pooled.shape[1] < 2:
        return 1.0
    return stats.chi2_contingency(pooled).pvalue


@functools.cache
def slow_statistics(goal, rule):
    numbers = np.random.default_rng(4)
    ids = draw_ids(numbers, SLOW_EXAMPLES)
    return statistics(ids, slowly(ids, goal, rule), numbers)


def p_values(goal, rule, choose_fast=fast):
    numbers = np.random.default_rng(5)
    ids = draw_ids(numbers, EXAMPLES)
    found = statistics(ids, choose_fast(ids, goal, rule), numbers)
    wanted = slow_statistics(goal, rule)
    return {name: same_distribution(found[name], wanted[name]) for name in wanted}


REFERENCE = spans.SpanRule(6, 1, 5, whole_words=False)
FIXED = spans.SpanRule(6, 1, 5, whole_words=True)


@pytest.mark.parametrize(
    ("goal", "rule"),
    [
        (12, REFERENCE), (None, REFERENCE), (28, REFERENCE),
        (12, FIXED), (None, FIXED), (28, FIXED),
        (9, spans.SpanRule(5, 2, 3, whole_words=False)),
    ],
)  # fmt: skip
def test_fast_and_slow_choices_have_one_distribution(goal, rule):
    found = p_values(goal, rule)
    assert min(found.values()) > 1e-3, found


def shifted(ids, goal, rule):
    """A sampler that is wrong by one place."""
    return np.roll(fast(ids, goal, rule), 1, axis=1)


def uniform_sizes(ids, goal, rule):
    """A sampler whose span lengths are uniform."""
    thresholds = (np.arange(1, 5) * 2**32 // 5).astype(np.uint64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spans.SpanRule, "ngram_thresholds", lambda self: thresholds)
        return fast(ids, goal, rule)


def less_context(ids, goal, rule):
    """A sampler with 5 tokens of context for each chosen one instead of 6."""
    return fast(ids, goal, dataclasses.replace(rule, mask_alpha=5))


def filled_from_the_left(ids, goal, rule):
    """A sampler that adds what is missing at the first free places."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spans, "_fill", first_free)
        return fast(ids, goal, rule)


def first_free(key, taken, unit, missing):
    del key, unit
    free = ~taken
    return free & (np.cumsum(free, axis=1) <= missing[:, None])


@pytest.mark.parametrize(
    ("wrong_sampler", "rule"),
    [
        (shifted, FIXED), (uniform_sizes, REFERENCE), (uniform_sizes, FIXED),
        (less_context, REFERENCE), (filled_from_the_left, REFERENCE), (filled_from_the_left, FIXED),
    ],
)  # fmt: skip
def test_a_wrong_sampler_is_seen(wrong_sampler, rule):
    found = p_values(12, rule, wrong_sampler)
    assert min(found.values()) < 1e-6, found


def test_the_two_rules_differ():
    numbers = np.random.default_rng(0)
    ids = draw_ids(numbers, 3000)
    pieces, words = fast(ids, 16, REFERENCE), fast(ids, 16, FIXED)
    separators = ids < 9
    assert (pieces & separators).any()
    assert not (words & separators).any()
    # A word that is chosen is chosen whole, but for the one that is cut at the goal and those that
    # the edges of the sequence cut.
    first_of_word = STARTS[ids]
    splits = words[:, 1:] != words[:, :-1]
    inside = splits & ~first_of_word[:, 1:] & ~separators[:, :-1]
    assert inside.sum(axis=1).max() <= 1
    inside = (pieces[:, 1:] != pieces[:, :-1]) & ~first_of_word[:, 1:]
    assert inside.sum(axis=1).max() > 1


@given(
    rows=st.integers(1, 5),
    length=st.integers(3, 60),
    density=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    seed=st.integers(0, 10**6),
    whole_words=st.booleans(),
    alpha=st.integers(1, 8),
    max_gram=st.integers(1, 6),
    data=st.data(),
)
def test_as_many_are_chosen_as_wanted(
    rows, length, density, seed, whole_words, alpha, max_gram, data
):
    numbers = np.random.default_rng(seed)
    starts = numbers.random((rows, length)) < density
    barred = np.zeros((rows, length), bool)
    barred[:, -2:] = True
    rule = spans.SpanRule(alpha, 1, max_gram, whole_words)
    goal = data.draw(st.integers(0, length - 2 * whole_words))
    keys = counter_random.make_key(seed, np.arange(rows))
    chosen = spans.choose(keys, starts, barred, goal, rule)
    assert (chosen.sum(axis=1) == goal).all()
    if whole_words:
        assert not (chosen & barred).any()
    one_row = spans.choose(keys[-1:], starts[-1:], barred[-1:], goal, rule)
    assert (one_row == chosen[-1:]).all()  # no matter in what company it is drawn


def test_long_sequences_go_on_with_fresh_draws():
    starts = np.ones((40, 900), bool)
    chosen = spans.choose(counter_random.make_key(np.arange(40)), starts, ~starts, None, REFERENCE)
    repeated = []
    for row in np.diff(np.pad(chosen, ((0, 0), (1, 1))).astype(int), axis=1):
        lengths = np.flatnonzero(row == -1) - np.flatnonzero(row == 1)
        assert len(lengths) > 32
        repeated.append((lengths[:16] == lengths[16:32]).mean())
    assert np.mean(repeated) < 0.5  # 0.28 expected of independent draws
