"""The forms of the core for TPU give what the plain ones do; here they run on CPU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.model import test_attention
from xlnet_jax.model import core, positions, tpu_shifts

SIZES = [(1, 1), (5, 13), (130, 140), (256, 300)]  # tokens, keys


def whole_numbers(random, *shape):
    """Products and sums of these are exact, in any order."""
    return jnp.asarray(random.integers(-9, 9, shape), jnp.float32)


@pytest.mark.parametrize(("num_tokens", "num_keys"), SIZES)
def test_query_rows_at_any_token(num_tokens, num_keys):
    random = np.random.default_rng(0)
    scores = whole_numbers(random, 2, 1, 2, 4, num_tokens + num_keys)
    tokens = random.integers(0, num_tokens, (2, 2, 4))
    tokens[0, 0, 0], tokens[1, 1, 3] = 0, num_tokens - 1
    tokens = jnp.asarray(tokens)
    shifted = jax.jit(tpu_shifts.shift_queries, static_argnums=2)(scores, tokens, num_keys)
    np.testing.assert_array_equal(shifted, positions.shift_queries(scores, tokens, num_keys))
    gradient = whole_numbers(random, *shifted.shape)
    back = jax.jit(tpu_shifts.unshift_queries, static_argnums=2)(gradient, tokens, num_tokens)
    np.testing.assert_array_equal(back, positions.unshift_queries(gradient, tokens, num_tokens))


@pytest.mark.parametrize(("num_tokens", "num_keys"), SIZES)
def test_content_rows(num_tokens, num_keys):
    random = np.random.default_rng(1)
    q = whole_numbers(random, 2, 1, 2, num_tokens, 3)
    r = whole_numbers(random, 2, 1, num_tokens + num_keys, 3)
    gradient = whole_numbers(random, 2, 1, 2, num_tokens, num_keys)
    got = jax.jit(tpu_shifts.content_scores, static_argnums=2)(q, r, num_keys)
    wanted = core.PLAIN.content_scores(q, r, num_keys)
    np.testing.assert_array_equal(got[..., :num_keys], wanted)
    gradients = jax.jit(tpu_shifts.content_gradients)(q, r, gradient)
    for one, other in zip(gradients, core.PLAIN.content_gradients(q, r, gradient), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("form", test_attention.FORMS.values(), ids=test_attention.FORMS.keys())
def test_the_whole_core(form):
    inputs = test_attention.random_inputs(form)

    @jax.jit
    def both(inputs):
        found = []
        for platform in (core.PLAIN, core.TPU):
            out, kept = core.forward(platform, form.rate, *inputs)
            found.append((out, core.backward(platform, form.rate, kept, jnp.cos(out))))
        return found

    plain, tpu = both(inputs)
    for one, other in zip(jax.tree.leaves(tpu), jax.tree.leaves(plain), strict=True):
        test_attention.assert_close(one, np.asarray(other))


def test_bfloat16_keeps_position_scores_in_bfloat16():
    random = np.random.default_rng(2)
    q, r = (jnp.asarray(random.normal(size=(1, 1, 1, n, 4)), jnp.bfloat16) for n in (3, 9))
    for form in (core.PLAIN, core.TPU):
        assert form.content_scores(q, r[:, :, 0], 6).dtype == jnp.bfloat16
