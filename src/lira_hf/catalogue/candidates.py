"""Simulated translators: each query and product gets English candidates, some good, some wrong, and a critic's scores.

The errors are those real systems make on shop text: a wrong sense, a dropped word, an invented brand, a word that
noise has made unreadable. All candidates of a row may be wrong; that is what a model has to live with.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from lira_hf.catalogue.composition import pick, word_of
from lira_hf.catalogue.lexicon import Catalogue, Words
from lira_hf.catalogue.splits import BACKBONES, bucket
from lira_hf.catalogue.templates import Piece, Template, join_pieces

AXES = ("semantic", "emotional", "pragmatic")  # fidelity of sense, of tone, of style; METHOD's s, e, p
HARD_WORDS = 0.2  # of the words: a rare or ambiguous one that translators share the same wrong sense of, and critics too
HARD_MISREAD = 0.75  # how often each translator falls for it
HARD_TRIES = 8  # wrong senses to look at before a word is left easy
LEFT_AS_TYPED = 0.4  # of the misread words of a romanised or mistyped query


@dataclass(frozen=True)
class Translator:
    """How one kind of translator errs; all but the last two are probabilities, drawn for each slot on its own.

    `wrong_type`: another type of the department. `wrong_value`: another value of the axis. `lost_brand`: left out.
    `dropped`: an attribute left out. `misread`: a slot that noise has harmed is not understood. `invented`: a brand
    or a number nobody asked for, once per text. `source_order`: words stay in the order of the source.
    `synonyms`: any English form, not only the first.
    """

    name: str
    wrong_type: float
    wrong_value: float
    misread: float
    lost_brand: float = 0.0
    dropped: float = 0.0
    invented: float = 0.0
    source_order: bool = False
    synonyms: bool = False


TRANSLATORS = (
    Translator("good", 0.05, 0.05, 0.25, lost_brand=0.05, synonyms=True),
    Translator("literal", 0.10, 0.10, 0.40, lost_brand=0.10, source_order=True),
    Translator("glossary", 0.35, 0.25, 0.50),
    Translator("hasty", 0.10, 0.0, 0.45, dropped=0.30, invented=0.25, synonyms=True),
)


@dataclass(frozen=True)
class Critic:
    """How candidates are scored: base minus what went wrong plus Gaussian noise of `sigma`, rounded, 1 to 10."""

    sigma: float = 1.2
    severity: Mapping[str, float] = field(
        default_factory=lambda: {
            "type": 4.5, "attribute": 2.5, "dropped": 1.5, "invented": 2.0, "untranslated": 1.5,
            "hard type": 1.5, "hard attribute": 0.8,  # a critic who reads the word the same way notices little
        }
    )  # fmt: skip
    semantic: tuple[float, float] = (9.5, 1.0)  # base, and weight of the severity
    emotional: tuple[float, float] = (8.5, 0.3)
    pragmatic: tuple[float, float] = (9.0, 0.4)
    stiffness: float = 2.0  # taken from the pragmatic score of words in source order

    def score(self, errors: Sequence[str], literal: bool, rng: Random) -> dict[str, int]:
        """The three scores of a candidate with these `errors` (keys of `severity`), integers from 1 to 10."""
        severity = sum(self.severity[error] for error in errors)
        out = {}
        for axis, (base, weight) in zip(AXES, (self.semantic, self.emotional, self.pragmatic), strict=True):
            base -= self.stiffness if literal and axis == "pragmatic" else 0.0
            out[axis] = min(10, max(1, round(base - weight * severity + rng.gauss(0.0, self.sigma))))
        return out


@dataclass(frozen=True)
class Source:
    """What is translated: slot to value and slot to text as written, both in the order of the text.

    `harmed` slots are hard to read after noise; with `typed_through` they may stay in the translation as written.
    """

    values: Mapping[str, str]
    texts: Mapping[str, str]
    harmed: frozenset[str] = frozenset()
    typed_through: bool = False


@dataclass(frozen=True)
class Reading:
    """What one translator made of a source: slot to value understood, slot to word left as typed, and text invented."""

    values: Mapping[str, str]
    untranslated: Mapping[str, str]
    extra: str


def perfect_translation(values: Mapping[str, str], english: Words) -> str:
    """Everything `values` say, in the usual words and order; a model code is kept, a promo left out."""
    texts = {slot: word_of(slot, value, english) for slot, value in values.items()}
    return _phrase(texts, english.phrases[0])


def translate(
    source: Source,
    catalogue: Catalogue,
    english: Words,
    rng: Random,
    *,
    types: Collection[str],
    translators: Sequence[Translator] = TRANSLATORS,
    critic: Critic | None = None,
    hard_words: float = HARD_WORDS,
    tries: int = 24,
) -> list[dict[str, str | int]]:
    """One candidate of each translator, shuffled: {text, source, semantic, emotional, pragmatic}.

    `types` are the product types a wrong sense may name (a training row must not name a held-out one). `hard_words` is
    the share of words whose wrong sense all translators know. Texts differ, and none says what a text of the
    backbones says; a translator that finds no such text in `tries` gives none.
    """
    critic = critic or Critic()
    hard = _hard_words(source, catalogue, rng, types, hard_words)
    seen: set[str] = set()
    out: list[dict[str, str | int]] = []
    for translator in translators:
        errors, reading = _read(source, translator, catalogue, rng, types, hard, tries)
        for attempt in range(tries if reading else 0):
            text = _word(reading, source, translator, english, rng, any_form=attempt > 0)
            if text.casefold() not in seen:
                seen.add(text.casefold())
                scores = critic.score(errors, translator.source_order, rng)
                out.append({"text": text, "source": translator.name, **scores})
                break
    rng.shuffle(out)
    return out


def _hard_words(source: Source, catalogue: Catalogue, rng: Random, types: Collection[str], share: float) -> dict[str, str]:
    """Slot to the wrong value that its word suggests to whoever does not know it; brands and numbers are never hard.

    All translators fall for the same value, so it must be one that makes no text of the backbones, alone or with the
    other hard words; a word without such a value is not hard.
    """
    hard: dict[str, str] = {}
    for slot in source.values:
        if slot in ("promo", "code", "brand", "measure") or rng.random() >= share:
            continue
        for _ in range(HARD_TRIES):
            wrong = _wrong(slot, source, catalogue, rng, types)
            readings = ({**source.values, slot: wrong}, {**source.values, **hard, slot: wrong})
            if not any(_is_reserved(values, catalogue) for values in readings):
                hard[slot] = wrong
                break
    return hard


def _is_reserved(values: Mapping[str, str], catalogue: Catalogue) -> bool:
    """Whether only the backbones' text may say `values` (a wrong reading is right for another row)."""
    said = {slot: value for slot, value in values.items() if slot not in ("type", "promo", "code")}
    return bucket(values["type"], said, catalogue) == BACKBONES


