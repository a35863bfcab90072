"""The split a product family, a query intent or a product type belongs to: by a hash of what it says, not by a seed.

So every build of every size, in every language, keeps the same things apart; and the text the tiny backbones are
trained on (the bucket "backbones") shares no family and no intent with any row of any build.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Mapping

from lira_hf.catalogue.lexicon import Catalogue, ProductType

SPLITS = ("train", "validation", "test")
BACKBONES = "backbones"
SHARES = {"train": 42, "validation": 14, "test": 24, BACKBONES: 20}  # per cent of the families, and of the intents
HELD_OUT = 8  # one type in so many may be held out, so that no training row ever names it


def digest(key: str) -> int:
    """A 64-bit number that depends on nothing but `key`; Python's own hash() differs from process to process."""
    return int.from_bytes(hashlib.sha256(key.encode("utf-8")).digest()[:8], "big")


@functools.cache
def held_out(catalogue: Catalogue) -> frozenset[str]:
    """The types that rows may name in the test split only (the backbones know them), about one in ten.

    A type whose name is part of another's (bicycle, bicycle helmet) stays in: its word would be met all the same.
    """

    def is_part(name: str) -> bool:
        return any(f"_{name}_" in f"_{other}_" for other in catalogue.types if other != name)

    return frozenset(name for name in catalogue.types if digest(name) % HELD_OUT == 0 and not is_part(name))


def fixed_axes(type_: ProductType, catalogue: Catalogue) -> list[str]:
    """The axes that all members of a family share; they differ in the others (colour, measure)."""
    return [axis for axis in type_.axes if axis not in catalogue.variants]


def family_key(type_: ProductType, values: Mapping[str, str], catalogue: Catalogue) -> str | None:
    """The family that `values` (axis or "brand" to value) spell out, or None where they leave one open."""
    slots = ["brand", *fixed_axes(type_, catalogue)]
    return _key(type_.id, {slot: values[slot] for slot in slots}) if all(slot in values for slot in slots) else None


def bucket(type_id: str, values: Mapping[str, str], catalogue: Catalogue) -> str:
    """The split of a text that says `type_id` and `values`: "train", "validation", "test" or "backbones".

    Values that spell out a whole family go where the family goes: a query that names brand, material and all else
    may read like a title, and would else meet it in another split.
    """
    key = family_key(catalogue.types[type_id], values, catalogue) or _key(type_id, values)
    ends = itertools.accumulate(SHARES.values())
    place = digest(key) % 100
    split = next(split for split, end in zip(SHARES, ends, strict=True) if place < end)
    return "test" if split != BACKBONES and type_id in held_out(catalogue) else split


def _key(type_id: str, values: Mapping[str, str]) -> str:
    return "|".join([type_id, *sorted(f"{slot}={value}" for slot, value in values.items())])
