import functools
import gc
import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from etils import epath

from tests.training.toy import ToyTask
from xlnet_jax.convert import orbax_folder
from xlnet_jax.training import sharding
from xlnet_jax.training.checkpoint import (
    CheckpointConfig,
    Checkpointer,
    DamagedCheckpointError,
    abstract_state,
)
from xlnet_jax.training.state import make_state, state_shardings
from xlnet_jax.training.step import make_train_step

STORED = {"config": {"seed": 0}, "data": {"tokens": 5}}


@pytest.fixture(scope="module")
def toy():
    """(a state of step 0, the step function, batches by step, the abstract state)."""
    task, optimizer = ToyTask(4), optax.adam(0.05)
    new_state = functools.partial(make_state, task, optimizer, 0)
    abstract = jax.eval_shape(new_state)
    mesh = sharding.make_mesh()
    step = jax.jit(make_train_step(task, optimizer, seed=0, report_every=5), donate_argnums=0)
    return new_state, step, task.batch, abstract_state(abstract, state_shardings(abstract, mesh))


def state_of(toy, step):
    state = jax.device_put(toy[0](), sharding.replicated(sharding.make_mesh()))
    for index in range(step):
        state = toy[1](state, toy[2](index))
    return state


def save(workdir, toy, steps, **options):
    checkpointer = Checkpointer(str(workdir), CheckpointConfig(save_every=1, **options))
    for step in steps:
        checkpointer.save(state_of(toy, step), STORED)
    checkpointer.close()


def restore(workdir, toy, **options):
    checkpointer = Checkpointer(str(workdir), CheckpointConfig())
    try:
        return checkpointer.restore(toy[3], **options)
    finally:
        checkpointer.close()


def assert_same(got, wanted):
    assert jax.tree.structure(got) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        assert a.dtype == b.dtype
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def steps_in(workdir):
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())


@pytest.fixture(scope="module")
def saved(toy, tmp_path_factory):
    """A work directory with checkpoints of steps 2, 4 and 6."""
    workdir = tmp_path_factory.mktemp("saved")
    save(workdir, toy, [2, 4, 6])
    return workdir


@pytest.fixture
def workdir(saved, tmp_path):
    return Path(shutil.copytree(saved, tmp_path / "run"))


def files_of(workdir, step):
    folder = workdir / "checkpoints" / str(step)
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)


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


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(bytes(data))


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def info_file(workdir, step):
    (path,) = (workdir / "checkpoints" / str(step) / "info").glob("metadata")
    return path


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("damage", [flip, truncate])
def test_a_damaged_file_never_gives_a_wrong_state(toy, saved, tmp_path, damage, capfd, caplog):
    """The checkpoint before is used, unless the file held nothing that was needed."""
    states = {step: state_of(toy, step) for step in (4, 6)}
    used = {}
    wanted = ("/info/metadata", "/_CHECKPOINT_METADATA", "/params/_METADATA", "/d/")
    paths = [path for path in files_of(saved, 6) if any(part in str(path) for part in wanted)]
    for number, path in enumerate(paths):
        name = path.relative_to(saved / "checkpoints" / "6").as_posix()
        workdir = Path(shutil.copytree(saved, tmp_path / str(number)))
        damage(workdir / "checkpoints" / "6" / name)
        restored = restore(workdir, toy)
        used[name] = restored.step
        assert_same(restored.tree, states[restored.step])
        reasons = [line for line in restored.skipped if line.startswith("checkpoint of step 6: ")]
        assert len(reasons) == (restored.step == 4)
    assert capfd.readouterr().err == ""
    assert [record for record in caplog.records if record.name == "asyncio"] == []
    gc.collect()  # so that what Orbax drops is collected here, and not in another test
    assert used["info/metadata"] == 4
    for item in ("params", "rest"):
        arrays = [step for name, step in used.items() if name.startswith(f"{item}/d/")]
        assert 4 in arrays


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", '{"format": 1}', '{"format": 2}'])
def test_a_garbled_info_leads_to_the_checkpoint_before(toy, workdir, text):
    info_file(workdir, 6).write_text(text)
    restored = restore(workdir, toy)
    assert restored.step == 4
    assert restored.skipped[0].startswith("checkpoint of step 6: ")


def test_a_wrong_checksum_names_the_array(toy, workdir):
    path = info_file(workdir, 6)
    info = json.loads(path.read_text())
    info["checksums"]["['rest']['memory']"] ^= 1
    path.write_text(json.dumps(info))
    (line,) = restore(workdir, toy).skipped
    assert "checksums differ" in line
    assert "['rest']['memory']" in line


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("item", ["params", "rest", "info"])
def test_a_missing_item_leads_to_the_checkpoint_before(toy, workdir, item):
    shutil.rmtree(workdir / "checkpoints" / "6" / item)
    assert restore(workdir, toy).step == 4


def assert_not_rolled_back(toy, workdir, reason):
    """The newest checkpoint cannot be read for now: nothing older is taken, and nothing moved."""
    with pytest.raises(OSError, match=reason) as e:
        restore(workdir, toy)
    said = str(e.value)
    assert said.startswith(f"checkpoint {workdir}/checkpoints/6 cannot be read, and need not be")
    assert "Fix the cause, then run the same command again" in said
    assert "\n" not in said
    assert steps_in(workdir) == [2, 4, 6]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_file_that_the_system_does_not_open_is_no_damage(toy, workdir):
    for path in files_of(workdir, 6):
        if "/params/d/" in str(path):
            path.unlink()
            path.symlink_to(path)
    assert_not_rolled_back(toy, workdir, "ValueError: UNKNOWN: .*")
    gc.collect()


