"""The order of things, and all side effects."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any

import jax
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from xlnet_jax.tasks.task import Params, Task
from xlnet_jax.training import sharding
from xlnet_jax.training.best import BestKeeper
from xlnet_jax.training.checkpoint import Checkpointer
from xlnet_jax.training.evaluation import perplexity
from xlnet_jax.training.optimizer import Schedule
from xlnet_jax.training.reporting import Reporter
from xlnet_jax.training.settings import Settings
from xlnet_jax.training.state import TrainState, Window
from xlnet_jax.training.step import TrainStep


def due(step: int, every: int, last: int) -> bool:
    """Whether something done every `every` steps (0: never), and at the last one, is due."""
    return every > 0 and (step % every == 0 or step == last)


class Loop:
    """Trains until `train.steps`, or until SIGTERM asks to stop."""

    def __init__(
        self,
        settings: Settings,
        task: Task,
        mesh: Mesh,
        train_step: TrainStep,
        evaluate: Callable[[Params], dict[str, float]] | None,
        schedule: Schedule,
        checkpointer: Checkpointer,
        best: BestKeeper,
        reporter: Reporter,
        stored: Mapping[str, Any],
        peak_flops: float,
    ):
        self.settings, self.task, self.mesh = settings, task, mesh
        self.train_step, self.evaluate, self.schedule = train_step, evaluate, schedule
        self.checkpointer, self.reporter, self.stored = checkpointer, reporter, stored
        self.best, self.peak_flops = best, peak_flops
        self.metrics: dict[str, float] = {}  # of the last evaluation
        self.stopped = False  # by SIGTERM
        self._mark = (time.perf_counter(), 0)  # when, and at which step, throughput was last taken
        self._paused = 0.0  # seconds since then spent on evaluation and saving

    def run(self, state: TrainState) -> TrainState:
        """The whole run, from wherever `state` stands.

        The order in a step: fetch the batch, update, report, evaluate, save, stop if asked to. The
        batch is a function of the step, so a save at any place in this order resumes the same.

        Raises FloatingPointError if a loss or gradient is not finite, OSError if a save fails, and
        what the data raise where they are damaged.
        """
        train, report = self.settings.train, self.settings.report
        first, last = int(state.step), train.steps
        step = first
        rows = sharding.local_rows(self.mesh, self.task.global_batch_size)
        batches = self.task.train_batches(step, rows)
        with _stop_signal() as asked_to_stop, contextlib.closing(batches):
            while step < last and not self.stopped:
                self.reporter.profile(step)
                with self._saved_if_unreadable(state, first):
                    batch = sharding.place_batch(next(batches), self.mesh)
                state = self.train_step(state, batch)
                step += 1
                self.reporter.progress(step)
                if step == first + 1:
                    jax.block_until_ready(state.step)  # compilation counts for no throughput
                    self._mark = (time.perf_counter(), step)
                self.checkpointer.check()
                self.stopped = asked_to_stop(step)
                if due(step, report.log_every, last):
                    self._report(state, step)
                if self.evaluate and due(step, train.eval_every, last):
                    with self._pause(), self._saved_if_unreadable(state, first):
                        self._evaluate(state, step)
                if due(step, self.settings.checkpoint.save_every, last) or self.stopped:
                    with self._pause():
                        self._check_finite(state)
                        self.checkpointer.save(state, self.stored)
            self.checkpointer.wait()
            if step > first and not self.stopped:
                self.reporter.say(f"step {step:,} is saved in {self.checkpointer.directory}")
            if self.stopped:
                self.reporter.say(f"SIGTERM: stopped at step {step:,}; all of it is saved")
        return state

    def _evaluate(self, state: TrainState, step: int) -> None:
        assert self.evaluate is not None
        self.metrics = self.evaluate(state.params)
        self.reporter.write(step, self.metrics)
        self._check_finite(state)
        if self.best.offer(state, self.metrics, self.stored):
            self.reporter.say(f"step {step:,} is the best so far")

    def _report(self, state: TrainState, step: int) -> None:
        window: Window = jax.device_get(state.window)  # waits for the device
        self._check_finite(state)
        now = time.perf_counter()
        seconds = max(now - self._mark[0] - self._paused, 1e-9)
        examples = (step - self._mark[1]) * self.task.global_batch_size
        self._mark, self._paused = (now, step), 0.0
        with self._pause():  # the schedule, too: its first call compiles
            self.reporter.write(step, self._metrics(step, window, examples, seconds))

    def _metrics(
        self, step: int, window: Window, examples: int, seconds: float
    ) -> dict[str, float]:
        loss = float(window.loss / window.steps)
        metrics = {
            "epoch": step / self.task.steps_per_epoch,
            "loss": loss,
            "perplexity": perplexity(loss),
            "grad_norm": float(window.grad_norm / window.steps),
            "learning_rate": float(self.schedule(step - 1)),
        }
        if examples:  # none if the one step since the start was the one that compiled
            metrics["tokens_per_second"] = examples * self.task.tokens_per_example / seconds
            flops = examples * self.task.flops_per_example
            metrics["mfu"] = flops / seconds / self.peak_flops
        return metrics

    def _check_finite(self, state: TrainState) -> None:
        bad_step = int(state.bad_step)
        if bad_step >= 0:
            self.checkpointer.wait()
            saved = self.checkpointer.steps()
            good = f"the last good checkpoint is step {saved[-1]}" if saved else "no checkpoint yet"
            raise FloatingPointError(
                f"loss or gradient is not finite at step {bad_step}; {good} in"
                f" {self.checkpointer.directory}. Run again with a lower"
                " config.optimizer.learning_rate or more config.optimizer.warmup_steps:"
                f" it {'goes on from there' if saved else 'starts anew'}"
            )

    @contextlib.contextmanager
    def _saved_if_unreadable(self, state: TrainState, first: int) -> Iterator[None]:
        """Where the data turn out to be damaged, what was trained since step `first` is saved.

        Not with several processes: the others are not there to save with.
        """
        try:
            yield
        except (ValueError, OSError):
            step = int(state.step)
            if step > first and jax.process_count() == 1:
                self._check_finite(state)
                self.checkpointer.save(state, self.stored)
                self.checkpointer.wait()
                self.reporter.say(f"stopped at step {step:,} by what follows; all of it is saved")
            raise

    @contextlib.contextmanager
    def _pause(self) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self._paused += time.perf_counter() - start


@contextlib.contextmanager
def _stop_signal() -> Iterator[Callable[[int], bool]]:
    """While inside, SIGTERM only raises a flag, which the yielded function of the step tells.

    With several processes it tells so on all of them, of the same step, whichever got the signal;
    JAX has been noting it since the processes met.
    """
    if jax.process_count() > 1:
        yield multihost_utils.reached_preemption_sync_point
        return
    asked: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        asked.append(number)

    previous = signal.signal(signal.SIGTERM, note)
    try:
        yield lambda step: bool(asked)
    finally:
        signal.signal(signal.SIGTERM, previous)
