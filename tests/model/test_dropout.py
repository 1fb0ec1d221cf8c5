"""Dropout by hash: its rate, its independence, and that it depends on seed and index alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xlnet_jax.model import dropout

SEED = jnp.asarray([123456789, 987654321], jnp.uint32)
SHAPE = (8, 16, 32, 64)
COUNT = int(np.prod(SHAPE))


def mask(seed, shape=SHAPE, rate=0.5):
    return np.asarray(dropout.keep_mask(jnp.asarray(seed, jnp.uint32), shape, rate))


def assert_frequency(found, wanted):
    """A mean of independent 0s and 1s lies within 5 standard deviations."""
    assert abs(found.mean() - wanted) < 5 * np.sqrt(wanted * (1 - wanted) / found.size)


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5, 0.9])
def test_rate(rate):
    kept = mask(SEED, rate=rate)
    assert_frequency(kept, 1 - rate)
    # also within every batch row and every index of each axis
    for axis in range(len(SHAPE)):
        means = kept.mean(axis=tuple(a for a in range(len(SHAPE)) if a != axis))
        spread = np.sqrt(rate * (1 - rate) / (COUNT / SHAPE[axis]))
        assert np.abs(means - (1 - rate)).max() < 5 * spread


@pytest.mark.parametrize("axis", range(len(SHAPE)))
@pytest.mark.parametrize("step", [1, 2, 7])
def test_neighbours_are_independent(axis, step):
    kept = mask(SEED)
    one, other = np.split(kept, [step], axis=axis)[1], np.split(kept, [-step], axis=axis)[0]
    assert_frequency(one ^ other, 0.5)


@pytest.mark.parametrize(
    "other",
    [[123456790, 987654321], [123456789, 987654322], [0, 0], [987654321, 123456789]],
)
def test_seeds_are_independent(other):
    assert_frequency(mask(SEED) ^ mask(other), 0.5)


def test_seeds_come_from_keys():
    one, other = (dropout.dropout_seed(jax.random.key(k)) for k in (0, 1))
    assert one.dtype == jnp.uint32
    assert one.shape == (2,)
    assert one.tolist() != other.tolist()


def test_mask_is_a_function_of_seed_and_index():
    # Neither compiling it nor cutting the batch over devices could change it.
    kept = mask(SEED)
    compiled = jax.jit(dropout.keep_mask, static_argnums=(1, 2))(SEED, SHAPE, 0.5)
    np.testing.assert_array_equal(kept, compiled)
    np.testing.assert_array_equal(kept[:3], mask(SEED, (3, *SHAPE[1:])))


def test_rows_by_number_are_those_of_the_whole_batch():
    """So that a batch worked off in parts has the masks of the whole."""
    kept = mask(SEED)
    with dropout.rows_numbered(jnp.asarray([5, 0, 2])):
        np.testing.assert_array_equal(kept[[5, 0, 2]], mask(SEED, (3, *SHAPE[1:])))
    with dropout.rows_numbered(jnp.asarray([1, 3])):  # two rows of choices each
        np.testing.assert_array_equal(kept[[2, 3, 6, 7]], mask(SEED, (4, *SHAPE[1:])))


def test_rows_along_other_axes():
    """As in attention, where batch rows are the axes of direction and of rows a direction."""
    seeds = dropout.row_seeds(SEED, 6)
    seeds = seeds._replace(rows=seeds.rows.reshape(3, 2).T[:, None, :, None])
    kept = np.asarray(dropout.keep_mask(seeds, (2, 16, 3, 32), 0.5))
    whole = mask(SEED, (6, 16, 32))
    for row in range(6):
        np.testing.assert_array_equal(kept[row % 2, :, row // 2], whole[row])


def test_an_array_without_rows():
    kept = np.asarray(dropout.keep_mask(dropout.no_rows(SEED, 3), (2, 40, 50), 0.5))
    assert_frequency(kept, 0.5)
    assert_frequency(kept[0] ^ kept[1], 0.5)
    with dropout.rows_numbered(jnp.asarray([5, 0])):
        again = dropout.keep_mask(dropout.no_rows(SEED, 3), (2, 40, 50), 0.5)
    np.testing.assert_array_equal(kept, again)


def test_dropout_scales_what_it_keeps():
    x = jax.random.normal(jax.random.key(0), SHAPE)
    dropped = np.asarray(dropout.dropout(x, 0.2, SEED))
    kept = mask(SEED, rate=0.2)
    np.testing.assert_allclose(dropped, np.where(kept, np.asarray(x) / 0.8, 0), rtol=1e-6)
    assert dropout.dropout(x.astype(jnp.bfloat16), 0.2, SEED).dtype == jnp.bfloat16


def test_gradient_has_the_same_mask():
    x = jnp.ones((4, 50))
    gradient = jax.grad(lambda x: dropout.dropout(x, 0.3, SEED).sum())(x)
    np.testing.assert_array_equal(gradient, dropout.dropout(x, 0.3, SEED))


@pytest.mark.parametrize(("rate", "seed"), [(0.0, SEED), (0.7, None)])
def test_identity(rate, seed):
    x = jnp.arange(12.0).reshape(3, 4)
    assert dropout.dropout(x, rate, seed) is x
