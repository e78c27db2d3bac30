"""The baseline of the webhook's bench: a Flask application that decides nothing, on the webhook's
gunicorn settings. `python -m bench.parts.empty_app CERTIFICATE KEY` logs its address as the webhook
does.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from typing import TYPE_CHECKING, cast

from flask import Flask, request
from gunicorn.app.base import BaseApplication

from webhook.serving.server import KEEPALIVE_SECONDS, SHARED_MEMORY, THREADS

if TYPE_CHECKING:
    from gunicorn._types import _WSGIAppType


class Server(BaseApplication):
    """gunicorn with the settings that matter for speed and memory."""

    def __init__(self, certificate: str, key: str) -> None:
        self.certificate = certificate
        self.key = key
        self.listener = socket.create_server(("127.0.0.1", 0))
        super().__init__()

    def load_config(self) -> None:
        """The webhook's settings."""
        settings: dict[str, object] = {
            "bind": [f"fd://{os.dup(self.listener.fileno())}"],
            "worker_class": "gthread",
            "workers": 1,
            "threads": THREADS,
            "keepalive": KEEPALIVE_SECONDS,
            "worker_tmp_dir": SHARED_MEMORY if os.path.isdir(SHARED_MEMORY) else None,
            "control_socket_disable": True,
            "certfile": self.certificate,
            "keyfile": self.key,
            "loglevel": "warning",
        }
        for name, value in settings.items():
            self.cfg.set(name, value)

    def load(self) -> _WSGIAppType:
        """An application that reads the request and answers an empty object."""
        app = Flask("empty")

        @app.post("/mutate")
        def mutate() -> dict[str, str]:
            request.get_data()
            return {}

        # Flask and gunicorn type "start_response" differently.
        return cast("_WSGIAppType", app)


if __name__ == "__main__":
    server = Server(*sys.argv[1:])
    host, port = server.listener.getsockname()
    print(json.dumps({"event": "listening", "address": f"{host}:{port}"}), file=sys.stderr)
    server.run()
