"""Templates: groups fall away, spaces collapse, English words keep their distance; the fast way says the same."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lira_hf.catalogue.composition import choose
from lira_hf.catalogue.lexicon import load_words
from lira_hf.catalogue.templates import Piece, fill, join_pieces, parse_template

PHRASES = load_words("en").phrases
SLOTS = sorted({piece.slot for phrase in PHRASES for _, parts in phrase.groups for piece in parts if piece.slot} - {"type"})
WORDS = st.text(st.characters(categories=["L", "M", "N", "P", "S"]), min_size=1, max_size=5)  # of any script, signs and % too


@pytest.mark.parametrize(
    ("template", "texts", "expected"),
    [
        ("{type}[ {colour}]", {"type": "mug"}, "mug"),
        ("{type}[ {colour}]", {"type": "mug", "colour": "red"}, "mug red"),
        ("[{promo} ]{brand} {type}", {"type": "mug", "brand": "X"}, "X mug"),
        ("[{colour} ] {type} ", {"type": "mug", "colour": "red"}, "red mug"),
        ("{type}[ {a} - {b}]", {"type": "mug", "a": "1"}, "mug"),  # a group with two slots needs both
        ("{type}[ {a} - {b}]", {"type": "mug", "a": "1", "b": "2"}, "mug 1 - 2"),
        (
            "【{brand}】 [{colour} ]{type}[ ({measure})]",
            {"brand": "X", "type": "mug", "measure": "1 l"},
            "【X】 mug (1 l)",
        ),
        ("[{colour}] {type}", {"type": "mug"}, "mug"),
        ("{type}  [ {colour}]", {"type": "mug", "colour": "red"}, "mug red"),
        ("", {}, ""),
    ],
)
def test_fill(template, texts, expected):
    assert fill(template, texts) == expected


@pytest.mark.parametrize("template", ["{type}[ {colour}", "{type} {colour}]", "{type}[ {a}[ {b}]]"])
def test_brackets_must_pair(template):
    with pytest.raises(ValueError, match="every '\\['"):
        parse_template(template)


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([("type", "เสื้อ"), ("colour", "red"), ("feature", "slim")], "เสื้อ red slim"),
        ([("type", "เสื้อ"), ("colour", "สีแดง")], "เสื้อสีแดง"),
        ([(None, "pang"), ("audience", "kids")], "pangkids"),  # the template glues them, so they stay glued
        ([("type", "เสื้อ"), ("measure", "16นิ้ว")], "เสื้อ16นิ้ว"),
        ([(None, "a "), (None, " "), ("type", "b"), (None, "  ")], "a b"),
    ],
)
def test_join_pieces(pieces, expected):
    assert "".join(piece.text for piece in join_pieces(Piece(*piece) for piece in pieces)) == expected


def test_pieces_remember_their_slots():
    pieces = parse_template("buy {type}[ {colour}]").pieces({"type": "mug", "colour": "red"})
    assert pieces == [(None, "buy "), ("type", "mug"), (None, " "), ("colour", "red")]


@given(
    phrase=st.sampled_from(PHRASES),
    type_=WORDS,
    others=st.dictionaries(st.sampled_from(SLOTS), st.lists(WORDS, min_size=1, max_size=3).map(" ".join)),
)
def test_text_is_the_pieces_in_one(phrase, type_, others):
    texts = {**others, "type": type_}
    assert phrase.text(texts) == "".join(text for _, text in phrase.pieces(texts))


def test_text_is_the_pieces_in_one_for_the_words_that_are_used(catalogue):
    english, rng = load_words("en"), Random(0)
    for phrase in PHRASES:
        for _ in range(500):
            slots = ["type", *rng.sample(SLOTS, rng.randrange(len(SLOTS) + 1))]
            values = {slot: choose(tuple(english.forms.get(slot, {"": ("Norvika",)})), rng) for slot in slots}
            texts = {slot: choose(english.forms[slot][value], rng) if slot in english.forms else "Norvika" for slot, value in values.items()}
            assert phrase.text(texts) == "".join(text for _, text in phrase.pieces(texts))


def test_the_order_of_the_slots_given_does_not_matter():
    template = parse_template("[{b} ]{type}[ {a}]")
    assert template.text({"a": "1", "b": "2", "type": "t"}) == template.text({"type": "t", "b": "2", "a": "1"}) == "2 t 1"


def test_templates_of_equal_source_are_two():
    """Compared by identity, so that what is worked out for one stays with it."""
    one, other = parse_template("{type}[ {a}]"), parse_template("{type}[ {a}]")
    assert one != other and len({one, other}) == 2 and one.source == other.source
    assert one.pieces({"type": "t", "a": "x"}) == other.pieces({"type": "t", "a": "x"})
    assert [one.text({"type": "t", "a": value}) for value in "xy"] == ["t x", "t y"]  # slots are kept, never their texts
