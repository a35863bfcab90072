"""Relevance by rule: a grade follows from what a query wants and what a product is, so it is true by construction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random

from lira_hf.catalogue.composition import Intent, Product
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
class Shelves:
    """The products of one split's corpus, found by type and by department."""

    by_type: dict[str, list[Product]]
    by_department: dict[str, list[Product]]

    @classmethod
    def stocked(cls, products: Iterable[Product], catalogue: Catalogue) -> Shelves:
        """Shelves filled with `products`, in their order."""
        shelves = cls({}, {})
        for product in products:
            shelves.by_type.setdefault(product.type, []).append(product)
            shelves.by_department.setdefault(catalogue.types[product.type].department, []).append(product)
        return shelves


def judgements(intent: Intent, shelves: Shelves, catalogue: Catalogue, rng: Random) -> list[tuple[str, int]]:
    """(product id, grade) of every product with a grade above 0, best first, then of irrelevant ones.

    The irrelevant ones are the hardest there are (the same type with two wrong values, then the same department, then
    any) and as many as make `JUDGED` judgements, but at least `ZEROS`; fewer only where the corpus has no more.
    """
    type_ = catalogue.types[intent.type]
    related = [p for name in (intent.type, *type_.complements) for p in shelves.by_type.get(name, ())]
    graded = [(product.id, grade(intent, product, catalogue)) for product in related]
    found = sorted((pair for pair in graded if pair[1] > IRRELEVANT), key=lambda pair: (-pair[1], pair[0]))
    missing = max(ZEROS, JUDGED - len(found))
    taken = {id_ for id_, _ in found}
    for shelf in (
        shelves.by_type.get(intent.type, []),
        shelves.by_department.get(type_.department, []),
        [product for products in shelves.by_department.values() for product in products],
    ):
        zeros = _unjudged(shelf, taken, missing, rng)
        found += [(id_, IRRELEVANT) for id_ in zeros]
        taken.update(zeros)
        missing -= len(zeros)
        if not missing:
            break
    return found


def _unjudged(shelf: Sequence[Product], taken: set[str], count: int, rng: Random) -> list[str]:
    ids = [product.id for product in shelf if product.id not in taken]
    return ids if len(ids) <= count else rng.sample(ids, count)
