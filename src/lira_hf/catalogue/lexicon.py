"""What is sold (types.yaml, brands.yaml) and how each language calls it (th.yaml, ...), read and checked in one place.

Everything the other modules hold is an id ("t_shirt", "black", "500 ml"); words enter only through `Words.forms`.
A file with one mistake is refused as a whole: a word that silently falls away would make a relevance grade untrue.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lira_hf.catalogue.templates import Template, parse_template
from lira_hf.languages import ENGLISH, LANGUAGES

LEXICON = Path(__file__).with_name("lexicon")
MEASURE = re.compile(r"size [A-Z0-9]+|[0-9]+(?:\.[0-9]+)? [a-z]+")
SECTIONS = ("types", "attributes", "units", "phrases", "queries", "promos", "titles", "brands", "romanised")
ALWAYS_FILLED = {"type", "brand", "phrase"}  # the slots that may stand outside a [group]
SHOWN = 8  # problems listed in one error: enough to mend a file in a few rounds, short enough to read


@dataclass(frozen=True, eq=False)  # compared by identity, as a catalogue is
class ProductType:
    """A kind of article. `axes` maps each axis it varies in to its possible values; `complements` are type ids."""

    id: str
    department: str
    category: str  # the second level of the tree; departments do not share one
    axes: Mapping[str, tuple[str, ...]]
    complements: tuple[str, ...]


@dataclass(frozen=True, eq=False)  # compared by identity, so that functions of a catalogue can be cached
class Catalogue:
    """What is sold: ids only. `brands` maps a department to its brands, `values` an axis to every value in use."""

    types: Mapping[str, ProductType]
    departments: Mapping[str, tuple[str, ...]]
    brands: Mapping[str, tuple[str, ...]]
    variants: tuple[str, ...]
    values: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, eq=False)
class Words:
    """One language. `forms` maps a slot ("type" or an axis) to value to forms, the usual one first.

    `wrappers` are what people type before and after a phrase ("cheap ", ""). `brands` maps a brand to its spelling in the
    language's own script (empty where that is Latin). `romanised` is the same language in Latin letters (None where it
    has no such section); it has neither titles nor promos.
    """

    language: str
    forms: Mapping[str, Mapping[str, tuple[str, ...]]]
    phrases: tuple[Template, ...]
    wrappers: tuple[tuple[str, str], ...]
    titles: tuple[Template, ...]
    promos: tuple[str, ...]
    brands: Mapping[str, str]
    romanised: Words | None

    @functools.cache  # noqa: B019 - the words of a language live as long as the process
    def readings(self, slot: str, value: str) -> frozenset[str]:
        """Every form of a value, in lower case."""
        return frozenset(form.lower() for form in self.forms.get(slot, {}).get(value, ()))


@functools.cache
def load_catalogue(folder: Path = LEXICON) -> Catalogue:
    """types.yaml and brands.yaml of `folder`. Raises ValueError that names the file and the faulty entries."""
    raw, brands = read_yaml(folder / "types.yaml"), read_yaml(folder / "brands.yaml")
    problems = [f"section {name} is missing" for name in ("departments", "sets", "variants") if not raw.get(name)]
    refuse("types.yaml", problems)
    types: dict[str, ProductType] = {}
    for department, category, name, entry in _entries(raw["departments"]):
        if name in types:
            problems.append(f"{name}: stands in two categories, {types[name].category} and {category}")
        axes = {axis: _axis_values(values, raw["sets"]) for axis, values in entry.items() if axis != "complements"}
        problems += [problem for axis in axes for problem in _check_axis(f"{name}.{axis}", axis, axes[axis])]
        types[name] = ProductType(name, department, category, axes, tuple(entry.get("complements") or ()))
    for type_ in types.values():
        for other in type_.complements:
            if other not in types or other == type_.id:
                problems.append(f"{type_.id}.complements: {other!r} is not another product type")
    refuse("types.yaml", problems)
    departments: dict[str, tuple[str, ...]] = {}
    for type_ in types.values():
        departments[type_.department] = (*departments.get(type_.department, ()), type_.id)
    for name in departments.keys() ^ brands.keys():
        problems.append(f"{name}: {'has no brands' if name in departments else 'is not a department of types.yaml'}")
    problems += [p for name, names in brands.items() for p in _check_forms(name, names)]
    refuse("brands.yaml", problems)
    values: dict[str, dict[str, None]] = {}  # a dict for its order, which every draw depends on
    for type_ in types.values():
        for axis, of_axis in type_.axes.items():
            values.setdefault(axis, {}).update(dict.fromkeys(of_axis))
    return Catalogue(
        types,
        departments,
        {name: tuple(names) for name, names in brands.items()},
        tuple(raw["variants"]),
        {axis: tuple(of_axis) for axis, of_axis in values.items()},
    )


@functools.cache
def load_words(language: str, folder: Path = LEXICON) -> Words:
    """The file of one language ("th", ..., "en"), complete for the catalogue of `folder`.

    Raises ValueError for an unknown language, and one that names the file and the entries for a faulty file.
    """
    known = [*LANGUAGES, ENGLISH.code]
    if language not in known:
        raise ValueError(f"language: {language!r} is not known; allowed: {', '.join(known)}")
    catalogue, file = load_catalogue(folder), f"{language}.yaml"
    raw = read_yaml(folder / file)
    problems = [f"{name}: unknown section; allowed: {', '.join(SECTIONS)}" for name in raw if name not in SECTIONS]
    if language in LANGUAGES and LANGUAGES[language].script != "Latn":
        problems += [f"section {name} is missing" for name in ("brands", "romanised") if not raw.get(name)]
    problems += _check_section(raw, catalogue, "", ("phrases", "queries", "titles"))
    problems += _check_units(raw.get("units"), catalogue)
    problems += _check_forms("promos", raw.get("promos"))
    problems += _check_shared(raw.get("types"))
    brands = raw.get("brands") or {}
    known_brands = {brand for names in catalogue.brands.values() for brand in names}
    problems += [f"brands.{brand}: unknown brand" for brand in brands if brand not in known_brands]
    problems += [f"brands.{brand}: missing" for brand in sorted(known_brands) if brands and brand not in brands]
    problems += [p for brand, name in brands.items() for p in _check_forms(f"brands.{brand}", [name])]
    if "romanised" in raw:
        problems += _check_section(raw["romanised"] or {}, catalogue, "romanised.", ("phrases", "queries"))
    refuse(file, problems)
    measures, romanised = _measures(raw["units"], catalogue), None
    if "romanised" in raw:
        # On a phone a measure is typed as shops print it in Latin letters ("500 ml"), or as in English where they do not.
        english = load_words(ENGLISH.code, folder).forms.get("measure", {})
        latin = {measure: tuple(form for form in forms if form.isascii()) or english[measure] for measure, forms in measures.items()}
        romanised = _words(language, raw["romanised"], latin, {}, None)
    return _words(language, raw, measures, brands, romanised)


def _words(language: str, raw: Mapping, measures: Mapping, brands: Mapping, romanised: Words | None) -> Words:
    forms = {"type": raw["types"], **raw["attributes"]}
    slots = {slot: {value: tuple(words) for value, words in values.items()} for slot, values in forms.items()}
    orders = {key: tuple(map(parse_template, raw.get(key, ()))) for key in ("phrases", "titles")}
    wrappers = tuple(tuple(query.split("{phrase}")) for query in raw["queries"] if query != "{phrase}")
    promos = tuple(raw.get("promos", ()))
    return Words(language, {**slots, "measure": measures}, **orders, wrappers=wrappers, promos=promos, brands=brands, romanised=romanised)


def unit_of(measure: str) -> str:
    """The unit id of a measure: "size" for "size XL", "ml" for "500 ml"."""
    first, second = measure.split(" ")
    return "size" if first == "size" else second


def _measures(units: Mapping[str, list[str]], catalogue: Catalogue) -> dict[str, tuple[str, ...]]:
    out = {}
    for measure in catalogue.values.get("measure", ()):
        first, second = measure.split(" ")
        number = second if first == "size" else first
        out[measure] = tuple(form.replace("{n}", number) for form in units[unit_of(measure)])
    return out


# --- reading and checking: each check returns the list of its problems, so that one error can name them all ---------


class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """Refuses a key written twice: YAML keeps the last one, and a correction of the first would do nothing."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        if len(set(keys)) != len(keys):
            twice = next(key for place, key in enumerate(keys) if key in keys[:place])
            raise yaml.constructor.ConstructorError(None, None, f"{twice!r} is written twice", node.start_mark)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"{path.name}: there is no such file in the lexicon folder {path.parent}")
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), Loader=Loader)  # noqa: S506 - a safe loader, see above
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path.name}: not readable as UTF-8 YAML: {error}") from error
    if not isinstance(raw, dict):
        raise ValueError(f"{path.name}: must be a mapping of sections, not {type(raw).__name__}")
    return raw


