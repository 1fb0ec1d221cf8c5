"""Dropout whose mask is a plain function of (seed, index).

A counter-based hash instead of a random stream: the mask fuses into the operation it serves, is
recomputed in the backward pass instead of stored, and does not depend on how arrays are laid out
over devices. The mixer is the 32-bit "lowbias32" (C. Wellons, hash-prospector), applied twice, with
the batch row mixed into the key, so that no array is large enough to repeat the counter.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt32


def dropout_seed(key: Array) -> UInt32[Array, "2"]:
    """Two words of key material for `keep_mask` from a JAX key."""
    return jax.random.bits(key, (2,), jnp.uint32)


def keep_mask(seed: UInt32[Array, "2"], shape: tuple[int, ...], rate: float) -> Bool[Array, "..."]:
    """True with probability 1 - rate, independently for each element; axis 0 is the batch."""
    inner = jnp.zeros(shape[1:], jnp.uint32)
    for axis, stride in enumerate(np.cumprod((1, *shape[:1:-1]))[::-1]):
        inner += jax.lax.broadcasted_iota(jnp.uint32, shape[1:], axis) * np.uint32(stride)
    row = _mix(jnp.arange(shape[0], dtype=jnp.uint32) * np.uint32(0x9E3779B9) + seed[1])
    row = row.reshape(-1, *(1 for _ in shape[1:]))
    bits = _mix(_mix(inner + seed[0])[None] ^ row)
    return bits >= np.uint32(min(round(rate * 2**32), 2**32 - 1))


def dropout(
    x: Float[Array, "..."], rate: float, seed: UInt32[Array, "2"] | None
) -> Float[Array, "..."]:
    """Inverted dropout; the identity if `seed` is None or `rate` is 0."""
    if seed is None or rate == 0.0:
        return x
    return jnp.where(keep_mask(seed, x.shape, rate), x * (1.0 / (1.0 - rate)), 0).astype(x.dtype)


def _mix(x: UInt32[Array, "..."]) -> UInt32[Array, "..."]:
    x ^= x >> 16
    x *= np.uint32(0x7FEB352D)
    x ^= x >> 15
    x *= np.uint32(0x846CA68B)
    return x ^ (x >> 16)
