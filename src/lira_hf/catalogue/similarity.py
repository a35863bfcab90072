"""Pairs of queries with a graded similarity, 0 to 5, as in semantic textual similarity (STS); true by rule, as relevance is.

The rule is ours. A pair starts at 5 times the kinship of its two product types (`KINSHIP`). Every slot that the queries do not ask
for alike takes its share of that away (`WEIGHTS`): all of it where they want different values, half where only one of them asks,
and between the two for sizes of one type, by how many steps they are apart. With all other wants the same, a closer kinship
scores higher; and no pair of two types scores as high as one of the same type that differs in a single slot. A query wants at most
`WANTED` values, so that something is always left. similarity_builder.py puts pairs on disk.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from random import Random
from typing import Any

from lira_hf.catalogue.candidates import perfect_translation
from lira_hf.catalogue.composition import Intent, choose
from lira_hf.catalogue.demand import kind_of
from lira_hf.catalogue.lexicon import Catalogue
from lira_hf.catalogue.rows import UNSEEN_SHARE, Part, Wish, candidates_of, described, market, tags_of, worded
from lira_hf.catalogue.splits import bucket
from lira_hf.catalogue.tables import TRANSLATION

HIGHEST = 5.0
# What is left of the similarity where two types are not the same: of one category, of one department, bought together, or nothing of this.
KINSHIP = {"same type": 1.0, "same category": 0.5, "same department": 0.25, "complement": 0.1, "unrelated": 0.0}
# The share of it that goes where two queries want different values: a case for another phone is of no use, another colour may be.
WEIGHTS = {
    "compatibility": 0.30, "audience": 0.28, "flavour": 0.27, "brand": 0.25, "scent": 0.24, "condition": 0.22,
    "material": 0.22, "feature": 0.22, "measure": 0.21, "colour": 0.20, "occasion": 0.18, "pattern": 0.16,
}  # fmt: skip
WANTED = 3  # values that a query wants, at most
DECIMALS = 6  # of a score: equal sums of different shares may differ in the last bits

# How a pair is drawn: the kinship of the types, and in how many slots the second query is changed after what it can share is copied.
DRAWN = {"same type": 0.50, "same category": 0.18, "same department": 0.12, "complement": 0.08, "unrelated": 0.12}
CHANGES = {0: 0.20, 1: 0.28, 2: 0.29, 3: 0.23}
DROPPED = 0.25  # of the changed slots that were wanted; the others get another value
RELUCTANCE = 3.0  # a slot that was not wanted is so much less likely to be changed, by being wanted
TRIES = 60  # second queries to look at before the first one is drawn again

COLUMNS: dict[str, Any] = {
    "pair_id": "string",
    "language": "string",
    "query": "string",
    "query_pair": "string",
    "english": "string",
    "english_pair": "string",
    "slice": ["string"],
    "slice_pair": ["string"],
    "translations": [TRANSLATION],
    "translations_pair": [TRANSLATION],
    "score": "float32",  # 0 to 5
    "intent": "string",  # JSON, as in LazRetrieval: all that the score depends on
    "intent_pair": "string",
}


@functools.cache
def kinship(first: str, second: str, catalogue: Catalogue) -> str:
    """How two types are related: a key of `KINSHIP`, the closest that holds; the order of the two does not matter."""
    one, other = catalogue.types[first], catalogue.types[second]
    if first == second:
        return "same type"
    if one.department == other.department:
        return "same category" if one.category == other.category else "same department"
    return "complement" if first in other.complements or second in one.complements else "unrelated"


def likeness(first: Intent, second: Intent, catalogue: Catalogue) -> float:
    """The gold score of two queries, 0.0 to 5.0, from what they ask for; the order of the two does not matter."""
    lost = 0.0
    for slot, share in WEIGHTS.items():
        one, other = first.wanted.get(slot), second.wanted.get(slot)
        if one != other:
            lost += share * (1 + _distance(slot, one, other, first.type, second.type, catalogue)) / 2
    return round(HIGHEST * KINSHIP[kinship(first.type, second.type, catalogue)] * (1 - lost), DECIMALS)


def _distance(slot: str, one: str | None, other: str | None, first: str, second: str, catalogue: Catalogue) -> float:
    """How far two values of a slot are apart, 0 to 1: 0 where one query leaves it open, and 1 except for the sizes of one type."""
    if one is None or other is None:
        return 0.0
    if slot != "measure" or first != second:
        return 1.0
    sizes = catalogue.types[first].axes[slot]  # listed in order
    return abs(sizes.index(one) - sizes.index(other)) / (len(sizes) - 1)


@functools.cache
def _relatives(type_id: str, types: frozenset[str], catalogue: Catalogue) -> dict[str, tuple[str, ...]]:
    """Of `types`, those of each kinship to a type."""
    found: dict[str, list[str]] = {}
    for other in sorted(types):
        found.setdefault(kinship(type_id, other, catalogue), []).append(other)
    return {name: tuple(of) for name, of in found.items()}


def draw_pair(part: Part, rng: Random) -> tuple[Intent, Intent]:
    """Two intents of the split of `part`, in no order.

    Neither spells out one article ("exact"): such a query may give a model code, and nobody could tell from it what is wanted.
    """
    # Drawn once for many first queries: kinships and changes that seldom can be had would else be too rare.
    akin, changes = (rng.choices(list(shares), list(shares.values()))[0] for shares in (DRAWN, CHANGES))
    while True:
        first, _ = market(part).demand[part.split == "test" and rng.random() < UNSEEN_SHARE].draw(rng)
        types = _relatives(first.type, part.types, part.catalogue).get(akin)
        if not types or kind_of(first, part.catalogue) == "exact":
            continue
        for _ in range(TRIES):
            type_id = choose(types, rng)
            second = Intent(type_id, _changed(first.wanted, type_id, changes, part.catalogue, rng))
            if bucket(type_id, second.wanted, part.catalogue) == part.split and kind_of(second, part.catalogue) != "exact":
                return (first, second) if rng.random() < 0.5 else (second, first)


def _changed(wanted: Mapping[str, str], type_id: str, changes: int, catalogue: Catalogue, rng: Random) -> dict[str, str]:
    """Of `wanted` what a type offers, with so many slots dropped, given another value, or added."""
    type_ = catalogue.types[type_id]
    offered = {"brand": catalogue.brands[type_.department], **type_.axes}
    kept = {slot: value for slot, value in wanted.items() if value in offered.get(slot, ())}
    ranked = sorted(offered, key=lambda slot: rng.random() * (1 if slot in kept else RELUCTANCE))
    for slot in ranked[:changes]:
        others = [value for value in offered[slot] if value != kept.get(slot)]
        if slot in kept and (not others or rng.random() < DROPPED):
            del kept[slot]
        elif slot in kept or len(kept) < WANTED:
            kept[slot] = choose(others, rng)
    return kept


def pair_rows(part: Part, count: int) -> list[dict[str, Any]]:
    """The first `count` rows of a part, as `COLUMNS` names them; no two of the same two texts, and none of a text with itself.

    A row draws from its own random stream, so that more rows begin with the fewer.
    """
    earlier: set[frozenset[str]] = set()
    rows = []
    for number in range(count):
        rng = part.stream("similarity", number)
        while True:
            intents = draw_pair(part, rng)
            wishes = [worded(part, intent, rng) for intent in intents]
            texts = frozenset(wish.query.surface.text for wish in wishes)
            if len(texts) == 2 and texts not in earlier:
                break
        earlier.add(texts)
        first, second = (_side(part, wish, rng) for wish in wishes)
        row = {**first, **{f"{name}_pair": value for name, value in second.items()}}
        pair_id = f"{part.language}-s-{part.split}-{number:06d}"
        rows.append({"pair_id": pair_id, "language": part.language, **row, "score": likeness(*intents, part.catalogue)})
    return rows


def _side(part: Part, wish: Wish, rng: Random) -> dict[str, Any]:
    """One query of a pair."""
    return {
        "query": wish.query.surface.text,
        "english": perfect_translation(wish.clean.values, part.english),
        "slice": tags_of(part, wish),
        "translations": [candidate._asdict() for candidate in candidates_of(part, wish, rng)],
        "intent": described(part, wish.intent),
    }
