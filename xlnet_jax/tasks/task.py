"""The small interface through which the training engine sees any task."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jaxtyping import Array, Float

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


class Task(Protocol):
    """A kind of work: where batches come from, and their loss."""

    @property
    def global_batch_size(self) -> int:
        """Examples a step, over all processes."""

    @property
    def rows_per_group(self) -> int:
        """Batch rows that must stay together when a batch is cut (2 with `bi_data`)."""

    @property
    def tokens_per_example(self) -> int:
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
