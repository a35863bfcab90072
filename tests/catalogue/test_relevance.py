"""Grades by hand, and judgements that leave nothing out: the fast way finds what grading every product finds."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lira_hf.catalogue.composition import Intent, Product
from lira_hf.catalogue.lexicon import Catalogue, ProductType
from lira_hf.catalogue.relevance import JUDGED, ZEROS, Shelves, grade, judgements
from lira_hf.catalogue.rows import SIZES, Part, market

RED_GLASS = {"colour": "red", "material": "glass", "pattern": "plain", "feature": "with_lid", "measure": "300 ml"}


def _product(type_id, brand="Norvika", **attributes):
    return Product(f"{type_id}-{brand}-{'-'.join(attributes.values())}", "f", type_id, brand, attributes)


@pytest.mark.parametrize(
    ("wanted", "product", "expected"),
    [
        ({}, _product("mug", **RED_GLASS), 3),
        ({"colour": "red"}, _product("mug", **RED_GLASS), 3),
        ({"colour": "red", "material": "glass", "measure": "300 ml"}, _product("mug", **RED_GLASS), 3),
        ({"brand": "Norvika"}, _product("mug", **RED_GLASS), 3),
        ({"colour": "blue"}, _product("mug", **RED_GLASS), 2),
        ({"brand": "Kookavi", "colour": "red"}, _product("mug", **RED_GLASS), 2),
        ({"colour": "red", "measure": "500 ml"}, _product("mug", **RED_GLASS), 2),
        ({"colour": "blue", "measure": "500 ml"}, _product("mug", **RED_GLASS), 0),
        ({"colour": "blue", "brand": "Kookavi", "material": "glass"}, _product("mug", **RED_GLASS), 0),
        (
            {"colour": "red"},
            _product("coffee", flavour="vanilla"),
            1,
        ),  # people buy coffee with a mug, and it has no colour
        ({"colour": "red"}, _product("bowl", **RED_GLASS), 0),  # the same department, but no complement
        ({"colour": "red"}, _product("jeans", colour="red"), 0),
    ],
)
def test_grade(wanted, product, expected, catalogue):
    assert grade(Intent("mug", wanted), product, catalogue) == expected


@pytest.mark.parametrize(
    ("wanted", "product", "expected"),
    [
        ({"colour": "red"}, _product("handbag", colour="red", material="leather"), 1),
        ({"colour": "red"}, _product("handbag", colour="blue", material="leather"), 0),  # red ones exist, this is none
        ({"material": "cotton"}, _product("handbag", colour="blue", material="leather"), 1),  # no handbag is of cotton
        ({"brand": "Velunta"}, _product("handbag", brand="Quillana", colour="blue"), 1),
        ({}, _product("handbag", colour="blue"), 1),
    ],
)
def test_complements_must_match_where_they_can(wanted, product, expected, catalogue):
    assert grade(Intent("dress", wanted), product, catalogue) == expected


def test_complements_are_one_way(catalogue):
    """A case complements a phone as a phone does a case only because both say so."""
    assert "instant_noodles" not in catalogue.types["rice"].complements
    assert grade(Intent("electric_kettle", {}), _product("tea"), catalogue) == 1
    assert grade(Intent("tea", {}), _product("electric_kettle"), catalogue) == 0


def test_judgements_list_all_relevant_products_and_the_hardest_zeros(catalogue):
    right, near = _product("mug", **RED_GLASS), _product("mug", **{**RED_GLASS, "colour": "blue"})
    far = _product("mug", **{**RED_GLASS, "colour": "blue", "material": "ceramic"})
    complement = _product("coffee", flavour="vanilla")
    department = [_product("bowl", brand=f"b{n}", **RED_GLASS) for n in range(40)]
    elsewhere = [_product("jeans", brand=f"b{n}", colour="red") for n in range(40)]
    products = [*elsewhere, complement, *department, far, near, right]
    intent = Intent("mug", {"colour": "red", "material": "glass"})
    numbers, grades = judgements(intent, Shelves(products, catalogue), Random(0))
    assert [products[number] for number in numbers[:4]] == [right, near, complement, far]
    assert grades == [3, 2, 1, 0] + [0] * (JUDGED - 4)
    assert len(numbers) == JUDGED == len(set(numbers))
    assert all(products[number] in department for number in numbers[4:])


def test_judgements_go_beyond_a_small_department_and_keep_some_zeros(catalogue):
    elsewhere = [_product("jeans", brand=f"b{n}", colour="red") for n in range(40)]
    only = _product("mug", **RED_GLASS)
    numbers, _ = judgements(Intent("mug", {}), Shelves([only, *elsewhere], catalogue), Random(0))
    assert len(numbers) == JUDGED
    many = [_product("mug", brand=f"b{n}", **RED_GLASS) for n in range(JUDGED + 5)]
    numbers, grades = judgements(Intent("mug", {}), Shelves([*many, *elsewhere], catalogue), Random(0))
    assert grades == [3] * len(many) + [0] * ZEROS and numbers[: len(many)] == list(range(len(many)))
    assert judgements(Intent("mug", {}), Shelves([only], catalogue), Random(0)) == ([0], [3])
    assert judgements(Intent("mug", {}), Shelves([], catalogue), Random(0)) == ([], [])


@pytest.mark.parametrize(
    "order",
    [
        ("mug", "jeans", "mug"),  # a type twice
        ("mug", "jeans", "bowl"),  # a department twice
    ],
)
def test_products_must_stand_together(order, catalogue):
    products = [_product(name, brand=f"b{place}") for place, name in enumerate(order)]
    with pytest.raises(ValueError, match=f"products: those of type {order[2]!r} do not stand together"):
        Shelves(products, catalogue)
    Shelves(sorted(products, key=lambda product: catalogue.types[product.type].department + product.type), catalogue)


def _check(intent, products, shelves, rng):
    """`judgements` against `grade` of every product."""
    numbers, grades = judgements(intent, shelves, rng)
    truth = [grade(intent, product, shelves.catalogue) for product in products]
    assert grades == [truth[number] for number in numbers] == sorted(grades, reverse=True)
    assert len(set(numbers)) == len(numbers)
    relevant = sum(score > 0 for score in truth)
    assert {number for number, score in enumerate(truth) if score} == set(numbers[:relevant])
    zeros = numbers[relevant:]
    assert len(zeros) == min(max(ZEROS, JUDGED - relevant), len(products) - relevant)

    def nearness(number):
        same = shelves.catalogue.types[products[number].type].department == shelves.catalogue.types[intent.type].department
        return 2 if products[number].type == intent.type else 1 if same else 0

    near = [nearness(number) for number in zeros]
    assert near == sorted(near, reverse=True)
    left = [nearness(number) for number in set(range(len(products))) - set(numbers)]
    assert not left or not zeros or max(left) <= min(near)  # nothing harder was left aside


# Few types with few values, so that a hundred products are alike in every way there is.
_AXES = {"colour": ("red", "blue"), "feature": ("slim", "wide", "thin"), "measure": ("1 l", "2 l")}
_TREE = {"shirt": ("clothing", "belt"), "belt": ("clothing", "mug"), "hat": ("clothing", ""), "mug": ("kitchen", "shirt"), "pan": ("kitchen", "mug")}


@st.composite
def _worlds(draw):
    """A catalogue, products that stand together, and an intent."""
    types = {}
    for name, (department, complement) in _TREE.items():
        axes = {
            axis: tuple(draw(st.lists(st.sampled_from(values), min_size=1, unique=True))) for axis, values in _AXES.items() if draw(st.booleans())
        }
        types[name] = ProductType(name, department, department, axes, (complement,) if complement else ())
    departments = {"clothing": ("shirt", "belt", "hat"), "kitchen": ("mug", "pan")}
    brands = ("Velunta", "Wokando")
    catalogue = Catalogue(types, departments, dict.fromkeys(departments, brands), ("colour", "measure"), _AXES)
    products = []
    for type_ in types.values():
        for _ in range(draw(st.integers(0, 12))):
            attributes = {axis: draw(st.sampled_from(values)) for axis, values in type_.axes.items()}
            products.append(Product("", "", type_.id, draw(st.sampled_from(brands)), attributes))
    slots = {"brand": (*brands, "Nobody"), **_AXES}  # what nobody sells is asked for too
    wanted = draw(st.fixed_dictionaries({}, optional={slot: st.sampled_from(values) for slot, values in slots.items()}))
    return catalogue, products, Intent(draw(st.sampled_from(list(types))), wanted)


@settings(max_examples=200, deadline=None)
@given(world=_worlds(), seed=st.integers(0, 3))
def test_judgements_are_the_grades_of_any_corpus(world, seed):
    catalogue, products, intent = world
    _check(intent, products, Shelves(products, catalogue), Random(seed))


@pytest.mark.parametrize("split", ["train", "test"])
def test_judgements_are_the_grades_of_a_whole_corpus(split):
    part = Part("id", split, SIZES["small"], 0)
    sold = market(part)
    for seed in range(60):
        rng = Random(seed)
        intent, product = sold.demand[split == "test" and seed % 3 == 0].draw(rng)
        _check(intent, sold.products, sold.shelves, rng)
        numbers, grades = judgements(intent, sold.shelves, rng)
        assert 3 in grades and 0 in grades and product in [sold.products[number] for number in numbers[: grades.count(3)]]


def test_irrelevant_products_vary_with_the_stream(catalogue):
    products = [_product("jeans", brand=f"b{n}", colour="red") for n in range(400)]
    found = {tuple(judgements(Intent("mug", {}), Shelves(products, catalogue), Random(seed))[0]) for seed in (0, 0, 1, 2)}
    assert len(found) == 3
