"""A config's sections as frozen dataclasses; below this nobody sees a ConfigDict."""

from __future__ import annotations

import dataclasses
import importlib
import math
import pkgutil
import typing
from collections.abc import Mapping
from types import ModuleType
from typing import Any, TypeVar

from xlnet_jax import tasks
from xlnet_jax.model.config import RunConfig, XLNetConfig
from xlnet_jax.training.checkpoint import CheckpointConfig
from xlnet_jax.training.optimizer import OptimizerConfig, make_schedule
from xlnet_jax.training.reporting import ReportConfig
from xlnet_jax.training.sharding import MeshConfig

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Section `train` of a config.

    Attributes:
        steps: updates in all; 0 to take `epochs`.
        epochs: passes over the training data, if `steps` is 0.
        batch_size: examples an update, over all devices and accumulation steps.
        accumulation_steps: parts that a batch is worked off in, one after another.
        eval_every: steps between evaluations on held-out data; also at the end. 0 for never, -1
            for once an epoch.
        eval_steps: held-out batches of an evaluation while pretraining; 0 for all, as fine-tuning
            wants it.
        eval_batch_size: examples a held-out batch; 0 for `batch_size`.
    """

    steps: int
    batch_size: int
    epochs: float = 0.0
    accumulation_steps: int = 1
    eval_every: int = 0
    eval_steps: int = 0
    eval_batch_size: int = 0

    def __post_init__(self) -> None:
        if not self.epochs >= 0:
            raise ValueError(f"train.epochs must be 0 or more, got {self.epochs}")
        if self.steps < 0 or (self.steps == 0) == (self.epochs == 0):
            raise ValueError(
                "train.steps must be at least 1, or 0 with train.epochs above 0; got"
                f" train.steps {self.steps} and train.epochs {self.epochs};"
                " set exactly one of them above 0"
            )
        for name in ("batch_size", "accumulation_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"train.{name} must be at least 1, got {getattr(self, name)}")
        for name in ("eval_steps", "eval_batch_size"):
            if getattr(self, name) < 0:
                raise ValueError(f"train.{name} must be 0 or more, got {getattr(self, name)}")
        if self.eval_every < -1:
            raise ValueError(f"train.eval_every must be -1, 0 or more, got {self.eval_every}")


@dataclasses.dataclass(frozen=True)
class Settings:
    """A whole config, checked.

    Attributes:
        task: module of `xlnet_jax.tasks`.
        init_from: pretrained weights to start from; "" for none.
        init_optimizer: take Adam's state and the step from there too, and go on.
        network: fields of XLNetConfig (`n_token` 0 until the vocabulary is known); or one name or
            path of a network, "" for that of `init_from`.
        data: the task's `DataConfig`.
    """

    task: str
    init_from: str
    init_optimizer: bool
    seed: int
    network: Mapping[str, Any] | str
    run: RunConfig
    data: Any
    optimizer: OptimizerConfig
    train: TrainConfig
    checkpoint: CheckpointConfig
    report: ReportConfig
    mesh: MeshConfig

    @property
    def task_module(self) -> ModuleType:
        """The task's module."""
        return find_task(self.task)

    def for_epochs(self, steps_per_epoch: int) -> Settings:
        """The same with `train.steps` (and `train.eval_every` of -1) worked out."""
        train = self.train
        steps = train.steps or math.ceil(train.epochs * steps_per_epoch)
        every = steps_per_epoch if train.eval_every == -1 else train.eval_every
        resolved = dataclasses.replace(train, steps=steps, epochs=0.0, eval_every=every)
        make_schedule(self.optimizer, steps)  # raises if they do not fit
        return dataclasses.replace(self, train=resolved)


def parse(config: Mapping[str, Any]) -> Settings:
    """Checks a config and cuts it into sections.

    Raises ValueError that names a missing, unknown or unfitting key.
    """
    check_keys(config)
    for name, kind in (("init_from", str), ("seed", int)):
        if not isinstance(config[name], kind) or isinstance(config[name], bool):
            raise ValueError(f"config.{name} is {config[name]!r}, wanted {_KINDS[kind][0]}")
    if not 0 <= config["seed"] < 2**32:  # JAX would take others modulo that, NumPy not at all
        raise ValueError(f"config.seed is {config['seed']}, wanted 0 to {2**32 - 1}")
    if not isinstance(config["init_optimizer"], bool) or (
        config["init_optimizer"] and not config["init_from"]
    ):
        raise ValueError(
            f"config.init_optimizer is {config['init_optimizer']!r}, wanted true or false; true"
            " needs config.init_from, where Adam's state is"
        )
    data = _data(find_task(config["task"]).DataConfig, config)
    model = dict(config["model"])
    from_data = {key: getattr(data, key) for key in ("bi_data", "reuse_len") if hasattr(data, key)}
    _check_types("model.", model, RunConfig)
    if "network" in model and not isinstance(model["network"], str):
        raise ValueError(
            f"model.network must be text (a name, or the path of an xlnet_config.json; '' for that"
            f" of config.init_from), got {model['network']!r}"
        )
    if "network" not in model:
        _check_types("model.", model, XLNetConfig)
    settings = Settings(
        task=config["task"],
        init_from=config["init_from"],
        init_optimizer=config["init_optimizer"],
        seed=config["seed"],
        network=model.get("network", {k: model[k] for k in _network_names(model)}),
        run=RunConfig(**from_data, **{k: model[k] for k in _RUN_NAMES}),
        data=data,
        optimizer=_section(OptimizerConfig, "optimizer", config),
        train=_section(TrainConfig, "train", config),
        checkpoint=_section(CheckpointConfig, "checkpoint", config),
        report=_section(ReportConfig, "report", config),
        mesh=_section(MeshConfig, "mesh", config),
    )
    if settings.checkpoint.best_metric and not settings.train.eval_every:
        raise ValueError(
            f"checkpoint.best_metric is {settings.checkpoint.best_metric!r}, but train.eval_every 0"
            " never measures it: set --config.checkpoint.best_metric= (empty) or"
            " --config.train.eval_every=-1"
        )
    if settings.train.steps:
        make_schedule(settings.optimizer, settings.train.steps)  # raises if they do not fit
    return settings


