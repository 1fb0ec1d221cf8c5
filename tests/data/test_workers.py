"""A corpus build that is really killed, in each of its processes, and run again."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.data.test_corpus import CORPUS, MODEL, contents
from xlnet_jax.data.corpus import CorpusConfig, build_corpus

SCRIPT = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
import multiprocessing, sys, threading, time
from xlnet_jax.data.corpus import CorpusConfig, build_corpus

def tell_workers():
    while len(multiprocessing.active_children()) < 2:
        time.sleep(0.01)
    print("workers", *(child.pid for child in multiprocessing.active_children()), flush=True)

if __name__ == "__main__":
    threading.Thread(target=tell_workers, daemon=True).start()
    text, output, model = sys.argv[1:]
    build_corpus(CorpusConfig(input=(text,), output_dir=output, spiece_model=model, num_workers=2,
                              unit_bytes=UNIT, progress=False))
"""
UNIT = 60_000


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_bytes((CORPUS / "a_plain.txt").read_bytes() * 1500)
    return path


@pytest.fixture(scope="module")
def uninterrupted(text, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    build_corpus(
        CorpusConfig(
            input=(str(text),), output_dir=str(folder), spiece_model=str(MODEL), num_workers=1,
            unit_bytes=UNIT, progress=False,
        ),
        print,
    )  # fmt: skip
    return contents(folder)


def start(tmp_path, text):
    script = tmp_path / "build.py"
    script.write_text(SCRIPT.replace("UNIT", str(UNIT)))
    process = subprocess.Popen(
        [sys.executable, str(script), str(text), str(tmp_path / "out"), str(MODEL)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("workers"):
            return process, [int(pid) for pid in line.split()[1:]]
    raise AssertionError(process.communicate())


def wait_for_shards(process, folder, more):
    """Waits until `more` further shards are there, and a moment chosen by chance."""
    wanted = len(list(folder.glob("shard-*.json"))) + more
    while process.poll() is None and len(list(folder.glob("shard-*.json"))) < wanted:
        time.sleep(0.002)
    time.sleep(random.random() * 0.03)


def test_a_build_killed_anywhere_and_run_again_gives_the_same_bytes(tmp_path, text, uninterrupted):
    folder = tmp_path / "out"
    finished = 0
    for victim in ("main by SIGKILL", "worker by SIGKILL", "main by SIGINT"):
        process, workers = start(tmp_path, text)
        wait_for_shards(process, folder, random.randint(1, 8))
        assert process.poll() is None, process.communicate()
        if victim == "worker by SIGKILL":
            os.kill(workers[0], signal.SIGKILL)
        else:
            process.send_signal(signal.SIGKILL if "SIGKILL" in victim else signal.SIGINT)
        # The workers hold the same pipes, so this returns when the last of them has ended.
        _, errors = process.communicate(timeout=30)
        assert process.returncode != 0, victim
        if victim == "worker by SIGKILL":
            assert "OSError: a worker process was killed" in errors
        elif victim == "main by SIGINT":
            assert "KeyboardInterrupt" in errors
        now = len(list(folder.glob("shard-*.json")))
        assert finished < now, victim  # each run went on from the one before
        finished = now
        assert not (folder / "manifest.json").exists()
        if victim != "main by SIGKILL":
            assert not list(folder.glob(".unfinished-*")), victim
        for path in folder.glob("shard-*"):  # whatever has a final name is whole
            assert path.read_bytes() == uninterrupted[path.name], path.name
    process, _ = start(tmp_path, text)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert contents(folder) == uninterrupted
