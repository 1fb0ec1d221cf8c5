"""Worker processes for the corpus: progress, errors, and a clean end whatever happens."""

import concurrent.futures
import multiprocessing
import os
import signal
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from tqdm import tqdm

from xlnet_jax.data.corpus_units import UnitSettings, do_unit
from xlnet_jax.data.text_blocks import Stretch

_POLL_SECONDS = 0.2

_progress: list[Any] = []  # in a worker process: its shared counters (size read, tokens)


def run_units(
    settings: UnitSettings,
    units: Mapping[int, Sequence[Stretch]],
    *,
    num_workers: int,
    done_size: int = 0,
    show_progress: bool = True,
) -> None:
    """Does all units in up to `num_workers` processes; with one, in this process.

    The first error stops everything and is raised here. Units finished by then are on disk.
    """
    if not units:
        return
    examples = any(stretch.kind == "tfds" for unit in units.values() for stretch in unit)
    total = done_size + sum(stretch.size for unit in units.values() for stretch in unit)
    with tqdm(
        total=total,
        initial=done_size,
        unit=" examples" if examples else "B",
        unit_scale=True,
        desc="corpus",
        disable=not show_progress,
        mininterval=0.5,
    ) as bar:
        if min(num_workers, len(units)) > 1:
            _run_in_processes(settings, units, min(num_workers, len(units)), bar)
            return
        tokens = 0

        def advance(size: int, new_tokens: int) -> None:
            nonlocal tokens
            tokens += new_tokens
            _show(bar, bar.n + size, tokens)

        for number, unit in units.items():
            do_unit(settings, number, unit, advance)


def _show(bar: "tqdm[Any]", size: int, tokens: int) -> None:
    elapsed = bar.format_dict["elapsed"]
    bar.set_postfix_str(f"{tokens / max(elapsed, 1e-9):,.0f} tokens/s", refresh=False)
    bar.update(size - bar.n)


def _run_in_processes(
    settings: UnitSettings,
    units: Mapping[int, Sequence[Stretch]],
    num_workers: int,
    bar: "tqdm[Any]",
) -> None:
    context = multiprocessing.get_context("spawn")
    counters = context.Array("q", 2)
    start = bar.n
    pool = concurrent.futures.ProcessPoolExecutor(
        num_workers, mp_context=context, initializer=_start_worker, initargs=(counters,)
    )
    futures = {
        pool.submit(_do_unit, settings, number, unit): number for number, unit in units.items()
    }
    waiting = set(futures)
    try:
        while waiting:
            done, waiting = concurrent.futures.wait(
                waiting, _POLL_SECONDS, return_when=concurrent.futures.FIRST_EXCEPTION
            )
            for future in done:
                future.result()
            size, tokens = counters[:]
            _show(bar, start + size, tokens)
    except BrokenProcessPool as error:
        raise OSError(
            "a worker process was killed (out of memory?): run the same command again to go on "
            "from the finished shards, with fewer --num_workers if memory is short"
        ) from error
    finally:
        if waiting:
            _kill(pool)
        pool.shutdown(wait=True, cancel_futures=True)


def _kill(pool: concurrent.futures.ProcessPoolExecutor) -> None:
    for process in list((pool._processes or {}).values()):
        process.terminate()


def _start_worker(counters: Any) -> None:
    _progress[:] = [counters]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the main process's to handle
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    """Ends a worker whose main process was killed, so that none is left writing."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _advance(size: int, tokens: int) -> None:
    (counters,) = _progress
    with counters.get_lock():
        counters[0] += size
        counters[1] += tokens


def _do_unit(settings: UnitSettings, number: int, unit: Sequence[Stretch]) -> None:
    do_unit(settings, number, unit, _advance)
