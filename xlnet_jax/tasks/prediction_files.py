"""Predictions as files: the tables that GLUE takes, and JSON with names and numbers."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from xlnet_jax.data.storage import write_atomic


def write_predictions(
    output: str, stem: str, guids: Sequence[str], answers: Sequence[Any], details: dict[str, Any]
) -> None:
    """Writes one answer an example, in order, and to JSON also what `details` names.

    The table is "index", "prediction" as the original and GLUE have it, with index counted from 0.
    The JSON objects are {"id", "prediction", ...}. See `deliver` for `output`.
    """
    text = io.StringIO()
    # Only a label with a tab or a line break is quoted; the original writes none such.
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow(["index", "prediction"])
    for index, answer in enumerate(answers):
        writer.writerow([index, ",".join(answer) if isinstance(answer, list) else answer])
    deliver(output, stem, text.getvalue(), {"id": guids, "prediction": answers, **details})


def write_tags(
    output: str,
    stem: str,
    guids: Sequence[str],
    words: Sequence[Sequence[str]],
    tags: Sequence[Sequence[str]],
) -> None:
    """Writes a tag a word: a line each and a blank line behind a sentence, as CoNLL files have it.

    The JSON objects are {"id", "words", "tags"}. See `deliver` for `output`.
    """
    lines = [
        "".join(f"{word}\t{tag}\n" for word, tag in zip(*sentence, strict=True))
        for sentence in zip(words, tags, strict=True)
    ]
    deliver(output, stem, "\n".join(lines), {"id": guids, "words": words, "tags": tags})


def say(notes: Sequence[str]) -> None:
    """Prints what was dropped or cut, beside the answers: on standard error."""
    for note in notes:
        print(note, file=sys.stderr)


def deliver(output: str, stem: str, table: str, columns: Mapping[str, Sequence[Any]]) -> None:
    """Writes `table` and JSON objects made of `columns`, one entry an example.

    `output` is a file for the one or the other, by its ending .tsv or .json or .jsonl; or "-" for
    the table on standard output; or else a folder, which gets STEM.tsv and STEM.json.

    Raises ValueError if the columns differ in length, OSError if a file cannot be written.
    """
    counts = {name: len(values) for name, values in columns.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(f"different numbers of entries for the same examples: {counts}")
    ending = os.path.splitext(output)[1].lower()
    if output == "-":
        sys.stdout.write(table)
    elif ending == ".tsv":
        _write(epath.Path(output), table)
    elif ending in (".json", ".jsonl"):
        _write(epath.Path(output), _json(columns, lines=ending == ".jsonl"))
    else:
        _write(epath.Path(output) / f"{stem}.tsv", table)
        _write(epath.Path(output) / f"{stem}.json", _json(columns, lines=False))


def _json(columns: Mapping[str, Sequence[Any]], *, lines: bool) -> str:
    rows = [
        json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False)
        for row in zip(*columns.values(), strict=True)
    ]
    if lines:
        return "".join(f"{row}\n" for row in rows)
    return "[\n" + ",\n".join(rows) + "\n]\n"


def _write(path: epath.Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, [text.encode()])
