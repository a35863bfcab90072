"""Simulated translators err as often as they say, and the critic notices."""

import dataclasses
import functools
import re
from collections import Counter
from random import Random

import pytest
from scipy.stats import pearsonr

from lira_hf.catalogue.candidates import AXES, LEFT_AS_TYPED, TRANSLATORS, Candidate, Critic, Desk, Source, Translator, perfect_translation, translate
from lira_hf.catalogue.composition import compose_query
from lira_hf.catalogue.lexicon import load_catalogue, load_words
from lira_hf.catalogue.noise import disturb
from lira_hf.catalogue.splits import BACKBONES, bucket, held_out

VALUES = {"type": "mug", "colour": "red", "material": "glass", "measure": "300 ml", "brand": "Norvika"}
TEXTS = {"type": "แก้วมัค", "colour": "สีแดง", "material": "แก้ว", "measure": "300 มล.", "brand": "Norvika"}
SOURCE = Source(VALUES, TEXTS)
CAREFUL = [Translator(name, 0, 0, 0, source_order=True) for name in "abcd"]  # who err in nothing


def _many(source, catalogue, count=600, types=None, stream="", **desk):
    """The candidates of `count` random streams; no word is hard unless `desk` says so."""
    desk = Desk(**{"hard_words": 0.0, **desk})
    types = frozenset(catalogue.types) if types is None else types
    for seed in range(count):
        yield translate(source, catalogue, load_words("en"), Random(f"{stream}{seed}"), types=types, desk=desk)


def test_perfect_translation_says_everything_but_the_promo(catalogue):
    english = load_words("en")
    plain = perfect_translation(VALUES, english)
    forms = [english.forms[slot][value][0] for slot, value in VALUES.items() if slot != "brand"]
    assert all(form in plain for form in (*forms, "Norvika")) and len(plain) < 60
    more = {"promo": "ส่งฟรี", **VALUES, "code": "XR-204"}
    assert perfect_translation(more, english) == f"{plain} XR-204"
    assert perfect_translation({"type": "mug"}, english) == "mug"


def test_candidates_differ_and_are_scored(catalogue):
    firsts, absent = Counter(), Counter()
    for candidates in _many(SOURCE, catalogue, 500):
        assert all(isinstance(candidate, Candidate) for candidate in candidates)
        assert len({candidate.text.casefold() for candidate in candidates}) == len(candidates) == 4
        assert all(1 <= score <= 10 and type(score) is int for candidate in candidates for score in candidate[2:])
        assert all("{" not in c.text and "  " not in c.text and c.text == c.text.strip() for c in candidates)
        firsts[candidates[0].source] += 1
        absent.update({"good", "literal", "glossary", "dropping", "inventing"} - {candidate.source for candidate in candidates})
    assert Candidate._fields == ("text", "source", *AXES)
    assert absent.total() == 500 and len(absent) == len(firsts) == 5  # four of the five, each as often as the others
    assert min(firsts.values()) > 70 and min(absent.values()) > 70


@pytest.mark.parametrize("count", [1, 2, 5, 9])
def test_a_desk_has_as_many_at_work_as_asked_for(count, catalogue):
    for candidates in _many(SOURCE, catalogue, 50, candidates=count):
        assert len({candidate.source for candidate in candidates}) == len(candidates) == min(count, 5)


def test_fewer_candidates_where_words_run_out(tiny_lexicon):
    folder = tiny_lexicon()
    catalogue, english = load_catalogue(folder), load_words("en", folder)
    careful = tuple(Translator(name, 0, 0, 0) for name in "abc")
    source = Source({"type": "mug"}, {"type": "แก้ว"})  # "mug" or "cup"
    desk = Desk(careful, hard_words=0.0)
    found = translate(source, catalogue, english, Random(0), types=frozenset(catalogue.types), desk=desk)
    assert {candidate.text for candidate in found} == {"mug", "cup"}


# --- how often each error happens: read off the text, whose words stand in the order of the source ------------------


@functools.cache
def _words(slot):
    """A pattern for the first English form of any value."""
    forms = sorted({forms[0] for forms in load_words("en").forms[slot].values()}, key=len, reverse=True)
    return re.compile(rf"(?:{'|'.join(map(re.escape, forms))})(?= |$)")


def _read(text, source):
    """What `text` says: slot to English word or to the word as typed ("" where it is left out), and what follows, as "more"."""
    said, english = {}, load_words("en").forms
    for slot, value in source.values.items():
        known = [english[slot][value][0] if slot in english else value, source.texts[slot]]
        if slot in english and (other := _words(slot).match(text)):
            known.append(other.group())
        said[slot] = max((word for word in known if f"{text} ".startswith(f"{word} ")), key=len, default="")
        text = text[len(said[slot]) :].lstrip()
    return said | {"more": text}


