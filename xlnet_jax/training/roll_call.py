"""All processes of a run meet before they start, and stop when one of them fails.

Process 0 listens on the coordinator's port. The others say who they are and what they are about to
run; when all are there and agree, the port is given over to JAX's own service, and the connections
stay open. Through them every process says that it is alive, that it failed, or that it is done.
Messages are JSON, a line each.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, NoReturn, TypeAlias

BEAT = 1.0  # seconds between signs of life
SILENCE = 30.0  # seconds without any after which a process counts as dead
GRACE = 5.0  # seconds for the other side to read what it was told
LOOK = 0.05  # seconds between looks at who has come
RETRY = 0.5  # seconds between attempts to reach process 0


class Place(NamedTuple):
    """Where a process stands among all.

    Attributes:
        host: of process 0.
        port: where process 0 listens.
        num_processes: of the run.
        process_id: of this process.
        hosts: of all processes, by id; empty where unknown.
    """

    host: str
    port: int
    num_processes: int
    process_id: int
    hosts: tuple[str, ...] = ()

    @property
    def coordinator(self) -> str:
        """HOST:PORT."""
        return f"{self.host}:{self.port}"

    def name(self, process_id: int) -> str:
        """A process, for messages."""
        host = self.hosts[process_id] if process_id < len(self.hosts) else ""
        return f"process {process_id} ({host})" if host else f"process {process_id}"


# What a message of each kind holds beside its kind.
_FIELDS: Mapping[str, Mapping[str, type]] = {
    "hello": {"id": int, "host": str, "claim": dict},
    "verdict": {"problem": str},
    "beat": {},
    "failed": {"message": str},
    "stop": {"message": str},
    "done": {},
    "farewell": {},
}

# (number of the sender, message); None instead of a message: the connection is closed.
Inbox: TypeAlias = "queue.Queue[tuple[int, dict[str, Any] | None]]"


class _Line:
    """Messages to and from one other process; a thread reads."""

    def __init__(self, connection: socket.socket):
        connection.settimeout(None)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection = connection
        self._lock = threading.Lock()
        self._arrived = threading.Lock()
        self._inbox: Inbox = queue.Queue()
        self._number = 0
        self.name = ""
        self.heard = time.monotonic()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        lines = self._connection.makefile("r", encoding="utf-8")
        # What is no message of ours is as good as a closed connection.
        with contextlib.suppress(OSError, ValueError, RecursionError), lines:
            for line in lines:
                message = _parse(line)
                self.heard = time.monotonic()
                if message["kind"] != "beat":
                    self._put(message)
        self._put(None)

    def _put(self, message: dict[str, Any] | None) -> None:
        with self._arrived:
            self._inbox.put((self._number, message))

    def deliver_to(self, inbox: Inbox, number: int) -> None:
        """From now on messages go there, marked with `number`; so do those that wait."""
        with self._arrived:
            while not self._inbox.empty():
                inbox.put((number, self._inbox.get()[1]))
            self._inbox, self._number = inbox, number

    def send(self, kind: str, **content: Any) -> None:
        """Sends; an end of the connection shows where it is read."""
        data = json.dumps({"kind": kind, **content}).encode() + b"\n"
        with contextlib.suppress(OSError), self._lock:
            self._connection.sendall(data)

    def receive(self, kind: str, deadline: float) -> dict[str, Any]:
        """The next message, which is to be of this kind.

        Raises TimeoutError if there is none yet, ConnectionError if there will be none.
        """
        try:
            _, message = self._inbox.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise TimeoutError from None
        if message is None or message["kind"] != kind:
            raise ConnectionError
        return message

    def close(self, wait: float = 0.0) -> None:
        """Ends the connection; waits so many seconds for the other side to do so first."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)
        self._reader.join(wait)
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._reader.join()
        self._connection.close()


