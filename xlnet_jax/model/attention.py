"""Relative attention: one core for the content stream, the query stream, and fine-tuning.

For one head, with keys k_j and values v_j of [memory, this segment], relative codes r of the
distance M + i - j, and s = 1 where tokens i and j lie in different segments:

    score_ij = ((q_i + u)·k_j + (q_i + w)·r_(M+i-j) + (q_i + z)·e_s) / sqrt(H)
    out_i    = sum_j softmax_j(score_ij | j visible to i) v_j

u, w, z are the biases `r_w_bias`, `r_r_bias`, `r_s_bias` and e_0, e_1 the rows of `seg_embed`. The
two streams (Yang et al. 2019, section 2.3) differ in their query rows and in what is visible:

    content:  h_i = Attention(q = h_i, kv = [memory, h_j : rank_j <= rank_i])
    query:    g_i = Attention(q = g_i, kv = [memory, h_j : rank_j <  rank_i])
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt32

from xlnet_jax.model import dropout, positions
from xlnet_jax.model.config import RunConfig, XLNetConfig

MASKED = -1e30  # added to hidden scores; swallows them in float32, as in the original


class Rows(NamedTuple):
    """What the attention core must know of one stream's query rows, the same in every layer.

    Attributes:
        visible: may row i see key j; None if all may see all.
        other_segment: is key j in another segment than row i; None without segments.
        tokens: which token of the segment each row belongs to; None for all tokens in order.
    """

    visible: Bool[Array, "#B I S"] | None
    other_segment: Bool[Array, "B I S"] | None
    tokens: Int[Array, "B I"] | None = None


class HeadBiases(NamedTuple):
    """Learned vectors per head that enter the scores (see the module's equations)."""

    r_w_bias: Float[Array, "N H"]
    r_r_bias: Float[Array, "N H"]
    r_s_bias: Float[Array, "N H"]
    seg_embed: Float[Array, "2 N H"]


def relative_attention(
    q: Float[Array, "B I N H"],
    k: Float[Array, "B S N H"],
    v: Float[Array, "B S N H"],
    r: Float[Array, "G R N H"],
    biases: HeadBiases,
    rows: Rows,
    *,
    rate: float = 0.0,
    seed: UInt32[Array, "2"] | None = None,
) -> Float[Array, "B I N H"]:
    """The attention core of the module's equations for the I query rows of one stream.

    Products are in the dtype of `q`, their sums, the softmax and the masks in float32. With two
    directions (G = 2) even batch rows use `r[0]`, odd ones `r[1]`. The segment term enters as
    s·((q + z)·(e_1 - e_0)): what all keys of a row share cancels in the softmax.
    """
    num_keys = k.shape[1]
    scale = 1.0 / math.sqrt(q.shape[-1])
    scores = _einsum("BINH,BSNH->BNIS", (q + biases.r_w_bias) * scale, k)
    scores += _position_scores((q + biases.r_r_bias) * scale, r, rows.tokens, num_keys)
    if rows.other_segment is not None:
        step_NH = biases.seg_embed[1] - biases.seg_embed[0]
        step = _einsum("BINH,NH->BNI", (q + biases.r_s_bias) * scale, step_NH)
        scores += jnp.where(rows.other_segment[:, None], step[..., None], 0.0)
    if rows.visible is not None:
        scores += jnp.where(rows.visible[:, None], 0.0, MASKED)
    probabilities = dropout.dropout(jax.nn.softmax(scores, axis=-1), rate, seed)
    return _einsum("BNIS,BSNH->BINH", probabilities.astype(v.dtype), v).astype(v.dtype)


def _position_scores(
    q: Float[Array, "B I N H"],
    r: Float[Array, "G R N H"],
    tokens: Int[Array, "B I"] | None,
    num_keys: int,
) -> Float[Array, "B N I S"]:
    directions = r.shape[0]
    batch = q.shape[0]
    q = q.reshape(batch // directions, directions, *q.shape[1:])
    scores = _einsum("bGINH,GRNH->bGNIR", q, r)
    scores = scores.reshape(batch, *scores.shape[2:])
    if tokens is None:
        return positions.shift_content(scores, num_keys)
    return positions.shift_queries(scores, tokens, num_keys)


def _einsum(equation: str, *operands: Array) -> Array:
    return jnp.einsum(equation, *operands, preferred_element_type=jnp.float32)


def initializer(run: RunConfig) -> nn.initializers.Initializer:
    """The run's initializer for all weights but LayerNorm and dense biases."""
    if run.init == "normal":
        return nn.initializers.normal(run.init_std)

    def uniform(key: Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -run.init_range, run.init_range)

    return uniform


class RelativeAttention(nn.Module):
    """Projections around the core; both streams at once, with shared keys and values."""

    config: XLNetConfig
    run: RunConfig

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B Q D"],
        memory: Float[Array, "B M D"] | None,
        codes: Float[Array, "G R D"],
        streams: tuple[Rows, ...],
        shared_biases: tuple[Array, ...] | None,
        train: bool,
    ) -> Float[Array, "B Q D"]:
        """x: the T content rows, then the P query rows if there is a second stream."""
        cfg, dtype = self.config, self.run.dtype
        init = initializer(self.run)
        per_head = (cfg.n_head, cfg.d_head)

        def project(name: str) -> Array:
            return self.param(name, init, (cfg.d_model, *per_head)).astype(dtype)

        wq, wk, wv, wr, wo = (project(name) for name in ("q", "k", "v", "r", "o"))
        names = ("r_w_bias", "r_r_bias", "r_s_bias")
        head_biases = shared_biases or tuple(self.param(name, init, per_head) for name in names)
        seg_embed = self.param("seg_embed", init, (2, *per_head))
        biases = HeadBiases(*(b.astype(dtype) for b in (*head_biases, seg_embed)))

        mem_len = 0 if memory is None else memory.shape[1]
        num_tokens = (codes.shape[1] - mem_len) // 2
        content = x[:, :num_tokens]

        def keys_of(kernel: Array) -> Array:
            own = jnp.einsum("BTD,DNH->BTNH", content, kernel)
            if memory is None:
                return own
            # Apart from `own`, so that no gradient of the memory is computed.
            old = jnp.einsum("BMD,DNH->BMNH", jax.lax.stop_gradient(memory).astype(dtype), kernel)
            return jnp.concatenate([old, own], axis=1)

        k, v = keys_of(wk), keys_of(wv)
        r = jnp.einsum("GRD,DNH->GRNH", codes.astype(dtype), wr)
        q = jnp.einsum("BQD,DNH->BQNH", x, wq)
        outputs = []
        for rows, q_rows in zip(streams, jnp.split(q, [num_tokens], axis=1), strict=False):
            seed = self._seed(train and self.run.attention_dropout > 0)
            core = functools.partial(relative_attention, rate=self.run.attention_dropout, seed=seed)
            if self.run.remat == "attention":
                core = jax.checkpoint(core)
            outputs.append(core(q_rows, k, v, r, biases, rows))
        return jnp.einsum("BQNH,DNH->BQD", jnp.concatenate(outputs, axis=1), wo)

    def _seed(self, random: bool) -> Array | None:
        return dropout.dropout_seed(self.make_rng("dropout")) if random else None
