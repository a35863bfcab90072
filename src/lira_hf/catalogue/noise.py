"""What real queries look like: the same query typed without marks, in Latin letters, half in English, or badly.

A `Slice` is one kind of noise. Each keeps the meaning, all digits and all brands; it says which slots it has made
harder to read, because the simulated translators of candidates.py stumble over exactly those.
"""

from __future__ import annotations

import functools
import itertools
import unicodedata
from bisect import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from lira_hf.catalogue import letters
from lira_hf.catalogue.composition import OWN_WORDS, Surface, choose, pick, word_of, wrap
from lira_hf.catalogue.lexicon import Words
from lira_hf.catalogue.templates import Piece, join_pieces

CLEAN = "clean"
TRIES = 12  # a noise that changed nothing is drawn again so often, then the query stays clean
SECOND_TYPO = 0.3
ROMAN_VARIANT = 0.25  # a romanised word in another spelling than the lexicon's
ENGLISH_SHARE = (0.2, 0.5)  # of the slots of a code-mixed query
WHOLE_WORDS = ("brand", "measure", "code")  # one letter of "size M" changes what is asked for, so no typo hits these
RESERVED = ("brand", "code")


@dataclass(frozen=True)
class Slice:
    """A kind of noise. `share`: its weight among those that `languages` have (all seven where empty).

    `harms`: a slot it changes is harder to read; `typed_through`: a translator may leave such a word as it was typed.
    """

    name: str
    share: int
    make: Callable[[Surface, Words, Words, Random], Sequence[Piece] | None]
    languages: tuple[str, ...] = ()
    harms: bool = False
    typed_through: bool = False


class Query(NamedTuple):
    """A query as typed: its slice, its surface, the slots that are hard to read and may stay untranslated."""

    slice: str
    surface: Surface
    harmed: frozenset[str] = frozenset()
    typed_through: bool = False


@functools.cache
def slices_of(language: str) -> tuple[Slice, ...]:
    """The slices that make sense in `language`."""
    return tuple(kind for kind in SLICES if not kind.languages or language in kind.languages)


@functools.cache
def _shares(language: str) -> tuple[int, ...]:
    """The shares of `slices_of(language)`, summed up."""
    return tuple(itertools.accumulate(kind.share for kind in slices_of(language)))


def disturb(clean: Surface, words: Words, english: Words, rng: Random, only: str | None = None) -> Query:
    """`clean` as somebody types it, in a slice drawn by share (or in `only`); clean where the noise finds no hold.

    Raises ValueError when `only` is no slice of the language.
    """
    kinds = slices_of(words.language)
    if only is not None and only not in [kind.name for kind in kinds]:
        raise ValueError(f"only: {only!r} is no slice of {words.language}; allowed: {', '.join(k.name for k in kinds)}")
    shares = _shares(words.language)
    kind = kinds[bisect(shares, rng.random() * shares[-1])] if only is None else next(k for k in kinds if k.name == only)
    for _ in range(TRIES if kind.name != CLEAN else 0):
        pieces = kind.make(clean, words, english, rng)
        noisy = Surface(clean.values, pieces) if pieces else clean
        if noisy.text != clean.text:
            harmed = _harmed(clean, noisy, english) if kind.harms else frozenset()
            return Query(kind.name, noisy, harmed, kind.typed_through)
    return Query(CLEAN, clean)


def _harmed(clean: Surface, noisy: Surface, english: Words) -> frozenset[str]:
    """The slots whose words have changed, unless into an English word for the same."""
    changed = [slot for slot, text in noisy.slots.items() if slot not in RESERVED and text != clean.slots.get(slot)]
    return frozenset([slot for slot in changed if noisy.slots[slot].lower() not in english.readings(slot, clean.values[slot])])


# --- the kinds of noise: (clean surface, words of its language, English words, rng) to pieces, or None --------------


def without_marks(clean: Surface, words: Words, english: Words, rng: Random) -> list[Piece]:
    """Vietnamese on a keyboard that has no marks."""
    return [Piece(slot, text if slot in RESERVED else letters.drop_marks(text)) for slot, text in clean.pieces]


