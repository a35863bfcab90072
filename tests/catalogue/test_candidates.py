"""Simulated translators err as often as they say, and the critic notices."""

from collections import Counter
from random import Random

import pytest
from scipy.stats import pearsonr

from lira_hf.catalogue.candidates import AXES, TRANSLATORS, Critic, Source, Translator, perfect_translation, translate
from lira_hf.catalogue.lexicon import load_catalogue, load_words
from lira_hf.catalogue.splits import held_out

VALUES = {"type": "mug", "colour": "red", "material": "glass", "measure": "300 ml", "brand": "Norvika"}
TEXTS = {"type": "แก้วมัค", "colour": "สีแดง", "material": "แก้ว", "measure": "300 มล.", "brand": "Norvika"}
SOURCE = Source(VALUES, TEXTS)


def _many(source, catalogue, count=600, **options):
    options = {"types": set(catalogue.types), "hard_words": 0.0, **options}
    for seed in range(count):
        yield translate(source, catalogue, load_words("en"), Random(seed), **options)


def test_perfect_translation_says_everything_but_the_promo(catalogue):
    english = load_words("en")
    assert perfect_translation(VALUES, english) == "red glass mug, 300 ml by Norvika"
    more = {"promo": "ส่งฟรี", **VALUES, "code": "XR-204"}
    assert perfect_translation(more, english) == "red glass mug, 300 ml by Norvika XR-204"
    assert perfect_translation({"type": "mug"}, english) == "mug"


def test_candidates_differ_and_are_scored(catalogue):
    orders = Counter()
    for candidates in _many(SOURCE, catalogue, 300):
        assert len({candidate["text"].casefold() for candidate in candidates}) == len(candidates) == 4
        assert sorted(candidate["source"] for candidate in candidates) == ["glossary", "good", "hasty", "literal"]
        assert all(1 <= candidate[axis] <= 10 and type(candidate[axis]) is int for candidate in candidates for axis in AXES)
        assert all("{" not in c["text"] and "  " not in c["text"] and c["text"] == c["text"].strip() for c in candidates)
        orders[candidates[0]["source"]] += 1
    assert min(orders.values()) > 40  # shuffled


def test_fewer_candidates_where_words_run_out(tiny_lexicon):
    folder = tiny_lexicon()
    catalogue, english = load_catalogue(folder), load_words("en", folder)
    careful = [Translator(name, 0, 0, 0) for name in "abc"]
    source = Source({"type": "mug"}, {"type": "แก้ว"})  # "mug" or "cup"
    options = {"types": catalogue.types, "translators": careful, "hard_words": 0.0}
    found = translate(source, catalogue, english, Random(0), **options)
    assert {candidate["text"] for candidate in found} == {"mug", "cup"}


def _wrong_types(catalogue, source, translator, count=500, **options):
    forms = load_words("en").forms["type"]["mug"]
    rows = list(_many(source, catalogue, count, translators=[translator], **options))
    return sum(not any(form in row[0]["text"] for form in forms) for row in rows) / count


@pytest.mark.parametrize("translator", TRANSLATORS, ids=lambda translator: translator.name)
def test_errors_are_as_frequent_as_promised(translator, catalogue):
    assert abs(_wrong_types(catalogue, SOURCE, translator) - translator.wrong_type) < 0.05
    harmed = Source(VALUES, TEXTS, frozenset({"type"}))
    expected = translator.misread + (1 - translator.misread) * translator.wrong_type
    assert abs(_wrong_types(catalogue, harmed, translator) - expected) < 0.06


def test_words_are_left_as_typed_only_where_noise_allows_it(catalogue):
    blind = [Translator("blind", 0, 0, misread=1.0)]
    for typed_through in (False, True):
        source = Source(VALUES, TEXTS, frozenset({"type", "colour"}), typed_through)
        left = [TEXTS["type"] in row[0]["text"] for row in _many(source, catalogue, 300, translators=blind)]
        assert any(left) == typed_through and not all(left)


def test_hard_words_mislead_all_translators_alike(catalogue):
    careful = [Translator(name, 0, 0, 0, source_order=True) for name in "abcd"]  # who err in nothing else
    forms, wrong, agreed = load_words("en").forms["type"], 0, 0
    for candidates in _many(SOURCE, catalogue, 300, translators=careful, hard_words=1.0):
        named = [{n for n, of in forms.items() if any(c["text"].startswith(f"{f} ") for f in of)} for c in candidates]
        mistaken = [names for names in named if "mug" not in names]
        wrong += len(mistaken)
        agreed += bool(mistaken) and bool(set.intersection(*mistaken))
    assert wrong > 300 and agreed > 0.95 * 300


def test_wrong_senses_stay_in_the_department_and_the_split(catalogue):
    allowed = set(catalogue.types) - held_out(catalogue)
    lost = [Translator("lost", 1.0, 0, 0, source_order=True)]  # the type stands first, and in its first form
    forms = load_words("en").forms["type"]
    kitchen = {forms[name][0] for name in catalogue.departments["kitchen"] if name in allowed and name != "mug"}
    found = {row[0]["text"].removesuffix(" red glass 300 ml Norvika") for row in _many(SOURCE, catalogue, 300, translators=lost, types=allowed)}
    assert found <= kitchen and len(found) > 10


def test_literal_keeps_the_order_of_the_source(catalogue):
    literal = [Translator("literal", 0, 0, 0, source_order=True)]
    assert next(_many(SOURCE, catalogue, 1, translators=literal))[0]["text"] == "mug red glass 300 ml Norvika"


def test_a_critic_without_noise_scores_by_hand():
    critic = Critic(sigma=0.0)
    assert critic.score([], False, Random(0)) == {"semantic": 10, "emotional": 8, "pragmatic": 9}
    assert critic.score([], True, Random(0)) == {"semantic": 10, "emotional": 8, "pragmatic": 7}
    # severity 4.5 + 1.5 = 6: 9.5 - 6, 8.5 - 1.8, 9 - 2.4
    assert critic.score(["type", "dropped"], False, Random(0)) == {"semantic": 4, "emotional": 7, "pragmatic": 7}
    assert critic.score(["type"] * 5, False, Random(0))["semantic"] == 1


def test_critic_correlates_with_severity_but_is_noisy():
    rng, critic = Random(0), Critic()
    errors = [rng.choices(list(critic.severity), k=rng.randint(0, 3)) for _ in range(800)]
    severity = [sum(critic.severity[error] for error in found) for found in errors]
    scores = [critic.score(found, False, rng) for found in errors]
    correlation = {axis: pearsonr(severity, [score[axis] for score in scores])[0] for axis in AXES}
    assert -0.98 < correlation["semantic"] < -0.85
    assert correlation["semantic"] < correlation["pragmatic"] < correlation["emotional"] < -0.3


def test_promos_are_left_out_and_codes_kept(catalogue):
    values, texts = {"promo": "ส่งฟรี", **VALUES, "code": "XR-204"}, {"promo": "ส่งฟรี", **TEXTS, "code": "XR-204"}
    for candidates in _many(Source(values, texts), catalogue, 60):
        assert all("XR-204" in candidate["text"] and "ส่งฟรี" not in candidate["text"] for candidate in candidates)
