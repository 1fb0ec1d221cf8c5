"""Whole runs of the original's `data_utils.py`: replayed, read by the library, written again."""

from __future__ import annotations

import dataclasses
import json
import random
import shlex
import tempfile
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags as absl_flags

from tests.parity.case import Case, Result, unreadable
from tests.tasks import reference_sampling as slow
from xlnet_jax.data import original_records, record_infos
from xlnet_jax.data.normalization import Normalization
from xlnet_jax.data.record_infos import RecordSettings
from xlnet_jax.data.tokenizer import Tokenizer

# The original's own defaults; flags that a command does not give have these values.
_DEFAULTS: dict[str, Any] = {
    "use_tpu": True, "bsz_per_host": 32, "num_core_per_host": 8, "seq_len": 512, "reuse_len": 256,
    "uncased": True, "bi_data": True, "mask_alpha": 6, "mask_beta": 1, "use_eod": True,
    "from_raw_text": True, "num_predict": 85, "input_glob": "data/example/*.txt", "sp_path": "",
    "save_dir": "proc_data/example", "split": "train", "pass_id": 0, "num_task": 1, "task": 0,
}  # fmt: skip
_CORPUS_INFO = (
    "bsz_per_host", "num_core_per_host", "seq_len", "reuse_len", "uncased", "bi_data", "mask_alpha",
    "mask_beta", "num_predict", "use_eod", "sp_path", "input_glob",
)  # fmt: skip


def cases(folder: Path, name: str, run: dict[str, Any]) -> Iterator[Case]:
    """One case for each command of a run, and one for its corpus_info.json."""
    for command in run["commands"]:
        try:
            flags = flags_of(command)
        except ValueError as error:
            yield unreadable(name, str(error))
            continue
        title = f"{name}/{flags['split']}-{flags['task']}-{flags['pass_id']}"
        seed = run["python_random_seed"]
        yield Case(title, partial(_check, folder, flags, seed))
        if flags["task"] == 0:
            yield Case(f"{title}/corpus_info", partial(_corpus_info, folder, flags))


class _NumberOrNone(absl_flags.IntegerParser):
    def convert(self, argument: Any) -> Any:
        return None if argument == "None" else super().convert(argument)


def flags_of(command: str) -> dict[str, Any]:
    """The flags of a command in any of absl's spellings, with the original's defaults.

    ValueError for one that cannot be read.
    """
    values = absl_flags.FlagValues()
    for name, default in _DEFAULTS.items():
        if isinstance(default, bool):
            absl_flags.DEFINE_bool(name, default, "", values)
        elif isinstance(default, int):
            parser, writer = _NumberOrNone(), absl_flags.ArgumentSerializer()
            absl_flags.DEFINE(parser, name, default, "", values, writer)
        else:
            absl_flags.DEFINE_string(name, default, "", values)
    words = shlex.split(command.replace("\\\n", " "))
    program = next((k for k, word in enumerate(words) if word.endswith(".py")), 0)
    try:
        rest = values(words[program:])[1:]
    except absl_flags.Error as error:
        raise ValueError(f"{error} in {command!r}") from error
    if rest:
        raise ValueError(f"arguments that are no flags: {rest} in {command!r}")
    flags = {name: values[name].value for name in _DEFAULTS}
    if not flags["use_tpu"]:
        flags["num_core_per_host"] = 1  # as the original forces it
    return flags


def record_settings(flags: dict[str, Any]) -> RecordSettings:
    names = [field.name for field in dataclasses.fields(RecordSettings)]
    return RecordSettings(**{name: flags[name] for name in names})


