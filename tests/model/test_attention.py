"""The attention core and its hand-written backward pass, next to plain definitions."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xlnet_jax.model import attention, core, dropout, layout
from xlnet_jax.model.attention import HeadBiases, Rows, relative_attention


class Form(NamedTuple):
    """Sizes of one case, and what is in force."""

    directions: int
    batch: int  # rows of one direction
    num_tokens: int
    mem_len: int
    predicted: int | None  # rows of a query stream; None: content rows
    restricted: bool  # visibility and segments
    rate: float = 0.0


HEADS, HEAD_SIZE = 2, 4
FORMS = {
    "content, more tokens than a block": Form(1, 1, 130, 3, None, True),
    "content, two directions, dropout": Form(2, 2, 5, 3, None, True, 0.3),
    "content, nothing in force": Form(1, 2, 4, 0, None, False),
    "query, two directions, dropout": Form(2, 2, 5, 3, 4, True, 0.3),
    "query, one direction": Form(1, 2, 6, 0, 2, True),
}


def random_inputs(form, head_size=HEAD_SIZE):
    """Arguments of `core.attend` but `rate`."""
    random = np.random.default_rng(0)
    G, b, T, S = form.directions, form.batch, form.num_tokens, form.mem_len + form.num_tokens
    rows = T if form.predicted is None else form.predicted

    def normal(*shape):
        return jnp.asarray(random.normal(size=shape), jnp.float32)

    q_content, q_position = (normal(G, HEADS, b, rows, head_size) for _ in "cp")
    k, v = (normal(G, HEADS, b, S, head_size) for _ in "kv")
    r = normal(G, HEADS, S + T, head_size)
    step = visible = other = tokens = None
    if form.restricted:
        step = normal(G, HEADS, b, rows)
        visible = jnp.asarray(random.random((G, 1, b, rows, S)) < 0.6)
        visible = visible.at[0, 0, 0, 1].set(False)  # a row that sees nothing
        other = jnp.asarray(random.random((G, 1, b, rows, S)) < 0.5)
    if form.predicted is not None:
        tokens = jnp.asarray(random.integers(0, T, (G * b, rows)))
    seed = dropout.no_rows(jnp.asarray([1, 2], jnp.uint32), 5) if form.rate else None
    return q_content, q_position, k, v, r, step, core.Masks(visible, other, tokens, seed)


def plain_attend(q_content, q_position, k, v, r, step, masks, rate):
    """The definition, one gather and one softmax; batch rows alternate between directions."""
    directions, _, batch, rows, _ = q_content.shape
    num_keys = k.shape[-2]
    num_tokens = r.shape[-2] - num_keys
    tokens = masks.tokens
    if tokens is None:
        tokens = np.broadcast_to(np.arange(rows), (batch * directions, rows))
    scores = jnp.einsum("gnbih,gnbjh->gnbij", q_content, k)
    needed = num_tokens - tokens[..., None] + np.arange(num_keys)  # [B, I, S], rows of r
    needed = needed.reshape(batch, directions, rows, num_keys)
    for g in range(directions):
        codes = r[g][:, needed[:, g]]  # [N, b, I, S, H]
        scores = scores.at[g].add(jnp.einsum("nbih,nbijh->nbij", q_position[g], codes))
    if step is not None:
        scores += jnp.where(masks.other_segment, step[..., None], 0)
    if masks.visible is not None:
        scores += jnp.where(masks.visible, 0, -1e30)
    probabilities = jax.nn.softmax(scores, axis=-1)
    if masks.seed is not None:
        kept = dropout.keep_mask(masks.seed, scores.shape, rate)
        probabilities = jnp.where(kept, probabilities / (1 - rate), 0)
    return jnp.einsum("gnbij,gnbjh->gnbih", probabilities, v)


def assert_close(got, wanted, tolerance=1e-5):
    """Relative to the largest value of the array."""
    assert got.shape == wanted.shape
    assert np.abs(np.asarray(got) - wanted).max() <= tolerance * np.abs(wanted).max()


@functools.partial(jax.jit, static_argnums=(0, 1))
def value_and_gradients(attend, rate, weights, masks, *arrays):
    def weighted(*arrays):
        out = attend(*arrays, masks, rate)
        return (out * weights).sum(), out

    return jax.grad(weighted, argnums=tuple(range(len(arrays))), has_aux=True)(*arrays)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_value_and_gradients_are_those_of_the_definition(form):
    *arrays, masks = random_inputs(form)
    weights = jnp.asarray(np.random.default_rng(1).normal(size=arrays[0].shape), jnp.float32)
    got, wanted = (
        value_and_gradients(attend, form.rate, weights, masks, *arrays)
        for attend in (core.attend, plain_attend)
    )
    assert_close(got[1], wanted[1])
    names = ("q_content", "q_position", "k", "v", "r", "step")
    for name, gradient, plain in zip(names, got[0], wanted[0], strict=True):
        if plain is None:
            assert gradient is None, name
        else:
            assert_close(gradient, plain)


def test_a_row_that_sees_nothing_averages_over_all_keys():
    # As in the original, where -1e30 swallows every score.
    *arrays, masks = random_inputs(FORMS["query, one direction"])
    out = core.attend(*arrays, masks, 0.0)
    v = arrays[3]
    np.testing.assert_allclose(out[0, :, 0, 1], v[0, :, 0].mean(axis=1), rtol=1e-5, atol=1e-6)


def plain_attention(q, k, v, r, biases, visible, segments, tokens):
    """The equations on top of attention.py, number by number in float64."""
    batch, rows, heads, size = q.shape
    num_keys, num_tokens = k.shape[1], r.shape[1] - k.shape[1]
    own, of_keys = segments
    out = np.zeros(q.shape)
    for b, i, n in np.ndindex(batch, rows, heads):
        scores = np.zeros(num_keys)
        for j in range(num_keys):
            code = r[b % len(r), num_tokens - tokens[b, i] + j, n]
            same_or_other = biases.seg_embed[int(own[b, i] != of_keys[b, j]), n]
            scores[j] = (
                (q[b, i, n] + biases.r_w_bias[n]) @ k[b, j, n]
                + (q[b, i, n] + biases.r_r_bias[n]) @ code
                + (q[b, i, n] + biases.r_s_bias[n]) @ same_or_other
            ) / np.sqrt(size)
            if not visible[b, i, j]:
                scores[j] = -np.inf
        powers = np.exp(scores - scores.max())
        out[b, i, n] = powers @ v[b, :, n] / powers.sum()
    return out


def random_rows(stream, directions, heads):
    """Arguments of `relative_attention`, float64, and the segments of rows and of keys."""
    random = np.random.default_rng(3)
    batch, num_tokens, num_keys, size = 4, 4, 6, 3
    tokens = np.broadcast_to(np.arange(num_tokens), (batch, num_tokens))
    if stream == "query":
        tokens = random.integers(0, num_tokens, (batch, 3))
    rows = tokens.shape[1]
    q = random.normal(size=(batch, rows, heads, size))
    k, v = random.normal(size=(2, batch, num_keys, heads, size))
    r = random.normal(size=(directions, num_keys + num_tokens, heads, size))
    biases = HeadBiases(*random.normal(size=(3, heads, size)), random.normal(size=(2, heads, size)))
    visible = random.random((batch, rows, num_keys)) < 0.6
    visible[..., 0] = True
    segments = random.integers(0, 3, (batch, rows)), random.integers(0, 3, (batch, num_keys))
    other = segments[0][:, :, None] != segments[1][:, None, :]
    masks = Rows(visible, other, tokens if stream == "query" else None)
    return (q, k, v, r, biases), masks, segments, tokens


def on_device(arrays, masks):
    singles = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), arrays)
    return *singles, jax.tree.map(jnp.asarray, masks)


@pytest.mark.parametrize("stream", ["content", "query"])
@pytest.mark.parametrize("directions", [1, 2])
def test_relative_attention_is_its_equations(stream, directions):
    arrays, masks, segments, tokens = random_rows(stream, directions, heads=2)
    got = jax.jit(relative_attention)(*on_device(arrays, masks))
    assert_close(got, plain_attention(*arrays, masks.visible, segments, tokens))


@pytest.mark.parametrize("stream", ["content", "query"])
@pytest.mark.parametrize("directions", [1, 2])
def test_heads_in_groups_give_what_all_heads_give(stream, directions, monkeypatch):
    """Output, gradients and dropout masks. (On one CPU, if the scores of all would be large.)"""
    *arrays, rows = on_device(*random_rows(stream, directions, heads=6)[:2])
    seed = jnp.asarray([1, 2], jnp.uint32)

    def traced():
        def total(arrays):  # anew each time: JAX would find an earlier program of the same one
            out = relative_attention(*arrays, rows, rate=0.4, seed=seed)
            return (out * jnp.cos(jnp.arange(out.size).reshape(out.shape))).sum(), out

        return jax.jit(jax.value_and_grad(total, has_aux=True)).trace(arrays)

    def run(traced):
        return traced.lower().compile()(arrays)

    num_products = str(traced().jaxpr).count("dot_general")
    together = run(traced())
    monkeypatch.setattr(attention, "_SCORES", 4 * 4 * 6)  # of the content rows of a head
    for cores, groups in ((1000, 1), (2, 3), (1, 6)):
        with layout.cut_by(layout.Layout(cpu_cores=cores)):
            assert str(traced().jaxpr).count("dot_general") == groups * num_products
            jax.tree.map(assert_close, run(traced()), together)
