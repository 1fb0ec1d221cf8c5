"""Span extraction: training logits and beams against the definition written out."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.model import small
from xlnet_jax.model.config import RunConfig
from xlnet_jax.model.span_head import SpanExtractor

RUN = RunConfig(**small.EXACT, init_std=0.4)
MODEL = SpanExtractor(small.CONFIG, RUN)
BATCH, TOKENS = 3, 7
random = np.random.default_rng(0)
INPUTS = {
    "tokens": random.integers(0, small.CONFIG.n_token, (BATCH, TOKENS)),
    "segment_ids": np.sort(random.integers(0, 3, (BATCH, TOKENS))),
    "padding": np.arange(TOKENS) >= np.array([[7], [6], [7]]),
    "cannot_answer": random.random((BATCH, TOKENS)) < 0.3,
    "cls_positions": np.array([6, 5, 2]),
}
STARTS = np.array([0, 3, 1])
INPUTS["cannot_answer"][np.arange(BATCH), STARTS] = False


@functools.cache
def parameters():
    return small.random_parameters(MODEL, **INPUTS, start_positions=STARTS)


@functools.partial(jax.jit, static_argnames="answerability")
def logits(inputs, starts, answerability=True):
    model = SpanExtractor(small.CONFIG, RUN, answerability)
    return model.apply(parameters(), **inputs, start_positions=starts)


@functools.partial(jax.jit, static_argnames=("num_starts", "num_ends", "answerability"))
def beams(inputs, num_starts=5, num_ends=5, answerability=True):
    model = SpanExtractor(small.CONFIG, RUN, answerability)
    sizes = {"num_starts": num_starts, "num_ends": num_ends}
    return model.apply(parameters(), **inputs, **sizes, method="beams")


def dense(x, weights):
    return x @ weights["kernel"] + weights.get("bias", 0.0)


def test_training_logits_are_the_definition():
    params = parameters()["params"]
    names = ("tokens", "segment_ids", "padding")
    network = {"params": params["xlnet"]}
    hidden = small.apply(RUN, network, **{name: INPUTS[name] for name in names}).hidden
    start = dense(hidden, params["start_logits"])[..., 0]
    chosen = hidden[np.arange(BATCH), STARTS][:, None]
    end = params["end_logits"]
    both = jnp.concatenate([hidden, jnp.broadcast_to(chosen, hidden.shape)], axis=-1)
    inner = jnp.tanh(dense(both, end["dense_0"]))
    inner = inner - inner.mean(-1, keepdims=True)
    inner /= jnp.sqrt((inner**2).mean(-1, keepdims=True) + 1e-12)
    inner = inner * end["norm"]["scale"] + end["norm"]["bias"]
    ends = dense(inner, end["dense_1"])[..., 0]
    forbidden = INPUTS["cannot_answer"]
    p = jax.nn.softmax(jnp.where(forbidden, -1e30, start))
    cls = hidden[np.arange(BATCH), INPUTS["cls_positions"]]
    pair = jnp.concatenate([jnp.einsum("BT,BTD->BD", p, hidden), cls], axis=-1)
    answer = params["answer_class"]
    answers = dense(jnp.tanh(dense(pair, answer["dense_0"])), answer["dense_1"])[..., 0]

    got = logits(INPUTS, STARTS)
    assert got.start.dtype == got.end.dtype == got.answer.dtype == jnp.float32
    small.assert_close(got.start[~forbidden], start[~forbidden])
    small.assert_close(got.end[~forbidden], ends[~forbidden])
    small.assert_close(got.answer, answers)
    assert (got.start[forbidden] == np.float32(-1e30)).all()
    assert (got.end[forbidden] == np.float32(-1e30)).all()


def test_beams_are_the_best_spans_of_the_training_logits():
    got = beams(INPUTS, num_starts=3, num_ends=4)
    start = jax.nn.log_softmax(logits(INPUTS, STARTS).start)
    best = np.argsort(-start, axis=1, kind="stable")[:, :3]
    np.testing.assert_array_equal(got.starts, best)
    small.assert_close(got.start_log_probs, np.take_along_axis(start, best, axis=1))
    for k in range(3):
        end = jax.nn.log_softmax(logits(INPUTS, best[:, k]).end)
        ends = np.argsort(-end, axis=1, kind="stable")[:, :4]
        np.testing.assert_array_equal(got.ends[:, k], ends)
        log_probs = np.take_along_axis(np.asarray(end), ends, axis=1)
        small.assert_close(np.exp(got.end_log_probs[:, k]), np.exp(log_probs))
    small.assert_close(got.answer_logits, logits(INPUTS, STARTS).answer)


def test_beams_are_no_wider_than_the_text():
    sizes = {"num_starts": 20, "num_ends": 9}
    got = jax.eval_shape(lambda inputs: beams(inputs, **sizes), INPUTS)
    assert got.starts.shape == (BATCH, TOKENS)
    assert got.ends.shape == (BATCH, TOKENS, TOKENS)


def test_without_answerability_the_spans_are_the_same():
    inputs = {name: value for name, value in INPUTS.items() if name != "cls_positions"}
    got = logits(inputs, STARTS, answerability=False)
    assert got.answer is None
    small.assert_close(got[:2], logits(INPUTS, STARTS)[:2])
    only_spans = jax.eval_shape(lambda inputs: beams(inputs, answerability=False), inputs)
    assert only_spans.answer_logits is None
    with pytest.raises(ValueError, match="answerability=True needs cls_positions, got None"):
        beams(inputs)


def test_more_padding_on_the_right_changes_nothing():
    ends = ((0, 0), (0, 4))
    fill = {"tokens": 0, "segment_ids": 3, "padding": True, "cannot_answer": True}
    longer = {name: np.pad(INPUTS[name], ends, constant_values=f) for name, f in fill.items()}
    longer["cls_positions"] = INPUTS["cls_positions"]
    got, wanted = logits(longer, STARTS), logits(INPUTS, STARTS)
    allowed = ~INPUTS["cannot_answer"]
    for name in ("start", "end"):
        one, other = getattr(got, name)[:, :TOKENS], getattr(wanted, name)
        small.assert_close(one[allowed], other[allowed])
    small.assert_close(got.answer, wanted.answer)
    sizes = {"num_starts": 3, "num_ends": 4}
    np.testing.assert_array_equal(beams(longer, **sizes).ends, beams(INPUTS, **sizes).ends)


def test_dropout_of_answerability_acts_in_training_alone():
    model = SpanExtractor(small.CONFIG, RunConfig(**small.EXACT | {"dropout": 0.5}))
    rngs = {"dropout": jax.random.key(0)}
    hidden = jnp.asarray(random.normal(size=(BATCH, TOKENS, small.CONFIG.d_model)), jnp.float32)

    def answer(model, train):
        cls_positions = jnp.asarray(INPUTS["cls_positions"])
        return model.answer_class(hidden, hidden[..., 0], cls_positions, train)

    @functools.partial(jax.jit, static_argnums=0)
    def answers(train):
        return model.apply(parameters(), train, rngs=rngs, method=answer)

    assert (np.abs(answers(True) - answers(False)) > 1e-5).all()
