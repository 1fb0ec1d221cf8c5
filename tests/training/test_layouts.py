"""The same losses on every layout of devices and processes, with memory, pairs and dropout on."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.training.layouts import STEPS

ROOT = Path(__file__).parents[2]
HALF = STEPS // 2


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def run(layouts, devices, processes=1):
    """What the layouts gave, on so many processes with so many devices each."""
    job = {"layouts": layouts}
    if processes > 1:
        job |= {"num_processes": processes, "port": free_port()}
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.training.layouts", json.dumps({**job, "process_id": i})],
            env={**os.environ, "JAX_NUM_CPU_DEVICES": str(devices)},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(processes)
    ]
    shown = [process.communicate(timeout=600) for process in running]
    assert [process.returncode for process in running] == [0] * processes, shown
    return json.loads(shown[0][0].splitlines()[-1])


def losses(result):
    return [result["losses"][step] for step in sorted(result["losses"], key=int)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("layouts")


@pytest.fixture(scope="module")
def one_process(folder):
    """Five layouts of eight devices."""
    layouts = {
        "one device": {
            "mesh": {},
            "devices": 1,
            "save": str(folder / "one"),
            "tell_beginning": str(folder / "beginning.npz"),
            "judge": True,
        },
        "data": {"mesh": {}, "load": str(folder / "one")},
        "fsdp": {"mesh": {"data": 1, "fsdp": -1}, "save": str(folder / "fsdp")},
        "model": {"mesh": {"model": 4}, "load": str(folder / "fsdp")},
        "mixed, in two parts": {
            "mesh": {"fsdp": 2, "model": 2},
            "parts": 2,
            "begin_with": str(folder / "beginning.npz"),
            "program": True,
            "tpu_form": True,
        },
    }
    return dict(zip(layouts, run(list(layouts.values()), 8), strict=True))


@pytest.fixture(scope="module")
def four_processes(folder, one_process):
    """`model` goes across processes."""
    layout = {
        "mesh": {"fsdp": 2, "model": 2},
        "begin_with": str(folder / "beginning.npz"),
        "save": str(folder / "four"),
    }
    return run([layout], 1, 4)[0]


@pytest.fixture(scope="module")
def two_processes(folder, four_processes):
    """From the checkpoint of four."""
    layout = {"mesh": {"fsdp": 4}, "load": str(folder / "four"), "judge": True}
    return run([layout], 2, 2)[0]


def assert_same_losses(result, wanted):
    assert len(losses(wanted)) == STEPS
    assert len(set(losses(wanted))) > HALF
    np.testing.assert_allclose(losses(result), losses(wanted)[-len(losses(result)) :], rtol=1e-5)


@pytest.mark.parametrize("name", ["data", "fsdp", "model", "mixed, in two parts"])
def test_eight_devices_train_like_one(one_process, name):
    assert len(losses(one_process[name])) == (HALF if name in ("data", "model") else STEPS)
    assert_same_losses(one_process[name], one_process["one device"])


def test_four_processes_train_like_one(one_process, four_processes):
    assert four_processes["rows"] == [0, 8]
    assert_same_losses(four_processes, one_process["one device"])


def test_two_processes_go_on_where_four_stopped(one_process, two_processes):
    assert two_processes["rows"] == [0, 8]
    assert len(losses(two_processes)) == HALF
    assert_same_losses(two_processes, one_process["one device"])


def test_judged_on_two_processes_as_on_one(one_process, two_processes):
    one = one_process["one device"]
    np.testing.assert_allclose(two_processes["heldout"], one["heldout"], rtol=1e-5)
    assert np.shape(one["predictions"]["best"])[0] == 13
    assert two_processes["predictions"]["best"] == one["predictions"]["best"]
    np.testing.assert_allclose(
        two_processes["predictions"]["score"], one["predictions"]["score"], rtol=1e-5
    )


def test_what_each_axis_cuts(one_process, four_processes):
    parts = {name: result["parts"] for name, result in one_process.items()}
    names = ("q", "memory", "moments of kernel_1")
    assert [parts["one device"][name] for name in names] == [1, 1, 1]
    assert [parts["data"][name] for name in names] == [1, 8, 1]
    assert [parts["fsdp"][name] for name in names] == [8, 8, 8]
    assert [parts["model"][name] for name in names] == [4, 2, 4]
    assert [parts["mixed, in two parts"][name] for name in names] == [4, 4, 4]
    assert [four_processes["parts"][name] for name in names] == [4, 2, 4]
    assert one_process["fsdp"]["state"] < one_process["one device"]["state"] / 4


def test_the_state_is_donated(one_process):
    for result in one_process.values():
        assert result["donated"] > 0.9 * result["state"]


def sent_in_loops_over_layers(program):
    """(kind, shape) of everything that the loops over layers send, forward and backward."""
    kinds = "all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute"
    sent = {"forward": [], "backward": []}
    for line in program.splitlines():
        found = re.search(rf" = (.*?) ({kinds})(-start)?\(", line)
        if found and "layers/while/body" in line:
            sent["backward" if "transpose(jvp" in line else "forward"].append((found[2], found[1]))
    return sent


def test_a_layer_gathers_its_own_parameters_and_cuts_heads(one_process):
    """In the compiled loops over layers, forward and backward."""
    loops = sent_in_loops_over_layers(one_process["mixed, in two parts"]["program"])
    for loop in loops.values():
        gathered = [shape for kind, shape in loop if kind == "all-gather"]
        # Kernels [D, N, H] and [D, F]: width whole again (16), half of the heads and of F.
        assert sum(shape.startswith("f32[1,16,2,4]") for shape in gathered) >= 4
        assert sum(shape.startswith("f32[1,16,16]") for shape in gathered) == 2
        assert {kind for kind, _ in loop} == {"all-gather", "all-reduce"}
    # One sum over `model` behind attention and one behind feed-forward: 2 rows of 14 places each.
    assert [shape for kind, shape in loops["forward"] if kind == "all-reduce"] == [
        "f32[2,14,16]{2,1,0}"
    ] * 2
