"""Span question answering: SQuAD 1.1 and 2.0, CMRC 2018, DRCD."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jaxtyping import Array, Float

from xlnet_jax.data import squad_json
from xlnet_jax.data.squad_json import QuestionFile
from xlnet_jax.data.storage import write_atomic
from xlnet_jax.model.span_head import SpanExtractor
from xlnet_jax.tasks import losses
from xlnet_jax.tasks.features import Features
from xlnet_jax.tasks.finetuning import FineTuningTask, planned
from xlnet_jax.tasks.qa import boundaries, decoding
from xlnet_jax.tasks.qa.answers import squad_report
from xlnet_jax.tasks.qa.chinese_answers import chinese_report
from xlnet_jax.tasks.qa.config import DataConfig
from xlnet_jax.tasks.qa.decoding import Beams, Decoded
from xlnet_jax.tasks.qa.features import SEGMENT_PADDING, SpanWindows, make_windows
from xlnet_jax.tasks.task import Batch, Context, Params, PlannedTask

__all__ = ["DataConfig", "SpanQATask", "make_task", "plan_task"]

_PAD_TOKEN = 0  # as the original pads, not the id of <pad>
_BLANK_SHARE = 0.5  # of questions without any span, above which something is wrong


class SpanQATask(FineTuningTask[DataConfig, tuple[QuestionFile, SpanWindows]]):
    """Questions whose answers are stretches of a paragraph."""

    def __init__(self, data: DataConfig, context: Context):
        super().__init__(data, context)
        self.model = SpanExtractor(self.network, self.run, data.answerability)

    def read_split(self, split: str) -> tuple[QuestionFile, SpanWindows]:
        """The file of a split and its windows; see `FineTuningTask`."""
        file = squad_json.read(self.data.file(split))
        windows = make_windows(file, self.tokenizer, self.data, training=split == "train")
        self._list_dropped(split, windows)
        return file, windows

    def make_features(self, split: str) -> Features:
        """See `FineTuningTask`; "train" has the values that the loss needs."""
        _, windows = self.read(split)
        if not windows.report.windows:
            why = "; ".join(line.strip() for line in windows.report.lines())
            raise ValueError(f"the split {split!r} has no examples ({why})")
        values = {"cls_positions": windows.cls.astype(np.int32)}
        if windows.labels is not None:
            values["start_positions"] = windows.labels.starts
            values["end_positions"] = windows.labels.ends
            values["unanswerable"] = windows.labels.unanswerable
        names = ("tokens", "segment_ids", "cannot_answer")
        return Features(
            {name: windows.rows(name) for name in names},
            values,
            {"tokens": _PAD_TOKEN, "segment_ids": SEGMENT_PADDING, "cannot_answer": True},
            "right",
        )

    def init_inputs(self, batch: Mapping[str, Array]) -> dict[str, Any]:
        """Positions for the heads."""
        nowhere = jnp.zeros(batch["tokens"].shape[0], jnp.int32)
        return {"start_positions": nowhere, "cls_positions": nowhere}

    def example_losses(
        self, params: Params, batch: Batch, dropout_key: jax.Array | None
    ) -> Float[Array, "B"]:
        """See `losses.span_loss`; without the answerability head its term falls away."""
        # Rows that only fill up may copy a longer window, whose positions lie beyond this batch.
        last = batch["tokens"].shape[1] - 1
        starts, ends = (jnp.minimum(batch[f"{name}_positions"], last) for name in ("start", "end"))
        logits = self.apply(
            params,
            batch,
            dropout_key,
            cannot_answer=batch["cannot_answer"],
            cls_positions=batch["cls_positions"],
            start_positions=starts,
        )
        return losses.span_loss(
            logits.start, logits.end, starts, ends, logits.answer, batch["unanswerable"]
        )

    def predict(self, params: Params, batch: Batch) -> dict[str, Array]:
        """The arrays of `decoding.Beams`."""
        beams: Any = self.model.apply(
            {"params": params},
            batch["tokens"],
            segment_ids=batch["segment_ids"],
            padding=batch["padding"],
            cannot_answer=batch["cannot_answer"],
            cls_positions=batch["cls_positions"],
            num_starts=self.data.start_n_top,
            num_ends=self.data.end_n_top,
            method="beams",
        )
        return {name: array for name, array in beams._asdict().items() if array is not None}

    def decode(self, split: str, predictions: Mapping[str, Any]) -> Decoded:
        """The answers that the predictions for a split's windows come to."""
        _, windows = self.read(split)
        trim = None
        if self.data.boundaries == "characters":
            trim = functools.partial(self._boundaries.trim, windows.pieces)
        return decoding.decode(windows, Beams.of(predictions), self.data, trim)

    @functools.cached_property
    def _boundaries(self) -> boundaries.Boundaries:
        if self.data.learned_boundaries:
            return boundaries.Boundaries.from_json(self.data.learned_boundaries)
        return boundaries.learn(self.read("train")[1])

    def resolved_data(self) -> dict[str, Any]:
        """Where answers begin and end inside pieces, if that is asked for."""
        if self.data.boundaries != "characters":
            return {}
        return {"learned_boundaries": self._boundaries.to_json()}

    def score(self, split: str, predictions: Mapping[str, Any]) -> dict[str, float]:
        """By the official rules, see `answers.squad_report` and `chinese_answers`.

        Raises ValueError for a file without answers.
        """
        file, _ = self.read(split)
        if not file.labelled:
            unknown = [question.where for question in file.questions if question.answers is None]
            raise ValueError(
                f"{file.path}: {len(unknown)} questions have no answers to score against, the"
                f' first is {unknown[0]}, which lacks the key "answers"'
            )
        decoded = self.decode(split, predictions)
        if self.data.scoring == "chinese":
            return chinese_report(file.questions, decoded.predictions(self.data.null_threshold))
        return squad_report(
            file.questions, decoded.answers(), decoded.null_odds, self.data.null_threshold
        )

    def warning(self, split: str, predictions: Mapping[str, Any]) -> str:
        """Whether the model hardly ever names a span that could be an answer."""
        answers = self.decode(split, predictions).answers()
        blank = sum(not text for text in answers.values())
        if blank <= _BLANK_SHARE * len(answers):
            return ""
        return (
            f"{blank:,} of {len(answers):,} questions have no span of at most"
            f" {self.data.max_answer_length} pieces among the model's best: it has not learned, or"
            " config.data.max_answer_length is too small"
        )

    def write_predictions(self, split: str, predictions: Mapping[str, Any], output: str) -> None:
        """Into a folder the three files of `decoding.write`.

        To a file *.json, or to "-" (standard output), only id -> answer; to a file *.tsv the lines
        "id", "prediction".
        """
        decoded = self.decode(split, predictions)
        if (report := self.read(split)[1].report).lists():
            print("\n".join(report.lines()), file=sys.stderr)
        if output != "-" and epath.Path(output).suffix not in (".json", ".tsv"):
            decoding.write(decoded, output, self.data.null_threshold)
            return
        found = decoded.predictions(self.data.null_threshold)
        if output.endswith(".tsv"):
            rows = [("id", "prediction"), *found.items()]
            text = "".join(f"{name}\t{' '.join(answer.split())}\n" for name, answer in rows)
        else:
            text = json.dumps(found, indent=4, ensure_ascii=False) + "\n"
        if output == "-":
            sys.stdout.write(text)
        else:
            epath.Path(output).parent.mkdir(parents=True, exist_ok=True)
            write_atomic(epath.Path(output), [text.encode()])

    @property
    def introduction(self) -> str:
        """Windows and lengths, and what was left out or cut."""
        report = self.read("train")[1].report
        return "\n".join([*report.lines(), super().introduction])

    def describe_heldout(self) -> dict[str, Any]:
        """How many questions and windows are evaluated on, and what is odd about them."""
        found: dict[str, Any] = {}
        for split in self.eval_splits:
            report = self.read(split)[1].report
            found |= {f"{split}_questions": report.questions, f"{split}_windows": report.windows}
            found |= {f"{split}: {what}": len(ids) for what, ids in report.lists().items()}
        return found

    def _list_dropped(self, split: str, windows: SpanWindows) -> None:
        """Writes which questions were left out or cut, and why, where the config asks for it."""
        if not self.data.dropped_to or jax.process_index():
            return
        folder = epath.Path(self.data.dropped_to)
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(windows.report.lists(), indent=1, ensure_ascii=False) + "\n"
        write_atomic(folder / f"{split}_dropped.json", [text.encode()])


def make_task(data: DataConfig, context: Context) -> SpanQATask:
    """The task of a config.

    Raises ValueError or OSError for wrong input, ValueError if there is no vocabulary.
    """
    return SpanQATask(data, context)


def plan_task(data: DataConfig, context: Context) -> PlannedTask:
    """The task without its data; see `PlannedTask`."""
    rows = context.batch_size
    position = jax.ShapeDtypeStruct((rows,), jnp.int32)
    return planned(
        make_task(data, context),
        start_positions=position,
        end_positions=position,
        cls_positions=position,
        cannot_answer=jax.ShapeDtypeStruct((rows, data.max_seq_length), jnp.bool_),
        unanswerable=jax.ShapeDtypeStruct((rows,), jnp.float32),
    )
