"""Keyboards, look-alike letters and encodings of the seven languages: the tables that noise.py draws from."""

from __future__ import annotations

import functools
import re
import unicodedata

from lira_hf.languages import LANGUAGES

LATIN_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
# Kedmanee, row by row: what a key gives, and the same key on the Latin layout. Keys that give digits or signs in both
# layouts are left out.
THAI_ROWS = (
    ("ๅภถุึคตจขช", "14567890-="),
    ("ๆไำพะัีรนยบลฃ", "qwertyuiop[]\\"),
    ("ฟหกดเ้่าสวง", "asdfghjkl;'"),
    ("ผปแอิืทมใฝ", "zxcvbnm,./"),
    ("ูฎฑธํ๊ณฯญฐฅ", "^ERTYUIOP{|"),
    ("ฤฆฏโฌ็๋ษศซ", "ASDFGHJKL:"),
    ("ฉฮฺ์ฒฬฦ", "CVBN<>?"),
)
# Letters that are taken for one another because they sound or look alike; a typo swaps within a group.
CONFUSED = {
    "th": ("ใไ", "ซศสษ", "ทธฑ", "พภผ", "นณ", "คฆข", "ิี", "ึื", "ุู", "เแ", "ดต", "ลร", "่้", "ะั"),
    "ur": ("زذضظ", "سصث", "تط", "حہ", "کق", "اع", "گک", "رڑ", "دڈ", "نں", "یے"),
    "bn": ("িী", "ুূ", "শষস", "নণ", "জয", "টত", "ঠথ", "ডদ", "েি", "োৌ", "চছ", "বভ", "কখ", "গঘ"),
}
VIETNAMESE_TONES = "\u0300\u0301\u0309\u0303\u0323"  # grave, acute, hook above, tilde, dot below
# Two ways to place a tone: on the first vowel ("hòa") or on the second ("hoà"). Only at the end of a syllable, never after q.
TONE_PLACES = {
    unicodedata.normalize("NFC", first + tone + second): unicodedata.normalize("NFC", first + second + tone)
    for first, second in ("oa", "oe", "uy")
    for tone in VIETNAMESE_TONES
}
TONE_PLACE = re.compile(rf"(?<!q)({'|'.join([*TONE_PLACES, *TONE_PLACES.values()])})(?!\w)")
# A phone keyboard without a standard spelling: either side is typed for the other.
ROMAN_SPELLINGS = {
    "th": (("ee", "i"), ("oo", "u"), ("ue", "eu"), ("ph", "p"), ("kh", "k"), ("th", "t"), ("aa", "a")),
    "ur": (("aa", "a"), ("ee", "i"), ("oo", "u"), ("w", "v"), ("kh", "k"), ("q", "k"), ("ay", "e")),
    "bn": (("chh", "ch"), ("sh", "s"), ("bh", "v"), ("ee", "i"), ("oo", "u"), ("ph", "f"), ("j", "z")),
}
# An Arabic keyboard's yeh, kaf and heh instead of the Urdu ones.
ARABIC_FOR_URDU = {0x06CC: "\u064a", 0x06A9: "\u0643", 0x06C1: "\u0647"}
BENGALI_SPLIT_VOWELS = {"\u09cb": "\u09c7\u09be", "\u09cc": "\u09c7\u09d7"}
# Composition exclusions: NFC writes these as two code points, many keyboards as one.
BENGALI_ONE_CODE = {"\u09a1\u09bc": "\u09dc", "\u09a2\u09bc": "\u09dd", "\u09af\u09bc": "\u09df"}
BENGALI_HASANTA = "\u09cd"
JOINERS = "\u200c\u200d"  # zero-width non-joiner and joiner
THAI_AM, THAI_SPLIT_AM = "\u0e33", "\u0e4d\u0e32"
FULLWIDTH = {code: code + 0xFEE0 for code in (*range(0x41, 0x5B), *range(0x61, 0x7B))}  # letters only, never digits
CURLY = str.maketrans({"'": "\u2019", "-": "\u2011", '"': "\u201d"})  # what a phone's smart punctuation makes
SCRIPTS = {"Thai": re.compile("[\u0e00-\u0e7f]"), "Arab": re.compile("[\u0600-\u06ff]"), "Beng": re.compile("[\u0980-\u09ff]")}


@functools.cache
def neighbours(language: str) -> dict[str, str]:
    """Letter to the letters typed by mistake for it, in lower case, for the native script and for Latin."""
    out: dict[str, set[str]] = {}
    rows = [*LATIN_ROWS, *(thai for thai, _ in THAI_ROWS if language == "th")]
    for row in rows:
        for left, right in zip(row, row[1:], strict=False):
            out.setdefault(left, set()).add(right)
            out.setdefault(right, set()).add(left)
    for group in CONFUSED.get(language, ()):
        for letter in group:
            out.setdefault(letter, set()).update(set(group) - {letter})
    return {letter: "".join(sorted(found)) for letter, found in out.items()}


@functools.cache
def latin_layout() -> dict[int, str]:
    """For str.translate: what Thai typing gives when the keyboard was left on the Latin layout."""
    return str.maketrans({thai: key for row, keys in THAI_ROWS for thai, key in zip(row, keys, strict=True)})


def is_mark(letter: str) -> bool:
    """Whether `letter` hangs on the one before it (a vowel sign, a tone), so that no word can begin with it."""
    return unicodedata.category(letter)[0] == "M"


def is_letter(letter: str) -> bool:
    """Whether a typo may hit it: letters and their marks; never digits, spaces and signs."""
    return letter.isalpha() or is_mark(letter)


def drop_marks(text: str) -> str:
    """Vietnamese as typed without marks: "đỏ" is "do". The barred d is a letter of its own, NFD does not split it."""
    plain = "".join(letter for letter in unicodedata.normalize("NFD", text) if not is_mark(letter))
    return plain.replace("đ", "d").replace("Đ", "D")


def script_of(text: str, language: str) -> str:
    """The ISO 15924 script `text` is written in: that of `language` if one letter is, else "Latn"."""
    script = LANGUAGES[language].script
    return script if script == "Latn" or SCRIPTS[script].search(text) else "Latn"
