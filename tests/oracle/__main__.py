"""`python -m tests.oracle PROGRAM [COUNT] [--write]`: random policies, asked of both.

Prints the cases on which they differ, and exits with 1 if there is one. `--write` puts the engine's
answers into the table that the test suite holds ours against.
"""

from __future__ import annotations

import json
import secrets
import sys
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.oracle.asking import asked, ours, packed
from tests.oracle.policies import Document, policies

TABLE = Path(__file__).parent / "answers.jsonl"
DEFAULT_COUNT = 300
BATCH = 20


def drawn(count: int, start: int) -> list[list[Document]]:
    """So many different cases; the same for the same start.

    In small batches: a long one becomes variations of what it has drawn.
    """
    found: dict[str, list[Document]] = {}
    for batch in range(start, start + 2 * count // BATCH + 1):

        @seed(batch)
        @settings(
            max_examples=BATCH,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(policies())
        def collect(case: list[Document]) -> None:
            found.setdefault(json.dumps(case, sort_keys=True), case)

        collect()
        if len(found) >= count:
            break
    return list(found.values())[:count]


def main(arguments: list[str]) -> int:
    """See the module."""
    write = "--write" in arguments
    given_arguments = [item for item in arguments if item != "--write"]
    if not given_arguments:
        sys.stderr.write(
            "give the program that asks Cilium's engine: make oracle-cilium ORACLE=PATH\n"
        )
        return 2
    count = int(given_arguments[1]) if len(given_arguments) > 1 else DEFAULT_COUNT
    start = 0 if write else secrets.randbits(32)
    cases = drawn(count, start)
    answers = asked(Path(given_arguments[0]), cases)
    if write:
        rows = (
            json.dumps({"policies": case, "answer": packed(said)}, separators=(",", ":"))
            for case, said in zip(cases, answers, strict=True)
        )
        TABLE.write_text("".join(f"{row}\n" for row in rows))
    differing = 0
    for case, said in zip(cases, answers, strict=True):
        if ours(case) != said:
            differing += 1
            sys.stdout.write(f"{json.dumps(case)}\n  theirs {said}\n  ours   {ours(case)}\n")
    sys.stdout.write(f"{len(cases)} cases (start {start}), {differing} differ\n")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
