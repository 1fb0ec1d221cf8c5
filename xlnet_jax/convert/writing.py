"""Folders in each of the three formats, from parameters of ours."""

from __future__ import annotations

import os
from collections.abc import Mapping

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
)
from xlnet_jax.convert.moments import Moments, to_arrays, to_tensorflow
from xlnet_jax.convert.pretrained import Pretrained
from xlnet_jax.convert.rules import STRICT, Allowed
from xlnet_jax.convert.table import Head, rules_for, shape_of

CHECKPOINT_NAME = "xlnet_model.ckpt"  # as in the released archives
STEP = "global_step"

Arrays = dict[str, np.ndarray]


def write(
    folder: epath.Path,
    loaded: Pretrained,
    target: str,
    *,
    moments: Moments | None = None,
    allowed: Allowed = STRICT,
    as_bin: bool = False,
) -> tuple[str, ...]:
    """Writes a folder of the format `target` ("tf", "hf" or "jax"); returns remarks.

    Raises ValueError where the format has no place for a parameter that is not allowed to go.
    """
    folder.mkdir(parents=True, exist_ok=True)
    params = traverse_util.flatten_dict(dict(loaded.params), sep="/")
    if target == "tf":
        return _write_tensorflow(folder, loaded, params, moments, allowed)
    if target == "hf":
        return _write_huggingface(folder, loaded, params, allowed, as_bin)
    arrays = {f"{orbax_folder.PARAMS}/{path}": array for path, array in params.items()}
    info = {"source": loaded.source, "head": loaded.head, "details": dict(loaded.details)}
    if moments is not None:
        more, info["optimizer"] = to_arrays(moments)
        arrays |= more
    model_files.write_model_files(folder, loaded.config, loaded.tokenizer)
    orbax_folder.write(folder, arrays, info)
    return ()


def _head(loaded: Pretrained) -> Head | None:
    return Head.parse(loaded.head) if loaded.head else None


def _write_tensorflow(
    folder: epath.Path,
    loaded: Pretrained,
    params: Arrays,
    moments: Moments | None,
    allowed: Allowed,
) -> tuple[str, ...]:
    head = _head(loaded)
    if head and head.kind in ("classification", "regression") and not head.task:
        raise ValueError(
            f"a {head.kind} head of the original is named after its task: give"
            f" --head={head.kind}:TASK, with the --task_name of the original in lower case"
        )
    matched = rules.from_params(params, loaded.config, "tensorflow", head=head, allowed=allowed)
    variables = matched.arrays
    if moments is not None:
        variables = {**variables, **to_tensorflow(moments, loaded.config, head, allowed)}
    variables = with_step(variables)
    tensorflow.write_checkpoint(folder / checkpoint_name(variables), variables)
    model_files.write_model_files(folder, loaded.config, loaded.tokenizer)
    return matched.notes()


def with_step(variables: Mapping[str, np.ndarray]) -> Arrays:
    """Adds the step counter where it was left out: the original's programs look for one."""
    return {STEP: np.array(0, np.int64), **variables}


def checkpoint_name(variables: Mapping[str, np.ndarray]) -> str:
    """That of a run at its step if there is optimizer state, else that of a released model."""
    if any(rules.is_optimizer_slot(name) and name != STEP for name in variables):
        return f"model.ckpt-{int(variables[STEP])}"
    return CHECKPOINT_NAME


def copy_model_files(
    folder: epath.Path, beside: epath.Path, spiece_model: str | None, xlnet_config: str | None
) -> None:
    """Takes along what lies beside a checkpoint, or is given; nothing where there is neither."""
    given = {model_files.CONFIG_NAME: xlnet_config, model_files.VOCABULARY_NAME: spiece_model}
    for name in (*given, model_files.NORMALIZATION_NAME):
        source = epath.Path(given.get(name) or beside / name)
        if source.exists():
            (folder / name).write_bytes(source.read_bytes())
        elif given.get(name):
            raise FileNotFoundError(f"{os.fspath(source)}: no such file")


def _write_huggingface(
    folder: epath.Path, loaded: Pretrained, params: Arrays, allowed: Allowed, as_bin: bool
) -> tuple[str, ...]:
    config, head = loaded.config, _head(loaded)
    filled = _fill(loaded, params, head)
    params = {**params, **filled}
    matched = rules.from_params(params, config, "pytorch", head=head, allowed=allowed)
    notes = matched.notes()
    if filled:
        notes += (f"not in {loaded.source}, so written as zeros: {', '.join(filled)}",)
    is_pooled = head and head.kind in ("classification", "regression", "multiple_choice")
    if is_pooled and loaded.details.get("summary_type") in ("first", "mean"):
        notes += ("the summary of transformers counts padding too: give it rows without padding",)
    huggingface_config.write_config(folder, config, head, loaded.details, loaded.tokenizer, params)
    huggingface.write_tensors(folder, matched.arrays, as_bin=as_bin)
    if loaded.tokenizer is None:
        return (*notes, "no vocabulary is known, so no tokenizer was written; give --spiece_model")
    notes += huggingface_tokenizer.write(folder, loaded.tokenizer)
    model_files.write_model_files(folder, config, loaded.tokenizer)
    return notes


def _fill(loaded: Pretrained, params: Arrays, head: Head | None) -> Arrays:
    """Zeros for what a class of transformers has and a fine-tuned checkpoint may lack.

    The mask embedding, which only the query stream reads, and answerability, which the Chinese
    fork of the original leaves out.
    """
    wanted = {"mask"} | ({"answer"} if head and head.kind == "span_qa" else set())
    zeros = {}
    for row in rules_for(loaded.config, head):
        if row.part in wanted and row.parameter not in params:
            shape = tuple(size or 0 for size in shape_of(row.axes, loaded.config))
            zeros[row.parameter] = np.zeros(shape, np.float32)
    return zeros
