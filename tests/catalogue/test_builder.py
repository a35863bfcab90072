"""The data set on disk: what it promises about splits, grades and unseen words, and how it is put in place."""

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter

import pytest

from lira_hf.catalogue import SIZES, build, builder
from lira_hf.catalogue.composition import Intent, Product
from lira_hf.catalogue.lexicon import load_words
from lira_hf.catalogue.relevance import JUDGED, grade
from lira_hf.catalogue.rows import Size
from lira_hf.catalogue.splits import BACKBONES, SPLITS, bucket, held_out
from lira_hf.languages import LANGUAGES

_TINY_SIZE = Size(dict.fromkeys(SPLITS, 30), dict.fromkeys(SPLITS, 1), dict.fromkeys(SPLITS, 1))


@pytest.mark.parametrize("language", LANGUAGES)
def test_tables_fit_together(language, read):
    for split in SPLITS:
        rows, corpus = read(language, "", split), read(language, "-corpus", split)
        assert len(rows) == SIZES["small"].queries[split]
        assert [row["query_id"] for row in rows] == [f"{language}-q-{split}-{n:06d}" for n in range(len(rows))]
        assert [row["_id"] for row in corpus] == [f"{language}-p-{split}-{n:06d}" for n in range(len(corpus))]
        assert all(row["family_id"].startswith(f"{language}-f-") for row in corpus)
        ids = {row["_id"] for row in corpus}
        assert all(set(row["product_ids"]) <= ids and len(row["product_ids"]) == len(row["relevances"]) for row in rows)
        assert all(len(set(row["product_ids"])) == len(row["product_ids"]) >= JUDGED for row in rows)
        assert all(3 in row["relevances"] and 0 in row["relevances"] for row in rows)
        assert [(q["_id"], q["text"]) for q in read(language, "-queries", split)] == [(r["query_id"], r["query"]) for r in rows]
        judged = [(r["query_id"], p, s) for r in rows for p, s in zip(r["product_ids"], r["relevances"], strict=True)]
        assert [tuple(row.values()) for row in read(language, "-qrels", split)] == judged
        assert len({row["query"] for row in rows}) > 0.98 * len(rows)
        for row in (*rows, *corpus):
            assert 2 <= len(row["translations"]) <= 4
            assert all(1 <= t[axis] <= 10 for t in row["translations"] for axis in ("semantic", "emotional", "pragmatic"))
    assert sum(len(row["translations"]) < 4 for row in rows) < 0.05 * len(rows)


@pytest.mark.parametrize("language", LANGUAGES)
def test_splits_share_neither_family_nor_intent(language, read, catalogue):
    families, intents = Counter(), Counter()
    for split in SPLITS:
        families.update({row["family_id"] for row in read(language, "-corpus", split)})
        for row in read(language, "", split):
            intent = json.loads(row["intent"])
            assert bucket(intent["type"], intent["wanted"], catalogue) == split != BACKBONES
        intents.update({json.dumps(json.loads(row["intent"]), sort_keys=True) for row in read(language, "", split)})
    assert max(families.values()) == max(intents.values()) == 1


@pytest.mark.parametrize("language", LANGUAGES)
def test_training_rows_name_no_unseen_type(language, read, catalogue):
    hidden, own, english = held_out(catalogue), load_words(language), load_words("en")
    told_own, told_english = _names_of(hidden, own), _names_of(hidden, english)
    brands = sorted({*own.brands, *own.brands.values(), *(b for of in catalogue.brands.values() for b in of)}, key=len)
    # Brands and model codes name nothing, whatever letters they have.
    aside = re.compile("|".join([*map(re.escape, reversed(brands)), "[A-Z]{2}-[0-9]{3}"]))
    for split in ("train", "validation"):
        rows, corpus = read(language, "", split), read(language, "-corpus", split)
        assert not {json.loads(row["intent"])["type"] for row in rows} & hidden
        assert not {row["category_path"].split("/")[1] for row in corpus} & hidden
        assert not any("unseen" in row["slice"] for row in rows)
        for row in (*rows, *corpus):
            text = row.get("clean") or f"{row.get('title')} {row.get('text')}"
            assert not told_own.search(aside.sub(" ", text))
            for text in (row["english"], *(candidate["text"] for candidate in row["translations"])):
                assert not told_english.search(aside.sub(" ", text))


