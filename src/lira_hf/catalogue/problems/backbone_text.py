"""Text for the tiny backbones of the reasoning benchmark: problems in the wordings of the training split, drawn apart from every row."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from itertools import permutations
from random import Random

from lira_hf.catalogue.problems.arithmetic import KINDS, work_through
from lira_hf.catalogue.problems.composition import Problem, draw, reword, word, word_english
from lira_hf.catalogue.problems.words import load_english, load_wording, phrases, slots, template_ids
from lira_hf.catalogue.splits import BACKBONES
from lira_hf.languages import ENGLISH

OTHERWISE_SHARE = 0.25  # of the solved problems say, and mean, something else than their kind does
# By kind: what stands in place of a phrase (of `English.misreadings`), and the operations that the text then asks for. A language model
# that knew the nine kinds alone would take every text for one of them, whatever it says.
COSTS_MORE = dict.fromkeys(["an extra fee of", "extra", "more", "raised by"], ("{p} + {d}",)) | dict.fromkeys(["the old price", "before"], ("{p}",))
OTHERWISE = {
    "total": dict.fromkeys(
        ["together", "in all", "they cost together", "the {items} cost together", "each", "for one of them", "the price of one of the"], ("{p}",)
    ),
    "each": dict.fromkeys(["each", "apiece", "for every one", "each of the", "all {items}", "the total"], ("{t}",)),
    "difference": {"the sum": ("{p} + {q}",), "the total": ("{p} + {q}",), "how expensive": ("{p}",), "how cheap": ("{q}",)},
    "change": {"the price": ("{p}",), "the cost": ("{p}",), "gets": ("{m} + {p}",), "earns": ("{m} + {p}",), "have to pay": ("{p}",)},
    "discount": COSTS_MORE | {"reduced to": ("{d}",)},
    "percent": {
        other: ("{p} * {d}", "{0} / 100", "{p} + {1}") if steps == ("{p} + {d}",) else steps for other, steps in COSTS_MORE.items()
    },
    "delivery": dict.fromkeys(["less", "minus", "the delivery discount", "less for"], ("{p} - {f}",))
    | dict.fromkeys(["without delivery", "the price without delivery"], ("{p}",)),
    "count": dict.fromkeys(["how much does {name} pay for the {items}", "how much are the {items} of {name}"], ("{m}",)),
}  # fmt: skip
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
    """`count` tuples of an English problem, in one of the `recombined` wordings with some synonyms, and its solution; some say, and mean,
    something else than any problem of the data set."""
    found = []
    for _, problem, rng in _problems([ENGLISH.code], count, seed):
        template, solution = rng.choice(recombined(problem.kind)), problem.solution
        if rng.random() < OTHERWISE_SHARE:
            template, solution = otherwise(problem, template, rng)
        found.append((_reworded(problem, rng, template), solution))
    return found


def otherwise(problem: Problem, template: str, rng: Random) -> tuple[str, str]:
    """The template with one phrase that changes what is asked, and the solution of that; both unchanged where there is no such phrase."""
    table, meanings = load_english().misreadings[problem.kind], OTHERWISE.get(problem.kind, {})
    spots = [
        (match, other) for match in phrases(table).finditer(template) for other in table[match[0].replace("|", " ").lower()] if other in meanings
    ]
    if not spots:
        return template, problem.solution
    match, other = rng.choice(spots)
    done = work_through(meanings[other], problem.numbers)
    if done[-1][1] < 1:
        return template, problem.solution
    solution = ", ".join(f"{written} = {result}" for written, result in done)
    return template[: match.start()] + other + template[match.end() :], solution


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
