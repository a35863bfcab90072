"""How each language words the problems: templates with slots, read from wording/*.yaml and checked in one place."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lira_hf.catalogue.lexicon import load_catalogue, load_words, read_yaml, refuse
from lira_hf.catalogue.problems.arithmetic import KINDS
from lira_hf.catalogue.splits import SPLITS
from lira_hf.languages import ENGLISH, check_languages

WORDING = Path(__file__).with_name("wording")
SPLIT_OF = ("train", "train", "train", "train", "validation", "test", "test")  # of the first, second, ... template of every kind
WRITTEN_AS = {"percent": "discount"}  # kinds that share their templates with another, save for what `cuts` puts in
SLOT = re.compile(r"\{(\w+)\}")
MEANINGLESS = ("cl", "cl2", "money")  # slots that need not stand in the translation


@dataclass(frozen=True, eq=False)
class Wording:
    """One of the seven languages. `templates` maps a template's id ("total-1") to its text, `forms` an item to the texts of
    its slots ({"item": ..., "cl": ...}), `names` the English spelling of a person's name to its own, `order` a clause's
    mood to the order in which the language puts subject, verb and rest; `joins` are regular expressions, and what replaces
    them in a filled text.
    """

    language: str
    templates: Mapping[str, str]
    forms: Mapping[str, Mapping[str, str]]
    names: Mapping[str, str]
    money: str
    order: Mapping[str, Sequence[int]]
    joins: Mapping[str, str]


@dataclass(frozen=True, eq=False)
class English:
    """English. A template's bars part subject, verb and rest of a clause; `money` maps a language to what its prices are in;
    `misreadings` maps a kind to phrase to what it is taken for; `little` are words that a word-by-word translation leaves out.
    """

    templates: Mapping[str, str]
    forms: Mapping[str, Mapping[str, str]]
    money: Mapping[str, str]
    misreadings: Mapping[str, Mapping[str, Sequence[str]]]
    synonyms: Mapping[str, Sequence[str]]
    little: frozenset[str]


def template_ids(kind: str, split: str) -> list[str]:
    """The templates of a kind that a split may use; no two splits share one."""
    return [f"{kind}-{number}" for number, of in enumerate(SPLIT_OF, 1) if of == split]


@functools.cache
def load_english(folder: Path = WORDING) -> English:
    """en.yaml of `folder`. Raises ValueError that names the file and the faulty entries."""
    raw, catalogue = read_yaml(folder / "en.yaml"), load_catalogue()
    problems = [f"items.{item}: is no product type of the catalogue" for item in raw["items"] if item not in catalogue.types]
    templates = dict(_templates(raw))
    problems += _check_ids(templates)
    for name, template in templates.items():
        kind = name.partition("-")[0]
        if not phrases(raw["misreadings"][kind]).search(template):
            problems.append(f"templates.{name}: no phrase of misreadings.{kind} stands in {template!r}")
    refuse("en.yaml", problems)
    forms = {item: {"item": one, "items": many} for item, (one, many) in raw["items"].items()}
    money = {code: read_yaml(folder / f"{code}.yaml")["money"][1] for code in check_languages(None)}
    return English(templates, forms, money, raw["misreadings"], raw["synonyms"], frozenset(raw["little"]))


@functools.cache
def load_wording(language: str, folder: Path = WORDING) -> Wording:
    """The file of one of the seven languages. Raises ValueError that names it and the templates that do not say what the English ones say."""
    check_languages([language])
    raw, english, catalogue = read_yaml(folder / f"{language}.yaml"), load_english(folder), load_words(language)
    templates = dict(_templates(raw))
    problems = _check_ids(templates)
    for name in templates.keys() & english.templates.keys():
        missing = slots(english.templates[name]) ^ slots(templates[name])
        problems += [f"templates.{name}: the slot {{{slot}}} stands in one of this and the English text only" for slot in sorted(missing)]
    classifiers = raw.get("classifiers", {})
    problems += [f"classifiers.{item}: is no item of en.yaml" for item in classifiers if item not in english.forms]
    refuse(f"{language}.yaml", problems)
    forms = {item: {"item": catalogue.forms["type"][item][0], "cl": classifiers.get(item, raw.get("classifier", ""))} for item in english.forms}
    return Wording(language, templates, forms, raw["names"], raw["money"][0], raw["order"], raw.get("joins", {}))


@functools.cache
def names_of(language: str) -> tuple[str, ...]:
    """The people of a language, in English spelling; for English those of all languages."""
    return tuple(name for code in (check_languages(None) if language == ENGLISH.code else [language]) for name in load_wording(code).names)


def slots(template: str) -> set[str]:
    """The slots that carry meaning; "items" counts as "item"."""
    return {slot.replace("items", "item") for slot in SLOT.findall(template) if slot not in MEANINGLESS}


def phrases(table: Mapping[str, Sequence[str]]) -> re.Pattern[str]:
    """Finds the keys of `table` in a template, the longest first, whatever their case and wherever a bar stands between their words."""
    longest = sorted(table, key=len, reverse=True)
    words = "|".join(re.escape(phrase).replace(r"\ ", r"[ |]") for phrase in longest)
    return re.compile(rf"(?<![\w{{])(?:{words})(?![\w}}])", re.IGNORECASE)


def _templates(raw: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for kind in KINDS:
        for number, template in enumerate(raw["templates"].get(WRITTEN_AS.get(kind, kind), ()), 1):
            yield f"{kind}-{number}", template.replace("{cut}", raw["cuts"].get(kind, ""))


def _check_ids(templates: Mapping[str, str]) -> list[str]:
    wanted = {name for kind in KINDS for split in SPLITS for name in template_ids(kind, split)}
    problems = [f"templates.{name}: {'missing' if name in wanted else 'unknown'}" for name in sorted(wanted ^ templates.keys())]
    return problems + [
        f"templates.{name}: holds a digit outside its slots" for name, text in templates.items() if re.search(r"\d", SLOT.sub("", text))
    ]
