"""Multiple choice examples and features (race.json in the goldens folder `classifier_features`).

Where a text needs no cut, the original goes on with the tokens of the options before (see
`choice_features.join_choices`). That is replayed here by handing our function such texts, so that
every option of every example is compared; what our own layout differs in is said in a note.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tests.parity.case import Case, Result, unreadable
from tests.parity.feature_files import example_counts, made_of, parsed_records, tokenizer
from xlnet_jax.data.readers_race import ChoiceExample, read_race
from xlnet_jax.data.tokenizer import Tokenizer
from xlnet_jax.tasks.choice_features import Choices, join_choices, make_split
from xlnet_jax.tasks.features import Features
from xlnet_jax.tasks.text_features import PAD_TOKEN, SEGMENT_PAD, Ragged

_NAME = "classifier_features/race"
_ARRAYS = ("input_ids", "input_mask", "segment_ids")


def cases(root: Path, contents: dict[str, Any], meta: dict[str, Any]) -> Iterator[Case]:
    known = {"max_seq_length", "max_qa_length"} <= set(meta)
    for key, value in contents.items():
        if key == "examples":
            for entry in value:
                levels = _levels(entry)
                name = f"{_NAME}/examples/{entry['part']}/{'+'.join(levels)}"
                yield Case(name, partial(_examples, root, entry))
        elif not known:
            yield unreadable(f"{_NAME}/{key}", "meta.json does not say the lengths")
        elif key == "features":
            yield from _feature_cases(root, value, meta)
        elif key.endswith(".tf_record"):
            shown = [e for e in contents.get("features", []) if not e.get("padding_example")]
            words = sorted({(e["model"], e["uncased"]) for e in shown})
            made = made_of(key)
            if made is None:
                yield unreadable(f"{_NAME}/{key}", "its name does not say of what it was made")
                continue
            run = partial(_records, root, key, value, meta, words, *made[1:])
            yield Case(f"{_NAME}/{key}", run)
        else:
            yield Case(f"{_NAME}/{key}", None, "unknown field")


def _levels(entry: dict[str, Any]) -> tuple[str, ...]:
    levels = (() if entry["high_only"] else ("middle",), () if entry["middle_only"] else ("high",))
    return sum(levels, ())


def _examples(root: Path, entry: dict[str, Any]) -> Result:
    """All fields; the order of the original's files is not defined."""
    folder = root / "classifier_features/data/RACE" / entry["part"]
    got = [
        {
            "level": example.level,
            "context": example.context,
            "qa_list": list(example.choices),
            "label": example.label,
        }
        for example in read_race(folder, _levels(entry))
    ]
    return example_counts(got, entry["examples"], any_order=True)


def _feature_cases(
    root: Path, entries: list[dict[str, Any]], meta: dict[str, Any]
) -> Iterator[Case]:
    def group_of(entry: dict[str, Any]) -> tuple[str, ...]:
        if entry.get("padding_example"):
            return ("padding_example",)
        return entry["model"], "uncased" if entry["uncased"] else "cased"

    for group, members in itertools.groupby(sorted(entries, key=group_of), key=group_of):
        name = f"{_NAME}/features/{'/'.join(group)}"
        if group == ("padding_example",):
            yield Case(name, partial(_filler, root, list(members)))
        else:
            yield Case(name, partial(_features, root, list(members), meta))


def _filler(root: Path, entries: list[dict[str, Any]]) -> Result:
    """The fake example that fills the last batch is a row of weight 0 here."""
    words = tokenizer(root, "en", False)
    some = ChoiceExample("", "text", ("a", "b"), 0, "")
    split = make_split([some], words, max_length=16, max_question_length=4)
    features = Features(
        {"tokens": Choices(split.tokens, 2, PAD_TOKEN)}, {}, {"tokens": PAD_TOKEN}, "left"
    )
    weight = features.batch(np.array([0, -1]), 16)["weight"][1]
    wanted = [entry["feature"]["is_real_example"] for entry in entries]
    return example_counts([bool(weight)] * len(entries), wanted)


