"""The data set on disk: what it promises about splits, grades and unseen words, and how it is put in place."""

import dataclasses
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter

import pyarrow.parquet as pq
import pytest
import yaml

from lira_hf.catalogue import SIZES, build, builder
from lira_hf.catalogue.candidates import Desk, Translator
from lira_hf.catalogue.composition import Intent, Product, model_code
from lira_hf.catalogue.demand import KINDS, kind_of, long_tail
from lira_hf.catalogue.difficulty import measure
from lira_hf.catalogue.lexicon import load_words
from lira_hf.catalogue.relevance import JUDGED, grade
from lira_hf.catalogue.rows import BLOCK, Extent, Size
from lira_hf.catalogue.splits import BACKBONES, SPLITS, bucket, family_key, held_out
from lira_hf.catalogue.tables import COLUMNS, read_rows
from lira_hf.languages import LANGUAGES

_TINY_SIZE = Size(*[Extent(30, 1, 1)] * 3, types=60)


@pytest.mark.parametrize("language", LANGUAGES)
def test_tables_fit_together(language, read):
    for split in SPLITS:
        rows, corpus = read(language, "", split), read(language, "-corpus", split)
        assert len(rows) == getattr(SIZES["small"], split).queries
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
        for row in rows:
            intent = json.loads(row["intent"])
            assert list(intent) == ["kind", "type", "wanted"] and intent["kind"] in KINDS
        for row in (*rows, *corpus):
            assert 1 <= len(row["translations"]) <= 4
            assert all(1 <= t[axis] <= 10 for t in row["translations"] for axis in ("semantic", "emotional", "pragmatic"))
    counts = Counter(len(row["translations"]) for split in SPLITS for row in (*read(language, "", split), *read(language, "-corpus", split)))
    assert counts[4] > 0.95 * counts.total() and counts[1] < 0.002 * counts.total()  # where English has too few words for four texts


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
    named_own, named_english = _names_of(hidden, own), _names_of(hidden, english)
    brands = sorted({*own.brands, *own.brands.values(), *(b for of in catalogue.brands.values() for b in of)}, key=len)
    # Brands and model codes name nothing, whatever letters they have.
    aside = re.compile("|".join([*map(re.escape, reversed(brands)), "[A-Z]{2,3}-[0-9]{3,4}"]))
    for split in ("train", "validation"):
        rows, corpus = read(language, "", split), read(language, "-corpus", split)
        assert not {json.loads(row["intent"])["type"] for row in rows} & hidden
        assert not {row["category_path"].split("/")[2] for row in corpus} & hidden
        assert not any("unseen" in row["slice"] for row in rows)
        for row in (*rows, *corpus):
            text = row.get("clean") or f"{row.get('title')} {row.get('text')}"
            assert not named_own(aside.sub(" ", text))
            for text in (row["english"], *(candidate["text"] for candidate in row["translations"])):
                assert not named_english(aside.sub(" ", text))


def _names_of(types, words):
    """A function that finds the names of `types` in a text, but for those that are part of another type's or an attribute's name."""
    known = [form for type_id, forms in words.forms["type"].items() if type_id not in types for form in forms]
    attributes = [form for axis, of in words.forms.items() if axis != "type" for forms in of.values() for form in forms]
    names = [form for type_id in types for form in words.forms["type"][type_id]]
    told = [name for name in names if name.lower() not in " | ".join([*known, *attributes]).lower()]
    assert len(told) > len(types) / 2
    # Thai writes no spaces; the vowel signs of Bengali are no \w.
    letter = "" if words.language == "th" else r"[\w\u0980-\u09ff]"

    def pattern(forms):
        forms = "|".join(map(re.escape, sorted(forms, key=len, reverse=True)))
        return re.compile(f"(?<!{letter})(?:{forms})(?!{letter})" if letter else forms, re.IGNORECASE)

    told, known = pattern(told), pattern(known)

    def find(text):
        """Names, without those that run into another type's: the "solar light" of a "solar light switch" is no lamp."""
        return [
            name.group()
            for name in told.finditer(text)
            if not any((other := known.match(text, at)) and other.end() > name.end() for at in range(name.start() + 1, name.end()))
        ]

    return find


