"""Processes that meet: who is missing, what differs, who fails. Here they are threads."""

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.training.test_layouts import free_port
from xlnet_jax.training import roll_call
from xlnet_jax.training.roll_call import Place


@pytest.fixture
def port():
    return free_port()


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    monkeypatch.setattr(roll_call, "BEAT", 0.1)
    monkeypatch.setattr(roll_call, "RETRY", 0.05)
    monkeypatch.setattr(roll_call, "GRACE", 0.5)


def meet(port, there, count, timeout=20.0, claims=None, hosts=()):
    """What each of `there` gets: a watch or an exception."""

    def one(number):
        place = Place("127.0.0.1", port, count, number, tuple(hosts))
        try:
            return roll_call.meet(place, (claims or {}).get(number, {}), timeout)
        except OSError as error:
            return error
        except ValueError as error:
            return error

    with ThreadPoolExecutor(len(there)) as pool:
        return dict(zip(there, pool.map(one, there), strict=True))


class Death(Exception):
    pass


@pytest.fixture
def watched(monkeypatch, port):
    """(watches of three processes, what each said when it died)."""
    said = {}
    monkeypatch.setattr(roll_call, "SILENCE", 1.0)
    watches = meet(port, [0, 1, 2], 3)
    for number, watch in watches.items():
        watch.die = lambda problem, number=number: said.update({number: problem})
    yield watches, said
    for watch in watches.values():
        watch._closed = True
        watch._thread.join()
        for line in watch._lines.values():
            line.close()


def wait_until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_all_there(watched):
    watches, said = watched
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda watch: watch.finish(), watches.values()))
    assert said == {}


def test_nobody_leaves_before_all_are_done(watched):
    watches, said = watched
    gone = threading.Event()
    threading.Thread(target=lambda: (watches[1].finish(), gone.set()), daemon=True).start()
    time.sleep(1.5)  # longer than the silence that would count as death
    assert not gone.is_set()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda number: watches[number].finish(), [0, 2]))
    assert gone.wait(10)
    assert said == {}


def test_the_missing_are_named(port):
    problems = meet(port, [0, 2], 4, timeout=0.5, hosts=["a", "b", "c", "d"])
    for problem in problems.values():
        assert isinstance(problem, TimeoutError)
        assert "2 of 4 processes are missing: process 1 (b), process 3 (d); start the" in str(
            problem
        )


def test_process_0_is_missing(port):
    (problem,) = meet(port, [1], 2, timeout=0.3).values()
    assert isinstance(problem, TimeoutError)
    assert f"process 0 did not answer on 127.0.0.1:{port} for 0 s" in str(problem)


def test_what_differs_is_named(port):
    claims = {
        0: {"config.seed": "0", "package jax": "0.9", "same": "1"},
        1: {"config.seed": "0", "package jax": "0.10", "same": "1"},
        2: {"config.seed": "5", "package jax": "0.10", "same": "1", "config.extra": "7"},
    }
    problems = meet(port, [0, 1, 2], 3, claims=claims)
    host = socket.gethostname()
    wanted = (
        f"the processes differ: config.extra is (missing) on process 0, process 1 ({host}), 7 on"
        f" process 2 ({host}); config.seed is 0 on process 0, process 1 ({host}), 5 on process 2"
        f" ({host}); package jax is 0.9 on process 0, 0.10 on process 1 ({host}), process 2"
        f" ({host})"
    )
    assert {type(problem) for problem in problems.values()} == {ValueError}
    assert {str(problem) for problem in problems.values()} == {wanted}


def test_a_number_taken_twice(port):
    with ThreadPoolExecutor(3) as pool:
        numbers = [0, 1, 1]
        places = [Place("127.0.0.1", port, 4, number) for number in numbers]
        met = [pool.submit(roll_call.meet, place, {}, 20.0) for place in places]
        for each in met:
            with pytest.raises(ValueError, match=r"--process_id=1 of .* is taken or not below"):
                each.result()


