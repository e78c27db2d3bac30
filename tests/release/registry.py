"""A registry that can only be read: OCI layouts over HTTP, as helm pulls them.

https://github.com/opencontainers/distribution-spec/blob/main/spec.md: manifests by tag or digest,
blobs by digest.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_ASKED = re.compile(r"/v2/(?P<name>[a-z-]+)/(?P<what>manifests|blobs)/(?P<reference>.+)")


@contextlib.contextmanager
def registry(layouts: Path) -> Iterator[str]:
    """Serves each folder of `layouts` as a repository; gives `HOST:PORT`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(body=True)

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def _answer(self, *, body: bool) -> None:
            found = _found(layouts, self.path)
            if found is None:
                self.send_error(404)
                return
            media_type, data = found
            self.send_response(200)
            self.send_header("Content-Type", media_type)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Docker-Content-Digest", f"sha256:{hashlib.sha256(data).hexdigest()}")
            self.end_headers()
            if body:
                self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Tests print what they need."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def _found(layouts: Path, path: str) -> tuple[str, bytes] | None:
    if path in ("/v2/", "/v2"):
        return "application/json", b"{}"
    asked = _ASKED.fullmatch(path)
    if asked is None or not (layouts / asked["name"]).is_dir():
        return None
    layout, reference = layouts / asked["name"], asked["reference"]
    index = json.loads((layout / "index.json").read_bytes())
    for entry in index["manifests"]:
        tag = entry["annotations"]["org.opencontainers.image.ref.name"]
        if reference in (tag, entry["digest"]):
            return entry["mediaType"], _blob(layout, entry["digest"]).read_bytes()
    blob = _blob(layout, reference)
    return ("application/octet-stream", blob.read_bytes()) if blob.is_file() else None


def _blob(layout: Path, digest: str) -> Path:
    return layout / "blobs" / Path(*digest.split(":"))
