"""Templates: orders of words with slots to fill, as written in the lexicon ("{type}[ {colour}][ size {measure}]").

A [group] falls away when one of its slots is empty. The filled text stays cut into pieces that remember their slot,
because what follows works slot by slot: noise must spare brands, and a misread word must be known as such.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple


class Piece(NamedTuple):
    """A stretch of a text and the slot it came from: "type", an axis, "brand", "promo", "code", or None."""

    slot: str | None
    text: str


@dataclass(frozen=True, eq=False)  # compared by identity, so that what is worked out for one can be cached
class Template:
    """An order of words. `groups` are (the slots without which it falls away, its pieces); a slot's piece has an empty text."""

    source: str
    groups: tuple[tuple[frozenset[str], tuple[Piece, ...]], ...]

    def pieces(self, texts: Mapping[str, str]) -> list[Piece]:
        """The template with `texts` (slot to text, none of them empty) put in, joined as by `join_pieces`."""
        return join_pieces([Piece(slot, texts[slot]) if slot else Piece(None, text) for slot, text in _order(self, frozenset(texts))])

    def text(self, texts: Mapping[str, str]) -> str:
        """The same as one string, faster; only where a sign or space stands between any two slots, as in all English orders."""
        return _pattern(self, frozenset(texts)) % texts


@functools.cache  # people fill the same few sets of slots
def _order(template: Template, slots: frozenset[str]) -> tuple[Piece, ...]:
    """What is left of `template` when `slots` are filled; a slot's piece has an empty text."""
    return tuple(piece for needed, parts in template.groups if needed <= slots for piece in parts if not piece.slot or piece.slot in slots)


@functools.cache
def _pattern(template: Template, slots: frozenset[str]) -> str:
    """The same for Python's % with a mapping."""
    parts = (f"%({slot})s" if slot else text.replace("%", "%%") for slot, text in _order(template, slots))
    return " ".join("".join(parts).split())


def join_pieces(pieces: Iterable[Piece]) -> list[Piece]:
    """The same pieces with one space, never two, where they meet, and none at the ends; empty pieces fall away.

    An English word that would touch another word (in a language that writes no spaces) gets a space.
    """
    out: list[Piece] = []
    last = " "  # the last letter so far; the text begins as after a space
    for piece in pieces:
        text = piece.text
        if not text:
            continue
        if text[0] == " ":
            if last == " ":
                text = text.lstrip(" ")
                if not text:
                    continue
                piece = Piece(piece.slot, text)
        elif last != " " and _need_space(out[-1], piece):
            out.append(Piece(None, " "))
        out.append(piece)
        last = text[-1]
    while out and out[-1].text[-1] == " ":
        slot, text = out.pop()
        if text := text.rstrip(" "):
            out.append(Piece(slot, text))
    return out


def _need_space(before: Piece, after: Piece) -> bool:
    left, right = before.text[-1], after.text[0]
    if left.isascii() and right.isascii():  # a template may glue a prefix to a slot, but not a slot to a slot
        return bool(before.slot and after.slot) and left.isalnum() and right.isalnum()
    latin, other = (left, right) if left.isascii() else (right, left)
    return latin.isascii() and latin.isalpha() and unicodedata.category(other)[0] in "LM"


def parse_template(source: str) -> Template:
    """A template from its text. Raises ValueError for brackets that do not pair."""
    if re.search(r"[\[\]]", re.sub(r"\[[^\[\]]*\]", "", source)):
        raise ValueError(f"template {source!r}: every '[' needs its ']', and groups do not nest")
    groups = []
    for grouped, plain in re.findall(r"\[([^\[\]]*)\]|([^\[\]]+)", source):
        parts = re.split(r"\{(\w+)\}", re.sub(" +", " ", grouped or plain))  # at odd places: the names of slots
        pieces = [Piece(part, "") if place % 2 else Piece(None, part) for place, part in enumerate(parts)]
        kept = tuple(piece for piece in pieces if piece.slot or piece.text)
        groups.append((frozenset(piece.slot for piece in kept if grouped and piece.slot), kept))
    return Template(source, tuple(groups))


def fill(template: str, texts: Mapping[str, str]) -> str:
    """`template` with `texts` put in, as a string; with only a type given, "{type}[ {colour}]" is the type alone."""
    return "".join(piece.text for piece in parse_template(template).pieces(texts))
