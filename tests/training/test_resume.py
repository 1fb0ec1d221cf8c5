"""Interrupted = uninterrupted, bit for bit: processes that are really killed."""

import csv
import random
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from tests.training import tiny_run

STEPS = 60
TIMING = {"tokens_per_second", "mfu"}
OPTIONS = {
    "train__steps": STEPS,
    "checkpoint__save_every": 3,
    "checkpoint__keep": 2,
    "report__log_every": 5,
    "train__eval_every": 20,
    "report__tensorboard": False,
    "data__bi_data": True,
}


def start(shards, workdir, environment, **changes):
    flags = tiny_run.flags(shards, workdir, **(OPTIONS | changes))
    return subprocess.Popen(
        [sys.executable, "-m", "xlnet_jax", "train", *flags],
        cwd=tiny_run.ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process):
    shown, _ = process.communicate(timeout=300)
    assert process.returncode == 0, shown
    return shown


def contents(workdir, step):
    """Every array of a checkpoint, as bytes by path."""
    folder = workdir / "checkpoints" / str(step)
    parts = {}
    with ocp.StandardCheckpointer() as checkpointer:
        for name in ("params", "rest"):
            parts[name] = checkpointer.restore(folder / name)
    leaves = jax.tree_util.tree_leaves_with_path(parts)
    return {jax.tree_util.keystr(path): np.asarray(leaf).tobytes() for path, leaf in leaves}


def rows(workdir):
    with (workdir / "metrics.csv").open() as file:
        return [{k: v for k, v in row.items() if k not in TIMING} for row in csv.DictReader(file)]


@pytest.fixture(scope="session")
def undisturbed(shards, quick_start, shared_folder):
    """The work directory of a run that nothing stopped."""
    workdir = shared_folder / "undisturbed"
    with tiny_run.only_one(shared_folder):
        if not (workdir / "curves.png").exists():
            finish(start(shards, workdir, quick_start))
    return workdir


def assert_same_run(workdir, undisturbed):
    got, wanted = contents(workdir, STEPS), contents(undisturbed, STEPS)
    assert got.keys() == wanted.keys()
    assert len(wanted) > 40
    assert [path for path in wanted if got[path] != wanted[path]] == []
    assert rows(workdir) == rows(undisturbed)


def half_written(workdir):
    return list((workdir / "checkpoints").glob("*.orbax-checkpoint-tmp*"))


def newest(workdir):
    names = [path.name for path in (workdir / "checkpoints").glob("*")]
    return max([int(name) for name in names if name.isdecimal()], default=0)


def kill_when(process, reached):
    """SIGKILL in a moment at which `reached()` holds; the process is held still to make sure."""
    while process.poll() is None:
        if reached():
            process.send_signal(signal.SIGSTOP)
            if reached():
                process.send_signal(signal.SIGKILL)
                process.communicate()
                return
            process.send_signal(signal.SIGCONT)
        time.sleep(0.002)
    raise AssertionError(f"ended before it was killed: {process.communicate()[0]}")


def terminate_at(process, start_of_line):
    """SIGTERM, twice in a row, once a line is shown; all that was shown."""
    shown = []
    for line in process.stdout:
        shown.append(line)
        if line.startswith(start_of_line):
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGTERM)
            break
    return "".join(shown) + finish(process)


def test_an_interrupted_run_ends_like_the_undisturbed_one(
    shards, quick_start, undisturbed, tmp_path
):
    workdir = tmp_path / "run"
    # Killed while a checkpoint is being written.
    process = start(shards, workdir, quick_start)
    kill_when(process, lambda: newest(workdir) >= 3 and half_written(workdir))
    assert half_written(workdir)

    # Killed anywhere.
    process = start(shards, workdir, quick_start)
    wait = random.Random(time.time_ns()).uniform(0, 0.1)
    kill_when(process, lambda: newest(workdir) >= 18 and time.sleep(wait) is None)
    killed_behind = newest(workdir)

    # Asked to stop, by a signal that comes twice.
    process = start(shards, workdir, quick_start)
    shown = terminate_at(process, f"step {killed_behind // 5 * 5 + 10} of")
    assert f"resuming at step {killed_behind}\n" in shown
    assert f"SIGTERM: stopped at step {newest(workdir)}; all of it is saved" in shown
    stopped_at = newest(workdir)
    assert killed_behind < stopped_at < STEPS
    assert half_written(workdir) == []

    shown = finish(start(shards, workdir, quick_start))
    assert f"resuming at step {stopped_at}\n" in shown
    got, wanted = contents(workdir, STEPS), contents(undisturbed, STEPS)
    assert got.keys() == wanted.keys()
    assert len(wanted) > 40
    assert [path for path in wanted if got[path] != wanted[path]] == []
    assert rows(workdir) == rows(undisturbed)
