"""From settings to a task and its devices: weights to start from, data opened and compared."""

from __future__ import annotations

import dataclasses
import os
from typing import NamedTuple

from etils import epath
from jax.sharding import Mesh

from xlnet_jax.convert import model_files, orbax_folder
from xlnet_jax.convert.pretrained import Pretrained, load_pretrained
from xlnet_jax.data.tokenizer import Tokenizer
from xlnet_jax.model.config import NAMED_CONFIGS, XLNetConfig
from xlnet_jax.tasks.task import Context, Task
from xlnet_jax.training import sharding
from xlnet_jax.training.settings import Settings


class Foundation(NamedTuple):
    """What a run stands on.

    Attributes:
        config: shape of the network; None if only the run's config says it.
        tokenizer: None if the data bring the vocabulary.
        weights: those of `init_from`; None without, or if the run has its own by now.
        source: where config and tokenizer are from, for messages.
    """

    config: XLNetConfig | None
    tokenizer: Tokenizer | None
    weights: Pretrained | None
    source: str


def find_foundation(settings: Settings, folder: str, *, begun: bool = False) -> Foundation:
    """The work directory's own files if it has been used, else `init_from`, else the config's.

    It has been if it holds a checkpoint, or by `begun`.

    Raises ValueError or OSError where something is missing or cannot be understood.
    """
    # A run that was stopped before its first checkpoint has its files, but no weights yet: they
    # count only where the config does not say what to start from.
    begun = begun or bool(orbax_folder.steps_of(epath.Path(folder)))
    begun = begun or not (settings.init_from or settings.network)
    if begun and (config := model_files.read_config(folder)):
        # Pretraining has its vocabulary from its data.
        has_own = hasattr(settings.data, "spiece_model") or isinstance(settings.network, str)
        tokenizer = model_files.read_tokenizer(folder) if has_own else None
        # Where the config says the network, checkpoints are compared with it.
        config = config if isinstance(settings.network, str) else None
        return Foundation(config, tokenizer, None, os.fspath(folder))
    spiece_model = getattr(settings.data, "spiece_model", "")
    if settings.init_from:
        source = f"config.init_from={settings.init_from}"
        try:
            weights = load_pretrained(settings.init_from, spiece_model=spiece_model or None)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{source}: {error}") from error
        return Foundation(weights.config, weights.tokenizer, weights, source)
    tokenizer = None
    if spiece_model:
        tokenizer = model_files.read_vocabulary(spiece_model)
    if settings.network == "":
        raise ValueError(
            "config.init_from is empty, and so is config.model.network; set one of them: pretrained"
            " weights, or a network (a name or an xlnet_config.json) to start at random"
        )
    if isinstance(settings.network, str):
        config = _read_network(settings.network, tokenizer)
        return Foundation(config, tokenizer, None, f"config.model.network={settings.network}")
    return Foundation(None, tokenizer, None, "config.model")


def make_task(settings: Settings, foundation: Foundation) -> Task:
    """Opens the data, compares them with the config and with each other, and builds the model.

    Raises ValueError or OSError where something is missing or does not fit.
    """
    train = settings.train
    said = foundation.config.n_token if foundation.config else None
    if said is None and not isinstance(settings.network, str):
        said = settings.network["n_token"] or None
    context = Context(
        network=lambda vocab_size: network_for(settings, foundation, vocab_size),
        vocab_size=said,
        run=settings.run,
        tokenizer=foundation.tokenizer,
        seed=settings.seed,
        batch_size=train.batch_size,
        eval_batch_size=eval_batch_size(settings),
        eval_batch_key="train.eval_batch_size" if train.eval_batch_size else "train.batch_size",
        eval_steps=train.eval_steps,
    )
    task: Task = settings.task_module.make_task(settings.data, context)
    if train.eval_every and not task.has_heldout:
        key = "heldout" if hasattr(settings.data, "heldout") else "dev"
        raise ValueError(
            f"train.eval_every is {train.eval_every}, but data.{key} is empty; set"
            f" --config.data.{key}=PATH or --config.train.eval_every=0"
        )
    return task


def network_for(settings: Settings, foundation: Foundation, vocab_size: int) -> XLNetConfig:
    """The network for a vocabulary, if config and weights agree with its size."""
    config = foundation.config
    if not isinstance(settings.network, str):
        n_token = settings.network["n_token"]
        if n_token not in (0, vocab_size):
            raise ValueError(
                f"model.n_token is {n_token}, but the vocabulary of the data has {vocab_size}"
                " pieces; set config.model.n_token to that, or to 0 to take it from the vocabulary"
            )
        wanted = XLNetConfig(**{**settings.network, "n_token": vocab_size})
        if config and (lines := _differing(config, wanted)):
            raise ValueError(f"{foundation.source} is of another network: {'; '.join(lines)}")
        return wanted
    assert config is not None
    if config.n_token != vocab_size:
        raise ValueError(
            f"the network of {foundation.source} has n_token {config.n_token}, but the vocabulary"
            f" has {vocab_size} pieces; give the vocabulary that belongs to it"
            " (config.data.spiece_model)"
        )
    return config


def _differing(found: XLNetConfig, wanted: XLNetConfig) -> list[str]:
    names = [field.name for field in dataclasses.fields(found)]
    return [
        f"{name} {getattr(found, name)!r} there, config.model.{name} {getattr(wanted, name)!r}"
        for name in names
        if getattr(found, name) != getattr(wanted, name)
    ]


def _read_network(network: str, tokenizer: Tokenizer | None) -> XLNetConfig:
    """A named network with the vocabulary's size, or that of an `xlnet_config.json`."""
    if network in NAMED_CONFIGS:
        named = NAMED_CONFIGS[network]
        return dataclasses.replace(named, n_token=tokenizer.vocab_size) if tokenizer else named
    path = epath.Path(network)
    if not path.exists():
        raise FileNotFoundError(
            f"config.model.network is {network!r}: no such file, and no name of"
            f" {', '.join(NAMED_CONFIGS)}"
        )
    try:
        return XLNetConfig.from_json(path.read_text())
    except ValueError as error:
        raise ValueError(f"{network}: {error}") from error


def make_mesh(settings: Settings, task: Task) -> Mesh:
    """The config's mesh; raises ValueError if network or batch cannot be cut evenly over it."""
    train, group = settings.train, task.rows_per_group
    mesh = sharding.make_mesh(settings.mesh)
    sharding.check_network(task.network, mesh)
    key, parts = "train.batch_size", train.accumulation_steps
    sharding.check_batch_size(key, train.batch_size, group, parts, mesh)
    if task.has_heldout:
        check_eval_batch_size(settings, task, mesh)
    return mesh


def check_eval_batch_size(settings: Settings, task: Task, mesh: Mesh) -> None:
    """Raises ValueError if a held-out batch cannot be cut evenly over the mesh."""
    if settings.train.eval_batch_size:
        key = "train.eval_batch_size"
    else:
        key = "train.eval_batch_size (0: that of train.batch_size)"
    sharding.check_batch_size(key, eval_batch_size(settings), task.rows_per_group, 1, mesh)


def eval_batch_size(settings: Settings) -> int:
    """Examples of a held-out batch."""
    return settings.train.eval_batch_size or settings.train.batch_size
