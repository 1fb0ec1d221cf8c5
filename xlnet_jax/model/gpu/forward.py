"""The kernel that goes forward. Scores stay on the chip; their exponentials are written once."""

from __future__ import annotations

import functools
import math
import struct
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array, Float

from xlnet_jax.model import dropout
from xlnet_jax.model.gpu import blocks
from xlnet_jax.model.gpu.blocks import KEYS, ROWS, Blocks, Rows

MASKED = -(2.0**100)  # a hidden score; `_exp` multiplies a power of two without rounding it
_RANGE = 2.0**40  # of the sum of exponentials, before they are recomputed
_LOG2_E = math.log2(math.e)
_LOG2_E_BITS = struct.pack(">f", _LOG2_E).hex()
_PARAMS = triton.CompilerParams(num_warps=4, num_stages=3)


def attend(
    q: Float[Array, "B I N H"],
    k: Float[Array, "B S N H"],
    v: Float[Array, "B S N H"],
    raw: Float[Array, "G N E b _"],
    rows: Rows,
    *,
    num_keys: int,
    rate: float,
    stride: int,
    interpret: bool,
) -> tuple[Float[Array, "B I N H"], Float[Array, "G N b I"], Float[Array, "G N b I S"]]:
    """Output, sum of exponentials, and these (negative where dropped) of the first `num_keys` keys.

    I is a multiple of ROWS · stride, S one of KEYS. Exponentials are relative to the highest score
    of the first keys, which needs one pass over the scores instead of two. Blocks of rows whose
    sums it brings out of range, if there are any, are then recomputed with the highest of all.
    """
    batch, num_rows, heads, width = q.shape
    num_columns, directions, cut = k.shape[1], raw.shape[0], Blocks(raw.shape[0], stride)
    q_blocks, rows = cut.split(q, 1), cut.split_rows(rows)
    lead = (directions, heads, batch // directions)
    in_blocks = (*lead, num_rows // ROWS // stride, ROWS, stride)
    keys = blocks.all_keys(num_columns, width)
    specs = [cut.vectors(width), cut.lines(), cut.lines(num_columns)]
    inputs = (q_blocks, k, v, raw, rows)
    made = functools.partial(
        pl.pallas_call,
        grid=(num_rows // ROWS, heads, batch),
        out_specs=specs,
        out_shape=[
            jax.ShapeDtypeStruct(q_blocks.shape, q.dtype),
            jax.ShapeDtypeStruct(in_blocks, jnp.float32),
            jax.ShapeDtypeStruct((*in_blocks, num_columns), q.dtype),
        ],
        compiler_params=_PARAMS,
        interpret=interpret,
    )
    in_specs: list[Any] = [cut.vectors(width), keys, keys, cut.raw(raw.shape[-1])]
    in_specs.append(cut.of_rows(rows, num_columns))
    settings = {"num_keys": num_keys, "rate": rate, "stride": stride, "interpret": interpret}
    outputs = made(
        functools.partial(_attend, **settings), in_specs=in_specs, name="relative_attention"
    )(*inputs)
    first = len(jax.tree.leaves(inputs))
    out, total, exp_scores = made(
        functools.partial(_rescale, **settings),
        in_specs=in_specs + specs,
        input_output_aliases={first + index: index for index in range(3)},
        name="relative_attention_rescale",
    )(*inputs, *outputs)
    total, exp_scores = (
        total.reshape(*lead, num_rows),
        exp_scores.reshape(*lead, num_rows, num_columns),
    )
    return out.reshape(q.shape), total, exp_scores


def _attend(*refs: Any, **settings: Any) -> None:
    forward = _Forward.of(*refs, **settings)
    guess = forward.scores(0).max(axis=1)
    forward.write(jnp.where(guess == MASKED, 0.0, guess))


def _rescale(*refs: Any, **settings: Any) -> None:
    inputs, (_, old_total, _), outputs = refs[:-6], refs[-6:-3], refs[-3:]
    total = old_total[...]
    fine = (total > 1 / _RANGE) & (total < _RANGE)

    @pl.when(jnp.where(fine, 0, 1).max() > 0)
    def again() -> None:
        forward = _Forward.of(*inputs, *outputs, **settings)
        forward.write(forward.row_max())


class _Forward(NamedTuple):
    """One program's work."""

    q: Array
    k_ref: Any
    v_ref: Any
    raw_ref: Any
    first: Array  # where each row's position scores begin in `raw_ref`
    rows: Rows
    step: Array | None
    lines: Array | None
    out_ref: Any
    total_ref: Any
    exp_scores_ref: Any
    num_keys: int
    rate: float
    interpret: bool

    @classmethod
    def of(
        cls,
        q_ref: Any,
        k_ref: Any,
        v_ref: Any,
        raw_ref: Any,
        rows: Rows,
        out_ref: Any,
        total_ref: Any,
        exp_scores_ref: Any,
        *,
        num_keys: int,
        rate: float,
        stride: int,
        interpret: bool,
    ) -> _Forward:
        start = blocks.regular_start(stride) if rows.start is None else rows.start[...]
        first = jnp.arange(ROWS) * (raw_ref.shape[0] // ROWS) + start
        step = None if rows.step is None else rows.step[...]
        lines = None if rows.lines is None else rows.lines[...]
        known = (raw_ref, first, rows, step, lines, out_ref, total_ref, exp_scores_ref)
        return cls(q_ref[...], k_ref, v_ref, *known, num_keys, rate, interpret)

    def scores(self, block: Any) -> Float[Array, "I S"]:
        """With a block of keys."""
        column = block * KEYS + jnp.arange(KEYS)
        raw = self.raw_ref[self.first[:, None] + column[None, :]].astype(jnp.float32)
        score = blocks.product(self.q, self.k_ref[pl.ds(block * KEYS, KEYS), :].T) + raw
        if self.step is not None:
            other = blocks.bits(blocks.words(self.rows.other_segment, block))
            score = jnp.where(other, score + self.step[:, None], score)
        if self.rows.visible is not None:
            visible = blocks.bits(blocks.words(self.rows.visible, block))
            score = jnp.where(visible, score, MASKED)
        if self.num_keys % KEYS:  # columns that are no keys
            score = jnp.where(column[None, :] < self.num_keys, score, -jnp.inf)
        return score

    def row_max(self) -> Float[Array, "I"]:
        """Score of each row."""

        def higher(block: Any, row_max: Array) -> Array:
            return jnp.maximum(row_max, self.scores(block).max(axis=1))

        num_blocks = self.k_ref.shape[0] // KEYS
        return jax.lax.fori_loop(0, num_blocks, higher, jnp.full((ROWS,), -jnp.inf))

    def write(self, relative_to: Float[Array, "I"]) -> None:
        """All outputs, with exponentials relative to this score of each row."""
        dtype, none = self.exp_scores_ref.dtype, jnp.zeros((ROWS, self.v_ref.shape[1]))

        def add(block: Any, sums: tuple[Array, Array]) -> tuple[Array, Array]:
            exp_scores = _exp(self.scores(block), relative_to[:, None], self.interpret)
            total, keys, kept = (
                sums[0] + exp_scores.sum(axis=1),
                pl.ds(block * KEYS, KEYS),
                exp_scores,
            )
            if self.lines is not None:
                column = (block * KEYS + jnp.arange(KEYS)).astype(jnp.uint32)
                keep = dropout.kept(self.lines[:, None], column[None, :], self.rate)
                kept, exp_scores = (
                    jnp.where(keep, exp_scores, 0.0),
                    jnp.where(keep, exp_scores, -exp_scores),
                )
            self.exp_scores_ref[:, keys] = exp_scores.astype(dtype)
            return total, sums[1] + blocks.product(kept.astype(dtype), self.v_ref[keys, :])

        num_blocks = self.k_ref.shape[0] // KEYS
        total, out = jax.lax.fori_loop(0, num_blocks, add, (jnp.zeros((ROWS,)), none))
        share = 1.0 if self.lines is None else 1.0 - self.rate
        self.out_ref[...] = (out / (total * share)[:, None]).astype(dtype)
        self.total_ref[...] = total


def _exp(x: Float[Array, "I S"], row_max: Float[Array, "I 1"], interpret: bool) -> Array:
    """exp(x - row_max), in two instructions, without the digits of numbers below 2^-126.

    Only the second of the two multiples of log2(e) is rounded before they are subtracted. That is
    the same factor for a whole row, but for MASKED would be all of the difference.
    """
    if interpret:
        return jnp.exp(x - row_max)
    (exp_scores,) = triton.elementwise_inline_asm(
        f"{{ .reg .f32 t; fma.rn.f32 t, $1, 0f{_LOG2_E_BITS}, $2; ex2.approx.ftz.f32 $0, t; }}",
        args=[x, jnp.broadcast_to(-row_max * _LOG2_E, x.shape)],
        constraints="=f,f,f",
        pack=1,
        result_shape_dtypes=[jax.ShapeDtypeStruct(x.shape, x.dtype)],
    )
    return exp_scores