def _check(folder: Path, flags: dict[str, Any], seed: int | None) -> Result:
    settings = record_settings(flags)
    prefix = f"{flags['split']}-{flags['task']}-{flags['pass_id']}"
    name = settings.file_name(prefix, "tfrecords")
    place = folder / flags["save_dir"]
    with np.load(place / "records.npz") as arrays:
        wanted = {key: arrays[f"{name}/{key}"] for key in original_records.FEATURES}
    infos = [
        info
        for info in record_infos.find_infos([place / "tfrecords"], flags["split"])
        if (info.task, info.pass_id) == (flags["task"], flags["pass_id"])
    ]
    wrong: dict[str, float] = {}
    if len(infos) != 1 or infos[0].settings != settings:
        wrong["record info"] = 1
    info = infos[0]
    wrong["num_batch"] = abs(info.num_batch * settings.bsz_per_host - len(wanted["input"]))
    wrong["file name"] = Path(info.filenames[0]).name != name
    wrong |= {f"read {key}": n for key, n in _differing(_read_all(folder, info), wanted).items()}
    wrong |= {f"write {k}": n for k, n in _write_again(flags, info, wanted).items()}
    checked = "replayed, read, written again"
    if seed is None:
        wrong["structure"] = _structure(folder, flags, wanted)
        checked = "unseeded: structure and masks of every record; read, written again"
    else:
        wrong |= {
            f"replay {k}": n for k, n in _differing(_replay(folder, flags, seed), wanted).items()
        }
    failed = "; ".join(f"{key}: {int(error)} differ" for key, error in wrong.items() if error)
    return Result(sum(wrong.values()), 0, failed or f"{len(wanted['input'])} records {checked}")


