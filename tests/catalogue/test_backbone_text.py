"""Text for the tiny backbones: it knows every type and shares no string with a row."""

from collections import Counter

import pytest

from lira_hf.catalogue import pairs
from lira_hf.catalogue.letters import script_of
from lira_hf.catalogue.lexicon import load_words
from lira_hf.catalogue.splits import SPLITS
from lira_hf.languages import LANGUAGES

CODES = [*LANGUAGES, "en"]


@pytest.fixture(scope="module")
def many():
    """16,000 pairs of all languages."""
    return pairs(CODES, 16000, seed=0)


def test_languages_take_turns(many):
    assert Counter(language for language, _, _ in many) == dict.fromkeys(CODES, 2000)
    assert all(anchor and positive for _, anchor, positive in many)
    assert sum(anchor == positive for _, anchor, positive in many) < 0.01 * len(many)
    assert len({pair for pair in many}) > 0.9 * len(many)


def test_rows_and_backbones_share_no_string(many, read):
    """Content never meets; once in a while homographs may (brown sugar, and brown rice that was taken for sugar)."""
    rows = set()
    for language in LANGUAGES:
        for split in SPLITS:
            for row in (*read(language, "", split), *read(language, "-corpus", split)):
                rows.update(row[key] for key in ("query", "clean", "english", "title") if row.get(key))
                rows.update(candidate["text"] for candidate in row["translations"])
    assert len(rows) > 50000
    common = {text for _, *both in many for text in both} & rows
    assert len(common) <= 2, common


def test_every_type_occurs(many, catalogue):
    english = " | ".join(text for language, *both in many if language == "en" for text in both)
    forms = load_words("en").forms["type"]
    missing = [name for name in catalogue.types if not any(form in english for form in forms[name])]
    assert len(missing) < 0.15 * len(catalogue.types)  # 2,000 pairs in runs of one type: a few types are not drawn
    more = " | ".join(text for _, *both in pairs(["en"], 12000, seed=1) for text in both)
    assert not [name for name in catalogue.types if not any(form in more for form in forms[name])]


def test_positives_cross_languages_but_not_into_english(many):
    thai = [(anchor, positive) for language, anchor, positive in many if language == "th"]
    foreign = sum(script_of(positive, "th") != "Thai" for _, positive in thai) / len(thai)
    assert 0.2 < foreign < 0.4
    alone = pairs(["th"], 300, seed=2)
    assert sum(script_of(positive, "th") != "Thai" for _, _, positive in alone) < 0.05 * len(alone)
    assert all(text.isascii() for language, *both in many if language == "en" for text in both if "【" not in text)


def test_same_seed_same_pairs():
    assert pairs(["vi", "en"], 200, seed=5) == pairs(["vi", "en"], 200, seed=5) != pairs(["vi", "en"], 200, seed=6)
    assert pairs(["vi"], 0) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["xx"], 1), "languages: 'xx' is not known"),
        (([], 1), "languages: .* at least one"),
        ((["th", "th"], 1), "none twice"),
        (("th", 1), "must be a list"),
        ((["th"], -1), "count: -1 is not allowed"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        pairs(*arguments)
