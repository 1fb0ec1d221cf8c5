"""Who influences whom, proven by gradients through the real network of two layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.model import small
from xlnet_jax.model import visibility
from xlnet_jax.model.config import RunConfig

RUN = RunConfig(**small.EXACT)
WITH_MEMORY = RunConfig(**small.EXACT, mem_len=small.MEMORY, reuse_len=4, bi_data=True)


def influence(run, params, tokens, inputs):
    """[B, I, V] is d loss of row i / d embedding of the word not zero?; and d memory, d new memory.

    All tokens of the batch differ, so a word is a place in the batch. The table of the output is
    another one, so that embeddings act as input alone.
    """
    table = jax.random.normal(jax.random.key(5), (small.CONFIG.n_token, small.CONFIG.d_model))

    def losses(embedding, memory):
        changed = {"params": params["params"] | {"word_embedding": embedding}}
        output = small.apply(run, changed, tokens, memory=memory, **inputs)
        logits = output.hidden @ table.T
        return jax.nn.logsumexp(logits, axis=-1) - logits[..., 0], output.memory

    embedding = params["params"]["word_embedding"]
    memory = inputs.pop("memory", None)
    values, pullback, new_memory = jax.vjp(losses, embedding, memory, has_aux=True)
    one_hot = jnp.eye(values.size).reshape(values.size, *values.shape)
    d_embedding, d_memory = jax.vmap(pullback)(one_hot)
    acts = jnp.any(d_embedding != 0, axis=-1).reshape(*values.shape, -1)
    kept_gradient = None
    if new_memory is not None:
        kept_gradient = jax.grad(lambda e: losses(e, memory)[1].sum())(embedding)
    return acts, d_memory, kept_gradient


influence = jax.jit(influence, static_argnums=0)


def expected(tokens, may_act):
    """[B, I, V] from [B, I, T]: words of the own row where they may act, none of other rows."""
    wanted = np.zeros((*may_act.shape[:2], small.CONFIG.n_token), bool)
    for b, i, j in zip(*np.nonzero(may_act), strict=True):
        wanted[b, i, tokens[b, j]] = True
    return wanted


def an_order(seed):
    random = np.random.default_rng(seed)
    tokens = random.permutation(small.BATCH * small.TOKENS).reshape(small.BATCH, -1)
    ranks, targets = small.random_order(random)
    return tokens, ranks, targets, small.random_memory(random)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("run", [RUN, WITH_MEMORY], ids=["alone", "memory and two directions"])
def test_a_prediction_depends_on_lower_ranks_alone(run, seed):
    tokens, ranks, targets, memory = an_order(seed)
    inputs = {
        "visible": visibility.content_visibility(ranks),
        "query_tokens": targets,
        "query_visible": visibility.query_visibility(ranks, targets),
    }
    if run.mem_len:
        inputs["memory"] = memory
    acts, d_memory, kept_gradient = influence(run, small.parameters(), tokens, inputs)
    # Also over both layers: what a visible token has seen itself has a still lower rank.
    own = np.take_along_axis(np.asarray(ranks), np.asarray(targets), axis=1)
    may_act = np.asarray(ranks)[:, None, :] < own[:, :, None]
    np.testing.assert_array_equal(acts, expected(tokens, may_act))
    if run.mem_len:
        assert not d_memory.any()
        assert not kept_gradient.any()


@pytest.mark.parametrize("seed", range(3))
def test_a_content_row_depends_on_ranks_up_to_its_own(seed):
    tokens, ranks, _, _ = an_order(seed)
    inputs = {"visible": visibility.content_visibility(ranks)}
    acts, _, _ = influence(RUN, small.parameters(), tokens, inputs)
    may_act = np.asarray(ranks)[:, None, :] <= np.asarray(ranks)[:, :, None]
    np.testing.assert_array_equal(acts, expected(tokens, may_act))


def test_a_token_sees_itself_and_padding_is_seen_by_itself_alone():
    tokens, _, _, _ = an_order(0)
    padding = np.zeros(tokens.shape, bool)
    padding[0, :2] = padding[1, -1:] = True
    nobody = np.zeros((small.BATCH, small.TOKENS, small.TOKENS), bool)
    myself = np.broadcast_to(np.eye(small.TOKENS, dtype=bool), nobody.shape)
    for visible, may_act in ((nobody, myself), (~nobody, ~padding[:, None] | myself)):
        inputs = {"visible": visible, "padding": padding}
        acts, _, _ = influence(RUN, small.parameters(), tokens, inputs)
        np.testing.assert_array_equal(acts, expected(tokens, may_act))


def test_memory_acts_though_it_takes_no_gradient():
    inputs = small.two_stream_inputs()
    memory = inputs.pop("memory")
    outputs = [
        small.apply(WITH_MEMORY, small.parameters(), **inputs, memory=memory.at[layer, 0].add(1.0))
        for layer in (slice(0), 0, 1)
    ]
    for other in outputs[1:]:
        changed = np.abs(other.hidden - outputs[0].hidden).max(axis=-1)
        assert (changed[0] > 1e-3).all()  # every query of the first example
        assert not changed[1].any()  # none of the second
