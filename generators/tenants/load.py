"""From the bytes of a tenant file to a TenantConfig, or to every defect with its line.

Called by every command that takes `-c`, and by webhook and controller on each reload. Four steps,
each in its module: document.py reads YAML (folder.py and merging.py several files of it), schema.py
knows the shape, rules.py compares the parts with one another, build.py makes the model. Raises only
InvalidConfig and InputError.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from generators.errors import InputError, InvalidConfig, Problem
from generators.tenants.build import build_config
from generators.tenants.document import MAX_BYTES, Document, read_document
from generators.tenants.folder import files_of, folder_bytes
from generators.tenants.merging import merged
from generators.tenants.model import TenantConfig
from generators.tenants.parts import Part
from generators.tenants.rules import contradictions
from generators.tenants.schema import check_shape


def load_tenants(path: Path) -> TenantConfig:
    """Read a tenant file; InputError when it cannot be read, InvalidConfig when it is wrong.

    `-` is standard input; the files of a folder are one file in parts.
    """
    data = sys.stdin.buffer.read(MAX_BYTES + 1) if str(path) == "-" else tenant_bytes(path)
    return parse_tenants(data, str(path))


def tenant_bytes(path: Path) -> bytes:
    """What the file or folder holds; InputError when it cannot be read."""
    try:
        if path.is_dir():
            return folder_bytes(path, MAX_BYTES)
        with path.open("rb") as file:
            # One byte more than is allowed tells a file that is too large, also an endless one.
            return file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        what = f"the tenant file cannot be read: {reason}"
        fix = "name a file that exists and that you may read"
        name = getattr(error, "filename", None) or path
        raise InputError([Problem(str(name), 1, "", what, fix)]) from error


def _document(data: bytes, file: str) -> Document:
    files = files_of(data)
    if files is None:
        return read_document(data, file)
    parts = [(read_document(part, f"{file}/{name}"), part.count(b"\n")) for name, part in files]
    return merged(file, parts)


def parse_tenants(data: bytes, file: str) -> TenantConfig:
    """Read the bytes of a tenant file; InvalidConfig carries all that is wrong with it."""
    document = _document(data, file)
    problems = list(document.problems)
    if not document.whole:
        raise InvalidConfig(problems)
    sound, misshapen = check_shape(document)
    problems += misshapen
    root = Part(document, (), sound)
    problems += contradictions(root, complete=not problems)
    if problems:
        raise InvalidConfig(problems)
    return build_config(root, file, hashlib.sha256(data).hexdigest())