def _parse(line: str) -> dict[str, Any]:
    """A message; raises ValueError if that is none of ours."""
    message = json.loads(line)
    fields = _FIELDS.get(str(message.get("kind"))) if isinstance(message, dict) else None
    if fields is None or not all(isinstance(message.get(key), fields[key]) for key in fields):
        raise ValueError("no message of a process of this program")
    if not all(isinstance(value, str) for value in message.get("claim", {}).values()):
        raise ValueError("a claim is made of texts")
    return message


def meet(place: Place, claim: Mapping[str, str], timeout: float) -> Watch:
    """Returns when all processes are there and their claims (key -> value) agree.

    Raises TimeoutError that names who is missing, ValueError that names what differs.
    """
    return _gather(place, claim, timeout) if place.process_id == 0 else _join(place, claim, timeout)


def _gather(place: Place, claim: Mapping[str, str], timeout: float) -> Watch:
    deadline = time.monotonic() + timeout
    claims, names, lines = {0: claim}, {0: place.name(0)}, {}
    waiting: list[_Line] = []  # for their hello
    greeted: list[_Line] = []
    try:
        listener = socket.create_server(("", place.port), backlog=place.num_processes)
    except OSError as error:
        raise OSError(
            f"process 0 cannot listen on port {place.port}: {error.strerror}; end what uses it, or"
            " give another port to --coordinator on every process"
        ) from error
    problem = ""
    with listener:
        listener.settimeout(LOOK)
        while len(claims) < place.num_processes and not problem:
            if time.monotonic() >= deadline:
                problem = _who_is_missing(place, set(claims), timeout)
                break
            with contextlib.suppress(TimeoutError, ConnectionError):
                waiting.append(_Line(listener.accept()[0]))
            for line in list(waiting):
                try:
                    hello = line.receive("hello", 0.0)
                except TimeoutError:
                    continue
                except ConnectionError:  # a stranger
                    waiting.remove(line)
                    line.close()
                    continue
                waiting.remove(line)
                greeted.append(line)
                number, line.name = hello["id"], f"process {hello['id']} ({hello['host']})"
                if number in claims or not 0 < number < place.num_processes:
                    problem = (
                        f"--process_id={number} of {hello['host']} is taken or not below"
                        f" --num_processes={place.num_processes}; every process needs its own"
                    )
                claims[number], names[number], lines[number] = hello["claim"], line.name, line
    problem = problem or _differences(claims, names)
    for line in waiting:
        line.close()
    for line in greeted:
        line.send("verdict", problem=problem)
    if problem:
        for line in greeted:
            line.close(GRACE)
        _refuse(problem)
    return Watch(place, lines)


def _join(place: Place, claim: Mapping[str, str], timeout: float) -> Watch:
    deadline = time.monotonic() + timeout
    line = None
    while True:
        try:
            line = _Line(socket.create_connection((place.host, place.port), timeout=SILENCE))
            line.send("hello", id=place.process_id, host=socket.gethostname(), claim=dict(claim))
            verdict = line.receive("verdict", time.monotonic() + timeout + GRACE)
        except OSError as error:
            if line is not None:
                line.close()
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"{place.name(0)} did not answer on {place.coordinator} for {timeout:.0f} s"
                    f" ({error.strerror or 'no answer'}); start the same command there, and let the"
                    " hosts reach that port"
                ) from error
            time.sleep(RETRY)
            continue
        if verdict["problem"]:
            line.close()
            _refuse(verdict["problem"])
        line.name = place.name(0)
        return Watch(place, {0: line})


def _refuse(problem: str) -> NoReturn:
    raise (TimeoutError if problem.startswith("after ") else ValueError)(problem)


def _who_is_missing(place: Place, there: set[int], timeout: float) -> str:
    missing = [place.name(i) for i in range(place.num_processes) if i not in there]
    return (
        f"after {timeout:.0f} s {len(missing)} of {place.num_processes} processes are missing:"
        f" {', '.join(missing)}; start the same command on their hosts, and let them reach"
        f" {place.coordinator}"
    )


