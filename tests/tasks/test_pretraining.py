import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xlnet_jax.model.config import NAMED_CONFIGS, RunConfig, XLNetConfig
from xlnet_jax.model.heads import PermutationLanguageModel
from xlnet_jax.tasks.data_config import PretrainingDataConfig
from xlnet_jax.tasks.flops import useful_flops
from xlnet_jax.tasks.losses import cross_entropy
from xlnet_jax.tasks.pretraining import (
    PretrainingTask,
    unigram_entropy,
)

SIZES = {"n_token": 13, "d_model": 8, "n_layer": 2, "n_head": 2, "d_head": 4, "d_inner": 12}


class StandInSource:
    """Random batches of the right form; each step's differ."""

    global_batch_size = 4
    steps_per_epoch = 5

    def __init__(self, num_predict=3):
        self.config = PretrainingDataConfig(
            seq_len=10, reuse_len=5, num_predict=num_predict, perm_size=5, bi_data=True
        )

    def block(self, first_step, steps, rows=slice(None)):
        parts = [self.batch(step, rows) for step in range(first_step, first_step + steps)]
        return {name: np.stack([part[name] for part in parts]) for name in parts[0]}

    def batch(self, step, rows=slice(None)):
        random = np.random.default_rng([3, step])
        predicted = self.config.num_predict or self.config.seq_len
        batch = {
            "tokens": random.integers(0, 13, (4, 10), dtype=np.int32),
            "segment_ids": np.repeat([[0] * 6 + [1] * 3 + [2]], 4, axis=0).astype(np.int32),
            "ranks": random.integers(0, 4, (4, 10), dtype=np.int32),
            "target_positions": np.sort(
                random.permuted(np.tile(np.arange(10), (4, 1)), axis=1)[:, :predicted], axis=1
            ).astype(np.int32),
            "target_weights": (random.random((4, predicted)) < 0.8).astype(np.float32),
            "reset_memory": np.zeros(4, bool),
        }
        return {name: array[rows] for name, array in batch.items()}


def make_task(mem_len=3, heldout=True, eval_steps=0, **options):
    run = RunConfig(bi_data=True, mem_len=mem_len, reuse_len=5, **options)
    model = PermutationLanguageModel(XLNetConfig(**SIZES, ff_activation="gelu"), run)
    return PretrainingTask(model, StandInSource(), StandInSource() if heldout else None, eval_steps)


@pytest.fixture(scope="module")
def trained():
    """(task, parameters, its compiled loss without dropout)."""
    task = make_task()
    params = jax.jit(task.init_params)(jax.random.key(0))
    loss = jax.jit(lambda params, batch, memory: task.loss(params, batch, memory, None))
    return task, params, loss


def test_the_loss_is_the_weighted_sum_of_cross_entropies(trained):
    """Restated slowly from the model's logits: only filled targets count."""
    task, params, loss = trained
    batch = task.source.batch(0)
    logits = np.random.default_rng(0).normal(size=(4, 3, 13))
    targets = np.take_along_axis(batch["tokens"], batch["target_positions"], axis=1)
    found = cross_entropy(jnp.asarray(logits, jnp.float32), targets)
    for row in range(4):
        for place in range(3):
            scores = np.exp(logits[row, place])
            wanted = -np.log(scores[targets[row, place]] / scores.sum())
            assert found[row, place] == pytest.approx(wanted, rel=1e-5)
    sums = loss(params, batch, task.init_memory(4))
    assert sums.weight == batch["target_weights"].sum()
    assert 0.5 * np.log(13) < sums.total / sums.weight < 1.5 * np.log(13)


def test_filler_targets_change_nothing(trained):
    task, params, loss = trained
    batch = task.source.batch(1)
    batch["target_weights"] = np.array([[1, 1, 0]] * 4, np.float32)
    before = loss(params, batch, task.init_memory(4))
    for filler in (0, 9):
        batch["target_positions"][:, 2] = filler
        assert loss(params, batch, task.init_memory(4)).total == pytest.approx(
            float(before.total), rel=1e-6
        )


