"""How the kernels cut the work, and what they share.

A program works on a block of `ROWS` query rows, or of `KEYS` keys, of one head and batch row, and
goes through the keys, or the rows, a block at a time. Axis letters are those of `transformer.py`,
with E = I / ROWS blocks of query rows, and W words of 32 bits for S keys.

The position scores of block e are a plain product of its rows with the codes, `raw` [..., ROWS · C]
for C codes, where each row's scores begin at its own column. So the shift is an address. With a
stride of K a block takes every K-th row, and all begin at multiples of K: the GPU reads and writes
as many numbers at a time.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array, Bool, Int

ROWS = KEYS = 64
WORD = 32  # bits


class Rows(NamedTuple):
    """What the kernels must know of the query rows besides their vectors; see `core.attend`.

    Attributes:
        start: [B, I], the column of `raw` where a row's scores begin; None for `regular_start`.
        visible: [B, I, W], a bit for each key; None if all are visible.
        other_segment: [B, I, W], a bit for each key; None without segments.
        step: [G, N, b, I], what a key of another segment adds; None without segments.
        lines: [G, N, b, I], a dropout key for each line of probabilities; None without dropout.
    """

    start: Any
    visible: Any
    other_segment: Any
    step: Any
    lines: Any

    def letters(self) -> Rows:
        """Of the axes of those that are given."""
        letters = ("BI", "BIW", "BIW", "GNbI", "GNbI")
        pairs = zip(self, letters, strict=True)
        return Rows(*(None if x is None else letters for x, letters in pairs))


class Blocks(NamedTuple):
    """The parts of arrays that belong to block e of the rows of head n and batch row z.

    Axis I is cut in three, [E / stride, ROWS, stride]; `split` does it.
    """

    directions: int
    stride: int

    def split(self, x: Array | None, axis: int) -> Any:
        """x with axis I, which it has here, as three; None stays None."""
        if x is None:
            return None
        return x.reshape(*x.shape[:axis], -1, ROWS, self.stride, *x.shape[axis + 1 :])

    def split_rows(self, rows: Rows) -> Rows:
        """All that is known of the rows, in three axes each."""
        pairs = zip(rows, (1, 1, 1, 3, 3), strict=True)
        return Rows(*(self.split(x, axis) for x, axis in pairs))

    def of_rows(self, rows: Rows, num_keys: int) -> Rows:
        """Where these are found."""
        words = self._spec((None, *_ROW_BLOCK, num_keys // WORD), lambda z, n: (z,), 1)
        start = self._spec((None, *_ROW_BLOCK), lambda z, n: (z,), 0)
        specs = Rows(start, words, words, self.lines(), self.lines())
        return Rows(*(None if x is None else spec for x, spec in zip(rows, specs, strict=True)))

    def vectors(self, width: int) -> pl.BlockSpec:
        """Of [B, I, N, H]."""
        return pl.BlockSpec(
            (None, *_ROW_BLOCK, None, width), lambda e, n, z: (z, *self._block(e), n, 0)
        )

    def lines(self, *rest: int) -> pl.BlockSpec:
        """Of [G, N, b, I] and maybe one axis more."""
        return self._spec((None, None, None, *_ROW_BLOCK, *rest), self.place, len(rest))

    def raw(self, size: int) -> pl.BlockSpec:
        """Of [G, N, E, b, size]."""
        return pl.BlockSpec(
            (None, None, None, None, size),
            lambda e, n, z: (z % self.directions, n, e, z // self.directions, 0),
        )

    def place(self, z: Any, n: Any) -> tuple[Any, ...]:
        """Of a batch row and head in [G, N, b]."""
        return (z % self.directions, n, z // self.directions)

    def _spec(self, shape: tuple[int | None, ...], lead: Any, rest: int) -> pl.BlockSpec:
        return pl.BlockSpec(shape, lambda e, n, z: (*lead(z, n), *self._block(e), *(0,) * rest))

    def _block(self, e: Any) -> tuple[Any, ...]:
        return (e // self.stride, 0, e % self.stride)


_ROW_BLOCK = (None, ROWS, None)


def all_keys(num_keys: int, width: int) -> pl.BlockSpec:
    """Of [B, S, N, H]."""
    return pl.BlockSpec((None, num_keys, None, width), lambda e, n, z: (z, 0, n, 0))


def regular_start(stride: int) -> Int[Array, "I"]:
    """Where scores of a block begin if it has every so many-th row of ROWS · stride tokens."""
    return (ROWS - jnp.arange(ROWS)) * stride


def words(ref: Any, block: Any) -> list[Array]:
    """The words with the bits of a block of keys, [ROWS] each."""
    number = KEYS // WORD
    return [ref[:, block * number + index] for index in range(number)]


def bits(words: list[Array]) -> Bool[Array, "I S"]:
    """What they say of each key."""
    column, word = jnp.arange(KEYS)[None, :], words[0][:, None]
    for index, this in enumerate(words[1:], 1):
        word = jnp.where(column >= index * WORD, this[:, None], word)
    return (word & (jnp.uint32(1) << (column % WORD).astype(jnp.uint32))) != 0


def product(a: Array, b: Array) -> Array:
    """Sums in float32."""
    return jax.lax.dot(a, b, precision="highest", preferred_element_type=jnp.float32)


def beside(x: Array, y: Array, interpret: bool) -> Array:
    """x, each number in the registers of the thread that has y's.

    The compiler would else move x after it has been widened to float32, and once for every use.
    """
    if interpret:
        return x
    (moved,) = triton.elementwise_inline_asm(
        "mov.b32 $0, $1;",
        args=[x, y],
        constraints="=f,f,f",
        pack=1,
        result_shape_dtypes=[jax.ShapeDtypeStruct(x.shape, jnp.float32)],
    )
    return moved
