"""From a config to a running job: what `xlnet-jax train` and `evaluate` do."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from xlnet_jax.data.manifest import Manifest, differences
from xlnet_jax.model.heads import PermutationLanguageModel
from xlnet_jax.tasks import sampling
from xlnet_jax.tasks.pretraining import PretrainingTask, unigram_entropy
from xlnet_jax.training import reporting, sharding, workdir
from xlnet_jax.training.checkpoint import Checkpointer, Restored, abstract_state
from xlnet_jax.training.loop import Loop, evaluate as evaluate_task
from xlnet_jax.training.optimizer import make_optimizer, make_schedule
from xlnet_jax.training.settings import Settings, parse
from xlnet_jax.training.state import TrainState, make_state, state_shardings
from xlnet_jax.training.step import make_eval_step, make_train_step


def train(config: Mapping[str, Any], folder: str) -> TrainState:
    """Trains in `folder`, resuming what is there.

    Raises ValueError or OSError for wrong input, FloatingPointError if training diverges.
    """
    # 1. The config, checked as a whole, before anything is made or read.
    settings = parse(config)
    with workdir.claim(folder):
        # 2. The data, compared with the config and with each other.
        task = make_task(settings)
        # 3. Where things live.
        mesh = sharding.make_mesh(
            task.global_batch_size, task.rows_per_group, settings.train.accumulation_steps
        )
        # 4. The state: this workdir's newest whole checkpoint, else from scratch.
        checkpointer = Checkpointer(folder, settings.checkpoint)
        try:
            return _train(settings, config, folder, task, mesh, checkpointer)
        finally:
            checkpointer.close()


def _train(
    settings: Settings,
    config: Mapping[str, Any],
    folder: str,
    task: PretrainingTask,
    mesh: jax.sharding.Mesh,
    checkpointer: Checkpointer,
) -> TrainState:
    shapes = jax.eval_shape(task.init_params, jax.random.key(settings.seed))
    run = settings.run
    schedule = make_schedule(settings.optimizer, settings.train.steps)
    optimizer = make_optimizer(settings.optimizer, settings.train.steps, shapes)
    new_state = functools.partial(make_state, task, optimizer, settings.seed)
    abstract = jax.eval_shape(new_state)
    shardings = state_shardings(abstract, mesh)
    stored = {"config": _plain(config), "data": task.identity()}
    restored = checkpointer.restore(
        abstract_state(abstract, shardings), check_config=functools.partial(_check, stored)
    )
    if restored is None:
        state = jax.jit(new_state, out_shardings=shardings)()
    else:
        state = restored.state
    workdir.store_config(checkpointer.directory.parent, _plain(config))
    start = int(state.step)
    reporter = reporting.Reporter(
        folder, settings.report, train_steps=settings.train.steps, start_step=start
    )
    peak, source = reporting.peak_flops(settings.run.dtype)
    _introduce(reporter, settings, task, state, restored, stored, f"{peak / 1e12:.3g} TFLOP/s, {source}")
    rows = sharding.local_rows(mesh, _eval_batch_size(settings))
    eval_step = jax.jit(make_eval_step(task), donate_argnums=1)
    evaluate_params = functools.partial(
        evaluate_task, task, eval_step, mesh=mesh, rows=rows, batch_size=_eval_batch_size(settings)
    )
    train_step = make_train_step(
        task,
        optimizer,
        seed=settings.seed,
        accumulation_steps=settings.train.accumulation_steps,
        report_every=settings.report.log_every,
        dropout=max(run.dropout, run.activation_dropout, run.attention_dropout) > 0,
    )
    loop = Loop(
        settings=settings,
        task=task,
        mesh=mesh,
        train_step=jax.jit(train_step, donate_argnums=0, out_shardings=shardings),
        evaluate=evaluate_params if task.heldout else None,
        schedule=schedule,
        checkpointer=checkpointer,
        reporter=reporter,
        stored=stored,
        steps_per_epoch=task.source.steps_per_epoch,
        peak_flops=peak,
    )
    try:
        return loop.run(state)
    finally:
        reporter.close()


def evaluate(
    config: Mapping[str, Any], folder: str, *, checkpoint: str | int = "latest"
) -> dict[str, Any]:
    """Held-out loss of a checkpoint of `folder`, beside the unigram entropy of the same targets."""
    settings = parse(config)
    task = make_task(settings)
    if task.heldout is None:
        raise ValueError("data.heldout is empty; set --config.data.heldout=DIR to evaluate on")
    batch_size = _eval_batch_size(settings)
    mesh = sharding.make_mesh(batch_size, task.rows_per_group, 1)
    shapes = jax.eval_shape(task.init_params, jax.random.key(settings.seed))
    optimizer = make_optimizer(settings.optimizer, settings.train.steps, shapes)
    abstract = jax.eval_shape(functools.partial(make_state, task, optimizer, settings.seed))
    checkpointer = Checkpointer(folder, settings.checkpoint, read_only=True)
    restored = checkpointer.restore(
        abstract_state(abstract, state_shardings(abstract, mesh)),
        step=None if checkpoint == "latest" else int(checkpoint),
    )
    if restored is None:
        raise FileNotFoundError(f"no checkpoint in {checkpointer.directory}; train first")
    rows = sharding.local_rows(mesh, batch_size)
    eval_step = jax.jit(make_eval_step(task), donate_argnums=1)
    metrics = evaluate_task(task, eval_step, restored.state.params, mesh, rows, batch_size)
    counts = np.zeros(task.model.config.n_token, np.int64)
    for batch in task.eval_batches(slice(0, batch_size)):
        targets = np.take_along_axis(batch["tokens"], batch["target_positions"], axis=1)
        counts += np.bincount(targets[batch["target_weights"] > 0], minlength=counts.size)
    return {
        "step": int(restored.state.step),
        **metrics,
        "unigram_entropy": unigram_entropy(counts),
        "targets": int(counts.sum()),
        "skipped_checkpoints": list(restored.skipped),
    }


def make_task(settings: Settings) -> PretrainingTask:
    """Opens the data, compares them with the config and with each other, and builds the model."""
    paths, data = settings.paths, settings.data
    source = _open(paths.train, settings, settings.train.batch_size)
    heldout = None
    if paths.heldout:
        heldout = _open(paths.heldout, settings, _eval_batch_size(settings))
        _compare_manifests(source.manifest, heldout.manifest, settings)
    network = settings.network(source.manifest.vocab_size)
    model = PermutationLanguageModel(network, settings.run)
    if settings.train.eval_every and heldout is None:
        raise ValueError(
            f"train.eval_every is {settings.train.eval_every}, but data.heldout is empty; set"
            " --config.data.heldout=DIR or --config.train.eval_every=0"
        )
    if data.reuse_len > data.seq_len:
        raise ValueError(f"data.reuse_len {data.reuse_len} exceeds data.seq_len {data.seq_len}")
    return PretrainingTask(model, source, heldout, settings.train.eval_steps)


def _open(folder: str, settings: Settings, batch_size: int) -> sampling.PretrainingSource:
    return sampling.open_source(
        folder, settings.data, batch_size, cache_dir=settings.paths.cache or None
    )


def _compare_manifests(train: Manifest, heldout: Manifest, settings: Settings) -> None:
    wanted = train.to_json()
    same = ("vocab_size", "tokenizer_sha256", "normalization", "use_eod", "special_ids", "dtype")
    if lines := differences(heldout, {key: wanted[key] for key in same}):
        raise ValueError(
            f"data.heldout={settings.paths.heldout} was not made like"
            f" data.train={settings.paths.train}: {'; '.join(lines)}"
        )


def _eval_batch_size(settings: Settings) -> int:
    return settings.train.eval_batch_size or settings.train.batch_size


def _check(stored: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Rules out a checkpoint of another network or data set."""
    _, forbidden = workdir.compare_configs(found["config"], stored["config"])
    _, other_data = workdir.compare_configs({"_": found["data"]}, {"_": stored["data"]})
    if lines := forbidden + other_data:
        raise ValueError(f"it belongs to another run: {'; '.join(lines)}")


