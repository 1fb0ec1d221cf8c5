"""Tagging: a label for every word, such as the entity it belongs to."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from xlnet_jax.data.readers_conll import TaggedSentence, has_tags, read_conll, read_word_lines
from xlnet_jax.data.readers_rows import Oddities
from xlnet_jax.model.heads import TokenTagger
from xlnet_jax.tasks import losses, scores
from xlnet_jax.tasks.features import Features
from xlnet_jax.tasks.finetuning import FineTuningTask, planned
from xlnet_jax.tasks.finetuning_config import FineTuningConfig
from xlnet_jax.tasks.prediction_files import say, write_tags
from xlnet_jax.tasks.tag_features import NO_TAG, TagSplit, make_split, tag_names
from xlnet_jax.tasks.task import Batch, Context, LossSum, Params, PlannedTask
from xlnet_jax.tasks.text_features import PAD_TOKEN, SEGMENT_PAD


@dataclasses.dataclass(frozen=True)
class DataConfig(FineTuningConfig):
    """Section `data` of a config; see also `FineTuningConfig`.

    Attributes:
        train, dev, test: files with a word a line and a blank line behind a sentence; a test file
            may lack the column of tags. "-" is standard input with a sentence a line, words
            separated by blanks.
        word_column, tag_column: counted from 0, from the end if negative.
        joined: words follow each other without blanks, as Chinese characters do.
        labels: the tags, in the order of their numbers; () for O, B-X and I-X of all X in train.
        encoding: of the files.
        max_seq_length: tokens of a sequence; longer sentences are cut between words.
    """

    word_column: int = 0
    tag_column: int = -1
    joined: bool = False
    labels: tuple[str, ...] = ()
    encoding: str = "utf-8"

    def validate(self) -> None:
        """Raises ValueError naming the key that does not fit."""
        super().validate()
        if not isinstance(self.labels, tuple | list) or len(self.labels) == 1:
            raise ValueError(
                f"config.data.labels is {self.labels!r}, wanted at least two tags, or () to find"
                " them in the training data"
            )
        if self.word_column == self.tag_column:
            raise ValueError(
                f"config.data.word_column and config.data.tag_column are both {self.tag_column}"
            )
        if self.max_seq_length < 3:
            raise ValueError(
                f"config.data.max_seq_length is {self.max_seq_length}, wanted at least 3"
            )

    @classmethod
    def without_data(cls, values: Mapping[str, Any], length: int | None) -> dict[str, Any]:
        """See `FineTuningConfig`."""
        return {**super().without_data(values, length), "labels": values["labels"] or ("O", "X")}

    def open(self, split: str, oddities: Oddities) -> Iterator[TaggedSentence]:
        """The sentences of a split; raises ValueError or OSError for wrong input."""
        path = self.file(split)
        if path == "-":
            return read_word_lines(path, split, encoding=self.encoding)
        is_tagged = split != "test" or has_tags(path, self.encoding)
        return read_conll(
            path,
            split,
            oddities=oddities,
            word_column=self.word_column,
            tag_column=self.tag_column if is_tagged else None,
            encoding=self.encoding,
        )


def find_tags(data: DataConfig) -> tuple[str, ...]:
    """The tags of the config, or those of all kinds of entities in the training data."""
    if data.labels:
        return tuple(data.labels)
    kinds: set[str] = set()
    try:
        for example in data.open("train", Oddities()):
            kinds.update(tag[2:] for tag in example.tags or () if tag != "O")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"config.data.train: {error}") from error
    if not kinds:
        raise ValueError(
            f"config.data.train={data.train} has no tag but O (config.data.tag_column is"
            f" {data.tag_column})"
        )
    return tag_names(kinds)


class TaggingTask(FineTuningTask[DataConfig, TagSplit]):
    """Sentences with a tag a word.

    Attributes:
        labels: names of the tags.
    """

    def __init__(self, data: DataConfig, context: Context):
        super().__init__(data, context)
        self.labels = find_tags(data)
        self.model = TokenTagger(self.network, self.run, len(self.labels))

    def read_split(self, split: str) -> TagSplit:
        """See `FineTuningTask`."""
        oddities = Oddities()
        return make_split(
            self.data.open(split, oddities),
            self.tokenizer,
            tags=self.labels,
            max_length=self.data.max_seq_length,
            joined=self.data.joined,
            oddities=oddities,
        )

    def notes(self, split: str) -> list[str]:
        """See `FineTuningTask`."""
        return self.read(split).notes

    def make_features(self, split: str) -> Features:
        """See `FineTuningTask`."""
        found = self.read(split)
        sequences = {"tokens": found.tokens, "segment_ids": found.segments}
        fill = {"tokens": PAD_TOKEN, "segment_ids": SEGMENT_PAD}
        if found.tags is not None:
            sequences["tags"], fill["tags"] = found.tags, NO_TAG
        return Features(sequences, {}, fill, "left")

    def resolved_data(self) -> dict[str, Any]:
        """The tags, which may have been found in the data."""
        return {"labels": self.labels}

    def token_losses(
        self, params: Params, batch: Batch, dropout_key: jax.Array | None
    ) -> tuple[Float[Array, "B T"], Float[Array, "B T"]]:
        """Cross entropy at the first piece of every word, and the weights 1 and 0 beside it."""
        tags = batch["tags"]
        found = losses.cross_entropy(
            self.apply(params, batch, dropout_key), jnp.maximum(tags, 0).astype(jnp.int32)
        )
        return found, (tags != NO_TAG) * batch["weight"][:, None]

    def example_losses(
        self, params: Params, batch: Batch, dropout_key: jax.Array | None
    ) -> Float[Array, "B"]:
        """Mean cross entropy of the words of each row."""
        found, weights = self.token_losses(params, batch, dropout_key)
        return jnp.sum(found * weights, axis=1) / jnp.maximum(jnp.sum(weights, axis=1), 1)

    def loss(
        self, params: Params, batch: Batch, memory: Array | None, dropout_key: jax.Array | None
    ) -> LossSum:
        """Sum over the words of the batch, so that every word counts alike."""
        del memory
        found, weights = self.token_losses(params, batch, dropout_key)
        return LossSum(jnp.sum(found * weights), jnp.sum(weights), None)

    def predict(self, params: Params, batch: Batch) -> dict[str, Array]:
        """{"tags": [B, T]}, the most likely tag at every token."""
        return {"tags": jnp.argmax(self.apply(params, batch, None), axis=-1)}

    def tags_of_words(self, split: str, predictions: Mapping[str, Any]) -> list[list[str]]:
        """Names of the predicted tags, sentence by sentence."""
        found = self.read(split)
        sentences: list[list[str]] = [[] for _ in range(int(found.sentences[-1]) + 1)]
        rows = zip(found.sentences, found.word_starts, predictions["tags"], strict=True)
        for sentence, starts, tags in rows:
            own = np.asarray(tags)[-len(starts) :][starts]
            sentences[sentence] += [self.labels[tag] for tag in own]
        return sentences

    def score(self, split: str, predictions: Mapping[str, Any]) -> dict[str, float]:
        """Entity F1; see `scores.tagging_scores`. Raises ValueError for a split without tags."""
        wanted = self.read(split).wanted
        if wanted is None:
            raise ValueError(f"the split {split!r} has no tags to score against")
        return scores.tagging_scores(self.tags_of_words(split, predictions), wanted)

    def warning(self, split: str, predictions: Mapping[str, Any]) -> str:
        """Whether no word was found to be part of an entity."""
        found = self.tags_of_words(split, predictions)
        if any(tag != "O" for tags in found for tag in tags):
            return ""
        return f"all {sum(map(len, found)):,} words are tagged O: a degenerate run"

    def write_predictions(self, split: str, predictions: Mapping[str, Any], output: str) -> None:
        """A word and its tag a line, or JSON; see `prediction_files`."""
        found = self.read(split)
        say(self.notes(split))
        write_tags(output, split, found.guids, found.words, self.tags_of_words(split, predictions))


def make_task(data: DataConfig, context: Context) -> TaggingTask:
    """The task of a config; raises ValueError or OSError for wrong input."""
    return TaggingTask(data, context)


def plan_task(data: DataConfig, context: Context) -> PlannedTask:
    """The task without its data; see `PlannedTask`."""
    tags = (context.batch_size, data.max_seq_length)
    return planned(make_task(data, context), tags=jax.ShapeDtypeStruct(tags, jnp.int32))
