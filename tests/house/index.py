"""A registry of Python packages on loopback: what is locked, and something newer of each.

Wheels packed anew from what is installed here depend on nothing that real registries have today;
the locks that go with them name the same versions and these files' hashes.
"""

from __future__ import annotations

import base64
import hashlib
import http.server
import io
import re
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.utils import canonicalize_name, parse_wheel_filename

PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+) \\$", re.MULTILINE)
NEWER = "9999.0"


def pins(lock: Path) -> dict[str, str]:
    """Name (as packaging spells it) -> version."""
    return {canonicalize_name(name): version for name, version in PIN.findall(lock.read_text())}


@dataclass(frozen=True, slots=True)
class Wheel:
    """One file of the registry."""

    name: str
    content: bytes

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


def wheel(name: str, version: str, files: Mapping[str, bytes]) -> Wheel:
    """A wheel for every machine, of these files."""
    stem = f"{name.replace('-', '_')}-{version}"
    info = f"{stem}.dist-info"
    rest = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    } | dict(files)
    record = "".join(f"{path},{_record(content)}\n" for path, content in rest.items())
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path, content in rest.items():
            entry = zipfile.ZipInfo(path)
            entry.external_attr = 0o755 << 16
            archive.writestr(entry, content)
        archive.writestr(zipfile.ZipInfo(f"{info}/RECORD"), f"{record}{info}/RECORD,,\n")
    return Wheel(f"{stem}-py3-none-any.whl", packed.getvalue())


def _record(content: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
    return f"sha256={digest.decode()},{len(content)}"


def installed(name: str, version: str) -> Wheel:
    """The wheel of a package as it is installed here; an empty one where it is not."""
    try:
        found = distribution(name)
    except PackageNotFoundError:
        return wheel(name, version, {})
    assert found.version == version, f"{name}: run tools/setup.sh test"
    return wheel(name, version, dict(_files(found, f"{name.replace('-', '_')}-{version}")))


def _files(found: Distribution, stem: str) -> Iterator[tuple[str, bytes]]:
    made = {entry.name for entry in found.entry_points if entry.group == "console_scripts"}
    for path in found.files or []:
        parts = path.parts
        if path.suffix == ".pyc" or path.name in ("RECORD", "INSTALLER", "REQUESTED", "WHEEL"):
            continue
        content = path.read_binary()
        if parts[0].endswith(".dist-info"):
            yield f"{stem}.dist-info/{'/'.join(parts[1:])}", content
        elif parts[0] != "..":
            yield str(path), content
        elif parts[-2] == "bin" and path.name not in made:
            yield f"{stem}.data/scripts/{path.name}", content


class Registry:
    """Answers as PEP 503 says; `lost` are versions that it does not have any more."""

    def __init__(self, wheels: Mapping[str, Wheel]) -> None:
        self.wheels = wheels
        self.newer = {name: wheel(name, NEWER, {}) for name in wheels}
        self.lost: set[str] = set()
        self.asked: list[str] = []

    @classmethod
    def of_what_is_installed(cls, locks: Mapping[str, str]) -> Registry:
        return cls({name: installed(name, version) for name, version in locks.items()})

    @classmethod
    def of_files(cls, folder: Path) -> Registry:
        """Of the real wheels, as somebody downloaded them."""
        files = {str(parse_wheel_filename(p.name)[0]): p for p in folder.glob("*.whl")}
        return cls({name: Wheel(path.name, path.read_bytes()) for name, path in files.items()})

    def lock(self, original: Path) -> str:
        """The lock of the same versions, with the hashes of these files."""
        return "".join(
            f"{name}=={version} \\\n    --hash=sha256:{self.wheels[name].digest}\n"
            for name, version in pins(original).items()
        )

    def answer(self, path: str) -> bytes | None:
        """The body of a page or file."""
        self.asked.append(path)
        kind, name, *file = path.strip("/").split("/")
        if name not in self.wheels:
            return None
        there = [self.newer[name]] + ([] if name in self.lost else [self.wheels[name]])
        if kind == "simple":
            links = [
                f'<a href="/files/{name}/{w.name}#sha256={w.digest}">{w.name}</a>' for w in there
            ]
            return f"<!DOCTYPE html><html><body>{''.join(links)}</body></html>".encode()
        return next((w.content for w in there if [w.name] == file), None)


@contextmanager
def serving(registry: Registry) -> Iterator[str]:
    """The address to give to pip."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = registry.answer(self.path)
            self.send_response(404 if body is None else 200)
            kind = "text/html" if self.path.startswith("/simple") else "application/octet-stream"
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_: object) -> None:
            """pip says enough."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/simple"
    finally:
        server.shutdown()
        server.server_close()