def _errors(text, source):
    """The errors in `text` by slot: "wrong" (another value), "dropped", "untranslated"; and "invented"."""
    english, said, found = load_words("en").forms, _read(text, source), {}
    for slot, value in source.values.items():
        if said[slot] != (english[slot][value][0] if slot in english else value):
            found[slot] = {"": "dropped", source.texts[slot]: "untranslated"}.get(said[slot], "wrong")
    return found | ({"more": "invented"} if said["more"] else {})


def _rates(sources, translator, catalogue, count=3000, **desk):
    """How often each error happens to each slot, over several sources."""
    plain = dataclasses.replace(translator, source_order=True, synonyms=False)  # errors do not depend on these
    found, made = Counter(), 0
    for source in sources:
        for candidates in _many(source, catalogue, count // len(sources), stream=str(source), translators=(plain,), **desk):
            for candidate in candidates:
                found.update(_errors(candidate.text, source).items())
                made += 1
    assert made > 0.995 * count  # once in a while all readings are kept for the backbones
    return {key: number / made for key, number in found.items()}


@pytest.fixture(scope="module")
def sources(products, catalogue):
    """Products of many types: what must be left to the backbones differs from one to the next."""
    slots = ("colour", "material", "measure")
    found = {product.type: product for product in products if product.attributes.keys() >= set(slots)}
    values = [{"type": name, **{slot: product.attributes[slot] for slot in slots}, "brand": product.brand} for name, product in found.items()]
    values = [of for of in values if bucket(of["type"], {slot: of[slot] for slot in (*slots, "brand")}, catalogue) != BACKBONES]
    assert len(values) > 100
    return [Source(of, {slot: f"«{value}»" for slot, value in of.items()}) for of in values[:100]]


by_name = pytest.mark.parametrize("translator", TRANSLATORS, ids=lambda translator: translator.name)


def test_there_are_five_kinds_and_each_errs_in_its_own_way():
    kinds = {translator.name: translator for translator in TRANSLATORS}
    assert list(kinds) == ["good", "literal", "glossary", "dropping", "inventing"]
    good = kinds.pop("good")
    assert all(good.misread < other.misread and good.wrong_type <= other.wrong_type for other in kinds.values())
    assert [name for name, kind in kinds.items() if kind.source_order] == ["literal"]
    assert max(kinds, key=lambda name: kinds[name].wrong_type) == "glossary"
    assert [name for name, kind in kinds.items() if kind.dropped] == ["dropping"]
    assert [name for name, kind in kinds.items() if kind.invented] == ["inventing"]


@by_name
def test_errors_are_as_frequent_as_promised(translator, sources, catalogue):
    rates = _rates(sources, translator, catalogue)
    expected = {
        ("type", "wrong"): translator.wrong_type,
        ("brand", "dropped"): translator.lost_brand,
        ("more", "invented"): translator.invented,
    }
    for slot in ("colour", "material", "measure"):
        expected[slot, "dropped"] = translator.dropped
        expected[slot, "wrong"] = (1 - translator.dropped) * translator.wrong_value
    assert {key: rates.get(key, 0.0) for key in expected} == pytest.approx(expected, abs=0.05)
    assert rates.keys() <= expected.keys()


@by_name
def test_harmed_words_are_misread_as_often_as_promised(translator, sources, catalogue):
    harmed = [source._replace(harmed=frozenset({"type", "colour"})) for source in sources]
    rates = _rates(harmed, translator, catalogue)
    understood = 1 - translator.misread
    assert rates["type", "wrong"] == pytest.approx(translator.misread + understood * translator.wrong_type, abs=0.05)
    assert rates["colour", "dropped"] == pytest.approx(translator.misread / 2 + understood * translator.dropped, abs=0.05)
    wrong = translator.misread / 2 + understood * (1 - translator.dropped) * translator.wrong_value
    assert rates["colour", "wrong"] == pytest.approx(wrong, abs=0.05)
    assert not any(error == "untranslated" for _, error in rates)


@by_name
def test_words_typed_through_stay_as_often_as_promised(translator, sources, catalogue):
    harmed = [source._replace(harmed=frozenset({"type", "colour"}), typed_through=True) for source in sources]
    rates = _rates(harmed, translator, catalogue)
    for slot in ("type", "colour"):
        assert rates[slot, "untranslated"] == pytest.approx(translator.misread * LEFT_AS_TYPED, abs=0.05)


def test_invented_brands_and_numbers_are_about_equally_frequent(catalogue):
    inventing = Translator("inventing", 0, 0, 0, invented=1.0, source_order=True)
    source = Source({"type": "mug", "colour": "red"}, {"type": "แก้วมัค", "colour": "สีแดง"})
    measures = {load_words("en").forms["measure"][value][0] for value in catalogue.types["mug"].axes["measure"]}
    brands, found = catalogue.brands[catalogue.types["mug"].department], Counter()
    for (candidate,) in _many(source, catalogue, 400, translators=(inventing,)):
        more = candidate.text.removeprefix("mug red ")
        assert more in measures or more in brands
        found[more in brands] += 1
    assert min(found.values()) > 150
    for (candidate,) in _many(SOURCE, catalogue, 60, translators=(inventing,)):  # brand and measure are there already
        assert re.fullmatch(r"mug red glass .+ Norvika [0-9]{1,2}", candidate.text)


def test_words_are_left_as_typed_only_where_noise_allows_it(catalogue):
    blind = (Translator("blind", 0, 0, misread=1.0),)
    for typed_through in (False, True):
        source = Source(VALUES, TEXTS, frozenset({"type", "colour"}), typed_through)
        left = [TEXTS["type"] in row[0].text for row in _many(source, catalogue, 300, translators=blind)]
        assert any(left) == typed_through and not all(left)


def test_errors_lower_the_score_and_nothing_else_does(catalogue):
    """With a critic who sees all, what is right has the best score, and each kind of error costs what it should."""
    critic = Critic(sigma=0.0)
    severity = {"wrong": 2.5, "dropped": 1.5, "untranslated": 1.5, "invented": 2.0}
    source = Source(VALUES, TEXTS, frozenset({"type", "colour"}), True)
    for translator in TRANSLATORS:
        plain = dataclasses.replace(translator, source_order=True, synonyms=False)
        for (candidate,) in _many(source, catalogue, 200, translators=(plain,), critic=critic):
            found = _errors(candidate.text, source)
            cost = sum(4.5 if (slot, error) == ("type", "wrong") else severity[error] for slot, error in found.items())
            assert candidate.semantic == max(1, round(9.5 - cost))


# --- hard words -----------------------------------------------------------------------------------------------------


def test_hard_words_mislead_all_translators_alike(catalogue):
    forms, wrong, agreed = load_words("en").forms["type"], 0, 0
    for candidates in _many(SOURCE, catalogue, 300, translators=tuple(CAREFUL), hard_words=1.0):
        named = [{n for n, of in forms.items() if any(c.text.startswith(f"{f} ") for f in of)} for c in candidates]
        mistaken = [names for names in named if "mug" not in names]
        wrong += len(mistaken)
        agreed += bool(mistaken) and bool(set.intersection(*mistaken))
    assert wrong > 300 and agreed > 0.95 * 300


@pytest.mark.parametrize(("hard_words", "hard_misread"), [(0.0, 1.0), (0.2, 0.75), (0.5, 0.5), (1.0, 1.0)])
def test_words_are_as_hard_as_the_desk_says(hard_words, hard_misread, sources, catalogue):
    rates = _rates(sources, CAREFUL[0], catalogue, hard_words=hard_words, hard_misread=hard_misread)
    assert rates.keys() <= {(slot, "wrong") for slot in ("type", "colour", "material")}  # brands and numbers are never hard
    for slot in ("type", "colour"):  # a mug may have too few other materials that the backbones leave free
        assert rates.get((slot, "wrong"), 0.0) == pytest.approx(hard_words * hard_misread, abs=0.06)


def test_the_critic_hardly_notices_a_hard_word(catalogue):
    hard = [c.semantic for row in _many(SOURCE, catalogue, 200, translators=(CAREFUL[0],), hard_words=1.0, hard_misread=1.0) for c in row]
    plain = [c.semantic for row in _many(SOURCE, catalogue, 200, translators=(Translator("lost", 1, 1, 0),)) for c in row]
    right = [c.semantic for row in _many(SOURCE, catalogue, 200, translators=(CAREFUL[0],)) for c in row]
    assert sum(right) > sum(hard) > sum(plain) + 3 * 200


# --- what a translation may not say ---------------------------------------------------------------------------------


def test_wrong_senses_stay_in_the_department_and_the_split(catalogue):
    allowed = frozenset(catalogue.types) - held_out(catalogue)
    lost = (Translator("lost", 1.0, 0, 0, source_order=True),)  # the type stands first, and in its first form
    forms = load_words("en").forms
    siblings = catalogue.departments[catalogue.types["mug"].department]
    names = {forms["type"][name][0] for name in siblings if name in allowed and name != "mug"}
    rest = " ".join(["", *(forms[slot][VALUES[slot]][0] for slot in ("colour", "material", "measure")), "Norvika"])
    found = {row[0].text.removesuffix(rest) for row in _many(SOURCE, catalogue, 300, allowed, translators=lost)}
    assert found <= names and len(found) > min(10, len(names) / 2)


def test_no_candidate_says_what_only_the_backbones_may_say(sources, catalogue):
    """A wrong reading is the right one of another text, and that text may be kept for the backbones."""
    forms, checked = load_words("en").forms, Counter()
    value_of = {slot: {of[value][0]: value for value in of} for slot, of in forms.items()}
    careless = tuple(dataclasses.replace(each, source_order=True, synonyms=False) for each in TRANSLATORS)
    for source in sources:
        for candidates in _many(source, catalogue, 20, translators=careless, hard_words=0.2):
            for candidate in candidates:
                said = _read(candidate.text, source)
                if not said.pop("more"):  # what was invented makes a text that the backbones never see
                    checked[len(_errors(candidate.text, source))] += 1
                    values = {slot: value_of[slot][word] if slot in value_of else word for slot, word in said.items() if word}
                    assert bucket(values.pop("type"), values, catalogue) != BACKBONES
    assert checked[1] > 300 and checked[2] > 100


def test_every_text_of_real_queries_is_tidy(catalogue, demand):
    """Whatever noise and translators do, a candidate is one line of words without doubled spaces or slots left open."""
    types = frozenset(catalogue.types) - held_out(catalogue)
    for code in ("th", "vi", "ur"):
        words, english = load_words(code), load_words("en")
        for seed in range(300):
            rng = Random(f"{code}{seed}")
            clean = compose_query(demand.draw(rng)[0], words, rng, catalogue)
            query = disturb(clean, words, english, rng)
            texts = query.surface.slots
            source = Source({slot: clean.values[slot] for slot in texts}, texts, query.harmed, query.typed_through)
            candidates = translate(source, catalogue, english, rng, types=types)
            assert 1 <= len(candidates) <= 4
            for candidate in candidates:
                assert re.fullmatch(r"\S+( \S+)*", candidate.text) and not set("{}[]") & set(candidate.text)


def test_literal_keeps_the_order_of_the_source(catalogue):
    literal = (Translator("literal", 0, 0, 0, source_order=True),)
    forms = load_words("en").forms
    words = [forms[slot][value][0] if slot in forms else value for slot, value in VALUES.items()]
    assert next(_many(SOURCE, catalogue, 1, translators=literal))[0].text == " ".join(words)
    turned = Source(dict(reversed(VALUES.items())), dict(reversed(TEXTS.items())))
    assert next(_many(turned, catalogue, 1, translators=literal))[0].text == " ".join(reversed(words))


def test_promos_are_left_out_and_codes_kept(catalogue):
    values, texts = {"promo": "ส่งฟรี", **VALUES, "code": "XR-204"}, {"promo": "ส่งฟรี", **TEXTS, "code": "XR-204"}
    for candidates in _many(Source(values, texts), catalogue, 60):
        assert all("XR-204" in candidate.text and "ส่งฟรี" not in candidate.text for candidate in candidates)


# --- the critic -----------------------------------------------------------------------------------------------------


def test_a_critic_without_noise_scores_by_hand():
    critic = Critic(sigma=0.0)
    assert critic.score([], False, Random(0)) == (10, 8, 9)
    assert critic.score([], True, Random(0)) == (10, 8, 7)
    # severity 4.5 + 1.5 = 6: 9.5 - 6, 8.5 - 1.8, 9 - 2.4
    assert critic.score(["type", "dropped"], False, Random(0)) == (4, 7, 7)
    assert critic.score(["type"] * 5, False, Random(0)) == (1, 2, 1)  # 8.5 - 6.75, and never below 1


def test_critic_correlates_with_severity_but_is_noisy():
    rng, critic = Random(0), Critic()
    errors = [rng.choices(list(critic.severity), k=rng.randint(0, 3)) for _ in range(800)]
    severity = [sum(critic.severity[error] for error in found) for found in errors]
    scores = [dict(zip(AXES, critic.score(found, False, rng), strict=True)) for found in errors]
    correlation = {axis: pearsonr(severity, [score[axis] for score in scores])[0] for axis in AXES}
    assert -0.98 < correlation["semantic"] < -0.85
    assert correlation["semantic"] < correlation["pragmatic"] < correlation["emotional"] < -0.3


def test_the_noise_of_the_critic_is_gaussian():
    """Drawn from a table of quantiles; a wide scale shows its spread."""
    critic = Critic(sigma=1.0, semantic=(5.5, 0.0))
    scores = Counter(critic.score([], False, Random(seed))[0] for seed in range(8000))
    # Half-integers bound each score: within one sigma 68.3 %, within two 95.4 %.
    assert (scores[5] + scores[6]) / 8000 == pytest.approx(0.683, abs=0.03)
    assert sum(scores[score] for score in (4, 5, 6, 7)) / 8000 == pytest.approx(0.954, abs=0.02)