@pytest.mark.parametrize("language", LANGUAGES)
def test_unseen_slice_tells_the_truth(language, read, catalogue):
    rows = read(language, "", "test")
    for row in rows:
        assert ("unseen" in row["slice"]) == (json.loads(row["intent"])["type"] in held_out(catalogue))
    assert 0.06 < sum("unseen" in row["slice"] for row in rows) / len(rows) < 0.19


@pytest.mark.parametrize("language", LANGUAGES)
def test_long_tail_slice_and_kind_tell_the_truth(language, read, catalogue):
    for split in SPLITS:
        rows = read(language, "", split)
        for row in rows:
            intent = json.loads(row["intent"])
            assert ("long_tail" in row["slice"]) == (intent["type"] in long_tail(catalogue))
            assert intent["kind"] == kind_of(Intent(intent["type"], intent["wanted"]), catalogue)
    assert 0.1 < sum("long_tail" in row["slice"] for split in SPLITS for row in read(language, "", split)) / 1600 < 0.24


@pytest.mark.parametrize("language", LANGUAGES)
def test_paths_and_codes_of_products_are_their_own(language, read, catalogue):
    for row in read(language, "-corpus", "test"):
        department, category, type_id = row["category_path"].split("/")
        type_ = catalogue.types[type_id]
        assert (department, category) == (type_.department, type_.category)
        attributes = json.loads(row["attributes"])
        assert list(attributes) == list(type_.axes) and all(attributes[axis] in values for axis, values in type_.axes.items())
        code = model_code(family_key(type_, {"brand": row["brand"], **attributes}, catalogue))
        assert code in f"{row['title']} {row['text']}" and code in row["english"]


def _product(row):
    _, _, type_id = row["category_path"].split("/")
    return Product(row["_id"], row["family_id"], type_id, row["brand"], json.loads(row["attributes"]))


@pytest.mark.parametrize(("language", "split"), [("th", "test"), ("vi", "train"), ("ur", "validation"), ("fil", "validation")])
def test_judgements_are_complete(language, split, read, catalogue):
    """Grades of a whole corpus, computed anew: no relevant product is missing and every grade is right."""
    products = [_product(row) for row in read(language, "-corpus", split)]
    for row in read(language, "", split):
        _, *intent = json.loads(row["intent"]).values()
        intent = Intent(*intent)
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


def _contents(folder):
    """The bytes of every file, by path."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_same_seed_same_bytes_for_any_number_of_workers(tmp_path, monkeypatch):
    monkeypatch.setitem(SIZES, "small", dataclasses.replace(_TINY_SIZE, train=Extent(2 * BLOCK + 1, 2, 2)))  # workers get it from here
    monkeypatch.setattr(builder, "SHARD_ROWS", BLOCK)  # and this is in the numbers of their rows
    options = {"languages": ["fil", "th"], "seed": 3, "progress": False}
    one, two = (_contents(build(tmp_path / f"{workers}", workers=workers, **options)) for workers in (1, 2))
    assert "th/train-00002-of-00003.parquet" in one and len(one) == 2 * 4 * 3 + 2 + 2 * 3 * 2
    assert one == two
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]  # and no trace of the work


def test_shards_are_the_same_rows_in_more_files(tmp_path, monkeypatch, built, read):
    monkeypatch.setattr(builder, "SHARD_ROWS", BLOCK)
    folder, size, shards = build(tmp_path / "new", languages=["id"], progress=False), SIZES["small"], {}
    for suffix in COLUMNS:
        for split in SPLITS:
            rows, expected = read_rows(folder, "id", suffix, split)[1], read("id", suffix, split)
            files = sorted(path.name for path in (folder / f"id{suffix}").glob(f"{split}-*"))
            count = shards.setdefault((suffix == "-corpus", split), len(files))
            assert files == [f"{split}-{shard:05d}-of-{count:05d}.parquet" for shard in range(count)]
            assert all(pq.read_metadata(folder / f"id{suffix}" / file).num_rows <= BLOCK for file in files if suffix != "-qrels")
            # A shard knows the queries of no other, so one of them may come twice; nothing else may differ.
            if suffix == "-corpus" or split != "train":
                assert rows == expected
            else:
                assert len(rows) == len(expected) or suffix == "-qrels"
                assert rows[:BLOCK] == expected[:BLOCK]
    assert shards[False, "train"] == -(-size.train.queries // BLOCK) > 3 and shards[True, "train"] > 3
    loaded = pytest.importorskip("datasets").load_dataset(str(folder), "id", cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in loaded.items()} == {split: getattr(size, split).queries for split in SPLITS}
    assert loaded["train"]["query_id"] == [f"id-q-train-{number:06d}" for number in range(size.train.queries)]


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
    assert len(rows) == SIZES["small"].test.queries
    assert set(rows[0]["translations"][0]) == {"text", "source", "semantic", "emotional", "pragmatic"}
    default = datasets.load_dataset(str(built), split="validation", cache_dir=str(tmp_path))
    assert default[0]["language"] == next(iter(LANGUAGES))


def test_a_folder_of_the_same_name_is_not_taken_for_another(tmp_path, monkeypatch):
    """`datasets` caches a local folder by its name and its configurations, not by its files."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setitem(SIZES, "small", _TINY_SIZE)
    rows = {}
    for seed in (0, 1):
        folder = build(tmp_path / f"{seed}" / "laz", languages=["vi"], seed=seed, progress=False)
        for suffix in COLUMNS:
            found = datasets.load_dataset(str(folder), f"vi{suffix}", split="test", cache_dir=str(tmp_path / "cache")).to_list()
            assert found == read_rows(folder, "vi", suffix, "test")[1]
            rows.setdefault(suffix, []).append(found)
    assert all(first != second for first, second in rows.values())


