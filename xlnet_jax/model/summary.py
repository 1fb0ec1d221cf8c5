"""One vector for a sequence of hidden states."""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from xlnet_jax.model.attention import initializer
from xlnet_jax.model.config import SUMMARY_TYPES, RunConfig, XLNetConfig
from xlnet_jax.model.core import MASKED
from xlnet_jax.model.transformer import LayerNorm, drop


class SequenceSummary(nn.Module):
    """Pools hidden states, maps the vector through dense and tanh if asked to, and drops out.

    Source: `summarize_sequence` in the original's modeling.py.

    Parameters: "projection" {"kernel" [D, D], "bias" [D]}; for "attn" also those of
    `AttentionPooling` under "attention" and "attention_norm" {"scale", "bias"}.

    Attributes:
        summary_type: "last" token, "first" token, "mean" of the tokens, or "attn": one learned
            query that attends to the tokens.
        use_projection: dense and tanh on the pooled vector.
        count_padding: False takes the first, the last or the mean of the tokens that are no
            padding, so that more padding changes nothing. True counts all places alike, as the
            original does: with padding on the left "first" is then mostly padding, and "mean"
            depends on the padded length. "attn" never sees padding.
    """

    config: XLNetConfig
    run: RunConfig
    summary_type: str = "last"
    use_projection: bool = True
    count_padding: bool = False

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, "B T D"],
        *,
        padding: Bool[Array, "B T"] | None = None,
        train: bool = False,
    ) -> Float[Array, "B D"]:
        """The summary, float32. Raises ValueError for an unknown type."""
        if self.summary_type not in SUMMARY_TYPES:
            raise ValueError(
                f"model.summary_type must be one of {SUMMARY_TYPES}, got {self.summary_type!r}"
            )
        if self.summary_type == "attn":
            pooling = AttentionPooling(self.config, self.run, name="attention")
            attended = drop(self, pooling(hidden, padding, train), train)
            summary = LayerNorm(name="attention_norm")(attended)
        else:
            weights = pooling_weights(
                self.summary_type, hidden, None if self.count_padding else padding
            )
            summary = jnp.einsum("BTD,BT->BD", hidden.astype(jnp.float32), weights)
        if self.use_projection:
            projection = nn.Dense(
                self.config.d_model,
                dtype=self.run.dtype,
                kernel_init=initializer(self.run),
                name="projection",
            )
            summary = jnp.tanh(projection(summary).astype(jnp.float32))
        return drop(self, summary, train)


def pooling_weights(
    summary_type: str, hidden: Float[Array, "B T D"], padding: Bool[Array, "B T"] | None
) -> Float[Array, "B T"]:
    """What each token counts in a "last", "first" or "mean" summary; padding counts nothing."""
    batch, num_tokens, _ = hidden.shape
    real = jnp.ones((batch, num_tokens), bool) if padding is None else ~padding
    if summary_type == "mean":
        weights = real / jnp.maximum(real.sum(axis=1, keepdims=True), 1)
    elif summary_type == "first":
        weights = jax.nn.one_hot(jnp.argmax(real, axis=1), num_tokens)
    else:
        last = num_tokens - 1 - jnp.argmax(real[:, ::-1], axis=1)
        weights = jax.nn.one_hot(last, num_tokens)
    return weights.astype(jnp.float32)


class AttentionPooling(nn.Module):
    """Multi-head attention of one learned query to all tokens, without positions.

    Parameters: "bias" [D], the query (`summary_bias` of the original, where weight decay leaves it
    out for its name, so it keeps one that says so here); "q", "k", "v", "o" [D, N, H].

    The products are taken in an order that never projects all tokens: the query is mapped back
    through k, and only the attended vector goes through v. A row of nothing but padding averages
    over all its places, as in the original.
    """

    config: XLNetConfig
    run: RunConfig

    @nn.compact
    def __call__(
        self, hidden: Float[Array, "B T D"], padding: Bool[Array, "B T"] | None, train: bool
    ) -> Float[Array, "B D"]:
        cfg, dtype, init = self.config, self.run.dtype, initializer(self.run)
        query = self.param("bias", init, (cfg.d_model,)).astype(dtype)
        shape = (cfg.d_model, cfg.n_head, cfg.d_head)
        wq, wk, wv, wo = (self.param(name, init, shape).astype(dtype) for name in "qkvo")
        q_NH = jnp.einsum("D,DNH->NH", query, wq) / math.sqrt(cfg.d_head)
        q_DN = jnp.einsum("NH,DNH->DN", q_NH, wk)
        scores = jnp.einsum("BTD,DN->BNT", hidden, q_DN, preferred_element_type=jnp.float32)
        if padding is not None:
            scores += jnp.where(padding[:, None, :], MASKED, 0.0)
        p = jax.nn.softmax(scores, axis=-1).astype(dtype)
        p = drop(self, p, train, self.run.attention_dropout)
        attended = jnp.einsum("BNT,BTD->BND", p, hidden)
        out_BK = jnp.einsum("BND,DNH->BNH", attended, wv).reshape(len(hidden), -1)
        # N and H as one axis: XLA on CPU has no bfloat16 product that sums over two axes.
        wo_DK = wo.reshape(cfg.d_model, -1)
        return jnp.einsum("BK,DK->BD", out_BK, wo_DK, preferred_element_type=jnp.float32)