def _wrong(slot: str, source: Source, catalogue: Catalogue, rng: Random, types: Collection[str]) -> str:
    """Another type of the department, or another value of the axis."""
    type_, value = catalogue.types[source.values["type"]], source.values[slot]
    if slot == "type":
        return rng.choice([t for t in catalogue.departments[type_.department] if t != value and t in types])
    others = [other for other in type_.axes[slot] if other != value]
    return rng.choice(others or [other for other in catalogue.values[slot] if other != value])


def _read(
    source: Source,
    translator: Translator,
    catalogue: Catalogue,
    rng: Random,
    types: Collection[str],
    hard: Mapping[str, str],
    tries: int,
) -> tuple[list[str], Reading | None]:
    """The errors of `translator` by kind and its reading; None where every reading is kept for the backbones.

    What goes wrong is drawn first and the wrong word after it, so that the errors are as frequent as they are meant
    to be although some wrong words may not be used.
    """
    for attempt in range(tries):
        if attempt % 4 == 0:
            outcomes = {slot: _outcome(slot, source, translator, hard, rng) for slot in source.values if slot != "promo"}
            invents = rng.random() < translator.invented
        reading = _realise(source, outcomes, invents, catalogue, rng, types, hard)
        plain = not reading.untranslated and not reading.extra  # other texts are like no text of the backbones
        if not (plain and _is_reserved(reading.values, catalogue)):
            errors = [outcome for outcome in outcomes.values() if outcome != "right"]
            return errors + ["invented"] * invents, reading
    return [], None


