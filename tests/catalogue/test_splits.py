"""Splits: by content alone, disjoint, in about the shares that are asked for."""

from collections import Counter

from lira_hf.catalogue.composition import families
from lira_hf.catalogue.splits import BACKBONES, SHARES, SPLITS, bucket, family_key, held_out


def test_held_out_types_are_about_one_in_ten(catalogue):
    assert 0.07 < len(held_out(catalogue)) / len(catalogue.types) < 0.12
    for name in held_out(catalogue):
        assert not any(f"_{name}_" in f"_{other}_" for other in catalogue.types if other != name)


def test_buckets_have_their_shares(catalogue):
    counts = Counter(
        bucket(type_.id, {axis: value}, catalogue)
        for type_ in catalogue.types.values()
        if type_.id not in held_out(catalogue)
        for axis, values in type_.axes.items()
        for value in values
    )
    total = sum(counts.values())
    assert total > 2000
    for split, share in SHARES.items():
        assert abs(100 * counts[split] / total - share) < 4


def test_bucket_is_fixed_for_good(catalogue):
    """Numbers written down once: a change of the hash would move published rows from one split to another."""
    samples = [("mug", {}), ("mug", {"colour": "red"}), ("mug", {"colour": "red", "material": "glass"}), ("jeans", {})]
    found = [bucket(name, values, catalogue) for name, values in samples]
    assert found == ["train", "test", "train", "backbones"]


def test_order_of_wants_does_not_matter(catalogue):
    one = {"colour": "red", "material": "glass"}
    assert bucket("mug", one, catalogue) == bucket("mug", dict(reversed(one.items())), catalogue)


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
    assert len(seen) == len(catalogue.brands["kitchen"]) * len(axes["material"]) * len(axes["pattern"]) * len(axes["feature"])