def _differing(got: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> dict[str, int]:
    errors = {}
    for key, values in wanted.items():
        same_shape = got[key].shape == values.shape
        errors[key] = int((got[key] != values).sum()) if same_shape else values.size
    return errors


def _read_all(folder: Path, info: record_infos.RecordInfo) -> dict[str, np.ndarray]:
    file = original_records.RecordBatches(info.filenames[0], info.settings, info.num_batch, None)
    rows = np.arange(info.settings.bsz_per_host)
    batches = [file.read(batch, rows) for batch in range(len(file))]
    return {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}


def _write_again(
    flags: dict[str, Any], info: record_infos.RecordInfo, arrays: dict[str, np.ndarray]
) -> dict[str, int]:
    """Written by the library and read again, and the json beside it."""
    size = flags["bsz_per_host"]
    batches = [
        {key: values[first : first + size] for key, values in arrays.items()}
        for first in range(0, len(arrays["input"]), size)
    ]
    with tempfile.TemporaryDirectory() as place:
        written = original_records.write_run(
            place, info.settings, batches, split=flags["split"], task=flags["task"],
            pass_id=flags["pass_id"], corpus_info={},
        )  # fmt: skip
        errors = _differing(_read_all(Path(place), written), arrays)
        ours = json.loads((written.folder / written.name).read_text())
        theirs = json.loads((info.folder / info.name).read_text())
    relative = [str(Path(name).relative_to(place)) for name in ours["filenames"]]
    expected = [str(Path(name).relative_to(flags["save_dir"])) for name in theirs["filenames"]]
    errors["record_info"] = (relative, ours["num_batch"]) != (expected, theirs["num_batch"])
    return errors


def _replay(folder: Path, flags: dict[str, Any], seed: int) -> dict[str, np.ndarray]:
    numbers = np.random.RandomState(100 * flags["task"] + flags["pass_id"])
    tokens, sentence = slow.join_files(_files(folder, flags), numbers)
    settings = slow.RunSettings(
        flags["bsz_per_host"], flags["num_core_per_host"], flags["seq_len"], flags["reuse_len"],
        flags["bi_data"], flags["num_predict"], slow.Rule(flags["mask_alpha"], flags["mask_beta"]),
    )  # fmt: skip
    starts_word = _tokenizer(folder, flags).word_starts
    batches = slow.records(tokens, sentence, settings, starts_word, numbers, random.Random(seed))
    found = [record for batch in batches for record in batch]
    return {key: np.stack([record[key] for record in found]) for key in found[0]}


def _structure(folder: Path, flags: dict[str, Any], wanted: dict[str, np.ndarray]) -> int:
    """Records whose text is not where it should be, or whose parts are not as laid down."""
    numbers = np.random.RandomState(100 * flags["task"] + flags["pass_id"])
    tokens, sentence = slow.join_files(_files(folder, flags), numbers)
    size = flags["bsz_per_host"]
    order = original_records.alternating_rows(
        size, flags["num_core_per_host"], bi_data=flags["bi_data"]
    )
    text = size // 2 if flags["bi_data"] else size
    rows = slow.batchify(tokens, text), slow.batchify(sentence, text)
    wrong = _differing_masks(folder, flags, wanted, numbers)
    for ours, row in enumerate(order):
        ids, parity = (values[ours // 2 if flags["bi_data"] else ours] for values in rows)
        if flags["bi_data"] and ours % 2:
            ids, parity = ids[::-1], parity[::-1]
        for step, record in enumerate(range(int(row), len(wanted["input"]), size)):
            part = {key: values[record] for key, values in wanted.items()}
            wrong += not _is_record_of(ids, parity, part, step * flags["reuse_len"], flags)
    return wrong


def _differing_masks(
    folder: Path, flags: dict[str, Any], wanted: dict[str, np.ndarray], numbers: Any
) -> int:
    """Masks that are not those of the records' tokens: numpy's numbers are seeded in every run."""
    rule = slow.Rule(flags["mask_alpha"], flags["mask_beta"])
    starts_word, reuse_len = _tokenizer(folder, flags).word_starts, flags["reuse_len"]
    size, goal = flags["bsz_per_host"], flags["num_predict"]
    goals = (None, None) if goal is None else (goal - goal // 2, goal // 2)
    half = size // flags["num_core_per_host"] // 2  # records of one direction on one core
    wrong = 0
    for number, (ids, mask) in enumerate(zip(wanted["input"], wanted["is_masked"], strict=True)):
        backward = flags["bi_data"] and number % size // half % 2 == 1
        parts = zip((ids[:reuse_len], ids[reuse_len:]), goals, strict=True)
        found = [
            slow.choose_tokens(part, starts_word, goal, rule, numbers, backward=backward)
            for part, goal in parts
        ]
        wrong += not np.array_equal(np.concatenate(found), mask > 0)
    return wrong


def _is_record_of(
    tokens: np.ndarray,
    sentence: np.ndarray,
    record: dict[str, np.ndarray],
    begin: int,
    flags: dict[str, Any],
) -> bool:
    ids, segments = record["input"], record["seg_id"]
    a_end = int((segments == 0).sum()) - 1  # the first <sep>
    b = ids[a_end + 1 : -2]
    starts = np.flatnonzero(np.append(True, sentence[1:] != sentence[:-1]))
    if record["label"][0]:
        starts = starts[(starts >= begin + a_end) & (starts < begin + flags["seq_len"] - 3)]
    return (
        any(np.array_equal(tokens[start : start + len(b)], b) for start in starts)
        and np.array_equal(ids[:a_end], tokens[begin : begin + a_end])
        and ids[a_end] == ids[-2] == slow.SEP
        and ids[-1] == slow.CLS
        and np.array_equal(segments, np.repeat([0, 1, 2], [a_end + 1, len(b) + 1, 1]))
    )


def _corpus_info(folder: Path, flags: dict[str, Any]) -> Result:
    """The original wrote the values of its flags, and the library writes the same."""
    found = json.loads((folder / flags["save_dir"] / "corpus_info.json").read_text())
    with tempfile.TemporaryDirectory() as place:
        names = ("num_core_per_host", "use_eod", "sp_path", "input_glob")
        original_records.write_run(
            place, record_settings(flags), [],
            corpus_info={"vocab_size": 32000, **{name: flags[name] for name in names}},
        )  # fmt: skip
        ours = json.loads((Path(place) / "corpus_info.json").read_text())
    wanted = {"vocab_size": 32000, **{name: flags[name] for name in _CORPUS_INFO}}
    sources = (found, wanted, ours)
    keys = sorted({key for source in sources for key in source})
    wrong = [key for key in keys if any(source.get(key) != found.get(key) for source in sources)]
    return Result(len(wrong), 0, ", ".join(wrong) or f"{len(wanted)} fields")


@cache
def _cached_tokenizer(path: Path, lower: bool) -> Tokenizer:
    return Tokenizer(path, Normalization("reference", lower=lower))


def _tokenizer(folder: Path, flags: dict[str, Any]) -> Tokenizer:
    return _cached_tokenizer(folder / flags["sp_path"], flags["uncased"])


def _files(folder: Path, flags: dict[str, Any]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Tokens and sentence parity of the files that this task reads, in order of their names."""
    paths = sorted(folder.glob(flags["input_glob"]))[flags["task"] :: flags["num_task"]]
    encode: Callable[[str], list[int]]
    if flags["from_raw_text"]:
        encode = _tokenizer(folder, flags).encode
    else:
        encode = lambda line: [int(word) for word in line.split()]  # noqa: E731
    found = []
    for path in paths:
        lines = path.read_bytes().decode("utf-8").split("\n")
        if lines[-1] == "":
            del lines[-1]
        if lines:
            found.append(slow.read_lines(lines, encode, use_eod=flags["use_eod"]))
    return found
