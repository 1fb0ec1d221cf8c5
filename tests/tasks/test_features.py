import collections

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlnet_jax.tasks.features import (
    Features,
    bucket_lengths,
    evaluation_order,
    training_order,
)


def features(lengths, side="right", choices=0):
    """Tokens 100·i + 1, + 2, … of feature i; segment 1."""
    lead = (choices,) if choices else ()
    tokens = [
        np.broadcast_to(100 * i + 1 + np.arange(n), (*lead, n)).astype(np.int32)
        for i, n in enumerate(lengths)
    ]
    return Features(
        sequences={"tokens": tokens, "segment_ids": [np.ones_like(t, np.int8) for t in tokens]},
        values={"label": np.arange(len(lengths)) * 10},
        fill={"tokens": 0, "segment_ids": 4},
        side=side,
    )


def test_a_batch_by_hand():
    batch = features([2, 3, 1]).batch(np.array([1, 0]), 4)
    assert batch["tokens"].tolist() == [[101, 102, 103, 0], [1, 2, 0, 0]]
    assert batch["segment_ids"].tolist() == [[1, 1, 1, 4], [1, 1, 4, 4]]
    assert batch["padding"].tolist() == [[False] * 3 + [True], [False] * 2 + [True] * 2]
    assert batch["label"].tolist() == [10, 0]
    assert batch["weight"].tolist() == [1, 1]
    assert batch["index"].tolist() == [1, 0]
    assert batch["tokens"].dtype == batch["segment_ids"].dtype == batch["index"].dtype == np.int32


def test_lengths_are_counted_once():
    made = features([2, 3, 1])
    assert made.lengths.tolist() == [2, 3, 1]
    assert made.lengths is made.lengths


def test_padding_on_the_left():
    batch = features([2, 3, 1], side="left").batch(np.array([0, 2]), 3)
    assert batch["tokens"].tolist() == [[0, 1, 2], [0, 0, 201]]
    assert batch["segment_ids"].tolist() == [[4, 1, 1], [4, 4, 1]]
    assert batch["padding"].tolist() == [[True, False, False], [True, True, False]]


def test_choices_are_padded_alike():
    batch = features([2, 1], choices=3).batch(np.array([1]), 2)
    assert batch["tokens"].tolist() == [[[101, 0]] * 3]
    assert batch["padding"].shape == (1, 3, 2)


def test_rows_that_fill_up_have_no_weight_and_may_copy_what_is_longer():
    batch = features([5, 2]).batch(np.array([1, -1]), 2)
    assert batch["tokens"].shape == (2, 2)
    assert batch["weight"].tolist() == [1, 0]
    assert batch["index"].tolist() == [1, -1]


def test_bucket_lengths():
    lengths = np.array([1, 16, 17, 63, 64])
    assert bucket_lengths(lengths, 64, 16).tolist() == [16, 16, 32, 64, 64]
    assert bucket_lengths(lengths, 64, 0).tolist() == [64] * 5
    assert bucket_lengths(lengths, 60, 16).tolist() == [16, 16, 32, 60, 60]


sizes = st.lists(st.integers(1, 40), min_size=1, max_size=90)


@given(sizes, st.integers(1, 7), st.integers(0, 3))
def test_an_epoch_has_every_feature_once_and_only_one_batch_is_filled_up(lengths, size, epoch):
    padded = bucket_lengths(np.array(lengths), 40, 8)
    for batches in (training_order(padded, size, 1, epoch), evaluation_order(padded, size)):
        index = np.concatenate([index for index, _ in batches])
        assert sorted(index[index >= 0]) == list(range(len(lengths)))
        assert all(len(index) == size for index, _ in batches)
        assert sum((index < 0).any() for index, _ in batches) == (len(lengths) % size > 0)
        for index, length in batches:
            assert length == padded[index[index >= 0]].max()


def test_the_order_is_a_function_of_seed_and_epoch():
    padded = np.arange(1, 50)

    def order(seed, epoch):
        return np.concatenate([i for i, _ in training_order(padded, 4, seed, epoch)]).tolist()

    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


def test_batches_are_of_like_lengths_in_training_too():
    random = np.random.default_rng(0)
    padded = bucket_lengths(random.integers(1, 513, 4096), 512, 32)
    batches = training_order(padded, 16, 0, 0)
    waste = sum(length * 16 - padded[index].sum() for index, length in batches)
    assert waste < 0.03 * padded.sum()
    firsts = collections.Counter(length for _, length in batches[:40])
    assert len(firsts) > 8  # short and long ones are mixed


def test_equal_chances_of_every_place():
    places = np.zeros((12, 6))
    for epoch in range(600):
        for place, (index, _) in enumerate(training_order(np.full(12, 8), 2, 0, epoch)):
            places[index, place] += 1
    chi_square = ((places - 100) ** 2 / 100).sum()
    assert chi_square < 110  # 71 cells' worth of freedom at most: beyond the 99.7th percentile


@pytest.mark.parametrize("change", ["tokens", "label"])
def test_the_hash_sees_every_change(change):
    before, after = features([2, 3]), features([2, 3])
    assert before.sha256() == after.sha256()
    if change == "tokens":
        after.sequences["tokens"][1][0] += 1
    else:
        after.values["label"][0] += 1
    assert before.sha256() != after.sha256()
