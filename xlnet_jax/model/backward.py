"""Backward passes written by hand, where those that JAX derives cost more time or memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

PRODUCT = "product"


def product(
    x: Array,
    kernel: Array,
    *,
    cpu: Callable[[Array, Array], Array],
    default: Callable[[Array, Array], Array],
) -> Array:
    """A product of x and a kernel in the form that suits the platform it is compiled for.

    Its name is PRODUCT, for policies of `jax.checkpoint`, which don't see through the choice.
    """
    return checkpoint_name(jax.lax.platform_dependent(x, kernel, cpu=cpu, default=default), PRODUCT)


@jax.custom_vjp
def dense(x: Float[Array, "B Q K"], kernel: Float[Array, "K ..."]) -> Float[Array, "B Q ..."]:
    """The product of x's last axis with the first one of the kernel, both of width K.

    JAX derives the kernel's gradient as a product [..., K] that it then transposes. A CPU is
    faster with the product [K, ...] itself, unless K is much larger than what is left of the
    kernel: x must be transposed for it.
    """
    return jnp.tensordot(x, kernel, 1)


@jax.custom_vjp
def dense_transposed(
    x: Float[Array, "B Q ..."], kernel: Float[Array, "K ..."]
) -> Float[Array, "B Q K"]:
    """The product over all axes of the kernel but its first, the last ones of x.

    A CPU's compiler would write a transposed copy of a kernel with several such axes, and so it is
    given one. Accelerators prefer them as they are: there merging is what needs a copy.
    """

    def merged(x: Array, kernel: Array) -> Array:
        width = math.prod(kernel.shape[1:])  # not -1: there may be no rows (memory of length 0)
        return jnp.tensordot(x.reshape(*x.shape[:2], width), kernel.reshape(-1, width), (2, 1))

    def plain(x: Array, kernel: Array) -> Array:
        return jnp.tensordot(x, kernel, ((*range(2, x.ndim),), (*range(1, kernel.ndim),)))

    return product(x, kernel, cpu=merged, default=plain)


def _kernel_gradient(of_first: Float[Array, "B Q K"], of_rest: Float[Array, "B Q ..."]) -> Array:
    return jnp.tensordot(of_first, of_rest, ((0, 1), (0, 1)))


def _dense_backward(kept: tuple[Array, Array], d_out: Array) -> tuple[Array, Array]:
    x, kernel = kept
    return dense_transposed(d_out, kernel), _kernel_gradient(x, d_out)


def _dense_transposed_backward(kept: tuple[Array, Array], d_out: Array) -> tuple[Array, Array]:
    x, kernel = kept
    return dense(d_out, kernel), _kernel_gradient(d_out, x)


# The plain functions: a policy for `jax.checkpoint` doesn't see into those with a rule.
dense.defvjp(lambda x, kernel: (dense.fun(x, kernel), (x, kernel)), _dense_backward)
dense_transposed.defvjp(
    lambda x, kernel: (dense_transposed.fun(x, kernel), (x, kernel)), _dense_transposed_backward
)


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
