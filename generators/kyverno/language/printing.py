"""Values as texts, as upstream's engine writes them: into longer texts, into lists, for patterns.

as_text     inside a longer text: texts as they are, the rest as JSON
sprint      what membership in a list compares: null is `<nil>`, a list `[a b]`
scientific  what wildcards of a pattern see of a number: 5 is `5E+00`
"""

from __future__ import annotations

import json

from generators.documents.json import Value


def as_text(value: Value) -> str:
    """How a value reads inside a longer text."""
    return value if isinstance(value, str) else as_json(value)


_SCRIPTS = str.maketrans(
    {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
)


def as_json(value: Value) -> str:
    """JSON as upstream writes it: keys sorted, UTF-8, what HTML would read escaped."""
    return _written(value).translate(_SCRIPTS)


def _written(value: Value) -> str:
    if isinstance(value, dict):
        pairs = (f"{json.dumps(k, ensure_ascii=False)}:{_written(value[k])}" for k in sorted(value))
        return "{" + ",".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_written, value)) + "]"
    if isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool)):
        return json_number(value)
    return json.dumps(value, ensure_ascii=False)


def sprint(value: Value) -> str:
    """A value as Go prints it: what membership in a list compares, and never what a user reads."""
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return _printed(value)
    if isinstance(value, list):
        return f"[{' '.join(map(sprint, value))}]"
    if isinstance(value, dict):
        return f"map[{' '.join(f'{key}:{sprint(value[key])}' for key in sorted(value))}]"
    return value


def _digits(number: float) -> tuple[str, str, int]:
    """Sign, the fewest digits that tell a number apart, and the power of ten of the first one."""
    sign, text = ("-", repr(number)[1:]) if number < 0 else ("", repr(number))
    mantissa, _, exponent = text.partition("e")
    whole, _, fraction = mantissa.partition(".")
    shift = int(exponent or 0) + len(whole) - 1
    digits = whole + fraction
    leading = len(digits) - len(digits.lstrip("0"))
    return sign, digits.strip("0") or "0", shift - leading


def _plain_digits(sign: str, digits: str, power: int) -> str:
    if power < 0:
        return f"{sign}0.{'0' * (-power - 1)}{digits}"
    if len(digits) <= power + 1:
        return sign + digits.ljust(power + 1, "0")
    return f"{sign}{digits[: power + 1]}.{digits[power + 1 :]}"


def _with_exponent(sign: str, digits: str, power: int, width: int) -> str:
    rest = f".{digits[1:]}" if digits[1:] else ""
    return f"{sign}{digits[0]}{rest}e{'-' if power < 0 else '+'}{abs(power):0{width}d}"


def json_number(number: float) -> str:
    """A number as Go writes it into JSON."""
    if isinstance(number, int) and abs(number) < 10**15:
        return str(number)
    sign, digits, power = _digits(float(number))
    if number != 0 and not -7 < power < 21:
        return _with_exponent(sign, digits, power, 1 if power < 0 else 2)
    return _plain_digits(sign, digits, power) if number != 0 else "0"


def _printed(number: float) -> str:
    sign, digits, power = _digits(float(number))
    if number != 0 and not -5 < power < 21:
        return _with_exponent(sign, digits, power, 2)
    return _plain_digits(sign, digits, power) if number != 0 else "0"


def scientific(number: float) -> str:
    """A number with one digit before the point, as upstream's patterns see it: 5 is `5E+00`."""
    return _with_exponent(*_digits(float(number)), 2).replace("e", "E")
