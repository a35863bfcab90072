"""Pairs of queries: scores by hand and recomputed from the rows alone, splits, and the data set on disk."""

import itertools
import json
import os
import random
import subprocess
import sys
from collections import Counter

import pyarrow.parquet as pq
import pytest
import yaml

from lira_hf.catalogue import build_similarity, similarity_builder
from lira_hf.catalogue.candidates import TRANSLATORS
from lira_hf.catalogue.composition import Intent
from lira_hf.catalogue.demand import kind_of, popularity
from lira_hf.catalogue.lexicon import load_words
from lira_hf.catalogue.noise import slices_of
from lira_hf.catalogue.rows import LONG_TAIL, SIZES, UNSEEN, Part
from lira_hf.catalogue.similarity import COLUMNS, DRAWN, KINSHIP, WANTED, WEIGHTS, kinship, likeness, pair_rows
from lira_hf.catalogue.similarity_builder import jaccard, measure_similarity, split_sizes
from lira_hf.catalogue.splits import BACKBONES, SPLITS, bucket, held_out
from lira_hf.catalogue.tables import table_path
from lira_hf.languages import LANGUAGES

ROWS = {"train": 600, "validation": 150, "test": 250}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A thousand pairs of two languages; tests only read it."""
    return build_similarity(tmp_path_factory.mktemp("sts") / "sts", rows=1000, languages=["th", "vi"], progress=False)


@pytest.fixture(scope="module")
def pairs(folder):
    """Language and split to rows, as they stand on disk."""
    return {key: pq.read_table(table_path(folder, key[0], "", key[1])).to_pylist() for key in itertools.product(("th", "vi"), SPLITS)}


def _intents(row):
    return [Intent(found["type"], found["wanted"]) for found in (json.loads(row[name]) for name in ("intent", "intent_pair"))]


# --- the rule ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (("mug", {}), ("mug", {}), 5),
        (("mug", {"colour": "red", "material": "glass"}), ("mug", {"material": "glass", "colour": "red"}), 5),
        (("mug", {"colour": "red"}), ("mug", {}), 5 * (1 - 0.20 / 2)),
        (("mug", {"colour": "red"}), ("mug", {"colour": "blue"}), 5 * (1 - 0.20)),
        (("mug", {"brand": "Norvika"}), ("mug", {"brand": "Kookavi", "colour": "blue"}), 5 * (1 - 0.25 - 0.20 / 2)),
        (("t_shirt", {"measure": "size S"}), ("t_shirt", {"measure": "size M"}), 5 * (1 - 0.21 * (1 + 1 / 3) / 2)),
        (("t_shirt", {"measure": "size XL"}), ("t_shirt", {"measure": "size S"}), 5 * (1 - 0.21)),
        (("t_shirt", {}), ("blouse", {}), 5 * 0.5),  # both tops
        (("t_shirt", {"measure": "size S"}), ("blouse", {"measure": "size M"}), 5 * 0.5 * (1 - 0.21)),  # their sizes are not compared
        (("t_shirt", {"colour": "red"}), ("jeans", {"colour": "red"}), 5 * 0.25),  # also bought together, but that is less
        (("mug", {"colour": "red"}), ("coffee", {}), 5 * 0.1 * (1 - 0.20 / 2)),
        (("electric_kettle", {}), ("tea", {}), 5 * 0.1),  # only the kettle lists the tea
        (("mug", {"colour": "red"}), ("jeans", {"colour": "red"}), 0),
    ],
)
def test_likeness_by_hand(first, second, expected, catalogue):
    assert likeness(Intent(*first), Intent(*second), catalogue) == pytest.approx(expected, abs=1e-6)
    assert likeness(Intent(*second), Intent(*first), catalogue) == likeness(Intent(*first), Intent(*second), catalogue)


def test_every_slot_has_a_weight_and_a_closer_kinship_scores_higher(catalogue):
    assert WEIGHTS.keys() == {"brand", *catalogue.values} and all(weight > 0 for weight in WEIGHTS.values())
    assert sum(sorted(WEIGHTS.values())[-WANTED:]) < 1  # no pair loses more: two wants of one side alone cost what one clash does
    shares = list(KINSHIP.values())
    assert shares[0] == 1 and shares[-1] == 0 and all(closer > further for closer, further in itertools.pairwise(shares))
    assert 1 - max(WEIGHTS.values()) > shares[1]  # one clash weighs less than another type


def test_sizes_are_listed_in_order(catalogue):
    """What is closer in the list must be closer in fact; checked where one unit makes it easy."""
    for type_ in catalogue.types.values():
        sizes = [measure.split() for measure in type_.axes.get("measure", ())]
        numbers = [float(number) for number, _ in sizes if number.replace(".", "").isdigit()]
        if len({unit for _, unit in sizes}) == 1:
            assert numbers == sorted(numbers), type_.id


def test_kinship_and_likeness_are_symmetric(pairs, catalogue):
    intents = [intent for rows in pairs.values() for row in rows for intent in _intents(row)]
    rng = random.Random(0)
    for _ in range(4000):
        first, second = rng.sample(intents, 2)
        assert kinship(first.type, second.type, catalogue) == kinship(second.type, first.type, catalogue)
        assert likeness(first, second, catalogue) == likeness(second, first, catalogue) <= likeness(first, first, catalogue) == 5


# --- the rows ---------------------------------------------------------------------------------------------------------


def _score(row, catalogue):
    """The score of a row by the rule as the card states it, from what the row and the tree of types say."""
    (one, wanted), (other, wanted_other) = _intents(row)
    first, second = catalogue.types[one], catalogue.types[other]
    score = 5.0
    if one != other:
        if first.category == second.category:
            score *= 0.5
        elif first.department == second.department:
            score *= 0.25
        else:
            score *= 0.1 if other in first.complements or one in second.complements else 0
    shares = dict(colour=0.20, material=0.22, audience=0.28, pattern=0.16, measure=0.21, feature=0.22, occasion=0.18, condition=0.22,
                  compatibility=0.30, scent=0.24, flavour=0.27, brand=0.25)  # fmt: skip
    left = 1.0
    for slot, share in shares.items():
        value, value_other = wanted.get(slot), wanted_other.get(slot)
        if value == value_other:
            continue
        if value is None or value_other is None:
            left -= share / 2
        elif slot == "measure" and one == other:
            places = [first.axes["measure"].index(found) for found in (value, value_other)]
            left -= share / 2 + share / 2 * abs(places[0] - places[1]) / (len(first.axes["measure"]) - 1)
        else:
            left -= share
    return score * left


def test_scores_follow_from_the_attributes(pairs, catalogue):
    rows = [row for of in pairs.values() for row in of]
    assert [row["score"] for row in rows] == pytest.approx([_score(row, catalogue) for row in rows], abs=1e-5)
    assert {kinship(*(intent.type for intent in _intents(row)), catalogue) for row in rows} == set(KINSHIP)
    assert any("measure" in a.wanted and "measure" in b.wanted and a.wanted["measure"] != b.wanted["measure"] for a, b in map(_intents, rows))


def test_a_row_has_two_sides_of_the_same_making(pairs, catalogue):
    for (language, split), rows in pairs.items():
        assert len(rows) == ROWS[split] and [row["pair_id"] for row in rows] == [f"{language}-s-{split}-{n:06d}" for n in range(len(rows))]
        kinds = {kind.name for kind in slices_of(language)}
        for row, suffix in itertools.product(rows, ("", "_pair")):
            intent = _intents(row)[suffix == "_pair"]
            assert row["language"] == language and row["query"] != row["query_pair"]
            assert row[f"slice{suffix}"][0] in kinds and set(row[f"slice{suffix}"][1:]) <= {UNSEEN, LONG_TAIL}
            assert 1 <= len(row[f"translations{suffix}"]) <= 4
            assert {found["source"] for found in row[f"translations{suffix}"]} <= {translator.name for translator in TRANSLATORS}
            assert all(1 <= found[axis] <= 10 for found in row[f"translations{suffix}"] for axis in ("semantic", "emotional", "pragmatic"))
            # The gold can be told from the text: the correct translation says everything that is wanted.
            english = load_words("en").forms
            said = [
                english["type"][intent.type][0],
                *(english[slot][value][0] if slot in english else value for slot, value in intent.wanted.items()),
            ]
            assert all(word in row[f"english{suffix}"] for word in said)
            assert kind_of(intent, catalogue) != "exact" and len(intent.wanted) <= WANTED
        assert len({frozenset((row["query"], row["query_pair"])) for row in rows}) == len(rows)
        seen = Counter(row[name][0] for row in rows for name in ("slice", "slice_pair"))
        assert seen.keys() == kinds and seen["clean"] < 0.55 * seen.total()


def test_equal_english_is_the_highest_score(pairs):
    rows = [row for of in pairs.values() for row in of]
    assert all((row["english"] == row["english_pair"]) == (row["score"] == 5) for row in rows)


def test_splits_share_no_intent_and_no_query(pairs, catalogue):
    intents, queries = {}, {}
    for (language, split), rows in pairs.items():
        for row in rows:
            for intent in _intents(row):
                # By the rule of LazRetrieval and of the backbones' text, so what is held out here is met in neither.
                assert bucket(intent.type, intent.wanted, catalogue) == split != BACKBONES
                intents.setdefault(split, set()).add((intent.type, frozenset(intent.wanted.items())))
            queries.setdefault((language, split), set()).update((row["query"], row["query_pair"]))
    for one, other in itertools.combinations(SPLITS, 2):
        assert not intents[one] & intents[other]
        assert not any(queries[language, one] & queries[language, other] for language in ("th", "vi"))


def test_held_out_types_come_in_the_test_split_alone(pairs, catalogue):
    for (_, split), rows in pairs.items():
        sides = [(intent.type, tags) for row in rows for intent, tags in zip(_intents(row), (row["slice"], row["slice_pair"]), strict=True)]
        assert all((UNSEEN in tags) == (type_id in held_out(catalogue)) for type_id, tags in sides)
        share = sum(UNSEEN in tags for _, tags in sides) / len(sides)
        assert 0.06 < share < 0.25 if split == "test" else share == 0


def test_scores_are_spread_over_the_scale(pairs, catalogue):
    rows = [row for of in pairs.values() for row in of]
    counts = Counter(row["score"] for row in rows)
    assert len(counts) > 200 and all(len({row["score"] for row in of}) >= 12 for of in pairs.values())
    assert 0.08 < counts[5.0] / len(rows) < 0.18 and 0.08 < counts[0.0] / len(rows) < 0.18
    assert max(number for score, number in counts.items() if 0 < score < 5) < 0.05 * len(rows)
    for low, high in ((0, 1), (1, 2), (2, 3), (3, 4), (4, 5)):
        assert sum(low < row["score"] <= high for row in rows if row["score"] < 5) > 0.07 * len(rows)
    akin = Counter(kinship(*(intent.type for intent in _intents(row)), catalogue) for row in rows)
    assert all(abs(akin[name] / len(rows) - share) < 0.05 for name, share in DRAWN.items())


def test_the_order_of_a_pair_says_nothing(pairs, catalogue):
    """The first query that is drawn is for a popular type, and the second is not; which of them stands first is drawn too."""
    popular = Counter()
    for rows in pairs.values():
        for one, other in map(_intents, rows):
            popular["first"] += popularity(catalogue)[one.type] > popularity(catalogue)[other.type]
            popular["second"] += popularity(catalogue)[one.type] < popularity(catalogue)[other.type]
    assert abs(popular["first"] - popular["second"]) < 3 * popular.total() ** 0.5


def test_more_rows_begin_with_the_fewer_and_the_seed_counts():
    part = Part("ms", "validation", SIZES["standard"], 0)
    rows = pair_rows(part, 30)
    assert pair_rows(part, 12) == rows[:12]
    assert pair_rows(Part("ms", "validation", SIZES["standard"], 1), 12) != rows[:12]


# --- on disk ----------------------------------------------------------------------------------------------------------


def _contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_equal_arguments_give_equal_bytes(tmp_path):
    """In another process too, whose sets have another order."""
    folder, other = (
        build_similarity(tmp_path / f"{seed}" / "sts", rows=40, languages=languages, seed=seed, progress=False)
        for seed, languages in enumerate([["bn", "fil"], ["bn"]])
    )
    command = [sys.executable, "-m", "lira_hf", "data", "similarity", "--rows", "40", "--languages", "bn,fil", "--output", tmp_path / "again"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "12"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == f"built {tmp_path / 'again'}\n"
    assert len(_contents(folder)) == 2 * 3 + 1 and _contents(tmp_path / "again") == _contents(folder)
    assert all(content != _contents(folder)[name] for name, content in _contents(other).items())


def test_every_row_lands_in_one_split():
    for rows in range(20, 60):
        sizes = split_sizes(rows)
        assert list(sizes) == list(SPLITS) and sum(sizes.values()) == rows and min(sizes.values()) >= 3


def test_load_dataset_reads_it(folder, pairs, tmp_path):
    datasets = pytest.importorskip("datasets")
    for language in ("th", "vi"):
        for split in SPLITS:
            loaded = datasets.load_dataset(str(folder), language, split=split, cache_dir=str(tmp_path))
            assert loaded.column_names == list(COLUMNS) and loaded.to_list() == pairs[language, split]
    assert loaded.features["score"].dtype == "float32"


def test_the_card_says_what_it_is_and_what_was_written(folder, pairs):
    _, front, card = (folder / "README.md").read_text().split("---\n", 2)
    configs = yaml.safe_load(front)["configs"]
    assert [config["config_name"] for config in configs] == ["th", "vi"] and [config.get("default") for config in configs] == [True, None]
    assert all(len(list(folder.glob(of["path"]))) == 1 for config in configs for of in config["data_files"])
    assert "synthetic" in card[:120] and "no person's opinion" in card and "$" not in card
    for split in SPLITS:
        scores = [row["score"] for language in ("th", "vi") for row in pairs[language, split]]
        bands = [sum(low < score <= low + 1 and score < 5 for score in scores) for low in range(5)]
        cells = [scores.count(0), *bands, scores.count(5), len(scores)]
        assert f"| {split} | {' | '.join(f'{cell:,}' for cell in cells)} |" in card
    assert f"{len({row['score'] for rows in pairs.values() for row in rows})} distinct scores" in card
    for language in ("th", "vi"):
        found = measure_similarity(pairs[language, "test"])
        cells = " | ".join(f"{100 * pearson:.1f} / {100 * spearman:.1f}" for pearson, spearman in found.values())
        assert f"| {LANGUAGES[language].name} | 250 | {cells} |" in card
        assert found["query"][1] < found["critic"][1] < found["english"][1] < 0.97  # noise, wrong candidates and the rule each leave work


def test_shared_trigrams_by_hand():
    assert jaccard("Red  mug", "red mug") == 1 and jaccard("abc", "xyz") == 0
    assert jaccard("ab", "abc") == 1 / 4  # " ab", "ab " and " ab", "abc", "bc "


def test_correlations_by_hand():
    def say(text):
        wrong = {"text": "never this", "semantic": 9, "emotional": 1, "pragmatic": 1}
        return [wrong, {"text": text, "semantic": 6, "emotional": 6, "pragmatic": 6}]

    texts = [("abc", "abc"), ("ab", "abc"), ("abc", "xyz")]  # alike by 1, 1/4 and 0
    flat = dict(english="same", english_pair="same")
    rows = [
        dict(score=score, query=second, query_pair=first, translations=say(first), translations_pair=say(second), **flat)
        for score, (first, second) in zip((5.0, 0.0, 2.0), texts, strict=True)
    ]
    found = measure_similarity(rows)
    # Deviations from the means: scores (8, -7, -1) / 3, likenesses (7, -2, -5) / 12; ranks (1, -1, 0) and (1, 0, -1).
    assert found["query"] == found["critic"] == pytest.approx((75 / (114 * 78) ** 0.5, 0.5))
    assert all(value != value for value in found["english"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": 19}, "rows: 19 is not allowed; give an integer of at least 20"),
        ({"rows": True}, "rows: True is not allowed"),
        ({"languages": ["th", "xx"]}, "languages: 'xx' is not known; allowed: vi"),
        ({"seed": "a"}, "seed: 'a' is not allowed"),
    ],
)
def test_wrong_arguments_are_named(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        build_similarity(tmp_path / "new", **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("failure", [OSError("the disk is full"), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_nothing_half_made_stays(failure, tmp_path, monkeypatch):
    def fail(*args):
        assert list(tmp_path.rglob("*.parquet"))  # it fails at the last step
        raise failure

    monkeypatch.setattr(similarity_builder, "_card", fail)
    with pytest.raises(type(failure)):
        build_similarity(tmp_path / "new", rows=20, languages=["id"], progress=False)
    assert not list(tmp_path.iterdir())


def test_what_is_there_is_kept_and_an_empty_folder_is_filled(folder, tmp_path):
    before = _contents(folder)
    with pytest.raises(ValueError, match="output: .* exists; give a new or empty folder"):
        build_similarity(folder, rows=20, languages=["id"], progress=False)
    assert _contents(folder) == before
    (tmp_path / "empty").mkdir()
    assert (build_similarity(tmp_path / "empty", rows=20, languages=["id"], progress=False) / "README.md").is_file()
