"""Work directories of `xlnet-jax train`, seen from below: which checkpoint, and of what head."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from etils import epath

from xlnet_jax.convert import orbax_folder


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
    """What head the parameters of a run have, by the config stored beside them."""
    task = config.get("task", "pretraining")
    details = {}
    for section in ("data", "model"):
        if summary_type := config.get(section, {}).get("summary_type"):
            details["summary_type"] = summary_type
    if task == "classification" and "logits" in params:
        kind = config.get("data", {}).get("kind")
        is_regression = kind == "regression" if kind else params["logits"]["bias"].shape == (1,)
        return ("regression" if is_regression else "classification"), details
    return _HEAD_OF_TASK.get(task), details
