"""Products, intents and their wording: complete, true to the shares, and never in another split's words."""

from collections import Counter
from random import Random

import pytest

from lira_hf.catalogue.composition import (
    Intent,
    Product,
    compose_query,
    compose_title,
    draw_intent,
    families,
    pick,
    variants,
)
from lira_hf.catalogue.lexicon import load_catalogue, load_words
from lira_hf.catalogue.splits import BACKBONES, bucket
from lira_hf.languages import LANGUAGES


def test_variants_share_the_fixed_axes_and_differ_in_the_others(catalogue):
    family = families(catalogue, "mug")["train"][0]
    members = variants(family, catalogue)
    axes = catalogue.types["mug"].axes
    assert len(members) == len(axes["colour"]) * len(axes["measure"]) == len({tuple(m.items()) for m in members})
    assert all(list(member) == list(axes) for member in members)
    assert all(member[axis] == value for member in members for axis, value in family.fixed.items())


def test_intents_fit_their_product_and_split(catalogue, products):
    counts, brands = Counter(), 0
    for seed in range(3000):
        intent, product = draw_intent(products, "train", Random(seed), catalogue)
        assert intent.type == product.type
        assert all(product.values[slot] == value for slot, value in intent.wanted.items())
        assert bucket(intent.type, intent.wanted, catalogue) == "train"
        counts[len(intent.wanted)] += 1
        brands += "brand" in intent.wanted
    for count, share in ((0, 0.05), (1, 0.95 * 0.3), (2, 0.95 * 0.45), (3, 0.95 * 0.25)):
        assert abs(counts[count] / 3000 - share) < 0.05, count
    assert 0.10 < brands / 3000 < 0.20


def test_too_few_products_are_named(catalogue, products):
    other = next(split for split in ("validation", "test") if bucket("mug", {}, catalogue) != split)
    nothing = [Product("p", "f", "mug", "", {})]  # it answers the bare type only
    with pytest.raises(ValueError, match="products: none of these 1"):
        draw_intent(nothing, other, Random(0), catalogue)


@pytest.mark.parametrize("code", LANGUAGES)
def test_titles_and_texts_carry_everything(code, catalogue, products):
    words, english = load_words(code), load_words("en")
    shown = 0
    for seed, product in enumerate(products):
        title, text = compose_title(product, words, english, Random(seed), catalogue, "train")
        said = {**title.values, **text.values}
        assert {slot: said[slot] for slot in product.values} == product.values and said["type"] == product.type
        assert {"type", "brand"} <= set(title.values) and not set(title.values) & set(text.values)
        for surface in (title, text):
            assert set(surface.slots()) == set(surface.values)  # every value is worded
            for slot, worded in surface.slots().items():
                forms = (w.forms.get(slot, {}).get(surface.values[slot], ()) for w in (words, english))
                known = {form for of in forms for form in of} | {words.brands.get(product.brand), product.brand}
                assert worded in known or slot in ("promo", "code")
        assert "  " not in title.text and title.text == title.text.strip(" ")
        assert bucket(product.type, {s: v for s, v in title.values.items() if s in product.values}, catalogue) != BACKBONES
        shown += len([slot for slot in title.values if slot in product.attributes]) / len(product.attributes)
    assert abs(shown / len(products) - 0.8) < 0.06


@pytest.mark.parametrize("code", [*LANGUAGES, "en"])
def test_queries_word_exactly_what_is_wanted(code, catalogue, products):
    words, bare = load_words(code), 0
    for seed in range(400):
        intent, _ = draw_intent(products, "train", Random(seed), catalogue)
        query = compose_query(intent, words, Random(seed))
        assert query.values == {"type": intent.type, **intent.wanted}
        assert set(query.slots()) == set(query.values)
        assert query.text == query.text.strip(" ") and "  " not in query.text and "{" not in query.text
        bare += query.pieces[0].slot is not None and query.pieces[-1].slot is not None
    assert 100 < bare < 350  # half of them by draw; some wrappers stand on one side only


def test_pick_prefers_the_first_form():
    rng = Random(0)
    counts = Counter(pick(("a", "b", "c"), rng) for _ in range(6000))
    assert abs(counts["a"] / 6000 - 0.6) < 0.03 and abs(counts["b"] - counts["c"]) < 300
    assert pick(("a",), rng) == "a"


def test_tiny_lexicon_by_hand(tiny_lexicon):
    folder = tiny_lexicon()
    catalogue, words = load_catalogue(folder), load_words("en", folder)
    found = {family.key for of in families(catalogue, "shirt").values() for family in of}
    assert found == {"shirt|brand=Velunta|feature=slim", "shirt|brand=Velunta|feature=wide"}
    texts = {compose_query(Intent("shirt", {"colour": "red", "measure": "size M"}), words, Random(n)).text for n in range(30)}
    assert texts == {"red shirt, size M", "cheap red shirt, size M"}
