"""Span question answering: features and extraction of answers (folder `squad_features`).

Features come from the library with the reference behaviour; every field of every feature is
compared, also as the original's TFRecords hold them. The exact offsets are compared too: windows
must be the same, and pieces that stand elsewhere are counted in the note of the case.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tests.parity import qa_scores
from tests.parity.case import Case, Result, listed, unreadable
from tests.parity.qa_scores import compared
from xlnet_jax.data import squad_json
from xlnet_jax.data.normalization import Normalization
from xlnet_jax.data.squad_json import QuestionFile
from xlnet_jax.data.tfrecord import RecordFile
from xlnet_jax.data.tokenizer import Tokenizer
from xlnet_jax.tasks.qa import answers, decoding
from xlnet_jax.tasks.qa.config import REFERENCE, DataConfig
from xlnet_jax.tasks.qa.decoding import Beams
from xlnet_jax.tasks.qa.features import SpanWindows, make_windows

_FIRST_ID = 1000000000
_SETTINGS = {
    "max_seq_length": "max_seq_length",
    "doc_stride": "doc_stride",
    "max_query_length": "max_query_length",
    "n_best_size": "n_best",
    "max_answer_length": "max_answer_length",
    "start_n_top": "start_n_top",
    "end_n_top": "end_n_top",
}


def cases(root: Path) -> Iterator[Case]:
    """Cases of each run of each code, of the scoring functions, and of the Chinese scores."""
    for folder in sorted(p for p in (root / "squad_features").iterdir() if p.is_dir()):
        name = f"squad_features/{folder.name}"
        yield from listed(name, partial(_folder_cases, root, folder, name))


def _folder_cases(root: Path, folder: Path, name: str) -> Iterator[Case]:
    meta = json.loads((folder / "meta.json").read_text("utf-8"))
    if (folder / "results.json").exists():
        yield from listed(f"{name}/results", partial(qa_scores.chinese_cases, folder, name))
    elif "runs" not in meta:
        yield Case(name, None, "neither runs nor results.json")
    for run, entry in meta.get("runs", {}).items():
        title = f"{name}/{run}"
        make = partial(_run_cases, root, folder, title, run, meta.get("settings", {}), entry)
        yield from listed(title, make)
    if (folder / "evaluation.json").exists():
        title = f"{name}/evaluation"
        yield from listed(title, partial(qa_scores.score_cases, folder, title))


def _run_cases(
    root: Path, folder: Path, name: str, run: str, settings: dict[str, Any], entry: dict[str, Any]
) -> Iterator[Case]:
    model = root / "tokenization" / entry["model"] / "spiece.model"
    unknown = sorted(set(settings) - set(_SETTINGS))
    if not model.exists() or unknown:
        reason = f"unknown settings {unknown}" if unknown else f"no {model.relative_to(root)}"
        yield unreadable(name, reason)
        return
    make = partial(_Run, folder, run, model, settings, entry)
    yield Case(f"{name}/features", lambda: make().features())
    yield Case(f"{name}/exact_offsets", lambda: make().exact_offsets())
    if entry.get("tf_record"):
        yield Case(f"{name}/tf_record", lambda: make().records())
    predictions = folder / f"predictions_{run}"
    if predictions.is_dir():
        for file in sorted(predictions.glob("*.json")):
            what: Callable[[Path], Result] = lambda path: make().predictions(path)  # noqa: E731
            yield Case(f"{name}/{file.stem}", partial(what, file))
    elif not entry["is_training"]:
        yield Case(f"{name}/predictions", None, f"no {predictions.name}")


class _Run:
    """One set of features of the original, and ours from the same input."""

    def __init__(
        self,
        folder: Path,
        run: str,
        model: Path,
        settings: dict[str, Any],
        entry: dict[str, Any],
    ):
        self.folder, self.run, self.entry = folder, run, entry
        wanted = json.loads((folder / f"features_{run}.json").read_text("utf-8"))
        self.examples, self.wanted = wanted["examples"], wanted["features"]
        # The runs of the Chinese model leave out the questions on paragraphs in other scripts.
        self.file = only(
            squad_json.read(folder / entry["input"]), {one["qas_id"] for one in self.examples}
        )
        self.tokenizer = Tokenizer(model, Normalization("reference", lower=entry["uncased"]))
        self.config = DataConfig(
            **{_SETTINGS[key]: value for key, value in settings.items()}, **REFERENCE
        )

    def windows(self, config: DataConfig | None = None) -> SpanWindows:
        return make_windows(
            self.file, self.tokenizer, config or self.config, training=self.entry["is_training"]
        )

    def features(self) -> Result:
        windows = self.windows()
        got = {
            "examples": self._examples(),
            "features": list(as_original(windows, self.config.max_seq_length)),
        }
        wanted = {"examples": self.examples, "features": self.wanted}
        return compared(got, wanted, "; ".join(windows.report.lists()))

    def _examples(self) -> list[dict[str, Any]]:
        found = []
        for paragraph in self.file.paragraphs:
            for question in paragraph.questions:
                one: dict[str, Any] = {
                    "qas_id": question.id,
                    "question_text": question.text,
                    "paragraph_text": paragraph.context,
                    "orig_answer_text": None,
                    "start_position": None,
                    "is_impossible": False,
                }
                if self.entry["is_training"]:
                    empty = squad_json.Answer("", -1)
                    answer = empty if question.unanswerable else (question.answers or (empty,))[0]
                    one["orig_answer_text"] = answer.text
                    one["start_position"] = answer.start
                    one["is_impossible"] = question.unanswerable
                found.append(one)
        return found

    def exact_offsets(self) -> Result:
        """With exact offsets the windows are the same; where a piece stands may differ.

        A question may be left out in one of the two ways only: its paragraph is not matched, or
        its answer vanishes.
        """
        reference = self.windows()
        exact = self.windows(dataclasses.replace(self.config, alignment="exact"))
        reports = reference.report, exact.report
        lost = {one for report in reports for one in (*report.unmatched, *report.vanished)}
        kept = [
            [k for k, asked in enumerate(w.question) if w.questions[asked].id not in lost]
            for w in (exact, reference)
        ]
        rows = [[row.tolist() for row in w.rows("tokens")] for w in (exact, reference)]
        got, wanted = ([row[k] for k in which] for row, which in zip(rows, kept, strict=True))
        result = compared(got, wanted)
        texts = moved = 0
        for k, other in zip(*kept, strict=False):
            context = exact.pieces.contexts[exact.paragraphs[exact.question[k]]]
            for a, b, c, d in zip(*exact.spans(k), *reference.spans(other), strict=False):
                texts += 1
                moved += context[a:b].strip() != context[c:d].strip()
        note = f"{moved} of {texts} pieces have another text; {len(lost)} questions left out"
        return dataclasses.replace(result, note=f"{result.note}; {note}")

    def records(self) -> Result:
        """The features as the original stored them."""
        got = []
        training = self.entry["is_training"]
        for one in as_original(self.windows(), self.config.max_seq_length):
            record = {key: one[key] for key in ("input_ids", "input_mask", "p_mask", "segment_ids")}
            record |= {"unique_ids": [one["unique_id"]], "cls_index": [one["cls_index"]]}
            if training:
                record["start_positions"] = [one["start_position"]]
                record["end_positions"] = [one["end_position"]]
                record["is_impossible"] = [int(one["is_impossible"])]
            got.append(record)
        return compared(got, _parsed_records(self.folder / self.entry["tf_record"]))

    def predictions(self, path: Path) -> Result:
        """One file of what extraction makes of the invented model outputs."""
        windows = self.windows()
        raw = json.loads((self.folder / f"raw_results_{self.run}.json").read_text("utf-8"))
        found = decoding.decode(windows, _beams(raw, windows, self.config), self.config)
        questions = self.file.questions
        if path.stem == "scores":
            exact, overlap = answers.raw_scores(questions, found.answers())
            odds = found.null_odds or dict.fromkeys(found.nbest, 0)
            got: Any = answers.best_thresholds(
                exact, overlap, found.answers(), odds, answers.has_answer(questions)
            )
        else:
            known = {
                "predictions": found.predictions(),
                "nbest_predictions": decoding.nbest_json(found),
                "null_odds": found.null_odds,
            }
            got = known[path.stem]
        return compared(got, json.loads(path.read_text("utf-8")))


def only(file: QuestionFile, ids: set[str]) -> QuestionFile:
    """A file with some of its questions."""
    kept = []
    for paragraph in file.paragraphs:
        questions = tuple(one for one in paragraph.questions if one.id in ids)
        if questions:
            kept.append(dataclasses.replace(paragraph, questions=questions))
    return QuestionFile(file.path, tuple(kept))


def as_original(windows: SpanWindows, size: int) -> Iterator[dict[str, Any]]:
    """Every window as the original's features say it, padded to `size`."""
    training = windows.labels is not None
    rows = [windows.rows(name) for name in ("tokens", "segment_ids", "cannot_answer")]
    before = -1
    number = 0
    for k, (tokens, segments, closed) in enumerate(zip(*rows, strict=True)):
        asked = int(windows.question[k])
        number = number + 1 if asked == before else 0
        before = asked
        padding = size - len(tokens)
        begins, ends = windows.spans(k)
        length = int(windows.length[k])
        best = windows.is_max_context(np.full(length, k), np.arange(length))
        one = {
            "unique_id": _FIRST_ID + k,
            "example_index": None if training else asked,
            "doc_span_index": number,
            "tok_start_to_orig_index": begins.tolist(),
            "tok_end_to_orig_index": (ends - 1).tolist(),
            "token_is_max_context": best.astype(int).tolist(),
            "input_ids": tokens.tolist() + [0] * padding,
            "input_mask": [0] * len(tokens) + [1] * padding,
            "p_mask": closed.astype(int).tolist() + [1] * padding,
            "segment_ids": segments.tolist() + [3] * padding,
            "paragraph_len": length,
            "cls_index": int(windows.cls[k]),
            "start_position": None,
            "end_position": None,
            "is_impossible": False,
        }
        if windows.labels is not None:
            one["start_position"] = int(windows.labels.starts[k])
            one["end_position"] = int(windows.labels.ends[k])
            one["is_impossible"] = bool(windows.labels.unanswerable[k])
        yield one


