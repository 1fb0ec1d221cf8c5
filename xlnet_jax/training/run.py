"""From a config to a running job: what `xlnet-jax train`, `evaluate` and `predict` do."""

from __future__ import annotations

import contextlib
import functools
import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from etils import epath
from jax.sharding import Mesh

from xlnet_jax.convert import model_files
from xlnet_jax.convert.moments import load_moments
from xlnet_jax.convert.pretrained import merge_params
from xlnet_jax.tasks.task import Task, can_predict
from xlnet_jax.training import agreement, continuation, reporting, setup, sharding, workdir
from xlnet_jax.training.best import BestKeeper, best_folder
from xlnet_jax.training.checkpoint import (
    Checkpointer,
    DamagedCheckpointError,
    Restored,
    abstract_state,
)
from xlnet_jax.training.evaluation import Predictor, make_evaluator
from xlnet_jax.training.loop import Loop
from xlnet_jax.training.optimizer import make_schedule
from xlnet_jax.training.program import make_program
from xlnet_jax.training.settings import Settings, parse
from xlnet_jax.training.state import TrainState

Stored = Mapping[str, Any]


def train(config: Mapping[str, Any], folder: str) -> dict[str, float] | None:
    """Trains in `folder`, resuming what is there; returns the last held-out metrics.

    Returns None if SIGTERM has stopped it; the same call again goes on.

    Raises ValueError or OSError for wrong input, FloatingPointError if training diverges.
    """
    # 1. The config, checked as a whole, before anything is made or read.
    settings = parse(config)
    with workdir.claim(folder):
        agreement.check_shared(folder)
        # 2. What to start from, and the data, compared with the config and with each other.
        foundation = setup.find_foundation(settings, folder)
        task = setup.make_task(settings, foundation)
        settings = settings.for_epochs(task.steps_per_epoch)
        # 3. Where things live.
        mesh = setup.make_mesh(settings, task)
        stored = {"config": _plain(_resolved(config, task)), "data": task.identity()}
        with contextlib.closing(Checkpointer(folder, settings.checkpoint)) as checkpointer:
            return _train(settings, stored, folder, task, foundation, mesh, checkpointer)


def _train(
    settings: Settings,
    stored: Stored,
    folder: str,
    task: Task,
    foundation: setup.Foundation,
    mesh: Mesh,
    checkpointer: Checkpointer,
) -> dict[str, float] | None:
    program = make_program(settings, task, mesh)
    # 4. The state: this workdir's newest whole checkpoint > pretrained weights > from scratch.
    check = functools.partial(_check_run, stored)
    restored = checkpointer.restore(program.state, check=check)
    origin: list[str] = []
    if restored:
        state = restored.tree
    else:
        state = program.new_state()
        if foundation.weights is not None:
            state, origin = _with_pretrained(state, program.shardings, foundation)
        if settings.init_optimizer:
            state = continuation.with_moments(
                state, load_moments(settings.init_from), program.shardings
            )
            origin.append(f"with Adam's state; going on at step {int(state.step):,}")
    # 5. From here on the folder is this run's.
    workdir.store_config(checkpointer.directory.parent, stored["config"])
    if jax.process_index() == 0:
        model_files.write_model_files(folder, task.network, task.tokenizer)
    reporter = reporting.Reporter(
        folder, settings.report, train_steps=settings.train.steps, start_step=int(state.step)
    )
    peak, source = reporting.peak_flops(settings.run.dtype)
    _introduce(reporter, settings, task, state, f"{peak / 1e12:.3g} TFLOP/s, {source}")
    for line in origin or _where_from(settings, stored, restored):
        reporter.say(line)
    evaluate = None
    if task.has_heldout:
        evaluate = make_evaluator(task, mesh, setup.eval_batch_size(settings), reporter.say)
    best = BestKeeper(folder, settings.checkpoint, int(state.step))
    if best.problem:
        reporter.say(best.problem)
    loop = Loop(
        settings=settings,
        task=task,
        mesh=mesh,
        train_step=program.train_step,
        evaluate=evaluate,
        schedule=make_schedule(settings.optimizer, settings.train.steps),
        checkpointer=checkpointer,
        best=best,
        reporter=reporter,
        stored=stored,
        peak_flops=peak,
    )
    with contextlib.closing(reporter), contextlib.closing(best):
        reporter.start()
        loop.run(state)
    return None if loop.stopped else loop.metrics


def _with_pretrained(
    state: TrainState, shardings: TrainState, foundation: setup.Foundation
) -> tuple[TrainState, list[str]]:
    """The state with the weights of `init_from`, and what was loaded and what was not."""
    assert foundation.weights is not None
    fresh = sharding.fetch(state.params)
    params, report = merge_params(fresh, foundation.weights.params)
    placed = sharding.place(params, shardings.params)
    lines = [*foundation.weights.notes]
    lines.append(f"starting from {foundation.source}: {len(report.loaded)} parameters loaded")
    if report.fresh:
        lines.append(f"not in the checkpoint, initialized at random: {', '.join(report.fresh)}")
    if report.unused:
        lines.append(f"there, but not used: {', '.join(report.unused)}")
    return state.replace(params=placed), lines


