"""Permutation language modelling: batches, the two-stream loss, held-out text.

The factorization order arrives as one rank a token; who may see whom is worked out on the device.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import json
import types
from collections.abc import Generator, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jaxtyping import Array, Int

from xlnet_jax.data import pipeline
from xlnet_jax.data.manifest import MODEL_NAME, Manifest, differences
from xlnet_jax.data.normalization import Normalization
from xlnet_jax.data.tokenizer import Tokenizer
from xlnet_jax.model import visibility
from xlnet_jax.model.config import XLNetConfig
from xlnet_jax.model.heads import PermutationLanguageModel
from xlnet_jax.tasks import losses, sources
from xlnet_jax.tasks.data_config import PretrainingDataConfig
from xlnet_jax.tasks.flops import useful_flops
from xlnet_jax.tasks.sources import Source
from xlnet_jax.tasks.task import Batch, Context, LossSum, Params, PlannedTask

_EXAMPLES_PER_BLOCK = 256  # drawn together by the input pipeline


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig(PretrainingDataConfig):
    """Section `data` of a config; where the data are, and how examples are made of them.

    Attributes:
        train: folder of token shards (or of the original's records).
        heldout: held-out text of the same vocabulary; "" for none.
        cache: local folder for copies of shards that lie on gs://; "" for the system's own.
    """

    train: str
    heldout: str
    cache: str

    def validate(self) -> None:
        """Raises one ValueError that names every value that does not fit, and what would."""
        super().validate()
        if not self.train:
            raise ValueError(
                "data.train is empty; set --config.data.train=DIR of `xlnet-jax corpus`"
            )

    @staticmethod
    def without_data(values: Mapping[str, Any], length: int | None) -> dict[str, Any]:
        """The keys as they may be where there are no data, and `length` for their own."""
        seq_len = values["seq_len"] if length is None else length
        return {**values, "train": "planned", "heldout": "", "seq_len": seq_len}


def make_task(data: DataConfig, context: Context) -> PretrainingTask:
    """Opens the data, compares them with the config and with each other, and builds the model.

    Raises ValueError or OSError where something is missing or does not fit.
    """
    source = open_data(data, "train", context, context.batch_size, "config.train.batch_size")
    heldout = None
    if data.heldout:
        size, key = context.eval_batch_size, f"config.{context.eval_batch_key}"
        heldout = open_data(data, "heldout", context, size, key)
        _compare_manifests(source.manifest, heldout.manifest, data)
    manifest = source.manifest
    tokenizer = context.tokenizer
    if tokenizer is not None and manifest.tokenizer_sha256 not in ("", tokenizer.sha256):
        raise ValueError(
            f"data.train={data.train} was made with another SentencePiece model than that of"
            f" config.init_from (sha256 {manifest.tokenizer_sha256[:12]}…, wanted"
            f" {tokenizer.sha256[:12]}…); build the shards with the model's own spiece.model"
        )
    if tokenizer is None and manifest.tokenizer_sha256:
        tokenizer = Tokenizer(
            epath.Path(data.train) / MODEL_NAME, Normalization.from_json(manifest.normalization)
        )
    model = PermutationLanguageModel(context.network(manifest.vocab_size), context.run)
    return PretrainingTask(model, source, heldout, context.eval_steps, tokenizer)


def plan_task(data: DataConfig, context: Context) -> PlannedTask:
    """The task without its data; see `PlannedTask`."""
    rows = context.batch_size
    network = context.network(context.vocab_size or 0)
    source: Any = types.SimpleNamespace(config=data, global_batch_size=rows)
    task = PretrainingTask(PermutationLanguageModel(network, context.run), source)
    tokens = jax.ShapeDtypeStruct((rows, data.seq_len), jnp.int32)
    targets = data.num_predict or data.seq_len
    batch = {
        "tokens": tokens,
        "segment_ids": tokens,
        "ranks": tokens,
        "target_positions": jax.ShapeDtypeStruct((rows, targets), jnp.int32),
        "target_weights": jax.ShapeDtypeStruct((rows, targets), jnp.float32),
        "reset_memory": jax.ShapeDtypeStruct((rows,), jnp.bool_),
    }
    return PlannedTask(task, batch, task.flops_per_example)


def open_data(data: DataConfig, part: str, context: Context, batch_size: int, key: str) -> Source:
    """The source of the folder `data.PART`; ValueError or OSError where it does not fit."""
    folder = getattr(data, part)
    try:
        return sources.open_source(
            folder,
            data,
            batch_size,
            vocab_size=context.vocab_size,
            batch_key=key,
            cache_dir=data.cache or None,
        )
    except FileNotFoundError as error:
        there = "" if epath.Path(folder).exists() else " (there is no such folder here)"
        raise FileNotFoundError(f"config.data.{part}={folder}{there}: {error}") from error


def _compare_manifests(train: Manifest, heldout: Manifest, data: DataConfig) -> None:
    wanted = train.to_json()
    same = ["vocab_size", "special_ids"]
    if train.tokenizer_sha256 and heldout.tokenizer_sha256:  # the original's records tell no more
        same += ["tokenizer_sha256", "normalization", "use_eod", "dtype"]
    if lines := differences(heldout, {key: wanted[key] for key in same}):
        raise ValueError(
            f"data.heldout={data.heldout} was not made like data.train={data.train}:"
            f" {'; '.join(lines)}"
        )


@dataclasses.dataclass(frozen=True)
class PretrainingTask:
    """Permutation language modelling over token shards (or the original's records).

    Attributes:
        model: with `mem_len`, `reuse_len` and `bi_data` as the source has them.
        source: training examples.
        heldout: held-out examples, or None.
        eval_steps: held-out batches used, from the beginning; 0 for all.
        tokenizer: of the shards; None for records.
    """

    model: PermutationLanguageModel
    source: Source
    heldout: Source | None = None
    eval_steps: int = 0
    tokenizer: Tokenizer | None = None

    @property
    def network(self) -> XLNetConfig:
        """Its vocabulary is that of the shards."""
        return self.model.config

    @property
    def has_heldout(self) -> bool:
        """Whether held-out text was given."""
        return self.heldout is not None

    @property
    def steps_per_epoch(self) -> int:
        """Steps until every row has gone through its stretch of text."""
        return self.source.steps_per_epoch

    @property
    def introduction(self) -> str:
        """Tokens of the training text."""
        tokens = self.source.manifest.totals["tokens"]
        return f"{tokens:,} tokens of text in {self.steps_per_epoch:,} steps an epoch"

    def describe_heldout(self) -> dict[str, Any]:
        """Entropy in nats of the held-out targets under their own counts, and how many they are."""
        counts = np.zeros(self.network.n_token, np.int64)
        rows = slice(0, self.heldout.global_batch_size if self.heldout else 0)
        for batch in self.eval_batches(rows):
            targets = np.take_along_axis(batch["tokens"], batch["target_positions"], axis=1)
            counts += np.bincount(targets[batch["target_weights"] > 0], minlength=counts.size)
        return {"unigram_entropy": unigram_entropy(counts), "targets": int(counts.sum())}

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
        nats = losses.cross_entropy(logits, targets)
        return LossSum(jnp.sum(nats * weights), jnp.sum(weights), output.memory)

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


def unigram_entropy(counts: Int[np.ndarray, "V"]) -> float:
    """Entropy in nats of the distribution of the counted targets.

    The loss of the best guesser that knows how frequent each target is, and sees no context.
    """
    frequency = counts[counts > 0] / counts.sum()
    return float(-(frequency * np.log(frequency)).sum())
