"""The shipped lexicon is complete, and a lexicon with a mistake is refused by name."""

import unicodedata
from statistics import fmean

import pytest

from lira_hf.catalogue.lexicon import load_catalogue, load_words, unit_of
from lira_hf.languages import LANGUAGES

CODES = [*LANGUAGES, "en"]


def test_catalogue_is_large_enough(catalogue):
    assert len(catalogue.types) >= 600 and len(catalogue.departments) >= 20
    assert sum(len(values) for axis, values in catalogue.values.items() if axis != "measure") >= 250
    assert len({brand for brands in catalogue.brands.values() for brand in brands}) >= 60
    assert all(catalogue.brands[department] for department in catalogue.departments)
    assert all(type_.axes for type_ in catalogue.types.values())


def test_the_tree_has_two_levels(catalogue):
    """A category stands in one department, and the types of a department stand together, as judging needs them."""
    departments = {}
    for type_ in catalogue.types.values():
        departments.setdefault(type_.category, set()).add(type_.department)
    assert all(len(of) == 1 for of in departments.values()) and len(departments) > 2 * len(catalogue.departments)
    assert list(catalogue.types) == [name for names in catalogue.departments.values() for name in names]


@pytest.mark.parametrize("code", CODES)
def test_language_is_complete(code, catalogue):
    words = load_words(code)
    assert set(words.forms["type"]) == set(catalogue.types)
    for axis, values in catalogue.values.items():
        assert set(values) <= set(words.forms[axis])
    assert len(words.phrases) >= 3 and len(words.wrappers) >= 8 and len(words.titles) >= 5 and len(words.promos) >= 8
    assert all(unicodedata.is_normalized("NFC", form) for of in words.forms.values() for fs in of.values() for form in fs)
    assert (words.romanised is not None) == (code in ("th", "ur", "bn"))


@pytest.mark.parametrize("code", CODES)
def test_types_have_more_than_one_name(code):
    """A data set in which every article has one name asks for no understanding."""
    assert fmean(map(len, load_words(code).forms["type"].values())) >= 1.5


@pytest.mark.parametrize("code", CODES)
def test_the_bare_phrase_is_no_wrapper(code):
    words = load_words(code)
    for each in (words, words.romanised):
        for before, after in each.wrappers if each else ():
            assert before or after
            assert "{" not in before + after and "}" not in before + after


def test_malay_is_not_indonesian():
    malay, indonesian = (load_words(code).forms["type"] for code in ("ms", "id"))
    same = sum(forms[0].lower() == indonesian[name][0].lower() for name, forms in malay.items())
    assert same / len(malay) < 0.6


@pytest.mark.parametrize("code", CODES)
def test_measures_keep_their_number(code, catalogue):
    forms = load_words(code).forms["measure"]
    for measure in catalogue.values["measure"]:
        number = measure.split(" ")[1 if unit_of(measure) == "size" else 0]
        assert all(number in form for form in forms[measure])


@pytest.mark.parametrize("code", ["th", "ur", "bn"])
def test_romanised_words_are_latin_or_loanwords(code):
    words = load_words(code).romanised
    text = "".join(form for of in words.forms.values() for forms in of.values() for form in forms)
    assert all(letter.isascii() for letter in text if letter.isalpha())


def test_tiny_lexicon_loads(tiny_lexicon):
    folder = tiny_lexicon()
    words = load_words("th", folder)
    assert words.forms["measure"] == {
        "size S": ("ไซส์ S",),
        "size M": ("ไซส์ M",),
        "300 ml": ("300 มล.",),
        "1.5 l": ("1.5 ลิตร",),
    }
    assert words.romanised.forms["measure"]["300 ml"] == ("300 ml",)  # as in English, where the language has no Latin form of its own
    assert words.wrappers == (("", " ราคาถูก"),) and words.romanised.wrappers == (("", " thuk"),)
    shirt = load_catalogue(folder).types["shirt"]
    assert shirt.axes["measure"] == ("size S", "size M") and (shirt.department, shirt.category) == ("clothing", "tops")
    assert load_catalogue(folder).departments == {"clothing": ("shirt", "belt"), "kitchen": ("mug",)}


def _put(*path_and_value):
    """A change that puts the last argument where the others lead; None deletes."""
    *path, key, value = path_and_value

    def change(files):
        for step in path:
            files = files[step]
        if value is None:
            del files[key]
        else:
            files[key] = value

    return change


def test_romanised_measures_are_the_latin_ones_of_the_language(tiny_lexicon):
    words = load_words("th", tiny_lexicon(lambda files: files["th"]["units"].update(ml=["{n} มล.", "{n}ml", "{n} cc"])))
    assert words.romanised.forms["measure"] == {
        "size S": ("size S",),
        "size M": ("size M",),
        "300 ml": ("300ml", "300 cc"),
        "1.5 l": ("1.5 L",),
    }


