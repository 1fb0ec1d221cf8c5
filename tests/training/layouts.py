"""Trains the tiny XLNet on one layout after another; run as a program, also several at once.

    python -m tests.training.layouts JSON

The JSON has `layouts`, a list of {mesh, parts, devices, load, save}: mesh axes, accumulation steps,
how many devices (0: all), checkpoint folders to start from and to save half-way to, files with the
arrays of a fresh state to begin with and to write; `tpu_form`: whether attention is to have the
form that it has on TPU. For several processes also `port`, `num_processes` and `process_id`.
Process 0 prints one line of JSON: for each layout the losses of its steps by number, how many parts
some arrays have, and what was asked for beside: `judge` (held-out loss and predictions), `program`
(the compiled step).
"""

import contextlib
import json
import sys
from unittest import mock

import jax
import numpy as np
from orbax.checkpoint import multihost

import tests.quick_compiles  # noqa: F401
from tests.training.tiny_xlnet import TinyXLNet, settings
from xlnet_jax.model import core
from xlnet_jax.training import distributed, sharding
from xlnet_jax.training.checkpoint import CheckpointConfig, Checkpointer
from xlnet_jax.training.evaluation import LossEvaluator, Predictor
from xlnet_jax.training.program import make_program
from xlnet_jax.training.roll_call import Place

STEPS = 20


def parts_of(array):
    """How many different parts the devices hold."""
    return len(set(map(str, array.sharding.devices_indices_map(array.shape).values())))


def start(program, layout):
    """A checkpoint, arrays that another layout began with, or a fresh state."""
    if layout.get("load"):
        with contextlib.closing(Checkpointer(layout["load"], CheckpointConfig())) as saved:
            return saved.restore(program.state).tree
    if layout.get("begin_with"):  # saves compiling what draws a fresh state
        with np.load(layout["begin_with"]) as file:
            leaves = [file[name] for name in file.files]
        state = jax.tree.unflatten(jax.tree.structure(program.state), leaves)
        return sharding.place(state, program.shardings)
    state = program.new_state()
    if layout.get("tell_beginning"):
        np.savez(layout["tell_beginning"], *jax.device_get(jax.tree.leaves(state)))
    return state


def train(layout):
    """Losses by step, and what is told beside."""
    config = settings(steps=STEPS, accumulation_steps=layout.get("parts", 1), **layout["mesh"])
    devices = jax.devices()[: layout["devices"]] if layout.get("devices") else None
    task, mesh = TinyXLNet(config), sharding.make_mesh(config.mesh, devices)
    program = make_program(config, task, mesh)
    state = start(program, layout)
    rows = sharding.local_rows(mesh, task.global_batch_size)
    with mock.patch.object(core, "PLAIN", core.TPU if layout.get("tpu_form") else core.PLAIN):
        compiled = program.lower(task.batch(0)).compile()
    multihost.sync_global_processes("compiled")  # a loaded machine may compile at uneven speed
    losses, first = {}, int(state.step)
    for step, batch in zip(range(first, STEPS), task.train_batches(first, rows), strict=False):
        state = compiled(state, sharding.place_batch(batch, mesh))
        losses[step] = float(state.window.loss)
        if layout.get("save") and step + 1 == STEPS // 2:
            with contextlib.closing(Checkpointer(layout["save"], config.checkpoint)) as saved:
                saved.save(state, {"by": layout["mesh"]})
    found = {"losses": losses, "rows": [rows.start, rows.stop]}
    if layout.get("judge"):
        judge = LossEvaluator(task, mesh, task.global_batch_size)
        found["heldout"] = judge(state.params)["heldout_loss"]
        found["predictions"] = predictions(task, mesh, state.params)
    attention = state.params["xlnet"]["layers"]["attention"]
    moments = state.opt_state[1].mu["xlnet"]["layers"]
    found["parts"] = {
        "q": parts_of(attention["q"]),
        "memory": parts_of(state.memory),
        "moments of kernel_1": parts_of(moments["feed_forward"]["kernel_1"]),
    }
    found["donated"] = compiled.memory_analysis().alias_size_in_bytes
    found["state"] = sum(
        shard.data.nbytes
        for leaf in jax.tree.leaves((state.params, state.opt_state, state.memory))
        for shard in leaf.addressable_shards[:1]
    )
    if layout.get("program"):
        found["program"] = compiled.as_text()
    return found


def predictions(task, mesh, params):
    """Those of 13 features: the last batch is not full."""
    found = Predictor(task, mesh, task.global_batch_size // 2)(params, "dev")
    return {name: values.tolist() for name, values in found.items()}


def main():
    job = json.loads(sys.argv[1])
    place = None
    if job.get("num_processes"):
        place = Place("127.0.0.1", job["port"], job["num_processes"], job["process_id"])
    with distributed.session(place, {}, workdir="", timeout=120, exit_status=lambda error: 1):
        results = [train(layout) for layout in job["layouts"]]
        if jax.process_index() == 0:
            print(json.dumps(results))


if __name__ == "__main__":
    main()
