"""The loop with a task that compiles at once: the order of things, signals, reports."""

import contextlib
import csv
import functools
import itertools
import os
import shutil
import signal
import types

import jax
import numpy as np
import optax
import pytest

from configs import pretrain
from tests.training.toy import ToyTask
from xlnet_jax.training import loop, sharding
from xlnet_jax.training.best import BestKeeper, best_folder
from xlnet_jax.training.checkpoint import CheckpointConfig, Checkpointer, abstract_state
from xlnet_jax.training.evaluation import LossEvaluator
from xlnet_jax.training.loop import Loop, due
from xlnet_jax.training.reporting import COLUMNS, Reporter
from xlnet_jax.training.settings import parse
from xlnet_jax.training.state import make_state, state_shardings
from xlnet_jax.training.step import make_train_step


def settings(**changes):
    config = pretrain.get_config("tiny")
    values = {
        "data.train": "unused",
        "train.steps": 10,
        "train.eval_every": 5,
        "optimizer.warmup_steps": 1,
        "checkpoint.save_every": 4,
        "report.log_every": 2,
        "report.tensorboard": False,
        **{name.replace("__", "."): value for name, value in changes.items()},
    }
    config.update_from_flattened_dict(values)
    return parse(config.to_dict())


def run(workdir, task=None, evaluate=None, schedule=lambda step: 0.05, **changes):
    """Runs the loop on the toy task; the final state. `evaluate`: metrics of a step."""
    task, config, optimizer = task or ToyTask(4), settings(**changes), optax.adam(0.05)
    mesh = sharding.make_mesh()
    new_state = functools.partial(make_state, task, optimizer, 0)
    shardings = state_shardings(jax.eval_shape(new_state), mesh)
    step = make_train_step(task, optimizer, seed=0, report_every=config.report.log_every)
    checkpointer = Checkpointer(str(workdir), config.checkpoint)
    abstract = abstract_state(jax.eval_shape(new_state), shardings)
    restored = checkpointer.restore(abstract)
    state = restored.tree if restored else jax.jit(new_state, out_shardings=shardings)()
    reporter = Reporter(
        str(workdir), config.report, train_steps=config.train.steps, start_step=int(state.step)
    )
    evaluator = LossEvaluator(task, mesh, 4)
    if evaluate:
        steps = iter(range(int(state.step) + 2, 99, 2))
        evaluator = lambda params: evaluate(next(steps))  # noqa: E731
    best = BestKeeper(str(workdir), config.checkpoint, int(state.step))
    loop = Loop(
        settings=config,
        task=task,
        mesh=mesh,
        train_step=jax.jit(step, donate_argnums=0, out_shardings=shardings),
        evaluate=evaluator,
        schedule=schedule,
        checkpointer=checkpointer,
        best=best,
        reporter=reporter,
        stored={},
        peak_flops=1e9,
    )
    try:
        reporter.start()
        return loop.run(state)
    finally:
        best.close()
        reporter.close()
        checkpointer.close()


def saved(workdir):
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())


