"""The innermost part of relative attention, with its own backward pass.

Scores, softmax and weighted sum for all heads, with arrays laid out [G, N, b, ...] (b: batch rows
of one direction), so that every product is a plain batched one. The backward pass is written out
because it then keeps one array of the size of the scores (their exponentials), draws dropout masks
again instead of storing them, and needs no transposition of large arrays.

What a CPU and a TPU like in different forms is gathered in `Form`; the platform that a program is
compiled for chooses (`jax.default_backend` would not do: a CPU can compile for a TPU). NVIDIA GPUs
have kernels instead, in `gpu/`, for bfloat16.

Axis letters are those of `transformer.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from xlnet_jax.model import dropout, positions, tpu_shifts
from xlnet_jax.model.gpu import core as gpu_core

MASKED = -1e30  # stands for a hidden score; any other number added is lost in float32
_BLOCK = 128  # content rows whose position scores are made together; bounds what is made in vain


class Masks(NamedTuple):
    """What restricts and disturbs attention, without gradients; see `attention.Rows`."""

    visible: Bool[Array, "#G 1 #b I S"] | None
    other_segment: Bool[Array, "#G 1 #b I S"] | None
    tokens: Int[Array, "B I"] | None
    seed: dropout.RowSeeds | None


class Form(NamedTuple):
    """The parts of the core that depend on the platform.

    Attributes:
        content_scores: q·r of content rows, shifted; S columns, or more of which the first S count.
        content_gradients: its gradients for q and r.
        shift_queries, unshift_queries: as in `positions`.
        transposed: swaps the last two axes of a factor that is far smaller than the other one.
        recomputed: the identity, behind which the scores are computed once more instead of kept in
            float32 from finding their maximum to taking their exponentials.
    """

    content_scores: Callable[[Array, Array, int], Array]
    content_gradients: Callable[[Array, Array, Array], tuple[Array, Array]]
    shift_queries: Callable[[Array, Array, int], Array]
    unshift_queries: Callable[[Array, Array, int], Array]
    transposed: Callable[[Array], Array]
    recomputed: Callable[[Any], Any]


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


def _forward(*inputs: Any) -> tuple[Array, Any]:
    *arrays, rate = inputs
    plain, k = functools.partial(forward, PLAIN, rate), arrays[2]
    return jax.lax.platform_dependent(
        *arrays,
        tpu=functools.partial(forward, TPU, rate),
        cuda=functools.partial(gpu_core.forward, rate) if gpu_core.fits(k) else plain,
        default=plain,
    )


def _backward(rate: float, kept: Any, d_out: Array) -> tuple[Array | None, ...]:
    plain, k = functools.partial(backward, PLAIN, rate), kept[2]
    gradients = jax.lax.platform_dependent(
        kept,
        d_out,
        tpu=functools.partial(backward, TPU, rate),
        cuda=functools.partial(gpu_core.backward, rate) if gpu_core.fits(k) else plain,
        default=plain,
    )
    return (*gradients, None)


attend.defvjp(_forward, _backward)


def forward(
    form: Form,
    rate: float,
    q_content: Array,
    q_position: Array,
    k: Array,
    v: Array,
    r: Array,
    step: Array | None,
    masks: Masks,
) -> tuple[Array, Any]:
    """The output of `attend` and what `backward` needs."""
    num_keys = k.shape[-2]
    shifted = _position_scores(form, q_position, r, masks.tokens, num_keys)

    def scores(q_content: Array, k: Array, shifted: Array) -> Array:
        added = shifted[..., :num_keys]
        if masks.other_segment is not None and step is not None:
            added += jnp.where(masks.other_segment, step[..., None], 0.0)
        if masks.visible is not None:
            # Not a sum: so that a CPU makes `added` in one pass, with the shift.
            added = jnp.where(masks.visible, added, MASKED)
        return _product("GNbIH,GNbSH->GNbIS", q_content, k) + added

    made_of = (q_content, k, shifted)
    row_max = scores(*made_of).max(axis=-1, keepdims=True)
    made_of, row_max = form.recomputed((made_of, row_max))
    exp_scores = jnp.exp(scores(*made_of) - row_max)
    total = exp_scores.sum(axis=-1, keepdims=True)
    exp_scores = exp_scores.astype(v.dtype)
    out = _product("GNbIS,GNbSH->GNbIH", _kept(exp_scores, masks.seed, rate), v)
    out = (out / (total * _share_kept(masks.seed, rate))).astype(v.dtype)
    return out, (q_content, q_position, k, v, r, step, masks, exp_scores, total, out)


def backward(form: Form, rate: float, kept: Any, d_out: Array) -> tuple[Array | None, ...]:
    """Gradients of `attend` for its arrays, in order."""
    q_content, q_position, k, v, r, step, masks, exp_scores, total, out = kept
    dtype = v.dtype
    # The sum over keys of probability × gradient, without passing over them once more.
    mean = jnp.sum(d_out.astype(jnp.float32) * out, axis=-1, keepdims=True) / total
    d_out = (d_out / (total * _share_kept(masks.seed, rate))).astype(dtype)
    kept_exp_scores = _kept(exp_scores, masks.seed, rate)
    d_v = _product("GNbHI,GNbIS->GNbHS", form.transposed(d_out), kept_exp_scores).swapaxes(-1, -2)
    # exp_scores × (gradient where kept - mean), with the mask that `kept_exp_scores` holds already
    d_scores = kept_exp_scores * _product("GNbIH,GNbSH->GNbIS", d_out, v) - exp_scores * mean
    d_step = None
    if masks.other_segment is not None and step is not None:
        d_step = jnp.where(masks.other_segment, d_scores, 0.0).sum(-1)
    d_scores = d_scores.astype(dtype)
    d_q_content = _product("GNbIS,GNbSH->GNbIH", d_scores, k).astype(dtype)
    d_k = _product("GNbHI,GNbIS->GNbHS", form.transposed(q_content), d_scores)
    d_k = d_k.swapaxes(-1, -2).astype(dtype)
    d_q_position, d_r = _position_gradients(form, q_position, r, masks.tokens, d_scores)
    return d_q_content, d_q_position, d_k, d_v.astype(dtype), d_r, d_step


def _kept(x: Array, seed: dropout.RowSeeds | None, rate: float) -> Array:
    """Zero where dropped, not yet scaled up."""
    if seed is None or rate == 0.0:
        return x
    return jnp.where(dropout.keep_mask(seed, x.shape, rate), x, 0)


def _share_kept(seed: dropout.RowSeeds | None, rate: float) -> float:
    return 1.0 if seed is None else 1.0 - rate


def _blocks(num_rows: int) -> list[tuple[int, int]]:
    """(first row, end) of the blocks of content rows."""
    return [(first, min(first + _BLOCK, num_rows)) for first in range(0, num_rows, _BLOCK)]


def _position_scores(
    form: Form,
    q: Float[Array, "G N b I H"],
    r: Float[Array, "G N R H"],
    tokens: Int[Array, "B I"] | None,
    num_keys: int,
) -> Float[Array, "G N b I S"]:
    """q·r in the dtype of q, each row shifted to its own token; maybe with more columns."""
    if tokens is None:
        return form.content_scores(q, r, num_keys)
    raw = _product("GNbIH,GNRH->GNbIR", q, r).astype(q.dtype)
    return form.shift_queries(raw, _by_direction(tokens, r.shape[0]), num_keys)


def _content_scores(
    q: Float[Array, "G N b T H"], r: Float[Array, "G N R H"], num_keys: int
) -> Float[Array, "G N b T S"]:
    """Content rows in blocks that need only some of r."""
    num_tokens, parts, r_GNHR = q.shape[-2], [], _transposed(r)
    for first, end in _blocks(num_tokens):
        near = slice(num_tokens - end, num_tokens - first + num_keys)
        raw = _product("GNbIH,GNHR->GNbIR", q[..., first:end, :], r_GNHR[..., near])
        parts.append(positions.shift_content(raw.astype(q.dtype), num_keys))
    return jnp.concatenate(parts, axis=-2)


def _position_gradients(
    form: Form,
    q: Float[Array, "G N b I H"],
    r: Float[Array, "G N R H"],
    tokens: Int[Array, "B I"] | None,
    d_scores: Float[Array, "G N b I S"],
) -> tuple[Float[Array, "G N b I H"], Float[Array, "G N R H"]]:
    """Gradients of `_position_scores` for q and r, in their dtype."""
    if tokens is not None:
        num_tokens = r.shape[-2] - d_scores.shape[-1]
        d_raw = form.unshift_queries(d_scores, _by_direction(tokens, r.shape[0]), num_tokens)
        d_q = _product("GNbIR,GNRH->GNbIH", d_raw, r)
        d_r = _code_gradient(form, q, d_raw).swapaxes(-1, -2)
    else:
        d_q, d_r = form.content_gradients(q, r, d_scores)
    return d_q.astype(q.dtype), d_r.astype(r.dtype)


def _content_gradients(
    q: Float[Array, "G N b T H"], r: Float[Array, "G N R H"], d_scores: Float[Array, "G N b T S"]
) -> tuple[Float[Array, "G N b T H"], Float[Array, "G N R H"]]:
    """Gradients of `_content_scores` for q and r, float32."""
    num_tokens, num_keys = d_scores.shape[-2:]
    d_q_parts, d_r_GNHR = [], jnp.zeros_like(r.swapaxes(-1, -2), jnp.float32)
    for first, end in _blocks(num_tokens):
        near = slice(num_tokens - end, num_tokens - first + num_keys)
        d_raw = positions.unshift_content(d_scores[..., first:end, :])
        d_q_parts.append(_product("GNbIR,GNRH->GNbIH", d_raw, r[:, :, near]))
        d_r_GNHR = d_r_GNHR.at[..., near].add(_code_gradient(PLAIN, q[..., first:end, :], d_raw))
    return jnp.concatenate(d_q_parts, axis=-2), d_r_GNHR.swapaxes(-1, -2)


def _code_gradient(
    form: Form, q: Float[Array, "G N b I H"], d_raw: Float[Array, "G N b I R"]
) -> Float[Array, "G N H R"]:
    # b and I as one axis K: XLA on CPU has no bfloat16 product that sums over two axes.
    q_GNKH, d_raw_GNKR = (x.reshape(*x.shape[:2], -1, x.shape[-1]) for x in (q, d_raw))
    return _product("GNHK,GNKR->GNHR", form.transposed(q_GNKH), d_raw_GNKR)


def _by_direction(tokens: Int[Array, "B I"], directions: int) -> Int[Array, "G b I"]:
    return tokens.reshape(-1, directions, tokens.shape[-1]).swapaxes(0, 1)


def _product(equation: str, *operands: Array) -> Array:
    return jnp.einsum(equation, *operands, preferred_element_type=jnp.float32)


def _transposed(x: Float[Array, "... I H"]) -> Float[Array, "... H I"]:
    """In memory too: the products of XLA on CPU are up to a third faster without a transposition.

    Without the barrier the compiler folds it into the product.
    """
    return jax.lax.optimization_barrier(x.swapaxes(-1, -2))


PLAIN = Form(
    content_scores=_content_scores,
    content_gradients=_content_gradients,
    shift_queries=positions.shift_queries,
    unshift_queries=positions.unshift_queries,
    transposed=_transposed,
    recomputed=lambda values: values,
)
TPU = Form(
    content_scores=tpu_shifts.content_scores,
    content_gradients=tpu_shifts.content_gradients,
    shift_queries=tpu_shifts.shift_queries,
    unshift_queries=tpu_shifts.unshift_queries,
    transposed=lambda x: x.swapaxes(-1, -2),
    recomputed=jax.lax.optimization_barrier,
)
