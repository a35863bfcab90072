"""Templates: orders of words with slots to fill, as written in the lexicon ("{type}[ {colour}][ size {measure}]").

A [group] falls away when one of its slots is empty. The filled text stays cut into pieces that remember their slot,
because what follows works slot by slot: noise must spare brands, and a misread word must be known as such.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple


class Piece(NamedTuple):
    """A stretch of a text and the slot it came from: "type", an axis, "brand", "promo", "code", or None."""

    slot: str | None
    text: str


@dataclass(frozen=True)
class Template:
    """An order of words. `groups` are (falls away when empty, its pieces); a slot's piece has an empty text here."""

    source: str
    groups: tuple[tuple[bool, tuple[Piece, ...]], ...]

    def pieces(self, texts: Mapping[str, str]) -> list[Piece]:
        """The template with `texts` (slot to text) put in, joined as by `join_pieces`."""
        out: list[Piece] = []
        for optional, parts in self.groups:
            if not (optional and any(slot and not texts.get(slot) for slot, _ in parts)):
                out += [Piece(slot, texts.get(slot, "")) if slot else Piece(None, text) for slot, text in parts]
        return join_pieces(out)


def join_pieces(pieces: Iterable[Piece]) -> list[Piece]:
    """The same pieces with one space, never two, where they meet, and none at the ends; empty pieces fall away.

    An English word that would touch another word (in a language that writes no spaces) gets a space.
    """
    out: list[Piece] = []
    for slot, text in pieces:
        if text.startswith(" ") and (not out or out[-1].text.endswith(" ")):
            text = text.lstrip(" ")
        elif out and text and _need_space(out[-1], Piece(slot, text)):
            out.append(Piece(None, " "))
        if text:
            out.append(Piece(slot, text))
    while out and out[-1].text.endswith(" "):
        last = out.pop()
        if last.text.strip(" "):
            out.append(Piece(last.slot, last.text.rstrip(" ")))
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
        groups.append((bool(grouped), tuple(piece for piece in pieces if piece.slot or piece.text)))
    return Template(source, tuple(groups))


def fill(template: str, texts: Mapping[str, str]) -> str:
    """`template` with `texts` put in, as a string; with only a type given, "{type}[ {colour}]" is the type alone."""
    return "".join(piece.text for piece in parse_template(template).pieces(texts))
