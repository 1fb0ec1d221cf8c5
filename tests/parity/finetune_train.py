"""Chains of fine-tuning steps through our own train step, with the original's layer decay."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tests.parity import finetune_heads, head_cases
from tests.parity import model_cases as mc
from tests.parity.case import Result, relative_error, worst
from tests.parity.pretrain_train import (
    CHAIN,
    RATE,
    adam_state,
    optimizer_config,
    slots_of,
)
from xlnet_jax.convert import rules
from xlnet_jax.convert.table import Head
from xlnet_jax.model.config import XLNetConfig
from xlnet_jax.tasks.task import LossSum
from xlnet_jax.training.optimizer import make_optimizer, make_schedule
from xlnet_jax.training.state import TrainState, Window
from xlnet_jax.training.step import make_train_step

WEIGHTS = 2e-5  # absolute, see the goldens' README


class GivenNorm(NamedTuple):
    norm: jax.Array


def clip_by_given_norm(limit: float) -> optax.GradientTransformation:
    """Clips by a norm that is put into the state from outside before every step."""

    def update(gradients: Any, state: Any, params: Any = None) -> tuple[Any, GivenNorm]:
        del params
        factor = limit / jnp.maximum(state.norm, limit)
        return jax.tree.map(lambda g: g * factor, gradients), state

    return optax.GradientTransformation(lambda _: GivenNorm(jnp.zeros([])), update)


class GoldenTask:
    """The classification or regression loss on the original's features."""

    rows_per_group = 1

    def __init__(self, model: Any, n_class: int | None):
        self.model = model
        self.n_class = n_class  # None for regression

    def mean_loss(self, model: Any, params: Any, batch: Any) -> jax.Array:
        inputs = {key: value for key, value in batch.items() if key != "labels"}
        logits = model.apply({"params": params}, **inputs)
        return finetune_heads.example_losses(logits, batch["labels"], self.n_class).mean()

    def loss(self, params: Any, batch: Any, memory: Any, dropout_key: Any) -> LossSum:
        size = len(batch["labels"])
        return LossSum(self.mean_loss(self.model, params, batch) * size, jnp.float32(size), memory)

    def norm_of_rows(self, params: Any, batch: Any) -> jax.Array:
        """What the original clips by when it looks embeddings up by a gather."""
        tokens = batch["tokens"]
        by_rows = head_cases.of_vocabulary(self.model, tokens.size)
        return head_cases.norm_of_rows(
            lambda p, places: self.mean_loss(by_rows, p, batch | {"tokens": places}), params, tokens
        )


def run_chain(folder: Path, meta: dict[str, Any]) -> Result:
    options = meta["options"]
    config = XLNetConfig.from_json((folder / "xlnet_config.json").read_text())
    features = dict(np.load(folder / "inputs.npz"))
    wanted = dict(np.load(folder / "outputs.npz"))
    batches = [batch_of(features, index) for index in range(meta["steps"])]
    model = finetune_heads.make_model(config, options)
    head = finetune_heads.head_of(options)
    inputs = {key: value for key, value in batches[0].items() if key != "labels"}
    params = head_cases.load(folder, model, head, **inputs)
    task: Any = GoldenTask(model, finetune_heads.classes_of(options))
    # With a gather the original's norm is not that of the gradient; it is computed beside.
    by_rows = not options["use_tpu"]
    optimizer = optimizer_of(options, params, by_rows)
    run_step = jax.jit(make_train_step(task, optimizer, seed=0, dropout=False))
    norm_of_rows = jax.jit(task.norm_of_rows)
    state = TrainState(
        step=jnp.zeros([], jnp.int32),
        params=params,
        opt_state=optimizer.init(params),
        memory=None,
        window=Window.empty(),
        bad_step=jnp.full([], -1, jnp.int32),
    )
    losses, norms = [], []
    for batch in batches:
        if by_rows:
            norms.append(norm_of_rows(state.params, batch))
            state = state.replace(opt_state=(GivenNorm(norms[-1]), state.opt_state[1]))
        state = run_step(state, batch)
        losses.append(float(state.window.loss))
        if not by_rows:
            norms.append(state.window.grad_norm)
    schedule = make_schedule(optimizer_config(options), options["train_steps"])
    rates = [schedule(index) for index in range(meta["steps"])]
    results = {
        "loss": (relative_error(losses, wanted["loss"]), CHAIN),
        "grad_norm": (relative_error(norms, wanted["grad_norm"]), CHAIN),
        "learning_rate": (relative_error(rates, wanted["learning_rate"]), RATE),
    }
    final = head_cases.variables_in(str(mc.checkpoint(folder, "final_checkpoint")))
    opt_state = state.opt_state[1] if by_rows else state.opt_state
    results |= final_errors(final, state.params, adam_state(opt_state), config, head)
    return worst(results, f"{meta['steps']} steps")


def batch_of(features: dict[str, np.ndarray], index: int) -> dict[str, Any]:
    batch = {key: value[index] for key, value in features.items()}
    return finetune_heads.model_inputs(batch) | {"labels": batch["label_ids"]}


def optimizer_of(options: Any, params: Any, by_rows: bool) -> optax.GradientTransformation:
    settings = optimizer_config(options)
    if not by_rows:
        return make_optimizer(settings, options["train_steps"], params)
    own_clip = clip_by_given_norm(settings.clip)
    unclipped = optimizer_config(dict(options) | {"clip": 0.0})
    return optax.chain(own_clip, make_optimizer(unclipped, options["train_steps"], params))


def final_errors(
    final: dict[str, np.ndarray], params: Any, adam: Any, config: XLNetConfig, head: Head
) -> dict[str, tuple[float, float]]:
    """Weights and Adam's moments behind the last step."""
    variables_of = functools.partial(head_cases.variables_from, config=config, head=head)
    saved = {key: value for key, value in final.items() if not rules.is_optimizer_slot(key)}
    got = variables_of(params)
    assert got.keys() == saved.keys(), got.keys() ^ saved.keys()
    errors = {
        f"final:{key}": (float(np.abs(got[key] - saved[key]).max()), WEIGHTS) for key in saved
    }
    for name, tree in (("m", adam.mu), ("v", adam.nu)):
        moments, slots = variables_of(tree), slots_of(final, name)
        assert moments.keys() == slots.keys(), moments.keys() ^ slots.keys()
        errors |= {
            f"{key}:{name}": (relative_error(moments[key], slots[key]), CHAIN) for key in slots
        }
    return errors
