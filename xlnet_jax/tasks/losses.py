"""Losses, one number an example or a token, float32 and pure.

Labels and positions must lie in range; what counts how much is the caller's (weights).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def cross_entropy(logits: Float[Array, "... C"], labels: Int[Array, "..."]) -> Float[Array, "..."]:
    """Of one label out of C, in nats."""
    logits = logits.astype(jnp.float32)
    chosen = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - chosen


def squared_error(outputs: Float[Array, "B 1"], targets: Float[Array, "B"]) -> Float[Array, "B"]:
    """Of the one output of a regression."""
    return jnp.square(outputs[..., 0].astype(jnp.float32) - targets)


def sigmoid_cross_entropy(
    logits: Float[Array, "..."], labels: Bool[Array, "..."] | Float[Array, "..."]
) -> Float[Array, "..."]:
    """Of independent yes-or-no labels, each by itself, in nats."""
    logits = logits.astype(jnp.float32)
    return jax.nn.softplus(logits) - logits * labels


def multi_label_loss(
    logits: Float[Array, "B C"], labels: Bool[Array, "B C"] | Float[Array, "B C"]
) -> Float[Array, "B"]:
    """Mean of `sigmoid_cross_entropy` over the labels."""
    return sigmoid_cross_entropy(logits, labels).mean(axis=-1)


def span_loss(
    start_logits: Float[Array, "B T"],
    end_logits: Float[Array, "B T"],
    start_positions: Int[Array, "B"],
    end_positions: Int[Array, "B"],
    answer_logits: Float[Array, "B"] | None = None,
    unanswerable: Bool[Array, "B"] | Float[Array, "B"] | None = None,
) -> Float[Array, "B"]:
    """Mean of the start's and the end's cross entropy, plus half of answerability's.

    The third term is there if `answer_logits` are given; `unanswerable` is then True where the
    question has no answer. A position where no answer may be (logit about -1e30) has a loss of
    about 1e30: leave such examples out. Source: `get_model_fn` in the original's run_squad.py.
    """
    start = cross_entropy(start_logits, start_positions)
    loss = (start + cross_entropy(end_logits, end_positions)) / 2
    if answer_logits is None:
        return loss
    if unanswerable is None:
        raise ValueError("answer_logits need unanswerable [B], got None")
    return loss + 0.5 * sigmoid_cross_entropy(answer_logits, unanswerable)
