"""What an epoch holds: shares of the languages, the same draws in whatever process, every item in turn."""

from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lira_hf.collation import Mixture
from lira_hf.collation.mixture import shares


@pytest.mark.parametrize(
    ("counts", "temperature", "expected"),
    [
        ([900, 100], 1.0, [900, 100]),
        ([900, 100], 2.0, [750, 250]),  # roots are 30 and 10
        ([810_000, 10_000], 4.0, [615_000, 205_000]),
        ([8, 0, 1], 3.0, [6, 0, 3]),
        ([10, 10, 10], 5.0, [10, 10, 10]),
        ([1, 1, 0], 1.0, [1, 1, 0]),
    ],
)
def test_a_share_is_the_count_to_the_power_of_one_over_the_temperature(counts, temperature, expected):
    assert shares(counts, temperature) == expected


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=8), st.floats(0.2, 20))
def test_shares_lose_and_add_nothing_and_keep_the_order_of_the_languages(counts, temperature):
    found = shares(counts, temperature)
    assert sum(found) == sum(counts) and min(found) >= 0
    ranked = [share for _, share in sorted(zip(counts, found, strict=True))]
    assert all(later >= earlier - 1 for earlier, later in zip(ranked, ranked[1:], strict=False))
    exact = [sum(counts) * count ** (1 / temperature) / sum(c ** (1 / temperature) for c in counts) for count in counts]
    assert all(abs(share - value) < 1 + 1e-6 for share, value in zip(found, exact, strict=True))


def test_a_high_temperature_makes_all_languages_alike_and_one_changes_nothing():
    assert shares([9990, 10], 1000.0) == [5017, 4983]
    assert shares([9990, 10], 1.0) == [9990, 10]


@dataclass
class Item:
    name: str
    draw: int = 0


PARTS = [[Item(f"th{i}") for i in range(9)], [Item("fil0")], []]


def names(mixture: Mixture) -> list[str]:
    return [mixture[place].name for place in range(len(mixture))]


def test_at_one_an_epoch_holds_every_item_once():
    mixture = Mixture(PARTS)
    assert sorted(names(mixture)) == sorted(item.name for part in PARTS for item in part)
    mixture.set_epoch(5)
    assert sorted(names(mixture)) == sorted(item.name for part in PARTS for item in part)


def test_small_languages_come_more_often_and_large_ones_take_turns():
    mixture, seen = Mixture(PARTS, temperature=2.0, seed=3), Counter()
    shown = shares([9, 1], 2.0)
    for epoch in range(40):
        mixture.set_epoch(epoch)
        found = Counter(names(mixture))
        assert len(mixture) == 10 and found["fil0"] == shown[1] > 1
        assert all(count == 1 for name, count in found.items() if name != "fil0")
        seen += found
    assert {name for name in seen} == {item.name for part in PARTS for item in part}
    assert max(seen[f"th{i}"] for i in range(9)) < 2 * min(seen[f"th{i}"] for i in range(9))  # nobody is left out for long


def test_an_epoch_depends_on_seed_and_number_alone():
    one, two = Mixture(PARTS, 2.0, seed=1), Mixture(PARTS, 2.0, seed=1)
    for epoch in (7, 0, 3):
        one.set_epoch(epoch)
    two.set_epoch(3)
    assert names(one) == names(two)
    others = [Mixture(PARTS, 2.0, seed=seed) for seed in range(6)]
    assert len({tuple(names(other)) for other in others}) > 1
    epochs = []
    for epoch in range(6):
        two.set_epoch(epoch)
        epochs.append(tuple(names(two)))
    assert len(set(epochs)) > 1


def test_items_get_the_number_of_the_epoch_and_are_not_changed_themselves():
    mixture = Mixture(PARTS)
    mixture.set_epoch(4)
    assert {mixture[place].draw for place in range(len(mixture))} == {4}
    assert {item.draw for part in PARTS for item in part} == {0}
    assert Mixture([["plain"]])[0] == "plain"


@pytest.mark.parametrize("temperature", [0, -1.0, float("nan")])
def test_a_temperature_that_is_not_above_zero_is_refused(temperature):
    with pytest.raises(ValueError, match="^temperature: .* a number above 0 is"):
        Mixture(PARTS, temperature)
