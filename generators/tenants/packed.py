"""A tenant file as text in one ConfigMap: the controller keeps the one in force that way.

The next leader continues from it, and `plan` compares other files with it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import zlib

from generators.errors import InputError, InvalidConfig
from generators.tenants.load import parse_tenants
from generators.tenants.model import TenantConfig

GUARD_NAME = "ringfence-guard"
"""The ConfigMap in the system namespace."""
DIGEST, TEXT = "file", "tenants"
"""Its keys: the SHA-256 of the file, and the file."""
LONGEST_TEXT = 500_000
"""A packed tenant file beyond that is not kept: one ConfigMap holds it with all else."""
LONGEST_FILE = 16 * 1024 * 1024


def packed(data: bytes) -> str:
    """The bytes of a file; empty for one that is too large."""
    text = base64.b64encode(zlib.compress(data, 9)).decode("ascii")
    return text if len(text) <= LONGEST_TEXT else ""


def unpacked(text: str, digest: str, file: str) -> TenantConfig | None:
    """The file of that digest, None when it is not there whole; `file`: what messages call it."""
    try:
        data = zlib.decompressobj().decompress(base64.b64decode(text), LONGEST_FILE)
    except (binascii.Error, ValueError, zlib.error):
        return None
    if hashlib.sha256(data).hexdigest() != digest:
        return None
    try:
        return parse_tenants(data, file)
    except (InputError, InvalidConfig):
        return None
