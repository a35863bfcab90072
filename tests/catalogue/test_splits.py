"""Splits: by content alone, disjoint, in about the shares that are asked for."""

import itertools
import json
import os
import subprocess
import sys
from collections import Counter

import pytest

from lira_hf.catalogue.composition import families
from lira_hf.catalogue.lexicon import load_catalogue
from lira_hf.catalogue.splits import BACKBONES, SHARES, SPLITS, bucket, core, family_key, fixed_slots, held_out


def test_held_out_types_are_about_one_in_ten(catalogue):
    assert 0.07 < len(held_out(catalogue)) / len(catalogue.types) < 0.12
    for name in held_out(catalogue):
        assert not any(f"_{name}_" in f"_{other}_" for other in catalogue.types if other != name)


def _wants(type_, count):
    """Every combination of values on the first `count` axes of a type."""
    axes = list(type_.axes)[:count]
    return (dict(zip(axes, values, strict=True)) for values in itertools.product(*(type_.axes[axis] for axis in axes)))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_buckets_have_their_shares(count, catalogue):
    seen = [type_ for type_ in catalogue.types.values() if type_.id not in held_out(catalogue) and len(type_.axes) >= count]
    counts = Counter(bucket(type_.id, wanted, catalogue) for type_ in seen for wanted in _wants(type_, count))
    total = sum(counts.values())
    assert total > 2000
    for split, share in SHARES.items():
        assert abs(100 * counts[split] / total - share) < 4


def test_families_have_their_shares(catalogue):
    counts = Counter()
    for name in catalogue.types.keys() - held_out(catalogue):
        counts.update({split: len(found) for split, found in families(catalogue, name).items()})
    for split, share in SHARES.items():
        assert abs(100 * counts[split] / sum(counts.values()) - share) < 2


def test_one_want_more_is_another_draw(catalogue):
    """The hash is a sum, and still an intent tells nothing of the split of the same intent with one more value."""
    pairs = [
        (bucket(type_.id, {}, catalogue), bucket(type_.id, {axis: value}, catalogue))
        for type_ in catalogue.types.values()
        if type_.id not in held_out(catalogue)
        for axis, values in type_.axes.items()
        for value in values
    ]
    before, both = Counter(first for first, _ in pairs), Counter(first for first, second in pairs if first == second)
    for split, share in SHARES.items():
        assert abs(both[split] / before[split] - share / 100) < 0.06


def test_bucket_is_fixed_for_good(catalogue):
    """Numbers written down once: a change of the hash would move published rows from one split to another."""
    samples = {
        "train": [("mug", {}), ("mug", {"colour": "red", "material": "glass"}), ("jeans", {"brand": "Velunta"})],
        "backbones": [("mug", {"colour": "red"})],
        "test": [("jeans", {}), ("t_shirt", {"colour": "blue", "measure": "size M"})],
    }
    assert {split: [bucket(name, values, catalogue) for name, values in of] for split, of in samples.items()} == {
        split: [split] * len(of) for split, of in samples.items()
    }


def test_bucket_does_not_depend_on_the_process(catalogue):
    """Python's own hash() of a string differs from process to process."""
    code = """
import json, sys
from lira_hf.catalogue.lexicon import load_catalogue
from lira_hf.catalogue.splits import bucket, core
catalogue = load_catalogue()
print(json.dumps([[bucket(name, {}, catalogue) for name in catalogue.types], sorted(core(catalogue, 100))]))
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "12"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [[bucket(name, {}, catalogue) for name in catalogue.types], sorted(core(catalogue, 100))]


def test_order_of_wants_does_not_matter(catalogue):
    one = {"colour": "red", "material": "glass"}
    assert bucket("mug", one, catalogue) == bucket("mug", dict(reversed(one.items())), catalogue)


def test_variants_are_no_part_of_what_a_family_shares(catalogue, tiny_lexicon):
    assert fixed_slots(catalogue.types["mug"], catalogue) == {"brand", "material", "pattern", "feature"}
    tiny = load_catalogue(tiny_lexicon())
    assert {name: fixed_slots(type_, tiny) for name, type_ in tiny.types.items()} == dict.fromkeys(tiny.types, {"brand", "feature"})
    shirt = tiny.types["shirt"]
    assert family_key(shirt, {"brand": "Velunta", "feature": "slim", "colour": "red"}, tiny) == "shirt|brand=Velunta|feature=slim"
    assert family_key(shirt, {"brand": "Velunta", "colour": "red", "measure": "size M"}, tiny) is None


def test_core_is_a_part_of_the_catalogue_with_its_complements(catalogue, tiny_lexicon):
    smaller, larger = core(catalogue, 40), core(catalogue, 240)
    assert 40 <= len(smaller) < 50 and 240 <= len(larger) < 250  # the last one comes with its complements
    assert smaller < larger < set(catalogue.types)
    assert core(catalogue, len(catalogue.types)) == set(catalogue.types)
    assert 0.05 < len(larger & held_out(catalogue)) / len(larger) < 0.2  # small builds have unseen types too
    assert len({catalogue.types[name].department for name in larger}) > 0.9 * len(catalogue.departments)
    assert sum(set(catalogue.types[name].complements) <= larger for name in larger) > 0.5 * len(larger)
    assert core(load_catalogue(tiny_lexicon()), 1) in ({"shirt"}, {"mug"}, {"belt", "shirt"})


def test_held_out_types_stay_out_of_training(catalogue):
    for name in held_out(catalogue):
        assert set(families(catalogue, name)) <= {"test", BACKBONES}
        assert bucket(name, {}, catalogue) in ("test", BACKBONES)


def test_families_are_whole_and_in_one_split(catalogue):
    seen = set()
    for split, found in families(catalogue, "mug").items():
        assert split in (*SPLITS, BACKBONES)
        for family in found:
            assert family.key not in seen
            seen.add(family.key)
            spelt_out = {"brand": family.brand, **family.fixed}
            # Colour and measure do not matter: a query that says all of it goes with the family.
            assert bucket("mug", {**spelt_out, "colour": "red", "measure": "300 ml"}, catalogue) == split
            assert family_key(catalogue.types["mug"], spelt_out, catalogue) == family.key
    axes = catalogue.types["mug"].axes
    assert len(seen) == len(catalogue.brands[catalogue.types["mug"].department]) * len(axes["material"]) * len(axes["pattern"]) * len(axes["feature"])
