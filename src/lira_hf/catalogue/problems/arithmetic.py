"""The kinds of problems: which numbers they hold, what the answer is, and what a wrong operation would give."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import combinations
from random import Random
from typing import NamedTuple

CHOICES = 5
NOTES = (20, 50, 100, 200)
RATES = (10, 20, 25, 50)  # per cent
Numbers = Mapping[str, int]  # slot to number, all of them at least 2


class Kind(NamedTuple):
    """`draw` gives the numbers of a problem, `answer` its result: a whole number from 1 to 199."""

    draw: Callable[[Random], dict[str, int]]
    answer: Callable[[Numbers], int]


def _total(rng: Random) -> dict[str, int]:
    return {"n": rng.randint(2, 9), "p": rng.randint(2, 20)}


def _basket(rng: Random) -> dict[str, int]:
    return {"n": rng.randint(2, 5), "p": rng.randint(2, 12), "k": rng.randint(2, 5), "q": rng.randint(2, 12)}


def _each(rng: Random) -> dict[str, int]:
    count, price = rng.randint(2, 9), rng.randint(2, 20)
    return {"n": count, "t": count * price}


def _difference(rng: Random) -> dict[str, int]:
    lower, higher = sorted(rng.sample(range(2, 100), 2))
    return {"p": higher, "q": lower}


def _change(rng: Random) -> dict[str, int]:
    note = rng.choice(NOTES)
    return {"m": note, "p": rng.randint(2, note - 1)}


def _discount(rng: Random) -> dict[str, int]:
    price = rng.randint(10, 120)
    return {"p": price, "d": rng.randint(2, price // 2)}


def _percent(rng: Random) -> dict[str, int]:
    rate = rng.choice(RATES)
    step = {10: 10, 20: 5, 25: 4, 50: 2}[rate]  # the smallest price of which the rate is a whole number
    return {"p": step * rng.randint(max(1, 10 // step), 200 // step), "d": rate}


def _delivery(rng: Random) -> dict[str, int]:
    return {"p": rng.randint(10, 120), "f": rng.randint(2, 40)}


def _count(rng: Random) -> dict[str, int]:
    price, count = rng.randint(2, 20), rng.randint(2, 9)
    return {"p": price, "m": price * count}


KINDS = {
    "total": Kind(_total, lambda of: of["n"] * of["p"]),
    "each": Kind(_each, lambda of: of["t"] // of["n"]),
    "basket": Kind(_basket, lambda of: of["n"] * of["p"] + of["k"] * of["q"]),
    "difference": Kind(_difference, lambda of: of["p"] - of["q"]),
    "change": Kind(_change, lambda of: of["m"] - of["p"]),
    "discount": Kind(_discount, lambda of: of["p"] - of["d"]),
    "percent": Kind(_percent, lambda of: of["p"] * (100 - of["d"]) // 100),
    "delivery": Kind(_delivery, lambda of: of["p"] + of["f"]),
    "count": Kind(_count, lambda of: of["m"] // of["p"]),
}


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
