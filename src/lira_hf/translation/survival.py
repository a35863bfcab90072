"""What must come through a translation as it was: brands and numbers.

A brand is a word in Latin letters with a capital in a text of another script (so sizes and standards such as XL and USB count too), or a
name from a list. A number is a run of digits of any script, with its separators.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

_LATIN = "A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u1e00-\u1eff"
_OTHER = re.compile(rf"[^\W\d_{_LATIN}\u00aa\u00b5\u00ba]")  # a letter of another script; not the signs of microns and ordinals
_WORD = re.compile(rf"[{_LATIN}0-9](?:[{_LATIN}0-9&'\u2019.-]*[{_LATIN}0-9])?")
_ANY_WORD = re.compile(rf"[{_LATIN}0-9]+|[^\W{_LATIN}0-9]+")  # Thai may write a brand between its own letters, without a space
_NUMBER = re.compile(r"\d+(?:[.,\u066b\u066c]\d+)*")  # with the decimal and thousands separators of Arabic script


class Survival:
    """Counts what survives. `brands` is the list of names; a name counts wherever it stands as a word, in capitals or not."""

    def __init__(self, brands: Iterable[str] = ()):
        self._by_first_word: dict[str, list[str]] = defaultdict(list)
        for name in sorted({" ".join(name.lower().split()) for name in brands}, key=lambda name: (-len(name), name)):
            for word in _ANY_WORD.findall(name)[:1]:
                self._by_first_word[word].append(name)

    def count(self, text: str, candidates: Sequence[str]) -> dict[str, tuple[int, int]]:
        """{"brands": (how many should be in all candidates together, how many are), "numbers": the same}."""
        wanted, given = self.brands(text), numbers(text)
        kept_brands = sum((wanted & Counter({name: len(_places(name, candidate.lower())) for name in wanted})).total() for candidate in candidates)
        kept_numbers = sum((given & numbers(candidate)).total() for candidate in candidates) if given else 0
        return {"brands": (wanted.total() * len(candidates), kept_brands), "numbers": (given.total() * len(candidates), kept_numbers)}

    def brands(self, text: str) -> Counter[str]:
        """The brands of a source text, in lower case, and how often each stands there."""
        lower, found = text.lower(), Counter[str]()
        for name in sorted((name for word in set(_ANY_WORD.findall(lower)) for name in self._by_first_word.get(word, ())), key=len, reverse=True):
            for start, end in reversed(_places(name, lower)):  # longer names first, each out of the way of shorter ones within
                found[name] += 1
                lower, text = (whole[:start] + " " * (end - start) + whole[end:] for whole in (lower, text))
        if _OTHER.search(text):
            found.update(word.lower() for word in _WORD.findall(text) if word != word.lower())
        return found


def numbers(text: str) -> Counter[str]:
    """The numbers in a text, written alike whatever their digits and separators: "๑,๒๐๐" and "1200" are one number, and so are 1,5 and 1.50.

    A last group of three digits is read as thousands.
    """
    return Counter(map(_plain, _NUMBER.findall(text)))


def _plain(number: str) -> str:
    ascii_digits = "".join(str(unicodedata.digit(letter)) if letter.isdecimal() else "." for letter in number)
    whole, dot, last = ascii_digits.rpartition(".")
    if not dot or len(last) == 3:
        return ascii_digits.replace(".", "")
    return f"{whole.replace('.', '')}.{last}".rstrip("0").rstrip(".")


def _places(name: str, lower: str) -> list[tuple[int, int]]:
    return [match.span() for match in re.finditer(rf"(?<![{_LATIN}0-9]){re.escape(name)}(?![{_LATIN}0-9])", lower)]
