"""The innermost part of relative attention, with its own backward pass.

Scores, softmax and weighted sum for all heads, with arrays laid out [G, N, b, ...] (b: batch rows
of one direction), so that every product is a plain batched one. The backward pass is written out
because it then keeps one array of the size of the scores (the probabilities), draws dropout masks
again instead of storing them, and needs no transposition of large arrays. A fused kernel for one
kind of device would replace `attend`, and nothing else.

Axis letters are those of `transformer.py`.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from xlnet_jax.model import dropout, positions

MASKED = -1e30  # added to hidden scores; swallows them in float32, as in the original
_BLOCK = 128  # content rows whose position scores are made together; bounds what is made in vain


class Masks(NamedTuple):
    """What restricts and disturbs attention, without gradients; see `attention.Rows`."""

    visible: Bool[Array, "#G 1 #b I S"] | None
    other_segment: Bool[Array, "#G 1 #b I S"] | None
    tokens: Int[Array, "B I"] | None
    seed: dropout.RowSeeds | None


@functools.partial(jax.custom_vjp, nondiff_argnums=(7,))
def attend(
    q_content: Float[Array, "G N b I H"],
    q_position: Float[Array, "G N b I H"],
    k: Float[Array, "G N b S H"],
    v: Float[Array, "G N b S H"],
    r: Float[Array, "G N R H"],
    step: Float[Array, "G N b I"] | None,
    masks: Masks,
    rate: float,
) -> Float[Array, "G N b I H"]:
    """softmax(q_content·k + q_position·r_shifted + other_segment × step, visible) v.

    `rate` is that of dropout on the probabilities, in force if `masks.seed` is given.
    """
    return _forward(q_content, q_position, k, v, r, step, masks, rate)[0]


def _forward(
    q_content: Array,
    q_position: Array,
    k: Array,
    v: Array,
    r: Array,
    step: Array | None,
    masks: Masks,
    rate: float,
) -> tuple[Array, Any]:
    scores = _product("GNbIH,GNbSH->GNbIS", q_content, k)
    scores += _position_scores(q_position, r, masks.tokens, k.shape[-2])
    if masks.other_segment is not None and step is not None:
        scores += jnp.where(masks.other_segment, step[..., None], 0.0)
    if masks.visible is not None:
        scores += jnp.where(masks.visible, 0.0, MASKED)
    p = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    out = _product("GNbIS,GNbSH->GNbIH", _dropped(p, masks.seed, rate), v).astype(v.dtype)
    return out, (q_content, q_position, k, v, r, step, masks, p, out)


def _backward(rate: float, kept: Any, d_out: Array) -> tuple[Array | None, ...]:
    q_content, q_position, k, v, r, step, masks, p, out = kept
    dtype = v.dtype
    d_v = _product("GNbIH,GNbIS->GNbHS", d_out, _dropped(p, masks.seed, rate)).swapaxes(-1, -2)
    d_p = _dropped(_product("GNbIH,GNbSH->GNbIS", d_out, v), masks.seed, rate)
    # The sum over keys of p × d_p, without passing over them once more.
    mean = jnp.sum(d_out.astype(jnp.float32) * out, axis=-1, keepdims=True)
    d_scores = p * (d_p - mean)
    d_step = None
    if masks.other_segment is not None and step is not None:
        d_step = jnp.where(masks.other_segment, d_scores, 0.0).sum(-1)
    d_scores = d_scores.astype(dtype)
    d_q_content = _product("GNbIS,GNbSH->GNbIH", d_scores, k).astype(dtype)
    d_k = _product("GNbIH,GNbIS->GNbHS", q_content, d_scores).swapaxes(-1, -2).astype(dtype)
    d_q_position, d_r = _position_gradients(q_position, r, masks.tokens, d_scores)
    return d_q_content, d_q_position, d_k, d_v.astype(dtype), d_r, d_step, None


attend.defvjp(_forward, _backward)


def _dropped(p: Array, seed: dropout.RowSeeds | None, rate: float) -> Array:
    return dropout.dropout(p, rate, seed)


def _blocks(num_rows: int) -> list[tuple[int, int]]:
    """(first row, end) of the blocks of content rows."""
    return [(first, min(first + _BLOCK, num_rows)) for first in range(0, num_rows, _BLOCK)]


def _position_scores(
    q: Float[Array, "G N b I H"],
    r: Float[Array, "G N R H"],
    tokens: Int[Array, "B I"] | None,
    num_keys: int,
) -> Float[Array, "G N b I S"]:
    """q·r, each row shifted to its own token; content rows in blocks that need only some of r."""
    if tokens is not None:
        raw = _product("GNbIH,GNRH->GNbIR", q, r)
        return positions.shift_queries(raw, _by_direction(tokens, r.shape[0]), num_keys)
    num_tokens, parts = q.shape[-2], []
    for first, end in _blocks(num_tokens):
        near = slice(num_tokens - end, num_tokens - first + num_keys)
        raw = _product("GNbIH,GNRH->GNbIR", q[..., first:end, :], r[:, :, near])
        parts.append(positions.shift_content(raw, num_keys))
    return jnp.concatenate(parts, axis=-2)


def _position_gradients(
    q: Float[Array, "G N b I H"],
    r: Float[Array, "G N R H"],
    tokens: Int[Array, "B I"] | None,
    d_scores: Float[Array, "G N b I S"],
) -> tuple[Float[Array, "G N b I H"], Float[Array, "G N R H"]]:
    """Gradients of `_position_scores` for q and r."""
    num_tokens, num_keys = q.shape[-2], d_scores.shape[-1]
    if tokens is not None:
        raw = jax.ShapeDtypeStruct((*d_scores.shape[:-1], r.shape[-2]), d_scores.dtype)
        by_direction = _by_direction(tokens, r.shape[0])
        (d_raw,) = jax.linear_transpose(
            lambda x: positions.shift_queries(x, by_direction, num_keys), raw
        )(d_scores)
        d_q = _product("GNbIR,GNRH->GNbIH", d_raw, r)
        d_r = _code_gradient(q, d_raw)
        return d_q.astype(q.dtype), d_r.astype(r.dtype)
    d_q_parts, d_r = [], jnp.zeros(r.shape, jnp.float32)
    for first, end in _blocks(num_tokens):
        near = slice(num_tokens - end, num_tokens - first + num_keys)
        d_raw = positions.unshift_content(d_scores[..., first:end, :])
        d_q_parts.append(_product("GNbIR,GNRH->GNbIH", d_raw, r[:, :, near]))
        d_r = d_r.at[:, :, near].add(_code_gradient(q[..., first:end, :], d_raw))
    return jnp.concatenate(d_q_parts, axis=-2).astype(q.dtype), d_r.astype(r.dtype)


def _code_gradient(
    q: Float[Array, "G N b I H"], d_raw: Float[Array, "G N b I R"]
) -> Float[Array, "G N R H"]:
    # b and I as one axis K: XLA on CPU has no bfloat16 product that sums over two axes.
    q_GNKH, d_raw_GNKR = (x.reshape(*x.shape[:2], -1, x.shape[-1]) for x in (q, d_raw))
    return _product("GNKH,GNKR->GNHR", q_GNKH, d_raw_GNKR).swapaxes(-1, -2)


def _by_direction(tokens: Int[Array, "B I"], directions: int) -> Int[Array, "G b I"]:
    return tokens.reshape(-1, directions, tokens.shape[-1]).swapaxes(0, 1)


def _product(equation: str, *operands: Array) -> Array:
    return jnp.einsum(equation, *operands, preferred_element_type=jnp.float32)
