"""Simulated translations of problems: the translators and the critic of the catalogue, at work on sentences.

What goes wrong is what goes wrong in real systems: a product in the wrong sense, the word on which the operation hangs
mistaken ("each" read as "together", "percent" lost, "than" read as "with"), a clause left out, words in the order of
the source; rarely a number. All candidates of a problem may be wrong.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from random import Random
from typing import NamedTuple

from lira_hf.catalogue.candidates import TRIES, Candidate, Critic, Desk, Translator
from lira_hf.catalogue.composition import choose
from lira_hf.catalogue.lexicon import load_catalogue
from lira_hf.catalogue.problems.composition import Problem, reword, word_english
from lira_hf.catalogue.problems.words import English, Wording, phrases

CLAUSE_ENDS = re.compile(r"(?<=[.,?]) ")

# `wrong_type` is for each product, `wrong_value` for each phrase of `English.misreadings`, `dropped` for one clause of
# a text, `invented` for one of its numbers; a problem has no brand, and nothing in it is harmed by noise.
DESK = Desk(
    translators=(
        Translator("good", 0.05, 0.08, 0.0, dropped=0.02, invented=0.01, synonyms=True),
        Translator("literal", 0.10, 0.15, 0.0, dropped=0.03, invented=0.01, source_order=True),
        Translator("glossary", 0.35, 0.40, 0.0, dropped=0.03, invented=0.01),  # a word list: the wrong sense as often as not
        Translator("dropping", 0.08, 0.15, 0.0, dropped=0.40, invented=0.01),  # what it does not know, it leaves out
        Translator("inventing", 0.10, 0.15, 0.0, dropped=0.03, invented=0.15, synonyms=True),
    ),
    critic=Critic(
        severity={
            "type": 2.0, "operation": 3.0, "dropped": 4.0, "number": 4.0,
            "hard type": 0.8, "hard operation": 0.8,  # a critic who reads the word the same way notices little
        }
    ),
    hard_words=0.38,
    hard_misread=0.8,
)  # fmt: skip
HARMFUL = frozenset({"operation", "hard operation", "dropped", "number"})  # errors after which the text no longer gives the answer


class Reading(NamedTuple):
    """What a translator made of a problem: the problem as understood, its English template, and the errors, keys of `Critic.severity`."""

    problem: Problem
    template: str
    errors: tuple[str, ...]


class HardWords(NamedTuple):
    """What all translators of a problem are tempted by: place in the template to wrong phrase, and place of a product to wrong product."""

    phrases: Mapping[int, str]
    items: Mapping[int, str]


def translate(problem: Problem, wording: Wording, english: English, rng: Random, desk: Desk = DESK) -> list[tuple[Candidate, Reading]]:
    """The candidates of `problem`, each from another translator, in no order, with what the translator had understood.

    Texts differ; a translator that finds no other text than those before gives none.
    """
    hard = hard_words(problem, english, desk.hard_words, rng)
    found: dict[str, tuple[Candidate, Reading]] = {}
    for translator in choose(desk.shifts, rng):
        reading = read(problem, translator, english, hard, desk.hard_misread, rng)
        for _ in range(TRIES):
            text = say(reading, translator, wording, english, rng)
            if text.casefold() not in found:
                scores = desk.critic.score(reading.errors, translator.source_order, rng)
                found[text.casefold()] = (Candidate(text, translator.name, *scores), reading)
                break
    return list(found.values())


def hard_words(problem: Problem, english: English, share: float, rng: Random) -> HardWords:
    """In `share` of the problems one phrase has a wrong meaning that suggests itself, and so has `share` of the products."""
    template, table = english.templates[problem.template], english.misreadings[problem.kind]
    spot = choose(list(phrases(table).finditer(template)), rng)
    spots = {spot.start(): _misread(spot, table, rng)} if rng.random() < share else {}
    used = [place for place in range(len(problem.items)) if _slot(place) in template and rng.random() < share]
    return HardWords(spots, {place: _sibling(problem, place, english, rng) for place in used})


def read(problem: Problem, translator: Translator, english: English, hard: HardWords, hard_misread: float, rng: Random) -> Reading:
    """`problem` as `translator` understands it."""
    errors: list[str] = []
    table = english.misreadings[problem.kind]

    def understand(match: re.Match[str]) -> str:
        if match.start() in hard.phrases and rng.random() < hard_misread:
            errors.append("hard operation")
            return hard.phrases[match.start()]
        if rng.random() < translator.wrong_value:
            errors.append("operation")
            return _misread(match, table, rng)
        return match[0]

    plain = english.templates[problem.template]
    template = phrases(table).sub(understand, plain)
    items = list(problem.items)
    for place in range(len(items)):
        if place in hard.items and rng.random() < hard_misread:
            errors.append("hard type")
            items[place] = hard.items[place]
        elif _slot(place) in plain and rng.random() < translator.wrong_type:
            errors.append("type")
            items[place] = _sibling(problem, place, english, rng)
    numbers = dict(problem.numbers)
    if rng.random() < translator.invented:
        errors.append("number")
        slot = choose(tuple(numbers), rng)
        numbers[slot] = _slip(numbers[slot], rng)
    clauses = CLAUSE_ENDS.split(template)
    if len(clauses) > 1 and rng.random() < translator.dropped:
        errors.append("dropped")
        clauses.remove(choose(clauses, rng))
        template = re.sub(r",(?= [A-Z]|$)", ".", " ".join(clauses))  # a sentence that has lost its end
    return Reading(problem._replace(items=tuple(items), numbers=numbers), template, tuple(errors))


def say(reading: Reading, translator: Translator, wording: Wording, english: English, rng: Random) -> str:
    """The translator's English for what it has read: plain, in other words, or word by word in the order of the source."""
    template = reading.template
    if translator.source_order:
        template = " ".join(_in_source_order(clause, wording, english) for clause in CLAUSE_ENDS.split(template))
    if translator.synonyms:
        template = reword(template, english, rng)
    return word_english(reading.problem, english, template)