def test_every_config_says_what_it_holds(built):
    front = yaml.safe_load((built / "README.md").read_text().split("---")[1])
    assert [config["config_name"] for config in front["configs"]] == [f"{language}{suffix}" for language in LANGUAGES for suffix in COLUMNS]
    assert [config["config_name"] for config in front["configs"] if config.get("default")] == ["vi"]
    descriptions = {config["description"] for config in front["configs"]}
    assert len(descriptions) == 1 and re.fullmatch("content [0-9a-f]{16}", descriptions.pop())
    for config in front["configs"]:
        assert [of["split"] for of in config["data_files"]] == list(SPLITS)
        assert all(len(list(built.glob(of["path"]))) == 1 for of in config["data_files"])


def test_the_record_and_the_card_say_what_was_written(built, read):
    record = json.loads((built / "build.json").read_text())
    assert list(record) == ["size", "seed", "languages", "desk", "words and code", "counts", "difficulty", "sha256"]
    assert (record["size"], record["seed"], record["languages"]) == ("small", 0, list(LANGUAGES))
    assert record["desk"] == json.loads(json.dumps(dataclasses.asdict(Desk())))
    assert record["difficulty"] == measure(built, progress=False)
    assert set(record["sha256"]) == {p.relative_to(built).as_posix() for p in built.rglob("*") if p.is_file()} - {"build.json"}
    assert list(record["sha256"]) == sorted(record["sha256"])
    for file, found in record["sha256"].items():
        assert hashlib.sha256((built / file).read_bytes()).hexdigest() == found
    card = (built / "README.md").read_text()
    assert "synthetic" in card.split("---")[2][:200] and "is not public" in card
    for language in LANGUAGES:
        for split in SPLITS:
            counted, rows = record["counts"][language][split], read(language, "", split)
            scores = [row["score"] for row in read(language, "-qrels", split)]
            assert counted["queries"] == len(rows) and counted["products"] == len(read(language, "-corpus", split))
            assert counted["judgements"] == len(scores) and counted["relevant"] == sum(score > 0 for score in scores)
            slices = Counter(tag for row in rows for tag in row["slice"])
            assert {name.removeprefix("slice:"): count for name, count in counted.items() if name.startswith("slice:")} == slices
            numbers = f"{counted['queries']:,} | {counted['products']:,} | {len(scores):,} | {counted['relevant']:,}"
            assert f"| {LANGUAGES[language].name} | {split} | {numbers} |" in card