def test_a_reset_row_forgets_and_the_others_do_not(trained):
    task, params, loss = trained
    memory = jax.random.normal(jax.random.key(1), (2, 4, 3, 8))
    batch = task.source.batch(2)
    batch["reset_memory"] = np.array([False, True, False, False])
    reset = loss(params, batch, memory)
    by_hand = loss(params, batch | {"reset_memory": np.zeros(4, bool)}, memory.at[:, 1].set(0.0))
    np.testing.assert_array_equal(reset.memory, by_hand.memory)
    assert float(reset.total) == float(by_hand.total)
    kept = loss(params, batch | {"reset_memory": np.zeros(4, bool)}, memory)
    assert float(reset.total) != float(kept.total)
    np.testing.assert_array_equal(reset.memory[:, 0], kept.memory[:, 0])


def test_memory_gets_no_gradient_and_matters(trained):
    task, params, loss = trained
    memory = jax.random.normal(jax.random.key(1), (2, 4, 3, 8))
    batch = task.source.batch(2)
    gradient = jax.jit(jax.grad(lambda memory: loss(params, batch, memory).total))(memory)
    assert not np.asarray(gradient).any()
    assert float(loss(params, batch, memory).total) != float(loss(params, batch, 0 * memory).total)


def test_memory_of_the_first_step():
    memory = make_task(mem_len=3, dtype="bfloat16").init_memory(6)
    assert (memory.shape, memory.dtype, bool(memory.any())) == ((2, 6, 3, 8), jnp.bfloat16, False)
    assert make_task(mem_len=0).init_memory(6) is None


def test_batches_are_a_function_of_the_step():
    task = make_task()
    batches = task.train_batches(3, slice(2, 4))
    for step in range(3, 9):
        batch, wanted = next(batches), task.source.batch(step, slice(2, 4))
        assert batch.keys() == wanted.keys()
        for name, array in batch.items():
            np.testing.assert_array_equal(array, wanted[name])
    batches.close()


@pytest.mark.parametrize(("eval_steps", "count"), [(0, 5), (2, 2), (50, 5)])
def test_held_out_batches_are_the_same_ones_every_time(eval_steps, count):
    task = make_task(eval_steps=eval_steps)
    for _ in range(2):
        batches = list(task.eval_batches(slice(0, 4)))
        assert len(batches) == count
        for step, batch in enumerate(batches):
            np.testing.assert_array_equal(batch["tokens"], task.heldout.batch(step)["tokens"])


def test_without_held_out_text_there_are_no_batches():
    assert list(make_task(heldout=False).eval_batches(slice(0, 4))) == []


def test_what_the_engine_asks_a_task():
    task = make_task()
    assert (task.global_batch_size, task.rows_per_group, task.tokens_per_example) == (4, 2, 10)
    assert task.flops_per_example == useful_flops(task.model.config, 10, 3, 3)
    run = dataclasses.replace(task.model.run, bi_data=False)
    single = PermutationLanguageModel(task.model.config, run)
    assert dataclasses.replace(task, model=single).rows_per_group == 1


def test_useful_operations_of_the_released_sizes():
    assert useful_flops(NAMED_CONFIGS["base"], 512, 384, 85) == pytest.approx(0.431e12, rel=2e-3)
    assert useful_flops(NAMED_CONFIGS["large"], 512, 384, 85) == pytest.approx(1.425e12, rel=2e-3)


def test_unigram_entropy():
    assert unigram_entropy(np.array([0, 5, 0])) == 0.0
    assert unigram_entropy(np.array([3, 3, 0, 3, 3])) == pytest.approx(np.log(4))
    slow = -sum(p * np.log(p) for p in (0.5, 0.25, 0.25))
    assert unigram_entropy(np.array([2, 1, 1])) == pytest.approx(slow)
    for counts in itertools.permutations([2, 1, 1, 0]):
        assert unigram_entropy(np.array(counts)) == pytest.approx(slow)
