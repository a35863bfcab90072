"""The rows of a part: products one by one and queries block by block from random streams of their own, whoever makes them."""

import dataclasses
import json
import pickle
from collections import Counter

import pytest

from lira_hf.catalogue import rows
from lira_hf.catalogue.candidates import Desk, Translator
from lira_hf.catalogue.demand import long_tail
from lira_hf.catalogue.rows import SIZES, UNSEEN_SHARE, Extent, Part, Size, corpus_columns, counted, market, query_columns, stock
from lira_hf.catalogue.splits import SPLITS, core, held_out
from lira_hf.catalogue.tables import COLUMNS

FEW = Size(Extent(400, 2, 2), Extent(40, 1, 2), Extent(120, 2, 2), types=30)
PART = Part("th", "train", FEW, 5)


def _rows(columns):
    """A table by row; the product ids come as an Arrow array."""
    lists = [column if isinstance(column, (list, tuple)) else column.to_pylist() for column in columns.values()]
    return [dict(zip(columns, row, strict=True)) for row in zip(*lists, strict=True)]


def test_sizes_are_those_that_are_told():
    totals = {name: sum(getattr(size, split).queries for split in SPLITS) for name, size in SIZES.items()}
    assert totals == {"small": 1_600, "standard": 10_000, "mega": 1_000_000}
    assert SIZES["standard"].types is SIZES["mega"].types is None


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("split", SPLITS)
def test_stock_stands_together_and_is_as_large_as_asked_for(size, split, catalogue):
    part = Part("vi", split, SIZES[size], 0)
    products = stock(part)
    assert [product.id for product in products] == [f"vi-p-{split}-{number:06d}" for number in range(len(products))]
    families = Counter(product.family_id for product in products)
    assert max(families.values()) <= part.extent.members
    of_type = {name: set() for name in part.types}
    for product in products:
        of_type[product.type].add(product.family_id)
    assert max(map(len, of_type.values())) == part.extent.families
    assert sum(bool(found) for found in of_type.values()) > 0.9 * len(part.types)
    assert (part.types & held_out(catalogue) != set()) == (split == "test")
    sold = core(catalogue, part.size.types) if part.size.types else set(catalogue.types)
    assert part.types == sold - (set() if split == "test" else held_out(catalogue))
    assert market(part).products == products and market(part).shelves.size == len(products)


def test_members_of_a_family_are_different_products():
    products = stock(PART)
    assert len({(product.family_id, json.dumps(product.attributes)) for product in products}) == len(products)


def test_rows_have_the_columns_of_their_tables():
    assert list(query_columns(PART, 0, 5)) == list(COLUMNS[""]) and list(corpus_columns(PART, 0, 5)) == list(COLUMNS["-corpus"])
    for columns, table in ((query_columns(PART, 3, 3), ""), (corpus_columns(PART, 3, 3), "-corpus")):
        assert all(len(column) == 0 for column in columns.values()) and list(columns) == list(COLUMNS[table])


def test_a_product_does_not_depend_on_its_shard():
    count = len(market(PART).products)
    whole = _rows(corpus_columns(PART, 0, count))
    assert [row["_id"] for row in whole] == [product.id for product in market(PART).products]
    for start, stop in ((0, 1), (7, 30), (count - 3, count)):
        assert _rows(corpus_columns(PART, start, stop)) == whole[start:stop]


def test_a_block_of_queries_depends_on_its_shard_only_where_it_would_repeat_a_query(monkeypatch):
    monkeypatch.setattr(rows, "BLOCK", 20)
    part = dataclasses.replace(PART, size=dataclasses.replace(FEW, types=4))  # so few that some queries come twice
    whole = _rows(query_columns(part, 0, 400))
    assert [row["query_id"] for row in whole] == [f"th-q-train-{number:06d}" for number in range(400)]
    kept = 0
    for start in range(0, 400, 20):
        alone, earlier = _rows(query_columns(part, start, start + 20)), {row["query"] for row in whole[:start]}
        if not {row["query"] for row in alone} & earlier:
            assert alone == whole[start : start + 20]
            kept += 1
    assert 3 < kept < 20


def test_shards_of_several_blocks_hold_the_same_blocks(monkeypatch):
    monkeypatch.setattr(rows, "BLOCK", 20)
    part = Part("id", "train", SIZES["small"], 0)
    whole = _rows(query_columns(part, 0, 130))
    assert len({row["query"] for row in whole}) == 130
    assert _rows(query_columns(part, 0, 60)) + _rows(query_columns(part, 60, 130)) == whole


def test_queries_of_a_shard_repeat_each_other_seldom():
    large = Part("id", "train", SIZES["small"], 0)
    texts = Counter(query_columns(large, 0, 600)["query"])
    assert len(texts) > 0.99 * 600


def test_seeds_languages_and_splits_have_their_own_streams():
    def first(**change):
        return query_columns(dataclasses.replace(PART, **change), 0, 20)["intent"]

    intents = [first(), first(seed=6), first(language="ur"), first(split="validation")]
    assert first() == first() and len(set(map(str, intents))) == 4


def test_another_desk_changes_translations_alone(monkeypatch):
    monkeypatch.setattr(rows, "BLOCK", 20)
    sure = Desk((Translator("sure", 0, 0, 0),), hard_words=0.0)
    mine, theirs = (_rows(query_columns(dataclasses.replace(PART, desk=desk), 0, 60)) for desk in (sure, Desk()))
    for one, other in zip(mine, theirs, strict=True):
        assert {**one, "translations": 0} == {**other, "translations": 0}
        assert [candidate.source for candidate in one["translations"]] == ["sure"]
        assert len(other["translations"]) > 1
    mine, theirs = (_rows(corpus_columns(dataclasses.replace(PART, desk=desk), 0, 40)) for desk in (sure, Desk()))
    assert [{**row, "translations": 0} for row in mine] == [{**row, "translations": 0} for row in theirs] and mine != theirs


def test_a_part_is_a_name_that_can_be_sent():
    again = pickle.loads(pickle.dumps(PART))
    assert again == PART and hash(again) == hash(PART)
    assert _rows(query_columns(again, 0, 10)) == _rows(query_columns(PART, 0, 10))


def test_unseen_and_long_tail_queries_are_marked(catalogue):
    made = _rows(query_columns(Part("ms", "test", SIZES["standard"], 0), 0, 600))
    for row in made:
        type_id = json.loads(row["intent"])["type"]
        assert ("unseen" in row["slice"]) == (type_id in held_out(catalogue))
        assert ("long_tail" in row["slice"]) == (type_id in long_tail(catalogue))
        assert len(row["slice"]) == len(set(row["slice"])) and row["slice"][0] not in ("unseen", "long_tail")
    assert sum("unseen" in row["slice"] for row in made) / 600 == pytest.approx(UNSEEN_SHARE, abs=0.04)
    assert sum("long_tail" in row["slice"] for row in made) / 600 == pytest.approx(1 / 6, abs=0.07)


def test_counts_are_those_of_the_rows():
    columns = query_columns(PART, 0, 200)
    made, found = _rows(columns), counted(columns)
    grades = [grade for row in made for grade in row["relevances"]]
    assert found.pop("queries") == 200 and found.pop("judgements") == len(grades)
    assert found.pop("relevant") == sum(grade > 0 for grade in grades)
    assert found == Counter(f"slice:{tag}" for row in made for tag in row["slice"])
