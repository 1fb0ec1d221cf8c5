"""Where a process stands among all: from flags, from a slice's metadata; what all must share."""

import contextlib
import http.server
import signal
import threading

import jax
import pytest

from xlnet_jax.training import distributed
from xlnet_jax.training.roll_call import Place


def test_flags_say_the_place():
    assert distributed.find_place("worker-0:1234", 4, 3) == Place("worker-0", 1234, 4, 3)
    assert distributed.find_place("worker-0", 4, 0) == Place("worker-0", distributed.PORT, 4, 0)
    assert distributed.find_place() is None


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((None, 2, None), "--num_processes needs --coordinator and --process_id too"),
        (("a", None, 1), "--coordinator, --process_id needs --num_processes too"),
        (("a", 2, 2), "--process_id=2 must be at least 0 and below --num_processes=2"),
        (("a", 0, 0), "--process_id=0 must be at least 0 and below --num_processes=0"),
        (("a:b", 2, 1), "--coordinator=a:b: wanted HOST or HOST:PORT"),
        ((":80", 2, 1), "--coordinator=:80: wanted HOST or HOST:PORT"),
    ],
)
def test_flags_that_do_not_fit(flags, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        distributed.find_place(*flags)


@contextlib.contextmanager
def metadata_server(monkeypatch, attributes):
    """A stand-in for the metadata server of a virtual machine."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            folder, _, key = self.path.rpartition("/")
            known = folder == "/computeMetadata/v1/instance/attributes" and key in attributes
            allowed = self.headers["Metadata-Flavor"] == "Google"
            self.send_response(200 if known and allowed else 404)
            self.end_headers()
            self.wfile.write(attributes.get(key, "").encode())

        def log_message(self, *args):
            pass

    monkeypatch.setattr(distributed, "_has_tpu", lambda: True)
    monkeypatch.delenv("TPU_WORKER_HOSTNAMES", raising=False)  # plans set it
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        monkeypatch.setenv("GCE_METADATA_IP", f"127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    "endpoints", ["10.0.0.5,10.0.0.6,10.0.0.7", "w:0:10.0.0.5,w:1:10.0.0.6,w:2:10.0.0.7"]
)
def test_a_slice_of_many_hosts_says_the_place(monkeypatch, endpoints):
    attributes = {"worker-network-endpoints": endpoints, "agent-worker-number": "2"}
    with metadata_server(monkeypatch, attributes):
        place = distributed.find_place()
    hosts = ("10.0.0.5", "10.0.0.6", "10.0.0.7")
    assert place == Place("10.0.0.5", distributed.PORT, 3, 2, hosts)
    assert place.name(1) == "process 1 (10.0.0.6)"


@pytest.mark.parametrize(
    "attributes", [{}, {"worker-network-endpoints": "10.0.0.5", "agent-worker-number": "0"}]
)
def test_a_machine_alone_needs_nobody(monkeypatch, attributes):
    with metadata_server(monkeypatch, attributes):
        assert distributed.find_place() is None


def test_kubernetes_says_the_place(monkeypatch):
    monkeypatch.setattr(distributed, "_has_tpu", lambda: True)
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "a,b")
    monkeypatch.setenv("TPU_WORKER_ID", "1")
    assert distributed.find_place() == Place("a", distributed.PORT, 2, 1, ("a", "b"))


def session(place, config):
    return distributed.session(place, config, workdir="w", timeout=1, exit_status=lambda error: 1)


@pytest.mark.parametrize(
    ("place", "there"), [(None, 1), (Place("127.0.0.1", 1, 2, 0), 2)], ids=["alone", "two"]
)
def test_other_processes_than_configured(place, there):
    message = rf"mesh.processes is 4, but {there} take part .*--config.mesh.processes=0 for any"
    with pytest.raises(ValueError, match=message), session(place, {"mesh": {"processes": 4}}):
        pass


def test_alone_nothing_happens():
    threads = threading.active_count()
    with session(None, {"mesh": {"processes": 1}}):
        assert threading.active_count() == threads
        assert jax.process_count() == 1


def test_what_must_be_the_same_on_all_hosts():
    place = Place("a", 1, 2, 0)
    config = {"seed": 1, "data": {"train": "shards", "gaps": (1, 2)}}
    claim = distributed._claim(place, config, "runs/a")
    assert claim["config.data.train"] == '"shards"'
    assert claim["config.data.gaps"] == "[1, 2]"
    assert claim["config.seed"] == "1"
    assert claim["--workdir"] == "runs/a"
    assert claim["--num_processes"] == "2"
    assert {"python", "package jax", "package jaxlib", "package xlnet-jax"} <= claim.keys()


def test_sigterm_does_again_what_python_was_told(monkeypatch):
    told = []
    previous = signal.signal(signal.SIGTERM, lambda number, frame: told.append(number))
    try:
        distributed.keep_sigterm()
        signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, previous)
    assert told == [signal.SIGTERM]
