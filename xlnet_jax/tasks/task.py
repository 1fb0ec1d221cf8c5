"""The small interface through which the training engine sees any task."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeGuard

import jax
import numpy as np
from jaxtyping import Array, Float

from xlnet_jax.data.tokenizer import Tokenizer
from xlnet_jax.model.config import RunConfig, XLNetConfig

Batch = Mapping[str, Any]
Params = Any


class LossSum(NamedTuple):
    """Sums over a batch; the loss is `total / weight`, whichever way the batch was cut.

    Attributes:
        total: sum of the losses, in nats.
        weight: how many losses it sums.
        memory: for the next step, or None.
    """

    total: Float[Array, ""]
    weight: Float[Array, ""]
    memory: Array | None


class Context(NamedTuple):
    """What a task is made from, beside its own section `data` of the config.

    A task is a module of `xlnet_jax.tasks` with a frozen dataclass `DataConfig` (the keys of that
    section, with `validate()`, and `without_data(values, length)`: keys as they may be where there
    are no data), `make_task(data: DataConfig, context: Context) -> Task`, and for such keys
    `plan_task(data: DataConfig, context: Context) -> PlannedTask`.

    Attributes:
        network: the network for a vocabulary of the given size; raises ValueError if the config
            or the pretrained weights say another size.
        vocab_size: what these say; None if neither does.
        run: dropout, memory, precision.
        tokenizer: that of the pretrained weights or of the work directory; None if there is none.
        seed: of everything random.
        batch_size: examples an update, over all processes.
        eval_batch_size: examples a held-out batch.
        eval_batch_key: the config key that says `eval_batch_size`, for messages.
        eval_steps: held-out batches of an evaluation; 0 for all. Tasks that are judged by scores
            refuse others.
    """

    network: Callable[[int], XLNetConfig]
    vocab_size: int | None
    run: RunConfig
    tokenizer: Tokenizer | None
    seed: int
    batch_size: int
    eval_batch_size: int
    eval_batch_key: str
    eval_steps: int


class Task(Protocol):
    """A kind of work: where batches come from, and their loss."""

    @property
    def network(self) -> XLNetConfig:
        """The network, to be stored beside the weights."""

    @property
    def tokenizer(self) -> Tokenizer | None:
        """To be stored beside the weights; None if the data came as ids of a lost vocabulary."""

    @property
    def steps_per_epoch(self) -> int:
        """Updates that pass once over the training data."""

    @property
    def introduction(self) -> str:
        """The training data in one line."""

    def identity(self) -> dict[str, Any]:
        """What the data position refers to: a resumed run must have the same."""

    @property
    def global_batch_size(self) -> int:
        """Examples a step, over all processes."""

    @property
    def rows_per_group(self) -> int:
        """Batch rows that must stay together when a batch is cut (2 with `bi_data`)."""

    @property
    def tokens_per_example(self) -> float:
        """For throughput."""

    @property
    def flops_per_example(self) -> float:
        """Useful forward and backward operations, for MFU."""

    def init_params(self, key: jax.Array) -> Params:
        """Fresh parameters."""

    def init_memory(self, batch_size: int) -> Array | None:
        """Memory of the very first step, or None."""

    def train_batches(self, start_step: int, rows: slice) -> Generator[dict[str, np.ndarray]]:
        """Batches of steps `start_step`, ...: rows `rows` of each global batch."""

    def loss(
        self, params: Params, batch: Batch, memory: Array | None, dropout_key: jax.Array | None
    ) -> LossSum:
        """Pure. Dropout is on exactly if `dropout_key` is given."""

    def eval_batches(self, rows: slice) -> Iterator[dict[str, np.ndarray]]:
        """Held-out batches, the same ones every time; nothing if there is no held-out data."""

    @property
    def has_heldout(self) -> bool:
        """Whether there is anything to evaluate on."""

    def describe_heldout(self) -> dict[str, Any]:
        """What to print beside the held-out loss."""


class PlannedTask(NamedTuple):
    """A task as it would be with data: shapes are all that a compiler asks for.

    Attributes:
        task: can do what needs no data.
        batch: shapes and types of a global batch of the longest examples.
        flops_per_example: useful operations of one of them.
    """

    task: Task
    batch: dict[str, jax.ShapeDtypeStruct]
    flops_per_example: float


class PredictingTask(Task, Protocol):
    """A task whose examples each have an answer; it is judged by scores and not by its loss.

    Predictions are one entry a feature, in the order of the features: an array [num_features, ...],
    or a list where shapes differ.
    """

    eval_splits: Sequence[str]

    def predict_batches(self, split: str, rows: slice) -> Iterator[dict[str, np.ndarray]]:
        """All features of a split once; "index" [B] says which, -1 for rows that fill up."""

    def predict(self, params: Params, batch: Batch) -> dict[str, Array]:
        """Pure: arrays [B, ...]."""

    def score(self, split: str, predictions: Mapping[str, Any]) -> dict[str, float]:
        """Metrics of a labelled split."""

    def resolved_data(self) -> dict[str, Any]:
        """Keys of section `data` that the data themselves have answered, to be stored."""

    def warning(self, split: str, predictions: Mapping[str, Any]) -> str:
        """What is suspicious about the predictions; "" if nothing."""

    def write_predictions(self, split: str, predictions: Mapping[str, Any], output: str) -> None:
        """Writes to a file, a folder, or standard output ("-")."""


def can_predict(task: Task) -> TypeGuard[PredictingTask]:
    """Whether a task is a `PredictingTask`.

    Its class is asked: isinstance() on a protocol would work out every property of the task, and
    so read training data that predictions need not have.
    """
    return hasattr(type(task), "predict_batches")
