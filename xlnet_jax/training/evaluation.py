"""Held-out loss."""

from __future__ import annotations

import math
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from xlnet_jax.tasks.task import Params, Task
from xlnet_jax.training import sharding
from xlnet_jax.training.step import EvalSums, make_eval_step


class Evaluator:
    """Evaluates parameters on a task's held-out batches, each `batch_size` rows in all."""

    def __init__(self, task: Task, mesh: Mesh, batch_size: int):
        self._task, self._mesh, self._batch_size = task, mesh, batch_size
        self._rows = sharding.local_rows(mesh, batch_size)
        self._eval_step = jax.jit(make_eval_step(task), donate_argnums=1)

    def __call__(self, params: Params) -> dict[str, float]:
        """The mean loss over all targets of all held-out batches, memory carried.

        Raises ValueError if there are no targets.
        """
        everywhere = sharding.replicated(self._mesh)
        total, weight = (jax.device_put(np.float32(0), everywhere) for _ in range(2))
        memory = self._task.init_memory(self._batch_size)
        if memory is not None:
            memory = jax.device_put(memory, sharding.memory_sharding(self._mesh))
        sums = EvalSums(total, weight, memory)
        for batch in self._task.eval_batches(self._rows):
            sums = self._eval_step(params, sums, self._place(batch))
        if float(sums.weight) == 0:
            raise ValueError("the held-out data gave no targets; give more text in data.heldout")
        loss = float(sums.total) / float(sums.weight)
        return {"heldout_loss": loss, "heldout_perplexity": perplexity(loss)}

    def _place(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        return sharding.place_batch(batch, self._mesh)


def perplexity(loss: float) -> float:
    """exp(loss), cut off where it would say nothing."""
    return math.exp(min(loss, 50.0))