def _outcome(slot: str, source: Source, translator: Translator, hard: Collection[str], rng: Random) -> str:
    """What happens to a slot: "right" or a key of `Critic.severity`."""
    if slot == "code":
        return "right"
    if slot == "brand":  # never misread: Latin letters, which noise spares
        return "dropped" if rng.random() < translator.lost_brand else "right"
    wrong = "type" if slot == "type" else "attribute"
    if slot in hard and rng.random() < HARD_MISREAD:
        return f"hard {wrong}"
    if slot in source.harmed and rng.random() < translator.misread:
        if source.typed_through and rng.random() < LEFT_AS_TYPED:
            return "untranslated"
        return "dropped" if slot != "type" and rng.random() < 0.5 else wrong  # a text without its type says nothing
    if slot == "type":
        return wrong if rng.random() < translator.wrong_type else "right"
    if rng.random() < translator.dropped:
        return "dropped"
    return wrong if rng.random() < translator.wrong_value else "right"


def _realise(
    source: Source,
    outcomes: Mapping[str, str],
    invents: bool,
    catalogue: Catalogue,
    rng: Random,
    types: Collection[str],
    hard: Mapping[str, str],
) -> Reading:
    type_ = catalogue.types[source.values["type"]]
    values, extra = {}, ""
    for slot, outcome in outcomes.items():
        value = source.values[slot]
        if outcome.startswith("hard"):
            value = hard[slot]
        elif outcome in ("type", "attribute"):
            value = _wrong(slot, source, catalogue, rng, types)
        if outcome not in ("dropped", "untranslated"):
            values[slot] = value
    untranslated = {slot: source.texts[slot] for slot, outcome in outcomes.items() if outcome == "untranslated"}
    if invents and "brand" not in source.values and rng.random() < 0.5:
        values["brand"] = rng.choice(catalogue.brands[type_.department])
    elif invents and "measure" not in source.values:
        values["measure"] = rng.choice(type_.axes.get("measure") or catalogue.values["measure"])
    elif invents:
        extra = str(rng.randint(2, 99))
    return Reading(values, untranslated, extra)


def _word(reading: Reading, source: Source, translator: Translator, english: Words, rng: Random, any_form: bool) -> str:
    """`reading` in English words; `any_form` asks for synonyms from every translator, so that texts come to differ."""
    texts = {}
    for slot in dict.fromkeys((*source.values, *reading.values)):  # the order of the source, then what was invented
        if slot in reading.untranslated:
            texts[slot] = reading.untranslated[slot]
        elif slot in reading.values:
            value = reading.values[slot]
            forms = english.forms.get(slot, {}).get(value, (value,))
            texts[slot] = pick(forms, rng) if any_form or translator.synonyms else forms[0]
    if translator.source_order:
        return " ".join(filter(None, [*texts.values(), reading.extra]))
    return _phrase(texts, rng.choice(english.phrases), reading.extra)


def _phrase(texts: Mapping[str, str], order: Template, extra: str = "") -> str:
    tail = [text for text in (texts.get("code", ""), extra) if text]
    pieces = [*order.pieces(texts), *(Piece(None, f" {text}") for text in tail)]
    return "".join(piece.text for piece in join_pieces(pieces))
