"""Scores of answers, English and Chinese, and how json values are compared."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tests.parity.case import Case, Result
from xlnet_jax.data import squad_json
from xlnet_jax.data.squad_json import Question
from xlnet_jax.tasks.qa import answers, chinese_answers

_NUMBERS = 1e-6  # tolerance of probabilities and scores


def differences(got: Any, wanted: Any, where: str = "") -> list[str]:
    """Places where two json values differ; numbers may by 1e-6 of the wanted one."""
    if isinstance(wanted, Mapping) and isinstance(got, Mapping):
        found = [f"{where}.{k}: only on one side" for k in sorted(set(got) ^ set(wanted))]
        for key in sorted(set(got) & set(wanted)):
            found += differences(got[key], wanted[key], f"{where}.{key}")
        return found
    if isinstance(wanted, list) and isinstance(got, list | tuple):
        if len(got) != len(wanted):
            return [f"{where}: {len(got)} instead of {len(wanted)} items"]
        pairs = enumerate(zip(got, wanted, strict=True))
        return [text for k, pair in pairs for text in differences(*pair, f"{where}[{k}]")]
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (got, wanted))
    same = abs(got - wanted) <= _NUMBERS * max(1, abs(wanted)) if numbers else got == wanted
    return [] if same else [f"{where}: {got!r} instead of {wanted!r}"]


def compared(got: Any, wanted: Any, note: str = "") -> Result:
    found = differences(got, wanted)
    text = "; ".join(found[:3]) or f"{_leaves(wanted)} values equal"
    return Result(len(found), 0, f"{text}; {note}" if note else text)


def _leaves(value: Any) -> int:
    if isinstance(value, Mapping):
        return sum(map(_leaves, value.values()))
    return sum(map(_leaves, value)) if isinstance(value, list) else 1


def score_cases(folder: Path, name: str) -> Iterator[Case]:
    wanted = json.loads((folder / "evaluation.json").read_text("utf-8"))
    file = squad_json.read(folder / "dev.json")
    for key, entry in wanted.items():
        if key == "normalize_answer":
            yield Case(f"{name}/{key}", partial(_normalized, entry))
        elif key == "compute_f1":
            yield Case(f"{name}/{key}", partial(_pairs, entry))
        elif isinstance(entry, dict) and "predictions" in entry:
            yield Case(f"{name}/{key}", partial(_scores, file.questions, entry))
        else:
            yield Case(f"{name}/{key}", None, "unknown entry of evaluation.json")


def _normalized(entries: list[list[str]]) -> Result:
    return compared([[text, answers.normalize(text)] for text, *_ in entries], entries)


def _pairs(entries: list[list[Any]]) -> Result:
    got = [[a, b, answers.f1(a, b), answers.exact_match(a, b)] for a, b, *_ in entries]
    return compared(got, entries)


def _scores(questions: list[Question], entry: dict[str, Any]) -> Result:
    """One set of predictions with invented null odds, through every scoring function."""
    predictions, odds, limit = entry["predictions"], entry["na_scores"], entry["threshold"]
    asked = [question for question in questions if question.id in predictions]
    answerable = answers.has_answer(asked)
    exact, f1 = answers.raw_scores(asked, predictions)
    cut = [answers.with_threshold(s, odds, answerable, limit) for s in (exact, f1)]
    best = answers.best_thresholds(exact, f1, predictions, odds, answerable)
    plain_best = {key: value for key, value in best.items() if not key.startswith("has_ans")}
    report = answers.squad_report(questions, predictions, odds, limit)
    given = {"predictions": predictions, "na_scores": odds, "threshold": limit}
    got = given | {
        "exact": exact,
        "f1": f1,
        "exact_after_threshold": cut[0],
        "f1_after_threshold": cut[1],
        "summary": answers.summary(cut[0], cut[1], answerable),
        "best_thresholds": plain_best,
        "best_thresholds_v2": best,
        "average_precision_exact": answers.average_precision(exact, odds, answerable),
        "average_precision_f1": answers.average_precision(f1, odds, answerable),
        "command_line_result": {k: v for k, v in report.items() if not k.startswith("has_ans")},
    }
    return compared(got, entry)


def chinese_cases(folder: Path, name: str) -> Iterator[Case]:
    wanted = json.loads((folder / "results.json").read_text("utf-8"))
    for key, entry in wanted.items():
        if key == "results":
            for file, result in entry.items():
                yield Case(f"{name}/{file}", partial(_chinese_scores, folder, file, result))
        elif key == "segmentation":
            yield Case(f"{name}/{key}", partial(_segmentation, entry))
        elif key == "longest_common_run":
            yield Case(f"{name}/{key}", partial(_common_runs, entry))
        else:
            yield Case(f"{name}/{key}", None, "unknown entry of results.json")


def _chinese_scores(folder: Path, file: str, wanted: dict[str, Any]) -> Result:
    questions = squad_json.read(folder / "ground_truth.json").questions
    predictions = json.loads((folder / file).read_text("utf-8"))
    report = chinese_answers.chinese_report(questions, predictions)
    single = {}
    for question in questions:
        if question.id in predictions:
            texts = [answer.text for answer in question.answers or ()]
            single[question.id] = {
                "f1": chinese_answers.f1(texts, predictions[question.id]),
                "em": chinese_answers.exact_match(texts, predictions[question.id]),
            }
    printed: dict[str, Any] = {key.upper(): f"{report[key]:.3f}" for key in ("average", "f1", "em")}
    printed |= {"TOTAL": report["total"], "SKIP": report["skip"], "FILE": file}
    got = {key: report[key] for key in ("f1", "em", "total", "skip")}
    return compared(got | {"per_question": single, "printed": printed}, wanted)


def _segmentation(entries: list[dict[str, Any]]) -> Result:
    got = [
        {
            "text": entry["text"],
            "segments": chinese_answers.segments(entry["text"], without_punctuation=False),
            "segments_without_punctuation": chinese_answers.segments(
                entry["text"], without_punctuation=True
            ),
            "without_punctuation": chinese_answers.remove_punctuation(entry["text"]),
        }
        for entry in entries
    ]
    return compared(got, entries)


def _common_runs(entries: list[list[Any]]) -> Result:
    got = []
    for one, other, *_ in entries:
        begin, length = chinese_answers.longest_common_run(one, other)
        got.append([one, other, one[begin : begin + length], length])
    return compared(got, entries)
