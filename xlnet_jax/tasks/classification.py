"""Classification and regression of one text or two, and several labels a text."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from xlnet_jax.data.readers_rows import Oddities
from xlnet_jax.model.heads import SequenceClassifier
from xlnet_jax.tasks import losses, scores
from xlnet_jax.tasks.features import Features
from xlnet_jax.tasks.finetuning import FineTuningTask, planned
from xlnet_jax.tasks.prediction_files import say, write_predictions
from xlnet_jax.tasks.task import Batch, Context, Params, PlannedTask
from xlnet_jax.tasks.text_config import TextDataConfig
from xlnet_jax.tasks.text_features import PAD_TOKEN, SEGMENT_PAD
from xlnet_jax.tasks.text_splits import (
    TextSplit,
    evaluation_splits,
    find_labels,
    make_split,
    open_split,
)

# What GLUE's server wants the files of its test splits to be called.
_SUBMISSIONS = {
    "cola": "CoLA", "sst-2": "SST-2", "mrpc": "MRPC", "qqp": "QQP", "sts-b": "STS-B",
    "mnli": "MNLI-m", "mnli_matched": "MNLI-m", "mnli_mismatched": "MNLI-mm", "qnli": "QNLI",
    "rte": "RTE", "wnli": "WNLI",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class DataConfig(TextDataConfig):
    """Section `data` of a config; see also `TextDataConfig`.

    Attributes:
        threshold: two classes: the second is predicted if its logit is above that of the first by
            more than this; several labels: those with a logit above this (`predict_threshold` of
            the original).
    """

    threshold: float = 0.0


class ClassificationTask(FineTuningTask[DataConfig, TextSplit]):
    """Texts with a class, a number, or several labels each.

    Attributes:
        labels: names of the classes; () for regression.
    """

    def __init__(self, data: DataConfig, context: Context):
        super().__init__(data, context)
        self.kind = data.resolved_kind
        self.labels = find_labels(data)
        self.eval_splits = evaluation_splits(data)
        self.model = SequenceClassifier(
            self.network,
            self.run,
            len(self.labels) or 1,
            data.summary_type,
            data.use_projection,
            data.count_padding,
        )

    def read_split(self, split: str) -> TextSplit:
        """See `FineTuningTask`."""
        oddities = Oddities()
        return make_split(
            open_split(self.data, split, oddities),
            self.tokenizer,
            labels=self.labels,
            max_length=self.data.max_seq_length,
            oddities=oddities,
            keep_names=split != "train",
        )

    def notes(self, split: str) -> list[str]:
        """See `FineTuningTask`."""
        return self.read(split).notes

    def make_features(self, split: str) -> Features:
        """See `FineTuningTask`; a split without labels has none among its values."""
        found = self.read(split)
        if found.labels is None and split == "train":
            raise ValueError("config.data.label is empty; training needs labels")
        return Features(
            {"tokens": found.tokens, "segment_ids": found.segments},
            {} if found.labels is None else {"labels": found.labels},
            {"tokens": PAD_TOKEN, "segment_ids": SEGMENT_PAD},
            "left",
        )

    def resolved_data(self) -> dict[str, Any]:
        """The labels, if they were found in the data."""
        if self.data.is_published or not self.labels:
            return {}
        return {"labels": self.labels}

    def example_losses(
        self, params: Params, batch: Batch, dropout_key: jax.Array | None
    ) -> Float[Array, "B"]:
        """Cross entropy, squared error, or mean cross entropy of the labels, in this order."""
        logits, labels = self.apply(params, batch, dropout_key), batch["labels"]
        if self.kind == "regression":
            return losses.squared_error(logits, labels)
        if self.kind == "multi_label":
            return losses.multi_label_loss(logits, labels)
        return losses.cross_entropy(logits, labels)

    def predict(self, params: Params, batch: Batch) -> dict[str, Array]:
        """{"logits": [B, C]}; regression has one number."""
        return {"logits": self.apply(params, batch, None)}

    def decisions(self, logits: Float[np.ndarray, "N C"]) -> np.ndarray:
        """Classes int64 [N], numbers float32 [N], or bool [N, C]; see `DataConfig.threshold`."""
        if self.kind == "regression":
            return logits[:, 0]
        if self.kind == "multi_label":
            return logits > self.data.threshold
        if logits.shape[1] == 2:
            return (logits[:, 1] - logits[:, 0] > self.data.threshold).astype(np.int64)
        return logits.argmax(axis=1)

    def score(self, split: str, predictions: Mapping[str, Any]) -> dict[str, float]:
        """GLUE's metrics for its sets; otherwise accuracy and F1, correlations, or label F1.

        Raises ValueError for a split without labels.
        """
        labels = self.read(split).labels
        if labels is None:
            raise ValueError(f"the split {split!r} has no labels to score against")
        found = self.decisions(np.asarray(predictions["logits"]))
        if self.kind == "regression":
            return scores.regression_scores(found, labels)
        if self.kind == "multi_label":
            return scores.multi_label_scores(found, labels)
        own = ("accuracy", "f1" if len(self.labels) == 2 else "macro_f1")
        metrics = scores.METRICS.get(self.data.name, ("accuracy",) if self.data.name else own)
        return scores.class_scores(found, labels, metrics)

    def warning(self, split: str, predictions: Mapping[str, Any]) -> str:
        """Whether the run is degenerate; see `scores.majority_class_warning`."""
        if self.kind != "classification":
            return ""
        found = self.decisions(np.asarray(predictions["logits"]))
        return scores.majority_class_warning(found, self.read(split).labels, self.labels)

    def write_predictions(self, split: str, predictions: Mapping[str, Any], output: str) -> None:
        """Names of classes or numbers, and the logits; see `prediction_files`."""
        logits = np.asarray(predictions["logits"], np.float32)
        found = self.decisions(logits)
        answers: list[Any]
        if self.kind == "regression":
            answers = [float(value) for value in found]
        elif self.kind == "multi_label":
            answers = [[self.labels[i] for i in np.flatnonzero(row)] for row in found]
        else:
            answers = [self.labels[value] for value in found]
        details = {"logits": [[float(value) for value in row] for row in logits]}
        guids = self.read(split).guids or [f"{split}-{number}" for number in range(len(answers))]
        say(self.notes(split))
        write_predictions(output, self._stem(split), guids, answers, details)

    def _stem(self, split: str) -> str:
        """The name GLUE's server wants for a test split, else that of the split."""
        if split == "test_mismatched":
            return "MNLI-mm"
        is_own = not self.data.is_published or bool(getattr(self.data, split, ""))
        return _SUBMISSIONS.get(self.data.name, split) if split == "test" and not is_own else split


def make_task(data: DataConfig, context: Context) -> ClassificationTask:
    """The task of a config.

    Raises ValueError or OSError for wrong input, ValueError if there is no vocabulary.
    """
    return ClassificationTask(data, context)


def plan_task(data: DataConfig, context: Context) -> PlannedTask:
    """The task without its data; see `PlannedTask`."""
    task, rows = make_task(data, context), context.batch_size
    kind = jnp.int32 if task.kind == "classification" else jnp.float32
    shape = (rows, len(task.labels)) if task.kind == "multi_label" else (rows,)
    return planned(task, labels=jax.ShapeDtypeStruct(shape, kind))
