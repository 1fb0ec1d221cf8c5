"""Random numbers that are a function of their address.

A stream of draws is named by a 64-bit key; draw j of it is `mix(key + (j + 1) * GAMMA)`, which is
the SplitMix64 generator (Steele, Lea and Flood, OOPSLA 2014) with its counter exposed. Keys are
made by absorbing integers one after the other (seed, epoch, row, step, purpose), so any draw of any
example can be had at once, in arrays, and in any order: nothing depends on what was drawn before.
All arithmetic is modulo 2**64, so the numbers are the same on every machine.
"""

import numpy as np

GAMMA = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def _mix(state: np.ndarray) -> np.ndarray:
    """SplitMix64's output function, in place on an array the caller owns."""
    scratch = state >> np.uint64(30)
    state ^= scratch
    state *= _FIRST
    np.right_shift(state, np.uint64(27), out=scratch)
    state ^= scratch
    state *= _SECOND
    np.right_shift(state, np.uint64(31), out=scratch)
    state ^= scratch
    return state


def make_key(*parts: int | np.ndarray) -> np.ndarray:
    """One uint64 key per element of the broadcast `parts`, integers of at least 0."""
    arrays = np.broadcast_arrays(*(np.asarray(part) for part in parts))
    key = np.zeros(arrays[0].shape or (1,), np.uint64)
    for array in arrays:
        key = _mix((key ^ np.atleast_1d(array).astype(np.uint64)) + GAMMA)
    return key


def draws(key: np.ndarray, count: int, first: int = 0) -> np.ndarray:
    """Draws `first` to `first + count - 1` of every key: uint64 [..., count]."""
    offsets = np.arange(first + 1, first + count + 1, dtype=np.uint64) * GAMMA
    return _mix(key[..., None] + offsets)


def below(draw: np.ndarray, bound: np.ndarray | int) -> np.ndarray:
    """Turns draws into int64 numbers uniform on 0 … bound - 1.

    Works from the upper 53 bits; for bounds up to 2**40 no value's probability is off by more than
    a relative 2**-13, and by far less for the bounds met here.
    """
    unit = (draw >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return np.minimum((unit * bound).astype(np.int64), np.asarray(bound, np.int64) - 1)


def permutations(key: np.ndarray, size: int) -> np.ndarray:
    """One uniformly random order of 0 … size - 1 per key: int64 [len(key), size].

    The low bits of each draw are replaced by its position and the rows are sorted; two equal
    remainders (at least 40 random bits for every size met here) would keep their order.
    """
    return ranked_positions(draws(key, size))


def ranked_positions(priorities: np.ndarray) -> np.ndarray:
    """Positions of every row in increasing order of their random priority: int64 [rows, size].

    The low bits of `priorities` (uint64, overwritten) are used up by the position. A priority of
    all ones puts its position at the end of the row.
    """
    size = priorities.shape[-1]
    bits = np.uint64(max(size - 1, 1).bit_length())
    low = (np.uint64(1) << bits) - np.uint64(1)
    priorities |= low
    priorities ^= low
    priorities |= np.arange(size, dtype=np.uint64)
    priorities.sort(axis=-1)
    priorities &= low
    return priorities.view(np.int64)
