"""What all fine-tuning tasks share: features of a split, batches, one step.

A task file makes `Features` from text and says what the network's outputs mean; batches are a
function of (seed, epoch, step), so the data position is the step here too.
"""

from __future__ import annotations

import abc
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from xlnet_jax.model.config import XLNetConfig
from xlnet_jax.tasks.features import Features, bucket_lengths, evaluation_order, training_order
from xlnet_jax.tasks.finetuning_config import FineTuningConfig
from xlnet_jax.tasks.flops import useful_flops
from xlnet_jax.tasks.task import Batch, Context, LossSum, Params, PlannedTask

ConfigT = TypeVar("ConfigT", bound=FineTuningConfig)
SplitT = TypeVar("SplitT")


class FineTuningTask(abc.ABC, Generic[ConfigT, SplitT]):
    """The engine's view of a task whose examples each have an answer; see `tasks.task`.

    A subclass sets `model` and what the abstract methods say. SplitT is what it keeps of a split.

    Attributes:
        data: the config.
        tokenizer: the vocabulary.
        eval_splits: the splits that are evaluated on.
    """

    model: nn.Module
    rows_per_group = 1

    def __init__(self, data: ConfigT, context: Context):
        """Raises ValueError if there is no vocabulary, or splits are to be scored in part."""
        if context.tokenizer is None:
            raise ValueError(
                "there is no vocabulary: config.init_from is empty or has no spiece.model beside"
                " its weights; set config.data.spiece_model to a SentencePiece model"
            )
        if context.eval_steps:
            raise ValueError(
                f"train.eval_steps is {context.eval_steps}, wanted 0: scores are of whole splits;"
                " set --config.train.eval_steps=0, or a smaller file for config.data.dev"
            )
        self.data = data
        self.tokenizer = context.tokenizer
        self.network: XLNetConfig = context.network(self.tokenizer.vocab_size)
        self.run = context.run
        self.global_batch_size = context.batch_size
        self.eval_splits: Sequence[str] = ("dev",) if data.dev else ()
        self._context = context
        self._splits: dict[str, SplitT] = {}
        self._features: dict[str, Features] = {}

    @abc.abstractmethod
    def read_split(self, split: str) -> SplitT:
        """Reads and tokenizes a split.

        Raises ValueError or OSError for wrong input, ValueError for a split that the config does
        not give.
        """

    @abc.abstractmethod
    def make_features(self, split: str) -> Features:
        """Those of a split; raises as `read_split` does."""

    @abc.abstractmethod
    def example_losses(
        self, params: Params, batch: Batch, dropout_key: jax.Array | None
    ) -> Float[Array, "B"]:
        """Pure; see `apply`."""

    @abc.abstractmethod
    def predict(self, params: Params, batch: Batch) -> dict[str, Array]:
        """Pure: arrays [B, ...]."""

    @abc.abstractmethod
    def score(self, split: str, predictions: Mapping[str, Any]) -> dict[str, float]:
        """Metrics of a labelled split."""

    @abc.abstractmethod
    def write_predictions(self, split: str, predictions: Mapping[str, Any], output: str) -> None:
        """Writes to a file, a folder, or standard output ("-")."""

    def warning(self, split: str, predictions: Mapping[str, Any]) -> str:
        """What is suspicious about the predictions; "" if nothing."""
        del split, predictions
        return ""

    def notes(self, split: str) -> Sequence[str]:
        """What was dropped or cut in a split, and how much of it."""
        del split
        return ()

    def read(self, split: str) -> SplitT:
        """A split, read once; raises as `read_split` does, and names the config's key."""
        if split not in self._splits:
            try:
                self._splits[split] = self.read_split(split)
            except FileNotFoundError as error:
                what = f"no file {error.filename}" if error.filename else error
                raise FileNotFoundError(f"{self._key(split)}: {what}") from error
        return self._splits[split]

    def features(self, split: str) -> Features:
        """Those of a split, made once.

        Raises ValueError if there are none.
        """
        if split not in self._features:
            made = self.make_features(split)
            if not len(made):
                raise ValueError(f"the split {split!r} has no examples ({self._key(split)})")
            self._features[split] = made
        return self._features[split]

    def _key(self, split: str) -> str:
        """Where the config says what a split is read from: its own file, or the folder of all."""
        return f"config.data.{split if getattr(self.data, split, '') else 'folder'}"

    def apply(self, params: Params, batch: Batch, key: jax.Array | None, **inputs: Any) -> Any:
        """The model on a batch's tokens, segments and padding; dropout exactly with a key."""
        return self.model.apply(
            {"params": params},
            batch["tokens"],
            segment_ids=batch["segment_ids"],
            padding=batch["padding"],
            train=key is not None,
            rngs={} if key is None else {"dropout": key},
            **inputs,
        )

    def init_params(self, key: jax.Array) -> Params:
        """Fresh parameters of network and head."""
        batch = self.example_batch()
        rngs = {"params": key, "dropout": key}
        return self.model.init(
            rngs,
            batch["tokens"],
            segment_ids=batch["segment_ids"],
            padding=batch["padding"],
            **self.init_inputs(batch),
        )["params"]

    def example_batch(self) -> dict[str, Array]:
        """A batch of one row of the right ranks, for shapes of parameters."""
        tokens = jnp.zeros((1, 8), jnp.int32)
        return {"tokens": tokens, "segment_ids": tokens, "padding": tokens > 0}

    def init_inputs(self, batch: Mapping[str, Array]) -> dict[str, Any]:
        """What the model needs beside tokens, segments and padding to make its parameters."""
        del batch
        return {}

    def init_memory(self, batch_size: int) -> Array | None:
        """Fine-tuning has no memory."""
        del batch_size
        return None

    def loss(
        self, params: Params, batch: Batch, memory: Array | None, dropout_key: jax.Array | None
    ) -> LossSum:
        """Sum over the examples of the batch."""
        del memory
        weight = batch["weight"]
        losses = self.example_losses(params, batch, dropout_key)
        return LossSum(jnp.sum(losses * weight), jnp.sum(weight), None)

    @property
    def steps_per_epoch(self) -> int:
        """Batches that hold every training feature once."""
        return -(-len(self.features("train")) // self.global_batch_size)

    @property
    def tokens_per_example(self) -> float:
        """Mean length of a training feature, padding not counted."""
        return float(self.features("train").lengths.mean()) * self._sequences_per_example

    @property
    def flops_per_example(self) -> float:
        """See `flops.useful_flops`, at the mean length."""
        length = round(self.tokens_per_example / self._sequences_per_example)
        return self._sequences_per_example * useful_flops(self.network, length)

    @property
    def _sequences_per_example(self) -> int:
        return int(np.prod(self.features("train").sequences["tokens"][0].shape[:-1]))

    @property
    def introduction(self) -> str:
        """What was dropped or cut in all data at hand, and the training data in a line."""
        lengths = self.features("train").lengths
        for split in self.eval_splits:  # what is wrong with them is better known now than later
            self.features(split)
        notes = [note for split in ("train", *self.eval_splits) for note in self.notes(split)]
        line = (
            f"{len(lengths):,} training features of {lengths.mean():.0f} tokens on average, at most"
            f" {lengths.max()}, in {self.steps_per_epoch:,} steps an epoch"
        )
        return "\n".join([*notes, line])

    @property
    def has_heldout(self) -> bool:
        """Whether a split to evaluate on was given."""
        return bool(self.eval_splits)

    def describe_heldout(self) -> dict[str, Any]:
        """How many features are evaluated on, and what was dropped or cut."""
        found: dict[str, Any] = {}
        for split in self.eval_splits:
            found[f"{split}_features"] = len(self.features(split))
            if notes := self.notes(split):
                found[f"{split}_notes"] = notes
        return found

    def resolved_data(self) -> dict[str, Any]:
        """Keys of section `data` that the data themselves have answered (labels, say).

        They are stored with the run, so that evaluation needs no training data.
        """
        return {}

    def identity(self) -> dict[str, Any]:
        """The training features and the vocabulary."""
        return {
            "tokenizer_sha256": self.tokenizer.sha256,
            "features_sha256": self.features("train").sha256(),
        }

    def train_batches(self, start_step: int, rows: slice) -> Generator[dict[str, np.ndarray]]:
        """Endless; what step k gets depends on k alone."""
        features, padded = self._padded("train")
        epoch, first = divmod(start_step, self.steps_per_epoch)
        while True:
            order = training_order(padded, self.global_batch_size, self._context.seed, epoch)
            for index, length in order[first:]:
                yield features.batch(index[rows], length)
            epoch, first = epoch + 1, 0

    def predict_batches(self, split: str, rows: slice) -> Iterator[dict[str, np.ndarray]]:
        """All features of a split once, those of like length together."""
        features, padded = self._padded(split)
        for index, length in evaluation_order(padded, self._context.eval_batch_size):
            yield features.batch(index[rows], length)

    def eval_batches(self, rows: slice) -> Iterator[dict[str, np.ndarray]]:
        """Those of the first split to evaluate on."""
        if self.eval_splits:
            yield from self.predict_batches(self.eval_splits[0], rows)

    def _padded(self, split: str) -> tuple[Features, np.ndarray]:
        features = self.features(split)
        return features, bucket_lengths(
            features.lengths, self.data.max_seq_length, self.data.pad_to_multiple
        )


def planned(
    task: FineTuningTask[Any, Any], choices: int | None = None, **answers: jax.ShapeDtypeStruct
) -> PlannedTask:
    """What `plan_task` gives of a task of sequences [B, (choices), T] with answers."""
    rows, length = task.global_batch_size, task.data.max_seq_length
    shape = (rows, length) if choices is None else (rows, choices, length)
    tokens = jax.ShapeDtypeStruct(shape, jnp.int32)
    batch = {
        "tokens": tokens,
        "segment_ids": tokens,
        "padding": jax.ShapeDtypeStruct(shape, jnp.bool_),
        "weight": jax.ShapeDtypeStruct((rows,), jnp.float32),
        "index": jax.ShapeDtypeStruct((rows,), jnp.int32),
        **answers,
    }
    return PlannedTask(task, batch, (choices or 1) * useful_flops(task.network, length))
