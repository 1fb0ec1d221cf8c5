"""Task files, examples and features of classification (goldens folder `classifier_features`)."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tests.parity import race_features
from tests.parity.case import Case, Result, listed, unreadable
from tests.parity.feature_files import example_counts, made_of, parsed_records, tokenizer
from xlnet_jax.data import readers_published
from xlnet_jax.data.readers import TextExample
from xlnet_jax.data.readers_rows import Oddities
from xlnet_jax.tasks.features import Features
from xlnet_jax.tasks.text_features import PAD_TOKEN, SEGMENT_PAD, truncated_lengths
from xlnet_jax.tasks.text_splits import TextSplit, make_split

# The original's name -> ours, and its folder below data/.
_NAMES = {"xnli": "xnli/zh", "csc": "chnsenticorp", "mnli": "mnli_matched", "sts": "sts-b"}
_FOLDERS = {
    "mnli_matched": "MNLI", "mnli_mismatched": "MNLI", "sts-b": "STS-B", "imdb": "imdb",
    "yelp5": "yelp5", "xnli/zh": "XNLI", "chnsenticorp": "CSC", "csv": "csv",
}  # fmt: skip
_KNOWN_FILES = ("fork", "original", "race")
_FEATURES = ("input_ids", "input_mask", "segment_ids")


def cases(root: Path) -> Iterator[Case]:
    """Cases of original.json, fork.json and race.json, and of every record file."""
    folder = root / "classifier_features"
    meta = json.loads((folder / "meta.json").read_text("utf-8"))
    said: set[str] = set()
    files = {path for path in folder.glob("*.json") if path.stem != "meta"}
    files |= {folder / f"{stem}.json" for stem in _KNOWN_FILES if stem in meta}
    for path in sorted(files):
        name = f"classifier_features/{path.stem}"
        yield from listed(name, partial(_file_cases, root, path, name, meta, said))
    for path in sorted(folder.glob("*.tf_record")):
        if path.name not in said:
            yield Case(f"classifier_features/{path.name}", None, "no parsed records beside it")


def _file_cases(
    root: Path, path: Path, name: str, meta: dict[str, Any], said: set[str]
) -> Iterator[Case]:
    """Of one of the files beside meta.json; record files that it speaks of are added to `said`."""
    if path.stem not in _KNOWN_FILES:
        yield Case(name, None, "unknown file")
        return
    contents = json.loads(path.read_text("utf-8"))
    said |= {key for key in contents if key.endswith(".tf_record")}
    cases_of = race_features.cases if path.stem == "race" else partial(_cases_of, name=name)
    yield from cases_of(root, contents=contents, meta=meta.get(path.stem, {}))


def _cases_of(
    root: Path, name: str, contents: dict[str, Any], meta: dict[str, Any]
) -> Iterator[Case]:
    for key, value in contents.items():
        if key == "examples":
            for task, parts in value.items():
                yield from _example_cases(root, f"{name}/examples/{task}", task, parts)
        elif key == "features":
            yield from _feature_cases(root, f"{name}/features", value)
        elif key == "truncate_pair":
            yield Case(f"{name}/truncate_pair", partial(_truncate_pair, value))
        elif key.endswith(".tf_record"):
            said = meta.get("tf_record", "")
            yield _record_case(root, f"{name}/{key}", value, said, contents.get("features", []))
        else:
            yield Case(f"{name}/{key}", None, "unknown field")


def _example_cases(root: Path, name: str, task: str, parts: dict[str, Any]) -> Iterator[Case]:
    own = _NAMES.get(task, task)
    for part, wanted in parts.items():
        if own not in _FOLDERS:
            yield Case(f"{name}/{part}", None, "unknown data set")
        elif part == "labels":
            yield Case(f"{name}/labels", partial(_labels, own, wanted))
        elif isinstance(wanted, dict):
            yield Case(f"{name}/{part}", partial(_refused, root, own, part, wanted))
        else:
            run = partial(_examples, root, own, part, wanted, parts["labels"])
            yield Case(f"{name}/{part}", run)


def _labels(own: str, wanted: list[Any]) -> Result:
    labels = readers_published.find(own).labels
    return example_counts([list(labels or (0.0,))], [wanted])


def _refused(root: Path, own: str, part: str, wanted: dict[str, str]) -> Result:
    try:
        _read(root, own, part)
    except (ValueError, OSError) as error:
        return Result(0, 0, f"the original: {wanted['error']}; here: {error}")
    return Result(1, 0, f"the original: {wanted['error']}; here: no error")


def _read(root: Path, own: str, part: str) -> list[TextExample]:
    folder = root / "classifier_features/data" / _FOLDERS[own]
    return list(readers_published.find(own).read(own, folder, part, Oddities()))


def _examples(
    root: Path, own: str, part: str, wanted: list[dict[str, Any]], labels: list[Any]
) -> Result:
    """All fields, in order; IMDB's files have no order and its examples no names."""
    is_folder = readers_published.find(own).form == "folders"
    got = [
        {
            "guid": "unused_id" if is_folder else example.guid,
            "text_a": example.text_a,
            "text_b": example.text_b,
            # Where the data hide the label, the original puts the first one.
            "label": labels[0] if example.label is None else example.label,
        }
        for example in _read(root, own, part)
    ]
    return example_counts(got, wanted, any_order=is_folder)


