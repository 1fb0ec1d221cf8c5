"""The best checkpoint by a held-out metric, kept apart from the newest ones."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import jax
from etils import epath

from xlnet_jax.training import agreement
from xlnet_jax.training.checkpoint import CheckpointConfig, Checkpointer
from xlnet_jax.training.state import TrainState

_LOWER_IS_BETTER = ("loss", "perplexity", "error")
_SUPERSEDED_FOLDER = "superseded_checkpoints"


def best_folder(workdir: str) -> str:
    """Where the best checkpoint of a work directory lives."""
    return os.fspath(epath.Path(workdir) / "best")


def is_better(metric: str, value: float, than: float) -> bool:
    """Whether a value of a metric is better: lower for losses and errors, else higher."""
    return value < than if metric.endswith(_LOWER_IS_BETTER) else value > than


class BestKeeper:
    """Saves a state whenever `checkpoint.best_metric` is better than ever before in this run.

    `step` is where the run begins or goes on. Better states of later steps, from before it was
    set back, are no longer of this run: they make way for its next best, and are deleted only
    when that is complete. One that is damaged is no best at all: `problem` says so, else it is "".
    """

    def __init__(self, workdir: str, config: CheckpointConfig, step: int):
        self._metric = config.best_metric
        alone = dataclasses.replace(config, keep=1, keep_every=0)
        self._checkpointer = Checkpointer(best_folder(workdir), alone) if self._metric else None
        self._superseded = epath.Path(best_folder(workdir)) / _SUPERSEDED_FOLDER
        self._best: float | None = None
        self.problem = ""
        self._beyond: list[int] = []
        if self._checkpointer:
            steps = agreement.of_process_0(self._checkpointer.steps())
            self._delete_superseded(steps)  # left by a run that was killed
            self._beyond = [later for later in steps if later > step]
            if kept := [earlier for earlier in steps if earlier <= step]:
                self._read(kept[-1])

    def _read(self, step: int) -> None:
        """Takes the metric of what is kept."""
        assert self._checkpointer is not None
        stored = self._checkpointer.stored(step)
        if isinstance(stored, str):
            self.problem = f"the best so far is not known: {stored}"
        else:
            self._best = stored["metrics"].get(self._metric)

    def offer(
        self, state: TrainState, metrics: Mapping[str, float], stored: Mapping[str, Any]
    ) -> bool:
        """Saves `state` if it is the best so far, and tells whether it did.

        Raises ValueError if the metric is none of those measured, OSError if saving fails.
        """
        if self._checkpointer is None:
            return False
        if self._metric not in metrics:
            raise ValueError(
                f"checkpoint.best_metric is {self._metric!r}; evaluation gives {sorted(metrics)}"
            )
        value = metrics[self._metric]
        if self._best is not None and not is_better(self._metric, value, self._best):
            return False
        self._best = value
        self._checkpointer.set_aside(self._beyond, _SUPERSEDED_FOLDER)
        self._beyond = []
        self._checkpointer.save(state, {**stored, "metrics": dict(metrics)})
        return True

    def close(self) -> None:
        """Waits for what is being written, then deletes what it supersedes."""
        if self._checkpointer is None:
            return
        with contextlib.closing(self._checkpointer):
            self._checkpointer.wait()
            self._delete_superseded(self._checkpointer.steps())

    def _delete_superseded(self, complete: list[int]) -> None:
        if complete and jax.process_index() == 0 and self._superseded.exists():
            self._superseded.rmtree()
