"""From a config to a running job: what `xlnet-jax train` and `evaluate` do."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from xlnet_jax.tasks.pretraining import PretrainingTask, unigram_entropy
from xlnet_jax.tasks.task import Params
from xlnet_jax.training import reporting, setup, sharding, workdir
from xlnet_jax.training.checkpoint import Checkpointer, Restored, abstract_state
from xlnet_jax.training.evaluation import Evaluator
from xlnet_jax.training.loop import Loop
from xlnet_jax.training.optimizer import make_optimizer, make_schedule
from xlnet_jax.training.settings import Settings, parse
from xlnet_jax.training.state import TrainState, make_state, state_shardings
from xlnet_jax.training.step import TrainStep, make_train_step

Stored = Mapping[str, Any]


def train(config: Mapping[str, Any], folder: str) -> TrainState:
    """Trains in `folder`, resuming what is there.

    Raises ValueError or OSError for wrong input, FloatingPointError if training diverges.
    """
    # 1. The config, checked as a whole, before anything is made or read.
    settings = parse(config)
    with workdir.claim(folder):
        # 2. The data, compared with the config and with each other.
        task = setup.make_task(settings)
        # 3. Where things live.
        mesh = setup.make_mesh(settings, task)
        stored = {"config": _plain(config), "data": task.identity()}
        with contextlib.closing(Checkpointer(folder, settings.checkpoint)) as checkpointer:
            return _train(settings, stored, folder, task, mesh, checkpointer)


def _train(
    settings: Settings,
    stored: Stored,
    folder: str,
    task: PretrainingTask,
    mesh: Mesh,
    checkpointer: Checkpointer,
) -> TrainState:
    shapes = jax.eval_shape(task.init_params, jax.random.key(settings.seed))
    optimizer = make_optimizer(settings.optimizer, settings.train.steps, shapes)
    # 4. The state: this workdir's newest whole checkpoint, else from scratch.
    new_state = functools.partial(make_state, task, optimizer, settings.seed)
    abstract = jax.eval_shape(new_state)
    shardings = state_shardings(abstract, mesh)
    restored = checkpointer.restore(
        abstract_state(abstract, shardings), check=functools.partial(_check_run, stored)
    )
    state = restored.tree if restored else jax.jit(new_state, out_shardings=shardings)()
    # 5. From here on the folder is this run's.
    workdir.store_config(checkpointer.directory.parent, stored["config"])
    reporter = reporting.Reporter(
        folder, settings.report, train_steps=settings.train.steps, start_step=int(state.step)
    )
    peak, source = reporting.peak_flops(settings.run.dtype)
    _introduce(reporter, settings, task, state, f"{peak / 1e12:.3g} TFLOP/s, {source}")
    _say_where_from(reporter, settings, stored, restored)
    loop = Loop(
        settings=settings,
        task=task,
        mesh=mesh,
        train_step=_make_train_step(settings, task, optimizer, shardings),
        evaluate=_make_evaluator(settings, task, mesh),
        schedule=make_schedule(settings.optimizer, settings.train.steps),
        checkpointer=checkpointer,
        reporter=reporter,
        stored=stored,
        steps_per_epoch=task.source.steps_per_epoch,
        peak_flops=peak,
    )
    with contextlib.closing(reporter):
        reporter.start()
        return loop.run(state)


def _make_train_step(
    settings: Settings,
    task: PretrainingTask,
    optimizer: optax.GradientTransformation,
    shardings: TrainState,
) -> TrainStep:
    run = settings.run
    train_step = make_train_step(
        task,
        optimizer,
        seed=settings.seed,
        accumulation_steps=settings.train.accumulation_steps,
        report_every=settings.report.log_every,
        dropout=max(run.dropout, run.activation_dropout, run.attention_dropout) > 0,
    )
    return jax.jit(train_step, donate_argnums=0, out_shardings=shardings)


def _make_evaluator(
    settings: Settings, task: PretrainingTask, mesh: Mesh
) -> Callable[[Params], dict[str, float]] | None:
    if task.heldout is None:
        return None
    return Evaluator(task, mesh, setup.eval_batch_size(settings))


def evaluate(
    config: Mapping[str, Any], folder: str, *, checkpoint: str | int = "latest"
) -> dict[str, Any]:
    """Held-out loss of a checkpoint of `folder`, beside the unigram entropy of the same targets.

    Raises ValueError or OSError for wrong input.
    """
    settings = parse(config)
    checkpointer = Checkpointer(folder, settings.checkpoint, read_only=True)
    task = setup.make_task(settings)
    if task.heldout is None:
        raise ValueError("data.heldout is empty; set --config.data.heldout=DIR to evaluate on")
    setup.check_eval_batch_size(settings, task)
    mesh = sharding.make_mesh()
    shapes = jax.eval_shape(task.init_params, jax.random.key(settings.seed))
    everywhere = jax.tree.map(lambda _: sharding.replicated(mesh), shapes)
    with contextlib.closing(checkpointer):
        restored = checkpointer.restore_params(
            abstract_state(shapes, everywhere),
            step=None if checkpoint == "latest" else int(checkpoint),
            check=functools.partial(_check_network, {"config": _plain(config)}),
        )
    batch_size = setup.eval_batch_size(settings)
    metrics = Evaluator(task, mesh, batch_size)(restored.tree)
    counts = _count_targets(task, batch_size)
    return {
        "step": restored.step,
        **metrics,
        "unigram_entropy": unigram_entropy(counts),
        "targets": int(counts.sum()),
        "skipped_checkpoints": list(restored.skipped),
    }


def _count_targets(task: PretrainingTask, batch_size: int) -> np.ndarray:
    """How often each vocabulary entry is a target in the held-out batches."""
    counts = np.zeros(task.model.config.n_token, np.int64)
    for batch in task.eval_batches(slice(0, batch_size)):
        targets = np.take_along_axis(batch["tokens"], batch["target_positions"], axis=1)
        counts += np.bincount(targets[batch["target_weights"] > 0], minlength=counts.size)
    return counts


def _check_run(stored: Stored, found: Stored) -> None:
    """Rules out a checkpoint of another network, batch or data set."""
    _, forbidden = workdir.compare_configs(found["config"], stored["config"])
    forbidden += workdir.differing({"data": found["data"]}, {"data": stored["data"]})
    if forbidden:
        raise ValueError(
            f"the checkpoints belong to another run: {'; '.join(forbidden)}. Set these back, or"
            " give another --workdir"
        )


def _check_network(stored: Stored, found: Stored) -> None:
    """Rules out a checkpoint of another network."""
    _, forbidden = workdir.compare_configs(found["config"], stored["config"])
    if lines := [line for line in forbidden if line.startswith("config.model.")]:
        raise ValueError(f"the checkpoint is of another network: {'; '.join(lines)}")


def _introduce(
    reporter: reporting.Reporter,
    settings: Settings,
    task: PretrainingTask,
    state: TrainState,
    peak: str,
) -> None:
    parameters = sum(x.size for x in jax.tree.leaves(state.params))
    reporter.say(
        f"{parameters:,} parameters, {jax.device_count()} × {jax.devices()[0].device_kind}, {peak}"
    )
    per_step = task.global_batch_size * task.tokens_per_example
    reporter.say(
        f"{task.source.manifest.totals['tokens']:,} tokens of text in"
        f" {task.source.steps_per_epoch:,} steps an epoch; {settings.train.steps:,} steps of"
        f" {per_step:,} tokens"
    )


def _say_where_from(
    reporter: reporting.Reporter, settings: Settings, stored: Stored, restored: Restored | None
) -> None:
    if restored is None:
        reporter.say("starting from random weights; the first step takes longer, it compiles")
        return
    for line in restored.skipped:
        reporter.say(f"not used: {line}")
    allowed, _ = workdir.compare_configs(restored.stored["config"], stored["config"])
    for line in allowed:
        reporter.say(f"changed since the checkpoint: {line}")
    if restored.step < settings.train.steps:
        reporter.say(f"resuming at step {restored.step:,}")
    else:
        reporter.say(
            f"nothing to do: the checkpoint is of step {restored.step:,}, and train.steps is"
            f" {settings.train.steps:,}"
        )


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """Plain dicts and lists, as JSON would give them back."""
    plain: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            plain[key] = _plain(value)
        else:
            plain[key] = list(value) if isinstance(value, tuple) else value
    return plain