def _introduce(
    reporter: reporting.Reporter,
    settings: Settings,
    task: PretrainingTask,
    state: TrainState,
    restored: Restored | None,
    stored: Mapping[str, Any],
    peak: str,
) -> None:
    parameters = sum(x.size for x in jax.tree.leaves(state.params))
    reporter.say(
        f"{parameters / 1e6:.1f} million parameters, {jax.device_count()} × "
        f"{jax.devices()[0].device_kind}, {peak}"
    )
    manifest = task.source.manifest
    per_step = task.global_batch_size * task.tokens_per_example
    reporter.say(
        f"{manifest.totals['tokens']:,} tokens of text in {task.source.steps_per_epoch:,} steps an"
        f" epoch; {settings.train.steps:,} steps of {per_step:,} tokens"
    )
    if restored is None:
        reporter.say("starting from random weights")
        return
    for line in restored.skipped:
        reporter.say(f"not used: {line}")
    allowed, _ = workdir.compare_configs(restored.config["config"], stored["config"])
    for line in allowed:
        reporter.say(f"changed since the checkpoint: {line}")
    reporter.say(f"resuming at step {int(state.step):,}")


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """Plain dicts and lists, as JSON would give them back."""
    plain = {}
    for key, value in config.items():
        is_section = hasattr(value, "items")
        plain[key] = _plain(value) if is_section else list(value) if isinstance(value, tuple) else value
    return plain
