"""Relative position codes and the shift that lines them up with the keys.

Axis letters are those of `transformer.py`. Keys are S = M + T tokens (memory, then this
segment); a query at token i stands at key M + i, so key j is at distance M + i - j. One code row
per distance: row r stands for distance S - r, R = S + T rows in all, and the row that query i
needs for key j is r = T - i + j.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from xlnet_jax.model.backward import dense, product


def relative_position_codes(
    num_tokens: int,
    num_keys: int,
    d_model: int,
    *,
    clamp_len: int = -1,
    bi_data: bool = False,
    drop: Callable[[Array], Array] = lambda codes: codes,
) -> Float[Array, "G R D"]:
    """Sinusoidal codes of the distances S, S-1, ..., -T+1, float32.

    A row is [sin, cos] of distance × 10000^(-2i/D), halves side by side. With `bi_data` there are
    two directions (G = 2), the second with negated distances for reversed text; else G = 1.
    `clamp_len` above 0 clips distances to ±clamp_len. `drop` is done to the codes [S + 1, D] of
    the distances from 0 on; so a negative distance lacks what the positive one does.

    Source: `relative_positional_encoding` in the original's modeling.py. The original leaves out
    the negative distances of causal attention; they are masked there, so nothing differs.
    """
    size = jnp.arange(num_keys + 1, dtype=jnp.float32)
    if clamp_len > 0:
        size = jnp.minimum(size, clamp_len)
    exponent = jnp.arange(0, d_model, 2, dtype=jnp.float32) / d_model
    angle = size[:, None] / (10000.0**exponent)
    table = drop(jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1))
    distance_R = jnp.arange(num_keys, -num_tokens, -1)
    distance_GR = jnp.stack([distance_R, -distance_R]) if bi_data else distance_R[None]
    sine, cosine = jnp.split(table[jnp.abs(distance_GR)], 2, axis=-1)
    return jnp.concatenate([jnp.where(distance_GR[..., None] < 0, -sine, sine), cosine], axis=-1)


def project_codes(
    codes: Float[Array, "G R D"], kernel: Float[Array, "D N H"], num_tokens: int
) -> Float[Array, "G R N H"]:
    """Codes of `relative_position_codes`, maybe less `code_of_here`, through a layer's kernel.

    Opposite distances differ in the sign of their sines alone. So a CPU projects the sines and the
    cosines of the S + 1 distances from 0 on, and adds or subtracts the two, instead of G·R rows.
    """
    num_keys = codes.shape[1] - num_tokens

    def folded(codes: Array, kernel: Array) -> Array:
        halves = jnp.split(codes[:1, : num_keys + 1], 2, axis=-1)  # distances S ... 0
        sine, cosine = map(dense, halves, jnp.split(kernel, 2))
        ahead, behind = cosine + sine, cosine - sine

        def rows(first: Array, then: Array) -> Array:
            return jnp.concatenate(
                [first, then[:, num_keys - num_tokens + 1 : num_keys][:, ::-1]], 1
            )

        directions = (rows(ahead, behind), rows(behind, ahead))
        return jnp.concatenate(directions[: len(codes)])

    return product(codes, kernel, cpu=folded, default=dense)


def code_of_here(d_model: int) -> Float[Array, "D"]:
    """The code of distance 0, [0 ... 0, 1 ... 1], which the network takes off every code.

    It would add the same to all scores of a row, and so cancel in the softmax. Without it the
    codes of slow waves, close to 1 at every distance, keep their digits: the gradients that
    pass through them are small differences, else lost in rounding (all of them in bfloat16).
    """
    return jnp.repeat(jnp.arange(2, dtype=jnp.float32), d_model // 2)


def shift_content(scores: Float[Array, "... T R"], num_keys: int) -> Float[Array, "... T S"]:
    """Picks column T - i + j of row i for every key j, for queries at tokens 0 ... T-1.

    Read as one run of numbers, row i of the answer starts at i·R + T - i = T + i·(R - 1): rows of
    one number less, beginning at T. So the shift is a change of row length, with no gather.
    """
    *lead, num_tokens, num_rows = scores.shape
    flat = scores.reshape(*lead, num_tokens * num_rows)[..., num_tokens:]
    return flat.reshape(*lead, num_tokens, num_rows - 1)[..., :num_keys]


def unshift_content(gradient: Float[Array, "... T S"]) -> Float[Array, "... T R"]:
    """The transpose of `shift_content`: where each number came from, zero elsewhere."""
    *lead, num_tokens, num_keys = gradient.shape
    # Behind a barrier the zeros are appended by copying; padding is far slower on CPU.
    ends = jax.lax.optimization_barrier(
        (
            jnp.zeros((*lead, num_tokens, num_tokens - 1), gradient.dtype),
            jnp.zeros((*lead, num_tokens), gradient.dtype),
        )
    )
    rows = jnp.concatenate([gradient, ends[0]], axis=-1)
    flat = rows.reshape(*lead, num_tokens * (num_keys + num_tokens - 1))
    flat = jnp.concatenate([ends[1], flat], axis=-1)
    return flat.reshape(*lead, num_tokens, num_keys + num_tokens)


def shift_queries(
    scores: Float[Array, "G N b P R"], tokens: Int[Array, "G b P"], num_keys: int
) -> Float[Array, "G N b P S"]:
    """Picks column T - i + j of every query row for key j, where i is that query's own token.

    One slice of S neighbouring columns a row.
    """
    num_tokens = scores.shape[-1] - num_keys

    def window(row_NR: Array, token: Array) -> Array:
        start = num_tokens - token
        return jax.lax.dynamic_slice_in_dim(row_NR, start, num_keys, axis=-1)

    for axis in (1, 1, 0):  # over P, b and G, from the inside out
        window = jax.vmap(window, in_axes=(axis, 0), out_axes=axis)
    return window(scores, tokens)


def unshift_queries(
    gradient: Float[Array, "G N b P S"], tokens: Int[Array, "G b P"], num_tokens: int
) -> Float[Array, "G N b P R"]:
    """The transpose of `shift_queries`: where each number came from, zero elsewhere."""
    num_keys = gradient.shape[-1]
    scores = jax.ShapeDtypeStruct((*gradient.shape[:-1], num_tokens + num_keys), gradient.dtype)
    transpose = jax.linear_transpose(lambda x: shift_queries(x, tokens, num_keys), scores)
    (d_scores,) = transpose(gradient)
    return d_scores
