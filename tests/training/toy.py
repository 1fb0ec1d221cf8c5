"""A task that compiles in a moment: a recurrent regression with weights, memory and dropout."""

import jax
import jax.numpy as jnp
import numpy as np

from xlnet_jax.model import dropout
from xlnet_jax.tasks.task import LossSum

WIDTH = 3


class ToyTask:
    tokens_per_example = 4
    flops_per_example = 100.0
    steps_per_epoch = 5

    def __init__(self, global_batch_size=8, rows_per_group=1, poisoned_step=-1):
        self.global_batch_size = global_batch_size
        self.rows_per_group = rows_per_group
        self.poisoned_step = poisoned_step

    def init_params(self, key):
        kernel = 0.5 * jax.random.normal(key, (WIDTH, WIDTH))
        return {"dense": {"kernel": kernel, "bias": jnp.zeros(WIDTH)}, "out": jnp.ones(WIDTH)}

    def init_memory(self, batch_size):
        return jnp.zeros((1, batch_size, 1, WIDTH))

    def batch(self, step):
        random = np.random.default_rng([7, step])
        size = self.global_batch_size
        x = random.normal(size=(size, WIDTH)).astype(np.float32)
        if step == self.poisoned_step:
            x[0, 0] = np.inf
        return {
            "x": x,
            "y": x.sum(axis=1),
            # Sums of weights differ from row to row, and so between micro-batches.
            "weight": random.integers(0, 4, size).astype(np.float32),
        }

    def train_batches(self, start_step, rows):
        step = start_step
        while True:
            yield {name: array[rows] for name, array in self.batch(step).items()}
            step += 1

    def eval_batches(self, rows):
        for step in range(10**6, 10**6 + 2):
            yield {name: array[rows] for name, array in self.batch(step).items()}

    def loss(self, params, batch, memory, dropout_key):
        hidden = batch["x"] @ params["dense"]["kernel"] + params["dense"]["bias"]
        hidden = jnp.tanh(hidden + 0.5 * memory[0, :, 0])
        shown = hidden
        if dropout_key is not None:
            shown = dropout.dropout(hidden, 0.5, dropout.dropout_seed(dropout_key))
        losses = (shown @ params["out"] - batch["y"]) ** 2
        weights = batch["weight"]
        if self.rows_per_group == 2:  # pairs that come apart would change the loss
            losses = losses * (1 + losses.reshape(-1, 2)[:, ::-1].reshape(-1))
        memory = jax.lax.stop_gradient(hidden)[None, :, None]
        return LossSum((losses * weights).sum(), weights.sum(), memory)
