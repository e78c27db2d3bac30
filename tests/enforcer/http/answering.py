"""A program that answers HTTP on both families, as pods do: with what it was asked, and by whom."""

from __future__ import annotations

import json
import socket
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

WAITING = 256


class Answer(BaseHTTPRequestHandler):
    """Says what arrived, and never closes by itself."""

    protocol_version = "HTTP/1.1"

    def handle_one_request(self) -> None:
        """Any method."""
        self.raw_requestline = self.rfile.readline(65537)
        if not self.raw_requestline or not self.parse_request():
            self.close_connection = True
            return
        if self.headers.get("Transfer-Encoding") == "chunked":
            length = self._chunks()
        else:
            length = len(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        client = self.client_address[0].removeprefix("::ffff:")
        said = {
            "client": client,
            "port": self.client_address[1],
            "method": self.command,
            "path": self.path,
            "headers": [list(pair) for pair in self.headers.items()],
            "body": length,
        }
        body = b"" if self.command == "HEAD" else json.dumps(said).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def _chunks(self) -> int:
        total = 0
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            total += len(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return total

    def log_message(self, *_: object) -> None:
        """Nothing."""


class Server(ThreadingHTTPServer):
    """Both families at one port."""

    address_family = socket.AF_INET6
    request_queue_size = WAITING
    daemon_threads = True


if __name__ == "__main__":
    server = Server(("::", int(sys.argv[1])), Answer)
    print("ready", flush=True)
    server.serve_forever()
