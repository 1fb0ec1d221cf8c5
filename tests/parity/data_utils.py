"""Pretraining data of the original (goldens folder `data_utils`).

Sampling is replayed with the slow definition in `tests/tasks/reference_sampling.py`; file names,
word starts, ranks, targets, and the reading and writing of records go through the library itself.
"""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from tests.parity import data_utils_runs as runs
from tests.parity.case import Case, Result, listed, unlisted
from tests.tasks import reference_sampling as slow
from xlnet_jax.data import factorization, original_records, record_infos
from xlnet_jax.data.tokenizer import Tokenizer

Arrays = dict[str, np.ndarray]


def cases(root: Path) -> Iterator[Case]:
    """Cases of helpers, order masks, parsed examples, record infos and whole runs."""
    folder = root / "data_utils"
    meta = json.loads((folder / "meta.json").read_text("utf-8"))
    if (folder / "helpers.json").exists():
        yield from listed("data_utils/helpers", partial(_helper_cases, folder))
    given, perms = meta.get("runs", {}), meta.get("local_perm", {}).get("cases", {})
    for name in perms:
        yield Case(f"data_utils/local_perm/{name}", partial(_local_perm, folder, name))
    yield from unlisted("data_utils/local_perm", folder / "local_perm.npz", perms)
    parsed = meta.get("parsed_examples", {}).get("cases", {})
    for name, case in parsed.items():
        run = partial(_parsed_examples, folder, given, name, case)
        yield Case(f"data_utils/parsed_examples/{name}", run)
    yield from unlisted("data_utils/parsed_examples", folder / "parsed_examples.npz", parsed)
    for number, entry in enumerate(meta.get("record_info_merging", [])):
        name = f"data_utils/record_info_merging/{number}"
        yield Case(name, partial(_merging, folder, given, entry))
    for name, entry in given.items():
        title = f"data_utils/runs/{name}"
        yield from listed(title, partial(runs.cases, folder, title, entry))


def differing(got: Any, wanted: Any) -> int:
    """How many items differ; at least 1 if the shapes do."""
    got, wanted = np.asarray(got), np.asarray(wanted)
    if got.shape != wanted.shape:
        return max(got.size, wanted.size, 1)
    return int((got != wanted).sum())


def compared(pairs: dict[str, tuple[Any, Any]]) -> Result:
    """All of `pairs` name -> (got, wanted) must be equal."""
    errors = {name: differing(*values) for name, values in pairs.items()}
    wrong = [f"{name}: {error} differ" for name, error in errors.items() if error]
    if not pairs:
        return Result(float("inf"), 0, "nothing was compared")
    return Result(sum(errors.values()), 0, "; ".join(wrong) or f"{len(pairs)} items")


@cache
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer(folder / "spiece.model")


def _helper_cases(folder: Path) -> Iterator[Case]:
    helpers = json.loads((folder / "helpers.json").read_text("utf-8"))
    known: dict[str, Callable[[Path, list[Any]], Result]] = {
        "sample_mask": _sample_mask,
        "split_a_and_b": _split_a_and_b,
        "is_start_piece": _is_start_piece,
        "batchify": _batchify,
        "format_filename": _format_filename,
    }
    for name, entries in helpers.items():
        if name in known:
            yield Case(f"data_utils/helpers/{name}", partial(known[name], folder, entries))
        else:
            yield Case(f"data_utils/helpers/{name}", None, "unknown helper")


def _sample_mask(folder: Path, entries: list[Any]) -> Result:
    pairs: dict[str, tuple[Any, Any]] = {}
    for k, entry in enumerate(entries):
        numbers = np.random.RandomState(entry["seed"])
        rule = slow.Rule(entry["mask_alpha"], entry["mask_beta"], entry["max_gram"])
        mask = slow.choose_tokens(
            np.array(entry["segment"]), tokenizer(folder).word_starts,
            entry["goal_num_predict"], rule, numbers, backward=entry["reverse"],
        )  # fmt: skip
        pairs[f"mask {k}"] = (mask, np.array(entry["mask"], bool))
        pairs[f"next_random {k}"] = (numbers.randint(0, 10**6), entry["next_random"])
    return compared(pairs)