def _names_of(types, words):
    """A pattern for the names of `types`, without those that are part of another type's or an attribute's name."""
    known = [form for type_id, forms in words.forms["type"].items() if type_id not in types for form in forms]
    known += [form for axis, of in words.forms.items() if axis != "type" for forms in of.values() for form in forms]
    names = [form for type_id in types for form in words.forms["type"][type_id]]
    told = [re.escape(name) for name in names if name.lower() not in " | ".join(known).lower()]
    assert len(told) > len(types) / 2
    # Thai writes no spaces; the vowel signs of Bengali are no \w.
    letter = "" if words.language == "th" else r"[\w\u0980-\u09ff]"
    return re.compile(f"(?<!{letter})(?:{'|'.join(told)})(?!{letter})" if letter else "|".join(told), re.IGNORECASE)


@pytest.mark.parametrize("language", LANGUAGES)
def test_unseen_slice_tells_the_truth(language, read, catalogue):
    rows = read(language, "", "test")
    for row in rows:
        assert ("unseen" in row["slice"]) == (json.loads(row["intent"])["type"] in held_out(catalogue))
    assert 0.06 < sum("unseen" in row["slice"] for row in rows) / len(rows) < 0.19


def _product(row):
    _, type_id = row["category_path"].split("/")
    return Product(row["_id"], row["family_id"], type_id, row["brand"], json.loads(row["attributes"]))


@pytest.mark.parametrize(("language", "split"), [("th", "test"), ("vi", "train"), ("ur", "validation"), ("fil", "validation")])
def test_judgements_are_complete(language, split, read, catalogue):
    """Grades of a whole corpus, computed anew: no relevant product is missing and every grade is right."""
    products = [_product(row) for row in read(language, "-corpus", split)]
    for row in read(language, "", split):
        intent = Intent(**json.loads(row["intent"]))
        truth = {product.id: grade(intent, product, catalogue) for product in products}
        judged = dict(zip(row["product_ids"], row["relevances"], strict=True))
        assert judged == {id_: truth[id_] for id_ in judged}
        assert {id_ for id_, score in truth.items() if score} <= set(judged)


@pytest.mark.parametrize("language", LANGUAGES)
def test_scripts_and_slices_are_told(language, read):
    own = LANGUAGES[language].script
    for row in read(language, "", "train"):
        assert row["language"] == language
        if row["slice"][0] == "romanised":
            assert row["script"] == "Latn"
        assert row["script"] in (own, "Latn")
        assert (row["query"] == row["clean"]) == (row["slice"][0] == "clean")


def test_the_right_translation_scores_best(read):
    """The critic is noisy, but on the whole it knows a right candidate from a wrong one."""
    right, wrong = [], []
    for row in read("th", "", "train"):
        for candidate in row["translations"]:
            (right if candidate["text"].lower() == row["english"].lower() else wrong).append(candidate["semantic"])
    assert sum(right) / len(right) > sum(wrong) / len(wrong) + 1.5


def test_same_seed_same_bytes_for_any_number_of_workers(tmp_path, monkeypatch):
    monkeypatch.setattr(builder, "SIZES", {"small": _TINY_SIZE})  # workers get it from here
    options = {"languages": ["fil", "th"], "seed": 3, "progress": False}
    one = build(tmp_path / "one", **options)
    two = build(tmp_path / "two", workers=2, **options)
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert len(files) == 2 * 4 * 3 + 2
    assert files == sorted(path.relative_to(two) for path in two.rglob("*") if path.is_file())
    assert all((one / file).read_bytes() == (two / file).read_bytes() for file in files)


def test_seeds_differ_and_languages_stand_alone(tmp_path, built):
    other = build(tmp_path / "other", languages=["th"], seed=1, progress=False)
    same = build(tmp_path / "same", languages=["th"], progress=False)
    for file in ("th/test-00000-of-00001.parquet", "th-corpus/train-00000-of-00001.parquet"):
        assert (same / file).read_bytes() == (built / file).read_bytes() != (other / file).read_bytes()


