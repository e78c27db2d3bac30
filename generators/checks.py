"""Checks that a process or an installation reports, and the line that each becomes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How a check ended; the value is its mark in the line."""

    GOOD = "[+]"
    BRIDGED = "[!]"
    """By what was good last; or it should be another way, and nothing depends on it."""
    FAILED = "[-]"


@dataclass(frozen=True, slots=True)
class Check:
    """One check: what was looked at, and what there is to say about it."""

    level: Level
    subject: str
    text: str = ""

    def __str__(self) -> str:
        said = f"{self.subject}: {self.text}" if self.text else self.subject
        return f"{self.level}{said}"


def good(subject: str, text: str = "") -> Check:
    """A check that is as it should be."""
    return Check(Level.GOOD, subject, text)


def bridged(subject: str, text: str = "") -> Check:
    """A check that is not as it should be, and fails nothing."""
    return Check(Level.BRIDGED, subject, text)


def failed(subject: str, text: str = "") -> Check:
    """A check that makes the whole not ready."""
    return Check(Level.FAILED, subject, text)


def healthy(checks: Iterable[Check]) -> bool:
    """Whether no check failed."""
    return all(check.level is not Level.FAILED for check in checks)


def rendered(checks: Iterable[Check]) -> str:
    """A line each."""
    return "\n".join(map(str, checks))
