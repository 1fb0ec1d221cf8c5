"""How good parameters are on held-out data: a mean loss, or predictions and their score."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from xlnet_jax.tasks.task import Params, PredictingTask, Task, can_predict
from xlnet_jax.training import sharding
from xlnet_jax.training.step import EvalSums, make_eval_step

SUSPICIOUS = "suspicious"  # a metric that is there, as 1, only if a task warned
Evaluate = Callable[[Params], dict[str, float]]


def make_evaluator(
    task: Task, mesh: Mesh, batch_size: int, say: Callable[[str], None] = lambda text: None
) -> Evaluate:
    """What judges parameters of a task; `batch_size` held-out rows in all at a time."""
    if can_predict(task):
        return Scorer(task, mesh, batch_size, say)
    return LossEvaluator(task, mesh, batch_size)


class LossEvaluator:
    """The mean loss over held-out batches, memory carried from one to the next."""

    def __init__(self, task: Task, mesh: Mesh, batch_size: int):
        self._task, self._mesh, self._batch_size = task, mesh, batch_size
        self._rows = sharding.local_rows(mesh, batch_size)
        total = weight = sharding.replicated(mesh)
        has_memory = jax.eval_shape(lambda: task.init_memory(batch_size)) is not None
        memory = sharding.memory_sharding(mesh) if has_memory else None
        places = EvalSums._make([total, weight, memory])
        step = sharding.on_mesh(make_eval_step(task), mesh)
        self._eval_step = jax.jit(step, donate_argnums=1, out_shardings=places)
        self._nothing = jax.jit(self._empty_sums, out_shardings=places)

    def __call__(self, params: Params) -> dict[str, float]:
        """The mean loss over all targets of all held-out batches.

        Raises ValueError if there are no targets.
        """
        sums = self._nothing()
        for batch in self._task.eval_batches(self._rows):
            sums = self._eval_step(params, sums, sharding.place_batch(batch, self._mesh))
        if float(sums.weight) == 0:
            raise ValueError("the held-out data gave no targets; give more text in data.heldout")
        loss = float(sums.total) / float(sums.weight)
        return {"heldout_loss": loss, "heldout_perplexity": perplexity(loss)}

    def _empty_sums(self) -> EvalSums:
        memory = self._task.init_memory(self._batch_size)
        return EvalSums(jnp.zeros([]), jnp.zeros([]), memory)


class Predictor:
    """Predictions for all features of a split, each exactly once, on all devices."""

    def __init__(self, task: PredictingTask, mesh: Mesh, batch_size: int):
        self._task, self._mesh = task, mesh
        self._rows = sharding.local_rows(mesh, batch_size)
        predict = sharding.on_mesh(task.predict, mesh)
        self._predict = jax.jit(predict, out_shardings=sharding.batch_sharding(mesh))

    def __call__(self, params: Params, split: str) -> dict[str, Any]:
        """By name, in the order of the features; see `tasks.task.PredictingTask`."""
        found: dict[str, dict[int, np.ndarray]] = {}
        for batch in self._task.predict_batches(split, self._rows):
            placed = sharding.place_batch(batch, self._mesh)
            outputs = dict(self._predict(params, placed), index=placed["index"])
            outputs = sharding.fetch(outputs)
            index = outputs.pop("index")
            for name, values in outputs.items():
                of_name = found.setdefault(name, {})
                of_name.update((int(i), v) for i, v in zip(index, values, strict=True) if i >= 0)
        return {name: _in_order(values) for name, values in found.items()}


class Scorer:
    """Scores of every labelled split that a task is evaluated on."""

    def __init__(
        self, task: PredictingTask, mesh: Mesh, batch_size: int, say: Callable[[str], None]
    ):
        self._task, self._say = task, say
        self._predictor = Predictor(task, mesh, batch_size)

    def __call__(self, params: Params) -> dict[str, float]:
        """Metrics as SPLIT_NAME; a suspicious result is said."""
        metrics: dict[str, float] = {}
        for split in self._task.eval_splits:
            predictions = self._predictor(params, split)
            scores = self._task.score(split, predictions)
            metrics |= {f"{split}_{name}": value for name, value in scores.items()}
            if warning := self._task.warning(split, predictions):
                self._say(f"warning: {split}: {warning}")
                metrics[f"{split}_{SUSPICIOUS}"] = 1.0
        return metrics


def _in_order(values: dict[int, np.ndarray]) -> Any:
    """One array if all entries are of one shape, else a list."""
    ordered = [values[index] for index in range(len(values))]
    same = len({value.shape for value in ordered}) <= 1
    return np.stack(ordered) if ordered and same else ordered


def perplexity(loss: float) -> float:
    """exp(loss), cut off where it would say nothing."""
    return math.exp(min(loss, 50.0))
