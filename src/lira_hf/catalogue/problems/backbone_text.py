"""Text for the tiny backbones of the reasoning benchmark: problems in the wordings of the training split, drawn apart from every row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

from lira_hf.catalogue.problems.arithmetic import KINDS
from lira_hf.catalogue.problems.composition import Problem, draw, reword, word, word_english
from lira_hf.catalogue.problems.words import load_english, load_wording
from lira_hf.catalogue.splits import BACKBONES
from lira_hf.languages import ENGLISH


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
    """`count` tuples of an English problem, with some synonyms, and its solution."""
    return [(_reworded(problem, rng), problem.solution) for _, problem, rng in _problems([ENGLISH.code], count, seed)]


def _problems(languages: Sequence[str], count: int, seed: int) -> Iterator[tuple[str, Problem, Random]]:
    """Problems of each language in turn, all kinds alike."""
    kinds = list(KINDS)
    for index in range(count):
        language = languages[index % len(languages)]
        rng = Random(f"{seed}/{language}/{BACKBONES}/problem/{index}")
        yield language, draw(rng.choice(kinds), "train", language, load_english(), rng), rng


def _reworded(problem: Problem, rng: Random) -> str:
    return word_english(problem, load_english(), reword(load_english().templates[problem.template], load_english(), rng))
