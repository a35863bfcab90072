"""Simulated translators: each query and product gets English candidates, some good, some wrong, and a critic's scores.

The errors are those real systems make on shop text: a wrong sense, a dropped word, an invented brand, a word that
noise has made unreadable. All candidates of a row may be wrong; that is what a model has to live with.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from statistics import NormalDist
from typing import Annotated, NamedTuple

from annotated_types import Ge, Interval, Len

from lira_hf.catalogue.composition import choose, pick
from lira_hf.catalogue.lexicon import Catalogue, Words
from lira_hf.catalogue.splits import BACKBONES, bucket

AXES = ("semantic", "emotional", "pragmatic")  # fidelity of sense, of tone, of style; METHOD's s, e, p
HARD_TRIES = 8  # wrong senses to look at before a word is left easy
LEFT_AS_TYPED = 0.4  # of the misread words of a romanised or mistyped query
TRIES = 24  # readings, and wordings of one, to look at before a translator gives no candidate
NORMAL = [NormalDist().inv_cdf((rank + 0.5) / 1024) for rank in range(1024)]  # to draw from; rng.gauss takes five times as long
KEPT = ("promo", "code")  # slots that are never translated: a promo falls away, a code stays


class Candidate(NamedTuple):
    """One English translation: its text, the name of its translator, and the critic's scores, 1 to 10."""

    text: str
    source: str
    semantic: int
    emotional: int
    pragmatic: int


Share = Annotated[float, Interval(ge=0, le=1)]  # checked where a desk is read from a file
STRICT = {"extra": "forbid", "allow_inf_nan": False}


@dataclass(frozen=True)
class Translator:
    """How one kind of translator errs; all but the last two are probabilities, drawn for each slot on its own.

    `wrong_type`: another type of the department. `wrong_value`: another value of the axis. `lost_brand`: left out.
    `dropped`: an attribute left out. `misread`: a slot that noise has harmed is not understood. `invented`: a brand
    or a number nobody asked for, once per text. `source_order`: words stay in the order of the source.
    `synonyms`: any English form, not only the first.
    """

    __pydantic_config__ = STRICT

    name: str
    wrong_type: Share
    wrong_value: Share
    misread: Share
    lost_brand: Share = 0.0
    dropped: Share = 0.0
    invented: Share = 0.0
    source_order: bool = False
    synonyms: bool = False


TRANSLATORS = (
    Translator("good", 0.05, 0.05, 0.25, lost_brand=0.05, synonyms=True),
    Translator("literal", 0.10, 0.10, 0.40, lost_brand=0.10, source_order=True),
    Translator("glossary", 0.35, 0.25, 0.50),  # a word list: the wrong sense as often as not
    Translator("dropping", 0.08, 0.0, 0.45, lost_brand=0.15, dropped=0.40),  # what it does not know, it leaves out
    Translator("inventing", 0.10, 0.03, 0.40, invented=0.60, synonyms=True),  # a brand or number out of nowhere
)


@dataclass(frozen=True)
class Critic:
    """How candidates are scored: base minus what went wrong plus Gaussian noise of `sigma`, rounded, 1 to 10."""

    __pydantic_config__ = STRICT

    sigma: Annotated[float, Ge(0)] = 1.2
    severity: Mapping[str, float] = field(
        default_factory=lambda: {
            "type": 4.5, "attribute": 2.5, "dropped": 1.5, "invented": 2.0, "untranslated": 1.5,
            "hard type": 1.5, "hard attribute": 0.8,  # a critic who reads the word the same way notices little
        }
    )  # fmt: skip
    semantic: tuple[float, float] = (9.5, 1.0)  # base, and weight of the severity
    emotional: tuple[float, float] = (8.5, 0.3)
    pragmatic: tuple[float, float] = (9.0, 0.4)
    stiff: tuple[float, float] = (7.0, 0.4)  # the pragmatic score of words in source order

    __hash__ = object.__hash__  # equal critics need not share their cache

    def score(self, errors: Sequence[str], literal: bool, rng: Random) -> tuple[int, int, int]:
        """The three scores of a candidate with these `errors` (keys of `severity`), integers from 1 to 10, in the order of `AXES`."""
        draw = int(rng.random() * 2**30)  # ten bits for each of the three
        semantic, emotional, pragmatic = self._expected(tuple(errors), literal)
        return (
            _to_scale(semantic + self.sigma * NORMAL[draw & 1023]),
            _to_scale(emotional + self.sigma * NORMAL[draw >> 10 & 1023]),
            _to_scale(pragmatic + self.sigma * NORMAL[draw >> 20]),
        )

    @functools.cache  # noqa: B019 - a critic lives as long as its build, and the same few errors come again and again
    def _expected(self, errors: tuple[str, ...], literal: bool) -> tuple[float, float, float]:
        """The scores before the noise."""
        severity = sum(self.severity[error] for error in errors)
        semantic, emotional, pragmatic = (
            base - weight * severity for base, weight in (self.semantic, self.emotional, self.stiff if literal else self.pragmatic)
        )
        return semantic, emotional, pragmatic


