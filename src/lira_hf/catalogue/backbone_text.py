"""Text for the tiny backbones: pairs of strings that mean the same, from families and intents no row ever uses.

All product types of a size occur, the held-out ones too: a real pretrained encoder has met every word as well. What it has not
met is the rows, and neither have the backbones.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from random import Random

from lira_hf.catalogue.composition import Intent, Product, compose_query, compose_title, families, variants
from lira_hf.catalogue.demand import Demand
from lira_hf.catalogue.lexicon import Catalogue, load_catalogue, load_words
from lira_hf.catalogue.noise import disturb
from lira_hf.catalogue.splits import BACKBONES, core
from lira_hf.languages import ENGLISH, check_languages

TITLE_SHARE = 0.5  # of the pairs are a query and a title; the others are two wordings of one intent
CROSS_LINGUAL = 0.3  # of the positives are in another of the languages; the anchors of English pairs stay with English
PRODUCTS = 60  # of each type to draw intents from: a few hundred intents a type
REDRAWS = 8  # a second wording that is the first again is drawn again so often


def pairs(languages: Sequence[str], count: int, seed: int = 0, types: int | None = None) -> list[tuple[str, str, str]]:
    """`count` tuples (language, anchor, positive), the languages taking turns.

    `languages` are codes of the seven and "en"; `types` is that of a `Size`, None for all product types. An anchor
    is a query as typed, noise included; its positive a title of
    a product that answers it, or the same intent in other words, or either in another of `languages`. English
    pairs are without noise and stay within English. Raises ValueError for an unknown language or a negative count.
    """
    if isinstance(languages, str) or not languages or len(set(languages)) != len(languages):
        raise ValueError(f"languages: {languages!r} must be a list of at least one code, and none twice")
    others = [code for code in languages if code != ENGLISH.code]
    if others:
        check_languages(others)
    if isinstance(count, bool) or not isinstance(count, int) or count < 0:
        raise ValueError(f"count: {count!r} is not allowed; give an integer of at least 0")
    catalogue = load_catalogue()
    sold, out = sorted(core(catalogue, types) if types else catalogue.types), []
    for index in range(count):
        language = languages[index % len(languages)]
        rng = Random(f"{seed}/{language}/{BACKBONES}/pair/{index}")
        out.append((language, *_pair(language, rng.choice(sold), languages, catalogue, rng)))
    return out


def _pair(language: str, type_id: str, languages: Sequence[str], catalogue: Catalogue, rng: Random) -> tuple[str, str]:
    intent, product, with_title = _draw(type_id, rng.random() < TITLE_SHARE, rng, catalogue)
    words, english = load_words(language), load_words(ENGLISH.code)
    clean = compose_query(intent, words, rng, catalogue)
    anchor = clean.text if language == ENGLISH.code else disturb(clean, words, english, rng).surface.text
    foreign = [code for code in languages if code != language] if language != ENGLISH.code else []
    other = rng.choice(foreign) if foreign and rng.random() < CROSS_LINGUAL else language
    if with_title:
        title, _ = compose_title(product, load_words(other), english, rng, catalogue, BACKBONES)
        return anchor, title.text
    for _ in range(REDRAWS):
        positive = compose_query(intent, load_words(other), rng, catalogue).text
        if positive != anchor:
            break
    return anchor, positive


def _draw(type_id: str, with_title: bool, rng: Random, catalogue: Catalogue) -> tuple[Intent, Product, bool]:
    """An intent of the type, a product that answers it, and whether that product's title may be written.

    A type with few families may have no product here that answers an intent kept for the backbones; then other families
    lend their attributes, but no title.
    """
    if with_title and (own := _demand(catalogue, type_id, own=True)):
        try:
            return *own.draw(rng), True
        except ValueError:
            pass
    return *_demand(catalogue, type_id, own=False).draw(rng), False


@functools.cache
def _demand(catalogue: Catalogue, type_id: str, own: bool) -> Demand | None:
    """What is asked of the backbones' families of a type (None where it has none), or of all its families (for intents alone)."""
    by_split = families(catalogue, type_id)
    pool = [family for name, found in by_split.items() if not own or name == BACKBONES for family in found]
    if not pool:
        return None
    rng = Random(f"{BACKBONES}/{own}/{type_id}")
    products = []
    for family in rng.choices(pool, k=PRODUCTS):
        products.append(Product("", family.key, type_id, family.brand, rng.choice(variants(family, catalogue))))
    return Demand.for_stock(products, BACKBONES, catalogue)
