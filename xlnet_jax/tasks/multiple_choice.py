"""Multiple choice: questions about a text with some options each (RACE).

Every option is read with its own copy of the text: text <sep> question and option <sep> <cls>.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jaxtyping import Array, Float

from xlnet_jax.data.readers_race import LEVELS, read_race
from xlnet_jax.model.heads import MultipleChoice
from xlnet_jax.tasks import losses, scores
from xlnet_jax.tasks.choice_features import Choices, ChoiceSplit, make_split
from xlnet_jax.tasks.features import Features
from xlnet_jax.tasks.finetuning import FineTuningTask, planned
from xlnet_jax.tasks.finetuning_config import SummaryConfig
from xlnet_jax.tasks.prediction_files import write_predictions
from xlnet_jax.tasks.task import Batch, Context, Params, PlannedTask
from xlnet_jax.tasks.text_features import PAD_TOKEN, SEGMENT_PAD

_RACE_OPTIONS = 4
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclasses.dataclass(frozen=True)
class DataConfig(SummaryConfig):
    """Section `data` of a config; see also `SummaryConfig`.

    Attributes:
        folder: RACE as unpacked, with folders train, dev and test.
        train, dev, test: other folders (or single files) in their place; "" for those of `folder`.
        levels: "middle", "high" or "both".
        encoding: of the files.
        max_seq_length: tokens of a sequence; the text is cut.
        max_question_length: tokens of question and option; more are cut off at the beginning.
    """

    folder: str = ""
    levels: str = "both"
    encoding: str = "utf-8"
    max_seq_length: int = 512
    max_question_length: int = 128
    pad_to_multiple: int = 64

    def validate(self) -> None:
        """Raises ValueError naming the key that does not fit."""
        super().validate()
        if not (self.folder or self.train or self.dev or self.test):
            raise ValueError(
                "config.data.folder is empty; give the folder of RACE, with train, dev and test"
            )
        if self.levels not in (*LEVELS, "both"):
            raise ValueError(
                f"config.data.levels is {self.levels!r}, wanted one of"
                f" {', '.join((*LEVELS, 'both'))}"
            )
        if not 1 <= self.max_question_length <= self.max_seq_length - 3:
            raise ValueError(
                f"config.data.max_question_length is {self.max_question_length}, wanted 1 to"
                f" {self.max_seq_length - 3} (config.data.max_seq_length less three)"
            )

    def path(self, split: str) -> str:
        """Folder or file of a split; raises ValueError if the config gives none."""
        own = self.own(split)
        if not own and not self.folder:
            raise ValueError(f"config.data.{split} is empty; set it, or config.data.folder")
        return own or str(epath.Path(self.folder) / split)


class MultipleChoiceTask(FineTuningTask[DataConfig, ChoiceSplit]):
    """Questions with options, of which one is right."""

    def __init__(self, data: DataConfig, context: Context):
        super().__init__(data, context)
        self.eval_splits = ("dev",) if data.dev or data.folder else ()
        self.model = MultipleChoice(
            self.network,
            self.run,
            summary_type=data.summary_type,
            use_projection=data.use_projection,
            count_padding=data.count_padding,
        )

    def read_split(self, split: str) -> ChoiceSplit:
        """See `FineTuningTask`."""
        levels = LEVELS if self.data.levels == "both" else (self.data.levels,)
        return make_split(
            read_race(self.data.path(split), levels, encoding=self.data.encoding),
            self.tokenizer,
            max_length=self.data.max_seq_length,
            max_question_length=self.data.max_question_length,
        )

    def make_features(self, split: str) -> Features:
        """See `FineTuningTask`; a split without answers has none among its values."""
        found = self.read(split)
        if found.labels is None and split == "train":
            raise ValueError(f"{self.data.path(split)} has no 'answers'; training needs them")
        return Features(
            {
                "tokens": Choices(found.tokens, found.num_choices, PAD_TOKEN),
                "segment_ids": Choices(found.segments, found.num_choices, SEGMENT_PAD),
            },
            {} if found.labels is None else {"labels": found.labels},
            {"tokens": PAD_TOKEN, "segment_ids": SEGMENT_PAD},
            "left",
        )

    def example_batch(self) -> dict[str, Array]:
        """One question with two options; parameters do not depend on their number."""
        tokens = jnp.zeros((1, 2, 8), jnp.int32)
        return {"tokens": tokens, "segment_ids": tokens, "padding": tokens > 0}

    def apply(self, params: Params, batch: Batch, key: jax.Array | None, **inputs: Any) -> Any:
        """See `FineTuningTask`; an option shorter than its neighbours is padded within them."""
        padding = batch["padding"] | (batch["segment_ids"] == SEGMENT_PAD)
        return super().apply(params, {**batch, "padding": padding}, key, **inputs)

    def example_losses(
        self, params: Params, batch: Batch, dropout_key: jax.Array | None
    ) -> Float[Array, "B"]:
        """Cross entropy over the options."""
        return losses.cross_entropy(self.apply(params, batch, dropout_key), batch["labels"])

    def predict(self, params: Params, batch: Batch) -> dict[str, Array]:
        """{"logits": [B, C]}"""
        return {"logits": self.apply(params, batch, None)}

    def score(self, split: str, predictions: Mapping[str, Any]) -> dict[str, float]:
        """Accuracy over all questions, and of each level where there are several.

        Raises ValueError for a split without answers.
        """
        found = self.read(split)
        if found.labels is None:
            raise ValueError(f"the split {split!r} has no answers to score against")
        right = np.asarray(predictions["logits"]).argmax(axis=1) == found.labels
        result = {"accuracy": float(right.mean())}
        levels = np.array(found.levels)
        if len(set(found.levels)) > 1:
            result |= {
                f"accuracy_{level}": float(right[levels == level].mean())
                for level in sorted(set(found.levels))
            }
        return result

    def warning(self, split: str, predictions: Mapping[str, Any]) -> str:
        """Whether the run is degenerate; see `scores.majority_class_warning`."""
        logits = np.asarray(predictions["logits"])
        labels = self.read(split).labels
        return scores.majority_class_warning(
            logits.argmax(axis=1), labels, _LETTERS[: logits.shape[1]]
        )

    def write_predictions(self, split: str, predictions: Mapping[str, Any], output: str) -> None:
        """Letters of the options, and the logits; see `prediction_files`."""
        logits = np.asarray(predictions["logits"], np.float32)
        answers = [_LETTERS[choice] for choice in logits.argmax(axis=1)]
        details = {"logits": [[float(value) for value in row] for row in logits]}
        write_predictions(output, split, self.read(split).guids, answers, details)


def make_task(data: DataConfig, context: Context) -> MultipleChoiceTask:
    """The task of a config; raises ValueError if there is no vocabulary."""
    return MultipleChoiceTask(data, context)


def plan_task(data: DataConfig, context: Context) -> PlannedTask:
    """The task without its data; see `PlannedTask`."""
    labels = jax.ShapeDtypeStruct((context.batch_size,), jnp.int32)
    return planned(make_task(data, context), _RACE_OPTIONS, labels=labels)
