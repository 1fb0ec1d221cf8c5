"""A config's task and batch without its data: shapes are all that a compiler asks for."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from etils import epath

from xlnet_jax.model.config import NAMED_CONFIGS, XLNetConfig
from xlnet_jax.tasks.task import Context, Task
from xlnet_jax.training import settings as settings_lib
from xlnet_jax.training.settings import Settings

DEFAULT_VOCABULARY = 32_000
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
        config = {**config, "train": {**config["train"], "steps": most, "epochs": 0.0}}
        settings = settings_lib.parse(_without_data(config, length))
    network = _network(settings, vocab_size)
    rows = settings.train.batch_size
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
    task, batch, flops = settings.task_module.plan_task(settings.data, context)
    return Planned(settings, task, batch, flops, steps)


def _without_data(config: Mapping[str, Any], length: int | None) -> dict[str, Any]:
    """The same with names in place of data that need not be there."""
    data = settings_lib.find_task(config["task"]).DataConfig.without_data(config["data"], length)
    train = {**config["train"], "eval_every": 0}
    checkpoint = {**config["checkpoint"], "best_metric": ""}
    without = {"data": data, "train": train, "checkpoint": checkpoint}
    return {**config, **without, "init_from": "", "init_optimizer": False}


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
