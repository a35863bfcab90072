"""The rows of a data set of problems: how many, and one after another, each from its own random stream."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any, NamedTuple

from lira_hf.catalogue.problems.arithmetic import KINDS, choices
from lira_hf.catalogue.problems.candidates import keeps_answer, translate
from lira_hf.catalogue.problems.composition import Problem, draw, reword, word, word_english
from lira_hf.catalogue.problems.words import English, load_english, load_wording
from lira_hf.catalogue.tables import TRANSLATION
from lira_hf.languages import ENGLISH

COLUMNS: dict[str, Any] = {
    "problem_id": "string",
    "language": "string",
    "question": "string",
    "english": "string",
    "translations": [TRANSLATION],
    "best_gives_answer": "bool",  # whether the critic's best candidate does, as the simulation knows; of English the question itself
    "answer": "string",  # digits
    "solution": "string",  # the operations, the last of which gives the answer: "3 * 5 = 15"
    "kind": "string",
    "template": "string",
    "choices": ["string"],
    "label": "int32",  # the place of the answer among the choices
}
ENGLISH_SHARE = 10  # training rows in English for each in another language: a model is to learn arithmetic from them
HELD_OUT_SHARE = {"train": 1.0, "validation": 0.1, "test": 0.25}  # rows of a split for each training row of the seven languages
MOST_ROWS = 20_000  # of a language; with more, new problems become hard to find


class Kept(NamedTuple):
    """How many rows there are, in how many the critic's best candidate still gives the answer, and in how many any does."""

    rows: int
    best: int
    any: int


def row_count(language: str, split: str, rows: int) -> int:
    """The rows of a split where a language has `rows` for training; at least one of each kind."""
    wanted = rows * ENGLISH_SHARE if (language, split) == (ENGLISH.code, "train") else round(rows * HELD_OUT_SHARE[split])
    return max(wanted, len(KINDS))


def problem_rows(language: str, split: str, count: int, seed: int) -> tuple[list[dict[str, Any]], Kept]:
    """`count` rows with the columns of `COLUMNS`, the kinds taking turns and no question twice."""
    english, kinds = load_english(), list(KINDS)
    rows, seen, kept = [], set(), Counter()
    stream = 0
    while len(rows) < count:
        rng = Random(f"{seed}/{language}/{split}/problem/{stream}")
        stream += 1
        problem = draw(kinds[len(rows) % len(kinds)], split, language, english, rng)
        question = _question(problem, language, english, rng)
        if question in seen:
            continue
        seen.add(question)
        best_gives_answer = True
        pairs = [] if language == ENGLISH.code else translate(problem, load_wording(language), english, rng)
        if pairs:
            best = max(pairs, key=lambda pair: pair[0].semantic + pair[0].emotional + pair[0].pragmatic)  # the first of equals
            best_gives_answer = keeps_answer(best[1])
            kept.update(best=best_gives_answer, any=any(keeps_answer(reading) for _, reading in pairs))
        answer = str(problem.answer)
        offered = choices(problem.numbers, problem.answer, rng)
        rows.append(
            {
                "problem_id": f"{language}-{split}-{len(rows):06d}",
                "language": language,
                "question": question,
                "english": word_english(problem, english),
                "translations": [candidate._asdict() for candidate, _ in pairs],
                "best_gives_answer": best_gives_answer,
                "answer": answer,
                "solution": problem.solution,
                "kind": problem.kind,
                "template": problem.template,
                "choices": offered,
                "label": offered.index(answer),
            }
        )
    return rows, Kept(count, kept["best"], kept["any"])


def _question(problem: Problem, language: str, english: English, rng: Random) -> str:
    """The text in the language; in English with some synonyms, since candidate translations have them too."""
    if language == ENGLISH.code:
        return word_english(problem, english, reword(english.templates[problem.template], english, rng))
    return word(problem, load_wording(language))
