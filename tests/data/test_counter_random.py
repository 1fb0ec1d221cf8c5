import numpy as np
import pytest
from scipy import stats

from xlnet_jax.data import counter_random


def test_draws_are_those_of_splitmix64():
    # A published test vector: the first outputs of SplitMix64 with seed 1234567.
    wanted = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    found = counter_random.draws(np.array([1234567], np.uint64), 4)
    assert found.tolist() == [wanted]


def test_a_draw_depends_on_its_address_alone():
    keys = counter_random.make_key(7, np.arange(5), 3)
    together = counter_random.draws(keys, 10)
    later = counter_random.draws(keys[3:4], 4, first=6)
    assert (together[3, 6:] == later[0]).all()
    assert (counter_random.make_key(7, 3, 3) == keys[3]).all()
    assert keys.tolist() == counter_random.make_key(7, np.arange(5), 3).tolist()  # inputs unharmed


def test_keys_differ_by_place_of_their_parts():
    keys = [counter_random.make_key(*parts).item() for parts in ((1, 2), (2, 1), (1, 2, 0), (3,))]
    assert len(set(keys)) == len(keys)


def test_neighbouring_addresses_share_no_key():
    keys = counter_random.make_key(0, np.arange(300)[:, None], np.arange(300))
    assert len(np.unique(keys)) == keys.size
    bits = (keys.ravel()[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
    assert abs(bits.mean(axis=0) - 0.5).max() < 0.01  # standard deviation 0.0017


@pytest.mark.parametrize("bound", [2, 7, 300])
def test_numbers_below_a_bound_are_uniform(bound):
    draws = counter_random.draws(counter_random.make_key(0, np.arange(300)), 200)
    counts = np.bincount(counter_random.below(draws, bound).ravel(), minlength=bound)
    assert len(counts) == bound
    assert stats.chisquare(counts).pvalue > 1e-3
    tilted = counter_random.below(draws | draws << np.uint64(1), bound)
    assert stats.chisquare(np.bincount(tilted.ravel(), minlength=bound)).pvalue < 1e-6


def test_permutations_are_uniform():
    orders = counter_random.permutations(counter_random.make_key(1, np.arange(24_000)), 4)
    assert (np.sort(orders, axis=1) == np.arange(4)).all()
    names = orders @ np.array([64, 16, 4, 1])
    counts = np.unique(names, return_counts=True)[1]
    assert len(counts) == 24
    assert stats.chisquare(counts).pvalue > 1e-3


def test_a_permutation_of_one_is_itself():
    assert counter_random.permutations(counter_random.make_key(5), 1).tolist() == [[0]]
