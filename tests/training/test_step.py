import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.training.toy import ToyTask
from xlnet_jax.training import step as steps
from xlnet_jax.training.state import make_state
from xlnet_jax.training.step import EvalSums, make_eval_step, make_train_step

compiled: dict = {}  # steps by what they depend on


def run(task, batches, dropout=False, seed=0, **options):
    optimizer = optax.adam(0.05)
    key = (type(task), task.global_batch_size, task.rows_per_group, dropout, seed, *options.items())
    if key not in compiled:
        train_step = make_train_step(task, optimizer, seed=seed, dropout=dropout, **options)
        new_state = functools.partial(make_state, task, optimizer, 0)
        compiled[key] = jax.jit(train_step), jax.jit(new_state)
    step, new_state = compiled[key]
    state = new_state()
    for batch in batches:
        state = step(state, batch)
    return state


def assert_close(got, wanted, tolerance=1e-6):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def assert_same(got, wanted):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("rows_per_group", [1, 2])
@pytest.mark.parametrize(("parts", "dropout"), [(2, False), (4, False), (2, True), (4, True)])
def test_micro_batches_are_one_batch(parts, rows_per_group, dropout):
    """Loss, gradient norm, parameters, optimizer state and memory, over three steps."""
    task = ToyTask(8, rows_per_group)
    batches = [task.batch(step) for step in range(3)]
    whole = run(task, batches, dropout, report_every=10)
    cut = run(task, batches, dropout, report_every=10, accumulation_steps=parts)
    assert_close(cut, whole)
    assert float(jnp.abs(whole.memory).max()) > 0.1


def test_micro_batches_keep_rows_in_place_and_pairs_together():
    rows = jnp.arange(12)
    assert steps._cut(rows, 3, 1).tolist() == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]
    assert steps._cut(rows, 3, 2).tolist() == [[0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10, 11]]


@pytest.mark.parametrize("group", [1, 2])
def test_a_micro_batch_has_the_memory_of_its_rows_and_leaves_the_others_as_they_are(group):
    memory = jnp.arange(2 * 12 * 3 * 5).reshape(2, 12, 3, 5)
    memories = steps._parted(memory, 3, group, 1)
    for part, rows in enumerate(steps._cut(jnp.arange(12), 3, group)):
        taken = steps._take(memories, part)
        np.testing.assert_array_equal(taken, memory[:, rows])
        put = steps._put(memories, -taken, part).reshape(memory.shape)
        np.testing.assert_array_equal(put, memory.at[:, rows].multiply(-1))


@pytest.mark.parametrize("parts", [1, 4])
def test_the_loss_is_the_mean_over_all_targets_of_the_batch(parts):
    """Not the mean of the micro-batches' means, which weighs their targets unequally."""
    task = ToyTask(4)
    batch = task.batch(0)
    batch["weight"] = np.array([1, 0, 5, 3], np.float32)
    state = run(task, [batch], accumulation_steps=parts)
    params = jax.device_get(make_state(task, optax.sgd(0.0), seed=0).params)
    hidden = np.tanh(batch["x"] @ params["dense"]["kernel"])
    losses = (hidden.sum(axis=1) - batch["y"]) ** 2
    wanted = (losses * [1, 0, 5, 3]).sum() / 9
    np.testing.assert_allclose(state.window.loss, wanted, rtol=1e-5)
    assert float(state.window.targets) == 9

    def mean_loss(params):
        return task.loss(params, batch, task.init_memory(4), None).total / 9

    norm = optax.tree.norm(jax.grad(mean_loss)(params))
    np.testing.assert_allclose(state.window.grad_norm, norm, rtol=1e-5)


def test_a_batch_without_targets_changes_no_parameter():
    task = ToyTask(4)
    batch = task.batch(0) | {"weight": np.zeros(4, np.float32)}
    state = run(task, [batch])
    assert_same(state.params, make_state(task, optax.sgd(0.0), seed=0).params)
    assert int(state.step) == 1
    assert int(state.bad_step) == -1


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_changes_nothing_but_the_mark(poison):
    task = ToyTask(4)
    good = [task.batch(step) for step in range(2)]
    bad = task.batch(2)
    bad["x"][1, 1] = poison
    before = run(task, good, report_every=5)
    after = run(task, [*good, bad], report_every=5)
    assert int(after.bad_step) == 2
    assert_same(after.replace(bad_step=before.bad_step), before)
    later = run(task, [*good, bad, *good], report_every=5)
    assert_same(later, after)  # the first bad step is kept, and nothing moves any more


def test_a_gradient_that_is_not_finite_counts_as_much_as_a_loss():
    class Steep(ToyTask):
        def loss(self, params, batch, memory, dropout_key):
            sums = super().loss(params, batch, memory, dropout_key)
            zero = params["out"].sum() * 0.0
            return sums._replace(total=sums.total + jnp.sqrt(zero))  # value 0, slope 0 * inf

    task = Steep(4)
    state = run(task, [task.batch(0)])
    assert np.isfinite(float(state.window.loss))
    assert int(state.bad_step) == 0
    assert_same(state.params, make_state(task, optax.sgd(0.0), seed=0).params)


def test_the_window_sums_and_starts_anew_behind_a_report():
    task = ToyTask(4)
    single, losses, norms = [], [], []
    for step in range(7):
        single.append(task.batch(step))
        state = run(task, single, report_every=1)
        assert int(state.window.steps) == 1
        losses.append(float(state.window.loss))
        norms.append(float(state.window.grad_norm))
    state = run(task, single[:3], report_every=3)
    assert int(state.window.steps) == 3
    np.testing.assert_allclose(state.window.loss, sum(losses[:3]), rtol=1e-5)
    np.testing.assert_allclose(state.window.grad_norm, sum(norms[:3]), rtol=1e-5)
    state = run(task, single, report_every=3)
    assert int(state.window.steps) == 1  # 7 = 3 + 3 + 1
    np.testing.assert_allclose(state.window.loss, losses[6], rtol=1e-5)


def test_dropout_is_a_function_of_seed_and_step():
    task = ToyTask(8)
    first, other = task.batch(0), task.batch(1)
    once = run(task, [first], dropout=True)
    assert_same(once, run(task, [first], dropout=True))
    assert float(once.window.loss) != float(run(task, [first], dropout=True, seed=1).window.loss)
    assert float(once.window.loss) != float(run(task, [first]).window.loss)

    frozen = jax.jit(make_train_step(task, optax.sgd(0.0), seed=0))
    state = make_state(task, optax.sgd(0.0), seed=0)
    losses = set()
    for step in range(3):
        losses.add(float(frozen(state.replace(step=jnp.int32(step)), other).window.loss))
    assert len(losses) == 3


def test_evaluation_sums_carry_memory_and_have_no_dropout():
    task = ToyTask(4)
    params = make_state(task, optax.sgd(0.0), seed=0).params
    eval_step = make_eval_step(task)
    sums = EvalSums(jnp.zeros([]), jnp.zeros([]), task.init_memory(4))
    memory, total, weight = task.init_memory(4), 0.0, 0.0
    for step in range(3):
        sums = eval_step(params, sums, task.batch(step))
        loss = task.loss(params, task.batch(step), memory, None)
        memory, total, weight = loss.memory, total + loss.total, weight + loss.weight
    assert_close(sums, EvalSums(total, weight, memory))
