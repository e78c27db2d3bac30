"""What the API server accepts as names, labels, ports and protocols, in its own words.

Each function answers None for a good value, else the sentence that `kubectl apply` would print.
"""

from __future__ import annotations

import re

PROTOCOLS = ("SCTP", "TCP", "UDP")
DEFAULT_PROTOCOL = "TCP"
"""Of a port that names none."""
HIGHEST_PORT = 65535

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_DNS_LABEL = re.compile(_LABEL)
_DNS_SUBDOMAIN = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_QUALIFIED = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_PORT_CHARACTERS = re.compile(r"[-a-z0-9]+")
_SUBDOMAIN_LENGTH = 253
_LABEL_LENGTH = 63
_PORT_NAME_LENGTH = 15


def dns_label(text: str) -> str | None:
    """Names of namespaces."""
    if len(text) > _LABEL_LENGTH:
        return f"must be no more than {_LABEL_LENGTH} characters"
    if not _DNS_LABEL.fullmatch(text):
        return (
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', "
            "and must start and end with an alphanumeric character"
        )
    return None


def dns_subdomain(text: str) -> str | None:
    """Names of most other objects."""
    if len(text) > _SUBDOMAIN_LENGTH:
        return f"must be no more than {_SUBDOMAIN_LENGTH} characters"
    if not _DNS_SUBDOMAIN.fullmatch(text):
        return (
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, "
            "'-' or '.', and must start and end with an alphanumeric character"
        )
    return None


def label_key(text: str) -> str | None:
    """Keys of labels: `name` or `prefix/name`."""
    prefix, slash, name = text.rpartition("/")
    if slash and (not prefix or dns_subdomain(prefix) is not None):
        return "prefix part must be a lowercase RFC 1123 subdomain"
    if not name or len(name) > _LABEL_LENGTH or not _QUALIFIED.fullmatch(name):
        return (
            f"name part must be no more than {_LABEL_LENGTH} alphanumeric characters, '-', '_' or "
            "'.', and must start and end with an alphanumeric character"
        )
    return None


def label_value(text: str) -> str | None:
    """Values of labels."""
    if text and (len(text) > _LABEL_LENGTH or not _QUALIFIED.fullmatch(text)):
        return (
            f"a valid label must be an empty string or no more than {_LABEL_LENGTH} alphanumeric "
            "characters, '-', '_' or '.', and must start and end with an alphanumeric character"
        )
    return None


def port_number(number: int) -> str | None:
    """Port numbers."""
    if not 1 <= number <= HIGHEST_PORT:
        return f"must be between 1 and {HIGHEST_PORT}, inclusive"
    return None


def port_name(text: str) -> str | None:
    """Names of container ports (IANA service names)."""
    if len(text) > _PORT_NAME_LENGTH:
        return f"must be no more than {_PORT_NAME_LENGTH} characters"
    if not _PORT_CHARACTERS.fullmatch(text):
        return "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)"
    if not any(character.isalpha() for character in text):
        return "must contain at least one letter (a-z)"
    if "--" in text:
        return "must not contain consecutive hyphens"
    if text.startswith("-") or text.endswith("-"):
        return "must not begin or end with a hyphen"
    return None
