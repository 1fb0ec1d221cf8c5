import errno
import logging
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from tests.training.toy_checkpoints import (
    STORED,
    assert_same,
    restore,
    save,
    state_of,
    steps_in,
)
from xlnet_jax.convert import orbax_folder
from xlnet_jax.training.checkpoint import (
    CheckpointConfig,
    Checkpointer,
)


def test_a_work_directory_seen_from_the_current_folder(toy, workdir, monkeypatch):
    monkeypatch.chdir(workdir.parent)
    save(Path(workdir.name), toy, [8])
    assert restore(Path(workdir.name), toy).step == 8
    read = orbax_folder.read_checkpoint(epath.Path(workdir.name), 8)
    assert read.arrays


def test_round_trip_keeps_every_bit(toy, workdir):
    restored = restore(workdir, toy)
    assert restored.step == 6
    assert restored.skipped == ()
    assert restored.stored == STORED
    assert_same(restored.tree, state_of(toy, 6))
    assert int(restored.tree.step) == 6


def test_nothing_there_is_no_error(toy, tmp_path):
    assert restore(tmp_path / "new", toy) is None


def test_parameters_alone(toy, workdir):
    checkpointer = Checkpointer(str(workdir), CheckpointConfig(), read_only=True)
    shapes = toy[3].params
    assert_same(checkpointer.restore_params(shapes).tree, state_of(toy, 6).params)
    found = checkpointer.restore_params(shapes, step=2)
    assert found.step == 2
    assert_same(found.tree, state_of(toy, 2).params)
    with pytest.raises(FileNotFoundError, match=r"no checkpoint of step 3 in .*; there are \[2, 4"):
        checkpointer.restore_params(shapes, step=3)
    checkpointer.close()
    with pytest.raises(FileNotFoundError, match=r"no checkpoints in --workdir=.*; train first"):
        Checkpointer(str(workdir / "other"), CheckpointConfig(), read_only=True)
    assert not (workdir / "other").exists()


def test_reading_leaves_no_trace_and_says_nothing(toy, workdir, caplog, capfd):
    (workdir / "checkpoints" / "8.orbax-checkpoint-tmp").mkdir()  # being written by another
    before = sorted(workdir.rglob("*"))
    with caplog.at_level(logging.WARNING):
        checkpointer = Checkpointer(str(workdir), CheckpointConfig(), read_only=True)
        checkpointer.restore_params(toy[3].params)
        checkpointer.close()
    assert sorted(workdir.rglob("*")) == before
    assert caplog.records == []
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"keep": 2}, [5, 6]),
        ({"keep": 0}, [1, 2, 3, 4, 5, 6]),
        ({"keep": 1, "keep_every": 3}, [3, 6]),
        ({"keep": 2, "keep_every": 4, "asynchronous": False}, [4, 5, 6]),
    ],
)
def test_which_checkpoints_are_kept(toy, tmp_path, options, kept):
    save(tmp_path, toy, range(1, 7), **options)
    assert steps_in(tmp_path) == kept


@pytest.mark.parametrize("asynchronous", [True, False])
def test_a_checkpoint_holds_its_own_step_while_training_goes_on(toy, tmp_path, asynchronous):
    """The buffers of a state are donated to the next step while the files are being written."""
    checkpointer = Checkpointer(str(tmp_path), CheckpointConfig(keep=0, asynchronous=asynchronous))
    state, wanted = state_of(toy, 0), {}
    for step in range(12):
        state = toy[1](state, toy[2](step))
        if step % 4 == 3:
            wanted[step + 1] = jax.tree.map(lambda leaf: np.array(leaf, copy=True), state)
            checkpointer.save(state, STORED)
    checkpointer.wait()
    for step, state in wanted.items():
        found = checkpointer.restore_params(toy[3].params, step=step)
        assert_same(found.tree, state.params)
    restored = checkpointer.restore(toy[3])
    assert_same(restored.tree, wanted[12])
    checkpointer.close()


def test_half_written_checkpoints_are_not_seen_and_cleared_away(toy, workdir):
    folder = workdir / "checkpoints"
    (folder / "6").rename(folder / "6.orbax-checkpoint-tmp-1234")
    restored = restore(workdir, toy)
    assert restored.step == 4
    assert restored.skipped == ("checkpoint of step 6: its save did not come to an end",)
    save(workdir, toy, [8])
    assert steps_in(workdir) == [2, 4, 8]


