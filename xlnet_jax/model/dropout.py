"""Dropout whose mask is a plain function of (seed, row of the batch, index).

A counter-based hash instead of a random stream: the mask fuses into the operation it serves, is
recomputed in the backward pass instead of stored, and does not depend on how arrays are laid out
over devices or on the parts that a batch is worked off in. Every line of numbers along the last
axis has a key, hashed from seed, batch row and the other indices; within it one round remains, so
that what is done for every number is short and no array is large enough to repeat the counter.
The mixer is the 32-bit "lowbias32" (C. Wellons, hash-prospector).
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt32

_rows: contextvars.ContextVar[Int[Array, "B"] | None] = contextvars.ContextVar("rows", default=None)


@contextlib.contextmanager
def rows_numbered(numbers: Int[Array, "B"]) -> Iterator[None]:
    """What is traced inside works on these rows of a batch, not on its first ones."""
    token = _rows.set(numbers)
    try:
        yield
    finally:
        _rows.reset(token)


def dropout_seed(key: Array, first: int = 0) -> UInt32[Array, "2"]:
    """Two words of key material for `keep_mask` from a JAX key.

    With `first` an array [B, Q - first, D] is dropped as the rows from there on of one [B, Q, D].
    """
    return jax.random.bits(key, (2,), jnp.uint32).at[0].add(first)


class RowSeeds(NamedTuple):
    """Key material of an array whose batch rows lie along any axes.

    Attributes:
        word: of all rows.
        rows: of each row; length 1 along axes of the array that are not the batch.
    """

    word: UInt32[Array, ""]
    rows: UInt32[Array, "..."]

    def from_line(self, first: int) -> RowSeeds:
        """For an array that is the lines from `first` on of each batch row of another one."""
        return self._replace(word=self.word + np.uint32(first))


def row_seeds(seed: UInt32[Array, "2"], count: int) -> RowSeeds:
    """Seeds [count] for the rows of a batch (or for as many of each of them, side by side)."""
    numbers = _rows.get()
    if numbers is None:
        numbers = jnp.arange(count)
    elif count != len(numbers):
        each = count // len(numbers)
        numbers = (numbers[:, None] * each + jnp.arange(each)).reshape(-1)
    mixed = _mix(numbers.astype(jnp.uint32) * np.uint32(0x9E3779B9) + seed[1])
    return RowSeeds(seed[0], mixed)


def no_rows(seed: UInt32[Array, "2"], ndim: int) -> RowSeeds:
    """The seed of an array of `ndim` axes none of which is the batch."""
    return RowSeeds(seed[0], seed[1].reshape((1,) * ndim))


def keep_mask(
    seed: UInt32[Array, "2"] | RowSeeds, shape: tuple[int, ...], rate: float
) -> Bool[Array, "..."]:
    """True with probability 1 - rate, independently for each element.

    Axis 0 is the batch, unless `seed` says otherwise.
    """
    lines = line_keys(_seeds_along_axis_0(seed, shape), (*shape[:-1], 1))
    return kept(lines, jax.lax.iota(jnp.uint32, shape[-1]), rate)


def line_keys(seed: RowSeeds, shape: tuple[int, ...]) -> UInt32[Array, "..."]:
    """A key for each line of an array along its last axis, given 1 long in `shape`."""
    inner = [n if rows == 1 else 1 for n, rows in zip(shape, seed.rows.shape, strict=True)]
    index = jnp.zeros(inner, jnp.uint32)
    for axis, stride in enumerate(np.cumprod((1, *inner[:0:-1]))[::-1]):
        index += jax.lax.broadcasted_iota(jnp.uint32, inner, axis) * np.uint32(stride)
    return _mix(_mix(index + seed.word) ^ seed.rows)


def kept(
    lines: UInt32[Array, "..."], columns: UInt32[Array, "..."], rate: float
) -> Bool[Array, "..."]:
    """`keep_mask` from the keys of lines and the indices along them."""
    mixed = _mix(lines ^ columns * np.uint32(0x9E3779B9))
    return mixed >= np.uint32(min(round(rate * 2**32), 2**32 - 1))


def dropout(
    x: Float[Array, "..."], rate: float, seed: UInt32[Array, "2"] | RowSeeds | None
) -> Float[Array, "..."]:
    """Inverted dropout by `keep_mask`; the identity if `seed` is None or `rate` is 0."""
    if seed is None or rate == 0.0:
        return x
    # Which rows these are must be known here: a gradient's own code may not look around itself.
    return _dropout(x, _seeds_along_axis_0(seed, x.shape), rate)


def _seeds_along_axis_0(seed: UInt32[Array, "2"] | RowSeeds, shape: tuple[int, ...]) -> RowSeeds:
    if isinstance(seed, RowSeeds):
        return seed
    seeds = row_seeds(seed, shape[0])
    return seeds._replace(rows=seeds.rows.reshape(-1, *(1 for _ in shape[1:])))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _dropout(x: Array, seed: RowSeeds, rate: float) -> Array:
    return jnp.where(keep_mask(seed, x.shape, rate), x * (1.0 / (1.0 - rate)), 0).astype(x.dtype)


# The backward pass draws the mask again, so that none is stored.
_dropout.defvjp(
    lambda x, seed, rate: (_dropout(x, seed, rate), seed),
    lambda rate, seed, gradient: (_dropout(gradient, seed, rate), None),
)


def _mix(x: UInt32[Array, "..."]) -> UInt32[Array, "..."]:
    x ^= x >> 16
    x *= np.uint32(0x7FEB352D)
    x ^= x >> 15
    x *= np.uint32(0x846CA68B)
    return x ^ (x >> 16)