def _differences(claims: Mapping[int, Mapping[str, str]], names: Mapping[int, str]) -> str:
    """Every key that is not the same everywhere, with who says what; "" if all agree."""
    lines = []
    for key in sorted(set().union(*claims.values())):
        values: dict[str, list[int]] = {}
        for number in sorted(claims):
            values.setdefault(claims[number].get(key, "(missing)"), []).append(number)
        if len(values) > 1:
            shown = [f"{value} on {_names(who, names)}" for value, who in values.items()]
            lines.append(f"{key} is {', '.join(shown)}")
    return f"the processes differ: {'; '.join(lines)}" if lines else ""


def _names(numbers: list[int], names: Mapping[int, str]) -> str:
    more = f" and {len(numbers) - 3} more" if len(numbers) > 3 else ""
    return ", ".join(names[number] for number in numbers[:3]) + more


class Watch:
    """Ends this process, with a message, as soon as another one has failed.

    Process 0 hears all others and tells them; they hear process 0 alone.
    """

    def __init__(self, place: Place, lines: Mapping[int, _Line]):
        self._place, self._lines = place, lines
        self._leads = place.process_id == 0
        self._done: set[int] = set()
        self._farewell = threading.Event()
        self._closed = False
        self._inbox: Inbox = queue.Queue()
        for number, line in lines.items():
            line.deliver_to(self._inbox, number)
        self.die: Callable[[str], None] = _die
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def fail(self, message: str) -> None:
        """Tells the others that this process has failed."""
        who = self._place.name(self._place.process_id)
        self._closed = True
        for line in self._lines.values():
            line.send("stop" if self._leads else "failed", message=f"{who} failed: {message}")

    def finish(self) -> None:
        """Returns when all processes have called it."""
        if self._leads:
            while len(self._done) < len(self._lines):
                time.sleep(0.02)
            for line in self._lines.values():
                line.send("farewell")
        else:
            for line in self._lines.values():
                line.send("done")
            self._farewell.wait()
        self._closed = True
        self._thread.join()
        for line in self._lines.values():
            line.close(GRACE if self._leads else 0.0)

    def _run(self) -> None:
        beaten = 0.0
        while not self._closed:
            if time.monotonic() - beaten >= BEAT:
                beaten = time.monotonic()
                for line in self._lines.values():
                    line.send("beat")
            problem = self._listen() or self._missed()
            if problem:
                self._stop_all(problem)
                return

    def _listen(self) -> str:
        """What another process says or its end says, if that is bad; else ""."""
        try:
            number, message = self._inbox.get(timeout=BEAT / 4)
        except queue.Empty:
            return ""
        if message is None:
            over = number in self._done or self._farewell.is_set()
            return "" if over else f"{self._lines[number].name} closed its connection unexpectedly"
        if message["kind"] in ("failed", "stop"):
            return message["message"]
        if message["kind"] == "done":
            self._done.add(number)
        elif message["kind"] == "farewell":
            self._farewell.set()
        return ""

    def _missed(self) -> str:
        """Who has been silent for too long; "" if nobody."""
        for number, line in self._lines.items():
            silent = time.monotonic() - line.heard > SILENCE
            if silent and number not in self._done and not self._farewell.is_set():
                return f"{line.name} sent no heartbeat for {SILENCE:.0f} s"
        return ""

    def _stop_all(self, problem: str) -> None:
        if self._closed:
            return
        if self._leads:
            for line in self._lines.values():
                line.send("stop", message=problem)
        self.die(problem)


def _die(problem: str) -> None:
    print(
        f"xlnet-jax: error: {problem}; all processes stop. Run the same command on all of them"
        " again: it goes on from the newest complete checkpoint",
        file=sys.stderr,
        flush=True,
    )
    os._exit(1)
