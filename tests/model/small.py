"""A network of two layers that compiles in seconds, and inputs for it."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from xlnet_jax.model import visibility
from xlnet_jax.model.config import RunConfig, XLNetConfig
from xlnet_jax.model.transformer import XLNet

TOKENS, PREDICTED, MEMORY, BATCH = 6, 3, 4, 2
CONFIG = XLNetConfig(
    n_token=BATCH * TOKENS + 3,  # so that all tokens of a batch may differ
    d_model=8,
    n_layer=2,
    n_head=2,
    d_head=4,
    d_inner=10,
    ff_activation="gelu",
)
EXACT: dict[str, Any] = {"dropout": 0.0, "activation_dropout": 0.0, "attention_dropout": 0.0}


@functools.cache
def parameters():
    """Of XLNet with both streams, none at a trivial value."""
    tokens = jnp.zeros((2, 2), jnp.int32)
    model = XLNet(CONFIG, RunConfig(init_std=0.4))
    params = jax.jit(model.init)(jax.random.key(0), tokens, query_tokens=tokens)["params"]
    random = np.random.default_rng(0)
    return {"params": jax.tree.map(lambda x: x + 0.1 * random.normal(size=x.shape), params)}


@functools.partial(jax.jit, static_argnums=0, static_argnames=("train", "all_layers"))
def apply(run, params, tokens, *, rngs=None, train=False, all_layers=False, **inputs):
    options = {"train": train, "all_layers": all_layers}
    return XLNet(CONFIG, run).apply(params, tokens, rngs=rngs, **options, **inputs)


def random_order(random):
    """Ranks of both rows: three tokens predicted, one after the other; the others are given."""
    targets = np.stack([random.permutation(TOKENS)[:PREDICTED] for _ in range(BATCH)])
    ranks = np.full((BATCH, TOKENS), -1)
    for row in range(BATCH):
        ranks[row, targets[row]] = random.permutation(PREDICTED)
    return jnp.asarray(ranks), jnp.asarray(np.sort(targets, axis=1))


def random_memory(random):
    shape = (CONFIG.n_layer, BATCH, MEMORY, CONFIG.d_model)
    return jnp.asarray(random.normal(size=shape), jnp.float32)


def two_stream_inputs(seed=0):
    """Tokens that all differ, and everything else that a pretraining pass takes, memory too."""
    random = np.random.default_rng(seed)
    ranks, targets = random_order(random)
    return {
        "tokens": jnp.asarray(random.permutation(BATCH * TOKENS).reshape(BATCH, TOKENS)),
        "segment_ids": jnp.asarray(np.sort(random.integers(0, 3, (BATCH, TOKENS)), axis=1)),
        "visible": visibility.content_visibility(ranks),
        "query_tokens": targets,
        "query_visible": visibility.query_visibility(ranks, targets),
        "memory": random_memory(random),
    }


def random_parameters(model, *args, **inputs):
    """Of any module, none at a trivial value, and nothing is compiled to make them."""
    shapes = jax.eval_shape(functools.partial(model.init, jax.random.key(0)), *args, **inputs)
    random = np.random.default_rng(1)

    def fill(path, leaf):
        values = jnp.asarray(random.normal(size=leaf.shape) * 0.4, jnp.float32)
        return values + 1 if path[-1].key == "scale" else values

    # What is kept by callers must not belong to a trace in which it happened to be asked for first.
    with jax.ensure_compile_time_eval():
        return jax.tree_util.tree_map_with_path(fill, shapes)


def assert_close(got, wanted, tolerance=1e-5):
    """Leaf by leaf, relative to the largest value of each."""
    assert jax.tree.structure(got) == jax.tree.structure(wanted)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
        assert one.shape == other.shape
        assert np.abs(one - other).max() <= tolerance * np.abs(other).max() + 1e-30
