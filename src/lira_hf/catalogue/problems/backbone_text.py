"""Text for the tiny backbones of the reasoning benchmark: problems in the wordings of the training split, drawn apart from every row."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from itertools import permutations
from random import Random

from lira_hf.catalogue.problems.arithmetic import KINDS
from lira_hf.catalogue.problems.composition import Problem, draw, reword, word, word_english
from lira_hf.catalogue.problems.words import load_english, load_wording, slots, template_ids
from lira_hf.catalogue.splits import BACKBONES
from lira_hf.languages import ENGLISH

SENTENCE_ENDS = re.compile(r"(?<=[.?]) ")


def problem_pairs(languages: Sequence[str], count: int, seed: int = 0) -> list[tuple[str, str, str]]:
    """`count` tuples (language, problem, the same in English), the languages taking turns; of "en" in some other words, else perfect.
    `languages` are codes of the seven and "en"."""
    return [
        (
            language,
            _reworded(problem, rng) if language == ENGLISH.code else word(problem, load_wording(language)),
            word_english(problem, load_english()),
        )
        for language, problem, rng in _problems(languages, count, seed)
    ]


def solved_problems(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """`count` tuples of an English problem, in one of the `recombined` wordings with some synonyms, and its solution."""
    return [
        (_reworded(problem, rng, rng.choice(recombined(problem.kind))), problem.solution)
        for _, problem, rng in _problems([ENGLISH.code], count, seed)
    ]


@functools.cache
def recombined(kind: str) -> list[str]:
    """English templates made of the training templates of a kind: what one says, its sentences in any order, and what one asks, wherever
    both together hold every number once. Four wordings alone would be learned by heart, and no other one be understood."""
    english, numbers = load_english(), set(KINDS[kind].draw(Random(0)))
    cut = [SENTENCE_ENDS.split(english.templates[name]) for name in template_ids(kind, "train")]
    found = []
    for *said, _ in cut:
        for *_, asked in cut:
            told = slots(" ".join(said)) & numbers
            if told.isdisjoint(slots(asked)) and told | slots(asked) >= numbers:
                found += [" ".join((*sentences, asked)) for sentences in permutations(said)]
    return list(dict.fromkeys(found))


def _problems(languages: Sequence[str], count: int, seed: int) -> Iterator[tuple[str, Problem, Random]]:
    """Problems of each language in turn, all kinds alike."""
    kinds = list(KINDS)
    for index in range(count):
        language = languages[index % len(languages)]
        rng = Random(f"{seed}/{language}/{BACKBONES}/problem/{index}")
        yield language, draw(rng.choice(kinds), "train", language, load_english(), rng), rng


def _reworded(problem: Problem, rng: Random, template: str | None = None) -> str:
    return word_english(problem, load_english(), reword(template or load_english().templates[problem.template], load_english(), rng))
