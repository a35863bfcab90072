"""The kinds of problems: which numbers they hold, what the answer is, and what a wrong operation would give.

The numbers are so small that a few thousand problems show most pairs of them: reading is what is tested, not arithmetic.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from itertools import combinations
from random import Random
from typing import NamedTuple

CHOICES = 5
NOTES = (10, 20, 50, 100)
RATES = (10, 20, 25, 50)  # per cent
Numbers = Mapping[str, int]  # slot to number, all of them at least 2


class Kind(NamedTuple):
    """`draw` gives the numbers of a problem, `steps` are the operations that answer it."""

    draw: Callable[[Random], dict[str, int]]
    steps: tuple[str, ...]


def _total(rng: Random) -> dict[str, int]:
    return {"n": rng.randint(2, 9), "p": rng.randint(2, 15)}


def _basket(rng: Random) -> dict[str, int]:
    return {"n": rng.randint(2, 4), "p": rng.randint(2, 9), "k": rng.randint(2, 4), "q": rng.randint(2, 9)}


def _each(rng: Random) -> dict[str, int]:
    count, price = rng.randint(2, 9), rng.randint(2, 15)
    return {"n": count, "t": count * price}


def _difference(rng: Random) -> dict[str, int]:
    lower, higher = sorted(rng.sample(range(2, 41), 2))
    return {"p": higher, "q": lower}


def _change(rng: Random) -> dict[str, int]:
    note = rng.choice(NOTES)
    return {"m": note, "p": rng.randint(2, note - 1)}


def _discount(rng: Random) -> dict[str, int]:
    price = rng.randint(5, 60)
    return {"p": price, "d": rng.randint(2, min(10, price // 2))}


def _percent(rng: Random) -> dict[str, int]:
    rate = rng.choice(RATES)
    step = {10: 10, 20: 5, 25: 4, 50: 2}[rate]  # the smallest price of which the rate is a whole number
    return {"p": step * rng.randint(max(1, 10 // step), 100 // step), "d": rate}


def _delivery(rng: Random) -> dict[str, int]:
    return {"p": rng.randint(5, 60), "f": rng.randint(2, 10)}


def _count(rng: Random) -> dict[str, int]:
    price, count = rng.randint(2, 15), rng.randint(2, 9)
    return {"p": price, "m": price * count}


# The operations one after another: {0} is the result of the first, and the result of the last is the answer.
KINDS = {
    "total": Kind(_total, ("{n} * {p}",)),
    "each": Kind(_each, ("{t} / {n}",)),
    "basket": Kind(_basket, ("{n} * {p}", "{k} * {q}", "{0} + {1}")),
    "difference": Kind(_difference, ("{p} - {q}",)),
    "change": Kind(_change, ("{m} - {p}",)),
    "discount": Kind(_discount, ("{p} - {d}",)),
    "percent": Kind(_percent, ("{p} * {d}", "{0} / 100", "{p} - {1}")),
    "delivery": Kind(_delivery, ("{p} + {f}",)),
    "count": Kind(_count, ("{m} / {p}",)),
}
OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.floordiv}  # what is divided has no rest


def work_out(kind: str, numbers: Numbers) -> list[tuple[str, int]]:
    """The operations of a problem, as ("3 * 5", 15), in order; the result of the last is the answer, a whole number from 1 to 135."""
    return work_through(KINDS[kind].steps, numbers)


def work_through(steps: tuple[str, ...], numbers: Numbers) -> list[tuple[str, int]]:
    """The same of any steps; one that is a number alone has it as its result."""
    done: list[tuple[str, int]] = []
    for step in steps:
        written = step.format(*(result for _, result in done), **numbers)
        first, *rest = written.split()
        done.append((written, OPERATIONS[rest[0]](int(first), int(rest[1])) if rest else int(first)))
    return done


def choices(numbers: Numbers, answer: int, rng: Random) -> list[str]:
    """`CHOICES` distinct numbers in random order, the answer among them; the others come from wrong operations on the
    same numbers and, where these do not suffice, lie beside the answer.
    """
    wrong = wrong_results(numbers, answer)
    near = [answer + step for step in (1, -1, 2, -2, 10, -10) if answer + step > 0]
    rest = rng.sample(wrong, min(len(wrong), CHOICES - 1))
    rest += rng.sample([number for number in near if number not in rest], CHOICES - 1 - len(rest))
    found = [str(number) for number in (answer, *rest)]
    rng.shuffle(found)
    return found


def wrong_results(numbers: Numbers, answer: int) -> list[int]:
    """What the operations give with the numbers, two at a time or all together, apart from `answer`; in order, from 1 to 999."""
    given = list(numbers.values())
    found = {*given, sum(given)}
    for first, second in combinations(given, 2):
        low, high = sorted((first, second))
        found |= {low + high, high - low, low * high}
        if high % low == 0:
            found.add(high // low)
    return sorted(number for number in found if 0 < number < 1000 and number != answer)
