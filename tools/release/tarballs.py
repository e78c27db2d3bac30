"""Archives whose bytes follow from their files alone: order, owner, mode and time are fixed."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from collections.abc import Mapping

FILE, PROGRAM = 0o644, 0o755


def tar_gz(files: Mapping[str, bytes], programs: frozenset[str] = frozenset()) -> bytes:
    """The files in the order given, with the time of SOURCE_DATE_EPOCH."""
    moment = int(os.environ["SOURCE_DATE_EPOCH"])
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(data), moment
            member.mode = PROGRAM if name in programs else FILE
            archive.addfile(member, io.BytesIO(data))
    return gzip.compress(plain.getvalue(), mtime=0)
