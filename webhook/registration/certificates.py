"""The webhook's certificates as files, and as entries of a Secret."""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping
from pathlib import Path

from generators.certificates import Leaf


def secret_part(data: Mapping[str, str], name: str) -> bytes:
    """What a Secret's `data` holds under a name; empty where it holds nothing sound."""
    try:
        return base64.b64decode(data.get(name, ""), validate=True)
    except binascii.Error:
        return b""


def write_files(directory: Path, bundle: bytes, leaf: Leaf) -> None:
    """Write ca.crt, tls.key (readable by its owner alone) and tls.crt, each at one stroke.

    A server that watches them sees key and certificate disagree for a moment, and waits for both.
    """
    directory.mkdir(parents=True, exist_ok=True)
    _write(directory / "ca.crt", bundle, 0o644)
    _write(directory / "tls.key", leaf.key, 0o600)
    _write(directory / "tls.crt", leaf.certificate, 0o644)


def _write(path: Path, data: bytes, mode: int) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        beside.rename(path)
    finally:
        beside.unlink(missing_ok=True)
