"""Kubernetes quantities (`100Mi`, `1500m`) and Go durations (`1h30m`), read, compared and written.

Exact: quantities are fractions, durations whole nanoseconds. Bounded: absurd exponents and lengths
are refused, since they would only cost memory.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction

_DECIMAL = {
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 1000),
    "": Fraction(1),
    "k": Fraction(10**3),
    "M": Fraction(10**6),
    "G": Fraction(10**9),
    "T": Fraction(10**12),
    "P": Fraction(10**15),
    "E": Fraction(10**18),
}
_BINARY = {unit: Fraction(1024**power) for power, unit in enumerate(("Ki", "Mi", "Gi"), 1)}
_BINARY |= {unit: Fraction(1024**power) for power, unit in enumerate(("Ti", "Pi", "Ei"), 4)}
_POWERS = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_QUANTITY = re.compile(
    r"([+-]?)([0-9]{1,40}\.?[0-9]{0,40}|\.[0-9]{1,40})"
    r"(?:([eE])([+-]?[0-9]{1,2})|([numkMGTPE]|[KMGTPE]i)?)"
)
_UNITS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_PART = re.compile(r"([0-9]{1,18}\.?[0-9]{0,18}|\.[0-9]{1,18})(ns|us|µs|μs|ms|s|m|h)")
_LONGEST = 100
SECOND = 1_000_000_000


def parse_quantity(text: str) -> Fraction | None:
    """The number that a quantity stands for; None for any other text."""
    found = _QUANTITY.fullmatch(text) if len(text) <= _LONGEST else None
    if found is None:
        return None
    sign, digits, exponent, power, unit = found.groups()
    number = Fraction(digits if not digits.endswith(".") else digits + "0")
    if exponent:
        number *= Fraction(10) ** int(power)
    else:
        number *= _BINARY.get(unit or "") or _DECIMAL[unit or ""]
    return -number if sign == "-" else number


def is_binary(text: str) -> bool:
    """Whether a quantity is written with a binary unit."""
    return text.endswith("i")


def scale_of(text: str) -> int:
    """Decimal places of a quantity as it is written: 3 of `100m`, -3 of `1k`, 1 of `0.5`."""
    found = _QUANTITY.fullmatch(text)
    if found is None:
        return 0
    places = len(found[2].partition(".")[2])
    if found[3]:
        return places - int(found[4])
    if found[5] in _BINARY:
        return 9 if places else 0
    return places - _POWERS[found[5] or ""]


def write_quantity(number: Fraction, binary: bool) -> str:
    """The shortest whole form, in the family of units that the operands used."""
    if number == 0:
        return "0"
    units = _BINARY if binary and abs(number) >= 1024 else _DECIMAL
    for unit, size in sorted(units.items(), key=lambda pair: -pair[1]):
        scaled = number / size
        if scaled.denominator == 1:
            return f"{scaled.numerator}{unit}"
    if units is _BINARY:
        return write_quantity(number, binary=False)
    nano = number / _DECIMAL["n"]
    return f"{-(-nano.numerator // nano.denominator)}n"


_FLOAT = re.compile(r"[+-]?(?:[0-9]{1,400}\.?[0-9]{0,400}|\.[0-9]{1,400})(?:[eE][+-]?[0-9]{1,3})?")


def parse_float(text: str) -> float | None:
    """The number that a text is, written with digits, a fraction, an exponent; else None."""
    if _FLOAT.fullmatch(text) is None:
        return None
    number = float(text)
    return None if math.isinf(number) else number


def parse_duration(text: str) -> int | None:
    """Nanoseconds; None for any other text. `0` needs no unit, every other number does."""
    if len(text) > _LONGEST:
        return None
    sign = -1 if text.startswith("-") else 1
    body = text[1:] if text[:1] in ("+", "-") else text
    if body == "0":
        return 0
    total = Fraction(0)
    at = 0
    while at < len(body):
        part = _PART.match(body, at)
        if part is None:
            return None
        digits = part[1] + "0" if part[1].endswith(".") else part[1]
        total += Fraction(digits) * _UNITS[part[2]]
        at = part.end()
    return sign * int(total) if body else None


def write_duration(nanoseconds: int) -> str:
    """As Go writes it: `1h30m0s`, `1.5s`, `300ms`."""
    sign = "-" if nanoseconds < 0 else ""
    rest = abs(nanoseconds)
    if rest == 0:
        return "0s"
    if rest < SECOND:
        for unit, size in (("ms", 1_000_000), ("µs", 1_000), ("ns", 1)):
            if rest >= size:
                return f"{sign}{_decimal(rest, size)}{unit}"
    hours, rest = divmod(rest, _UNITS["h"])
    minutes, rest = divmod(rest, _UNITS["m"])
    seconds = f"{_decimal(rest, SECOND)}s"
    if hours:
        return f"{sign}{hours}h{minutes}m{seconds}"
    return f"{sign}{minutes}m{seconds}" if minutes else f"{sign}{seconds}"


def _decimal(number: int, size: int) -> str:
    whole, rest = divmod(number, size)
    fraction = str(rest).rjust(len(str(size)) - 1, "0").rstrip("0")
    return f"{whole}.{fraction}" if fraction else str(whole)
