"""Work directories of the toy task, and what there is to ask of them."""

import jax
import numpy as np

from xlnet_jax.training import sharding
from xlnet_jax.training.checkpoint import CheckpointConfig, Checkpointer

STORED = {"config": {"seed": 0}, "data": {"tokens": 5}}


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


def files_of(workdir, step):
    folder = workdir / "checkpoints" / str(step)
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
