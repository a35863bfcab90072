"""Products, intents and their wording: complete, true to the shares, and never in another split's words."""

import re
from collections import Counter
from random import Random

import pytest

from lira_hf.catalogue.composition import (
    OWN_WORDS,
    QUERY_CODE,
    SAID_WITH_CODE,
    TITLE_CODE,
    Intent,
    Surface,
    choose,
    compose_query,
    compose_title,
    families,
    model_code,
    pick,
    variants,
)
from lira_hf.catalogue.demand import kind_of
from lira_hf.catalogue.lexicon import load_catalogue, load_words
from lira_hf.catalogue.splits import BACKBONES, bucket, family_key, fixed_slots
from lira_hf.catalogue.templates import Piece
from lira_hf.languages import LANGUAGES

CODE = r"[A-Z]{2,3}-[0-9]{3,4}"


def test_variants_share_the_fixed_axes_and_differ_in_the_others(catalogue):
    family = families(catalogue, "mug")["train"][0]
    members = variants(family, catalogue)
    axes = catalogue.types["mug"].axes
    assert len(members) == len(axes["colour"]) * len(axes["measure"]) == len({tuple(m.items()) for m in members})
    assert all(list(member) == list(axes) for member in members)
    assert all(member[axis] == value for member in members for axis, value in family.fixed.items())


def test_model_codes_look_like_codes_and_belong_to_the_family(catalogue):
    families_ = [family for name in ("mug", "jeans", "rice") for found in families(catalogue, name).values() for family in found]
    codes = [model_code(family.key) for family in families_]
    assert all(re.fullmatch(CODE, code) for code in codes)
    assert codes == [model_code(family.key) for family in families_] and len(set(codes)) > 0.98 * len(codes)
    assert len({code[0] for code in codes}) > 15 < len({code[1] for code in codes})


def test_no_two_articles_of_a_brand_share_a_code(catalogue):
    """Else a query for one would have another that fits as well, and is judged to be wrong."""
    shared = Counter(
        (name, family.brand, model_code(family.key)) for name in catalogue.types for found in families(catalogue, name).values() for family in found
    )
    assert [key for key, count in shared.items() if count > 1] == []


def test_a_surface_says_what_each_slot_says():
    pieces = [Piece(None, "buy "), Piece("type", "mug"), Piece(None, " "), Piece("colour", "red"), Piece("type", "s")]
    surface = Surface({"type": "mug", "colour": "red"}, pieces)
    assert surface.text == "buy mug reds" and surface.pieces == pieces
    assert list(surface.slots.items()) == [("type", "mug"), ("colour", "red")]  # in the order of the text; what comes twice counts once
    assert Surface({}, []).text == "" and Surface({}, []).slots == {}


@pytest.mark.parametrize("code", LANGUAGES)
def test_titles_and_texts_carry_everything(code, catalogue, products):
    words, english = load_words(code), load_words("en")
    shown = in_title = mixed = 0
    for seed, product in enumerate(products[::8]):
        title, text = compose_title(product, words, english, Random(seed), catalogue, "train")
        said = {**title.values, **text.values}
        assert {slot: said[slot] for slot in product.values} == product.values and said["type"] == product.type
        assert {"type", "brand"} <= set(title.values) and not set(title.values) & set(text.values)
        assert said["code"] == model_code(family_key(catalogue.types[product.type], product.values, catalogue))
        for surface in (title, text):
            assert set(surface.slots) == set(surface.values)  # every value is worded
            assert surface.text == "".join(piece.text for piece in surface.pieces)
            for slot, worded in surface.slots.items():
                own, foreign = (each.forms.get(slot, {}).get(surface.values[slot], ()) for each in (words, english))
                assert worded in {*own, *(foreign if slot not in OWN_WORDS else ()), words.brands.get(product.brand), product.brand} or slot in (
                    "promo",
                    "code",
                )
                mixed += worded not in own and slot not in ("brand", "promo", "code")
        assert (title.text + text.text).count(said["code"]) == 1
        assert text.text == ", ".join(text.slots.values())
        assert "  " not in title.text and title.text == title.text.strip(" ")
        assert bucket(product.type, {s: v for s, v in title.values.items() if s in product.values}, catalogue) != BACKBONES
        shown += len([slot for slot in title.values if slot in product.attributes]) / len(product.attributes)
        in_title += "code" in title.values
    count = len(products[::8])
    assert abs(shown / count - 0.8) < 0.06 and mixed > 0.05 * count
    room = sum("{code}" in template.source for template in words.titles) / len(words.titles)
    assert 0 < in_title / count == pytest.approx(TITLE_CODE * room, abs=0.05)