def rows(workdir):
    with (workdir / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def kinds(workdir):
    return [(int(row["step"]), "loss" if row["loss"] else "heldout") for row in rows(workdir)]


def test_due():
    assert [step for step in range(1, 12) if due(step, 4, 11)] == [4, 8, 11]
    assert [step for step in range(1, 12) if due(step, 0, 11)] == []


class DamagedTask(ToyTask):
    """Training data end at a batch of step 7, or held-out data are damaged."""

    def __init__(self, part):
        super().__init__(4)
        self.part = part

    def train_batches(self, start_step, rows):
        for step, batch in enumerate(super().train_batches(start_step, rows), start_step):
            if self.part == "train" and step == 7:
                raise ValueError("shard-7: damaged")
            yield batch

    def eval_batches(self, rows):
        if self.part == "heldout":
            raise ValueError("shard-7: damaged")
        yield from super().eval_batches(rows)


@pytest.mark.parametrize(("part", "steps"), [("train", [4, 7]), ("heldout", [4, 5])])
def test_nothing_is_lost_to_damaged_data(tmp_path, capsys, part, steps):
    with pytest.raises(ValueError, match="shard-7: damaged"):
        run(tmp_path, DamagedTask(part))
    assert saved(tmp_path) == steps
    assert f"stopped at step {steps[-1]} by what follows; all of it is saved" in (
        "".join(capsys.readouterr())
    )
    state = run(tmp_path)  # mended
    assert int(state.step) == 10
    run(tmp_path / "whole")
    jax.tree.map(np.testing.assert_array_equal, state.params, run(tmp_path / "whole").params)


def test_what_is_due_is_done(tmp_path):
    run(tmp_path)
    assert saved(tmp_path) == [4, 8, 10]
    wanted = [(2, "loss"), (4, "loss"), (5, "heldout"), (6, "loss"), (8, "loss"), (10, "loss")]
    assert kinds(tmp_path) == [*wanted, (10, "heldout")]
    assert list(rows(tmp_path)[0]) == list(COLUMNS)
    first = rows(tmp_path)[0]
    assert float(first["epoch"]) == 2 / 5
    assert float(first["learning_rate"]) == 0.05
    assert float(first["tokens_per_second"]) > 0


def test_what_a_report_takes_slows_no_throughput_down(tmp_path, monkeypatch):
    clock = itertools.count()  # a second each time that somebody looks

    def schedule(step):
        for _ in range(1000):  # compiles, say
            next(clock)
        return 0.05

    monkeypatch.setattr(loop, "time", types.SimpleNamespace(perf_counter=lambda: next(clock)))
    run(tmp_path, ToyTask(4), schedule=schedule, train__eval_every=0)
    rates = [float(row["tokens_per_second"]) for row in rows(tmp_path)]
    assert len(rates) == 5
    assert min(rates) > max(rates) / 10


@pytest.mark.parametrize("lower", [True, False])
def test_the_best_checkpoint_is_kept_apart(tmp_path, lower):
    metric = "heldout_loss" if lower else "score"
    values = dict(zip((2, 4, 6, 8, 10), (3.0, 1.0, 2.0, 0.5, 0.7), strict=True))
    if not lower:
        values = {step: -value for step, value in values.items()}
    wanted = {"checkpoint__best_metric": metric, "train__eval_every": 2}
    run(tmp_path, evaluate=lambda step: {metric: values[step]}, train__steps=6, **wanted)
    assert saved(tmp_path / "best") == [4]
    run(tmp_path, evaluate=lambda step: {metric: values[step]}, **wanted)  # resumes
    assert saved(tmp_path / "best") == [8]


@pytest.mark.parametrize(
    ("second", "best"),
    [
        ({4: 0.5, 6: 0.71, 8: 0.1, 10: 0.2}, 6),  # the same step, slightly better
        ({4: 0.8, 6: 0.6, 8: 0.1, 10: 0.2}, 4),  # an earlier step is the best now
        ({4: 0.5, 6: 0.6, 8: 0.1, 10: 0.2}, 6),  # what was better has never been
    ],
)
def test_the_best_of_a_run_that_is_set_back_is_that_of_its_own_steps(tmp_path, second, best):
    options = {
        "checkpoint__best_metric": "score", "train__eval_every": 2, "checkpoint__save_every": 2,
    }  # fmt: skip
    first = {2: 0.4, 4: 0.5, 6: 0.7}
    run(tmp_path, evaluate=lambda step: {"score": first[step]}, train__steps=6, **options)
    assert saved(tmp_path / "best") == [6]
    for step in ("4", "6"):  # as if the run had died before these were saved
        shutil.rmtree(tmp_path / "checkpoints" / step)
    run(tmp_path, evaluate=lambda step: {"score": second[step]}, **options)
    assert saved(tmp_path / "best") == [best]
    assert kept_score(tmp_path) == second[best]
    assert not (tmp_path / "best" / "superseded_checkpoints").exists()


def kept_score(workdir):
    checkpointer = Checkpointer(best_folder(str(workdir)), CheckpointConfig(), read_only=True)
    with contextlib.closing(checkpointer):
        return checkpointer.stored(checkpointer.steps()[-1])["metrics"]["score"]


def test_a_best_checkpoint_that_is_superseded_goes_when_the_next_is_whole(tmp_path, monkeypatch):
    options = {"checkpoint__best_metric": "score", "train__eval_every": 2}
    run(tmp_path, evaluate=lambda step: {"score": step}, train__steps=6, **options)
    shutil.rmtree(tmp_path / "checkpoints" / "6")

    def fail(self, state, stored):
        raise OSError("no room")

    best = BestKeeper(str(tmp_path), settings(**options).checkpoint, 4)
    with contextlib.closing(best), monkeypatch.context() as broken:
        broken.setattr(Checkpointer, "save", fail)
        with pytest.raises(OSError, match="no room"):
            best.offer(None, {"score": 0.1}, {})
    assert saved(tmp_path / "best") == []
    aside = tmp_path / "best" / "superseded_checkpoints"
    assert [path.name for path in aside.iterdir()] == ["6"]
    run(tmp_path, evaluate=lambda step: {"score": step}, **options)
    assert saved(tmp_path / "best") == [10]
    assert not aside.exists()


def test_a_damaged_best_checkpoint_is_said_and_the_run_goes_on(tmp_path):
    options = {"checkpoint__best_metric": "score", "train__eval_every": 2}
    run(tmp_path, evaluate=lambda step: {"score": step}, train__steps=4, **options)
    (tmp_path / "best" / "checkpoints" / "4" / "info" / "metadata").write_text("{")
    best = BestKeeper(str(tmp_path), settings(**options).checkpoint, 4)
    best.close()
    assert best.problem.startswith("the best so far is not known: checkpoint of step 4: ")
    run(tmp_path, evaluate=lambda step: {"score": -step}, train__steps=6, **options)
    assert saved(tmp_path / "best") == [6]
    assert kept_score(tmp_path) == -6


def test_an_unknown_best_metric_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"best_metric is 'f1'; evaluation gives \['heldout_loss"):
        run(tmp_path, checkpoint__best_metric="f1")


