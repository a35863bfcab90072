"""What the rooms of translation hand to each other: a text, a translator's answer, an item to judge, a judge's score."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol


@dataclass(frozen=True)
class Text:
    """A text to translate into English. `key` is `key_of(language, text)`: the same text is asked once."""

    key: str
    text: str
    language: str  # a code such as "th"


@dataclass(frozen=True)
class Answer:
    """What one request brought for one text: distinct candidates in the translator's order, or none and the kind of failure."""

    key: str
    candidates: tuple[str, ...] = ()
    prompt_tokens: int = 0  # of all attempts at this request
    completion_tokens: int = 0
    failure: str | None = None  # None where there are candidates; otherwise a short kind, such as "timeout", "refused", "malformed"


class Marks(NamedTuple):
    """The critic's three axes, each 1 to 10."""

    semantic: int
    emotional: int
    pragmatic: int


@dataclass(frozen=True)
class Item:
    """A text with the candidates to judge in one request. Another round is another look at the same candidates, in another order."""

    key: str
    text: str
    language: str
    candidates: tuple[str, ...]
    round: int = 0


@dataclass(frozen=True)
class Score:
    """What one request brought for one item: marks in the order of `item.candidates`, None for a candidate left unscored."""

    key: str
    round: int
    candidates: tuple[str, ...]  # as in the item
    marks: tuple[Marks | None, ...]  # one for each candidate
    prompt_tokens: int = 0  # of all attempts at this request
    completion_tokens: int = 0
    failure: str | None = None  # the kind, where any candidate is left unscored


class Translator(Protocol):
    """Asks for up to `k` distinct candidates of each text. Yields one answer for each text as it finishes, in any order.

    A failure of one text is an answer; raised is only what would fail for every text, such as a model that is not there.
    """

    name: str  # the source that the store files its candidates under: equal names mean equal translators

    def translate(self, texts: Sequence[Text], k: int) -> AsyncIterator[Answer]: ...


class Critic(Protocol):
    """Marks the candidates of each item. Yields one score for each item as it finishes, in any order; fails as a translator does."""

    name: str

    def judge(self, items: Sequence[Item]) -> AsyncIterator[Score]: ...


def key_of(language: str, text: str) -> str:
    """The address of a text: 64 hexadecimal digits."""
    return hashlib.sha256(f"{language}\n{text}".encode()).hexdigest()