def test_backbone_titles_say_what_only_backbones_may_say(catalogue, products):
    """The texts of the two never meet, whichever attributes a title leaves out."""
    words = load_words("id")
    for seed, product in enumerate(products[:300]):
        title, _ = compose_title(product, words, load_words("en"), Random(seed), catalogue, BACKBONES)
        said = {slot: value for slot, value in title.values.items() if slot in product.values}
        # A product of the training split whose every title is of that split is spelt out whole.
        assert bucket(product.type, said, catalogue) == BACKBONES or said == product.values


@pytest.mark.parametrize("code", [*LANGUAGES, "en"])
def test_queries_word_exactly_what_is_wanted(code, catalogue, demand):
    words, bare = load_words(code), 0
    for seed in range(400):
        intent, _ = demand.draw(Random(seed))
        query = compose_query(intent, words, Random(seed), catalogue)
        if "code" not in query.values:
            assert query.values == {"type": intent.type, **intent.wanted}
        assert set(query.slots) == set(query.values)
        assert query.text == query.text.strip(" ") and "  " not in query.text and "{" not in query.text
        bare += query.pieces[0].slot is not None and query.pieces[-1].slot is not None
    assert 100 < bare < 350  # half of them by draw; some wrappers stand on one side only


@pytest.mark.parametrize("code", [*LANGUAGES, "en"])
def test_who_wants_one_product_may_give_its_code(code, catalogue, demand):
    words, coded, beside, left_out = load_words(code), 0, 0, 0
    intents = [intent for intent, _ in map(demand.draw, map(Random, range(6000))) if kind_of(intent, catalogue) == "exact"]
    for seed, intent in enumerate(intents):
        query = compose_query(intent, words, Random(f"{code}{seed}"), catalogue)
        if "code" not in query.values:
            continue
        assert query.values["code"] == model_code(family_key(catalogue.types[intent.type], intent.wanted, catalogue))
        assert {"type", "brand"} <= query.values.keys() <= {"type", "code", *intent.wanted}
        assert all(query.values[slot] == value for slot, value in intent.wanted.items() if slot in query.values)
        assert query.text.count(query.values["code"]) == 1
        slots = list(query.slots)
        assert slots[slots.index("brand") + 1] == "code"  # as on the box
        around = f" {query.text} ".split(query.values["code"])
        assert not around[0][-1].isalnum() and not around[1][0].isalnum()
        coded += 1
        beside += len(query.values) - 3
        left_out += len(intent.wanted) - 1
    assert len(intents) > 500
    assert coded / len(intents) == pytest.approx(QUERY_CODE, abs=0.06)
    assert beside / left_out == pytest.approx(SAID_WITH_CODE, abs=0.05)


def test_nobody_else_gives_a_code(catalogue, demand):
    words = load_words("en")
    for seed in range(1500):
        intent, _ = demand.draw(Random(seed))
        if kind_of(intent, catalogue) != "exact":
            assert fixed_slots(catalogue.types[intent.type], catalogue) - intent.wanted.keys()
            query = compose_query(intent, words, Random(seed), catalogue)
            assert "code" not in query.values and not re.search(CODE, query.text)


def test_pick_prefers_the_first_form():
    rng = Random(0)
    counts = Counter(pick(("a", "b", "c"), rng) for _ in range(6000))
    assert abs(counts["a"] / 6000 - 0.6) < 0.03 and abs(counts["b"] - counts["c"]) < 300
    assert pick(("a",), rng) == "a"


def test_choose_is_even():
    counts = Counter(choose("abcde", Random(seed)) for seed in range(5000))
    assert set(counts) == set("abcde") and max(counts.values()) < 1.2 * min(counts.values())


def test_tiny_lexicon_by_hand(tiny_lexicon):
    folder = tiny_lexicon()
    catalogue, words = load_catalogue(folder), load_words("en", folder)
    found = {family.key for of in families(catalogue, "shirt").values() for family in of}
    assert found == {"shirt|brand=Velunta|feature=slim", "shirt|brand=Velunta|feature=wide"}
    texts = {compose_query(Intent("shirt", {"colour": "red", "measure": "size M"}), words, Random(n), catalogue).text for n in range(30)}
    assert texts == {"red shirt, size M", "cheap red shirt, size M"}
    code = model_code("shirt|brand=Velunta|feature=slim")
    texts = {compose_query(Intent("shirt", {"brand": "Velunta", "feature": "slim"}), words, Random(n), catalogue).text for n in range(200)}
    phrases = ("slim-fit shirt by Velunta", f"shirt by Velunta {code}", f"slim-fit shirt by Velunta {code}")
    assert texts == {*phrases, *(f"cheap {phrase}" for phrase in phrases)}
