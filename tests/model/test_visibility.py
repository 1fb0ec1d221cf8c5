"""Who sees whom as literal matrices (1: may be seen), and what the memory keeps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xlnet_jax.model import visibility

# Factorization order: tokens 0 and 3 are given; 2, then 1, then 4 are predicted.
RANKS = jnp.asarray([[-1, 1, 0, -1, 2]])


def test_content_sees_ranks_up_to_its_own():
    assert visibility.content_visibility(RANKS)[0].astype(int).tolist() == [
        [1, 0, 0, 1, 0],
        [1, 1, 1, 1, 0],
        [1, 0, 1, 1, 0],
        [1, 0, 0, 1, 0],
        [1, 1, 1, 1, 1],
    ]


def test_query_sees_lower_ranks_only():
    queries = jnp.asarray([[1, 2, 4]])
    assert visibility.query_visibility(RANKS, queries)[0].astype(int).tolist() == [
        [1, 0, 1, 1, 0],
        [1, 0, 0, 1, 0],
        [1, 1, 1, 1, 0],
    ]


def test_visibility_is_its_definition_row_by_row():
    random = np.random.default_rng(0)
    ranks = random.integers(-1, 5, (3, 7))
    queries = random.integers(0, 7, (3, 4))
    content = visibility.content_visibility(jnp.asarray(ranks))
    query = visibility.query_visibility(jnp.asarray(ranks), jnp.asarray(queries))
    for b in range(3):
        for j in range(7):
            for i in range(7):
                assert content[b, i, j] == (ranks[b, j] <= ranks[b, i])
            for p, i in enumerate(queries[b]):
                assert query[b, p, j] == (ranks[b, j] < ranks[b, i])


def test_causal_sees_memory_and_past():
    assert visibility.causal_visibility(3, 2).astype(int).tolist() == [
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 1, 1, 1],
    ]


@pytest.mark.parametrize(
    ("mem_len", "wanted"),
    [
        (2, [[1, 1, 1, 0, 0], [0, 1, 1, 1, 0], [0, 0, 1, 1, 1]]),
        (0, [[1, 0, 0], [0, 1, 0], [0, 0, 1]]),
    ],
)
def test_same_length_cuts_the_far_past(mem_len, wanted):
    visible = visibility.causal_visibility(3, mem_len, same_length=True)
    assert visible.astype(int).tolist() == wanted


@pytest.mark.parametrize(
    ("mem_len", "reuse_len", "wanted"),
    [
        (2, 0, [12, 13]),
        (2, 2, [10, 11]),
        (3, 1, [1, 2, 10]),  # old memory moves up
        (6, 2, [0, 1, 2, 10, 11]),  # grows until it is full
        (9, 9, [0, 1, 2, 10, 11, 12, 13]),
    ],
)
def test_memory_keeps_the_last_rows(mem_len, reuse_len, wanted):
    memory = jnp.asarray([0.0, 1, 2])[None, :, None]
    hidden = jnp.asarray([10.0, 11, 12, 13])[None, :, None]
    kept = visibility.update_memory(memory, hidden, mem_len=mem_len, reuse_len=reuse_len)
    assert kept[0, :, 0].tolist() == wanted
    first = visibility.update_memory(None, hidden, mem_len=mem_len, reuse_len=reuse_len)
    assert first[0, :, 0].tolist() == [x for x in wanted if x >= 10]


def test_no_memory_if_none_is_wanted():
    hidden = jnp.ones((1, 4, 2))
    assert visibility.update_memory(hidden, hidden, mem_len=0, reuse_len=0) is None


def test_memory_keeps_its_dtype_and_takes_no_gradient():
    memory, hidden = jnp.ones((1, 2, 1), jnp.bfloat16), jnp.ones((1, 3, 1))

    def total(memory, hidden):
        kept = visibility.update_memory(memory, hidden, mem_len=4, reuse_len=0)
        assert kept.dtype == jnp.bfloat16
        return kept.astype(jnp.float32).sum()

    for gradient in jax.grad(total, argnums=(0, 1))(memory, hidden):
        assert not gradient.any()
