import itertools
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from xlnet_jax.data import pipeline


def make_block(first_step, steps):
    step = np.arange(first_step, first_step + steps)
    return {
        "tokens": np.repeat(step[:, None, None], 3, axis=2).astype(np.int32),
        "flag": step[:, None] % 2 == 0,
        "weight": step[:, None].astype(np.float32) / 2,
    }


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize(("start_step", "steps_per_block"), [(0, 4), (7, 5), (10**12, 1)])
def test_batches_are_those_of_their_steps(start_step, steps_per_block, workers):
    batches = pipeline.iterate(
        make_block,
        start_step=start_step,
        steps_per_block=steps_per_block,
        prefetch=2,
        workers=workers,
    )
    for step in range(start_step, start_step + 17):
        batch, wanted = next(batches), make_block(step, 1)
        assert batch.keys() == wanted.keys()
        for name, array in batch.items():
            assert array.dtype == wanted[name].dtype
            assert np.array_equal(array, wanted[name][0])
    batches.close()


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_comes_as_it_was_after_the_batches_before_it(workers):
    def damaged(first_step, steps):
        if first_step >= 12:
            raise ValueError(f"/data/shard-00003.tokens: damaged between byte 0 and {first_step}")
        return make_block(first_step, steps)

    batches = pipeline.iterate(damaged, steps_per_block=4, workers=workers)
    seen = []
    with pytest.raises(
        ValueError, match=r"^/data/shard-00003.tokens: damaged between byte 0 and 1\d$"
    ) as caught:
        seen.extend(batches)
    assert len(seen) == 12
    assert caught.value.__suppress_context__


def test_an_error_in_the_first_batch_comes_before_any_thread():
    def missing(first_step, steps):
        raise FileNotFoundError("no such shard")

    before = threading.active_count()
    with pytest.raises(FileNotFoundError, match="no such shard"):
        next(pipeline.iterate(missing))
    assert threading.active_count() == before


def test_a_closed_pipeline_asks_for_no_more_blocks():
    calls = []

    def counted(first_step, steps):
        calls.append(first_step)
        return make_block(first_step, steps)

    batches = pipeline.iterate(counted, steps_per_block=2, prefetch=2)
    list(itertools.islice(batches, 3))
    batches.close()
    asked = len(calls)
    time.sleep(0.3)
    assert len(calls) == asked < 20


@pytest.mark.parametrize(
    ("key", "value"), [("start_step", -1), ("steps_per_block", 0), ("prefetch", -1), ("workers", 0)]
)
def test_unfit_numbers_are_named(key, value):
    with pytest.raises(ValueError, match=f"{key} is {value}; it must be at least"):
        pipeline.iterate(make_block, **{key: value})


PROGRAM = """
import sys, time
import numpy as np
from xlnet_jax.data import pipeline

def busy(first_step, steps):
    end = time.perf_counter() + 0.2
    while time.perf_counter() < end:
        pass
    return {"x": np.full((steps, 1, 4), first_step, np.int32)}

batches = pipeline.iterate(busy, steps_per_block=2, prefetch=16, workers=2)
next(batches)
sys.exit(7)
"""


def test_a_process_that_ends_amid_it_does_not_hang():
    # A thread of TensorFlow that asks for the interpreter while that goes down waits forever.
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM], timeout=120, capture_output=True, check=False
    )
    assert ended.returncode == 7, ended.stderr[-2000:]
