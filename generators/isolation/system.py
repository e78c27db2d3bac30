"""Where Ringfence keeps what is its own: all that the command line has to know of `record.py`."""

from __future__ import annotations

RECORD_NAMESPACE = "ringfence-system"
