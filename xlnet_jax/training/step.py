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
    rows = _cut(jnp.arange(task.global_batch_size), parts, group, 0)
    micro_batches = jax.tree.map(lambda x: _cut(x, parts, group, 0), batch)
    memories = None if state.memory is None else _cut(state.memory, parts, group, 1)

    def add(carry: Any, part: Any) -> tuple[Any, Array | None]:
        micro_batch, memory, rows = part
        with row_dropout.rows_numbered(rows):
            gradients, sums = gradient_of(state.params, micro_batch, memory, key)
        carry = jax.tree.map(jnp.add, carry, (gradients, sums.total, sums.weight))
        return carry, sums.memory

    zeros = (jax.tree.map(jnp.zeros_like, state.params), jnp.zeros([]), jnp.zeros([]))
    (gradients, total, weight), memories = jax.lax.scan(add, zeros, (micro_batches, memories, rows))
    memory = None if memories is None else _join(memories, group, 1)
    gradients = jax.tree.map(lambda g: g * _share(weight), gradients)
    return gradients, LossSum(total, weight, memory)


def _cut(x: Array, parts: int, group: int, axis: int) -> Array:
    """[... B ...] -> [parts, ... B / parts ...]; every `parts`-th group of rows, in order.

    Strided rather than in blocks, so that with rows cut over devices no row changes its device.
    """
    shape = (*x.shape[:axis], -1, parts, group, *x.shape[axis + 1 :])
    x = jnp.moveaxis(x.reshape(shape), axis + 1, 0)
    return x.reshape(parts, *x.shape[1 : axis + 1], -1, *x.shape[axis + 3 :])


def _join(x: Array, group: int, axis: int) -> Array:
    """The inverse of `_cut`."""
    x = x.reshape(*x.shape[: axis + 1], -1, group, *x.shape[axis + 2 :])
    x = jnp.moveaxis(x, 0, axis + 1)
    return x.reshape(*x.shape[:axis], -1, *x.shape[axis + 3 :])


def make_eval_step(task: Task) -> Callable[[Any, EvalSums, Batch], EvalSums]:
    """Adds one held-out batch: no dropout, memory carried from batch to batch."""

    def eval_step(params: Any, sums: EvalSums, batch: Batch) -> EvalSums:
        loss = task.loss(params, batch, sums.memory, None)
        return EvalSums(sums.total + loss.total, sums.weight + loss.weight, loss.memory)

    return eval_step
