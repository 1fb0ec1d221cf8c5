"""The kernels that go back: one for what belongs to query rows, one for what belongs to keys.

Both make the gradients of the scores from the `exp_scores` kept and d_out·v. They are written once,
as gradients of `raw`, with zeros on both sides of every row's scores: plain products take it from
there.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array, Float

from xlnet_jax.model.gpu import blocks
from xlnet_jax.model.gpu.blocks import KEYS, ROWS, Blocks, Rows

_ROW_PARAMS = triton.CompilerParams(num_warps=4, num_stages=3)
_KEY_PARAMS = triton.CompilerParams(num_warps=4, num_stages=3)


def row_gradients(
    k: Float[Array, "B S N H"],
    v: Float[Array, "B S N H"],
    exp_scores: Float[Array, "G N b I S"],
    d_out: Float[Array, "B I N H"],
    mean: Float[Array, "G N b I"],
    rows: Rows,
    *,
    columns: int,
    stride: int,
    interpret: bool,
) -> tuple[Float[Array, "B I N H"], Float[Array, "G N E b _"], Float[Array, "G N b I"] | None]:
    """Gradients of q, of `raw` with so many `columns` a row, and of `step`, None without one.

    `d_out` has been divided by the sum of `exp_scores` and by the share kept, `mean` is the sum
    over keys of probability × gradient, divided by the sum of `exp_scores`.
    """
    (directions, heads, of_direction, num_rows, num_columns), width = exp_scores.shape, v.shape[-1]
    cut, number = Blocks(directions, stride), num_rows // ROWS
    has_step = rows.step is not None
    needed = Rows(rows.start, None, rows.other_segment if has_step else None, None, None)
    needed, batch = cut.split_rows(needed), d_out.shape[0]
    d_out, mean = cut.split(d_out, 1), cut.split(mean, 3)
    raw = (directions, heads, number, of_direction, ROWS * columns)
    keys = blocks.all_keys(num_columns, width)
    d_q, d_raw, *d_step = pl.pallas_call(
        functools.partial(_row_gradients, stride=stride, interpret=interpret),
        grid=(number, heads, batch),
        in_specs=[
            keys,
            keys,
            cut.lines(num_columns),
            cut.vectors(width),
            cut.lines(),
            cut.of_rows(needed, num_columns),
        ],
        out_specs=[cut.vectors(width), cut.raw(raw[-1]), *[cut.lines()] * has_step],
        out_shape=[
            jax.ShapeDtypeStruct(d_out.shape, v.dtype),
            jax.ShapeDtypeStruct(raw, v.dtype),
            *[jax.ShapeDtypeStruct(mean.shape, jnp.float32)] * has_step,
        ],
        compiler_params=_ROW_PARAMS,
        interpret=interpret,
        name="relative_attention_row_gradients",
    )(k, v, cut.split(exp_scores, 3), d_out, mean, needed)
    d_q = d_q.reshape(batch, num_rows, heads, width)
    return d_q, d_raw, d_step[0].reshape(exp_scores.shape[:-1]) if has_step else None


def _row_gradients(
    k_ref: Any,
    v_ref: Any,
    exp_scores_ref: Any,
    d_out_ref: Any,
    mean_ref: Any,
    rows: Rows,
    d_q_ref: Any,
    d_raw_ref: Any,
    *d_step_ref: Any,
    stride: int,
    interpret: bool,
) -> None:
    dtype, d_out, mean = v_ref.dtype, d_out_ref[...], mean_ref[...][:, None]
    num_blocks, columns = v_ref.shape[0] // KEYS, d_raw_ref.shape[0] // ROWS
    start = blocks.regular_start(stride) if rows.start is None else rows.start[...]
    line = jnp.arange(ROWS) * columns

    def fetch(block: Any) -> Any:
        """What the next block needs, asked for while this one is worked on."""
        block = jnp.minimum(block, num_blocks - 1)
        other = blocks.words(rows.other_segment, block) if d_step_ref else None
        return exp_scores_ref[:, pl.ds(block * KEYS, KEYS)], other

    def add(block: Any, carry: tuple[Any, Array, Array]) -> tuple[Any, Array, Array]:
        (exp_scores, other), d_q, d_step = carry
        then, keys = fetch(block + 1), pl.ds(block * KEYS, KEYS)
        gradient = blocks.product(d_out, v_ref[keys, :].T)
        d_scores, _ = _d_scores(exp_scores, gradient, mean, interpret)
        if d_step_ref:
            d_step += jnp.where(blocks.bits(other), d_scores, 0.0).sum(axis=1)
        d_scores = d_scores.astype(dtype)
        column = block * KEYS + jnp.arange(KEYS)
        d_raw_ref[(line + start)[:, None] + column[None, :]] = d_scores
        return then, d_q + blocks.product(d_scores, k_ref[keys, :]), d_step

    none = (fetch(0), jnp.zeros(d_out.shape), jnp.zeros((ROWS,)))
    _, d_q, d_step = jax.lax.fori_loop(0, num_blocks, add, none)
    d_q_ref[...] = d_q.astype(dtype)
    if d_step_ref:
        d_step_ref[0][...] = d_step
    _clear(d_raw_ref, line, start, columns - num_blocks * KEYS, num_blocks * KEYS)


def _clear(d_raw_ref: Any, line: Array, start: Array, unused: int, used: int) -> None:
    """Zeros before and behind the `used` columns of each row."""
    width = 128
    for first in range(0, unused, width):
        place = first + jnp.arange(width)[None, :]
        at = line[:, None] + jnp.where(place < start[:, None], place, place + used)
        mask = jnp.broadcast_to(place < unused, at.shape)
        triton.store(d_raw_ref.at[at], jnp.zeros(at.shape, d_raw_ref.dtype), mask=mask)


def key_gradients(
    q: Float[Array, "B I N H"],
    v: Float[Array, "B S N H"],
    exp_scores: Float[Array, "G N b I S"],
    d_out: Float[Array, "B I N H"],
    mean: Float[Array, "G N b I"],
    *,
    stride: int,
    interpret: bool,
) -> tuple[Float[Array, "B S N H"], Float[Array, "B S N H"]]:
    """Gradients of k and v; `d_out` and `mean` as in `row_gradients`."""
    batch, num_rows, heads, width = q.shape
    cut, every = Blocks(exp_scores.shape[0], stride), (num_rows // ROWS // stride, ROWS, stride)
    rows = pl.BlockSpec((None, *every, None, width), lambda j, n, z: (z, 0, 0, 0, n, 0))
    keys = pl.BlockSpec((None, KEYS, None, width), lambda j, n, z: (z, j, n, 0))
    lead = (None, None, None, *every)
    squares = pl.BlockSpec((*lead, KEYS), lambda j, n, z: (*cut.place(z, n), 0, 0, 0, j))
    lines = pl.BlockSpec(lead, lambda j, n, z: (*cut.place(z, n), 0, 0, 0))
    d_k, d_v = pl.pallas_call(
        functools.partial(_key_gradients, stride=stride, interpret=interpret),
        grid=(v.shape[1] // KEYS, heads, batch),
        in_specs=[rows, keys, squares, rows, lines],
        out_specs=[keys, keys],
        out_shape=[jax.ShapeDtypeStruct(v.shape, v.dtype)] * 2,
        compiler_params=_KEY_PARAMS,
        interpret=interpret,
        name="relative_attention_key_gradients",
    )(cut.split(q, 1), v, cut.split(exp_scores, 3), cut.split(d_out, 1), cut.split(mean, 3))
    return d_k, d_v


def _key_gradients(
    q_ref: Any,
    v_ref: Any,
    exp_scores_ref: Any,
    d_out_ref: Any,
    mean_ref: Any,
    d_k_ref: Any,
    d_v_ref: Any,
    *,
    stride: int,
    interpret: bool,
) -> None:
    dtype, v = v_ref.dtype, v_ref[...]
    num_blocks = exp_scores_ref.shape[0] * stride

    def place(block: Array) -> tuple[Any, ...]:
        number = jnp.asarray(stride, block.dtype)
        return jax.lax.div(block, number), slice(None), jax.lax.rem(block, number)

    def fetch(block: Any) -> Any:
        at = place(jnp.minimum(block, num_blocks - 1))
        return exp_scores_ref[at], mean_ref[at]

    def add(block: Any, carry: tuple[Any, Array, Array]) -> tuple[Any, Array, Array]:
        (exp_scores, mean), d_k, d_v = carry
        then, at = fetch(block + 1), place(block)
        d_out = d_out_ref[at]
        gradient_SI = blocks.product(v, d_out.T)  # keys first, as the sums over rows need them
        d_scores_SI, kept_SI = _d_scores(exp_scores.T, gradient_SI, mean[None, :], interpret)
        d_v += blocks.product(kept_SI.astype(dtype), d_out)
        d_k += blocks.product(d_scores_SI.astype(dtype), q_ref[at])
        return then, d_k, d_v

    none = (fetch(jnp.int32(0)), jnp.zeros(v.shape), jnp.zeros(v.shape))
    _, d_k, d_v = jax.lax.fori_loop(0, num_blocks, add, none)
    d_k_ref[...], d_v_ref[...] = d_k.astype(dtype), d_v.astype(dtype)


def _d_scores(
    exp_scores: Array, gradient: Array, mean: Array, interpret: bool
) -> tuple[Array, Array]:
    """exp_scores × (gradient where kept - mean), and exp_scores where kept."""
    exp_scores = blocks.beside(exp_scores.astype(jnp.float32), gradient, interpret)
    kept = jnp.maximum(exp_scores, 0.0)
    return kept * gradient - jnp.abs(exp_scores) * mean, kept
