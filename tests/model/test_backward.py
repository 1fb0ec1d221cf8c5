"""Hand-written backward passes, next to those that JAX derives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xlnet_jax.model import backward


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.mark.parametrize("kernel_shape", [(4, 6), (4, 2, 3)])
def test_dense_has_the_derived_gradients(kernel_shape):
    x, kernel = normal(0, 2, 5, 4), normal(1, *kernel_shape)
    out, pull_back = jax.vjp(backward.dense, x, kernel)
    wanted, derived = jax.vjp(lambda x, kernel: jnp.tensordot(x, kernel, 1), x, kernel)
    np.testing.assert_array_equal(out, wanted)
    for one, other in zip(pull_back(jnp.cos(out)), derived(jnp.cos(out)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kernel_shape", [(4, 6), (4, 2, 3)])
def test_dense_transposed_has_the_derived_gradients(kernel_shape):
    axes = ((*range(2, 1 + len(kernel_shape)),), (*range(1, len(kernel_shape)),))
    x, kernel = normal(0, 2, 5, *kernel_shape[1:]), normal(1, *kernel_shape)
    out, pull_back = jax.vjp(backward.dense_transposed, x, kernel)
    wanted, derived = jax.vjp(lambda x, kernel: jnp.tensordot(x, kernel, axes), x, kernel)
    np.testing.assert_allclose(out, wanted, rtol=1e-5, atol=1e-6)
    for one, other in zip(pull_back(jnp.cos(out)), derived(jnp.cos(out)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("platform", "operand"), [("cpu", "2x5x6xf32"), ("tpu", "2x5x2x3xf32")])
def test_only_a_cpu_sees_the_contracted_axes_as_one(platform, operand):
    x, kernel = normal(0, 2, 5, 2, 3), normal(1, 4, 2, 3)
    lowered = jax.jit(backward.dense_transposed).trace(x, kernel)
    text = lowered.lower(lowering_platforms=(platform,)).as_text()
    (dot,) = [line for line in text.splitlines() if "dot_general" in line]
    assert operand in dot


@pytest.mark.parametrize(
    ("function", "policy", "x_shape"),
    [
        (backward.dense, jax.checkpoint_policies.dots_saveable, (2, 5, 4)),
        (
            backward.dense_transposed,
            jax.checkpoint_policies.save_only_these_names(backward.PRODUCT),
            (2, 5, 2, 3),
        ),
    ],
    ids=["dense", "dense_transposed"],
)
def test_policies_for_products_see_ours(function, policy, x_shape):
    x, kernel = normal(0, *x_shape), normal(1, 4, 2, 3)

    def dots(policy):
        layer = jax.checkpoint(lambda x: jnp.sin(function(x, kernel)).sum(), policy=policy)
        return jax.jit(jax.value_and_grad(layer)).lower(x).as_text().count("dot_general")

    assert dots(policy) == 2  # forward, backward
    assert dots(None) == 3  # and once more


def test_dense_makes_the_gradient_of_the_kernel_untransposed():
    x, kernel = normal(0, 2, 5, 4), normal(1, 4, 6)

    def dots(function):
        program = jax.make_jaxpr(jax.grad(lambda x, k: function(x, k).sum(), argnums=1))(x, kernel)
        return [e.outvars[0].aval.shape for e in program.eqns if e.primitive.name == "dot_general"]

    assert dots(backward.dense)[-1] == (4, 6)
    assert dots(lambda x, kernel: jnp.tensordot(x, kernel, 1))[-1] == (6, 4)


def scaled_waves(x, kernel, signs):
    return jnp.sin(jnp.cos(x) * signs) @ kernel


@pytest.mark.parametrize("in_loop", [False, True])
def test_remade_has_the_derived_gradients(in_loop):
    inputs = normal(0, 5, 4), normal(1, 4, 6), jnp.asarray([1, -1, 1, 1])

    def loss(function):
        def value(*floats):
            return jnp.square(function(*floats, inputs[2])).sum()

        return jax.jit(jax.value_and_grad(value, argnums=(0, 1)))(*inputs[:2])

    value, gradients = loss(lambda *inputs: backward.remade(scaled_waves, *inputs, in_loop=in_loop))
    wanted, derived = loss(scaled_waves)
    np.testing.assert_allclose(value, wanted, rtol=1e-6)
    for one, other in zip(gradients, derived, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_remade_keeps_its_inputs_alone():
    x, kernel, signs = normal(0, 5, 4), normal(1, 4, 6), jnp.ones(4)

    def kept(function):
        _, pull_back = jax.vjp(function, x, kernel, signs)
        return sorted(leaf.shape for leaf in jax.tree.leaves(pull_back))

    assert kept(lambda *inputs: backward.remade(scaled_waves, *inputs, in_loop=False)) == sorted(
        value.shape for value in (x, kernel, signs)
    )
    assert len(kept(scaled_waves)) > 3


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
def test_only_off_cpu_is_the_compiler_kept_from_seeing_it_twice(platform):
    inputs = normal(0, 5, 4), normal(1, 4, 6), jnp.ones(4)

    def loss(*inputs):
        return jnp.square(backward.remade(scaled_waves, *inputs, in_loop=False)).sum()

    lowered = jax.jit(jax.grad(loss)).trace(*inputs).lower(lowering_platforms=(platform,))
    assert ("optimization_barrier" in lowered.as_text()) == (platform == "tpu")
