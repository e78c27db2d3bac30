"""`make oracle`: build Kyverno's engine as a program, ask it everything, write the tables anew."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from tests.generators.kyverno.reference import tables
from tests.generators.kyverno.reference.questions import TABLES
from tests.generators.kyverno.reference.shapes import Answer, Question
from tests.testbed.build import KYVERNO, ensure


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def ask(program: Path, questions: Iterable[Question]) -> list[Answer]:
    """The reference's answers, in order."""
    asked = "".join(json.dumps(question) + "\n" for question in questions)
    # What its libraries log is no answer; its end with an error is seen by its status.
    done = subprocess.run(
        [program],
        input=asked,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def main(names: list[str]) -> None:
    """Write the named tables, or all."""
    program = ensure(KYVERNO, say) / "kyverno"
    for name in names or TABLES:
        questions = list(TABLES[name]())
        answers = ask(program, questions)
        if len(answers) != len(questions):
            raise SystemExit(f"{name}: {len(answers)} answers to {len(questions)} questions")
        tables.write(name, answers)
        say(f"{name}: {len(answers)} answers")


if __name__ == "__main__":
    main(sys.argv[1:])
