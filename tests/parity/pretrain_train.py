"""Chains of pretraining steps with memory carried over, through our own train step; schedules."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import traverse_util

from tests.convert import examples
from tests.parity import model_cases as mc
from tests.parity.case import Case, Result, relative_error, unlisted, worst
from xlnet_jax.convert import rules, tensorflow
from xlnet_jax.model.heads import PermutationLanguageModel
from xlnet_jax.tasks.losses import cross_entropy
from xlnet_jax.tasks.task import LossSum
from xlnet_jax.training.optimizer import OptimizerConfig, make_optimizer, make_schedule
from xlnet_jax.training.state import TrainState, Window
from xlnet_jax.training.step import make_train_step

CHAIN = 1e-4  # loss, gradient norm, memory, optimizer slots
RATE = 1e-6
WEIGHTS = 2e-4  # absolute, see the goldens' README


def cases(root: Path) -> Iterator[Case]:
    return mc.folder_cases(root, "pretrain_train", functools.partial(_cases_of, root))


def _cases_of(root: Path, folder: Path, meta: dict[str, Any]) -> Iterator[Case]:
    name, schedules = str(folder.relative_to(root)), meta.get("cases", {})
    for title, options in schedules.items():
        yield Case(f"{name}/{title}", functools.partial(run_schedule, folder, title, options))
    if schedules:
        yield from unlisted(name, folder / "outputs.npz", schedules)
    elif "input_ids" in meta.get("inputs", {}):
        # It takes parts of this module.
        from tests.parity import finetune_train

        yield Case(name, functools.partial(finetune_train.run_chain, folder, meta))
    elif "steps" in meta:
        yield Case(name, functools.partial(run_chain, folder, meta))
        mid = mc.checkpoint(folder, "mid_checkpoint")
        if Path(f"{mid}.index").exists():
            yield Case(f"{name}/resumed", functools.partial(run_chain, folder, meta, resume=True))


def run_schedule(folder: Path, name: str, options: dict[str, Any]) -> Result:
    wanted = mc.arrays_of(np.load(folder / "outputs.npz"), name)
    schedule = make_schedule(optimizer_config(options), options["train_steps"])
    got = np.array([schedule(step) for step in wanted["step"]])
    return Result(relative_error(got, wanted["lr"]), RATE, f"{len(got)} steps")


def optimizer_config(options: Mapping[str, Any]) -> OptimizerConfig:
    return OptimizerConfig(
        learning_rate=options["learning_rate"],
        warmup_steps=options["warmup_steps"],
        schedule={"poly": "polynomial", "cos": "cosine"}[options["decay_method"]],
        min_lr_ratio=options["min_lr_ratio"],
        weight_decay=options.get("weight_decay", 0.0),
        epsilon=options.get("adam_epsilon", 1e-8),
        clip=options.get("clip", 1.0),
        bias_correction="reference",
        layer_decay=options.get("lr_layer_decay_rate", 1.0),
        layer_decay_on="gradient",
    )


class GoldenTask:
    """The pretraining loss on the original's features, which carry whole masks."""

    rows_per_group = 1

    def __init__(self, model: PermutationLanguageModel):
        self.model = model

    def loss(self, params: Any, batch: Any, memory: Any, dropout_key: Any) -> LossSum:
        inputs = {k: v for k, v in batch.items() if k not in ("target", "target_mask")}
        tokens = inputs.pop("tokens")
        apply: Any = self.model.apply
        logits, output = apply({"params": params}, tokens, memory=memory, **inputs)
        losses = cross_entropy(logits, batch["target"])
        weights = batch["target_mask"]
        return LossSum((losses * weights).sum(), weights.sum(), output.memory)


@functools.lru_cache
def train_step_of(folder: Path) -> Callable[[TrainState, dict[str, Any]], TrainState]:
    """Compiled once for a chain and its resumed half."""
    options = json.loads((folder / "meta.json").read_text())["options"]
    config, params = mc.load_model(folder)
    optimizer = make_optimizer(optimizer_config(options), options["train_steps"], params["params"])
    task: Any = GoldenTask(PermutationLanguageModel(config, mc.run_config(options)))
    return jax.jit(make_train_step(task, optimizer, seed=0, dropout=False))


