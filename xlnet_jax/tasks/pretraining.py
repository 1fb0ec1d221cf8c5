"""Permutation language modelling: loss and evaluation of the two-stream model."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def permutation_loss(
    logits: Float[Array, "B P V"], targets: Int[Array, "B P"]
) -> Float[Array, "B P"]:
    """Cross entropy of every predicted token, in nats, float32."""
    logits = logits.astype(jnp.float32)
    chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - chosen
