"""Products, how a language titles them, and how it words a wish for one: titles and queries.

A text is composed of pieces that remember their slot; `Surface.values` says what each slot means. Nothing here is
noisy or wrong: noise.py and candidates.py damage what this module composes.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import NamedTuple, TypeVar

from lira_hf.catalogue.lexicon import Catalogue, Words
from lira_hf.catalogue.splits import BACKBONES, bucket, digest, family_key, fixed_slots
from lira_hf.catalogue.templates import Piece, Template, join_pieces

T = TypeVar("T")
# All shares are probabilities in [0, 1].
FIRST_FORM = 0.6  # the usual word, rather than one of its synonyms
TITLE_ATTRIBUTE = 0.8  # an attribute stands in the title, rather than in the text
TITLE_PROMO = 0.4
TITLE_CODE = 0.35  # the model code stands in the title, rather than at the end of the text
TITLE_ENGLISH = 0.15  # a slot of a title in English, as shops write
OWN_WORDS = ("brand", "code", "audience", "compatibility")  # never mixed in: English puts "for" before them, and shops here do not
OWN_SCRIPT_BRAND = 0.3
BARE_QUERY = 0.5  # the phrase alone, without "cheap" or "buy" around it
QUERY_CODE = 0.6  # a query for one exact product gives its model code, rather than everything the product is
SAID_WITH_CODE = 0.3  # an attribute said beside the code
CODE_LETTERS = "ABCDEFGHKLMNPRSTVXZ"
REDRAWS = 8  # titles that another split might spell are drawn again so often


@dataclass(frozen=True)
class Family:
    """An article: type, brand and every axis its members share (`fixed`, axis to value). `key` names it for good."""

    key: str
    type: str
    brand: str
    fixed: Mapping[str, str]


@dataclass(frozen=True)
class Product:
    """A member of a family. `attributes` has a value on every axis of its type."""

    id: str
    family_id: str
    type: str
    brand: str
    attributes: Mapping[str, str]

    @property
    def values(self) -> dict[str, str]:
        """What a title may say beside the type: brand and attributes, slot to value."""
        return {"brand": self.brand, **self.attributes}


class Intent(NamedTuple):
    """What a query asks for: a type, and wanted values by axis (or "brand"); all that a family is, or up to three of them."""

    type: str
    wanted: Mapping[str, str]


class Surface:
    """A text: its pieces in order, and the value each slot stands for ("type", axes, "brand", "promo", "code").

    `text` is the pieces as one string; `slots` maps a slot to the text that words it, in the order of the text (a slot
    said twice counts once). Nothing changes a surface after it was made.
    """

    __slots__ = ("pieces", "slots", "text", "values")

    def __init__(self, values: Mapping[str, str], pieces: Sequence[Piece]) -> None:
        self.values, self.pieces = values, pieces
        self.text = "".join([text for _, text in pieces])
        self.slots: dict[str, str] = {}
        for slot, text in pieces:
            if slot and slot not in self.slots:
                self.slots[slot] = text


@functools.cache
def families(catalogue: Catalogue, type_id: str) -> Mapping[str, tuple[Family, ...]]:
    """Every family of a type, by the split it belongs to. A split without one is missing."""
    type_ = catalogue.types[type_id]
    axes = [axis for axis in type_.axes if axis in fixed_slots(type_, catalogue)]
    out: dict[str, list[Family]] = {}
    for brand, *values in itertools.product(catalogue.brands[type_.department], *(type_.axes[axis] for axis in axes)):
        fixed = dict(zip(axes, values, strict=True))
        key = family_key(type_, {"brand": brand, **fixed}, catalogue)
        split = bucket(type_id, {"brand": brand, **fixed}, catalogue)
        out.setdefault(split, []).append(Family(key, type_id, brand, fixed))
    return {split: tuple(found) for split, found in out.items()}


def variants(family: Family, catalogue: Catalogue) -> list[dict[str, str]]:
    """The attributes of every possible member of a family, axis to value in the order of its type."""
    axes = catalogue.types[family.type].axes
    open_axes = [(value,) if (value := family.fixed.get(axis)) else values for axis, values in axes.items()]
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*open_axes)]


def model_code(family: str) -> str:
    """The code a maker prints on every member of a family, such as "XR-2041"; `family` is its key."""
    number = digest(f"code|{family}")
    first, second = (CODE_LETTERS[number // 19**place % 19] for place in (0, 1))
    return f"{first}{second}-{1000 + number // 361 % 9000}"


def pick(forms: Sequence[str], rng: Random) -> str:
    """The first form with probability `FIRST_FORM`, else one of the others."""
    share = rng.random() if len(forms) > 1 else 0.0
    if share < FIRST_FORM:
        return forms[0]
    return forms[1 + int((share - FIRST_FORM) / (1 - FIRST_FORM) * (len(forms) - 1))]


def choose(items: Sequence[T], rng: Random) -> T:
    """One of `items`, of which there is at least one; several times faster than `rng.choice`, for millions of draws."""
    return items[int(rng.random() * len(items))]


def word_of(slot: str, value: str, words: Words, rng: Random | None = None) -> str:
    """A slot's value in words: the first form, or with `rng` any; brands stay Latin without `rng`."""
    if slot == "brand":
        return words.brands.get(value, value) if rng and rng.random() < OWN_SCRIPT_BRAND else value
    forms = words.forms[slot].get(value) if slot in words.forms else None
    if forms is None:
        return value  # a promo or a model code: its value is its text
    return pick(forms, rng) if rng else forms[0]


