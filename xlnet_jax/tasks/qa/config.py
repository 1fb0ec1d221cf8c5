"""Settings of span question answering, and whether they fit each other."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar, Literal

from xlnet_jax.tasks.finetuning_config import FineTuningConfig

_SEPARATORS = 3  # <sep> behind the paragraph, <sep> behind the question, <cls>
_CHOICES: dict[str, tuple[str, ...]] = {
    "scoring": ("squad", "chinese"),
    "alignment": ("exact", "reference"),
    "misplaced_answers": ("drop", "keep"),
    "long_questions": ("cut", "error"),
    "extraction": ("fixed", "reference"),
    "boundaries": ("pieces", "characters"),
}


@dataclasses.dataclass(frozen=True)
class DataConfig(FineTuningConfig):
    """Section `data` of a config: files, windows, extraction of answers. Lengths in pieces.

    Attributes:
        train: json in the form of SQuAD to train on; "" for none.
        dev: json to evaluate on; "" for none.
        test: another json, for `predict --split=test`; "" for none.
        predict: set by `predict --input`; "-" is standard input.
        answerability: whether questions may have no answer: the third head, and null odds.
        scoring: "squad" (official rules of SQuAD 1.1 and 2.0: words) or "chinese" (those of CMRC
            2018 and DRCD: characters, longest common substring).
        max_seq_length: of a window with its question.
        doc_stride: between the beginnings of the windows of a long paragraph.
        max_query_length: of a question; what is longer goes by `long_questions`.
        max_answer_length: of an answer.
        start_n_top: starts tried in a window.
        end_n_top: ends tried for each start.
        n_best: answers kept of each question.
        null_threshold: a question whose null odds are above it is answered by "" in
            predictions.json; inf always answers, as the original does, and leaves the threshold to
            the scoring.
        alignment: "exact" (character offsets through clean-up and SentencePiece) or "reference"
            (the original's longest common subsequence, with what it drops).
        misplaced_answers: an answer that does not stand at its offset: "drop" keeps the question
            out of training, "keep" (reference) trains on whatever stands there.
        long_questions: a question beyond `max_query_length`: "cut" (reference; counted) or "error".
        extraction: "reference": the last piece of a window is never part of an answer, and an
            answer may be blank. "fixed": it may be, and blanks are passed over.
        boundaries: "pieces": an answer is made of whole pieces (reference). "characters": it may
            begin and end inside a piece, where the training answers with that piece usually do.
        learned_boundaries: what "characters" counted; filled in by training and stored with the
            run.
        dropped_to: folder for lists of the questions that were cut or left out, by reason, one file
            a split; "" for none.
        num_threads: for SentencePiece; 0 for one a core.
    """

    SPLITS: ClassVar[tuple[str, ...]] = ("train", "dev", "test", "predict")

    predict: str = ""
    answerability: bool = True
    scoring: Literal["squad", "chinese"] = "squad"
    max_seq_length: int = 512
    pad_to_multiple: int = 64
    doc_stride: int = 128
    max_query_length: int = 64
    max_answer_length: int = 64
    start_n_top: int = 5
    end_n_top: int = 5
    n_best: int = 5
    null_threshold: float = math.inf
    alignment: Literal["exact", "reference"] = "exact"
    misplaced_answers: Literal["drop", "keep"] = "drop"
    long_questions: Literal["cut", "error"] = "cut"
    extraction: Literal["fixed", "reference"] = "fixed"
    boundaries: Literal["pieces", "characters"] = "pieces"
    learned_boundaries: str = ""
    dropped_to: str = ""
    num_threads: int = 0

    def validate(self) -> None:
        """Raises one ValueError that names every value that does not fit, and what would."""
        problems = []
        for key, allowed in _CHOICES.items():
            value = getattr(self, key)
            if value not in allowed:
                wanted = " or ".join(map(repr, allowed))
                problems.append(f"config.data.{key} is {value!r}; it must be {wanted}")
        for field in dataclasses.fields(self):
            least = 0 if field.name in ("num_threads", "pad_to_multiple") else 1
            if field.type == "int" and getattr(self, field.name) < least:
                problems.append(
                    f"config.data.{field.name} is {getattr(self, field.name)}; it must be at least"
                    f" {least}"
                )
        room = self.max_seq_length - self.max_query_length - _SEPARATORS
        if not problems and room < 1:
            problems.append(
                f"config.data.max_seq_length is {self.max_seq_length}; with"
                f" config.data.max_query_length {self.max_query_length} it must be at least"
                f" {self.max_query_length + _SEPARATORS + 1} (two <sep>, one <cls> and a piece of"
                " the paragraph must fit beside the question)"
            )
        beam = max(self.start_n_top, self.end_n_top)
        if 0 < self.pad_to_multiple < beam or self.max_seq_length < beam:
            problems.append(
                f"config.data.start_n_top and config.data.end_n_top are {self.start_n_top} and"
                f" {self.end_n_top}; they must be at most config.data.max_seq_length,"
                f" {self.max_seq_length}, and config.data.pad_to_multiple, {self.pad_to_multiple}"
                " (unless that is 0)"
            )
        if math.isnan(self.null_threshold):
            problems.append("config.data.null_threshold is nan; it must be a number, or inf")
        if self.boundaries == "characters" and self.alignment != "exact":
            problems.append(
                "config.data.boundaries is 'characters'; that needs config.data.alignment 'exact',"
                f" got {self.alignment!r}"
            )
        if problems:
            raise ValueError("; ".join(problems))

    def replace(self, **changes: Any) -> DataConfig:
        """A copy with other values."""
        return dataclasses.replace(self, **changes)


FIXED: dict[str, Any] = {
    "alignment": "exact",
    "misplaced_answers": "drop",
    "long_questions": "cut",
    "extraction": "fixed",
    "boundaries": "pieces",
}
"""The defaults of the keys in which the original has a quirk, or that go beyond it."""

REFERENCE: dict[str, Any] = {
    "alignment": "reference",
    "misplaced_answers": "keep",
    "long_questions": "cut",
    "extraction": "reference",
    "boundaries": "pieces",
}
"""Their values with which everything is done as the original does it."""
