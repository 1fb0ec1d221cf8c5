import os

import pytest

from tests.training import tiny_run


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