def _split_a_and_b(folder: Path, entries: list[Any]) -> Result:
    pairs: dict[str, tuple[Any, Any]] = {}
    for k, entry in enumerate(entries):
        numbers, data = random.Random(entry["seed"]), np.array(entry["data"])
        sentence = np.array(entry["sent_ids"])
        pair = slow.split_pair(sentence, entry["begin_idx"], entry["tot_len"], numbers)
        one_more = entry["extend_target"]
        if pair and one_more and max(pair.a[1], pair.b[1]) >= len(data):
            pair = None
        wanted = entry["result"]
        pairs[f"possible {k}"] = (pair is not None, wanted is not None)
        pairs[f"next_random {k}"] = (numbers.random(), entry["next_random"])
        if pair is None or wanted is None:
            continue
        found = {
            "a": data[slice(*pair.a)],
            "b": data[slice(*pair.b)],
            "label": pair.follows,
            "new_begin": pair.next_begin,
            "a_target": data[pair.a[0] + 1 : pair.a[1] + 1],
            "b_target": data[pair.b[0] : pair.b[1] + 1],
        }
        pairs |= {f"{key} {k}": (found[key], value) for key, value in wanted.items()}
    return compared(pairs)


def _is_start_piece(folder: Path, entries: list[Any]) -> Result:
    return compared({"word_starts": (tokenizer(folder).word_starts, np.array(entries, bool))})


def _batchify(folder: Path, entries: list[Any]) -> Result:
    pairs = {}
    for k, entry in enumerate(entries):
        for name in ("data", "sent_ids"):
            if entry.get(name) is not None:
                rows = slow.batchify(np.array(entry[name]), entry["bsz"])
                pairs[f"{name} {k}"] = (rows, entry[f"out_{name}"])
    return compared(pairs)


def _format_filename(folder: Path, entries: list[Any]) -> Result:
    pairs = {}
    for k, entry in enumerate(entries):
        pairs[str(k)] = (record_infos.format_filename(**entry["args"]), entry["result"])
    return compared(pairs)


def _local_perm(folder: Path, name: str) -> Result:
    case = _group(folder / "local_perm.npz", name)
    ids, masked, order = case["inputs"], case["is_masked"], case["order"]
    functional = np.isin(ids, (slow.SEP, slow.CLS))
    targets = masked & ~functional
    ranks = factorization.part_ranks(order, masked | functional)
    mask, slow_targets = slow.order_mask(order, ids, masked)
    return compared(
        {
            "ranks": (_mask_of(ranks, targets), _open_diagonal(case["out_perm_mask"], targets)),
            "slow mask": (mask, case["out_perm_mask"]),
            "slow targets": (slow_targets, case["out_target_mask"] > 0),
            "targets": (targets, case["out_inputs_q"] > 0),
            "new targets": (_shifted(ids, case["targets"]), case["out_new_targets"]),
            "inputs": (ids, case["out_inputs_k"]),
        }
    )