def compose_query(intent: Intent, words: Words, rng: Random, catalogue: Catalogue) -> Surface:
    """A query for `intent` as a shopper types it, in any of the language's orders of words.

    Who wants one exact product may give the model code and leave most of the rest out.
    """
    values = {"type": intent.type, **intent.wanted}
    family = family_key(catalogue.types[intent.type], intent.wanted, catalogue) if "brand" in intent.wanted else None
    if family and rng.random() < QUERY_CODE:
        values = {slot: value for slot, value in values.items() if slot in ("type", "brand") or rng.random() < SAID_WITH_CODE}
        values["code"] = model_code(family)
    texts = {slot: word_of(slot, value, words, rng) for slot, value in values.items()}
    return Surface(values, wrap(choose(words.phrases, rng), texts, words, rng))


def wrap(phrase: Template, texts: Mapping[str, str], words: Words, rng: Random) -> list[Piece]:
    """The pieces of `phrase`, alone or with the words around it that people add to a search."""
    pieces = phrase.pieces(texts)
    if code := texts.get("code"):  # after the brand, as on the box; the orders of words have no place for it
        place = next((place for place, piece in enumerate(pieces) if piece.slot == "brand"), len(pieces) - 1)
        pieces[place + 1 : place + 1] = [Piece(None, " "), Piece("code", code)]
        pieces = join_pieces(pieces)
    if rng.random() < BARE_QUERY or not words.wrappers:
        return pieces
    before, after = choose(words.wrappers, rng)
    return [*([Piece(None, before)] if before else ()), *pieces, *([Piece(None, after)] if after else ())]


def compose_title(product: Product, words: Words, english: Words, rng: Random, catalogue: Catalogue, split: str) -> tuple[Surface, Surface]:
    """A listing of `product` in shop language: its title, and a text with the attributes and the code the title leaves out.

    Together the two surfaces carry every value of the product. What the title says never is what a text of the
    backbones says, or (where `split` is "backbones") always.
    """
    for _ in range(REDRAWS):
        shown = [axis for axis in product.attributes if rng.random() < TITLE_ATTRIBUTE]
        said = {"brand": product.brand, **{axis: product.attributes[axis] for axis in shown}}
        if (bucket(product.type, said, catalogue) == BACKBONES) == (split == BACKBONES):
            break
    else:
        said = product.values  # the whole family is spelt out, and it belongs to `split`
    values = {"type": product.type, **said}
    texts = {
        slot: word_of(slot, value, english if slot not in OWN_WORDS and rng.random() < TITLE_ENGLISH else words, rng)
        for slot, value in values.items()
    }
    if words.promos and rng.random() < TITLE_PROMO:
        values["promo"] = texts["promo"] = choose(words.promos, rng)
    code = model_code(family_key(catalogue.types[product.type], product.values, catalogue))
    if rng.random() < TITLE_CODE:
        values["code"] = texts["code"] = code
    pieces = choose(words.titles, rng).pieces(texts)
    present = {piece.slot for piece in pieces}  # not every order of words has room for a promo or a code
    title = Surface({slot: value for slot, value in values.items() if slot in present}, pieces)
    rest = {axis: value for axis, value in product.attributes.items() if axis not in said}
    if "code" not in present:
        rest["code"] = code
    pieces = [Piece(axis, word_of(axis, value, words, rng)) for axis, value in rest.items()]
    commas = [Piece(None, ", ")] * len(pieces)
    return title, Surface(rest, list(itertools.chain.from_iterable(zip(commas, pieces, strict=True)))[1:])