def test_another_run_is_refused_at_once(toy, workdir):
    def check(stored):
        assert stored == STORED
        raise ValueError("it belongs to another run")

    with pytest.raises(ValueError, match=r"^it belongs to another run$"):
        restore(workdir, toy, check=check)


def test_saving_a_step_twice_keeps_the_first(toy, tmp_path):
    save(tmp_path, toy, [3, 3])
    save(tmp_path, toy, [3])
    assert steps_in(tmp_path) == [3]


def test_memory_in_another_precision_is_converted(toy, workdir):
    abstract = toy[3]
    memory = jax.ShapeDtypeStruct(
        abstract.memory.shape, jnp.bfloat16, sharding=abstract.memory.sharding
    )
    checkpointer = Checkpointer(str(workdir), CheckpointConfig())
    restored = checkpointer.restore(abstract.replace(memory=memory))
    checkpointer.close()
    assert restored.step == 6
    assert restored.tree.memory.dtype == jnp.bfloat16
    np.testing.assert_array_equal(
        restored.tree.memory, state_of(toy, 6).memory.astype(jnp.bfloat16)
    )


FILL_THE_DISK = """
import functools, resource, signal, sys, time
import jax, optax
from tests.training.toy import ToyTask
from tests.training.toy_checkpoints import STORED, state_of
from xlnet_jax import cli
from xlnet_jax.training.checkpoint import CheckpointConfig, Checkpointer
from xlnet_jax.training.state import make_state
from xlnet_jax.training.step import make_train_step

cli.quieten_libraries()
task, optimizer = ToyTask(4), optax.adam(0.05)
step = jax.jit(make_train_step(task, optimizer, seed=0))
toy = (functools.partial(make_state, task, optimizer, 0), step, task.batch)
checkpointer = Checkpointer(sys.argv[1], CheckpointConfig(keep=1))
checkpointer.save(state_of(toy, 1), STORED)
checkpointer.wait()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))  # from here on files end at 64 bytes
try:
    checkpointer.save(state_of(toy, 2), STORED)
    for _ in range(3000):  # as the loop does, a step after the other
        checkpointer.check()
        time.sleep(0.01)
except OSError as error:
    print("OSError", error)
try:
    checkpointer.close()
except OSError as error:
    print("again", error)
"""


def test_a_full_disk_is_said_and_leaves_the_checkpoint_before(toy, tmp_path):
    """With room for one alone: the old one may go only when the new one is whole."""
    ran = subprocess.run(
        [sys.executable, "-c", FILL_THE_DISK, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    line = ran.stdout.splitlines()[0]
    assert line.startswith(f"OSError a checkpoint could not be saved in {tmp_path}/checkpoints: ")
    assert "the newest complete one is of step 1. Free disk space" in line
    assert ran.stderr == ""  # nor hundreds of lines of Orbax and asyncio
    restored = restore(tmp_path, toy)
    assert_same(restored.tree, state_of(toy, 1))


def test_the_cause_of_a_failed_save_is_not_lost_behind_long_paths(toy, workdir, monkeypatch):
    path = "/".join(["a_long_folder"] * 40)
    checkpointer = Checkpointer(str(workdir), CheckpointConfig(save_every=1))

    def save(*args, **kwargs):
        raise ValueError(f"UNKNOWN: Error writing {path}: {os.strerror(errno.ENOSPC)}")

    with monkeypatch.context() as full:
        full.setattr(checkpointer._manager, "save", save)
        with pytest.raises(OSError, match="checkpoints: No space left on device; the newest comp"):
            checkpointer.save(state_of(toy, 7), STORED)
    checkpointer.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"save_every": 0}, "checkpoint.save_every must be at least 1, got 0"),
        ({"keep": -1}, "checkpoint.keep must be 0 or more, got -1"),
        ({"keep_every": -2}, "checkpoint.keep_every must be 0 or more, got -2"),
    ],
)
def test_wrong_values_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        CheckpointConfig(**options)
