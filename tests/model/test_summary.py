"""Pooling of hidden states: definitions restated, padding, dropout."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.model import small
from xlnet_jax.model.config import SUMMARY_TYPES, RunConfig
from xlnet_jax.model.summary import SequenceSummary

EXACT = RunConfig(**small.EXACT, init_std=0.4)
TYPES = pytest.mark.parametrize("summary_type", SUMMARY_TYPES)
HIDDEN = np.random.default_rng(0).normal(size=(3, 5, small.CONFIG.d_model)).astype(np.float32)
# Padded on the left, on the right, not at all.
PADDING = np.array([[1, 1, 0, 0, 0], [0, 0, 0, 1, 1], [0] * 5], bool)


@functools.cache
def made(summary_type, run=EXACT, use_projection=True, count_padding=False):
    model = SequenceSummary(small.CONFIG, run, summary_type, use_projection, count_padding)
    return model, small.random_parameters(model, HIDDEN, padding=PADDING)


@functools.partial(jax.jit, static_argnums=0, static_argnames="train")
def apply(model, params, hidden, **inputs):
    return model.apply(params, hidden, **inputs)


def summarize(*options, hidden=HIDDEN, padding=PADDING):
    return np.asarray(apply(*made(*options), hidden, padding=padding))


def attended(hidden, padding, params):
    """One row, written out head by head in float64."""
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), params["params"])
    weights, norm = params["attention"], params["attention_norm"]
    out = np.zeros(small.CONFIG.d_model)
    for head in range(small.CONFIG.n_head):
        q, k, v, o = (weights[name][:, head] for name in "qkvo")
        scores = (hidden @ k) @ (weights["bias"] @ q) / np.sqrt(small.CONFIG.d_head)
        p = np.exp(scores - scores.max()) * ~padding
        out += o @ ((p / p.sum()) @ (hidden @ v))
    centred = out - out.mean()
    return centred / np.sqrt((centred**2).mean() + 1e-12) * norm["scale"] + norm["bias"]


def test_without_projection_it_is_what_the_name_says():
    real = [HIDDEN[0, 2:], HIDDEN[1, :3], HIDDEN[2]]
    np.testing.assert_array_equal(summarize("last", EXACT, False), [row[-1] for row in real])
    np.testing.assert_array_equal(summarize("first", EXACT, False), [row[0] for row in real])
    means = [row.mean(axis=0) for row in real]
    small.assert_close(summarize("mean", EXACT, False), np.array(means))
    params = made("attn", EXACT, False)[1]
    pooled = [attended(row, mask, params) for row, mask in zip(HIDDEN, PADDING, strict=True)]
    small.assert_close(summarize("attn", EXACT, False), np.array(pooled))


def test_the_original_counts_padding():
    options = (EXACT, False, True)
    np.testing.assert_array_equal(summarize("last", *options), HIDDEN[:, -1])
    np.testing.assert_array_equal(summarize("first", *options), HIDDEN[:, 0])
    small.assert_close(summarize("mean", *options), HIDDEN.mean(axis=1))
    np.testing.assert_array_equal(summarize("attn", *options), summarize("attn", EXACT, False))


@TYPES
@pytest.mark.parametrize("ends", [(4, 0), (0, 3)], ids=["left", "right"])
def test_more_padding_changes_nothing(summary_type, ends):
    longer = np.pad(HIDDEN, ((0, 0), ends, (0, 0)), constant_values=7.0)
    padding = np.pad(PADDING, ((0, 0), ends), constant_values=True)
    small.assert_close(
        summarize(summary_type, hidden=longer, padding=padding), summarize(summary_type)
    )
    nothing = summarize(summary_type, padding=np.zeros_like(PADDING))
    np.testing.assert_array_equal(summarize(summary_type, padding=None), nothing)


@TYPES
def test_the_projection_is_dense_and_tanh(summary_type):
    params = made(summary_type)[1]["params"]
    bare = {"params": {k: v for k, v in params.items() if k != "projection"}}
    model = made(summary_type, EXACT, False)[0]
    pooled = apply(model, bare, HIDDEN, padding=PADDING)
    dense = params["projection"]
    small.assert_close(summarize(summary_type), jnp.tanh(pooled @ dense["kernel"] + dense["bias"]))


@TYPES
def test_a_row_of_padding_alone_stays_finite(summary_type):
    def total(hidden):
        model, params = made(summary_type)
        return model.apply(params, hidden, padding=jnp.ones(PADDING.shape, bool)).sum()

    value, gradient = jax.jit(jax.value_and_grad(total))(HIDDEN)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize(
    "summary_type, rates", [("mean", {"dropout"}), ("attn", {"dropout", "attention_dropout"})]
)
def test_dropout_acts_in_training_alone(summary_type, rates):
    wanted = summarize(summary_type)
    for name in small.EXACT:
        run = RunConfig(**small.EXACT | {name: 0.5}, init_std=0.4)
        model = SequenceSummary(small.CONFIG, run, summary_type)
        params, rngs = made(summary_type)[1], {"dropout": jax.random.key(0)}
        small.assert_close(apply(model, params, HIDDEN, padding=PADDING), wanted, 0)
        dropped = apply(model, params, HIDDEN, padding=PADDING, train=True, rngs=rngs)
        assert bool((np.asarray(dropped) != wanted).any()) == (name in rates), name


def test_in_bfloat16_it_is_close_and_float32():
    run = RunConfig(**small.EXACT, dtype="bfloat16")
    for summary_type in SUMMARY_TYPES:
        model = SequenceSummary(small.CONFIG, run, summary_type)
        hidden = jnp.asarray(HIDDEN, jnp.bfloat16)
        got = apply(model, made(summary_type)[1], hidden, padding=PADDING)
        assert got.dtype == jnp.float32
        small.assert_close(got, summarize(summary_type), 0.05)


def test_unknown_type():
    model = SequenceSummary(small.CONFIG, EXACT, "median")
    with pytest.raises(ValueError, match=r"model.summary_type must be one of .*, got 'median'"):
        model.init(jax.random.key(0), jnp.asarray(HIDDEN))
