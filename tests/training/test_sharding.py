import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from xlnet_jax.training import sharding

ROOT = Path(__file__).parents[2]

# Ten steps on the devices that there are: losses, and checksums of the state at the start.
RUN = """
import functools, json, sys
import jax, numpy as np, optax
from tests.training.toy import ToyTask
from xlnet_jax.training import sharding
from xlnet_jax.training.state import fingerprints, make_state, state_shardings
from xlnet_jax.training.step import make_train_step

parts, group = map(int, sys.argv[1:])
task, optimizer = ToyTask(64, group), optax.adam(0.05)
mesh = sharding.make_mesh()
rows = sharding.local_rows(mesh, 64)
new_state = functools.partial(make_state, task, optimizer, 0)
shardings = state_shardings(jax.eval_shape(new_state), mesh)
state = jax.jit(new_state, out_shardings=shardings)()
memory = np.arange(64 * 3, dtype=np.float32).reshape(1, 64, 1, 3) / 192
state = state.replace(memory=jax.device_put(memory, shardings.memory))
start = {k: int(v) for k, v in jax.jit(fingerprints)(state).items()}
step = make_train_step(task, optimizer, seed=0, accumulation_steps=parts)
step = jax.jit(step, donate_argnums=0, out_shardings=shardings)
losses = []
for _, batch in zip(range(10), task.train_batches(0, rows)):
    state = step(state, sharding.place_batch(batch, mesh))
    losses.append(float(state.window.loss))
print(json.dumps({
    "devices": jax.device_count(),
    "shards": len({str(s.index) for s in state.memory.addressable_shards}),
    "start": start,
    "losses": losses,
}))
"""


def run(devices, parts, group):
    ran = subprocess.run(
        [sys.executable, "-c", RUN, str(parts), str(group)],
        env={**os.environ, "JAX_NUM_CPU_DEVICES": str(devices)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(ran.stdout)


@pytest.mark.parametrize(("parts", "group"), [(1, 1), (4, 2)])
def test_eight_devices_train_like_one(parts, group):
    one, eight = run(1, parts, group), run(8, parts, group)
    assert (one["devices"], one["shards"]) == (1, 1)
    assert (eight["devices"], eight["shards"]) == (8, 8)
    assert one["start"] == eight["start"]  # checksums do not depend on the layout
    assert len(one["losses"]) == 10
    assert one["losses"][-1] < one["losses"][0]
    np.testing.assert_allclose(eight["losses"], one["losses"], rtol=1e-5)


@pytest.mark.parametrize(
    ("size", "group", "parts", "message"),
    [
        (6, 1, 1, "train.batch_size must be a multiple of 4 = 4 devices, got 6"),
        (12, 2, 1, r"a multiple of 8 = 4 devices × 2 \(data.bi_data pairs rows\), got 12"),
        (12, 1, 2, "a multiple of 8 = 4 devices × 2 train.accumulation_steps, got 12"),
        (12, 2, 3, "a multiple of 24 = 4 devices × 3 train.accumulation_steps × 2 "),
    ],
)
def test_a_batch_that_cannot_be_cut_evenly(monkeypatch, size, group, parts, message):
    monkeypatch.setattr(sharding.jax, "device_count", lambda: 4)
    with pytest.raises(ValueError, match=message):
        sharding.check_batch_size("train.batch_size", size, group, parts)
    sharding.check_batch_size("train.batch_size", 24, group, parts)


def test_one_process_feeds_all_rows():
    assert sharding.local_rows(sharding.make_mesh(), 6) == slice(0, 6)
