"""The rows of one split of one language: its products, and its queries as typed, judged and translated.

Every product, and every block of queries, draws from its own random stream, named by seed, language, split, kind and
index: rows do not depend on who makes them. They are made block by block and kept by column, because a million are.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from random import Random
from typing import Any, NamedTuple

from lira_hf.catalogue.candidates import Candidate, Desk, Source, perfect_translation, translate
from lira_hf.catalogue.composition import Intent, Product, Surface, compose_query, compose_title, families, variants
from lira_hf.catalogue.demand import Demand, kind_of, long_tail
from lira_hf.catalogue.letters import script_of
from lira_hf.catalogue.lexicon import Catalogue, Words, load_catalogue, load_words
from lira_hf.catalogue.noise import Query, disturb
from lira_hf.catalogue.relevance import IRRELEVANT, Shelves, judgements
from lira_hf.catalogue.splits import core, digest, held_out
from lira_hf.catalogue.tables import by_column, named
from lira_hf.languages import ENGLISH

UNSEEN = "unseen"  # the slice of queries for held-out types
UNSEEN_SHARE = 0.12  # of the test queries
LONG_TAIL = "long_tail"  # the slice of queries for types that few ask for
BLOCK = 256  # rows made together, one step after another: the code and words of a step stay in the processor's cache
REDRAWS = 20  # a query that reads like an earlier one of its shard is drawn again so often


@dataclass(frozen=True)
class Extent:
    """How much of one split: queries, families of each product type, and members of each family."""

    queries: int
    families: int
    members: int


@dataclass(frozen=True)
class Size:
    """How much to build, by split; `types` product types (None: all there are)."""

    train: Extent
    validation: Extent
    test: Extent
    types: int | None = None


SIZES = {
    "small": Size(Extent(1_200, 3, 2), Extent(160, 1, 2), Extent(240, 2, 2), types=240),
    "standard": Size(Extent(8_000, 6, 3), Extent(1_000, 2, 3), Extent(1_000, 4, 3)),  # 10,000 rows: the paper's LazRetrieval
    "mega": Size(Extent(980_000, 6, 3), Extent(10_000, 3, 3), Extent(10_000, 6, 3)),  # a million: LazRetrieval-mega
}


@dataclass(frozen=True)
class Part:
    """One split of one language. It holds names and numbers only, so that it can be sent to another process."""

    language: str
    split: str
    size: Size
    seed: int
    desk: Desk = field(default=Desk(), compare=False)  # the market of a part does not depend on who translates

    @property
    def extent(self) -> Extent:
        """How much of this split."""
        return getattr(self.size, self.split)

    @cached_property
    def catalogue(self) -> Catalogue:
        """What is sold."""
        return load_catalogue()

    @cached_property
    def words(self) -> Words:
        """The words of the language."""
        return load_words(self.language)

    @cached_property
    def english(self) -> Words:
        """The English words."""
        return load_words(ENGLISH.code)

    @cached_property
    def types(self) -> frozenset[str]:
        """The product types that this split may name."""
        sold = core(self.catalogue, self.size.types) if self.size.types else frozenset(self.catalogue.types)
        return sold if self.split == "test" else sold - held_out(self.catalogue)

    def stream(self, kind: str, index: int | str) -> Random:
        """The random stream of one product, family or block of queries."""
        return Random(digest(f"{self.seed}/{self.language}/{self.split}/{kind}/{index}"))


def stock(part: Part) -> list[Product]:
    """The products of a part: so many families of every type, so many members of each; fewer where there are fewer."""
    products: list[Product] = []
    for type_id in part.catalogue.types:
        if type_id not in part.types:
            continue
        rng = part.stream("family", type_id)
        pool = families(part.catalogue, type_id).get(part.split, ())
        for family in rng.sample(pool, min(part.extent.families, len(pool))):
            members = variants(family, part.catalogue)
            for attributes in rng.sample(members, min(part.extent.members, len(members))):
                id_ = f"{part.language}-p-{part.split}-{len(products):06d}"
                family_id = f"{part.language}-f-{digest(family.key):016x}"
                products.append(Product(id_, family_id, type_id, family.brand, attributes))
    return products


@dataclass(frozen=True)
class Market:
    """What the queries of a part are drawn from and judged against: its products, and the demand for seen and unseen types."""

    products: Sequence[Product]
    shelves: Shelves
    demand: Mapping[bool, Demand]  # unseen → the intents


@functools.lru_cache(maxsize=1)  # the shards of a part follow each other, and every process makes several
def market(part: Part) -> Market:
    """The products of `part`, sorted for judging and for drawing intents."""
    products, unknown = stock(part), held_out(part.catalogue)
    pools = {unseen: [p for p in products if (p.type in unknown) == unseen] for unseen in (False, True)}
    demand = {unseen: Demand.for_stock(pool, part.split, part.catalogue) for unseen, pool in pools.items()}
    return Market(products, Shelves(products, part.catalogue), demand)


def corpus_columns(part: Part, start: int, stop: int) -> dict[str, Sequence[Any]]:
    """The corpus table of the products number `start` to `stop`, by column."""
    rows: list[tuple[Any, ...]] = []
    for index, product in enumerate(market(part).products[start:stop], start):
        rng = part.stream("product", index)
        title, text = compose_title(product, part.words, part.english, rng, part.catalogue, part.split)
        said, texts = {**title.values, **text.values}, {**title.slots, **text.slots}
        source = Source({slot: said[slot] for slot in texts}, texts)
        type_ = part.catalogue.types[product.type]
        row = (
            product.id,
            title.text,
            text.text,
            product.brand,
            f"{type_.department}/{type_.category}/{type_.id}",
            product.family_id,
            json.dumps(product.attributes),
            perfect_translation(said, part.english),
            translate(source, part.catalogue, part.english, rng, types=part.types, desk=part.desk),
        )
        rows.append(row)
    return by_column("-corpus", rows)


class Wish(NamedTuple):
    """A query before it is judged and translated."""

    intent: Intent
    clean: Surface
    query: Query


def query_columns(part: Part, start: int, stop: int) -> dict[str, Sequence[Any]]:
    """The training rows number `start` (a multiple of `BLOCK`) to `stop`, by column, judged against the corpus of the part."""
    sold, earlier = market(part), set()
    rows: list[tuple[Any, ...]] = []
    for begin in range(start, stop, BLOCK):
        rng, numbers = part.stream("queries", begin // BLOCK), range(begin, min(begin + BLOCK, stop))
        wishes = [_wish(part, sold, rng, earlier) for _ in numbers]
        judged = [judgements(wish.intent, sold.shelves, rng) for wish in wishes]
        translated = [candidates_of(part, wish, rng) for wish in wishes]
        rows += [_row(part, *made) for made in zip(numbers, wishes, judged, translated, strict=True)]
    columns = by_column("", rows)
    return columns | {"product_ids": named([product.id for product in sold.products], columns["product_ids"])}


def _wish(part: Part, sold: Market, rng: Random, earlier: set[str]) -> Wish:
    """A query that reads like none of `earlier`, if there is one, and is put there."""
    unseen = part.split == "test" and rng.random() < UNSEEN_SHARE
    for _ in range(REDRAWS):
        wish = worded(part, sold.demand[unseen].draw(rng)[0], rng)
        if wish.query.surface.text not in earlier:
            break
    earlier.add(wish.query.surface.text)
    return wish


def worded(part: Part, intent: Intent, rng: Random) -> Wish:
    """`intent` as somebody types it."""
    clean = compose_query(intent, part.words, rng, part.catalogue)
    return Wish(intent, clean, disturb(clean, part.words, part.english, rng))


def candidates_of(part: Part, wish: Wish, rng: Random) -> list[Candidate]:
    """The candidate translations of a query as it was typed."""
    texts, values = wish.query.surface.slots, wish.clean.values
    source = Source({slot: values[slot] for slot in texts}, texts, wish.query.harmed, wish.query.typed_through)
    return translate(source, part.catalogue, part.english, rng, types=part.types, desk=part.desk)


def _row(part: Part, number: int, wish: Wish, judged: tuple[list[int], list[int]], translated: list[Candidate]) -> tuple[Any, ...]:
    """A training row in the order of `COLUMNS`, with the numbers of its products in place of their ids."""
    intent, clean, query = wish
    return (
        f"{part.language}-q-{part.split}-{number:06d}",
        query.surface.text,
        part.language,
        script_of(query.surface.text, part.language),
        tags_of(part, wish),
        perfect_translation(clean.values, part.english),
        translated,
        *judged,
        clean.text,
        described(part, intent),
    )


def tags_of(part: Part, wish: Wish) -> list[str]:
    """The slices of a query: how it was typed, and what sort of type it asks for."""
    type_id = wish.intent.type
    tags = ((UNSEEN, held_out(part.catalogue)), (LONG_TAIL, long_tail(part.catalogue)))
    return [wish.query.slice, *(tag for tag, types in tags if type_id in types)]


def described(part: Part, intent: Intent) -> str:
    """The column `intent`."""
    return json.dumps({"kind": kind_of(intent, part.catalogue), "type": intent.type, "wanted": intent.wanted})


def counted(columns: Mapping[str, Sequence[Any]]) -> dict[str, int]:
    """What the card says of some training rows: queries, judgements, those above 0, and rows by slice."""
    counts = {"queries": len(columns["query"]), "judgements": 0, "relevant": 0}
    for grades in columns["relevances"]:
        counts["judgements"] += len(grades)
        counts["relevant"] += len(grades) - grades.count(IRRELEVANT)
    for tags in columns["slice"]:
        for tag in tags:
            counts[f"slice:{tag}"] = counts.get(f"slice:{tag}", 0) + 1
    return counts