def romanised(clean: Surface, words: Words, english: Words, rng: Random) -> list[Piece] | None:
    """The same wants composed anew in Latin letters; Latin spellings waver, so some are varied."""
    if words.romanised is None:
        return None
    texts = {}
    for slot, value in clean.values.items():
        text = value if slot == "brand" else word_of(slot, value, words.romanised, rng)
        varies = slot not in WHOLE_WORDS and rng.random() < ROMAN_VARIANT
        texts[slot] = _respell(text, words.language, rng) if varies else text
    return wrap(choose(words.romanised.phrases, rng), texts, words.romanised, rng)


def _respell(text: str, language: str, rng: Random) -> str:
    pairs = [pair for pair in letters.ROMAN_SPELLINGS[language] if pair[0] in text or pair[1] in text]
    if not pairs:
        return text
    long, short = choose(pairs, rng)
    return text.replace(long, short, 1) if long in text else text.replace(short, long, 1)


def code_mixed(clean: Surface, words: Words, english: Words, rng: Random) -> list[Piece] | None:
    """Some slots in English, the others and the order of words as they are."""
    slots = clean.slots
    swaps = {slot: pick(english.forms[slot][clean.values[slot]], rng) for slot in slots if slot not in OWN_WORDS}
    open_slots = [slot for slot, text in swaps.items() if text != slots[slot]]
    if not open_slots:
        return None
    count = max(1, round(len(slots) * rng.uniform(*ENGLISH_SHARE)))
    chosen = rng.sample(open_slots, min(count, len(open_slots)))
    return join_pieces(Piece(slot, swaps[slot]) if slot in chosen else Piece(slot, text) for slot, text in clean.pieces)


def typo(clean: Surface, words: Words, english: Words, rng: Random) -> list[Piece]:
    """One slip of the finger or two, in the words that matter."""
    pieces = list(clean.pieces)
    # A place for each letter: long words are hit more often.
    places = [place for place, (slot, text) in enumerate(pieces) if slot and slot not in WHOLE_WORDS for _ in text]
    for _ in range(2 if rng.random() < SECOND_TYPO else 1):
        place = choose(places, rng)
        slot, text = pieces[place]
        pieces[place] = Piece(slot, _slip(text, words.language, rng))
    return pieces


def _slip(text: str, language: str, rng: Random) -> str:
    """`text` with two letters swapped, one dropped, doubled, or struck wrongly; unchanged where that does not work."""
    at = rng.randrange(len(text))
    letter, following = text[at], text[at + 1 : at + 2]
    begins = at == 0 or not letters.is_letter(text[at - 1])
    kind = choose(("swap", "drop", "double", "near"), rng)
    if not letters.is_letter(letter):
        return text
    if kind == "near":
        return text[:at] + _near(letter, language, rng) + text[at + 1 :]
    if kind == "double":
        return text if letters.is_mark(letter) else text[: at + 1] + letter + text[at + 1 :]
    if not following or not letters.is_letter(following) or (begins and letters.is_mark(following)):
        return text  # neither a word of one letter nor a vowel sign without its letter
    return text[:at] + following + (letter if kind == "swap" else "") + text[at + 2 :]


def _near(letter: str, language: str, rng: Random) -> str:
    marks = unicodedata.normalize("NFD", letter)
    tone = next((mark for mark in marks if mark in letters.VIETNAMESE_TONES), None) if language == "vi" else None
    if tone:  # the wrong one of the five tone keys
        other = choose(letters.VIETNAMESE_TONES.replace(tone, ""), rng)
        return unicodedata.normalize("NFC", marks.replace(tone, other))
    choices = letters.neighbours(language).get(letter.lower(), letter)
    wrong = choose(choices, rng)
    return wrong.upper() if letter.isupper() else wrong