def run_chain(folder: Path, meta: dict[str, Any], resume: bool = False) -> Result:
    options = meta["options"]
    features = dict(np.load(folder / "inputs.npz"))
    wanted = dict(np.load(folder / "outputs.npz"))
    config, params = mc.load_model(folder)
    layout = mc.Layout(features["input_k"].shape[1], bi_data=options["bi_data"])
    optimizer = make_optimizer(optimizer_config(options), options["train_steps"], params["params"])
    state = initial_state(config, params["params"], optimizer, layout, options)
    if resume:
        memory = None if state.memory is None else wanted["mid_mems"]
        path = mc.checkpoint(folder, "mid_checkpoint")
        state = restored_state(path, config, state, layout, memory)
    run_step = train_step_of(folder)
    results: dict[str, tuple[float, float]] = {}
    losses, norms, first = [], [], int(state.step)
    for index in range(first, meta["steps"]):
        batch = {key: value[index] for key, value in features.items()}
        inputs = {k: v for k, v in mc.pretraining_inputs(batch, layout).items() if v is not None}
        inputs["target"] = layout.batch_first(batch["target"])
        inputs["target_mask"] = layout.batch_first(batch["target_mask"])
        state = run_step(state, inputs)
        losses.append(float(state.window.loss))
        norms.append(float(state.window.grad_norm))
        prefix = f"after_{index + 1:02}:"
        saved = {k[len(prefix) :]: v for k, v in wanted.items() if k.startswith(prefix)}
        results |= weight_errors(state.params, saved, config, prefix)
    schedule = make_schedule(optimizer_config(options), options["train_steps"])
    rates = [schedule(index) for index in range(first, meta["steps"])]
    results["loss"] = relative_error(losses, wanted["loss"][first:]), CHAIN
    results["grad_norm"] = relative_error(norms, wanted["grad_norm"][first:]), CHAIN
    results["learning_rate"] = relative_error(rates, wanted["learning_rate"][first:]), RATE
    if "final_mems" in wanted:
        memory = layout.memory_out(state.memory)
        results["memory"] = relative_error(memory, wanted["final_mems"]), CHAIN
    final = tensorflow.read_checkpoint(str(mc.checkpoint(folder, "final_checkpoint")))
    weights = {k: v for k, v in final.items() if not rules.is_optimizer_slot(k)}
    results |= weight_errors(state.params, weights, config, "final:")
    adam = adam_state(state.opt_state)
    for name, tree in (("m", adam.mu), ("v", adam.nu)):
        got = examples.variables_of(traverse_util.flatten_dict(tree, sep="/"), config)
        slots = slots_of(final, name)
        assert got.keys() == slots.keys()
        results |= {f"{k}:{name}": (relative_error(got[k], slots[k]), CHAIN) for k in slots}
    return worst(results, f"{meta['steps'] - first} steps")


def initial_state(
    config: Any, params: Any, optimizer: Any, layout: mc.Layout, options: Mapping[str, Any]
) -> TrainState:
    shape = (config.n_layer, len(layout.order), options.get("mem_len") or 0, config.d_model)
    return TrainState(
        step=jnp.zeros([], jnp.int32),
        params=params,
        opt_state=optimizer.init(params),
        memory=jnp.zeros(shape) if options.get("mem_len") else None,
        window=Window.empty(),
        bad_step=jnp.full([], -1, jnp.int32),
    )


def restored_state(
    path: Path, config: Any, state: TrainState, layout: mc.Layout, memory: np.ndarray | None
) -> TrainState:
    """The state as the original saved it: weights, optimizer slots, step."""
    variables = tensorflow.read_checkpoint(str(path))
    step = jnp.asarray(variables["global_step"], jnp.int32)
    load = functools.partial(mc.params_from, config=config, language_model=True)
    slots = {name: load(slots_of(variables, name))["params"] for name in "mv"}

    def fill(part: Any) -> Any:
        if isinstance(part, optax.ScaleByAdamState):
            return optax.ScaleByAdamState(step, slots["m"], slots["v"])
        if isinstance(part, optax.ScaleByScheduleState):
            return optax.ScaleByScheduleState(step)
        return part

    def is_part(x: Any) -> bool:
        return isinstance(x, optax.ScaleByAdamState | optax.ScaleByScheduleState)

    return state.replace(
        step=step,
        params=load(variables)["params"],
        opt_state=jax.tree.map(fill, state.opt_state, is_leaf=is_part),
        memory=None if memory is None else jnp.asarray(layout.memory_in(memory)),
    )


def slots_of(variables: Mapping[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    """Adam's first ("m") or second ("v") moments by variable, in either naming of the original."""
    endings = {"m": ("/adam_m", "/Adam"), "v": ("/adam_v", "/Adam_1")}[name]
    return {
        key.removesuffix(ending): value
        for key, value in variables.items()
        for ending in endings
        if key.endswith(ending)
    }


def adam_state(opt_state: Any) -> Any:
    return next(part for part in opt_state if isinstance(part, optax.ScaleByAdamState))


def weight_errors(
    params: Any, saved: Mapping[str, np.ndarray], config: Any, prefix: str
) -> dict[str, tuple[float, float]]:
    if not saved:
        return {}
    got = examples.variables_of(traverse_util.flatten_dict(params, sep="/"), config)
    assert got.keys() == saved.keys(), got.keys() ^ saved.keys()
    return {
        f"{prefix}{name}": (float(np.abs(np.asarray(got[name]) - saved[name]).max()), WEIGHTS)
        for name in saved
    }