def test_load_dataset_reads_all_four_configs(built, tmp_path):
    datasets = pytest.importorskip("datasets")
    expected = {
        "th": "query_id query language script slice english translations product_ids relevances clean intent",
        "th-corpus": "_id title text brand category_path family_id attributes english translations",
        "th-queries": "_id text",
        "th-qrels": "query-id corpus-id score",
    }
    for name, columns in expected.items():
        loaded = datasets.load_dataset(str(built), name, cache_dir=str(tmp_path))
        assert set(loaded) == set(SPLITS) and loaded["test"].column_names == columns.split()
    rows = datasets.load_dataset(str(built), "th", split="test", cache_dir=str(tmp_path))
    assert len(rows) == SIZES["small"].queries["test"]
    assert set(rows[0]["translations"][0]) == {"text", "source", "semantic", "emotional", "pragmatic"}
    default = datasets.load_dataset(str(built), split="validation", cache_dir=str(tmp_path))
    assert default[0]["language"] == next(iter(LANGUAGES))


def test_the_record_and_the_card_say_what_was_written(built, read):
    record = json.loads((built / "build.json").read_text())
    assert (record["size"], record["seed"], record["languages"]) == ("small", 0, list(LANGUAGES))
    assert set(record["sha256"]) == {p.relative_to(built).as_posix() for p in built.rglob("*") if p.is_file()} - {"build.json"}
    for file, found in record["sha256"].items():
        assert hashlib.sha256((built / file).read_bytes()).hexdigest() == found
    card = (built / "README.md").read_text()
    assert "synthetic" in card.split("---")[2][:200] and "is not public" in card
    for language in LANGUAGES:
        for split in SPLITS:
            counted = record["counts"][language][split]
            scores = [row["score"] for row in read(language, "-qrels", split)]
            assert counted["queries"] == len(read(language, "", split))
            assert counted["judgements"] == len(scores) and counted["relevant"] == sum(score > 0 for score in scores)
            numbers = f"{counted['queries']:,} | {counted['products']:,} | {len(scores):,}"
            assert f"| {LANGUAGES[language].name} | {split} | {numbers} |" in card


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": "mega"}, "size: 'mega' is not known; allowed: small, standard"),
        ({"languages": ["th", "xx"]}, "languages: 'xx' is not known; allowed: vi"),
        ({"languages": []}, "at least one language"),
        ({"languages": ["th", "th"]}, "none twice"),
        ({"workers": 0}, "workers: 0 is not allowed"),
        ({"seed": "a"}, "seed: 'a' is not allowed"),
    ],
)
def test_wrong_arguments_are_named(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        build(tmp_path / "new", **options)
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_is_kept(built, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in built.rglob("*")}
    started = time.perf_counter()
    assert build(built, progress=False) == built
    assert time.perf_counter() - started < 1
    for options in ({"seed": 1}, {"size": "standard"}, {"languages": ["th"]}):
        with pytest.raises(ValueError, match="output: .* holds .*; give a new or empty folder"):
            build(built, progress=False, **options)
    assert {path: path.stat().st_mtime_ns for path in built.rglob("*")} == before
    (tmp_path / "file.txt").write_text("mine")
    for taken in (tmp_path, tmp_path / "file.txt"):
        with pytest.raises(ValueError, match="output: .* is no data set"):
            build(taken, progress=False)
    assert (tmp_path / "file.txt").read_text() == "mine"


def test_an_empty_folder_is_filled(tmp_path, monkeypatch):
    monkeypatch.setattr(builder, "SIZES", {"small": _TINY_SIZE})
    (tmp_path / "empty").mkdir()
    assert (build(tmp_path / "empty", languages=["id"], progress=False) / "README.md").is_file()


@pytest.mark.parametrize("failure", [OSError("the disk is full"), KeyboardInterrupt()])
def test_a_failed_build_leaves_nothing(failure, tmp_path, monkeypatch):
    monkeypatch.setattr(builder, "SIZES", {"small": _TINY_SIZE})

    def fail(*args):
        raise failure

    monkeypatch.setattr(builder, "render_card", fail)  # the last step, when all tables stand
    with pytest.raises(type(failure)):
        build(tmp_path / "new", languages=["id"], progress=False)
    assert not list(tmp_path.iterdir())


def test_a_killed_build_leaves_no_output(tmp_path):
    code = "import sys; from lira_hf.catalogue import build; build(sys.argv[1], progress=False)"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "new")], env=environment)
    try:
        for _ in range(200):
            if any(tmp_path.glob(".new.*/*")):  # tables are being written
                break
            time.sleep(0.05)
        else:
            pytest.fail("the build wrote nothing within 10 s")
    finally:
        process.kill()
        process.wait()
    assert not (tmp_path / "new").exists()
