"""Grades by hand, and judgements that leave nothing out."""

from random import Random

import pytest

from lira_hf.catalogue.composition import Intent, Product
from lira_hf.catalogue.relevance import JUDGED, ZEROS, Shelves, grade, judgements

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


def _shelves(catalogue, *products):
    return Shelves.stocked(products, catalogue)


def test_judgements_list_all_relevant_products_and_the_hardest_zeros(catalogue):
    right, near = _product("mug", **RED_GLASS), _product("mug", **{**RED_GLASS, "colour": "blue"})
    far = _product("mug", **{**RED_GLASS, "colour": "blue", "material": "ceramic"})
    complement = _product("coffee", flavour="vanilla")
    department = [_product("bowl", brand=f"b{n}", **RED_GLASS) for n in range(40)]
    elsewhere = [_product("jeans", brand=f"b{n}", colour="red") for n in range(40)]
    intent = Intent("mug", {"colour": "red", "material": "glass"})
    judged = judgements(intent, _shelves(catalogue, *elsewhere, complement, far, *department, near, right), catalogue, Random(0))
    assert judged[:4] == [(right.id, 3), (near.id, 2), (complement.id, 1), (far.id, 0)]
    assert len(judged) == JUDGED == len({id_ for id_, _ in judged})
    assert {id_ for id_, _ in judged[4:]} <= {product.id for product in department}


def test_judgements_go_beyond_a_small_department_and_keep_some_zeros(catalogue):
    elsewhere = [_product("jeans", brand=f"b{n}", colour="red") for n in range(40)]
    only = _product("mug", **RED_GLASS)
    assert len(judgements(Intent("mug", {}), _shelves(catalogue, only, *elsewhere), catalogue, Random(0))) == JUDGED
    many = [_product("mug", brand=f"b{n}", **RED_GLASS) for n in range(JUDGED + 5)]
    judged = judgements(Intent("mug", {}), _shelves(catalogue, *many, *elsewhere), catalogue, Random(0))
    assert [score for _, score in judged] == [3] * len(many) + [0] * ZEROS
    assert judgements(Intent("mug", {}), _shelves(catalogue, only), catalogue, Random(0)) == [(only.id, 3)]
