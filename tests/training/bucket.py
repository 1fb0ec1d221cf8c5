"""A stand-in for a gs:// bucket: a folder, seen through etils and, by TensorStore, over HTTP.

The server speaks as much of the JSON API of Cloud Storage as TensorStore asks for.
"""

import contextlib
import http.server
import json
import threading
import urllib.parse
from pathlib import Path

from etils.epath import backend
from etils.epath import testing as epath_testing
from orbax.checkpoint._src.path import gcs_utils

BUCKET = "gs://bucket"


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, folder):
        self.folder = Path(folder)
        self.requests = []
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def _parts(self):
        url = urllib.parse.urlsplit(self.path)
        query = {k: v[0] for k, v in urllib.parse.parse_qs(url.query).items()}
        self.server.requests.append((self.command, urllib.parse.unquote(url.path)))
        _, _, name = url.path.partition("/b/bucket/o/")
        return urllib.parse.unquote(name), query

    def _answer(self, status, body=b"", **headers):
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _generation(self, name):
        path = self.server.folder / name
        return path.stat().st_mtime_ns if path.is_file() else 0

    def _describe(self, name):
        size = (self.server.folder / name).stat().st_size
        generation = str(self._generation(name))
        return {"name": name, "bucket": "bucket", "size": str(size), "generation": generation}

    def do_GET(self):
        name, query = self._parts()
        if not name:
            names = sorted(
                str(path.relative_to(self.server.folder))
                for path in self.server.folder.rglob("*")
                if path.is_file()
            )
            items = [self._describe(n) for n in names if n.startswith(query.get("prefix", ""))]
            return self._answer(200, json.dumps({"items": items}).encode())
        path = self.server.folder / name
        if not path.is_file():
            return self._answer(404)
        headers = {"x_goog_generation": str(self._generation(name))}
        if query.get("alt") != "media":
            return self._answer(200, json.dumps(self._describe(name)).encode(), **headers)
        data = path.read_bytes()
        if asked := self.headers.get("Range"):
            first, _, last = asked.removeprefix("bytes=").partition("-")
            begin = int(first) if first else len(data) - int(last)
            end = min(int(last) + 1, len(data)) if first and last else len(data)
            headers["Content_Range"] = f"bytes {begin}-{end - 1}/{len(data)}"
            return self._answer(206, data[begin:end], **headers)
        return self._answer(200, data, **headers)

    def do_POST(self):
        _, query = self._parts()
        data = self.rfile.read(int(self.headers["Content-Length"]))
        name = query["name"]
        if "ifGenerationMatch" in query and int(query["ifGenerationMatch"]) != self._generation(
            name
        ):
            return self._answer(412)
        path = self.server.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return self._answer(200, json.dumps(self._describe(name)).encode())

    def do_DELETE(self):
        name, _ = self._parts()
        path = self.server.folder / name
        if not path.is_file():
            return self._answer(404)
        path.unlink()
        return self._answer(204)


@contextlib.contextmanager
def serve(folder, monkeypatch):
    """While inside, gs://bucket is `folder`; yields the list of what was asked over HTTP."""

    def local(value):
        text = str(value)
        return text.replace(BUCKET, str(folder)) if text.startswith(BUCKET) else value

    def mapped(original, *args, **kwargs):
        result = original(*map(local, args), **{k: local(v) for k, v in kwargs.items()})
        if isinstance(result, list):
            return [str(item).replace(str(folder), BUCKET) for item in result]
        return result

    names = (
        "copy exists glob isdir listdir makedirs mkdir open remove rename replace rmtree stat walk"
    )
    with _Server(folder) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("TENSORSTORE_GCS_HTTP_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("GCE_METADATA_ROOT", f"127.0.0.1:{server.server_port}")
        # What etils uses for gs:// where TensorFlow is installed.
        stand_in = epath_testing._MockBackend(mock_fns=dict.fromkeys(names.split(), mapped))
        monkeypatch.setattr(backend, "tf_backend", stand_in)
        # Orbax asks Google's client library what kind of bucket this is; here a plain one.
        monkeypatch.setattr(gcs_utils, "get_bucket", lambda name: object())
        try:
            yield server.requests
        finally:
            server.shutdown()
            thread.join()
