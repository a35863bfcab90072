"""Relevance by rule: a grade follows from what a query wants and what a product is, so it is true by construction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from lira_hf.catalogue.composition import Intent, Product, choose
from lira_hf.catalogue.lexicon import Catalogue

EXACT, SUBSTITUTE, COMPLEMENT, IRRELEVANT = 3, 2, 1, 0
JUDGED = 20  # products a query has judgements for, at least
ZEROS = 4  # judged irrelevant ones, at least: without any, a query with many answers would teach no difference


def grade(intent: Intent, product: Product, catalogue: Catalogue) -> int:
    """How well `product` answers `intent`, 0 to 3.

    3: the type, and every wanted value is right. 2: the type, and exactly one wanted value is wrong.
    1: a complement (what people buy with the wanted type) that matches: wherever its type offers a wanted value, it has it
    (a red handbag with the red dress; the brand may differ). 0: anything else.
    """
    if product.type == intent.type:
        values = product.values
        wrong = sum(values.get(slot) != value for slot, value in intent.wanted.items())
        return {0: EXACT, 1: SUBSTITUTE}.get(wrong, IRRELEVANT)
    if product.type not in catalogue.types[intent.type].complements:
        return IRRELEVANT
    offered = catalogue.types[product.type].axes
    clashes = any(value in offered.get(slot, ()) and product.attributes[slot] != value for slot, value in intent.wanted.items())
    return IRRELEVANT if clashes else COMPLEMENT


@dataclass(frozen=True)
class Shelf:
    """The products of one type, by number. Sets of them are bits of an integer: `every`, and `having` by slot and value."""

    stock: range
    every: int
    having: dict[str, dict[str, int]]

    @classmethod
    def filled(cls, products: Sequence[Product], stock: range) -> Shelf:
        """The shelf of the products of `stock`, which are of one type."""
        having: dict[str, dict[str, int]] = {}
        for place, number in enumerate(stock):
            for slot, value in products[number].values.items():
                of_slot = having.setdefault(slot, {})
                of_slot[value] = of_slot.get(value, 0) | 1 << place
        return cls(stock, (1 << len(stock)) - 1, having)

    def numbers(self, members: int) -> list[int]:
        """The numbers of the products in the set `members`, ascending."""
        if members == self.every:
            return list(self.stock)
        return [number for number, bit in zip(self.stock, bin(members)[:1:-1], strict=False) if bit == "1"] if members else []


class Shelves:
    """The corpus of one split. A product is known by its number, its place in the corpus.

    `products` must stand together by type, and types by department, as `stock` gives them. Raises ValueError otherwise.
    """

    def __init__(self, products: Sequence[Product], catalogue: Catalogue) -> None:
        self.catalogue, self.size = catalogue, len(products)
        self.by_type: dict[str, Shelf] = {}
        self.departments: dict[str, range] = {}
        end = 0
        for start, product in enumerate(products):
            if start < end:
                continue
            end = next((n for n in range(start, self.size) if products[n].type != product.type), self.size)
            department = catalogue.types[product.type].department
            before = self.departments.get(department, range(start, start))
            if product.type in self.by_type or before.stop != start:
                raise ValueError(f"products: those of type {product.type!r} do not stand together with their type and department")
            self.by_type[product.type] = Shelf.filled(products, range(start, end))
            self.departments[department] = range(before.start, end)


def judgements(intent: Intent, shelves: Shelves, rng: Random) -> tuple[list[int], list[int]]:
    """The numbers of every product with a grade above 0, best first, then of irrelevant ones; and their grades.

    The irrelevant ones are the hardest there are (the same type with two wrong values, then the same department, then
    any) and as many as make `JUDGED` judgements, but at least `ZEROS`; fewer only where the corpus has no more.
    """
    numbers: list[int] = []
    grades: list[int] = []
    own, type_ = shelves.by_type.get(intent.type), shelves.catalogue.types[intent.type]
    unfit: list[int] = []
    if own:
        exact, near = _exact_and_near(own, intent)
        for members, score in ((exact, EXACT), (near, SUBSTITUTE)):
            found = own.numbers(members)
            numbers += found
            grades += [score] * len(found)
        unfit = own.numbers(own.every & ~exact & ~near)
    for name in type_.complements:
        if name in shelves.by_type:
            found = _matching(shelves.by_type[name], shelves.catalogue.types[name].axes, intent)
            numbers += found
            grades += [COMPLEMENT] * len(found)
    missing = max(ZEROS, JUDGED - len(numbers))
    zeros = unfit if len(unfit) <= missing else _some(unfit, missing, rng)
    for pool in (shelves.departments.get(type_.department, range(0)), range(shelves.size)):
        if len(zeros) < missing:
            zeros = zeros + _others(pool, {*numbers, *zeros}, missing - len(zeros), rng)
    return numbers + zeros, grades + [IRRELEVANT] * len(zeros)


def _exact_and_near(shelf: Shelf, intent: Intent) -> tuple[int, int]:
    """The products with every wanted value, and those with all but one."""
    exact, near = shelf.every, 0
    for slot, value in intent.wanted.items():
        right = shelf.having.get(slot, {}).get(value, 0)
        near = near & right | exact & ~right
        exact &= right
    return exact, near


def _matching(shelf: Shelf, axes: dict[str, tuple[str, ...]], intent: Intent) -> list[int]:
    """The complements that have every wanted value their type offers."""
    members = shelf.every
    for slot, value in intent.wanted.items():
        if value in axes.get(slot, ()):
            members &= shelf.having.get(slot, {}).get(value, 0)
    return shelf.numbers(members)


def _others(pool: range, taken: set[int], count: int, rng: Random) -> list[int]:
    """`count` numbers of `pool` that are not in `taken`, or all there are."""
    if len(pool) < 4 * (count + len(taken)):
        free = [number for number in pool if number not in taken]
        return free if len(free) <= count else _some(free, count, rng)
    found: dict[int, None] = {}  # a big pool: trying is faster than listing it
    while len(found) < count:
        number = choose(pool, rng)
        if number not in taken:
            found[number] = None
    return list(found)


def _some(numbers: Sequence[int], count: int, rng: Random) -> list[int]:
    """`count` of `numbers`, of which there are more."""
    found: dict[int, None] = {}
    while len(found) < count:
        found[choose(numbers, rng)] = None
    return list(found)
