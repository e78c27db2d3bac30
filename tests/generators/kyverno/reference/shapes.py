"""JSON of any shape: what is asked and answered is compared as a whole, and never looked at."""

from __future__ import annotations

from typing import Any, TypeAlias

Json: TypeAlias = Any
Question: TypeAlias = "dict[str, Any]"
Answer: TypeAlias = "dict[str, Any]"
