"""Noise changes the text and says so; it keeps digits, brands and the meaning."""

import re
import unicodedata
from collections import Counter
from random import Random

import pytest

from lira_hf.catalogue import letters
from lira_hf.catalogue.composition import OWN_WORDS, Intent, compose_query
from lira_hf.catalogue.lexicon import load_catalogue, load_words
from lira_hf.catalogue.noise import CLEAN, ENCODINGS, disturb, slices_of
from lira_hf.languages import LANGUAGES

CASES = [(code, kind.name) for code in LANGUAGES for kind in slices_of(code)]


@pytest.fixture(scope="module")
def queries(catalogue, demand):
    """queries(language, count): that many clean queries, each with a seed."""

    def compose(code, count):
        for seed in range(count):
            intent, _ = demand.draw(Random(seed))
            yield seed, compose_query(intent, load_words(code), Random(f"{code}{seed}"), catalogue)

    return compose


def test_every_language_has_its_slices():
    everywhere = {"clean", "code_mixed", "typo", "joined_split", "encoding"}
    for code in LANGUAGES:
        extra = {"vi": {"no_marks"}, "th": {"romanised"}, "ur": {"romanised"}, "bn": {"romanised"}}.get(code, set())
        assert {kind.name for kind in slices_of(code)} == everywhere | extra


@pytest.mark.parametrize(("code", "name"), CASES)
def test_noise_changes_the_text_and_keeps_digits_and_brands(code, name, queries):
    words, english, changed, coded = load_words(code), load_words("en"), 0, 0
    for seed, clean in queries(code, 150):
        query = disturb(clean, words, english, Random(seed), name)
        noisy, slots = query.surface, query.surface.slots
        assert query.slice in (name, CLEAN)
        assert (noisy.text == clean.text) == (query.slice == CLEAN)
        changed += query.slice == name
        assert set(slots) == set(clean.values)  # nothing is lost
        assert query.harmed <= set(slots) - {"brand", "code"}
        assert bool(query.harmed) <= (name in ("no_marks", "romanised", "typo", "encoding"))
        brand = clean.values.get("brand")
        if brand:
            assert slots["brand"] in ((brand,) if name == "romanised" else (clean.slots["brand"],))
            assert slots["brand"] in noisy.text
        if "code" in clean.values:
            assert slots["code"] == clean.values["code"] and noisy.text.count(slots["code"]) == 1
            coded += 1
        for digits in re.findall(r"\d+", clean.values.get("measure", "")):
            assert digits in slots["measure"]
        if name in ("no_marks", "typo", "joined_split") or (name == "encoding" and code != "th"):
            # Words that are typed anew bring their own digits, and so do some Thai keys on the Latin layout.
            assert re.findall(r"\d+", noisy.text) == re.findall(r"\d+", clean.text)
    assert coded > 3
    if name != CLEAN:
        assert changed >= 70  # some texts give a noise nothing to hold on to; most do


@pytest.mark.parametrize("code", LANGUAGES)
def test_shares_are_as_published(code, queries):
    counts = Counter()
    clean = [query for _, query in queries(code, 300)]
    for seed in range(3000):
        counts[disturb(clean[seed % 300], load_words(code), load_words("en"), Random(seed)).slice] += 1
    kinds = slices_of(code)
    total = sum(kind.share for kind in kinds)
    for kind in kinds:
        assert abs(counts[kind.name] / 3000 - kind.share / total) < 0.07, kind.name


def test_no_noise_finds_no_hold_in_a_brand(tiny_lexicon):
    """The tag tells the truth: a query that cannot change is clean."""
    folder = tiny_lexicon(lambda files: files["en"]["types"].update(mug=["แก้ว"]))
    words, english = load_words("th", folder), load_words("en", folder)
    clean = compose_query(Intent("mug", {"brand": "Wokando"}), words, Random(3), load_catalogue(folder))
    assert disturb(clean, words, english, Random(0), "code_mixed").slice == CLEAN


def test_unknown_slice_is_named(queries):
    clean = next(queries("th", 1))[1]
    with pytest.raises(ValueError, match="only: 'no_marks' is no slice of th; allowed: clean, romanised"):
        disturb(clean, load_words("th"), load_words("en"), Random(0), "no_marks")


@pytest.mark.parametrize(
    ("text", "plain"),
    [("đỏ", "do"), ("Đường", "Duong"), ("xịt chống nắng", "xit chong nang"), ("sữa rửa mặt ướt", "sua rua mat uot")],
)
def test_drop_marks(text, plain):
    assert letters.drop_marks(text) == plain


@pytest.mark.parametrize(
    ("code", "text", "variants"),
    [
        ("vi", "tiếng", {unicodedata.normalize("NFD", "tiếng"), "ti\u00ea\u0301ng"}),
        ("th", "น้ำ", {"ohe", "น้\u0e4d\u0e32"}),
        ("ur", "کالی ہے", {"\u0643ال\u064a \u0647ے"}),
        ("bn", "ঘোড়া", {"ঘ\u09c7\u09be\u09dc\u09be", "ঘোড়া"}),
        ("id", "kaos 2", {"\uff4b\uff41\uff4f\uff53 2", "kaos\u00a02"}),
    ],
)
def test_encodings_by_hand(code, text, variants):
    text = unicodedata.normalize("NFC", text)
    found = {recode(text, Random(0)) for recode in ENCODINGS[code]}
    assert variants <= found


def test_thai_layout_goes_back():
    table = letters.latin_layout()
    assert len(set(table.values())) == len(table)
    assert "เสื้อยืด".translate(table) == "glnhvpnf"


def test_code_mixing_mixes(queries):
    english = load_words("en").forms
    for code in LANGUAGES:
        for seed, clean in queries(code, 100):
            query = disturb(clean, load_words(code), load_words("en"), Random(seed), "code_mixed")
            if query.slice == CLEAN:
                continue
            old, new = clean.slots, query.surface.slots
            swapped = [slot for slot in new if new[slot] != old[slot]]
            assert swapped and all(new[slot] in english[slot][clean.values[slot]] for slot in swapped)
            assert not set(swapped) & set(OWN_WORDS)
            assert len(swapped) <= max(1, round(len(old) / 2))


@pytest.mark.parametrize(
    ("text", "code", "script"),
    [
        ("เสื้อ red", "th", "Thai"),
        ("suea", "th", "Latn"),
        ("tô", "vi", "Latn"),
        ("কলম", "bn", "Beng"),
        ("کالا", "ur", "Arab"),
    ],
)
def test_script_of(text, code, script):
    assert letters.script_of(text, code) == script
