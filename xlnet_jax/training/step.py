"""Pure steps: (state, batch) -> state, and evaluation sums. No files, clocks or logging."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from xlnet_jax.model import dropout as row_dropout
from xlnet_jax.tasks.task import Batch, LossSum, Task
from xlnet_jax.training.state import TrainState, Window

TrainStep = Callable[[TrainState, Batch], TrainState]


class EvalSums(NamedTuple):
    """Sums over held-out batches so far, and the memory for the next one."""

    total: Float[Array, ""]
    weight: Float[Array, ""]
    memory: Array | None


def make_train_step(
    task: Task,
    optimizer: optax.GradientTransformation,
    *,
    seed: int,
    accumulation_steps: int = 1,
    report_every: int = 1,
    dropout: bool = True,
) -> TrainStep:
    """One update from one global batch.

    `state.window` starts anew behind every step that is a multiple of `report_every`.

    The loss is the mean over all targets of the global batch, also when it is worked off in
    `accumulation_steps` parts; dropout masks are those of the whole batch then too. A step whose
    loss or gradient norm is not finite changes nothing but `bad_step`.
    """

    def train_step(state: TrainState, batch: Batch) -> TrainState:
        key = jax.random.fold_in(jax.random.key(seed), state.step) if dropout else None
        gradients, sums = _gradients(task, state, batch, key, accumulation_steps)
        loss = sums.total * _share(sums.weight)
        grad_norm = optax.tree.norm(gradients)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        fresh = state.step % report_every == 0
        window = jax.tree.map(lambda w: jnp.where(fresh, jnp.zeros_like(w), w), state.window)
        new = state.replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            opt_state=opt_state,
            memory=sums.memory,
            window=Window(
                steps=window.steps + 1,
                loss=window.loss + loss,
                grad_norm=window.grad_norm + grad_norm,
                targets=window.targets + sums.weight,
            ),
        )
        good = jnp.isfinite(loss) & jnp.isfinite(grad_norm) & (state.bad_step < 0)
        stopped = state.replace(bad_step=state.step)  # which moves no further from here
        return jax.tree.map(lambda a, b: jnp.where(good, a, b), new, stopped)

    return train_step


def _share(weight: Float[Array, ""]) -> Float[Array, ""]:
    """What one target adds to a mean over targets of this weight."""
    return 1.0 / jnp.maximum(weight, 1.0)


def _gradients(
    task: Task, state: TrainState, batch: Batch, key: jax.Array | None, parts: int
) -> tuple[Any, LossSum]:
    """Gradient of the mean loss, over `parts` micro-batches one after another."""

    def loss_of(
        params: Any, batch: Batch, memory: Array | None, key: jax.Array | None
    ) -> tuple[Array, LossSum]:
        sums = task.loss(params, batch, memory, key)
        return sums.total, sums

    if parts == 1:
        # The mean's factor goes through the backward pass: all gradients are passed over once less.
        _, pull_back, sums = jax.vjp(
            lambda params: loss_of(params, batch, state.memory, key), state.params, has_aux=True
        )
        return pull_back(_share(sums.weight))[0], sums

    gradient_of = jax.grad(loss_of, has_aux=True)
    group = task.rows_per_group
    rows = _cut(jnp.arange(task.global_batch_size), parts, group)
    micro_batches = jax.tree.map(lambda x: _cut(x, parts, group), batch)

    def add(carry: Any, part: Any) -> tuple[Any, None]:
        sums, memories = carry
        number, micro_batch, rows = part
        with row_dropout.rows_numbered(rows):
            memory = _take(memories, number)
            gradients, own = gradient_of(state.params, micro_batch, memory, key)
        sums = jax.tree.map(jnp.add, sums, (gradients, own.total, own.weight))
        return (sums, _put(memories, own.memory, number)), None

    zeros = (jax.tree.map(jnp.zeros_like, state.params), jnp.zeros([]), jnp.zeros([]))
    memories = jax.tree.map(lambda x: _parted(x, parts, group, 1), state.memory)
    numbered = (jnp.arange(parts), micro_batches, rows)
    ((gradients, total, weight), memories), _ = jax.lax.scan(add, (zeros, memories), numbered)
    memory = jax.tree.map(lambda new, old: new.reshape(old.shape), memories, state.memory)
    gradients = jax.tree.map(lambda g: g * _share(weight), gradients)
    return gradients, LossSum(total, weight, memory)


def _parted(x: Array, parts: int, group: int, axis: int) -> Array:
    """[... B ...] -> [... B / (parts * group), parts, group ...]: which part a group of rows is of.

    Strided rather than in blocks, so that with rows cut over devices no row changes its device.
    """
    return x.reshape(*x.shape[:axis], -1, parts, group, *x.shape[axis + 1 :])


def _cut(x: Array, parts: int, group: int) -> Array:
    """[B ...] -> [parts, B / parts ...]: the rows of each part."""
    x = jnp.moveaxis(_parted(x, parts, group, 0), 1, 0)
    return x.reshape(parts, -1, *x.shape[3:])


def _take(memories: Array | None, number: Array) -> Float[Array, "Y b M D"] | None:
    """A part's memory out of that of all, [Y, b / group, parts, group, M, D]."""
    if memories is None:
        return None
    memory = jax.lax.dynamic_index_in_dim(memories, number, 2, keepdims=False)
    return memory.reshape(len(memory), -1, *memory.shape[3:])


def _put(memories: Array | None, memory: Array | None, number: Array) -> Array | None:
    """`memories` with that of a part in its place: a loop needs no second array of all."""
    if memories is None or memory is None:
        return None
    memory = memory.reshape(*memories.shape[:2], *memories.shape[3:])
    return jax.lax.dynamic_update_index_in_dim(memories, memory, number, 2)


def make_eval_step(task: Task) -> Callable[[Any, EvalSums, Batch], EvalSums]:
    """Adds one held-out batch: no dropout, memory carried from batch to batch."""

    def eval_step(params: Any, sums: EvalSums, batch: Batch) -> EvalSums:
        loss = task.loss(params, batch, sums.memory, None)
        return EvalSums(sums.total + loss.total, sums.weight + loss.weight, loss.memory)

    return eval_step
