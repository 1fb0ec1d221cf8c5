"""Real processes that train together: one is killed, or asked to stop; all stop and go on."""

import csv
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.training import toy_processes
from tests.training.test_layouts import free_port

ROOT = Path(__file__).parents[2]
STEPS = 60
A_MINUTE = 60


def start(workdir, count, blind=None):
    command = [sys.executable, "-m", "tests.training.toy_processes", str(workdir), str(STEPS)]
    port = str(free_port())
    return [
        subprocess.Popen(
            [*command, port, str(count), str(process_id), *(["blind"] * (process_id == blind))],
            env={**os.environ, "JAX_NUM_CPU_DEVICES": "1"},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for process_id in range(count)
    ]


def finish(processes, timeout=300):
    """Exit statuses, and all that was shown."""
    shown = [process.communicate(timeout=timeout)[0] for process in processes]
    return [process.returncode for process in processes], shown


def saved(workdir):
    names = [path.name for path in (workdir / "checkpoints").glob("*")]
    return sorted(int(name) for name in names if name.isdecimal())


def wait_for(workdir, step, processes):
    while not [found for found in saved(workdir) if found >= step]:
        assert all(process.poll() is None for process in processes), finish(processes)
        time.sleep(0.01)


def losses(workdir):
    with (workdir / "metrics.csv").open() as file:
        return [(int(row["step"]), float(row["loss"])) for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The same on one device, in this process."""
    workdir = tmp_path_factory.mktemp("undisturbed")
    toy_processes.run(str(workdir), STEPS)
    return workdir


def assert_same_run(workdir, undisturbed):
    got, wanted = (toy_processes.newest_state(str(folder)) for folder in (workdir, undisturbed))
    assert int(got.step) == STEPS
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert len(losses(undisturbed)) == STEPS
    np.testing.assert_allclose(losses(workdir), losses(undisturbed), rtol=1e-5)


def test_killed_at_random_all_stop_and_all_go_on(tmp_path, undisturbed):
    dice = random.Random(time.time_ns())
    processes = start(tmp_path, 4)
    wait_for(tmp_path, dice.choice([5, 10, 20]), processes)
    time.sleep(dice.uniform(0, 0.3))
    victim = dice.randrange(4)
    processes[victim].kill()
    killed_at = time.monotonic()
    statuses, shown = finish(processes, A_MINUTE)
    assert time.monotonic() - killed_at < A_MINUTE
    assert statuses[victim] == -signal.SIGKILL
    for number in {0, 1, 2, 3} - {victim}:
        assert statuses[number] != 0
        said = f"process {victim} " in shown[number] and "closed its conn" in shown[number]
        # JAX's own watch may be quicker if process 0 is gone, which has its service.
        assert said or (victim == 0 and "JAX distributed service" in shown[number]), shown[number]

    before = saved(tmp_path)[-1]
    processes = start(tmp_path, 4)
    statuses, shown = finish(processes)
    assert statuses == [0, 0, 0, 0], shown
    assert f"begins at step {before}\n" in shown[0]
    assert not any("step" in text for text in shown[1:])
    assert_same_run(tmp_path, undisturbed)


def test_sigterm_on_any_process_saves_everywhere_and_exits_0(tmp_path, undisturbed):
    processes = start(tmp_path, 2)
    wait_for(tmp_path, 10, processes)
    processes[random.Random(time.time_ns()).randrange(2)].terminate()
    statuses, shown = finish(processes)
    assert statuses == [0, 0], shown
    stopped_at = saved(tmp_path)[-1]
    assert stopped_at < STEPS
    assert f"SIGTERM: stopped at step {stopped_at}; all of it is saved" in shown[0]
    assert int(toy_processes.newest_state(str(tmp_path)).step) == stopped_at

    # All take the same checkpoint, also if only one of them cannot read the newest.
    before = saved(tmp_path)[-2]
    processes = start(tmp_path, 2, blind=1)
    statuses, shown = finish(processes)
    assert statuses == [0, 0], shown
    assert f"begins at step {before}\n" in shown[0]
    assert f"step {stopped_at}: FileNotFoundError: cannot see that (on process 1)" in shown[0]
    assert_same_run(tmp_path, undisturbed)
