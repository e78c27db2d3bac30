"""The golden tables: what the reference answered, in the order of `questions.TABLES`.

An answer is stored without its question, which `questions.py` makes again; a digest of the
questions says when the two have come apart. Conditions, of which there are most, are one letter
each: t, f, or e for an error.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

from tests.generators.kyverno.reference.answers import comparable, merged_lists, without_rules
from tests.generators.kyverno.reference.questions import TABLES
from tests.generators.kyverno.reference.shapes import Answer, Json, Question

FOLDER = Path(__file__).parent / "tables"
_LETTERS = {True: "t", False: "f"}
_WORDS: dict[str, Answer] = {"t": {"value": True}, "f": {"value": False}, "e": {"error": ""}}
_CHANCE = re.compile(r"random\(.*\)")
_SHUFFLED = re.compile(r".*\.\*|(keys|values)\(.*\)")
LETTERED = ("conditions", "unresolved")


def digest(questions: Iterable[Question]) -> str:
    """Changes with any question."""
    whole = sha256()
    for question in questions:
        whole.update(json.dumps(question, sort_keys=True).encode())
    return whole.hexdigest()[:16]


def write(name: str, answers: list[Answer]) -> None:
    """Keep the reference's answers to a table's questions."""
    FOLDER.mkdir(exist_ok=True)
    questions = list(TABLES[name]())
    body: Json = [_short(q, answer) for q, answer in zip(questions, answers, strict=True)]
    if name in LETTERED:
        body = "".join("e" if "error" in a else _LETTERS[a["value"]] for a in answers)
    text = json.dumps({"questions": digest(questions), "answers": body}, sort_keys=True)
    with gzip.GzipFile(FOLDER / f"{name}.json.gz", "wb", mtime=0) as file:
        file.write(text.encode())


def _short(question: Question, answer: Json) -> Json:
    """Without what differs from run to run: messages, chance, the order of upstream's maps."""
    if "error" in answer:
        return {"error": ""}
    value = answer["value"]
    if question["op"] == "policy":
        return {"value": comparable(value)}
    if question["op"] == "celpolicy":
        return {"value": without_rules(comparable(value))}
    if question["op"] == "schema":
        return {"value": merged_lists(value)}
    if isinstance(value, str) and _CHANCE.fullmatch(question.get("expression", "")):
        return {"value": "another text each time"}
    if isinstance(value, list) and _SHUFFLED.fullmatch(question.get("expression", "")):
        value = sorted(value, key=json.dumps)
    return {"value": value}


def read(name: str) -> tuple[str, list[Answer]]:
    """(digest of the questions, the reference's answers)."""
    with gzip.open(FOLDER / f"{name}.json.gz") as file:
        table = json.load(file)
    answers = table["answers"]
    if isinstance(answers, str):
        return table["questions"], [_WORDS[letter] for letter in answers]
    return table["questions"], answers
