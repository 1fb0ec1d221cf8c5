import functools
import os
import shutil
from pathlib import Path

import jax
import optax
import pytest

from tests.training import tiny_run, toy_checkpoints
from tests.training.toy import ToyTask
from xlnet_jax.training import sharding
from xlnet_jax.training.checkpoint import abstract_state
from xlnet_jax.training.state import make_state, state_shardings
from xlnet_jax.training.step import make_train_step


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory, worker_id):
    """One folder for the whole test session, whichever worker process asks."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "training"
    folder.mkdir(exist_ok=True)
    return folder


def build_once(folder, **options):
    with tiny_run.only_one(folder.parent):
        if not (folder / "shards" / "manifest.json").exists():
            folder.mkdir(exist_ok=True)
            tiny_run.build(folder, **options)
    return folder / "shards"


@pytest.fixture(scope="session")
def shards(shared_folder):
    """Token shards with held-out ones beside."""
    return build_once(shared_folder / "data")


@pytest.fixture(scope="session")
def other_shards(shared_folder):
    """The same of another text, with another vocabulary."""
    return build_once(shared_folder / "other_data", seed=1, vocab_size=80)


@pytest.fixture(scope="session")
def quick_start(shared_folder):
    """Environment of the processes that tests start: compiled with haste, and only once."""
    return {
        **os.environ,
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
        "JAX_COMPILATION_CACHE_DIR": str(shared_folder / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


@pytest.fixture(scope="module")
def toy():
    """(a state of step 0, the step function, batches by step, the abstract state)."""
    task, optimizer = ToyTask(4), optax.adam(0.05)
    new_state = functools.partial(make_state, task, optimizer, 0)
    abstract = jax.eval_shape(new_state)
    mesh = sharding.make_mesh()
    step = jax.jit(make_train_step(task, optimizer, seed=0, report_every=5), donate_argnums=0)
    return new_state, step, task.batch, abstract_state(abstract, state_shardings(abstract, mesh))


@pytest.fixture(scope="module")
def saved(toy, tmp_path_factory):
    """A work directory with checkpoints of steps 2, 4 and 6."""
    workdir = tmp_path_factory.mktemp("saved")
    toy_checkpoints.save(workdir, toy, [2, 4, 6])
    return workdir


@pytest.fixture
def workdir(saved, tmp_path):
    return Path(shutil.copytree(saved, tmp_path / "run"))