def keeps_answer(reading: Reading) -> bool:
    """Whether the answer can still be worked out from what the translator understood."""
    return not HARMFUL.intersection(reading.errors)


def _in_source_order(clause: str, wording: Wording, english: English) -> str:
    """A clause of three parts in the order of the source, without its little words; its sign stays at the end."""
    sign = clause[-1] if clause[-1] in ".,?" else ""
    parts = clause.removesuffix(sign).split("|")
    if len(parts) == 3:
        parts[0] = parts[0][0].lower() + parts[0][1:]
        parts = [parts[place] for place in wording.order["question" if sign == "?" else "statement"]]
    words = " ".join(parts).split(" ")
    return " ".join(word for word in words if word.lower() not in english.little) + sign


def _misread(match: re.Match[str], table: Mapping[str, Sequence[str]], rng: Random) -> str:
    return choose(table[match[0].replace("|", " ").lower()], rng)


def _slot(place: int) -> str:
    """What shows that a template names the product of this place."""
    return ("{item", "2}")[place]


def _sibling(problem: Problem, place: int, english: English, rng: Random) -> str:
    """Another product of the department that does not stand in the problem, or one of all where it has none."""
    return choose(_siblings(english, problem.items[place], problem.items[1 - place]), rng)


@functools.cache
def _siblings(english: English, item: str, other: str) -> tuple[str, ...]:
    catalogue = load_catalogue()
    free = [name for name in english.forms if name not in (item, other)]
    same = [name for name in free if catalogue.types[name].department == catalogue.types[item].department]
    return tuple(same or free)


def _slip(number: int, rng: Random) -> int:
    """Another number of at least 2: a digit misread, or two exchanged."""
    digits = str(number)
    while True:
        place = rng.randrange(len(digits))
        other = int(digits[:place] + str(rng.randrange(10)) + digits[place + 1 :]) if rng.random() < 0.7 else int(digits[::-1])
        if other not in (number, 0, 1):
            return other
