"""Pinned maps of one node as one thing that is opened and closed. Called by maps.py, detour.py."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar, Self

from enforcer.datapath import kernel


class PinnedMaps:
    """Open with `open`, close or use as a context; the pins keep the maps."""

    NAMES: ClassVar[tuple[str, ...]] = ()
    """Of the pins."""

    def __init__(self, handles: Mapping[str, kernel.Handle]) -> None:
        self._handles = dict(handles)

    @classmethod
    def open(cls, pin_path: Path) -> Self:
        """Those below the directory that loader.ensure_loaded returned."""
        with ExitStack() as opened:
            handles = {
                name: opened.enter_context(kernel.open_pin(pin_path / name)) for name in cls.NAMES
            }
            opened.pop_all()
        return cls(handles)

    def close(self) -> None:
        """Close all descriptors."""
        for handle in self._handles.values():
            handle.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