def test_another_desk_gives_other_translations(built, tmp_path, read):
    desk = Desk((Translator("sure", 0, 0, 0),), candidates=1, hard_words=0.0)
    folder = build(tmp_path / "sure", languages=["ms"], desk=desk, progress=False)
    rows, products = (read_rows(folder, "ms", suffix, "test")[1] for suffix in ("", "-corpus"))
    for found, usual in ((rows, read("ms", "", "test")), (products, read("ms", "-corpus", "test"))):
        assert [{**row, "translations": 0} for row in found] == [{**row, "translations": 0} for row in usual]
        assert {candidate["source"] for row in found for candidate in row["translations"]} == {"sure"}
    record = json.loads((folder / "build.json").read_text())
    assert [translator["name"] for translator in record["desk"]["translators"]] == ["sure"]
    assert build(folder, languages=["ms"], desk=desk, progress=False) == folder
    with pytest.raises(ValueError, match="output: .* holds other desk"):
        build(folder, languages=["ms"], progress=False)


def test_other_words_need_another_folder(tmp_path, monkeypatch):
    folder = build(tmp_path / "data", languages=["ms"], progress=False)
    monkeypatch.setattr(builder, "_fingerprint", lambda: "a word was corrected")
    with pytest.raises(ValueError, match="output: .* holds other words and code; give a new or empty folder"):
        build(folder, languages=["ms"], progress=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": "huge"}, "size: 'huge' is not known; allowed: small, standard, mega"),
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
    monkeypatch.setitem(SIZES, "small", _TINY_SIZE)
    (tmp_path / "empty").mkdir()
    assert (build(tmp_path / "empty", languages=["id"], progress=False) / "README.md").is_file()


# --- builds that stop -----------------------------------------------------------------------------------------------

_BUILD = {"languages": ["id"], "progress": False}


@pytest.fixture
def tiny(monkeypatch, tmp_path_factory):
    """Makes "small" tiny; returns the contents of an uninterrupted build of a seed."""
    monkeypatch.setitem(SIZES, "small", _TINY_SIZE)
    return lambda seed=0: _contents(build(tmp_path_factory.mktemp("whole") / "new", seed=seed, **_BUILD))


def _stop(output, monkeypatch, step, failure, **options):
    """A build that fails when it comes to `step`, a function of the builder."""
    with monkeypatch.context() as patch:

        def fail(*args, **kwargs):
            raise failure

        patch.setattr(builder, step, fail)
        with pytest.raises(type(failure)):
            build(output, **_BUILD, **options)


def _written(folder):
    """When, and in which file of the disk, each table was written."""
    return {path.relative_to(folder).as_posix(): (path.stat().st_mtime_ns, path.stat().st_ino) for path in folder.rglob("*.parquet")}


@pytest.mark.parametrize("failure", [OSError("the disk is full"), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_a_failed_build_leaves_only_what_the_next_one_takes_up(failure, tmp_path, monkeypatch, tiny):
    _stop(tmp_path / "new", monkeypatch, "render_card", failure)  # the last step, when all tables stand
    assert [path.name for path in tmp_path.iterdir()] == [".new.partial"]
    before = _written(tmp_path / ".new.partial" / "data")
    assert len(before) == 4 * 3
    assert _contents(build(tmp_path / "new", **_BUILD)) == tiny()
    assert _written(tmp_path / "new") == before  # not one was written again
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_a_failed_worker_ends_the_build_and_the_rest_is_taken_up(tmp_path, tiny):
    """One shard cannot be written: a folder stands where the table should."""
    blocked = tmp_path / ".new.partial" / "data" / "id" / "test-00000-of-00001.parquet"
    with pytest.MonkeyPatch.context() as patch:
        _stop(tmp_path / "new", patch, "_write_units", OSError("stop before the first shard"))
    (blocked / "stone").mkdir(parents=True)
    with pytest.raises(OSError, match="test-00000-of-00001"):
        build(tmp_path / "new", workers=2, **_BUILD)
    assert not (tmp_path / "new").exists()
    shutil.rmtree(blocked)
    assert _contents(build(tmp_path / "new", **_BUILD)) == tiny()


@pytest.mark.parametrize("change", [{"seed": 1}, {"desk": Desk(hard_words=0.9)}], ids=["seed", "desk"])
def test_what_another_plan_left_is_thrown_away(change, tmp_path, monkeypatch, tiny):
    _stop(tmp_path / "new", monkeypatch, "render_card", KeyboardInterrupt(), **change)
    before = _written(tmp_path / ".new.partial" / "data")
    assert _contents(build(tmp_path / "new", **_BUILD)) == tiny()
    after = _written(tmp_path / "new")
    assert after.keys() == before.keys() and all(after[path] != before[path] for path in after)


def test_words_that_were_mended_meanwhile_start_it_anew(tmp_path, monkeypatch, tiny):
    _stop(tmp_path / "new", monkeypatch, "render_card", KeyboardInterrupt())
    before = _written(tmp_path / ".new.partial" / "data")
    with monkeypatch.context() as patch:
        patch.setattr(builder, "_fingerprint", lambda: "other words")
        build(tmp_path / "new", **_BUILD)
    assert all(written != before[path] for path, written in _written(tmp_path / "new").items())


@pytest.mark.parametrize("rest", ["", "{"], ids=["empty", "half"])
def test_a_plan_that_was_cut_off_does_not_block_the_folder(rest, tmp_path, monkeypatch, tiny):
    """Killed in the moment in which the plan is written down."""
    _stop(tmp_path / "new", monkeypatch, "render_card", KeyboardInterrupt())
    (tmp_path / ".new.partial" / "plan.json").write_text(rest)
    assert _contents(build(tmp_path / "new", **_BUILD)) == tiny()


@pytest.mark.parametrize("removed", [1, 2])
def test_killed_while_it_throws_old_work_away(removed, tmp_path, monkeypatch, tiny):
    """Tables may be gone and their records not: no later build may believe the records."""
    _stop(tmp_path / "new", monkeypatch, "render_card", KeyboardInterrupt())
    remove, calls = shutil.rmtree, []

    def remove_some(path, **options):
        remove(path, **options)
        calls.append(path)
        if len(calls) == removed:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", remove_some)
        with pytest.raises(KeyboardInterrupt):
            build(tmp_path / "new", seed=1, **_BUILD)
    assert _contents(build(tmp_path / "new", **_BUILD)) == tiny()


def test_two_cannot_build_in_one_place(tmp_path, monkeypatch, tiny):
    _stop(tmp_path / "new", monkeypatch, "render_card", KeyboardInterrupt())
    before = _written(tmp_path / ".new.partial" / "data")
    with (tmp_path / ".new.partial" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for options in ({}, {"seed": 1}):
            with pytest.raises(ValueError, match=r"output: .*new.* is being built by another process; wait for it, or give another folder"):
                build(tmp_path / "new", **_BUILD, **options)
        assert _written(tmp_path / ".new.partial" / "data") == before
    assert build(tmp_path / "new", **_BUILD).is_dir()


def test_a_killed_build_goes_on(tmp_path, monkeypatch):
    """SIGKILL in the middle, which nothing in the process can answer; a second build meanwhile is refused."""
    monkeypatch.setattr(builder, "SHARD_ROWS", BLOCK)
    code = f"""
import sys, time
from lira_hf.catalogue import build, builder

def slowly(*args, write=builder.write_unit):
    time.sleep(0.05)
    return write(*args)

builder.SHARD_ROWS, builder.write_unit = {BLOCK}, slowly
build(sys.argv[1], **{_BUILD})
"""
    environment, place = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}, tmp_path / ".new.partial"
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "new")], env=environment)
    try:
        for _ in range(3000):
            if len(list(place.glob("records/*.json"))) >= 3 or process.poll() is not None:
                break
            time.sleep(0.005)
        with pytest.raises(ValueError, match="is being built by another process"):
            build(tmp_path / "new", **_BUILD)
    finally:
        process.kill()
        process.wait()
    assert not (tmp_path / "new").exists() and [path.name for path in tmp_path.iterdir()] == [".new.partial"]
    whole = _contents(build(tmp_path / "whole", **_BUILD))
    records = {path.name: path.stat().st_mtime_ns for path in place.glob("records/*.json")}
    finished = {file for name in records for file in json.loads((place / "records" / name).read_text())["sha256"]}
    assert 3 <= len(records) and 3 <= len(finished) < len(whole) - 2  # in the middle, as was meant
    before = {file: written for file, written in _written(place / "data").items() if file in finished}
    assert _contents(build(tmp_path / "new", **_BUILD)) == whole
    after = _written(tmp_path / "new")
    assert before.keys() == finished and {file: after[file] for file in finished} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "whole"]