class ServiceUnavailable(Exception):
    """Like those of Google's client library, which are no OSError."""


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(13, "Permission denied"),
        ConnectionResetError(104, "Connection reset by peer"),
        OSError(5, "Input/output error"),
        TimeoutError("no answer"),
        ServiceUnavailable("503 try again later"),
        ValueError('UNAVAILABLE: Error reading "step/.zarray": HTTP response code: 503'),
        ValueError('PERMISSION_DENIED: Error reading "step/.zarray": HTTP response code: 403'),
        RuntimeError("RESOURCE_EXHAUSTED: Out of memory"),
    ],
    ids=lambda error: str(error)[:20],
)
@pytest.mark.parametrize("part", ["_info", "_read"])
def test_a_read_that_fails_for_now_is_no_damage(toy, workdir, monkeypatch, error, part):
    read = getattr(Checkpointer, part)

    def failing(self, step, *args):
        if step == 6:
            raise error
        return read(self, step, *args)

    with monkeypatch.context() as broken:
        broken.setattr(Checkpointer, part, failing)
        assert_not_rolled_back(toy, workdir, type(error).__name__)
    assert restore(workdir, toy).step == 6


def test_half_written_checkpoints_are_not_seen_and_cleared_away(toy, workdir):
    folder = workdir / "checkpoints"
    (folder / "6").rename(folder / "6.orbax-checkpoint-tmp-1234")
    restored = restore(workdir, toy)
    assert restored.step == 4
    assert restored.skipped == ("checkpoint of step 6: its save did not come to an end",)
    save(workdir, toy, [8])
    assert steps_in(workdir) == [2, 4, 8]


def test_where_all_are_damaged_nothing_starts_anew(toy, workdir):
    for step in (2, 4, 6):
        info_file(workdir, step).write_text("{")
    with pytest.raises(ValueError, match=r"can be used: checkpoint of step 6: .* 2: ") as e:
        restore(workdir, toy)
    assert "Move the folder away to start anew, or give another --workdir" in str(e.value)
    assert "\n" not in str(e.value)
    assert steps_in(workdir) == [2, 4, 6]


def test_damaged_checkpoints_make_room_for_new_ones_of_the_same_steps(toy, workdir):
    info_file(workdir, 6).write_text("{")
    checkpointer = Checkpointer(str(workdir), CheckpointConfig(keep=0))
    state = checkpointer.restore(toy[3]).tree
    assert steps_in(workdir) == [2, 4, 6]  # looking changes nothing
    for step in range(4, 6):
        state = toy[1](state, toy[2](step))
        checkpointer.save(state, STORED)
    checkpointer.close()
    assert steps_in(workdir) == [2, 4, 5, 6]
    assert [path.name for path in (workdir / "damaged_checkpoints").iterdir()] == ["6"]
    assert_same(restore(workdir, toy).tree, state_of(toy, 6))


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
import resource, signal, sys, time
from tests.training import test_checkpoint as t
from xlnet_jax import cli

cli.quieten_libraries()
task, optimizer = t.ToyTask(4), t.optax.adam(0.05)
step = t.jax.jit(t.make_train_step(task, optimizer, seed=0))
toy = (t.functools.partial(t.make_state, task, optimizer, 0), step, task.batch)
checkpointer = t.Checkpointer(sys.argv[1], t.CheckpointConfig(keep=1))
checkpointer.save(t.state_of(toy, 1), t.STORED)
checkpointer.wait()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))  # from here on files end at 64 bytes
try:
    checkpointer.save(t.state_of(toy, 2), t.STORED)
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


class LargeTask(ToyTask):
    """With an array that is not stored beside its own description."""

    def init_params(self, key):
        return {**super().init_params(key), "large": jax.random.normal(key, (300, 300))}


@pytest.fixture
def large(tmp_path):
    """A work directory with steps 2, 4 and 6, the last of them cut short; and the state wanted."""
    task, optimizer = LargeTask(4), optax.sgd(0.05)
    state = make_state(task, optimizer, 0)
    abstract = abstract_state(state, state_shardings(state, sharding.make_mesh()))
    state = jax.device_put(state, sharding.replicated(sharding.make_mesh()))
    checkpointer = Checkpointer(str(tmp_path), CheckpointConfig(save_every=1))
    for step in (2, 4, 6):
        checkpointer.save(state.replace(step=state.step + step), STORED)
    checkpointer.close()
    file = max(files_of(tmp_path, 6), key=lambda path: path.stat().st_size)
    file.write_bytes(file.read_bytes()[:1000])
    return tmp_path, abstract


def test_a_large_array_cut_short_is_damage(large, capfd):
    """Orbax reads large arrays in another way, and hides what it meets there."""
    workdir, abstract = large
    checkpointer = Checkpointer(str(workdir), CheckpointConfig())
    restored = checkpointer.restore(abstract)
    assert restored.step == 4
    (line,) = restored.skipped
    assert line.startswith("checkpoint of step 6: ValueError: OUT_OF_RANGE: Error reading ")
    with pytest.raises(DamagedCheckpointError, match=r"There are also those of 2, 4$"):
        checkpointer.restore_params(abstract.params, step=6)
    checkpointer.close()
    gc.collect()
    assert capfd.readouterr().err == ""