def refuse(file: str, problems: list[str]) -> None:
    if problems:
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise ValueError(f"{file}: {'; '.join(problems[:SHOWN])}{more}")


def _entries(departments: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Iterator[tuple[str, str, str, Mapping[str, Any]]]:
    """Every product type of the tree: department, category, type, what the file says of it."""
    for department, categories in departments.items():
        for category, types in categories.items():
            for name, entry in types.items():
                yield department, category, name, entry


def _axis_values(values: Any, sets: Mapping[str, list[str]]) -> tuple[Any, ...]:
    if isinstance(values, str):  # "<shoes>": a list kept under `sets`; an unknown name stays and is refused as a value
        values = sets.get(values[1:-1], [values])
    return tuple(values or ())


def _check_axis(where: str, axis: str, values: tuple[Any, ...]) -> list[str]:
    problems = _check_forms(where, list(values))
    for value in values:
        if isinstance(value, str) and axis == "measure" and not MEASURE.fullmatch(value):
            problems.append(f"{where}: {value!r} is no measure; allowed: 'size X' or 'N unit'")
        elif isinstance(value, str) and axis != "measure" and not re.fullmatch(r"\w+", value):
            problems.append(f"{where}: {value!r} is neither an id nor the <name> of a set")
    return problems


def _check_forms(where: str, forms: Any) -> list[str]:
    if not isinstance(forms, list) or not forms:
        return [f"{where}: must be a list of at least one form, not {forms!r}"]
    problems = []
    for form in forms:
        if not isinstance(form, str) or " ".join(form.split()) != form or not form:
            problems.append(f"{where}: {form!r} is no form; allowed: text without spaces around it or doubled")
        elif unicodedata.normalize("NFC", form) != form:
            problems.append(f"{where}: {form!r} is not in Unicode NFC")
        elif forms.count(form) > 1:
            problems.append(f"{where}: {form!r} stands there twice")
    return problems


def _check_keys(where: str, given: Any, wanted: Iterable[str]) -> list[str]:
    given, wanted = given if isinstance(given, dict) else {}, list(wanted)
    problems = [f"{where}{key}: missing" for key in wanted if key not in given]
    problems += [f"{where}{key}: unknown id" for key in given if key not in wanted]
    return problems + [p for key in wanted if key in given for p in _check_forms(f"{where}{key}", given[key])]


def _check_section(raw: Mapping[str, Any], catalogue: Catalogue, prefix: str, templates: tuple[str, ...]) -> list[str]:
    axes = {axis: values for axis, values in catalogue.values.items() if axis != "measure"}
    attributes = raw.get("attributes") if isinstance(raw.get("attributes"), dict) else {}
    problems = _check_keys(f"{prefix}types.", raw.get("types"), catalogue.types)
    problems += [f"{prefix}attributes.{axis}: unknown axis" for axis in attributes if axis not in axes]
    for axis, values in axes.items():
        problems += _check_keys(f"{prefix}attributes.{axis}.", attributes.get(axis), values)
    needed = {"type", "brand", *catalogue.values}
    for key in templates:
        problems += _check_forms(f"{prefix}{key}", raw.get(key))
        for source in raw.get(key) or ():
            required = {"phrase"} if key == "queries" else needed
            allowed = required | {"promo", "code"} if key == "titles" else required
            problems += [f"{prefix}{key}: {problem}" for problem in _check_template(str(source), required, allowed)]
    return problems


def _check_template(source: str, required: set[str], allowed: set[str]) -> list[str]:
    try:
        template = parse_template(source)
    except ValueError as error:
        return [str(error)]
    slots = [piece.slot for _, parts in template.groups for piece in parts if piece.slot]
    bare = {p.slot for needed, parts in template.groups for p in parts if p.slot and not needed} - ALWAYS_FILLED
    known = ", ".join(sorted(allowed))
    problems = [f"unknown slot {{{slot}}} in {source!r}; allowed: {known}" for slot in slots if slot not in allowed]
    problems += [f"slot {{{slot}}} is missing in {source!r}" for slot in sorted(required - set(slots))]
    return problems + [f"{{{slot}}} must stand in a [group] in {source!r}" for slot in sorted(bare)]


def _check_units(units: Any, catalogue: Catalogue) -> list[str]:
    problems = _check_keys("units.", units, dict.fromkeys(map(unit_of, catalogue.values.get("measure", ()))))
    if problems:
        return problems
    forms = [(unit, form) for unit, forms in units.items() for form in forms]
    return [f"units.{unit}: {{n}} is missing in {form!r}" for unit, form in forms if "{n}" not in form]


def _check_shared(types: Any) -> list[str]:
    owners: dict[str, str] = {}
    problems = []
    for name, forms in (types if isinstance(types, dict) else {}).items():
        for form in forms if isinstance(forms, list) else ():
            if owners.setdefault(str(form), name) != name:
                problems.append(f"types.{name}: {form!r} already names {owners[str(form)]}")
    return problems
