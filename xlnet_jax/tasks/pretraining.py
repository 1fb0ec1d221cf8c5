"""Permutation language modelling: batches, the two-stream loss, held-out text.

The factorization order arrives as one rank a token; who may see whom is worked out on the device.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import json
from collections.abc import Generator, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from xlnet_jax.data import pipeline
from xlnet_jax.model import visibility
from xlnet_jax.model.config import XLNetConfig
from xlnet_jax.model.heads import PermutationLanguageModel
from xlnet_jax.tasks.sources import Source
from xlnet_jax.tasks.task import Batch, LossSum, Params

_EXAMPLES_PER_BLOCK = 256  # drawn together by the input pipeline


@dataclasses.dataclass(frozen=True)
class PretrainingTask:
    """Permutation language modelling over token shards (or the original's records).

    Attributes:
        model: with `mem_len`, `reuse_len` and `bi_data` as the source has them.
        source: training examples.
        heldout: held-out examples, or None.
        eval_steps: held-out batches used, from the beginning; 0 for all.
    """

    model: PermutationLanguageModel
    source: Source
    heldout: Source | None = None
    eval_steps: int = 0

    @property
    def global_batch_size(self) -> int:
        """Rows of text a step."""
        return self.source.global_batch_size

    @property
    def rows_per_group(self) -> int:
        """With `bi_data` the two directions alternate, so rows go in pairs."""
        return 2 if self.model.run.bi_data else 1

    @property
    def tokens_per_example(self) -> int:
        """Tokens of one segment."""
        return self.source.config.seq_len

    @property
    def flops_per_example(self) -> float:
        """See `useful_flops`."""
        data = self.source.config
        predicted = data.num_predict or data.seq_len
        return useful_flops(self.model.config, data.seq_len, self.model.run.mem_len, predicted)

    def init_params(self, key: jax.Array) -> Params:
        """Parameters of the two-stream model."""
        tokens = jnp.zeros((self.rows_per_group, 2), jnp.int32)
        return self.model.init(key, tokens, query_tokens=tokens)["params"]

    def init_memory(self, batch_size: int) -> Array | None:
        """Zeros [Y, B, M, D], as the original starts."""
        cfg, run = self.model.config, self.model.run
        if run.mem_len == 0:
            return None
        return jnp.zeros((cfg.n_layer, batch_size, run.mem_len, cfg.d_model), run.dtype)

    def train_batches(self, start_step: int, rows: slice) -> Generator[dict[str, np.ndarray]]:
        """Endless; what step k gets depends on k alone."""
        return _batches(self.source, start_step, rows)

    def eval_batches(self, rows: slice) -> Iterator[dict[str, np.ndarray]]:
        """The first `eval_steps` held-out batches, in order."""
        if self.heldout is None:
            return
        steps = self.heldout.steps_per_epoch
        steps = min(self.eval_steps, steps) if self.eval_steps else steps
        with contextlib.closing(_batches(self.heldout, 0, rows)) as batches:
            yield from itertools.islice(batches, steps)

    def loss(
        self, params: Params, batch: Batch, memory: Array | None, dropout_key: jax.Array | None
    ) -> LossSum:
        """Cross entropy of the predicted tokens given what their queries may see."""
        positions = batch["target_positions"]
        weights = batch["target_weights"]
        if memory is not None:
            memory = jnp.where(batch["reset_memory"][None, :, None, None], 0, memory)
        everywhere = self.source.config.num_predict is None
        outputs: Any = self.model.apply(
            {"params": params},
            batch["tokens"],
            segment_ids=batch["segment_ids"],
            visible=visibility.content_visibility(batch["ranks"]),
            query_tokens=positions,
            query_visible=visibility.query_visibility(batch["ranks"], positions),
            query_predicts=weights > 0 if everywhere else None,
            memory=memory,
            train=dropout_key is not None,
            rngs={} if dropout_key is None else {"dropout": dropout_key},
        )
        logits, output = outputs
        targets = jnp.take_along_axis(batch["tokens"], positions, axis=1)
        losses = permutation_loss(logits, targets)
        return LossSum(jnp.sum(losses * weights), jnp.sum(weights), output.memory)

    def identity(self) -> dict[str, Any]:
        """What the data position refers to: a resumed run must have the same."""
        manifest = self.source.manifest
        text = json.dumps(manifest.shards, sort_keys=True)
        return {
            "tokenizer_sha256": manifest.tokenizer_sha256,
            "tokens": manifest.totals["tokens"],
            "shards_sha256": hashlib.sha256(text.encode()).hexdigest(),
        }


def _batches(source: Source, start_step: int, rows: slice) -> Generator[dict[str, np.ndarray]]:
    steps_per_block = max(1, _EXAMPLES_PER_BLOCK // max(1, rows.stop - rows.start))
    return pipeline.iterate(
        lambda first, count: source.block(first, count, rows),
        start_step=start_step,
        steps_per_block=steps_per_block,
    )


def permutation_loss(
    logits: Float[Array, "B P V"], targets: Int[Array, "B P"]
) -> Float[Array, "B P"]:
    """Cross entropy of every predicted token, in nats, float32."""
    logits = logits.astype(jnp.float32)
    chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - chosen


def unigram_entropy(counts: Int[np.ndarray, "V"]) -> float:
    """Entropy in nats of the distribution of the counted targets.

    The loss of the best guesser that knows how frequent each target is, and sees no context.
    """
    frequency = counts[counts > 0] / counts.sum()
    return float(-(frequency * np.log(frequency)).sum())


def useful_flops(config: XLNetConfig, seq_len: int, mem_len: int, num_predict: int) -> float:
    """Forward and backward operations of one example that the objective needs.

    Two per multiply-add, times three for forward and backward; T + P query rows, keys and values
    of T + M tokens, three products with the S keys per row and head (content, position, value),
    one logit product per target. Not counted: the position projection (shared by the batch),
    lookups, normalizations, anything recomputed. XLNet-Base at T = 512, M = 384, P = 85 gives
    0.431e12, XLNet-Large 1.425e12.
    """
    width, heads = config.d_model, config.n_head * config.d_head
    keys, rows = mem_len + seq_len, seq_len + num_predict
    projections = width * heads * (2 * rows + 2 * keys)
    feed_forward = 2 * rows * width * config.d_inner
    scores = 3 * rows * keys * heads
    logits = num_predict * config.n_token * width
    return 6.0 * (config.n_layer * (projections + feed_forward + scores) + logits)