def _to_scale(score: float) -> int:
    return 1 if score < 1 else 10 if score > 10 else round(score)


@dataclass(frozen=True)
class Desk:
    """Who translates: the translators, of whom `candidates` work on each text, drawn anew; the critic; how hard the words are.

    `hard_words` of the words (a share) are rare or ambiguous: translators share the same wrong sense of one, each falls
    for it with probability `hard_misread`, and the critic hardly notices.
    """

    __pydantic_config__ = STRICT

    translators: Annotated[tuple[Translator, ...], Len(1, 8)] = TRANSLATORS
    candidates: Annotated[int, Ge(1)] = 4
    critic: Critic = Critic()
    hard_words: Share = 0.2
    hard_misread: Share = 0.75

    @functools.cached_property
    def shifts(self) -> tuple[tuple[Translator, ...], ...]:
        """Every choice of translators for one text, in every order."""
        return tuple(itertools.permutations(self.translators, min(self.candidates, len(self.translators))))


class Source(NamedTuple):
    """What is translated: slot to value and slot to text as written, both in the order of the text.

    `harmed` slots are hard to read after noise; with `typed_through` they may stay in the translation as written.
    """

    values: Mapping[str, str]
    texts: Mapping[str, str]
    harmed: frozenset[str] = frozenset()
    typed_through: bool = False


def perfect_translation(values: Mapping[str, str], english: Words) -> str:
    """Everything `values` say, in the usual words and order; a model code is kept, a promo left out."""
    forms = english.forms
    texts = {slot: forms[slot][value][0] if slot in forms else value for slot, value in values.items() if slot not in KEPT}
    return " ".join(filter(None, [english.phrases[0].text(texts), values.get("code", "")]))


def translate(source: Source, catalogue: Catalogue, english: Words, rng: Random, *, types: frozenset[str], desk: Desk = Desk()) -> list[Candidate]:
    """The candidates of `source`, each from another translator, in no order.

    `types` are the product types a wrong sense may name (a training row must not name a held-out one). Texts differ,
    and none says what a text of the backbones says; a translator that finds no such text gives none.
    """
    hard = _hard_words(source, catalogue, rng, types, desk.hard_words)
    seen: set[str] = set()
    out: list[Candidate] = []
    for translator in choose(desk.shifts, rng):
        kinds, reading = _read(source, translator, catalogue, rng, types, hard, desk.hard_misread)
        if reading is None:
            continue
        text = _word(reading, source, translator, english, rng, translator.synonyms)
        tries = TRIES
        while (key := text.casefold()) in seen and (tries := tries - 1):
            text = _word(reading, source, translator, english, rng, synonyms=True)
        if tries:
            seen.add(key)
            out.append(Candidate(text, translator.name, *desk.critic.score(kinds, translator.source_order, rng)))
    return out


def _hard_words(source: Source, catalogue: Catalogue, rng: Random, types: frozenset[str], share: float) -> dict[str, str]:
    """Slot to the wrong value that its word suggests to whoever does not know it; brands and numbers are never hard.

    All translators fall for the same value, so it must be one that makes no text of the backbones, alone or with the
    other hard words; a word without such a value is not hard.
    """
    hard: dict[str, str] = {}
    for slot in source.values:
        if rng.random() >= share or slot in ("promo", "code", "brand", "measure"):
            continue
        for _ in range(HARD_TRIES):
            wrong = _wrong(slot, source, catalogue, rng, types)
            readings = [source.values | {slot: wrong}, *([source.values | hard | {slot: wrong}] if hard else ())]
            if not any(_is_reserved(values, catalogue) for values in readings):
                hard[slot] = wrong
                break
    return hard


def _is_reserved(values: Mapping[str, str], catalogue: Catalogue) -> bool:
    """Whether only the backbones' text may say `values` (a wrong reading is right for another row); it has no model codes."""
    if "code" in values:
        return False
    said = {slot: value for slot, value in values.items() if slot not in ("type", "promo")}
    return bucket(values["type"], said, catalogue) == BACKBONES


@functools.cache
def _siblings(catalogue: Catalogue, type_id: str, types: frozenset[str]) -> tuple[str, ...]:
    """What a type may be taken for: the others of its department, or of all where it has none."""
    department = catalogue.departments[catalogue.types[type_id].department]
    return tuple(name for name in department if name != type_id and name in types) or tuple(sorted(types - {type_id}))


