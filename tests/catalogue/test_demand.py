"""What is asked for: as often as published, answered by the stock, and never another split's."""

import itertools
from collections import Counter
from random import Random

import pytest

from lira_hf.catalogue.composition import Intent, Product
from lira_hf.catalogue.demand import KINDS, WANTED, Demand, kind_of, long_tail, popularity
from lira_hf.catalogue.lexicon import load_catalogue
from lira_hf.catalogue.rows import SIZES, Part, market
from lira_hf.catalogue.splits import BACKBONES, bucket, fixed_slots, held_out

DRAWS = 4000


@pytest.fixture(scope="module")
def drawn(demand):
    """Intents of the training split, each with the product it was drawn from."""
    return [demand.draw(Random(seed)) for seed in range(DRAWS)]


def test_popularity_has_a_head_and_a_long_tail(catalogue):
    weights = popularity(catalogue)
    assert weights.keys() == catalogue.types.keys()
    assert all(before > after > 0 for before, after in itertools.pairwise(weights.values()))
    total = sum(weights.values())
    assert 1 / 75 < max(weights.values()) / total < 1 / 45
    tail = long_tail(catalogue)
    assert tail == set(list(weights)[len(weights) // 2 :])
    assert 1 / 8 < sum(weights[name] for name in tail) / total < 1 / 5


def test_the_product_answers_and_the_split_is_right(drawn, catalogue):
    for intent, product in drawn:
        assert intent.type == product.type
        assert all(product.values[slot] == value for slot, value in intent.wanted.items())
        assert bucket(intent.type, intent.wanted, catalogue) == "train"


def test_kinds_are_as_frequent_as_promised(drawn, catalogue):
    assert sum(KINDS.values()) == pytest.approx(1) == sum(WANTED.values())
    found = Counter(kind_of(intent, catalogue) for intent, _ in drawn)
    assert {kind: found[kind] / DRAWS for kind in KINDS} == pytest.approx(KINDS, abs=0.03)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_kinds_are_as_frequent_in_the_smaller_splits(split, catalogue):
    demand = market(Part("th", split, SIZES["standard"], 0)).demand[False]
    found = Counter(kind_of(demand.draw(Random(seed))[0], catalogue) for seed in range(DRAWS))
    assert {kind: found[kind] / DRAWS for kind in KINDS} == pytest.approx(KINDS, abs=0.04)


def test_attribute_intents_want_one_to_three_values(drawn, catalogue):
    counts = Counter(len(intent.wanted) for intent, _ in drawn if kind_of(intent, catalogue) == "attribute")
    assert {count: found / counts.total() for count, found in counts.items()} == pytest.approx(WANTED, abs=0.04)


def test_each_kind_wants_what_its_name_says(drawn, catalogue):
    for intent, product in drawn:
        kind, fixed = kind_of(intent, catalogue), fixed_slots(catalogue.types[intent.type], catalogue)
        if kind == "exact":
            assert intent.wanted.keys() == fixed or intent.wanted.keys() > fixed and len(intent.wanted) <= 3
        elif kind == "brand":
            assert intent.wanted["brand"] == product.brand and len(intent.wanted) <= 3
        elif kind == "compatibility":
            assert "compatibility" in intent.wanted and "brand" not in intent.wanted and len(intent.wanted) <= 3
        elif kind == "attribute":
            assert 1 <= len(intent.wanted) <= 3 and not {"brand", "compatibility"} & intent.wanted.keys()
        else:
            assert kind == "type" and not intent.wanted


def test_kinds_by_hand(catalogue):
    whole = {"brand": "Norvika", "material": "glass", "pattern": "plain", "feature": "with_lid"}
    assert kind_of(Intent("mug", whole), catalogue) == "exact"
    assert kind_of(Intent("mug", whole | {"colour": "red"}), catalogue) == "exact"
    assert kind_of(Intent("mug", {"brand": "Norvika", "material": "glass", "pattern": "plain"}), catalogue) == "brand"
    assert kind_of(Intent("mug", {"colour": "red"}), catalogue) == "attribute"
    assert kind_of(Intent("mug", {}), catalogue) == "type"
    assert kind_of(Intent("phone_stand", {"compatibility": "universal", "colour": "red"}), catalogue) == "compatibility"
    assert kind_of(Intent("phone_stand", {"compatibility": "universal", "brand": "Norvika"}), catalogue) == "brand"


def test_popular_types_are_asked_for_more(drawn, catalogue):
    """The share of every tenth of the types, by rank, is its share of the popularity."""
    sold = {product.type for _, product in drawn}
    ranked = [name for name in popularity(catalogue) if name not in held_out(catalogue)]
    asked, weights = Counter(intent.type for intent, _ in drawn), popularity(catalogue)
    total = sum(weights[name] for name in ranked)
    for start in range(0, len(ranked), len(ranked) // 10):
        tenth = ranked[start : start + len(ranked) // 10]
        assert sum(asked[name] for name in tenth) / DRAWS == pytest.approx(sum(weights[name] for name in tenth) / total, abs=0.05)
    assert len(sold) > 0.7 * len(ranked)  # and the tail is asked for as well
    assert sum(intent.type in long_tail(catalogue) for intent, _ in drawn) / DRAWS == pytest.approx(1 / 6, abs=0.03)


def test_no_intent_of_an_unseen_type_but_where_it_is_asked_for(catalogue):
    demand = market(Part("th", "test", SIZES["small"], 0)).demand
    for unseen in (False, True):
        assert all((demand[unseen].draw(Random(seed))[0].type in held_out(catalogue)) == unseen for seed in range(200))


def test_the_same_stream_gives_the_same_intent(demand, products, catalogue):
    again = Demand.for_stock(products, "train", catalogue)
    assert [demand.draw(Random(seed)) for seed in range(50)] == [again.draw(Random(seed)) for seed in range(50)]


def test_too_few_products_are_named(catalogue):
    other = next(split for split in ("validation", "test") if bucket("mug", {}, catalogue) != split)
    nothing = [Product("p", "f", "mug", "", {})]  # it answers the bare type, and a brand that is none
    assert bucket("mug", {"brand": ""}, catalogue) != other
    with pytest.raises(ValueError, match="products: none of these 1 answers an intent of the split"):
        Demand.for_stock(nothing, other, catalogue).draw(Random(0))
    with pytest.raises(ValueError, match="products: none of these 0 answers"):
        Demand.for_stock([], other, catalogue).draw(Random(0))


def test_intents_of_the_backbones_are_their_own(tiny_lexicon):
    catalogue = load_catalogue(tiny_lexicon())
    every = [
        Product(f"{place}", "", "shirt", "Velunta", dict(zip(catalogue.types["shirt"].axes, values, strict=True)))
        for place, values in enumerate(itertools.product(*catalogue.types["shirt"].axes.values()))
    ]
    found = {}
    for split in ("train", "validation", "test", BACKBONES):
        try:
            demand = Demand.for_stock(every, split, catalogue)
            found[split] = {(intent.type, tuple(sorted(intent.wanted.items()))) for intent, _ in (demand.draw(Random(seed)) for seed in range(300))}
        except ValueError:  # so small a catalogue may have none for a split
            found[split] = set()
    assert sum(map(len, found.values())) == len(set.union(*found.values())) > 10
