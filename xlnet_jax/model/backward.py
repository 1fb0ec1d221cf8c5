"""Backward passes written by hand, where those that JAX derives cost more time or memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@jax.custom_vjp
def dense(x: Float[Array, "B Q K"], kernel: Float[Array, "K ..."]) -> Float[Array, "B Q ..."]:
    """The product of x's last axis with the first one of the kernel, both of width K.

    JAX derives the kernel's gradient as a product [..., K] that it then transposes. A CPU is
    faster with the product [K, ...] itself, unless K is much larger than what is left of the
    kernel: x must be transposed for it.
    """
    return jnp.tensordot(x, kernel, 1)


def _dense_backward(kept: tuple[Array, Array], d_out: Array) -> tuple[Array, Array]:
    x, kernel = kept
    d_x = jnp.tensordot(d_out, kernel, ((*range(2, d_out.ndim),), (*range(1, kernel.ndim),)))
    return d_x, jnp.tensordot(x, d_out, ((0, 1), (0, 1)))


dense.defvjp(lambda x, kernel: (dense(x, kernel), (x, kernel)), _dense_backward)


def remade(function: Callable[..., Array], *inputs: Any, in_loop: bool) -> Array:
    """function(*inputs), which the backward pass makes again from the inputs alone.

    As `jax.checkpoint`, but a CPU's compiler is left free to keep what it sees is needed twice:
    memory is plenty there. With `in_loop` both passes are loops of their own, where no compiler
    sees it anyway. `function` may use no other arrays than its inputs.
    """

    @jax.custom_vjp
    def call(*inputs: Any) -> Array:
        return function(*inputs)

    def backward(inputs: tuple[Any, ...], d_out: Array) -> tuple[Any, ...]:
        if not in_loop:
            inputs = jax.lax.platform_dependent(
                inputs, cpu=lambda inputs: inputs, default=jax.lax.optimization_barrier
            )
        return jax.vjp(function, *inputs)[1](d_out)

    call.defvjp(lambda *inputs: (function(*inputs), inputs), backward)
    return call(*inputs)
