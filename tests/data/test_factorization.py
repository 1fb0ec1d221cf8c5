import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tasks import reference_sampling as slow
from xlnet_jax.data import factorization


def visible(ranks, *, query):
    """May row i see column j?"""
    return ranks[None, :] < ranks[:, None] if query else ranks[None, :] <= ranks[:, None]


def test_a_literal_example():
    # Two parts of four; tokens 1 and 3 of the first and 1 of the second are predicted, and the
    # last one is <cls>. One block a part in the order given.
    hidden = np.array([[0, 1, 0, 1, 0, 1, 0, 1]], bool)
    ranks = factorization.sequence_ranks(
        np.array([[2, 3, 1, 0]]), np.array([[3, 1, 0, 2]]), hidden, 4
    )
    assert ranks.tolist() == [[0, 4, 0, 1, 5, 7, 5, 8]]
    content = [
        [1, 0, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0, 0],
        [1, 0, 1, 0, 0, 0, 0, 0],
        [1, 0, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 1, 0, 1, 0],
        [1, 1, 1, 1, 1, 1, 1, 0],
        [1, 1, 1, 1, 1, 0, 1, 0],
        [1, 1, 1, 1, 1, 1, 1, 1],
    ]
    assert visible(ranks[0], query=False).tolist() == np.array(content, bool).tolist()
    assert visible(ranks[0], query=True)[1].tolist() == [True, False, True, True] + 4 * [False]


def test_every_block_has_the_order_of_the_first_and_a_last_one_may_be_short():
    order = np.array([2, 0, 1])
    assert factorization.block_order(order, 8).tolist() == [2, 0, 1, 5, 3, 4, 8, 6]


@given(
    length=st.integers(1, 30),
    perm_size=st.integers(1, 12),
    seed=st.integers(0, 10**6),
)
def test_ranks_say_what_the_originals_mask_says(length, perm_size, seed):
    numbers = np.random.default_rng(seed)
    ids = numbers.choice([slow.SEP, slow.CLS, 20, 21, 22], length)
    masked = numbers.random(length) < 0.4
    order = numbers.permutation(perm_size)
    mask, targets = slow.order_mask(order, ids, masked)
    ranks = factorization.part_ranks(order, masked | (ids < 9))
    np.fill_diagonal(mask, np.where(targets, mask.diagonal(), 0))
    opened = mask.copy()
    np.fill_diagonal(opened, 0)
    assert (visible(ranks, query=False) == (opened == 0)).all()
    assert (visible(ranks, query=True)[targets] == (mask[targets] == 0)).all()


@given(st.integers(0, 10**6), st.integers(1, 20), st.integers(1, 20))
def test_nothing_reaches_a_query_from_its_own_token(seed, reuse_len, rest):
    numbers = np.random.default_rng(seed)
    hidden = numbers.random((3, reuse_len + rest)) < 0.5
    keys = np.arange(3, dtype=np.uint64) + np.uint64(seed)
    ranks = factorization.draw_ranks(keys, hidden, reuse_len, min(reuse_len, rest))
    for row, is_hidden in zip(ranks, hidden, strict=True):
        content, query = visible(row, query=False), visible(row, query=True)
        reached = query.copy()
        for _ in range(len(row)):  # through any number of layers
            reached |= reached @ content
        assert not reached.diagonal()[is_hidden].any()
        assert not (content | query)[:reuse_len, reuse_len:].any()
        assert (content & query)[reuse_len:, :reuse_len].all()
        assert content[:, ~is_hidden][reuse_len:].all()


def test_targets_are_listed_in_order_with_filler_behind():
    is_target = np.array([[0, 1, 0, 1, 1], [0, 0, 0, 0, 0], [1, 1, 0, 0, 0]], bool)
    positions, weights = factorization.target_list(is_target, 4)
    assert positions.tolist() == [[1, 3, 4, 0], [0, 0, 0, 0], [0, 1, 0, 0]]
    assert weights.tolist() == [[1, 1, 1, 0], [0, 0, 0, 0], [1, 1, 0, 0]]
    assert (positions.dtype, weights.dtype) == (np.int32, np.float32)


def test_without_num_predict_every_position_has_a_query():
    is_target = np.array([[0, 1, 1]], bool)
    positions, weights = factorization.target_list(is_target, None)
    assert positions.tolist() == [[0, 1, 2]]
    assert weights.tolist() == [[0, 1, 1]]


def test_too_many_targets_are_an_error_that_names_the_key():
    with pytest.raises(ValueError, match=r"3 tokens to predict, but config.data.num_predict is 2"):
        factorization.target_list(np.ones((1, 3), bool), 2)


def test_parts_and_examples_have_orders_of_their_own():
    hidden = np.ones((200, 12), bool)
    ranks = factorization.draw_ranks(np.arange(200, dtype=np.uint64), hidden, 6, 6)
    first, second = ranks[:, :6] - 1, ranks[:, 6:] - ranks[:, 6:].min()
    for part in (first, second):
        assert (np.sort(part, axis=1) == np.arange(6)).all()
        assert abs((part[:, 0] < part[:, 1]).mean() - 0.5) < 0.12  # standard deviation 0.035
    assert (first == second).all(axis=1).mean() < 0.05