def _beams(raw: list[dict[str, Any]], windows: SpanWindows, config: DataConfig) -> Beams:
    by_id = {one["unique_id"]: one for one in raw}
    rows = [by_id[_FIRST_ID + k] for k in range(len(windows))]
    flat = {
        key: np.array([row[key] for row in rows])
        for key in ("start_top_log_probs", "start_top_index", "end_top_log_probs", "end_top_index")
    }
    shape = len(windows), config.start_n_top, config.end_n_top
    logits = [row["cls_logits"] for row in rows] if rows and "cls_logits" in rows[0] else None
    return Beams(
        start_log_probs=flat["start_top_log_probs"].reshape(shape[:2]),
        starts=flat["start_top_index"].reshape(shape[:2]),
        end_log_probs=flat["end_top_log_probs"].reshape(shape),
        ends=flat["end_top_index"].reshape(shape),
        answer_logits=None if logits is None else np.array(logits),
    )


def _parsed_records(path: Path) -> list[dict[str, list[Any]]]:
    found = []
    for record in RecordFile(path):
        features = tf.train.Example.FromString(record).features.feature
        kinds = {name: feature.WhichOneof("kind") for name, feature in features.items()}
        found.append({name: list(getattr(features[name], kinds[name]).value) for name in kinds})
    return found
