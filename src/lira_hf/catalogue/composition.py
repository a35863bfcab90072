"""Products, what a shopper wants of them, and how a language words both: titles and queries.

A text is composed of pieces that remember their slot; `Surface.values` says what each slot means. Nothing here is
noisy or wrong: noise.py and candidates.py damage what this module composes.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from lira_hf.catalogue.lexicon import Catalogue, Words
from lira_hf.catalogue.splits import BACKBONES, bucket, family_key, fixed_axes
from lira_hf.catalogue.templates import Piece, Template

# All shares are probabilities in [0, 1].
FIRST_FORM = 0.6  # the usual word, rather than one of its synonyms
TITLE_ATTRIBUTE = 0.8  # an attribute stands in the title, rather than in the text
TITLE_PROMO = 0.4
TITLE_CODE = 0.2
TITLE_ENGLISH = 0.15  # a slot of a title in English, as shops write
OWN_SCRIPT_BRAND = 0.3
BARE_QUERY = 0.5  # the phrase alone, without "cheap" or "buy" around it
TYPE_ONLY = 0.05  # an intent that wants no attribute
WANTED_COUNTS, WANTED_SHARES = (1, 2, 3), (0.3, 0.45, 0.25)
WANTED_BRAND = 0.15
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


@dataclass(frozen=True)
class Intent:
    """What a query asks for: a type, and wanted values by axis (or "brand"); none, or up to three of them."""

    type: str
    wanted: Mapping[str, str]


@dataclass(frozen=True)
class Surface:
    """A text: its pieces in order, and the value each slot stands for ("type", axes, "brand", "promo", "code")."""

    values: Mapping[str, str]
    pieces: tuple[Piece, ...]

    @property
    def text(self) -> str:
        """The pieces as one string."""
        return "".join(piece.text for piece in self.pieces)

    def slots(self) -> dict[str, str]:
        """Slot to the text that words it, in the order of the text; a slot said twice counts once."""
        out: dict[str, str] = {}
        for slot, text in self.pieces:
            if slot:
                out.setdefault(slot, text)
        return out


@functools.cache
def families(catalogue: Catalogue, type_id: str) -> Mapping[str, tuple[Family, ...]]:
    """Every family of a type, by the split it belongs to. A split without one is missing."""
    type_ = catalogue.types[type_id]
    axes = fixed_axes(type_, catalogue)
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


def draw_intent(products: Sequence[Product], split: str, rng: Random, catalogue: Catalogue) -> tuple[Intent, Product]:
    """An intent of `split`, and one of `products` that answers it fully.

    Raises ValueError when the products answer no intent of the split (there are too few of them).
    """
    for attempt in range(2000):
        if attempt % 25 == 0:  # drawn once for many products: counts that seldom fit the split would else be too rare
            count = 0 if rng.random() < TYPE_ONLY else rng.choices(WANTED_COUNTS, WANTED_SHARES)[0]
            with_brand = count > 0 and rng.random() < WANTED_BRAND
        product = rng.choice(products)
        axes = list(product.attributes)
        slots = ["brand"] * with_brand + rng.sample(axes, min(count - with_brand, len(axes)))
        values = product.values
        wanted = {slot: values[slot] for slot in slots}
        if bucket(product.type, wanted, catalogue) == split:
            return Intent(product.type, wanted), product
    raise ValueError(f"products: none of these {len(products)} answers an intent of the split {split!r}; give more")


def pick(forms: Sequence[str], rng: Random) -> str:
    """The first form with probability `FIRST_FORM`, else one of the others."""
    if len(forms) == 1 or rng.random() < FIRST_FORM:
        return forms[0]
    return forms[1 + int(rng.random() * (len(forms) - 1))]


def word_of(slot: str, value: str, words: Words, rng: Random | None = None) -> str:
    """A slot's value in words: the first form, or with `rng` any; brands stay Latin without `rng`."""
    if slot == "brand":
        return words.brands.get(value, value) if rng and rng.random() < OWN_SCRIPT_BRAND else value
    forms = words.forms[slot].get(value) if slot in words.forms else None
    if forms is None:
        return value  # a promo or a model code: its value is its text
    return pick(forms, rng) if rng else forms[0]


def compose_query(intent: Intent, words: Words, rng: Random) -> Surface:
    """A query for `intent` as a shopper types it, in any of the language's orders of words."""
    values = {"type": intent.type, **intent.wanted}
    texts = {slot: word_of(slot, value, words, rng) for slot, value in values.items()}
    return Surface(values, tuple(wrap(rng.choice(words.phrases), texts, words, rng)))


def wrap(phrase: Template, texts: Mapping[str, str], words: Words, rng: Random) -> list[Piece]:
    """The pieces of `phrase`, alone or with the words around it that people add to a search."""
    wrappers = [template for template in words.queries if template.source != "{phrase}"]
    if rng.random() < BARE_QUERY or not wrappers:
        return phrase.pieces(texts)
    out: list[Piece] = []
    for slot, text in rng.choice(wrappers).pieces({"phrase": "x"}):
        out += phrase.pieces(texts) if slot else [Piece(None, text)]
    return out


def compose_title(product: Product, words: Words, english: Words, rng: Random, catalogue: Catalogue, split: str) -> tuple[Surface, Surface]:
    """A listing of `product` in shop language: its title, and a text with the attributes the title leaves out.

    Raises nothing; together the two surfaces carry every value of the product. What the title says never is what a
    text of the backbones says, or (where `split` is "backbones") always.
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
        slot: word_of(slot, value, english if slot != "brand" and rng.random() < TITLE_ENGLISH else words, rng) for slot, value in values.items()
    }
    if words.promos and rng.random() < TITLE_PROMO:
        values["promo"] = texts["promo"] = rng.choice(words.promos)
    if rng.random() < TITLE_CODE:
        code = "".join(rng.choices("ABCDEFGHKLMNPRSTVXZ", k=2))
        values["code"] = texts["code"] = f"{code}-{rng.randint(100, 999)}"
    pieces = rng.choice(words.titles).pieces(texts)
    present = {piece.slot for piece in pieces}  # not every order of words has room for a promo or a code
    title = Surface({slot: value for slot, value in values.items() if slot in present}, tuple(pieces))
    rest = {axis: value for axis, value in product.attributes.items() if axis not in said}
    pieces = [Piece(axis, word_of(axis, value, words, rng)) for axis, value in rest.items()]
    commas = [Piece(None, ", ")] * len(pieces)
    return title, Surface(rest, tuple(itertools.chain.from_iterable(zip(commas, pieces, strict=True)))[1:])