def _feature_cases(root: Path, name: str, entries: list[dict[str, Any]]) -> Iterator[Case]:
    def group_of(entry: dict[str, Any]) -> tuple[str, ...]:
        if entry.get("padding_example"):
            return ("padding_example",)
        case = "uncased" if entry["uncased"] else "cased"
        return entry["model"], case, f"{entry['max_seq_length']:03}"

    ordered = sorted(entries, key=group_of)
    for group, members in itertools.groupby(ordered, key=group_of):
        run = _filler if group == ("padding_example",) else _features
        yield Case(f"{name}/{'/'.join(group)}", partial(run, root, list(members)))


def _features(root: Path, entries: list[dict[str, Any]]) -> Result:
    got, wanted = [], []
    for entry in entries:
        labels = entry["label_list"] or ()
        text = TextExample("0", entry["text_a"], entry["text_b"], entry["label"], "", 0)
        split = make_split(
            iter([text]),
            tokenizer(root, entry["model"], entry["uncased"]),
            labels=labels,
            max_length=entry["max_seq_length"],
            oddities=Oddities(),
        )
        got += _as_original(split, entry["max_seq_length"])
        label = entry["feature"]["label_id"]
        wanted.append({**entry["feature"], "label_id": label if labels else float32(label)})
    return example_counts(got, wanted)


def float32(value: float) -> float:
    return float(np.float32(value))


def _as_original(split: TextSplit, length: int) -> list[dict[str, Any]]:
    """Features padded as a batch is, with the original's names."""
    batch = _batch(split, np.arange(len(split.tokens)), length)
    return [
        {
            "input_ids": batch["tokens"][row].tolist(),
            "input_mask": batch["padding"][row].astype(int).tolist(),
            "segment_ids": batch["segment_ids"][row].tolist(),
            "label_id": batch["labels"][row].item(),
            "is_real_example": bool(batch["weight"][row]),
        }
        for row in range(len(split.tokens))
    ]


def _batch(split: TextSplit, index: np.ndarray, length: int) -> dict[str, np.ndarray]:
    features = Features(
        {"tokens": split.tokens, "segment_ids": split.segments},
        {} if split.labels is None else {"labels": split.labels},
        {"tokens": PAD_TOKEN, "segment_ids": SEGMENT_PAD},
        "left",
    )
    return features.batch(index, length)


def _filler(root: Path, entries: list[dict[str, Any]]) -> Result:
    """The fake example that fills the last batch is a row of weight 0 here.

    It holds another example's tokens, which nobody looks at.
    """
    some = TextExample("0", "a", None, "x", "", 0)
    words = tokenizer(root, "en", False)
    got = []
    for entry in entries:
        split = make_split(
            iter([some]), words, labels=("x", "y"), max_length=8, oddities=Oddities()
        )
        batch = _batch(split, np.array([0, -1]), entry["max_seq_length"])
        got.append(bool(batch["weight"][1]))
    return example_counts(got, [entry["feature"]["is_real_example"] for entry in entries])


def _truncate_pair(entries: list[dict[str, Any]]) -> Result:
    got, wanted = [], []
    for entry in entries:
        first, second = (np.array([length]) for length in entry["lengths"])
        kept = truncated_lengths(first, second, entry["max_length"])
        got.append([list(range(int(n[0]))) for n in kept])
        wanted.append([entry["a"], [token - 100 for token in entry["b"]]])
    return example_counts(got, wanted)


def _record_case(
    root: Path, name: str, records: list[dict[str, Any]], said: str, entries: list[Any]
) -> Case:
    """`said` in meta.json gives the vocabulary for one file; the others may have any of ours."""
    file = name.split("/")[-1]
    made = made_of(file)
    if made is None or (own := _NAMES.get(made[0], made[0])) not in _FOLDERS:
        return unreadable(name, "its name does not say of what it was made")
    words = sorted({(e["model"], e["uncased"]) for e in entries if not e.get("padding_example")})
    settings = re.search(r"(\w+) model, (cased|uncased)", said)
    if settings and made[0] in said.split():
        words = [(settings[1], settings[2] == "uncased")]
    compare = partial(_records, root, file, records, own, *made[1:])
    return Case(name, lambda: min(map(compare, words), key=lambda result: result.error))


def _records(
    root: Path, file: str, wanted: list[dict[str, Any]], own: str, part: str, passes: int,
    words: tuple[str, bool],
) -> Result:  # fmt: skip
    """The file itself, and the features that our reader makes of the same data."""
    on_disk = example_counts(parsed_records(root / "classifier_features" / file), wanted)
    length = len(wanted[0]["input_ids"])
    split = make_split(
        iter(_read(root, own, part)),
        tokenizer(root, *words),
        labels=readers_published.find(own).labels,
        max_length=length,
        oddities=Oddities(),
    )
    got = [
        {
            "input_ids": feature["input_ids"],
            "input_mask": [float(value) for value in feature["input_mask"]],
            "segment_ids": feature["segment_ids"],
            "label_ids": [feature["label_id"]],
        }
        for feature in _as_original(split, length)
    ] * passes
    real = [record for record in wanted if record["is_real_example"][0]]
    fillers = len(wanted) - len(real)
    result = example_counts(
        got,
        [{key: record[key] for key in (*_FEATURES, "label_ids")} for record in real],
        any_order=readers_published.find(own).form == "folders",  # whose files have no order
    )
    note = f"{result.note}; {fillers} rows that fill up"
    return Result(result.error + on_disk.error, 0, note)
