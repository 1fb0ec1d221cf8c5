"""The shift of position scores in the forms that a TPU likes.

There a gather is a loop over rows, and a reshape that changes the length of rows is a copy; so is
every change of layout between two such operations, which is why layouts are fixed here. Content
rows change the length of their rows, as in `positions.shift_content`, all blocks of rows at once
and in the compute dtype. Query rows, which stand at any token, are shifted digit by digit: the
first digit moves whole registers of 128 numbers, the others choose between a few fixed slices.

Numbers equal those of `positions`; axis letters are those of `transformer.py`, with K blocks of
`BLOCK` content rows.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint
from jaxtyping import Array, Float, Int

from xlnet_jax.model import layout

BLOCK = 128
_UNITS = (128, 32, 8, 1)  # of the digits of a query row's shift, the largest first


class _Blocks(NamedTuple):
    """How T content rows are cut: `number` blocks of `rows`, the last one filled up."""

    number: int
    rows: int
    filled: int


def content_scores(
    q: Float[Array, "G N b T H"], r: Float[Array, "G N R H"], num_keys: int
) -> Float[Array, "G N b T _"]:
    """q·r with row i shifted to its token, in the dtype of q; the first S columns count.

    The others are left in place because cutting them off is free where the scores are used.
    """
    blocks = _cut(q.shape[-2])
    windows = _windows(r, blocks, num_keys)
    raw = _product("GNbKIH,GNKCH->GNbKIC", _in_blocks(q, blocks), windows).astype(q.dtype)
    shifted = layout.in_parts(_shift_blocks, (raw,), ("GNbKIC",), "GNbKIC")
    return shifted.reshape(*q.shape[:3], -1, shifted.shape[-1])[..., : q.shape[-2], :]


def content_gradients(
    q: Float[Array, "G N b T H"], r: Float[Array, "G N R H"], d_scores: Float[Array, "G N b T S"]
) -> tuple[Float[Array, "G N b T H"], Float[Array, "G N R H"]]:
    """Gradients of `content_scores` for q and r, float32."""
    num_tokens, num_keys = d_scores.shape[-2:]
    blocks = _cut(num_tokens)
    windows = _windows(r, blocks, num_keys)
    d_scores = _in_blocks(d_scores, blocks)
    d_raw = layout.in_parts(_unshift_blocks, (d_scores,), ("GNbKIS",), "GNbKIC")
    d_q = _product("GNbKIC,GNKCH->GNbKIH", d_raw, windows)
    d_q = d_q.reshape(*q.shape[:3], -1, q.shape[-1])[..., :num_tokens, :]
    d_windows = _product("GNbKIH,GNbKIC->GNKCH", _in_blocks(q, blocks), d_raw)
    num_codes = r.shape[-2] + blocks.filled
    d_r = jnp.zeros((*r.shape[:2], num_codes, r.shape[-1]), jnp.float32)
    for block in range(blocks.number):
        first = (blocks.number - 1 - block) * blocks.rows
        last = num_codes - first - d_windows.shape[-2]
        d_r += _padded(d_windows[:, :, block], -2, first, last)
    return d_q, d_r[:, :, blocks.filled :]


def _shift_blocks(raw: Float[Array, "G N b K I C"]) -> Float[Array, "G N b K I C-1"]:
    raw = _row_major(raw)
    *lead, rows, columns = raw.shape
    # One run of numbers, written as rows of the block's length: all but the first of them.
    run = _row_major(raw.reshape(*lead, columns, rows))[..., 1:, :]
    return _row_major(_row_major(run).reshape(*lead, rows, columns - 1))


def _unshift_blocks(d_scores: Float[Array, "G N b K I S"]) -> Float[Array, "G N b K I C"]:
    """The transpose of `_shift_blocks`, after which only S columns count."""
    d_scores = _row_major(d_scores)
    *lead, rows, num_keys = d_scores.shape
    wide = _row_major(_padded(d_scores, -1, 0, rows - 1))
    run = _row_major(wide.reshape(*lead, num_keys + rows - 1, rows))
    return _row_major(_row_major(_padded(run, -2, 1, 0)).reshape(*lead, rows, num_keys + rows))


def shift_queries(
    scores: Float[Array, "G N b P R"], tokens: Int[Array, "G b P"], num_keys: int
) -> Float[Array, "G N b P S"]:
    """As `positions.shift_queries`."""
    num_tokens = scores.shape[-1] - num_keys
    scores = scores[..., 1:]  # no query needs the first column
    for level in _levels(num_tokens, num_keys, tokens):
        reach = (level.digits - 1) * level.unit + level.width
        scores = _padded(scores, -1, 0, max(0, reach - scores.shape[-1]))
        starts = [digit * level.unit for digit in range(level.digits)]
        scores = _chosen(scores, level, starts, level.width)
    return scores


def unshift_queries(
    gradient: Float[Array, "G N b P S"], tokens: Int[Array, "G b P"], num_tokens: int
) -> Float[Array, "G N b P R"]:
    """The transpose of `shift_queries`: where each number came from, zero elsewhere."""
    num_keys = gradient.shape[-1]
    levels = _levels(num_tokens, num_keys, tokens)
    for place in reversed(range(len(levels))):
        level = levels[place]
        width = levels[place - 1].width if place else num_tokens + num_keys - 1
        most = (level.digits - 1) * level.unit
        gradient = _padded(gradient, -1, most, max(0, width - gradient.shape[-1]))
        starts = [most - digit * level.unit for digit in range(level.digits)]
        gradient = _chosen(gradient, level, starts, width)
    return _padded(gradient, -1, 1, 0)


class _Level(NamedTuple):
    """One digit of every query row's shift: `digits` values of `unit` columns each."""

    digit: Int[Array, "G 1 b P 1"]
    digits: int
    unit: int
    width: int  # of the rows that this level gives


