"""The folder of a run: one process at a time, and the config that it was started with."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from etils import epath
from flax import traverse_util

from xlnet_jax.data import storage

CONFIG_NAME = "config.json"


@contextlib.contextmanager
def claim(workdir: str) -> Iterator[epath.Path]:
    """Makes the folder and holds it for this process until the end of the block.

    The lock is the operating system's, so it is gone with the process however that ends; on
    gs:// there is none.

    Raises ValueError if another process has it, OSError if it cannot be written.
    """
    if not workdir:
        raise ValueError("--workdir is empty, wanted a folder (. for this one)")
    folder = epath.Path(workdir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"--workdir={workdir}: cannot make the folder: {error.strerror}") from error
    if "://" in workdir or jax.process_index() > 0:
        yield folder
        return
    try:
        lock = open(os.path.join(workdir, ".lock"), "a+")  # noqa: SIM115, held for the whole run
    except OSError as error:
        raise OSError(f"--workdir={workdir}: cannot write there: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise ValueError(
                f"--workdir={workdir} is in use by process {lock.read() or 'unknown'}; wait for it"
                " or give another folder"
            ) from error
        try:
            lock.truncate(0)
            os.write(lock.fileno(), str(os.getpid()).encode())
        except OSError as error:
            raise OSError(f"--workdir={workdir}: cannot write there: {error.strerror}") from error
        storage.sweep_unfinished(folder)
        yield folder


def store_config(folder: epath.Path, config: Mapping[str, Any]) -> None:
    """Writes the resolved config beside the checkpoints, in one piece."""
    if jax.process_index() > 0:
        return
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    storage.write_atomic(folder / CONFIG_NAME, [text.encode()])


# What may change when a run is resumed: it is not part of what the state means, or the data's own
# checksums (`Task.identity`) tell whether it matters. (Of the optimizer all but what its state is
# made of, see `_optimizer_parts`.)
_FREE_SECTIONS = ("optimizer", "checkpoint", "report", "mesh")
_FREE = {
    "init_from",
    "init_optimizer",
    "data.train",
    "data.heldout",
    "data.dev",
    "data.test",
    "data.predict",
    "data.folder",
    "data.tfds_data_dir",
    "data.spiece_model",
    "data.cache",
    "data.num_threads",
    "data.dropped_to",
    "data.threshold",
    "data.null_threshold",
    "data.n_best",
    "data.start_n_top",
    "data.end_n_top",
    "model.dtype",
    "model.remat",
    "model.scan_layers",
    "model.dropout",
    "model.activation_dropout",
    "model.attention_dropout",
    "train.steps",
    "train.epochs",
    "train.accumulation_steps",
    "train.eval_every",
    "train.eval_steps",
    "train.eval_batch_size",
}


def compare_configs(
    stored: Mapping[str, Any], current: Mapping[str, Any]
) -> tuple[list[str], list[str]]:
    """Lines for keys that differ and may, and for keys that differ and must not."""
    lines = differing({"config": stored}, {"config": current})
    before, now = (_optimizer_parts(side.get("optimizer", {})) for side in (stored, current))
    shared = before.keys() & now.keys()
    fixed = {f"optimizer.{key}" for key in shared if before[key] != now[key]}
    keys = {line: line.removeprefix("config.").split(":")[0] for line in lines}
    allowed = [line for line, key in keys.items() if _is_free(key) and key not in fixed]
    return allowed, [line for line in lines if line not in allowed]


def _optimizer_parts(config: Mapping[str, Any]) -> dict[str, Any]:
    """By key of section `optimizer`, what of it decides which parts the optimizer's state has."""
    decays = config.get("layer_decay", 1.0) != 1.0
    parts = {
        "clip": config.get("clip", 0.0) > 0,
        "weight_decay": config.get("weight_decay", 0.0) > 0,
        "layer_decay": decays,
        "layer_decay_on": config.get("layer_decay_on") if decays else "",
    }
    return {key: part for key, part in parts.items() if key in config}


def _is_free(key: str) -> bool:
    return key in _FREE or key.split(".")[0] in _FREE_SECTIONS


def differing(stored: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """One line for each key of either that has another value in the other."""
    old, new = (traverse_util.flatten_dict(dict(side), sep=".") for side in (stored, current))
    missing = "(missing)"
    return [
        f"{key}: {old.get(key, missing)!r} in the checkpoint, {new.get(key, missing)!r} now"
        for key in sorted(old.keys() | new.keys())
        if old.get(key, missing) != new.get(key, missing)
    ]
