"""Everything that must survive a stop, in one object."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, UInt32

from xlnet_jax.tasks.task import Task
from xlnet_jax.training import sharding


class Window(flax.struct.PyTreeNode):
    """Sums over the steps since the last report.

    `targets` is shown nowhere: it stays because every checkpoint so far has it, and one without
    could not be read beside them.
    """

    steps: Int[Array, ""]
    loss: Float[Array, ""]
    grad_norm: Float[Array, ""]
    targets: Float[Array, ""]

    @classmethod
    def empty(cls) -> Window:
        """No step yet."""
        return cls(jnp.zeros([], jnp.int32), *(jnp.zeros([], jnp.float32) for _ in range(3)))


class TrainState(flax.struct.PyTreeNode):
    """Parameters, optimizer state, memory, and the step.

    `step` counts finished steps and is also the whole data position: the next batch is a function
    of it. Randomness is a function of (seed, step), so no key is kept. `bad_step` is the first
    step whose loss or gradient was not finite, -1 if none; from there on nothing is updated.
    """

    step: Int[Array, ""]
    params: Any
    opt_state: Any
    memory: Float[Array, "Y B M D"] | None
    window: Window
    bad_step: Int[Array, ""]


def make_state(task: Task, optimizer: optax.GradientTransformation, seed: int) -> TrainState:
    """A fresh state; pure, so that it can run under jit or `jax.eval_shape`."""
    params = task.init_params(jax.random.key(seed))
    return TrainState(
        step=jnp.zeros([], jnp.int32),
        params=params,
        opt_state=optimizer.init(params),
        memory=task.init_memory(task.global_batch_size),
        window=Window.empty(),
        bad_step=jnp.full([], -1, jnp.int32),
    )


def state_shardings(state: TrainState, mesh: Mesh) -> TrainState:
    """Where each part of a state (of arrays or shapes) lives."""
    params = sharding.params_shardings(state.params, mesh)
    everywhere = jax.tree.map(lambda _: sharding.replicated(mesh), state)
    return everywhere.replace(
        params=params,
        opt_state=sharding.optimizer_shardings(state.opt_state, state.params, params, mesh),
        memory=None if state.memory is None else sharding.memory_sharding(mesh),
    )


def fingerprints(tree: Any) -> dict[str, UInt32[Array, ""]]:
    """A checksum of the bits of every leaf, by path.

    A sum modulo 2^32 of words, each mixed one-to-one with its index: a change within one word
    always changes it, swapped words do with near certainty, and integer sums are the same however
    the leaf is laid out over devices.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): _fingerprint(leaf) for path, leaf in leaves}


def _fingerprint(leaf: Array) -> UInt32[Array, ""]:
    unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[leaf.dtype.itemsize]
    words = jax.lax.bitcast_convert_type(leaf, unsigned).astype(jnp.uint32)
    index = jnp.zeros(words.shape, jnp.uint32)
    stride = 1
    for axis in reversed(range(words.ndim)):
        iota = jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
        index += iota * np.uint32(stride % 2**32)
        stride *= words.shape[axis]
    # The last steps of MurmurHash3; each is one-to-one on 32 bits.
    mixed = words + index * np.uint32(0x9E3779B9)
    mixed = (mixed ^ (mixed >> 16)) * np.uint32(0x85EBCA6B)
    mixed = (mixed ^ (mixed >> 13)) * np.uint32(0xC2B2AE35)
    return jnp.sum(mixed ^ (mixed >> 16), dtype=jnp.uint32)