def _levels(num_tokens: int, num_keys: int, tokens: Int[Array, "G b P"]) -> list[_Level]:
    rest = (num_tokens - 1 - tokens)[:, None, :, :, None]
    most, levels = num_tokens - 1, []
    for unit in _UNITS:
        if unit <= most:
            levels.append(_Level(rest // unit, most // unit + 1, unit, num_keys + unit - 1))
            rest, most = rest % unit, unit - 1
    return levels


def _chosen(x: Array, level: _Level, starts: list[int], width: int) -> Array:
    """Of the slices that begin at `starts`, the one that each row's digit says."""
    chosen = x[..., starts[0] : starts[0] + width]
    for digit, start in enumerate(starts[1:], 1):
        chosen = jnp.where(level.digit == digit, x[..., start : start + width], chosen)
    return chosen


def _cut(num_tokens: int) -> _Blocks:
    rows = min(BLOCK, num_tokens)
    number = math.ceil(num_tokens / rows)
    return _Blocks(number, rows, number * rows - num_tokens)


def _windows(
    r: Float[Array, "G N R H"], blocks: _Blocks, num_keys: int
) -> Float[Array, "G N K C H"]:
    """The codes that each block needs, C = S + BLOCK rows; those of filling rows are zero."""
    r = _padded(r, -2, blocks.filled, 0)
    firsts = [(blocks.number - 1 - block) * blocks.rows for block in range(blocks.number)]
    return jnp.stack([r[:, :, first : first + blocks.rows + num_keys] for first in firsts], axis=2)


def _in_blocks(x: Float[Array, "G N b T H"], blocks: _Blocks) -> Float[Array, "G N b K I H"]:
    x = _padded(x, -2, 0, blocks.filled)
    return x.reshape(*x.shape[:3], blocks.number, blocks.rows, x.shape[-1])


def _padded(x: Array, axis: int, before: int, after: int) -> Array:
    """Zeros before and after along one axis."""
    if not before and not after:
        return x
    widths = [(0, 0)] * x.ndim
    widths[axis] = (before, after)
    return jnp.pad(x, widths)


def _row_major(x: Array) -> Array:
    """Holds x in the layout that keeps its last axis along the lanes."""
    return with_layout_constraint(x, Layout(major_to_minor=tuple(range(x.ndim))))


def _product(equation: str, *operands: Array) -> Array:
    return jnp.einsum(equation, *operands, preferred_element_type=jnp.float32)