def _wrong(slot: str, source: Source, catalogue: Catalogue, rng: Random, types: frozenset[str]) -> str:
    """Another type of the department, or another value of the axis."""
    type_id, value = source.values["type"], source.values[slot]
    if slot == "type":
        return choose(_siblings(catalogue, type_id, types), rng)
    values = catalogue.types[type_id].axes.get(slot, ())
    values = values if len(values) > 1 else catalogue.values[slot]
    while (other := choose(values, rng)) == value:
        pass
    return other


# What a translator made of a source: slot to value understood, slot to word left as typed, and text invented.
Reading = tuple[Mapping[str, str], Mapping[str, str], str]


def _read(
    source: Source, translator: Translator, catalogue: Catalogue, rng: Random, types: frozenset[str], hard: Mapping[str, str], hard_misread: float
) -> tuple[list[str], Reading | None]:
    """The errors of `translator` by kind and its reading; None where every reading is kept for the backbones.

    What goes wrong is drawn first and the wrong word after it, so that the errors are as frequent as they are meant
    to be although some wrong words may not be used.
    """
    for attempt in range(TRIES):
        if attempt % 4 == 0:
            errors = _errors(source, translator, hard, hard_misread, rng)
            invents = rng.random() < translator.invented
            if not errors and not invents:  # what the source says it may say
                return [], (source.values, {}, "")
        reading = _realise(source, errors, invents, catalogue, rng, types, hard)
        # Texts with something left as typed or added are like no text of the backbones.
        if reading[1] or reading[2] or not _is_reserved(reading[0], catalogue):
            return [*errors.values(), *["invented"] * invents], reading
    return [], None


def _errors(source: Source, translator: Translator, hard: Collection[str], hard_misread: float, rng: Random) -> dict[str, str]:
    """The slots that go wrong, and how: a key of `Critic.severity`."""
    errors: dict[str, str] = {}
    random, harmed, dropped, wrong_value = rng.random, source.harmed, translator.dropped, translator.wrong_value
    for slot in source.values:
        if slot in hard and random() < hard_misread:
            errors[slot] = "hard type" if slot == "type" else "hard attribute"
        elif slot in harmed and random() < translator.misread:
            if source.typed_through and random() < LEFT_AS_TYPED:
                errors[slot] = "untranslated"
            elif slot == "type":  # a text without its type says nothing
                errors[slot] = "type"
            else:
                errors[slot] = "dropped" if random() < 0.5 else "attribute"
        elif slot == "type":
            if random() < translator.wrong_type:
                errors[slot] = "type"
        elif slot == "brand":  # never misread: Latin letters, which noise spares
            if random() < translator.lost_brand:
                errors[slot] = "dropped"
        elif slot in KEPT:
            continue
        elif random() < dropped:
            errors[slot] = "dropped"
        elif random() < wrong_value:
            errors[slot] = "attribute"
    return errors


def _realise(
    source: Source,
    errors: Mapping[str, str],
    invents: bool,
    catalogue: Catalogue,
    rng: Random,
    types: frozenset[str],
    hard: Mapping[str, str],
) -> Reading:
    values = dict(source.values)
    untranslated: dict[str, str] = {}
    extra = ""
    for slot, error in errors.items():
        if error in ("type", "attribute"):
            values[slot] = _wrong(slot, source, catalogue, rng, types)
        elif error in ("dropped", "untranslated"):
            del values[slot]
            if error == "untranslated":
                untranslated[slot] = source.texts[slot]
        else:
            values[slot] = hard[slot]
    if invents:
        type_ = catalogue.types[source.values["type"]]
        if "brand" not in source.values and rng.random() < 0.5:
            values["brand"] = choose(catalogue.brands[type_.department], rng)
        elif "measure" not in source.values:
            values["measure"] = choose(type_.axes.get("measure") or catalogue.values["measure"], rng)
        else:
            extra = str(rng.randint(2, 99))
    return values, untranslated, extra


def _word(reading: Reading, source: Source, translator: Translator, english: Words, rng: Random, synonyms: bool) -> str:
    """`reading` in English words: the usual ones, or any that are known."""
    values, untranslated, extra = reading
    known = english.forms  # it has neither brands nor codes: they are their own words
    if synonyms:
        texts = {slot: pick(known[slot][value], rng) if slot in known else value for slot, value in values.items()}
    else:
        texts = {slot: known[slot][value][0] if slot in known else value for slot, value in values.items()}
    texts.pop("promo", None)
    if untranslated:
        texts.update(untranslated)
    if translator.source_order:
        order = dict.fromkeys((*source.values, *values))  # the order of the source, then what was invented
        parts = [texts[slot] for slot in order if slot in texts]
    else:
        code = texts.pop("code", None)
        parts = [choose(english.phrases, rng).text(texts), *([code] if code else ())]
    return " ".join([*parts, extra] if extra else parts)
