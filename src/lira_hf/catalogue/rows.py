"""The rows of one split of one language: its products, and its queries as typed, judged and translated.

Every row draws from its own random stream, named by seed, language, split, kind and index: rows do not depend on who
makes them or on how many others there are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import Any

from lira_hf.catalogue.candidates import Source, perfect_translation, translate
from lira_hf.catalogue.composition import Product, compose_query, compose_title, draw_intent, families, variants
from lira_hf.catalogue.letters import script_of
from lira_hf.catalogue.lexicon import Catalogue, Words, load_catalogue, load_words
from lira_hf.catalogue.noise import disturb
from lira_hf.catalogue.relevance import Shelves, judgements
from lira_hf.catalogue.splits import SPLITS, digest, held_out
from lira_hf.languages import ENGLISH

UNSEEN = "unseen"  # the slice of queries for held-out types
UNSEEN_SHARE = 0.12  # of the test queries
REDRAWS = 20  # a query that reads like an earlier one of its split is drawn again so often


@dataclass(frozen=True)
class Size:
    """How much to build, by split: queries, families of each product type, and members of each family."""

    queries: Mapping[str, int]
    families: Mapping[str, int]
    members: Mapping[str, int]


def _by_split(train: int, validation: int, test: int) -> dict[str, int]:
    return dict(zip(SPLITS, (train, validation, test), strict=True))


SIZES = {
    "small": Size(_by_split(1_200, 160, 240), _by_split(3, 1, 2), _by_split(2, 2, 2)),
    "standard": Size(_by_split(8000, 1000, 1000), _by_split(6, 2, 4), _by_split(3, 3, 3)),
}


@dataclass(frozen=True)
class Part:
    """One split of one language. It holds names only, so that it can be sent to another process."""

    language: str
    split: str
    size: Size
    seed: int

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
        return frozenset(self.catalogue.types) - (frozenset() if self.split == "test" else held_out(self.catalogue))

    def stream(self, kind: str, index: int | str) -> Random:
        """The random stream of one row."""
        return Random(f"{self.seed}/{self.language}/{self.split}/{kind}/{index}")


def stock(part: Part) -> list[Product]:
    """The products of a part: so many families of every type, so many members of each; fewer where there are fewer."""
    products: list[Product] = []
    for type_id in part.catalogue.types:
        rng = part.stream("family", type_id)
        pool = families(part.catalogue, type_id).get(part.split, ())
        for family in rng.sample(pool, min(part.size.families[part.split], len(pool))):
            members = variants(family, part.catalogue)
            for attributes in rng.sample(members, min(part.size.members[part.split], len(members))):
                id_ = f"{part.language}-p-{part.split}-{len(products):06d}"
                family_id = f"{part.language}-f-{digest(family.key):016x}"
                products.append(Product(id_, family_id, type_id, family.brand, attributes))
    return products


def corpus_rows(part: Part, products: Sequence[Product]) -> list[dict[str, Any]]:
    """The rows of the corpus table, one for each product."""
    rows = []
    for index, product in enumerate(products):
        rng = part.stream("product", index)
        title, text = compose_title(product, part.words, part.english, rng, part.catalogue, part.split)
        said, texts = {**title.values, **text.values}, {**title.slots(), **text.slots()}
        source = Source({slot: said[slot] for slot in texts}, texts)
        rows.append(
            {
                "_id": product.id,
                "title": title.text,
                "text": text.text,
                "brand": product.brand,
                "category_path": f"{part.catalogue.types[product.type].department}/{product.type}",
                "family_id": product.family_id,
                "attributes": json.dumps(product.attributes),
                "english": perfect_translation(said, part.english),
                "translations": translate(source, part.catalogue, part.english, rng, types=part.types),
            }
        )
    return rows


def query_rows(part: Part, products: Sequence[Product]) -> list[dict[str, Any]]:
    """The training rows, judged against `products`, the whole corpus of the part."""
    shelves = Shelves.stocked(products, part.catalogue)
    unknown = held_out(part.catalogue)
    pools = {unseen: [p for p in products if (p.type in unknown) == unseen] for unseen in (False, True)}
    rows: list[dict[str, Any]] = []
    earlier: set[str] = set()
    for index in range(part.size.queries[part.split]):
        rng = part.stream("query", index)
        unseen = part.split == "test" and rng.random() < UNSEEN_SHARE
        for _ in range(REDRAWS):
            intent, _ = draw_intent(pools[unseen], part.split, rng, part.catalogue)
            clean = compose_query(intent, part.words, rng)
            query = disturb(clean, part.words, part.english, rng)
            if query.surface.text not in earlier:
                break
        earlier.add(query.surface.text)
        judged = judgements(intent, shelves, part.catalogue, rng)
        texts = query.surface.slots()
        source = Source({slot: clean.values[slot] for slot in texts}, texts, query.harmed, query.typed_through)
        rows.append(
            {
                "query_id": f"{part.language}-q-{part.split}-{index:06d}",
                "query": query.surface.text,
                "language": part.language,
                "script": script_of(query.surface.text, part.language),
                "slice": [query.slice, *([UNSEEN] if unseen else [])],
                "english": perfect_translation(clean.values, part.english),
                "translations": translate(source, part.catalogue, part.english, rng, types=part.types),
                "product_ids": [product_id for product_id, _ in judged],
                "relevances": [score for _, score in judged],
                "clean": clean.text,
                "intent": json.dumps({"type": intent.type, "wanted": intent.wanted}),
            }
        )
    return rows
