"""Clean-up and pieces of the original, string by string (goldens folder `tokenization`)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

from tests.parity.case import Case, Result, unreadable
from xlnet_jax.data.normalization import Normalization
from xlnet_jax.data.tokenizer import Tokenizer

_OPTIONS = {"lower", "remove_space", "keep_accents"}
_KINDS = {"cased", "uncased", "raw"}
_FIELDS = {"sp_pieces", "pieces", "ids", "tie"}


def cases(root: Path) -> Iterator[Case]:
    """One case for each clean-up setting and for each model and kind of text."""
    folder = root / "tokenization"
    entries: list[dict[str, Any]] = json.loads((folder / "cases.json").read_text("utf-8"))
    known_parts = {"id", "text", "preprocess", "encode"}
    for part in sorted({key for entry in entries for key in entry} - known_parts):
        yield Case(f"tokenization/{part}", None, "unknown field of cases.json")
    for setting in _names(entries, "preprocess"):
        name = f"tokenization/preprocess/{setting}"
        normalization = _normalization(setting)
        if normalization is None:
            yield unreadable(name, f"unknown option; known are {', '.join(sorted(_OPTIONS))}")
        else:
            yield Case(name, partial(_clean_up, entries, setting, normalization))
    for key in _names(entries, "encode"):
        yield from _encode_cases(folder, entries, key)


def _encode_cases(folder: Path, entries: list[dict[str, Any]], key: str) -> Iterator[Case]:
    model, _, kind = key.rpartition("/")
    name = f"tokenization/{key}"
    if kind not in _KINDS:
        yield Case(name, None, f"unknown kind of text {kind!r}")
        return
    path = folder / model / "spiece.model"
    if not path.exists():
        yield unreadable(name, f"no {model}/spiece.model")
        return
    chosen = [entry for entry in entries if key in entry.get("encode", {})]
    raised = sum("error" in entry["encode"][key] for entry in chosen)
    if raised:
        yield Case(f"{name}/error", None, f"{raised} strings on which the original itself fails")
    chosen = [entry for entry in chosen if "error" not in entry["encode"][key]]
    unknown = {field for entry in chosen for field in entry["encode"][key]} - _FIELDS
    for field in sorted(unknown):
        yield Case(f"{name}/{field}", None, "unknown field of cases.json")
    checks: dict[str, Callable[[Tokenizer, str], Any]] = {
        "sp_pieces": lambda tokenizer, text: list(tokenizer.processor.EncodeAsPieces(text)),
        "pieces": lambda tokenizer, text: tokenizer.clean_as_pieces(text),
        "ids": _ids_both_ways,
    }
    for field, function in checks.items():
        yield Case(f"{name}/{field}", partial(_encode, path, chosen, key, field, function))


def _names(entries: list[dict[str, Any]], part: str) -> list[str]:
    return sorted({name for entry in entries for name in entry.get(part, {})})


def _normalization(setting: str) -> Normalization | None:
    options = dict(option.split("=", 1) for option in setting.split(","))
    if not set(options) <= _OPTIONS or not set(options.values()) <= {"0", "1"}:
        return None
    return Normalization(
        "reference",
        lower=options.get("lower", "0") == "1",
        keep_accents=options.get("keep_accents", "0") == "1",
        collapse_whitespace=options.get("remove_space", "1") == "1",
    )


def _clean_up(entries: list[dict[str, Any]], setting: str, normalization: Normalization) -> Result:
    wrong = []
    chosen = [entry for entry in entries if setting in entry.get("preprocess", {})]
    for entry in chosen:
        text, wanted = entry["text"], entry["preprocess"][setting]
        ways = [normalization.clean(text), normalization.clean_with_spans(text)[0]]
        if "\n" not in text:
            ways.append(normalization.clean_lines(["a", text, "b"])[1])
        if any(way != wanted for way in ways):
            wrong.append(entry["id"])
    return _count(wrong, len(chosen))


@cache
def _tokenizer(path: Path, lower: bool) -> Tokenizer:
    return Tokenizer(path, Normalization("reference", lower=lower))


def _ids_both_ways(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids of clean text; those of the batch call, if they differ, so that the case fails."""
    ids = tokenizer.encode_clean(text)
    batch, lengths = tokenizer.encode_batch([text, "", text], is_clean=True)
    if batch.tolist() != ids + ids or lengths.tolist() != [len(ids), 0, len(ids)]:
        return [int(i) for i in batch]
    return ids


def _encode(
    path: Path,
    entries: list[dict[str, Any]],
    key: str,
    field: str,
    function: Callable[[Tokenizer, str], Any],
) -> Result:
    kind = key.rpartition("/")[2]
    tokenizer = _tokenizer(path, kind == "uncased")
    wrong, ties = [], 0
    for entry in entries:
        wanted = entry["encode"][key]
        text = entry["text"] if kind == "raw" else tokenizer.normalization.clean(entry["text"])
        got = function(tokenizer, text)
        if wanted.get("tie") and got != wanted[field]:
            # Two cuts of equal score; which one comes out depends on SentencePiece's version.
            ties += 1
            pieces, other = wanted["pieces"], tokenizer.clean_as_pieces(text)
            same = "".join(pieces) == "".join(other)
        else:
            same = got == wanted[field]
            if same and field == "ids" and kind != "raw":
                same = tokenizer.encode_with_offsets(entry["text"])[0] == got
        if not same:
            wrong.append(entry["id"])
    return _count(wrong, len(entries), f"{ties} ties cut otherwise" if ties else "")


def _count(wrong: list[Any], total: int, note: str = "") -> Result:
    if not total:
        return Result(float("inf"), 0.0, "nothing was compared")
    notes = [f"{total} strings", note, f"wrong: {wrong[:5]}" if wrong else ""]
    return Result(float(len(wrong)), 0.0, "; ".join(filter(None, notes)))