_SECTIONS = {
    "optimizer": OptimizerConfig,
    "train": TrainConfig,
    "checkpoint": CheckpointConfig,
    "report": ReportConfig,
    "mesh": MeshConfig,
}


def check_keys(config: Mapping[str, Any]) -> None:
    """Raises ValueError that names keys which are missing, or which nothing reads."""
    sections = {"model", "data", *_SECTIONS}
    _check_keys("", config, sections | {"task", "init_from", "init_optimizer", "seed"})
    for name in sorted(sections):
        if not isinstance(config[name], Mapping):
            raise ValueError(f"config.{name} must be a section of keys, got {config[name]!r}")
    if not isinstance(config["task"], str):
        raise ValueError(f"config.task is {config['task']!r}, wanted {_KINDS[str][0]}")
    # The seed of the data is that of the whole config.
    _check_keys("data.", config["data"], _names(find_task(config["task"]).DataConfig) - {"seed"})
    _check_keys("model.", config["model"], _network_names(config["model"]) | _RUN_NAMES)
    for name, kind in _SECTIONS.items():
        _check_keys(f"{name}.", config[name], _names(kind))


def find_task(name: str) -> ModuleType:
    """The module `xlnet_jax.tasks.NAME` of a task; raises ValueError with those that there are."""
    names = [found.name for found in pkgutil.iter_modules(tasks.__path__)]
    if name in names and _is_task(module := _task_module(name)):
        return module
    known = ", ".join(sorted(name for name in names if _is_task(_task_module(name))))
    raise ValueError(f"config.task is {name!r}, wanted one of {known}")


def _task_module(name: str) -> ModuleType:
    return importlib.import_module(f"{tasks.__name__}.{name}")


def _is_task(module: ModuleType) -> bool:
    return hasattr(module, "make_task")


def _data(kind: Any, config: Mapping[str, Any]) -> Any:
    """The task's own section; its `seed`, if it has one, is that of the whole config."""
    _check_types("data.", config["data"], kind)
    seed = {"seed": config["seed"]} if "seed" in _names(kind) else {}
    data = kind(**seed, **config["data"])
    data.validate()
    return data


def _section(kind: type[T], name: str, config: Mapping[str, Any]) -> T:
    _check_types(f"{name}.", config[name], kind)
    return kind(**config[name])


_KINDS: dict[type, tuple[str, tuple[type, ...]]] = {
    bool: ("true or false", (bool,)),
    int: ("a whole number", (int,)),
    float: ("a number", (int, float)),
    str: ("text", (str,)),
}


def _check_types(prefix: str, values: Mapping[str, Any], kind: Any) -> None:
    """Raises ValueError if a value is not of the plain type that the field of `kind` declares."""
    hints = typing.get_type_hints(kind)
    for name, value in values.items():
        wanted, types = _KINDS.get(hints.get(name, object), ("anything", (object,)))
        wrong_bool = isinstance(value, bool) and types in ((int,), (int, float))
        if wrong_bool or not isinstance(value, types):
            raise ValueError(f"{prefix}{name} must be {wanted}, got {value!r}")


def _names(kind: Any) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)}


_RUN_NAMES = _names(RunConfig) - {"bi_data", "reuse_len"}  # keys of `data`, where they matter


def _network_names(model: Mapping[str, Any]) -> set[str]:
    return {"network"} if "network" in model else _names(XLNetConfig)


def _check_keys(prefix: str, values: Mapping[str, Any], wanted: set[str]) -> None:
    if missing := sorted(wanted - values.keys()):
        raise ValueError(f"the config lacks {', '.join(prefix + name for name in missing)}")
    if unknown := sorted(values.keys() - wanted):
        raise ValueError(
            f"the config has keys that nothing reads: {', '.join(prefix + k for k in unknown)};"
            f" known here: {', '.join(sorted(prefix + name for name in wanted))}"
        )
