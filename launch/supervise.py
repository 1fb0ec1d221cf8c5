"""Runs xlnet-jax on a worker and writes down how it ended; worker.sh starts it, nobody by hand.

    supervise.py FOLDER PROGRAM ARGUMENTS...

FOLDER receives `process` ("PROCESS SESSION") at once and `end` ("STATE CODE") at the end. STATE is
finished or failed; terminated after a signal to this process too, as a machine that is taken away
sends to all; stopped where stop.sh left its mark. Not in the shell, whose `wait` can lose the exit
status when a signal arrives.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

LOCK = 9  # the open file whose lock says that the run is alive; all its processes hold it


def main(folder: Path, command: list[str]) -> None:
    """Runs the command to its end."""
    signalled = []

    def remember(number: int, frame: FrameType | None) -> None:
        signalled.append(number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, remember)
    log((folder / "command").read_text())
    process = subprocess.Popen(command, pass_fds=(LOCK,))
    replace(folder / "process", f"{process.pid} {os.getpid()}\n")
    code = process.wait()
    code = code if code >= 0 else 128 - code  # killed by a signal: as a shell counts it
    state = "failed" if code else "finished"
    if signalled:
        state = "terminated"
    if (folder / "stop").exists():
        state = "stopped"
    log(f"{state} {code}")
    replace(folder / "end", f"{state} {code}\n")


def log(text: str) -> None:
    """Prints a line with the time in UTC."""
    print(time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), text, flush=True)


def replace(path: Path, text: str) -> None:
    """Writes a file so that nobody reads half of it."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.rename(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
