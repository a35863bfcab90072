"""What shoppers want: product types by popularity, and intents of five kinds that the stock of a split can answer."""

from __future__ import annotations

import functools
import itertools
from bisect import bisect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import NamedTuple, TypeVar

from lira_hf.catalogue.composition import Intent, Product, choose
from lira_hf.catalogue.lexicon import Catalogue
from lira_hf.catalogue.splits import bucket, digest, fixed_slots

T = TypeVar("T")
# What is asked for, and how often. "exact": one product family, all of it; "brand" and "compatibility": among other wants.
KINDS = {"attribute": 0.62, "brand": 0.13, "exact": 0.12, "compatibility": 0.08, "type": 0.05}
WANTED = {1: 0.3, 2: 0.45, 3: 0.25}  # attributes of an "attribute" intent
BESIDE = 2  # attributes beside a wanted brand or compatibility, at most
HEAD = 15  # popularity of the type of rank r is 1 / (HEAD + r): the most popular one gets about 1 query in 60
TAIL = 0.5  # of the types, the least popular, are the long tail: together about 1 query in 6
TRIES, SHAPE_TRIES = 2000, 25


@functools.cache
def popularity(catalogue: Catalogue) -> dict[str, float]:
    """Product type to its weight in demand, the most popular first; the ranks are drawn once for all, by a hash."""
    ranked = sorted(catalogue.types, key=lambda name: digest(f"popularity|{name}"))
    return {name: 1 / (HEAD + rank) for rank, name in enumerate(ranked)}


@functools.cache
def long_tail(catalogue: Catalogue) -> frozenset[str]:
    """The types that few ask for."""
    ranked = list(popularity(catalogue))
    return frozenset(ranked[int(len(ranked) * (1 - TAIL)) :])


def kind_of(intent: Intent, catalogue: Catalogue) -> str:
    """The key of `KINDS` that `intent` belongs to."""
    if fixed_slots(catalogue.types[intent.type], catalogue) <= intent.wanted.keys():
        return "exact"
    return next((slot for slot in ("brand", "compatibility") if slot in intent.wanted), "attribute" if intent.wanted else "type")


class Rack(NamedTuple):
    """Product types to draw from: the products of each, and the popularity of the types, summed up."""

    shelves: tuple[Sequence[Product], ...]
    ends: tuple[float, ...]

    def draw(self, rng: Random) -> Product:
        """A product of a type drawn by popularity."""
        return choose(self.shelves[min(bisect(self.ends, rng.random() * self.ends[-1]), len(self.shelves) - 1)], rng)


@dataclass(frozen=True)
class Demand:
    """The intents of `split` that some products answer. `every` and `compatible` (those with that axis) are its types."""

    split: str
    catalogue: Catalogue
    every: Rack
    compatible: Rack

    @classmethod
    def for_stock(cls, products: Iterable[Product], split: str, catalogue: Catalogue) -> Demand:
        """The demand that `products` can meet."""
        shelves: dict[str, list[Product]] = {}
        for product in products:
            shelves.setdefault(product.type, []).append(product)
        weights = popularity(catalogue)
        racks = [
            Rack(tuple(shelves[name] for name in names), tuple(itertools.accumulate(weights[name] for name in names)))
            for names in (list(shelves), [name for name in shelves if "compatibility" in catalogue.types[name].axes])
        ]
        return cls(split, catalogue, *racks)

    def draw(self, rng: Random) -> tuple[Intent, Product]:
        """An intent of the split, and a product that answers it fully.

        Raises ValueError when the products answer no intent of the split (there are too few of them).
        """
        for attempt in range(TRIES if self.every.shelves else 0):
            if attempt % SHAPE_TRIES == 0:  # drawn once for many products: kinds that seldom fit the split would else be too rare
                kind = _choose(rng, KINDS)
                if kind == "compatibility" and not self.compatible.shelves:
                    kind = "attribute"
                count = _choose(rng, WANTED) if kind == "attribute" else rng.randrange(BESIDE + 1)
            product = (self.compatible if kind == "compatibility" else self.every).draw(rng)
            wanted = self._wanted(product, kind, count, rng)
            if bucket(product.type, wanted, self.catalogue) == self.split:
                return Intent(product.type, wanted), product
        held = sum(map(len, self.every.shelves))
        raise ValueError(f"products: none of these {held} answers an intent of the split {self.split!r}; give more")

    def _wanted(self, product: Product, kind: str, count: int, rng: Random) -> dict[str, str]:
        """Wanted values of an intent of `kind`."""
        if kind == "type":
            return {}
        attributes = product.attributes
        if kind == "exact":
            fixed = (axis for axis in attributes if axis not in self.catalogue.variants)
            return {"brand": product.brand, **{axis: attributes[axis] for axis in fixed}}
        wanted = {kind: product.brand} if kind == "brand" else {kind: attributes[kind]} if kind in attributes else {}
        open_axes = [axis for axis in attributes if axis not in wanted]
        for left in range(len(open_axes), max(len(open_axes) - count, 0), -1):
            place = int(rng.random() * left)
            axis, open_axes[place] = open_axes[place], open_axes[left - 1]  # the drawn one gives its place to the last
            wanted[axis] = attributes[axis]
        return wanted


def _choose(rng: Random, shares: Mapping[T, float]) -> T:
    place = rng.random()
    for name, share in shares.items():
        place -= share
        if place < 0:
            return name
    return name