def _mask_of(ranks: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """What ranks hide, 1 = hidden: content rows, then the rows of queries at the targets."""
    content = ranks[..., None, :] > ranks[..., :, None]
    query = ranks[..., None, :] >= ranks[..., :, None]
    return np.stack([content, query & targets[..., None]]).astype(np.float32)


def _open_diagonal(mask: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The original's mask as its two streams use it, in the form of `_mask_of`."""
    content = mask * (1 - np.eye(mask.shape[-1], dtype=mask.dtype))
    return np.stack([content, mask * targets[..., None]])


def _shifted(ids: np.ndarray, next_ids: np.ndarray) -> np.ndarray:
    """Each position's own token, from the list of tokens that follow each position."""
    return np.concatenate([ids[..., :1], next_ids[..., :-1]], axis=-1)


def _parsed_examples(
    folder: Path, all_runs: dict[str, Any], name: str, case: dict[str, Any]
) -> Result:
    wanted = _group(folder / "parsed_examples.npz", name)
    read, reuse_len = _first_records(folder, all_runs[case["run"]], wanted["input_k"])
    tokens, masked = read["input"], read["is_masked"] > 0
    functional = np.isin(tokens, (slow.SEP, slow.CLS))
    targets = masked & ~functional
    shape = len(tokens), case["perm_size"]
    ranks = factorization.sequence_ranks(
        np.broadcast_to(wanted["order_first"], shape),
        np.broadcast_to(wanted["order_second"], shape),
        masked | functional,
        reuse_len,
    )
    positions, weights = factorization.target_list(targets, case["num_predict"])
    chosen = np.take_along_axis(tokens, positions, axis=1)
    pairs: dict[str, tuple[Any, Any]] = {
        "ranks": (_mask_of(ranks, targets), _open_diagonal(wanted["perm_mask"], targets)),
        "input_k": (tokens, wanted["input_k"]),
        "input_q": (targets, wanted["input_q"]),
        "seg_id": (read["seg_id"], wanted["seg_id"]),
        "label": (read["label"], wanted["label"]),
        "target_mask": (weights, wanted["target_mask"]),
    }
    if case["num_predict"] is None:
        parts = (slice(0, reuse_len), slice(reuse_len, None))
        own = [_shifted(tokens[:, part], read["target"][:, part]) for part in parts]
        pairs["target"] = (np.concatenate(own, axis=1), wanted["target"])
        pairs["target tokens"] = (chosen[targets], wanted["target"][targets])
    else:
        mapping = np.eye(tokens.shape[1])[positions] * weights[..., None]
        pairs["target_mapping"] = (mapping, wanted["target_mapping"])
        pairs["target"] = (chosen * (weights > 0), wanted["target"])
    unknown = set(wanted) - {*pairs, "perm_mask", "order_first", "order_second"}
    return compared(pairs | {f"{key} (unknown array)": (0, 1) for key in unknown})


def _first_records(folder: Path, run: dict[str, Any], tokens: np.ndarray) -> tuple[Arrays, int]:
    """The first records of a run's file (which of several comes first was left to chance)."""
    flags = runs.flags_of(run["commands"][0])
    read: Arrays = {}
    for info in record_infos.find_infos([folder / flags["save_dir"] / "tfrecords"], flags["split"]):
        file = original_records.RecordBatches(
            info.filenames[0], info.settings, info.num_batch, None
        )
        read = file.read(0, np.arange(len(tokens)))
        if np.array_equal(read["input"], tokens):
            break
    return read, flags["reuse_len"]


def _merging(folder: Path, all_runs: dict[str, Any], entry: dict[str, Any]) -> Result:
    """The original never leaves out a pass: all of its files are in the list."""
    folders = [folder / part for part in entry["tfrecord_dir"].split(",")]
    flags = _flags_of_writer(all_runs, Path(entry["tfrecord_dir"].split(",")[0]).parent)
    settings = dataclasses.asdict(runs.record_settings(flags))
    infos = record_infos.select(record_infos.find_infos(folders, flags["split"]), settings)
    batches = sum(info.num_batch for info in infos)
    names = [str(Path(name).relative_to(folder)) for info in infos for name in info.filenames]
    wanted = entry["record_info"]
    return compared(
        {
            "num_batch": (batches, wanted["num_batch"]),
            "filenames": (names, wanted["filenames"]),
        }
    )


def _flags_of_writer(all_runs: dict[str, Any], place: Path) -> dict[str, Any]:
    """Of the first command that wrote to a folder."""
    for command in (command for run in all_runs.values() for command in run["commands"]):
        flags = runs.flags_of(command)
        if Path(flags["save_dir"]) == place:
            return flags
    raise ValueError(f"no run of meta.json has --save_dir={place}")


def _group(path: Path, name: str) -> Arrays:
    with np.load(path) as arrays:
        return {key[len(name) + 1 :]: arrays[key] for key in arrays if key.startswith(f"{name}/")}
