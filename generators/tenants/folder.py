"""A folder of tenant files as one: its bytes, and how they come apart again.

The bytes travel as those of a file do (they are watched, kept, packed and hashed), with a line
before each file that says its name. Lines of the whole are numbered through, file after file;
`located` leads from such a number back to a file and its line.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from generators.errors import InputError, Problem

SUFFIXES = (".yaml", ".yml", ".json")
_FIRST = b"# ringfence: a folder of tenant files\n"
_HEAD = re.compile(rb"^# ringfence: file ([^\n]*)\n", re.MULTILINE)

Sources = tuple[tuple[int, str], ...]
"""(lines before it, name) of each file; none where there is one file."""


def folder_bytes(folder: Path, most: int) -> bytes:
    """All tenant files of a folder, by name; up to a byte more than `most` of each.

    Hidden ones are left out: a mounted ConfigMap keeps its older contents there. A link that leads
    nowhere is not: its tenants would be gone without a word.
    """
    names = sorted(
        path.name
        for path in folder.iterdir()
        if path.suffix in SUFFIXES
        and not path.name.startswith(".")
        and (path.is_file() or (path.is_symlink() and not path.exists()))
    )
    if not names:
        what, fix = (
            "the folder cannot be read as a tenant file: it holds none",
            f"put files into it: *{', *'.join(SUFFIXES)}",
        )
        raise InputError([Problem(str(folder), 1, "", what, fix)])
    whole = bytearray(_FIRST)
    for name in names:
        with (folder / name).open("rb") as file:
            data = file.read(most + 1)
        if found := _HEAD.search(data):
            line = data.count(b"\n", 0, found.start()) + 1
            what = "a comment that begins with `ringfence: file` parts the files of a folder"
            raise InputError([Problem(str(folder / name), line, "", what, "reword it")])
        whole += b"# ringfence: file " + name.encode() + b"\n" + data
        whole += b"" if data.endswith(b"\n") else b"\n"
    return bytes(whole)


def files_of(data: bytes) -> list[tuple[str, bytes]] | None:
    """Names and bytes of the files; None where the bytes are those of one file."""
    if not data.startswith(_FIRST):
        return None
    heads = list(_HEAD.finditer(data))
    ends = [*(head.start() for head in heads[1:]), len(data)]
    return [
        (head[1].decode(errors="replace"), data[head.end() : end])
        for head, end in zip(heads, ends, strict=False)
    ]


def located(sources: Sequence[tuple[int, str]], file: str, line: int) -> tuple[str, int]:
    """File and line of a line of the whole."""
    for before, name in reversed(sources):
        if line > before:
            return name, line - before
    return file, line
