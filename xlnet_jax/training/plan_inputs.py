"""A config's task and batch without its data: shapes are all that a compiler asks for."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from etils import epath

from xlnet_jax.model.config import NAMED_CONFIGS, XLNetConfig
from xlnet_jax.model.heads import PermutationLanguageModel
from xlnet_jax.tasks.flops import useful_flops
from xlnet_jax.tasks.pretraining import PretrainingTask
from xlnet_jax.tasks.task import Context, Task
from xlnet_jax.training import settings as settings_lib
from xlnet_jax.training.settings import Settings

DEFAULT_VOCABULARY = 32_000
_OPTIONS = 4  # of a RACE question
_ANY_STEPS = 10_000  # where a config counts epochs; changes numbers of the schedule alone


class Planned(NamedTuple):
    """What is to be compiled.

    Attributes:
        settings: the config, checked.
        task: the task of the config, without data.
        batch: shapes and types of a global batch.
        useful_flops: of one example.
        steps: updates of the whole run; None if that depends on the data.
    """

    settings: Settings
    task: Task
    batch: dict[str, jax.ShapeDtypeStruct]
    useful_flops: float
    steps: int | None


def plan_inputs(config: Mapping[str, Any], vocab_size: int | None, length: int | None) -> Planned:
    """The task of a config as it would be with data; `length` of fine-tuning examples.

    Raises ValueError for a wrong config.
    """
    steps = config["train"]["steps"] or None
    settings = settings_lib.parse(_without_data(config, length))
    if not settings.train.steps:
        most = max(_ANY_STEPS, settings.optimizer.warmup_steps + 1)
        train = {**config["train"], "steps": most, "epochs": 0.0}
        settings = settings_lib.parse({**_without_data(config, length), "train": train})
    network = _network(settings, vocab_size)
    if settings.task == "pretraining":
        return _pretraining(settings, network, steps)
    return _finetuning(settings, network, steps)


def _without_data(config: Mapping[str, Any], length: int | None) -> dict[str, Any]:
    """The same with names in place of data that need not be there."""
    data = dict(config["data"])
    if not data.get("train") and not data.get("folder"):
        data["folder" if data.get("name") else "train"] = "planned.tsv"
    if "labels" in data and not data["labels"] and not data.get("name"):
        data["labels"] = ("O", "X")
    data |= {key: "" for key in ("heldout", "dev") if key in data}
    if length is not None:
        key = "seq_len" if "seq_len" in data else "max_seq_length"
        data[key] = length
    train = {**config["train"], "eval_every": 0}
    return {**config, "data": data, "train": train, "init_from": "", "init_optimizer": False}


def _network(settings: Settings, vocab_size: int | None) -> XLNetConfig:
    if settings.network == "":
        raise ValueError(
            "config.model.network is empty; say which network to plan for:"
            f" --config.model.network={'|'.join(NAMED_CONFIGS)} or an xlnet_config.json"
        )
    if isinstance(settings.network, str):
        if settings.network in NAMED_CONFIGS:
            return NAMED_CONFIGS[settings.network]
        return XLNetConfig.from_json(epath.Path(settings.network).read_text())
    said = settings.network["n_token"] or vocab_size or DEFAULT_VOCABULARY
    return XLNetConfig(**{**settings.network, "n_token": said})


def _pretraining(settings: Settings, network: XLNetConfig, steps: int | None) -> Planned:
    data, rows = settings.data, settings.train.batch_size
    source: Any = types.SimpleNamespace(config=data, global_batch_size=rows)
    task = PretrainingTask(PermutationLanguageModel(network, settings.run), source)
    targets = data.num_predict or data.seq_len
    batch = {
        "tokens": _array(jnp.int32, rows, data.seq_len),
        "segment_ids": _array(jnp.int32, rows, data.seq_len),
        "ranks": _array(jnp.int32, rows, data.seq_len),
        "target_positions": _array(jnp.int32, rows, targets),
        "target_weights": _array(jnp.float32, rows, targets),
        "reset_memory": _array(jnp.bool_, rows),
    }
    flops = useful_flops(network, data.seq_len, settings.run.mem_len, targets)
    return Planned(settings, task, batch, flops, steps)


def _finetuning(settings: Settings, network: XLNetConfig, steps: int | None) -> Planned:
    rows, length = settings.train.batch_size, settings.data.max_seq_length
    tokenizer: Any = types.SimpleNamespace(vocab_size=network.n_token)
    context = Context(
        network=lambda _: network,
        vocab_size=network.n_token,
        run=settings.run,
        tokenizer=tokenizer,
        seed=settings.seed,
        batch_size=rows,
        eval_batch_size=rows,
        eval_batch_key="train.batch_size",
        eval_steps=0,
    )
    task = settings.task_module.make_task(settings.data, context)
    sequences = _OPTIONS if settings.task == "multiple_choice" else 1
    lead = (rows, sequences) if sequences > 1 else (rows,)
    batch = {
        "tokens": _array(jnp.int32, *lead, length),
        "segment_ids": _array(jnp.int32, *lead, length),
        "padding": _array(jnp.bool_, *lead, length),
        "weight": _array(jnp.float32, rows),
        "index": _array(jnp.int32, rows),
    }
    batch |= _answers(settings.task, task, rows, length)
    return Planned(settings, task, batch, sequences * useful_flops(network, length), steps)


def _answers(name: str, task: Any, rows: int, length: int) -> dict[str, jax.ShapeDtypeStruct]:
    """What a batch of each task holds beside its sequences."""
    if name == "span_qa":
        answers = {
            f"{where}_positions": _array(jnp.int32, rows) for where in ("start", "end", "cls")
        }
        answers["cannot_answer"] = _array(jnp.bool_, rows, length)
        return {**answers, "unanswerable": _array(jnp.float32, rows)}
    if name == "tagging":
        return {"tags": _array(jnp.int32, rows, length)}
    if name == "classification" and task.kind == "regression":
        return {"labels": _array(jnp.float32, rows)}
    if name == "classification" and task.kind == "multi_label":
        return {"labels": _array(jnp.float32, rows, len(task.labels))}
    return {"labels": _array(jnp.int32, rows)}


def _array(dtype: Any, *shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)
