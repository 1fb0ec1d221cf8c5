"""What all fine-tuning tasks share: features of any length, batches of like lengths, one step.

A task file makes `Features` from text and says what the network's outputs mean; batches are a
function of (seed, epoch, step), so the data position is the step here too.
"""

from __future__ import annotations

import abc
import dataclasses
import hashlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from xlnet_jax.data.tokenizer import Tokenizer
from xlnet_jax.model.config import XLNetConfig
from xlnet_jax.tasks.flops import useful_flops
from xlnet_jax.tasks.task import Batch, Context, LossSum, Params

_BATCHES_SORTED_TOGETHER = 64  # more is faster and less random
_ORDER = 0x4F52  # keeps these draws apart from all others


@dataclasses.dataclass(frozen=True)
class Features:
    """Model inputs of one split.

    Attributes:
        sequences: name -> one array [..., L] a feature, L its own length, the same for all names;
            "tokens" is always there.
        values: name -> [num_features, ...], what has no length of its own.
        fill: padding of each sequence.
        side: where padding goes.
    """

    sequences: Mapping[str, Sequence[np.ndarray]]
    values: Mapping[str, np.ndarray]
    fill: Mapping[str, int]
    side: Literal["left", "right"]

    def __len__(self) -> int:
        return len(self.sequences["tokens"])

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each feature, int64 [num_features]."""
        return np.array([tokens.shape[-1] for tokens in self.sequences["tokens"]], np.int64)

    def sha256(self) -> str:
        """Of everything in it."""
        digest = hashlib.sha256()
        for name in sorted(self.sequences):
            for array in self.sequences[name]:
                digest.update(np.ascontiguousarray(array).tobytes())
        for name in sorted(self.values):
            digest.update(np.ascontiguousarray(self.values[name]).tobytes())
        return digest.hexdigest()

    def batch(self, index: np.ndarray, length: int) -> dict[str, np.ndarray]:
        """Features `index` (-1: a row that fills up, weight 0), padded to `length`.

        Beside the sequences [B, ..., length] and values: "padding", "weight" and "index".
        """
        batch: dict[str, np.ndarray] = {}
        chosen = np.maximum(index, 0)
        # A row that fills up may copy a feature that is longer than this batch.
        own = [min(self.sequences["tokens"][i].shape[-1], length) for i in chosen]
        starts = [length - n if self.side == "left" else 0 for n in own]
        for name, arrays in self.sequences.items():
            lead = arrays[chosen[0]].shape[:-1]
            padded = np.full((len(index), *lead, length), self.fill[name], arrays[0].dtype)
            for row, (i, start, n) in enumerate(zip(chosen, starts, own, strict=True)):
                padded[row, ..., start : start + n] = arrays[i][..., :n]
            wide = np.bool_ if padded.dtype == np.bool_ else np.int32
            batch[name] = padded.astype(wide)
        padding = np.ones((len(index), *lead, length), bool)
        for row, (start, n) in enumerate(zip(starts, own, strict=True)):
            padding[row, ..., start : start + n] = False
        batch["padding"] = padding
        batch |= {name: values[chosen] for name, values in self.values.items()}
        batch["weight"] = (index >= 0).astype(np.float32)
        batch["index"] = index.astype(np.int32)
        return batch


def bucket_lengths(lengths: np.ndarray, max_length: int, pad_to_multiple: int) -> np.ndarray:
    """Length that each feature is padded to: the next multiple, or the maximum if that is 0."""
    if pad_to_multiple == 0:
        return np.full(lengths.shape, max_length, np.int64)
    return np.minimum(-(-lengths // pad_to_multiple) * pad_to_multiple, max_length)


def training_order(
    padded: np.ndarray, batch_size: int, seed: int, epoch: int
) -> list[tuple[np.ndarray, int]]:
    """(features, length) of each batch of an epoch; every feature once, the last rows filled up.

    Features are shuffled, then sorted by length within stretches of some dozens of batches, and
    the batches are shuffled again.
    """
    random = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch, _ORDER])))
    order = random.permutation(len(padded))
    stretch = _BATCHES_SORTED_TOGETHER * batch_size
    batches = []
    for first in range(0, len(order), stretch):
        part = order[first : first + stretch]
        batches += _cut(part[np.argsort(padded[part], kind="stable")], padded, batch_size)
    return [batches[i] for i in random.permutation(len(batches))]


def evaluation_order(padded: np.ndarray, batch_size: int) -> list[tuple[np.ndarray, int]]:
    """(features, length) of each batch: by length, every feature once, the last rows filled up."""
    return _cut(np.argsort(padded, kind="stable"), padded, batch_size)


def _cut(order: np.ndarray, padded: np.ndarray, batch_size: int) -> list[tuple[np.ndarray, int]]:
    batches = []
    for first in range(0, len(order), batch_size):
        index = order[first : first + batch_size]
        filled = np.full(batch_size, -1, np.int64)
        filled[: len(index)] = index
        batches.append((filled, int(padded[index].max())))
    return batches


class FineTuningTask(abc.ABC):
    """The engine's view of a task whose examples each have an answer; see `tasks.task`.

    A subclass sets `model`, `eval_splits`, and what the abstract methods say. `max_length` and
    `pad_to_multiple` are the task's config keys of that name.
    """

    model: nn.Module
    eval_splits: Sequence[str] = ()
    rows_per_group = 1

    def __init__(
        self, context: Context, tokenizer: Tokenizer, *, max_length: int, pad_to_multiple: int
    ):
        self.tokenizer = tokenizer
        self.network: XLNetConfig = context.network(tokenizer.vocab_size)
        self.run = context.run
        self.global_batch_size = context.batch_size
        self._context = context
        self._max_length, self._multiple = max_length, pad_to_multiple
        self._features: dict[str, Features] = {}

    @abc.abstractmethod
    def make_features(self, split: str) -> Features:
        """Reads a split: "train", one of `eval_splits`, or what else the config names.

        Raises ValueError or OSError for wrong input, ValueError for a split that the config does
        not give.
        """

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

    def features(self, split: str) -> Features:
        """Those of a split, made once.

        Raises ValueError if there are none.
        """
        if split not in self._features:
            made = self.make_features(split)
            if not len(made):
                raise ValueError(f"the split {split!r} has no examples")
            self._features[split] = made
        return self._features[split]

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
        """Examples and lengths of the training data."""
        lengths = self.features("train").lengths
        return (
            f"{len(lengths):,} training features of {lengths.mean():.0f} tokens on average, at most"
            f" {lengths.max()}, in {self.steps_per_epoch:,} steps an epoch"
        )

    @property
    def has_heldout(self) -> bool:
        """Whether a split to evaluate on was given."""
        return bool(self.eval_splits)

    def describe_heldout(self) -> dict[str, Any]:
        """How many features are evaluated on."""
        return {f"{split}_features": len(self.features(split)) for split in self.eval_splits}

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
        return features, bucket_lengths(features.lengths, self._max_length, self._multiple)