def _features(root: Path, entries: list[dict[str, Any]], meta: dict[str, Any]) -> Result:
    got: list[Any] = []
    wanted = []
    same = total = 0
    for entry in entries:
        words = tokenizer(root, entry["model"], entry["uncased"])
        example = ChoiceExample("", entry["context"], tuple(entry["qa_list"]), entry["label"], "")
        replayed = _as_the_original(example, words, meta)
        got.append({**replayed, "label_id": entry["label"], "is_real_example": True})
        wanted.append(entry["feature"])
        alike, options = _own_rows(example, words, meta, replayed)
        same, total = same + alike, total + options
        got.append(_first_option(example, words, meta))  # never affected
        wanted.append({k: entry["feature"][k][: meta["max_seq_length"]] for k in _ARRAYS})
    result = example_counts(got, wanted)
    note = f"{result.note}; {same} of {total} options equal without the original's leak"
    return Result(result.error, 0, note)


def _as_the_original(
    example: ChoiceExample, words: Tokenizer, meta: dict[str, Any]
) -> dict[str, list[int]]:
    """Padded rows of all options one after another, each text with what leaked into it."""
    length = meta["max_seq_length"]
    text = words.encode(example.context)
    rows: dict[str, list[int]] = {name: [] for name in _ARRAYS}
    for choice in example.choices:
        asked = words.encode(choice)[-meta["max_qa_length"] :]
        tokens, segments = join_choices(
            _one(text), _one(asked), max_length=length,
            max_question_length=meta["max_qa_length"], sep=words.special.sep, cls=words.special.cls,
        )  # fmt: skip
        if len(text) + len(asked) <= length - 3:
            text = tokens[0].tolist()
        pad = length - len(tokens[0])
        rows["input_ids"] += [PAD_TOKEN] * pad + tokens[0].tolist()
        rows["input_mask"] += [1] * pad + [0] * (length - pad)
        rows["segment_ids"] += [SEGMENT_PAD] * pad + segments[0].tolist()
    return rows


def _one(row: list[int]) -> Ragged:
    return Ragged(np.array(row, np.int32), np.array([len(row)]))


def _own(example: ChoiceExample, words: Tokenizer, meta: dict[str, Any]) -> dict[str, np.ndarray]:
    """What training sees: [options, max_seq_length] of each array."""
    split = make_split(
        [example],
        words,
        max_length=meta["max_seq_length"],
        max_question_length=meta["max_qa_length"],
    )
    tokens = Choices(split.tokens, split.num_choices, PAD_TOKEN)[0]
    segments = Choices(split.segments, split.num_choices, SEGMENT_PAD)[0]
    pad = ((0, 0), (meta["max_seq_length"] - tokens.shape[1], 0))
    padded = np.pad(segments, pad, constant_values=SEGMENT_PAD)
    return {
        "input_ids": np.pad(tokens, pad, constant_values=PAD_TOKEN),
        "input_mask": (padded == SEGMENT_PAD).astype(np.int32),
        "segment_ids": padded,
    }


def _own_rows(
    example: ChoiceExample, words: Tokenizer, meta: dict[str, Any], rows: dict[str, list[int]]
) -> tuple[int, int]:
    """How many options are as in the original, of how many."""
    own = _own(example, words, meta)
    shape = own["input_ids"].shape
    alike = [(own[name] == np.reshape(rows[name], shape)).all(axis=1) for name in _ARRAYS]
    return int(np.all(alike, axis=0).sum()), shape[0]


def _first_option(
    example: ChoiceExample, words: Tokenizer, meta: dict[str, Any]
) -> dict[str, list[int]]:
    return {name: array[0].tolist() for name, array in _own(example, words, meta).items()}


def _records(
    root: Path, file: str, wanted: list[dict[str, Any]], meta: dict[str, Any],
    vocabularies: list[tuple[str, bool]], part: str, passes: int,
) -> Result:  # fmt: skip
    """The file itself, and our features of the part it is named after.

    The folder does not say which vocabulary it was made with: one of those of the features is.
    """
    examples = list(read_race(root / "classifier_features/data/RACE" / part))
    on_disk = example_counts(parsed_records(root / "classifier_features" / file), wanted)
    real = [record for record in wanted if record["is_real_example"][0]]
    results = []
    for model, uncased in vocabularies:
        words = tokenizer(root, model, uncased)
        got = []
        for example in examples:
            rows = _as_the_original(example, words, meta)
            mask = [float(value) for value in rows["input_mask"]]
            label = {"label_ids": [example.label], "is_real_example": [1]}
            got.append({**rows, **label, "input_mask": mask})
        results.append(example_counts(got * passes, real, any_order=True))
    best = min(results, key=lambda result: result.error)
    fillers = len(wanted) - len(real)
    note = f"{best.note}; {fillers} rows that fill up"
    return Result(on_disk.error + best.error, 0, note)
