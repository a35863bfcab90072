"""The split a product family, a query intent or a product type belongs to: by a hash of what it says, not by a seed.

So every build of every size, in every language, keeps the same things apart; and the text the tiny backbones are
trained on (the bucket "backbones") shares no family and no intent with any row of any build.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping

from lira_hf.catalogue.lexicon import Catalogue, ProductType

SPLITS = ("train", "validation", "test")
BACKBONES = "backbones"
SHARES = {"train": 42, "validation": 14, "test": 24, BACKBONES: 20}  # per cent of the families, and of the intents
_SPLIT_OF = [split for split, share in SHARES.items() for _ in range(share)]
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


@functools.cache
def core(catalogue: Catalogue, count: int) -> frozenset[str]:
    """About `count` product types for a small build: drawn by a hash, each with what people buy with it."""
    chosen: set[str] = set()
    for name in sorted(catalogue.types, key=lambda name: digest(f"core|{name}")):
        if len(chosen) >= count:
            break
        chosen |= {name, *catalogue.types[name].complements}
    return frozenset(chosen)


@functools.cache
def fixed_slots(type_: ProductType, catalogue: Catalogue) -> frozenset[str]:
    """What all members of a family share: the brand, and the axes that are no variants (colour, measure)."""
    return frozenset({"brand", *(axis for axis in type_.axes if axis not in catalogue.variants)})


def family_key(type_: ProductType, values: Mapping[str, str], catalogue: Catalogue) -> str | None:
    """The family that `values` (axis or "brand" to value) spell out, or None where they leave one open."""
    slots = fixed_slots(type_, catalogue)
    if not slots <= values.keys():
        return None
    return "|".join([type_.id, *(f"{slot}={values[slot]}" for slot in sorted(slots))])


@functools.cache
def _mark(slot: str, value: str) -> int:
    return digest(f"{slot}={value}")


@functools.cache
def _of_type(type_id: str, catalogue: Catalogue) -> tuple[int, frozenset[str], bool]:
    """What `bucket` asks of a type: its mark, the slots of a family, and whether it is held out."""
    return _mark("type", type_id), fixed_slots(catalogue.types[type_id], catalogue), type_id in held_out(catalogue)


def bucket(type_id: str, values: Mapping[str, str], catalogue: Catalogue) -> str:
    """The split of a text that says `type_id` and `values`: "train", "validation", "test" or "backbones".

    Values that spell out a whole family go where the family goes: a query that names brand, material and all else
    may read like a title, and would else meet it in another split. The hash is a sum over what is said, so that a
    million draws need no string each; the upper bits, after a multiplication, depend on every term.
    """
    total, slots, unseen = _of_type(type_id, catalogue)
    for slot in slots if slots <= values.keys() else values:
        total += _mark(slot, values[slot])
    split = _SPLIT_OF[((total * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF) >> 33) % 100]
    return "test" if unseen and split != BACKBONES else split
