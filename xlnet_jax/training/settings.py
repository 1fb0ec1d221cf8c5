"""A config's sections as frozen dataclasses; below this nobody sees a ConfigDict."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from xlnet_jax.model.config import RunConfig, XLNetConfig
from xlnet_jax.tasks.sampling import PretrainingDataConfig
from xlnet_jax.training.checkpoint import CheckpointConfig
from xlnet_jax.training.optimizer import OptimizerConfig, make_schedule
from xlnet_jax.training.reporting import ReportConfig

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Section `train` of a config.

    Attributes:
        steps: updates in all.
        batch_size: examples an update, over all devices and accumulation steps.
        accumulation_steps: parts that a batch is worked off in, one after another.
        eval_every: steps between evaluations on held-out text; also at the end. 0 for never.
        eval_steps: held-out batches of an evaluation; 0 for all.
        eval_batch_size: examples a held-out batch; 0 for `batch_size`.
    """

    steps: int
    batch_size: int
    accumulation_steps: int = 1
    eval_every: int = 0
    eval_steps: int = 0
    eval_batch_size: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulation_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"train.{name} must be at least 1, got {getattr(self, name)}")
        for name in ("eval_every", "eval_steps", "eval_batch_size"):
            if getattr(self, name) < 0:
                raise ValueError(f"train.{name} must be 0 or more, got {getattr(self, name)}")


@dataclasses.dataclass(frozen=True)
class Paths:
    """Where the data are: folders of token shards (or of the original's records).

    Attributes:
        train: training text.
        heldout: held-out text of the same vocabulary; "" for none.
        cache: local folder for copies of shards that lie on gs://; "" for the system's own.
    """

    train: str
    heldout: str
    cache: str


@dataclasses.dataclass(frozen=True)
class Settings:
    """A whole config, checked."""

    seed: int
    n_token: int  # 0 until the vocabulary is known
    model: Mapping[str, Any]  # the rest of XLNetConfig
    run: RunConfig
    paths: Paths
    data: PretrainingDataConfig
    optimizer: OptimizerConfig
    train: TrainConfig
    checkpoint: CheckpointConfig
    report: ReportConfig

    def network(self, vocab_size: int) -> XLNetConfig:
        """The network for a vocabulary; `model.n_token`, if not 0, must agree with its size."""
        if self.n_token not in (0, vocab_size):
            raise ValueError(
                f"model.n_token is {self.n_token}, but the vocabulary of data.train has"
                f" {vocab_size} pieces; set config.model.n_token to that, or to 0 to take it from"
                " the vocabulary"
            )
        return XLNetConfig(n_token=vocab_size, **self.model)


def parse(config: Mapping[str, Any]) -> Settings:
    """Checks a config and cuts it into sections.

    Raises ValueError that names a missing, unknown or unfitting key.
    """
    sections = {"model", "data", "optimizer", "train", "checkpoint", "report"}
    _check_keys("", config, sections | {"seed"})
    for name in sorted(sections):
        if not isinstance(config[name], Mapping):
            raise ValueError(f"config.{name} must be a section of keys, got {config[name]!r}")
    data, model = dict(config["data"]), dict(config["model"])
    path_names = _names(Paths)
    network_names = _names(XLNetConfig)
    run_names = _names(RunConfig) - {"bi_data", "reuse_len"}  # those are keys of `data`
    data_names = _names(PretrainingDataConfig) - {"seed"}
    _check_keys("data.", data, path_names | data_names)
    _check_keys("model.", model, network_names | run_names)
    _check_types("data.", data, Paths)
    _check_types("model.", model, RunConfig)
    data_config = PretrainingDataConfig(seed=config["seed"], **{k: data[k] for k in data_names})
    data_config.validate()
    settings = Settings(
        seed=config["seed"],
        n_token=model["n_token"],
        model={k: model[k] for k in network_names - {"n_token"}},
        run=RunConfig(
            bi_data=data_config.bi_data,
            reuse_len=data_config.reuse_len,
            **{k: model[k] for k in run_names},
        ),
        paths=Paths(**{k: data[k] for k in path_names}),
        data=data_config,
        optimizer=_section(OptimizerConfig, "optimizer", config),
        train=_section(TrainConfig, "train", config),
        checkpoint=_section(CheckpointConfig, "checkpoint", config),
        report=_section(ReportConfig, "report", config),
    )
    make_schedule(settings.optimizer, settings.train.steps)  # raises if they do not fit
    if not settings.paths.train:
        raise ValueError("data.train is empty; set --config.data.train=DIR of `xlnet-jax corpus`")
    return settings


def _section(kind: type[T], name: str, config: Mapping[str, Any]) -> T:
    _check_keys(f"{name}.", config[name], _names(kind))
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


def _check_keys(prefix: str, values: Mapping[str, Any], wanted: set[str]) -> None:
    if missing := sorted(wanted - values.keys()):
        raise ValueError(f"the config lacks {', '.join(prefix + name for name in missing)}")
    if unknown := sorted(values.keys() - wanted):
        raise ValueError(
            f"the config has keys that nothing reads: {', '.join(prefix + k for k in unknown)};"
            f" known here: {', '.join(sorted(prefix + name for name in wanted))}"
        )
