"""A problem and its texts: drawn as numbers, items and a person, then worded in a language and in English."""

from __future__ import annotations

import re
from collections.abc import Mapping
from random import Random
from typing import NamedTuple

from lira_hf.catalogue.composition import choose
from lira_hf.catalogue.problems.arithmetic import KINDS, work_out
from lira_hf.catalogue.problems.words import English, Wording, names_of, phrases, template_ids
from lira_hf.languages import ENGLISH

OTHER_WORD = 0.3  # a phrase that has synonyms gets one
SENTENCE_START = re.compile(r"(?:^|(?<=[.?] ))\w")


class Problem(NamedTuple):
    """What a problem says, in no language: `numbers` by slot, two different `items` of which a template may use only the
    first, the `name` of a person in English spelling, and the language in whose `money` the prices are.
    """

    kind: str
    template: str
    numbers: Mapping[str, int]
    items: tuple[str, str]
    name: str
    money: str

    @property
    def answer(self) -> int:
        """The result, from 1 to 135."""
        return work_out(self.kind, self.numbers)[-1][1]

    @property
    def solution(self) -> str:
        """The way to it: "3 * 5 = 15", several operations parted by commas."""
        return ", ".join(f"{written} = {result}" for written, result in work_out(self.kind, self.numbers))


def draw(kind: str, split: str, language: str, english: English, rng: Random) -> Problem:
    """A problem of a kind, in the words of a split; one of English takes money and people from any of the languages."""
    money = choose(tuple(english.money), rng) if language == ENGLISH.code else language
    template = choose(template_ids(kind, split), rng)
    first, second = rng.sample(list(english.forms), 2)
    return Problem(kind, template, KINDS[kind].draw(rng), (first, second), choose(names_of(money), rng), money)


def word(problem: Problem, wording: Wording) -> str:
    """The problem as a shopper of the language writes it."""
    texts = {"name": wording.names[problem.name], "money": wording.money}
    text = fill(wording.templates[problem.template], problem, wording.forms, texts)
    for ending, joined in wording.joins.items():
        text = re.sub(ending, joined, text)
    return text


def word_english(problem: Problem, english: English, template: str | None = None) -> str:
    """The same in English; `template` is another text than the problem's own."""
    texts = {"name": problem.name, "money": english.money[problem.money]}
    return fill((template or english.templates[problem.template]).replace("|", " "), problem, english.forms, texts)


def reword(template: str, english: English, rng: Random) -> str:
    """An English template with some of its phrases in other words."""

    def other(match: re.Match[str]) -> str:
        if rng.random() >= OTHER_WORD:
            return match[0]
        return choose(english.synonyms[match[0].replace("|", " ").lower()], rng)

    return phrases(english.synonyms).sub(other, template)


def fill(template: str, problem: Problem, forms: Mapping[str, Mapping[str, str]], texts: Mapping[str, str]) -> str:
    """`template` with everything put in; sentences begin with a capital, and no two spaces meet."""
    first, second = (forms[item] for item in problem.items)
    found = template.format_map({**first, **{f"{slot}2": text for slot, text in second.items()}, **problem.numbers, **texts})
    return SENTENCE_START.sub(lambda match: match[0].upper(), " ".join(found.split()))
