"""Checkpoints that are damaged, cut short, or cannot be read for now."""

import gc
import json
import shutil
from pathlib import Path

import jax
import optax
import pytest

from tests.training.toy import ToyTask
from tests.training.toy_checkpoints import (
    STORED,
    assert_same,
    files_of,
    restore,
    state_of,
    steps_in,
)
from xlnet_jax.training import sharding
from xlnet_jax.training.checkpoint import (
    CheckpointConfig,
    Checkpointer,
    DamagedCheckpointError,
    abstract_state,
)
from xlnet_jax.training.state import make_state, state_shardings


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