def joined_split(clean: Surface, words: Words, english: Words, rng: Random) -> list[Piece] | None:
    """A space left out between two words, or put into one."""
    text, places = clean.text, []
    start = 0
    for number, (slot, part) in enumerate(clean.pieces):
        for at in range(len(part) if slot not in WHOLE_WORDS else 0):
            around = text[max(0, start + at - 1) : start + at + 2]  # the letter before, this one, the letter after
            if part[at] == " " and len(around) == 3 and not (around[0].isdigit() and around[2].isdigit()):
                places.append((number, at, True))
            elif slot and at and len(around) == 3 and all(map(letters.is_letter, around)):
                places += [(number, at, False)] if not letters.is_mark(part[at]) else []
        start += len(part)
    joins = [place for place in places if place[2]]
    if not places:
        return None
    number, at, joins_words = choose(joins if joins and rng.random() < 0.5 else places, rng)  # there are fewer spaces
    pieces = list(clean.pieces)
    slot, part = pieces[number]
    pieces[number] = Piece(slot, part[:at] + part[at + 1 :] if joins_words else f"{part[:at]} {part[at:]}")
    return pieces


def encoding(clean: Surface, words: Words, english: Words, rng: Random) -> list[Piece]:
    """The same letters in other code points, as keyboards, phones and copied listings give them."""
    recode = choose(ENCODINGS[words.language], rng)
    return [Piece(slot, text if slot in RESERVED else recode(text, rng)) for slot, text in clean.pieces]


def _decomposed(text: str, rng: Random) -> str:
    return unicodedata.normalize("NFD", text)


def _half_decomposed(text: str, rng: Random) -> str:
    """As Windows keyboards give it: "ế" is "ê" with a combining acute."""
    out = []
    for letter in text:
        marks = unicodedata.normalize("NFD", letter)
        tone = "".join(mark for mark in marks if mark in letters.VIETNAMESE_TONES)
        out.append(unicodedata.normalize("NFC", marks.replace(tone, "")) + tone if tone else letter)
    return "".join(out)


def _moved_tones(text: str, rng: Random) -> str:
    """The other of the two schools: "hoà" for "hòa", and "thủy" for "thuỷ"."""
    other = letters.TONE_PLACES | {second: first for first, second in letters.TONE_PLACES.items()}
    return letters.TONE_PLACE.sub(lambda found: other[found[0]], text)


def _latin_layout(text: str, rng: Random) -> str:
    return text.translate(letters.latin_layout())


def _split_am(text: str, rng: Random) -> str:
    return text.replace(letters.THAI_AM, letters.THAI_SPLIT_AM)


def _arabic_letters(text: str, rng: Random) -> str:
    return text.translate(letters.ARABIC_FOR_URDU)


def _bengali_codes(text: str, rng: Random) -> str:
    for usual, other in (letters.BENGALI_SPLIT_VOWELS | letters.BENGALI_ONE_CODE).items():
        text = text.replace(usual, other)
    return text


def _bengali_joiners(text: str, rng: Random) -> str:
    return text.replace(letters.BENGALI_HASANTA, letters.BENGALI_HASANTA + choose(letters.JOINERS, rng))


def _fullwidth(text: str, rng: Random) -> str:
    return text.translate(letters.FULLWIDTH)


def _hard_spaces(text: str, rng: Random) -> str:
    return text.replace(" ", "\u00a0").translate(letters.CURLY)


def _capitals(text: str, rng: Random) -> str:
    return "".join(letter.upper() if rng.random() < 0.3 else letter for letter in text)


_LATIN_ENCODINGS = (_fullwidth, _hard_spaces, _capitals)
ENCODINGS = {
    "vi": (_decomposed, _half_decomposed, _moved_tones),
    "th": (_latin_layout, _split_am),
    "id": _LATIN_ENCODINGS,
    "ms": _LATIN_ENCODINGS,
    "fil": _LATIN_ENCODINGS,
    "ur": (_arabic_letters,),
    "bn": (_bengali_codes, _bengali_joiners),
}
SLICES = (
    Slice(CLEAN, 35, lambda clean, words, english, rng: None),
    Slice("no_marks", 25, without_marks, ("vi",), harms=True),
    Slice("romanised", 25, romanised, ("th", "ur", "bn"), harms=True, typed_through=True),
    Slice("code_mixed", 20, code_mixed),
    Slice("typo", 10, typo, harms=True, typed_through=True),
    Slice("joined_split", 5, joined_split),
    Slice("encoding", 5, encoding, harms=True),
)
