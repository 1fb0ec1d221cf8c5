"""`load_pretrained`: config, parameters and tokenizer from any kind of folder."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from etils import epath
from flax import traverse_util

from xlnet_jax.convert import (
    huggingface,
    huggingface_config,
    huggingface_tokenizer,
    model_files,
    orbax_folder,
    rules,
    tensorflow,
    workdirs,
)
from xlnet_jax.convert.rules import STRICT, Allowed
from xlnet_jax.convert.table import choose_head, heads_in
from xlnet_jax.data.tokenizer import Tokenizer
from xlnet_jax.model.config import XLNetConfig

SourceKind = Literal["tf", "hf", "jax", "workdir"]

_WANTED = (
    "a TensorFlow checkpoint (*.index), or a folder with one, with model.safetensors, with params/"
    " of xlnet-jax convert, or with checkpoints/ of xlnet-jax train"
)


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """What a checkpoint holds.

    Attributes:
        config: shape of the network.
        params: nested dict of numpy arrays, float32, named as in `model/heads.py`; what is there.
        tokenizer: None if no vocabulary is at hand.
        source: what was read, for messages.
        head: KIND or KIND:TASK of `convert.table.KINDS`; None if it has none.
        details: what else is known of the head: "summary_type", "labels".
        notes: what was left aside and why, a line each.
    """

    config: XLNetConfig
    params: dict[str, Any]
    tokenizer: Tokenizer | None
    source: str
    head: str | None = None
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Report:
    """What `merge_params` did, by path ("xlnet/word_embedding")."""

    loaded: list[str]
    fresh: list[str]
    unused: list[str]


def load_pretrained(
    path: str | os.PathLike[str],
    *,
    spiece_model: str | os.PathLike[str] | None = None,
    xlnet_config: str | os.PathLike[str] | None = None,
    head: str | None = None,
    lower: bool | None = None,
    allowed: Allowed = STRICT,
) -> Pretrained:
    """Reads a checkpoint of the original, of PyTorch's XLNet, of `convert`, or of a run of ours.

    Args:
        path: prefix of a TensorFlow checkpoint, or a folder with one; a Hugging Face folder; a
            folder of `xlnet-jax convert`; a work directory of `xlnet-jax train`, with @STEP or
            @best for another checkpoint than the newest.
        spiece_model: vocabulary, where it does not lie beside the weights.
        xlnet_config: shape of the network of a TensorFlow checkpoint, where it does not.
        head: KIND or KIND:TASK, where a TensorFlow checkpoint has several.
        lower: lower-case text, as models trained on lower-cased text want it; None: as the files
            say, and if they say nothing, no.
        allowed: parameters that may be missing, variables that may go unused.

    Raises FileNotFoundError if there is nothing such, ValueError if something does not fit.
    """
    kind = kind_of(path)
    if kind != "tf" and xlnet_config is not None:
        raise ValueError(
            f"--xlnet_config={os.fspath(xlnet_config)} is for TensorFlow checkpoints, but"
            f" {os.fspath(path)} says its own shape: leave out --xlnet_config"
        )
    if kind == "tf":
        loaded = _load_tensorflow(path, xlnet_config, head, allowed)
    elif kind == "hf":
        loaded = _load_huggingface(path, allowed)
    elif kind == "jax":
        loaded = _load_folder(path)
    else:
        loaded = _load_workdir(path)
    tokenizer = loaded.tokenizer
    if spiece_model is not None:
        tokenizer = model_files.read_vocabulary(spiece_model)
    if tokenizer is not None and lower is not None:
        cleaned = dataclasses.replace(tokenizer.normalization, lower=lower)
        tokenizer = Tokenizer(tokenizer.model_path, cleaned)
    loaded = dataclasses.replace(loaded, tokenizer=tokenizer)
    _check_vocabulary(loaded)
    return loaded


def kind_of(path: str | os.PathLike[str]) -> SourceKind:
    """What lies at a path; raises FileNotFoundError that says what was looked for."""
    text = os.fspath(path)
    folder = epath.Path(workdirs.split_step(text)[0])
    if (folder / orbax_folder.CHECKPOINTS).is_dir():
        return "workdir"
    if (folder / orbax_folder.INFO_NAME).exists() or (folder / orbax_folder.PARAMS).is_dir():
        return "jax"
    if not folder.is_dir():
        if not folder.parent.is_dir() or not tensorflow.checkpoints_in(folder.parent):
            raise FileNotFoundError(f"{text}: no such file or folder, wanted {_WANTED}")
        tensorflow.find_checkpoint(text)
        return "tf"
    if huggingface.has_weights(folder):
        return "hf"
    if tensorflow.checkpoints_in(folder):
        return "tf"
    if (folder / huggingface_config.CONFIG_NAME).exists():
        huggingface.find_weights(folder)
    raise FileNotFoundError(f"{text} holds no weights: wanted {_WANTED}")


def merge_params(
    fresh: Mapping[str, Any], loaded: Mapping[str, Any]
) -> tuple[dict[str, Any], Report]:
    """Fresh parameters with all that was loaded put in their place.

    Raises ValueError, a line for each, where shapes differ (such as those of a head for another
    number of labels).
    """
    new = traverse_util.flatten_dict(dict(fresh), sep="/")
    old = traverse_util.flatten_dict(dict(loaded), sep="/")
    shared = [path for path in new if path in old]
    wrong = [
        f"{path} is {tuple(old[path].shape)} in the checkpoint, {tuple(new[path].shape)} is wanted"
        for path in shared
        if tuple(old[path].shape) != tuple(new[path].shape)
    ]
    if wrong:
        raise ValueError(
            f"the checkpoint does not fit the model: {'; '.join(wrong)}. For logits this is the"
            " number of labels; for the rest, the network"
        )
    merged = {path: old.get(path, value) for path, value in new.items()}
    report = Report(
        loaded=shared,
        fresh=[path for path in new if path not in old],
        unused=[path for path in old if path not in new],
    )
    return traverse_util.unflatten_dict(merged, sep="/"), report


def _load_tensorflow(
    path: str | os.PathLike[str],
    xlnet_config: str | os.PathLike[str] | None,
    wanted_head: str | None,
    allowed: Allowed,
) -> Pretrained:
    prefix = tensorflow.find_checkpoint(path)
    folder = epath.Path(prefix).parent
    config = read_network(folder, xlnet_config)
    names = tensorflow.variable_names(prefix)
    head = choose_head(heads_in(names), wanted_head, prefix)
    weights = tensorflow.read_checkpoint(prefix, lambda name: not rules.is_optimizer_slot(name))
    matched = rules.to_params(weights, config, "tensorflow", head=head, allowed=allowed)
    notes = matched.notes()
    if slots := len(names) - len(weights):
        notes += (f"{slots} variables of the optimizer are no part of the model",)
    details = {}
    if "summary/attention/q" in matched.arrays:
        details["summary_type"] = "attn"
    return Pretrained(
        config,
        traverse_util.unflatten_dict(matched.arrays, sep="/"),
        model_files.read_tokenizer(folder),
        prefix,
        str(head) if head else None,
        details,
        notes,
    )


def read_network(
    folder: epath.Path, xlnet_config: str | os.PathLike[str] | None = None
) -> XLNetConfig:
    """The `xlnet_config.json` given or beside a checkpoint; raises where there is none."""
    if xlnet_config is not None:
        text = epath.Path(xlnet_config)
        if not text.exists():
            raise FileNotFoundError(f"--xlnet_config={os.fspath(xlnet_config)}: no such file")
        try:
            return XLNetConfig.from_json(text.read_text())
        except ValueError as error:
            raise ValueError(f"--xlnet_config={os.fspath(xlnet_config)}: {error}") from error
    if (config := model_files.read_config(folder)) is None:
        raise FileNotFoundError(
            f"{os.fspath(folder)} has no {model_files.CONFIG_NAME}, which says the shape and the"
            " activation of the network; put it there or give --xlnet_config=FILE"
        )
    return config


def _load_huggingface(path: str | os.PathLike[str], allowed: Allowed) -> Pretrained:
    folder = epath.Path(path)
    described = huggingface_config.read_config(folder)
    tensors = huggingface.read_tensors(folder)
    head = huggingface_config.head_of(described, tensors)
    matched = rules.to_params(tensors, described.config, "pytorch", head=head, allowed=allowed)
    tokenizer = None
    vocabulary = folder / model_files.VOCABULARY_NAME
    if (folder / model_files.NORMALIZATION_NAME).exists():
        tokenizer = model_files.read_tokenizer(folder)
    elif vocabulary.exists():
        tokenizer = Tokenizer(vocabulary, huggingface_tokenizer.read_normalization(folder))
    return Pretrained(
        described.config,
        traverse_util.unflatten_dict(matched.arrays, sep="/"),
        tokenizer,
        os.fspath(path),
        str(head) if head else None,
        described.details,
        (*described.notes, *matched.notes()),
    )


def _load_folder(path: str | os.PathLike[str]) -> Pretrained:
    folder = epath.Path(path)
    checkpoint = orbax_folder.read(folder)
    return Pretrained(
        read_network(folder),
        _nested(checkpoint.arrays, orbax_folder.PARAMS),
        model_files.read_tokenizer(folder),
        os.fspath(path),
        checkpoint.info.get("head"),
        checkpoint.info.get("details", {}),
    )


def _load_workdir(path: str | os.PathLike[str]) -> Pretrained:
    name, step = workdirs.split_step(os.fspath(path))
    workdir = epath.Path(name)
    found, checkpoint, notes = workdirs.read_newest(workdir, step, optimizer=False)
    params = _nested(checkpoint.arrays, orbax_folder.PARAMS)
    head, details = workdirs.head_of_run(checkpoint.info.get("config", {}), params)
    return Pretrained(
        read_network(workdir),
        params,
        model_files.read_tokenizer(workdir),
        f"{name}@{found}",
        head,
        details,
        notes,
    )


def _nested(arrays: Mapping[str, np.ndarray], item: str) -> dict[str, Any]:
    flat = {path.removeprefix(f"{item}/"): value for path, value in arrays.items()}
    return traverse_util.unflatten_dict(flat, sep="/")


def _check_vocabulary(loaded: Pretrained) -> None:
    tokenizer, config = loaded.tokenizer, loaded.config
    if tokenizer is not None and tokenizer.vocab_size != config.n_token:
        raise ValueError(
            f"{os.fspath(tokenizer.model_path)} has {tokenizer.vocab_size} pieces, but the network"
            f" of {loaded.source} has n_token {config.n_token}; give the vocabulary that belongs to"
            " it (--spiece_model; in training config.data.spiece_model)"
        )
