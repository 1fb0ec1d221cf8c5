"""Work directories of `xlnet-jax train`, seen from below: which checkpoint, and of what head."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from etils import epath

from xlnet_jax.convert import orbax_folder
from xlnet_jax.data import readers_published


def split_step(path: str) -> tuple[str, str]:
    """WORKDIR@STEP -> (WORKDIR, STEP); STEP is "" where none is given."""
    folder, at, step = path.rpartition("@")
    if at and (step == "best" or step.isdecimal()):
        return folder, step
    return path, ""


def read_newest(
    workdir: epath.Path, step: str, *, optimizer: bool
) -> tuple[int, orbax_folder.Checkpoint, tuple[str, ...]]:
    """The checkpoint of a step, "best", or ("") the newest one that is whole; and why not newer."""
    folder = workdir / "best" if step == "best" else workdir
    steps = orbax_folder.steps_of(folder)
    if step.isdecimal() and int(step) not in steps:
        raise FileNotFoundError(
            f"no checkpoint of step {step} in {os.fspath(workdir)}; there are {steps}"
        )
    if not steps:
        raise FileNotFoundError(f"no complete checkpoint in {os.fspath(folder)}; train first")
    skipped: list[str] = []
    for candidate in [int(step)] if step.isdecimal() else steps[::-1]:
        try:
            read = orbax_folder.read_checkpoint(folder, candidate, optimizer=optimizer)
            return candidate, read, tuple(skipped)
        except ValueError as error:
            skipped.append(f"not used: {error}")
    raise ValueError("; ".join(skipped))


_HEAD_OF_TASK = {"span_qa": "span_qa", "multiple_choice": "multiple_choice", "tagging": "tagging"}


def head_of_run(
    config: Mapping[str, Any], params: Mapping[str, Any]
) -> tuple[str | None, dict[str, Any]]:
    """What head the parameters of a run have, and its details, by the config stored with them."""
    task, data = config.get("task", "pretraining"), config.get("data", {})
    details: dict[str, Any] = {}
    if summary_type := data.get("summary_type"):
        details["summary_type"] = summary_type
    if labels := data.get("labels"):
        details["labels"] = list(labels)
    if task != "classification" or "logits" not in params:
        return _HEAD_OF_TASK.get(task), details
    if data.get("kind") == "multi_label":
        details["problem_type"] = "multi_label_classification"
    published = readers_published.DATA_SETS.get(data.get("name", ""))
    if published and published.labels:
        details["labels"] = list(published.labels)
    is_number = params["logits"]["bias"].shape == (1,) and data.get("kind") != "multi_label"
    return ("regression" if is_number else "classification"), details
