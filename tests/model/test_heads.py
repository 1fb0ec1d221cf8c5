"""Output layers on the network: what they read, and that padding and neighbours change nothing."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.model import small
from xlnet_jax.model.config import RunConfig
from xlnet_jax.model.heads import (
    MultipleChoice,
    PermutationLanguageModel,
    SequenceClassifier,
    TokenTagger,
)

EXACT = RunConfig(**small.EXACT, init_std=0.4)
MODEL = PermutationLanguageModel(small.CONFIG, RunConfig(**small.EXACT))
UNUSED = small.CONFIG.n_token - 1  # a word that the inputs do not hold; so is the one before
CLASSIFIER = SequenceClassifier(small.CONFIG, EXACT, 3, "mean")
TOKENS = np.random.default_rng(0).integers(0, small.CONFIG.n_token, (6, small.TOKENS))
SEGMENTS = np.sort(np.random.default_rng(1).integers(0, 3, TOKENS.shape))


@functools.cache
def parameters(model):
    return small.random_parameters(model, TOKENS)


@functools.partial(jax.jit, static_argnums=0, static_argnames=("method", "train"))
def apply(model, params, tokens, **inputs):
    return model.apply(params, tokens, **inputs)


def test_logits_and_gradients_go_through_the_word_embedding():
    inputs = small.two_stream_inputs()
    assert UNUSED not in inputs["tokens"].ravel()
    bias = jax.random.normal(jax.random.key(1), (small.CONFIG.n_token,))
    xlnet = small.parameters()["params"]
    table = xlnet["word_embedding"]

    def logit(table):
        params = {"xlnet": xlnet | {"word_embedding": table}, "lm_bias": bias}
        logits, output = MODEL.apply({"params": params}, **inputs)
        return logits[0, 0, UNUSED], (logits, output.hidden)

    gradient, (logits, hidden) = jax.jit(jax.grad(logit, has_aux=True))(table)
    assert logits.dtype == jnp.float32
    small.assert_close(logits, hidden @ table.T + bias)
    # As output: the word of the logit alone, by the hidden state. As input: what was seen.
    small.assert_close(gradient[UNUSED], hidden[0, 0])
    assert not gradient[UNUSED - 1].any()
    assert not gradient[inputs["tokens"][1]].any()  # the other example
    seen = np.flatnonzero(inputs["query_visible"][0, 0])
    assert (np.abs(gradient[inputs["tokens"][0, seen]]).max(axis=-1) > 1e-4).all()


def test_classes_are_read_off_the_summary():
    params = parameters(CLASSIFIER)
    pooled = apply(CLASSIFIER, params, TOKENS, segment_ids=SEGMENTS, method="pooled")
    dense = params["params"]["logits"]
    logits = apply(CLASSIFIER, params, TOKENS, segment_ids=SEGMENTS)
    small.assert_close(logits, pooled @ dense["kernel"] + dense["bias"])
    assert logits.shape == (6, 3)
    assert pooled.shape == (6, small.CONFIG.d_model)


def test_choices_share_one_score_and_do_not_see_each_other():
    model = MultipleChoice(small.CONFIG, EXACT, summary_type="mean")
    scorer = SequenceClassifier(small.CONFIG, EXACT, 1, "mean")
    shape = (2, 3, small.TOKENS)
    padding = np.arange(small.TOKENS) < np.arange(6)[:, None] % 3
    wanted = apply(scorer, parameters(scorer), TOKENS, segment_ids=SEGMENTS, padding=padding)
    got = apply(
        model,
        parameters(scorer),
        TOKENS.reshape(shape),
        segment_ids=SEGMENTS.reshape(shape),
        padding=padding.reshape(shape),
    )
    assert got.shape == (2, 3)
    small.assert_close(got, wanted.reshape(2, 3))
    bare = jax.eval_shape(model.apply, parameters(scorer), TOKENS.reshape(shape))
    assert bare.shape == (2, 3)  # segments and padding may be left out


def test_tags_are_read_off_each_token():
    model = TokenTagger(small.CONFIG, EXACT, 4)
    params = parameters(model)
    xlnet = {"params": params["params"]["xlnet"]}
    hidden = small.apply(EXACT, xlnet, TOKENS, segment_ids=SEGMENTS).hidden
    dense = params["params"]["logits"]
    got = apply(model, params, TOKENS, segment_ids=SEGMENTS)
    assert got.shape == (*TOKENS.shape, 4)
    small.assert_close(got, hidden @ dense["kernel"] + dense["bias"])


@pytest.mark.parametrize("summary_type", ["first", "mean"])
def test_more_padding_changes_no_logit(summary_type):
    model = SequenceClassifier(small.CONFIG, EXACT, 3, summary_type)
    ends = ((0, 0), (3, 0))
    padding = np.pad(np.zeros(TOKENS.shape, bool), ends, constant_values=True)
    segments = np.pad(SEGMENTS, ends, constant_values=4)
    params = parameters(CLASSIFIER)
    small.assert_close(
        apply(model, params, np.pad(TOKENS, ends), segment_ids=segments, padding=padding),
        apply(model, params, TOKENS, segment_ids=SEGMENTS),
    )


@pytest.mark.parametrize(
    "make, tokens",
    [
        (lambda run: SequenceClassifier(small.CONFIG, run, 3, "attn"), TOKENS),
        (lambda run: MultipleChoice(small.CONFIG, run), TOKENS.reshape(2, 3, -1)),
        (lambda run: TokenTagger(small.CONFIG, run, 4), TOKENS),
    ],
    ids=["classes", "choices", "tags"],
)
def test_parameters_and_logits_are_float32_in_any_precision(make, tokens):
    model = make(dataclasses.replace(EXACT, dtype="bfloat16"))
    params = jax.eval_shape(model.init, jax.random.key(0), tokens)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    assert jax.eval_shape(model.apply, params, tokens).dtype == jnp.float32


def test_dropout_reaches_the_summary_and_the_network():
    model = dataclasses.replace(CLASSIFIER, run=RunConfig(dropout=0.5))
    params = parameters(CLASSIFIER)
    wanted = apply(CLASSIFIER, params, TOKENS, segment_ids=SEGMENTS)
    inputs = {"segment_ids": SEGMENTS, "train": True}
    first, other = (
        apply(model, params, TOKENS, rngs={"dropout": jax.random.key(seed)}, **inputs)
        for seed in (0, 1)
    )
    assert (np.abs(first - wanted).max(axis=1) > 1e-3).all()
    assert (np.abs(first - other).max(axis=1) > 1e-3).all()
