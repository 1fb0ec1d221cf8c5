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
    """Sums over the steps since the last report."""

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
    """Where each part of the state lives."""
    everywhere = jax.tree.map(lambda _: sharding.replicated(mesh), state)
    if state.memory is None:
        return everywhere
    return everywhere.replace(memory=sharding.memory_sharding(mesh))


def fingerprints(tree: Any) -> dict[str, UInt32[Array, ""]]:
    """A checksum of the bits of every leaf, by path.

    A sum modulo 2^32 of words weighted by an odd hash of their index: any single changed bit
    changes it, and integer sums are the same however the leaf is laid out over devices.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): _fingerprint(leaf) for path, leaf in leaves}


def _fingerprint(leaf: Array) -> UInt32[Array, ""]:
    words = jax.lax.bitcast_convert_type(
        leaf, {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[leaf.dtype.itemsize]
    ).astype(jnp.uint32)
    index = jnp.zeros(words.shape, jnp.uint32)
    for axis, stride in enumerate(np.cumprod((1, *words.shape[:0:-1]))[::-1] if words.ndim else ()):
        iota = jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
        index += iota * np.uint32(int(stride) % 2**32)
    weight = ((index * np.uint32(0x9E3779B9)) ^ (index >> 15)) | np.uint32(1)
    return jnp.sum(words * weight, dtype=jnp.uint32)
