"""A real XLNet, tiny, with all that makes layouts differ: memory, two directions, dropout.

Its batches are drawn from (step) by numpy, so that a process that trains it starts quickly.
"""

import jax
import jax.numpy as jnp
import numpy as np

from xlnet_jax.model import visibility
from xlnet_jax.model.config import RunConfig, XLNetConfig
from xlnet_jax.model.heads import PermutationLanguageModel
from xlnet_jax.tasks.task import LossSum
from xlnet_jax.training.checkpoint import CheckpointConfig
from xlnet_jax.training.optimizer import OptimizerConfig
from xlnet_jax.training.reporting import ReportConfig
from xlnet_jax.training.settings import Settings, TrainConfig
from xlnet_jax.training.sharding import MeshConfig

LENGTH, TARGETS, MEMORY, PIECES = 10, 4, 6, 30
NETWORK = XLNetConfig(
    n_token=PIECES, d_model=16, n_layer=2, n_head=4, d_head=4, d_inner=32, ff_activation="gelu"
)


def settings(batch_size=16, steps=20, **changes):
    """Settings of a run; `changes` go to the sections that have a field of that name."""
    values = {
        "learning_rate": 0.01, "weight_decay": 0.01, "report_every": 1, "save_every": 5, **changes,
    }  # fmt: skip

    def section(kind, **fixed):
        names = kind.__dataclass_fields__
        return kind(**fixed, **{key: value for key, value in values.items() if key in names})

    report = ReportConfig(log_every=values["report_every"], tensorboard=False)
    return Settings(
        task="",
        init_from="",
        init_optimizer=False,
        seed=3,
        network=NETWORK.to_json(),
        run=section(RunConfig, bi_data=True, mem_len=MEMORY, reuse_len=LENGTH // 2),
        data=None,
        optimizer=section(OptimizerConfig),
        train=section(TrainConfig, steps=steps, batch_size=batch_size),
        checkpoint=section(CheckpointConfig),
        report=report,
        mesh=section(MeshConfig),
    )


class TinyXLNet:
    """Permutation language modelling of random tokens."""

    network = NETWORK
    rows_per_group = 2
    tokens_per_example = LENGTH
    flops_per_example = 1e6
    steps_per_epoch = 10
    has_heldout = True

    def __init__(self, settings):
        self.model = PermutationLanguageModel(NETWORK, settings.run)
        self.global_batch_size = settings.train.batch_size

    def init_params(self, key):
        tokens = jnp.zeros((2, 2), jnp.int32)
        return self.model.init(key, tokens, query_tokens=tokens)["params"]

    def init_memory(self, batch_size):
        return jnp.zeros((NETWORK.n_layer, batch_size, MEMORY, NETWORK.d_model))

    def batch(self, step):
        random = np.random.default_rng([5, step])
        size = self.global_batch_size
        return {
            "tokens": random.integers(0, PIECES, (size, LENGTH), dtype=np.int32),
            "segments": np.sort(random.integers(0, 2, (size, LENGTH), dtype=np.int32)),
            "ranks": random.permuted(np.tile(np.arange(LENGTH, dtype=np.int32), (size, 1)), axis=1),
            "targets": random.integers(0, LENGTH, (size, TARGETS), dtype=np.int32),
            # Sums of weights differ from row to row, and so between micro-batches.
            "weights": random.integers(0, 3, (size, TARGETS)).astype(np.float32),
        }

    def train_batches(self, start_step, rows):
        step = start_step
        while True:
            yield {name: array[rows] for name, array in self.batch(step).items()}
            step += 1

    def eval_batches(self, rows):
        for step in (10**6, 10**6 + 1):
            yield {name: array[rows] for name, array in self.batch(step).items()}

    def loss(self, params, batch, memory, dropout_key):
        logits, output = self.model.apply(
            {"params": params},
            batch["tokens"],
            segment_ids=batch["segments"],
            visible=visibility.content_visibility(batch["ranks"]),
            query_tokens=batch["targets"],
            query_visible=visibility.query_visibility(batch["ranks"], batch["targets"]),
            memory=memory,
            train=dropout_key is not None,
            rngs={} if dropout_key is None else {"dropout": dropout_key},
        )
        wanted = jnp.take_along_axis(batch["tokens"], batch["targets"], axis=1)
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), wanted[..., None], axis=-1)[..., 0]
        weights = batch["weights"]
        return LossSum(-(chosen * weights).sum(), weights.sum(), output.memory)

    def predict_batches(self, split, rows):
        """13 features, 8 at a time: the last rows fill up."""
        tokens = self.batch(10**6)
        for first in (0, 8):
            index = np.arange(first, first + 8)
            index = np.where(index < 13, index, -1).astype(np.int32)
            batch = {name: tokens[name][index] for name in ("tokens", "targets")}
            yield {name: array[rows] for name, array in {**batch, "index": index}.items()}

    def predict(self, params, batch):
        """The best piece at some places, and how good it is."""
        logits, _ = self.model.apply(
            {"params": params}, batch["tokens"], query_tokens=batch["targets"]
        )
        return {"best": logits.argmax(-1), "score": logits.max(-1)}