SHIRT = ("types", "departments", "clothing", "tops", "shirt")
MISTAKES = {
    "missing type": (_put("th", "types", "belt", None), "th.yaml: types.belt: missing"),
    "unknown type": (_put("th", "types", "hat", ["หมวก"]), "th.yaml: types.hat: unknown id"),
    "missing value": (_put("th", "attributes", "colour", "red", None), "attributes.colour.red: missing"),
    "unknown value": (_put("th", "attributes", "colour", "gold", ["ทอง"]), "attributes.colour.gold: unknown id"),
    "unknown axis": (_put("th", "attributes", "smell", {}), "attributes.smell: unknown axis"),
    "missing unit": (_put("th", "units", "ml", None), "units.ml: missing"),
    "unknown unit": (_put("th", "units", "kg", ["{n} kg"]), "units.kg: unknown id"),
    "unit without number": (_put("th", "units", "ml", ["มล."]), "units.ml: {n} is missing"),
    "no forms": (_put("th", "types", "belt", []), "types.belt: must be a list of at least one form"),
    "bare string": (_put("th", "types", "belt", "เข็มขัด"), "types.belt: must be a list"),
    "empty form": (_put("th", "types", "belt", [""]), "types.belt: '' is no form"),
    "spaces around": (_put("th", "types", "belt", ["a "]), "types.belt: 'a ' is no form"),
    "misread by YAML": (_put("th", "types", "belt", [False]), "types.belt: False is no form"),
    "form twice": (_put("th", "types", "belt", ["a", "a"]), "types.belt: 'a' stands there twice"),
    "form of two types": (_put("th", "types", "belt", ["แก้ว"]), "already names"),
    "not NFC": (_put("th", "types", "belt", ["e\u0301"]), "is not in Unicode NFC"),
    "unknown slot": (_put("th", "titles", ["{brand} {type}[ {smell}]"]), "titles: unknown slot {smell}"),
    "code outside titles": (
        _put("th", "phrases", ["{type}[ {colour}][ {feature}][ {measure}][ {brand}][ {code}]"]),
        "phrases: unknown slot {code}",
    ),
    "slot left out": (_put("th", "phrases", ["{type}[ {colour}][ {feature}][ {brand}]"]), "slot {measure} is missing"),
    "query without phrase": (_put("th", "queries", ["ราคา"]), "queries: slot {phrase} is missing"),
    "slot outside group": (
        _put("th", "phrases", ["{type} {colour}[ {feature}][ {measure}][ {brand}]"]),
        "must stand in a [group]",
    ),
    "open bracket": (_put("th", "phrases", ["{type}[ {colour}"]), "every '['"),
    "no promos": (_put("th", "promos", None), "promos: must be a list"),
    "unknown section": (_put("th", "romanized", {}), "romanized: unknown section"),
    "no romanised section": (_put("th", "romanised", None), "section romanised is missing"),
    "no brands section": (_put("th", "brands", None), "section brands is missing"),
    "romanised type": (_put("th", "romanised", "types", "mug", None), "romanised.types.mug: missing"),
    "romanised query": (_put("th", "romanised", "queries", ["x"]), "romanised.queries: slot {phrase} is missing"),
    "unknown brand": (_put("th", "brands", "Nobody", "โนบอดี้"), "brands.Nobody: unknown brand"),
    "missing brand": (_put("th", "brands", "Velunta", None), "brands.Velunta: missing"),
    "not a mapping": (_put("th", ["types"]), "th.yaml: must be a mapping"),
    "not YAML": (_put("th", "types: [a"), "th.yaml: not readable"),
    "written twice": (_put("th", "types:\n  a: [b]\n  a: [c]\n"), "'a' is written twice"),
    "bad measure": (_put(*SHIRT, "measure", ["large"]), "types.yaml: shirt.measure: 'large' is no measure"),
    "bad measure set": (_put(*SHIRT, "measure", "<sizes>"), "'<sizes>' is no measure"),
    "unknown set": (_put(*SHIRT, "colour", "<rainbow>"), "'<rainbow>' is neither an id nor"),
    "axis without values": (_put(*SHIRT, "colour", []), "shirt.colour: must be a list"),
    "unknown complement": (
        _put(*SHIRT, "complements", ["hat"]),
        "shirt.complements: 'hat' is not another product type",
    ),
    "own complement": (_put(*SHIRT, "complements", ["shirt"]), "shirt.complements: 'shirt' is not another"),
    "type in two categories": (
        _put("types", "departments", "kitchen", "cups", "belt", {"feature": ["wide"]}),
        "belt: stands in two categories, extras and cups",
    ),
    "no departments": (_put("types", "departments", None), "types.yaml: section departments is missing"),
    "department without brands": (_put("brands", "kitchen", None), "brands.yaml: kitchen: has no brands"),
    "brands of nothing": (_put("brands", "garden", ["X"]), "brands.yaml: garden: is not a department"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named(name, tiny_lexicon):
    change, message = MISTAKES[name]
    folder = tiny_lexicon(change)
    with pytest.raises(ValueError) as error:
        load_words("th", folder)
    assert message in str(error.value)


def test_all_mistakes_come_in_one_error(tiny_lexicon):
    def change(files):
        del files["th"]["types"]["belt"], files["th"]["units"]["ml"]

    with pytest.raises(ValueError, match=r"types\.belt: missing; .*units\.ml: missing"):
        load_words("th", tiny_lexicon(change))


def test_unknown_language_and_missing_file(tiny_lexicon):
    with pytest.raises(ValueError, match="language: 'xx' is not known; allowed: vi"):
        load_words("xx")
    with pytest.raises(ValueError, match=r"id\.yaml: there is no such file"):
        load_words("id", tiny_lexicon())