def test_a_port_in_use_is_named(port):
    with socket.create_server(("", port)):
        (problem,) = meet(port, [0], 2).values()
    assert isinstance(problem, OSError)
    assert f"process 0 cannot listen on port {port}" in str(problem)


STRANGE = [
    b"GET / HTTP/1.0\r\n\r\n",
    b"\xff\xfe\n",
    b"[" * 100_000 + b"\n",
    b"[1]\n",
    b"null\n",
    b'{"status": "ok"}\n',
    b'{"kind": ["hello"]}\n',
    b'{"kind": "hello", "id": 1, "host": "a"}\n',
    b'{"kind": "hello", "id": "1", "host": "a", "claim": {}}\n',
    b'{"kind": "hello", "id": 1, "host": "a", "claim": {"config.seed": [1]}}\n',
    b'{"kind": "done"}\n',
]


@pytest.mark.parametrize("said", STRANGE, ids=lambda said: repr(said[:40]))
def test_strangers_are_sent_away(port, said):
    with ThreadPoolExecutor(1) as pool:
        leader = pool.submit(meet, port, [0], 2)
        stranger = connect(port)
        stranger.sendall(said)
        watches = [meet(port, [1], 2)[1], leader.result()[0]]
        stranger.close()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda watch: watch.finish(), watches))
    with pytest.raises(ConnectionRefusedError):  # they met without the stranger, and are done
        socket.create_connection(("127.0.0.1", port))


def connect(port):
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port))
        except ConnectionRefusedError:
            time.sleep(0.01)


def test_the_silent_keep_nobody_waiting(port, monkeypatch):
    monkeypatch.setattr(roll_call, "GRACE", 60.0)
    with ThreadPoolExecutor(1) as pool:
        leader = pool.submit(meet, port, [0], 2)
        silent = [connect(port) for _ in range(3)]
        watches = [meet(port, [1], 2)[1], leader.result()[0]]
    assert {type(watch) for watch in watches} == {roll_call.Watch}
    for stranger in silent:
        assert stranger.recv(1) == b""
        stranger.close()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda watch: watch.finish(), watches))


@pytest.mark.parametrize("said", STRANGE, ids=lambda said: repr(said[:40]))
def test_another_service_on_the_port_of_process_0_is_no_answer(port, said):
    with ThreadPoolExecutor(1) as pool, socket.create_server(("127.0.0.1", port)) as service:
        met = pool.submit(meet, port, [1], 2, 0.0)
        connection, _ = service.accept()
        with connection:
            connection.sendall(said)
            problem = met.result()[1]
    assert isinstance(problem, TimeoutError)
    assert f"process 0 did not answer on 127.0.0.1:{port}" in str(problem)


def test_one_that_fails_stops_all(watched):
    watches, said = watched
    watches[2].fail("OSError: no room")
    wait_until(lambda: len(said) == 2)
    assert said == dict.fromkeys([0, 1], "process 2 failed: OSError: no room")


def test_process_0_that_fails_stops_all(watched):
    watches, said = watched
    watches[0].fail("no room")
    wait_until(lambda: len(said) == 2)
    assert said == dict.fromkeys([1, 2], "process 0 failed: no room")


def test_one_that_dies_stops_all(watched):
    watches, said = watched
    watches[1]._closed = True  # its thread says nothing any more
    watches[1]._lines[0].close()
    wait_until(lambda: {0, 2} <= said.keys())
    host = socket.gethostname()
    assert said[0] == said[2] == f"process 1 ({host}) closed its connection unexpectedly"


def test_one_that_falls_silent_stops_all(watched):
    watches, said = watched
    watches[1]._closed = True  # as if its machine were gone
    wait_until(lambda: {0, 2} <= said.keys())
    host = socket.gethostname()
    assert said[0] == said[2] == f"process 1 ({host}) sent no heartbeat for 1 s"


def test_process_0_that_dies_stops_all(watched):
    watches, said = watched
    watches[0]._closed = True
    for line in watches[0]._lines.values():
        line.close()
    wait_until(lambda: {1, 2} <= said.keys())
    assert said[1] == said[2] == "process 0 closed its connection unexpectedly"
