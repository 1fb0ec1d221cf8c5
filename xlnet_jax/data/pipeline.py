"""Batches as a function of the step number, prepared ahead of time by tf.data."""

import atexit
import contextlib
import weakref
from collections.abc import Callable, Generator

import numpy as np
import tensorflow as tf

_running: "weakref.WeakSet[Generator[dict[str, np.ndarray]]]" = weakref.WeakSet()
MakeBlock = Callable[[int, int], dict[str, np.ndarray]]


def iterate(
    make_block: MakeBlock,
    *,
    start_step: int = 0,
    steps_per_block: int = 8,
    prefetch: int = 8,
    workers: int = 1,
) -> Generator[dict[str, np.ndarray]]:
    """Batches of steps start_step, start_step + 1, … without end: arrays without leading axis.

    `make_block(first_step, steps)` returns arrays [steps, …] of fixed shapes and types; `workers`
    threads call it for blocks of `steps_per_block` steps, one block each ahead, and `prefetch`
    batches (rounded up to blocks) wait. Nothing is kept between calls, so the step number is the
    whole position. What `make_block` raises is raised here as it was, when its block's turn comes.
    Closing the iterator (or dropping it) stops the threads.
    """
    for name, value, least in (
        ("start_step", start_step, 0),
        ("steps_per_block", steps_per_block, 1),
        ("prefetch", prefetch, 0),
        ("workers", workers, 1),
    ):
        if value < least:
            raise ValueError(f"{name} is {value}; it must be at least {least}")
    batches = _run(make_block, start_step, steps_per_block, prefetch, workers)
    _running.add(batches)
    return batches


@atexit.register
def _close_all() -> None:
    """Stops the threads before the interpreter goes: one that needs it then would wait forever."""
    for batches in list(_running):
        with contextlib.suppress(ValueError):  # in use by another thread
            batches.close()


def _run(
    make_block: MakeBlock, start_step: int, steps_per_block: int, prefetch: int, workers: int
) -> Generator[dict[str, np.ndarray]]:
    example = make_block(
        start_step, 1
    )  # shapes and types; also lets errors show before any thread runs
    names = list(example)
    errors: list[Exception] = []

    def compute(first: np.ndarray) -> list[np.ndarray]:
        try:
            block = make_block(int(first), steps_per_block)
        except Exception as error:
            errors.append(error)  # TensorFlow would hand on its text alone
            raise
        return [np.ascontiguousarray(block[name]) for name in names]

    def load(first: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = tf.numpy_function(
            compute, [first], [tf.as_dtype(example[name].dtype) for name in names]
        )
        for name, output in zip(names, outputs, strict=True):
            output.set_shape((steps_per_block, *example[name].shape[1:]))
        return dict(zip(names, outputs, strict=True))

    dataset = tf.data.Dataset.range(start_step, np.iinfo(np.int64).max, steps_per_block)
    dataset = dataset.map(load, num_parallel_calls=workers, deterministic=True)
    dataset = dataset.prefetch(-(-prefetch // steps_per_block))
    options = tf.data.Options()
    options.autotune.enabled = False
    options.threading.private_threadpool_size = workers + 1
    dataset = dataset.with_options(options)

    blocks = dataset.as_numpy_iterator()
    try:
        while True:
            try:
                block = next(blocks)
            except tf.errors.OpError:
                if errors:
                    raise errors[0] from None
                raise
            for step in range(steps_per_block):
                yield {name: array[step] for name, array in block.items()}
    finally:
        del blocks