class TellingTask(ToyTask):
    """Sends this process a signal while the batch of a step is fetched."""

    def __init__(self, at):
        super().__init__(4)
        self.at, self.closed = at, False

    def train_batches(self, start_step, rows):
        try:
            for step, batch in enumerate(super().train_batches(start_step, rows), start_step):
                if step == self.at:
                    os.kill(os.getpid(), signal.SIGTERM)
                yield batch
        finally:
            self.closed = True


def test_sigterm_saves_stops_and_leaves_signals_as_they_were(tmp_path, capsys):
    before = signal.getsignal(signal.SIGTERM)
    task = TellingTask(at=6)
    state = run(tmp_path, task)
    assert int(state.step) == 7
    assert saved(tmp_path) == [4, 7]
    assert "SIGTERM: stopped at step 7; all of it is saved" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGTERM) is before
    assert task.closed


def test_stopped_and_resumed_is_not_stopped(tmp_path):
    whole = run(tmp_path / "whole")
    run(tmp_path / "parts", TellingTask(at=2))
    run(tmp_path / "parts", TellingTask(at=6))
    resumed = run(tmp_path / "parts")
    for a, b in zip(jax.tree.leaves(resumed), jax.tree.leaves(whole), strict=True):
        assert a.tobytes() == b.tobytes()
    timing = {"tokens_per_second", "mfu"}
    got, wanted = (
        [{k: v for k, v in row.items() if k not in timing} for row in rows(tmp_path / name)]
        for name in ("parts", "whole")
    )
    assert got == wanted


def test_rows_beyond_the_checkpoint_are_taken_back(tmp_path):
    run(tmp_path)
    before = kinds(tmp_path)
    for step in (8, 10):  # as if the run had died before these were saved
        for path in sorted((tmp_path / "checkpoints" / str(step)).rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        (tmp_path / "checkpoints" / str(step)).rmdir()
    run(tmp_path)
    assert kinds(tmp_path) == before


def test_a_bad_step_stops_the_run_and_leaves_the_checkpoint_before(tmp_path):
    task = ToyTask(4, poisoned_step=6)
    message = (
        r"not finite at step 6; the last good checkpoint is step 4 in .*checkpoints\. Run again"
        r" with a lower config\.optimizer\.learning_rate .*: it goes on from there"
    )
    with pytest.raises(FloatingPointError, match=message):
        run(tmp_path, task)
    assert saved(tmp_path) == [4]
    assert kinds(tmp_path)[-1] == (6, "loss")
    run(tmp_path)  # without the poison the same folder goes on
    assert saved(tmp_path) == [4, 8, 10]


def test_a_bad_state_is_never_saved(tmp_path):
    """Also where a save comes before the next report."""
    with pytest.raises(FloatingPointError, match="at step 5; the last good checkpoint is step 4"):
        run(tmp_path, ToyTask(4, poisoned_step=5), report__log_every=10)
    assert saved(tmp_path) == [4]


def test_a_save_that_fails_in_the_background_ends_the_run_at_the_next_step(tmp_path, monkeypatch):
    def check(self):
        if self._manager.all_steps():
            raise OSError("no room")

    monkeypatch.setattr(Checkpointer, "check", check)
    with pytest.raises(OSError, match="no room"):
        run(tmp_path)
    assert kinds(tmp_path)[-1] == (4, "loss")  # the save was at step 4


def test_a_bad_step_before_any_checkpoint(tmp_path):
    with pytest.raises(FloatingPointError, match="at step 1; no checkpoint yet in"):
        run(tmp_path, ToyTask(4, poisoned_step=1))


@pytest.mark.parametrize(("start", "steps"), [(2, 3), (8, 100)])
def test_the_profiler_writes_a_trace(tmp_path, start, steps):
    run(tmp_path, report__profile_start=start, report__profile_steps=steps)
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))


def test_a_run_resumed_inside_the_traced_steps_goes_on(tmp_path):
    run(tmp_path, TellingTask(at=3))
    run(tmp_path, report__profile_start=2, report__profile_steps=4)
    assert saved(tmp_path) == [4, 8, 10]
    assert not (tmp_path / "profile").exists()


def test_lines_where_there_is_no_terminal(tmp_path, capsys):
    run(tmp_path)
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert lines[0].startswith("step 2 of 10: loss ")
    assert len(lines) == 8
    assert lines[-1] == f"step 10 is saved in {tmp_path}/checkpoints"
    assert shown.err == ""
    assert "\r" not in shown.out