def evaluate(
    config: Mapping[str, Any], folder: str, *, checkpoint: str | int = "latest"
) -> list[dict[str, Any]]:
    """Held-out metrics of checkpoints of `folder`: one, the best ("best"), or "all".

    Raises ValueError or OSError for wrong input.
    """
    settings, task, mesh = _open(config, folder)
    if not task.has_heldout:
        key = "heldout" if hasattr(settings.data, "heldout") else "dev"
        raise ValueError(f"data.{key} is empty; set --config.data.{key}=PATH to evaluate on")
    setup.check_eval_batch_size(settings, task, mesh)
    judge = make_evaluator(task, mesh, setup.eval_batch_size(settings), _warn)
    described = task.describe_heldout()
    results = []
    for restored in _checkpoints(settings, task, mesh, config, folder, checkpoint):
        metrics = judge(restored.tree)
        skipped = {"skipped_checkpoints": list(restored.skipped)}
        results.append({"step": restored.step, **metrics, **described, **skipped})
    return results


def predict(
    config: Mapping[str, Any],
    folder: str,
    *,
    split: str,
    output: str,
    checkpoint: str | int = "latest",
) -> int:
    """Writes the predictions of a checkpoint of `folder` for a split; returns their number.

    Raises ValueError or OSError for wrong input.
    """
    settings, task, mesh = _open(config, folder)
    if not can_predict(task):
        raise ValueError(f"the task {settings.task!r} of {folder} has no predictions to write")
    setup.check_eval_batch_size(settings, task, mesh)
    (restored,) = _checkpoints(settings, task, mesh, config, folder, checkpoint)
    predictor = Predictor(task, mesh, setup.eval_batch_size(settings))
    predictions = predictor(restored.tree, split)
    if jax.process_index() == 0:
        task.write_predictions(split, predictions, output)
    return len(next(iter(predictions.values()), ()))


def _open(config: Mapping[str, Any], folder: str) -> tuple[Settings, Task, Mesh]:
    """Settings, task and devices of a run that has started."""
    settings = parse(config)
    task = setup.make_task(settings, setup.find_foundation(settings, folder, begun=True))
    mesh = sharding.make_mesh(settings.mesh)
    sharding.check_network(task.network, mesh)
    return settings, task, mesh


def _checkpoints(
    settings: Settings,
    task: Task,
    mesh: Mesh,
    config: Mapping[str, Any],
    folder: str,
    which: str | int,
) -> Iterator[Restored]:
    """Parameters of the checkpoints asked for, one after another."""
    shapes = jax.eval_shape(task.init_params, jax.random.key(settings.seed))
    places = sharding.params_shardings(shapes, mesh)
    place = best_folder(folder) if which == "best" else folder
    if which == "best" and not epath.Path(place).is_dir():
        raise FileNotFoundError(
            f"--checkpoint=best: {folder} keeps no best checkpoint; train with"
            " --config.checkpoint.best_metric=NAME and train.eval_every above 0, or give"
            " --checkpoint=latest"
        )
    with contextlib.closing(Checkpointer(place, settings.checkpoint, read_only=True)) as saved:
        steps: list[int | None] = [None]
        if which == "all":
            steps = [*saved.steps()] or [None]
        elif which not in ("latest", "best"):
            steps = [int(which)]
        damaged: list[str] = []
        for step in steps:
            try:
                restored = saved.restore_params(
                    abstract_state(shapes, places),
                    step=step,
                    check=functools.partial(_check_network, {"config": _plain(config)}),
                )
            except DamagedCheckpointError as error:
                damaged.append(str(error))
                if len(damaged) == len(steps):  # none is left
                    raise
                _warn(f"not used: {error}")
                continue
            for line in restored.skipped:
                _warn(f"not used: {line}")
            yield restored


def _warn(text: str) -> None:
    if jax.process_index() == 0:
        print(text, file=sys.stderr)


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
    reporter: reporting.Reporter, settings: Settings, task: Task, state: TrainState, peak: str
) -> None:
    parameters = sum(x.size for x in jax.tree.leaves(state.params))
    reporter.say(
        f"{parameters:,} parameters, {jax.device_count()} × {jax.devices()[0].device_kind}, {peak}"
    )
    per_step = round(task.global_batch_size * task.tokens_per_example)
    reporter.say(f"{task.introduction}; {settings.train.steps:,} steps of {per_step:,} tokens")


def _where_from(settings: Settings, stored: Stored, restored: Restored | None) -> list[str]:
    if restored is None:
        return ["starting from random weights; the first step takes longer, it compiles"]
    lines = [f"not used: {line}" for line in restored.skipped]
    allowed, _ = workdir.compare_configs(restored.stored["config"], stored["config"])
    lines += [f"changed since the checkpoint: {line}" for line in allowed]
    if restored.step < settings.train.steps:
        return [*lines, f"resuming at step {restored.step:,}"]
    return [
        *lines,
        f"nothing to do: the checkpoint is of step {restored.step:,}, and train.steps is"
        f" {settings.train.steps:,}",
    ]


def _resolved(config: Mapping[str, Any], task: Task) -> Mapping[str, Any]:
    """The config with what the data have answered (labels, say)."""
    if not can_predict(task):
        return config
    return {**config, "data": {**config["data"], **task.resolved_data()}}


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config as it is when it comes back from a checkpoint: lists for tuples."""
    return json.loads(json.dumps(config))
