"""What the catalogue's tests share: one small data set of all languages, and a lexicon small enough to read."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from lira_hf.catalogue import build
from lira_hf.catalogue.composition import Product
from lira_hf.catalogue.demand import Demand
from lira_hf.catalogue.lexicon import Catalogue, load_catalogue
from lira_hf.catalogue.rows import SIZES, Part, stock
from lira_hf.catalogue.tables import table_path


@pytest.fixture(scope="session")
def catalogue() -> Catalogue:
    """The catalogue that is shipped."""
    return load_catalogue()


@pytest.fixture(scope="session")
def products() -> list[Product]:
    """Products of the training split, of every type it may name."""
    return stock(Part("th", "train", SIZES["standard"], 0))


@pytest.fixture(scope="session")
def demand(products: list[Product], catalogue: Catalogue) -> Demand:
    """What is asked of these products."""
    return Demand.for_stock(products, "train", catalogue)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set in all seven languages; tests only read it."""
    return build(tmp_path_factory.mktemp("laz") / "small", progress=False)


@pytest.fixture(scope="session")
def read(built: Path):
    """read(language, suffix, split): the rows of one table of the small data set."""
    cache: dict[tuple[str, str, str], list[dict[str, Any]]] = {}

    def rows(language: str, suffix: str, split: str) -> list[dict[str, Any]]:
        key = (language, suffix, split)
        if key not in cache:
            cache[key] = pq.read_table(table_path(built, *key)).to_pylist()
        return cache[key]

    return rows


TINY: dict[str, Any] = {
    "types": {
        "variants": ["colour", "measure"],
        "sets": {"letters": ["size S", "size M"]},
        "departments": {
            "clothing": {
                "tops": {"shirt": {"colour": ["red", "blue"], "feature": ["slim", "wide"], "measure": "<letters>"}},
                "extras": {"belt": {"colour": ["red"], "feature": ["wide"], "complements": ["shirt"]}},
            },
            "kitchen": {"cups": {"mug": {"feature": ["wide"], "measure": ["300 ml", "1.5 l"]}}},
        },
    },
    "brands": {"clothing": ["Velunta"], "kitchen": ["Wokando"]},
    "th": {
        "types": {"shirt": ["เสื้อ", "เสื้อเชิ้ต"], "belt": ["เข็มขัด"], "mug": ["แก้ว"]},
        "attributes": {"colour": {"red": ["สีแดง"], "blue": ["สีฟ้า"]}, "feature": {"slim": ["เข้ารูป"], "wide": ["กว้าง"]}},
        "units": {"size": ["ไซส์ {n}"], "ml": ["{n} มล."], "l": ["{n} ลิตร"]},
        "phrases": ["{type}[{colour}][ {feature}][ {measure}][ {brand}]"],
        "queries": ["{phrase}", "{phrase} ราคาถูก"],
        "promos": ["ส่งฟรี"],
        "titles": ["[{promo} ]{brand} {type}[ {feature}][ {colour}][ {measure}][ {code}]"],
        "brands": {"Velunta": "เวลุนตา", "Wokando": "โวคานโด"},
        "romanised": {
            "types": {"shirt": ["suea"], "belt": ["khem khat"], "mug": ["kaeo"]},
            "attributes": {
                "colour": {"red": ["si daeng"], "blue": ["si fa"]},
                "feature": {"slim": ["khao rup"], "wide": ["kwang"]},
            },
            "phrases": ["{type}[ {colour}][ {feature}][ {measure}][ {brand}]"],
            "queries": ["{phrase}", "{phrase} thuk"],
        },
    },
    "en": {
        "types": {"shirt": ["shirt"], "belt": ["belt"], "mug": ["mug", "cup"]},
        "attributes": {
            "colour": {"red": ["red"], "blue": ["blue"]},
            "feature": {"slim": ["slim-fit"], "wide": ["wide"]},
        },
        "units": {"size": ["size {n}"], "ml": ["{n} ml"], "l": ["{n} L"]},
        "phrases": ["[{feature} ][{colour} ]{type}[, {measure}][ by {brand}]"],
        "queries": ["{phrase}", "cheap {phrase}"],
        "promos": ["Sale"],
        "titles": ["{brand} [{feature} ][{colour} ]{type}[ {measure}][ {code}][ {promo}]"],
    },
}


@pytest.fixture
def tiny_lexicon(tmp_path: Path):
    """write(change=None) writes a lexicon of three types, after change(its dict), and returns its folder."""

    def write(change=None) -> Path:
        files = copy.deepcopy(TINY)
        if change:
            change(files)
        for name, content in files.items():
            text = content if isinstance(content, str) else yaml.safe_dump(content, allow_unicode=True, sort_keys=False)
            (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
        return tmp_path

    return write
