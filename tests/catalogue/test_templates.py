"""Templates: groups fall away, spaces collapse, English words keep their distance."""

import pytest

from lira_hf.catalogue.templates import Piece, fill, join_pieces, parse_template


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
