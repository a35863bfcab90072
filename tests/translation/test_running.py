"""The commands' loops: killed, repeated, shared and merged they end with the same store; summaries say what a hand count says."""

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import steady_translator
from steady_translator import AT_ONCE, Steady, number

from lira_hf.translation import running
from lira_hf.translation.records import Answer, Marks, Score, key_of
from lira_hf.translation.store import SCORES, TRANSLATIONS, Store
from lira_hf.translation.summary import render_summary
from lira_hf.translation.survival import Survival, numbers


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


@pytest.fixture
def texts(tmp_path):
    """1,200 rows with 1,000 different texts."""
    return jsonl(tmp_path / "texts.jsonl", [{"text": f"สินค้า {i % 1000}", "language": ("th", "bn")[i % 2]} for i in range(1200)])


@pytest.fixture
def candidates(tmp_path):
    """The same texts with three candidates each."""
    rows = [{"text": f"สินค้า {i}", "language": "th", "translations": [f"goods {i} {c}" for c in "abc"]} for i in range(1000)]
    return jsonl(tmp_path / "candidates.jsonl", rows)


def start(command, source, output, log, delay, *shard):
    """A process of its own that runs a command with the tests' translator."""
    arguments = [sys.executable, steady_translator.__file__, command, str(source), str(output), str(log), str(delay), *shard]
    return subprocess.Popen(arguments, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})


def questions(log):
    """(process, key, round) of every question that was asked, in order."""
    return [tuple(line.split()) for line in log.read_text().splitlines()] if log.exists() else []


def stored(output):
    """(key, round) of what journals and shards hold, without opening the store, which would change it."""
    found = set()
    for path in (Path(output) / "store").glob("*.parquet"):
        found |= {(row["key"], str(row.get("round", 0))) for row in pq.read_table(path).to_pylist()}
    for path in (Path(output) / "store").glob("journal-*"):
        for line in path.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):
                found |= {(row["key"], str(row.get("round", 0))) for row in json.loads(line)["records"]}
    return found


@pytest.mark.parametrize("command", ["translate", "judge"])
def test_ten_kills_lose_and_repeat_only_what_was_in_flight(tmp_path, texts, candidates, command):
    source, output, log = {"translate": texts, "judge": candidates}[command], tmp_path / "killed", tmp_path / "log"
    moments = random.Random()
    killed = 0
    for _ in range(10):
        before, held = len(questions(log)), stored(output)
        process = start(command, source, output, log, 0.004)
        while len(questions(log)) == before and process.poll() is None:
            time.sleep(0.002)
        time.sleep(moments.uniform(0, 0.12))
        process.kill()
        killed += process.wait() == -9
        asked = {(key, round_) for _, key, round_ in questions(log)[before:]}
        assert not asked & held
        assert stored(output) >= held
    assert killed >= 8  # a stalled machine may let one or two come to their end
    assert start(command, source, output, log, 0).wait() == 0
    getattr(running, command)(source, tmp_path / "undisturbed", Steady(), progress=False)
    assert Store(output / "store").digest() == Store(tmp_path / "undisturbed" / "store").digest()
    for name in ("translations.parquet", f"{command}.json"):
        if name.endswith(".parquet"):
            assert pq.read_table(output / name).equals(pq.read_table(tmp_path / "undisturbed" / name))
        else:
            said = [json.loads((folder / name).read_text()) for folder in (output, tmp_path / "undisturbed")]
            assert said[0] | {"stored": 0, "asked": 0} == said[1] | {"stored": 0, "asked": 0}
    times = Counter((key, round_) for _, key, round_ in questions(log))
    assert len(times) == 1000
    assert times.total() - len(times) <= 10 * AT_ONCE
    assert not [path for path in output.rglob("*") if path.name.endswith((".part", ".jsonl", ".next", ".last"))]


def test_a_second_run_asks_nothing_and_changes_nothing(tmp_path, texts):
    first = running.translate(texts, tmp_path / "out", Steady(), progress=False)
    content = {path.name: path.read_bytes() for path in (tmp_path / "out").rglob("*.parquet")}
    second = running.translate(texts, tmp_path / "out", Steady(tmp_path / "log"), progress=False)
    assert questions(tmp_path / "log") == []
    assert (first["texts"], first["stored"], first["asked"]) == (1000, 0, 1000)
    assert (second["texts"], second["stored"], second["asked"]) == (1000, 1000, 0)
    assert second["sources"] == first["sources"]
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").rglob("*.parquet")} == content


def test_runs_on_disjoint_shards_are_merged_into_the_whole(tmp_path, texts):
    logs = [tmp_path / f"log{i}" for i in range(3)]
    runs = [start("translate", texts, tmp_path / f"part{i}", logs[i], 0, f"{i}/3") for i in range(3)]
    assert [run.wait() for run in runs] == [0, 0, 0]
    asked = [key for log in logs for _, key, _ in questions(log)]
    assert len(asked) == len(set(asked)) == 1000
    assert not (tmp_path / "part0" / "translations.parquet").exists()
    assert (tmp_path / "part0" / "translate-00000-of-00003.json").exists()
    merged = running.translate(texts, tmp_path / "whole", Steady(), merge=[tmp_path / f"part{i}" for i in range(3)], progress=False)
    assert merged["asked"] == 0
    running.translate(texts, tmp_path / "alone", Steady(), progress=False)
    assert Store(tmp_path / "whole" / "store").digest() == Store(tmp_path / "alone" / "store").digest()


@pytest.mark.parametrize("shards", [("0/2", "1/2"), ()])
def test_two_processes_at_once_into_one_store(tmp_path, texts, shards):
    runs = [start("translate", texts, tmp_path / "both", tmp_path / "log", 0.001, *shards[i : i + 1]) for i in range(2)]
    assert [run.wait() for run in runs] == [0, 0]
    summary = running.translate(texts, tmp_path / "both", Steady(), progress=False)
    alone = running.translate(texts, tmp_path / "alone", Steady(), progress=False)
    assert summary["asked"] == 0
    assert summary["sources"] == alone["sources"]
    assert Store(tmp_path / "both" / "store").digest() == Store(tmp_path / "alone" / "store").digest()


def test_several_translators_feed_one_store_and_each_candidate_knows_its_source(tmp_path):
    source = jsonl(tmp_path / "t.jsonl", [{"text": "ทีวี", "language": "th"}, {"text": " ", "language": "th"}])
    for name in ("b", "a"):
        running.translate(source, tmp_path / "out", Steady(name=name, failing=False), 2, progress=False)

    class Echo(Steady):
        def _answer(self, text, k):
            return Answer(text.key, ("a 0: ทีวี", "its own", "its own", "too many"))

    summary = running.translate(source, tmp_path / "out", Echo(name="c"), 2, progress=False)
    first, empty = pq.read_table(tmp_path / "out" / "translations.parquet")["translations"].to_pylist()
    found = [(candidate["source"], candidate["text"]) for candidate in first]
    assert found == [("a", "a 0: ทีวี"), ("a", "a 1: ทีวี"), ("b", "b 0: ทีวี"), ("b", "b 1: ทีวี"), ("c", "its own")]
    assert empty == []
    assert (summary["rows"], summary["texts"], summary["rows without a candidate"]) == (2, 1, 1)
    assert {name: of["candidates"] for name, of in summary["sources"].items()} == {"a": 2, "b": 2, "c": 2}


def test_more_candidates_are_asked_for_anew_and_fewer_are_not(tmp_path, texts):
    running.translate(texts, tmp_path / "out", Steady(failing=False), 2, progress=False)
    more = running.translate(texts, tmp_path / "out", Steady(failing=False), 3, progress=False)
    fewer = running.translate(texts, tmp_path / "out", Steady(failing=False), 1, progress=False)
    assert (more["asked"], fewer["asked"]) == (1000, 0)
    assert fewer["sources"]["steady"]["candidates"] == 3000


def test_failures_are_kept_until_they_are_to_be_tried_again(tmp_path, texts):
    first = running.translate(texts, tmp_path / "out", Steady(), progress=False)
    failed = first["sources"]["steady"]["failures"]["timeout"]
    assert failed == sum(number(key_of(("th", "bn")[i % 2], f"สินค้า {i}"), "fails") % 20 == 0 for i in range(1000)) > 20
    assert "what failed is asked again with --retry-failed" in render_summary(first)
    again = running.translate(texts, tmp_path / "out", Steady(failing=False), retry_failed=True, progress=False)
    assert again["asked"] == failed
    assert again["sources"]["steady"]["failures"] == {}
    assert again["rows without a candidate"] == 0
    running.translate(texts, tmp_path / "new", Steady(failing=False), progress=False)
    assert Store(tmp_path / "out" / "store").digest() == Store(tmp_path / "new" / "store").digest()


class Wrong(Steady):
    """Answers to what nobody asked, or to less than was asked, or twice."""

    def __init__(self, change):
        super().__init__()
        self.change = change

    async def translate(self, texts, k):
        for answer in self.change([Answer(text.key, ("x",)) for text in texts]):
            yield answer


@pytest.mark.parametrize(
    ("change", "error"),
    [(lambda a: a[1:], RuntimeError), (lambda a: [*a, a[0]], KeyError), (lambda a: [Answer("0" * 64, ("x",)), *a], KeyError)],
)
def test_a_translator_that_loses_doubles_or_invents_is_found_out(tmp_path, texts, change, error):
    with pytest.raises(error):
        running.translate(texts, tmp_path / "out", Wrong(change), progress=False)
    assert not (tmp_path / "out" / "translations.parquet").exists()


def test_the_summary_is_what_a_hand_count_says(tmp_path):
    rows = [
        {"text": "หูฟัง Sony WH-1000 ๒,๕๐๐ บาท", "language": "th"},
        {"text": "sepatu nike 42", "language": "id"},
        {"text": "Sepatu merah", "language": "id"},
        {"text": "sepatu nike 42", "language": "id"},
        {"text": "gagal", "language": "id"},
    ]
    said = {
        rows[0]["text"]: ("Sony WH-1000 headphones, 2500 baht", "SONY headphones"),  # brands 2 and 1 of 2; numbers 2 and 0 of 2
        rows[1]["text"]: ("Nike shoes 42", "shoes 42", "Nike shoes 43"),  # brands 2 of 3; numbers 2 of 3
        rows[2]["text"]: ("red shoes",),  # nothing to survive
    }

    class Written(Steady):
        def _answer(self, text, k):
            found = said.get(text.text, ())
            return Answer(text.key, found, 100, 10 * len(found), None if found else "refused")

    summary = running.translate(
        jsonl(tmp_path / "t.jsonl", rows), tmp_path / "out", Written(name="w"), 4, brands=["Nike"], price=(2.0, 50.0), progress=False
    )
    assert {name: count for name, count in summary.items() if name != "sources"} == {
        **{"rows": 5, "texts": 4, "stored": 0, "asked": 4},
        **{"rows without a candidate": 1, "candidates without a score": 9},
    }
    assert summary["sources"] == {
        "w": {
            **{"candidates": 6, "prompt_tokens": 400, "completion_tokens": 60, "failures": {"refused": 1}, "price": (400 * 2 + 60 * 50) / 1e6},
            **{"brands": {"in_source": 7, "survived": 5}, "numbers": {"in_source": 7, "survived": 4}},
        }
    }
    assert json.loads((tmp_path / "out" / "translate.json").read_text()) == summary
    assert render_summary(summary) == [
        "5 rows, 4 texts, 0 stored, 4 asked, 1 rows without a candidate, 9 candidates without a score",
        "w: 6 candidates; 400 tokens read and 60 written for 0.00; failed: 1 refused; 71.4 % of 7 brands survived; 57.1 % of 7 numbers survived",
        "what failed is asked again with --retry-failed",
    ]


class Judging(Steady):
    """Marks by the words of a candidate: bad ones are left unscored."""

    def _score(self, item):
        marks = {"good": (9, 8, 7), "fair": (5, 5, 5 + 2 * item.round), "bad": None}
        found = tuple(marks[candidate] and Marks(*marks[candidate]) for candidate in item.candidates)
        return Score(item.key, item.round, item.candidates, found, 10, 2, None if all(found) else "malformed")


def test_scores_are_means_over_rounds_and_agreement_is_reported(tmp_path):
    rows = [{"text": "x", "language": "th", "translations": [{"text": word, "source": "s", "semantic": 1, "emotional": 1, "pragmatic": 1} for word in words]}
            for words in (["good", "bad", "fair"], ["fair"])]  # fmt: skip
    source = jsonl(tmp_path / "t.jsonl", rows)
    summary = running.judge(source, tmp_path / "out", Judging(name="j"), rounds=2, price=(1.0, 1.0), progress=False)
    assert (summary["rows"], summary["candidates"], summary["asked"]) == (2, 3, 6)
    assert summary["judges"]["j"] == {
        **{"prompt_tokens": 20, "completion_tokens": 4, "failures": {"malformed": 2}, "price": 24 / 1e6, "scored": 4, "unscored": 2},
        "mean": {"semantic": 7.0, "emotional": 6.5, "pragmatic": 6.5},
        "agreement": {
            "pairs": 2,
            "equal": {"semantic": 1.0, "emotional": 1.0, "pragmatic": 0.5},
            "difference": {"semantic": 0.0, "emotional": 0.0, "pragmatic": 1.0},
        },
    }
    fair = {"text": "fair", "source": "s", "semantic": 5, "emotional": 5, "pragmatic": 6}
    assert pq.read_table(tmp_path / "out" / "translations.parquet")["translations"].to_pylist() == [
        [
            {"text": "good", "source": "s", "semantic": 9, "emotional": 8, "pragmatic": 7},
            {"text": "bad", "source": "s", "semantic": None, "emotional": None, "pragmatic": None},  # never guessed, and not the score it came with
            fair,
        ],
        [fair],
    ]
    assert running.judge(source, tmp_path / "out", Judging(name="j"), rounds=2, progress=False)["asked"] == 0
    assert running.judge(source, tmp_path / "out", Judging(name="j"), rounds=3, progress=False)["asked"] == 3


def test_candidates_of_a_new_translator_are_judged_without_those_that_were(tmp_path, texts):
    out = tmp_path / "out"
    running.translate(texts, out, Steady(name="a", failing=False), 2, progress=False)
    running.judge(out, out, Steady(name="j", failing=False), progress=False)
    running.translate(texts, out, Steady(name="b", failing=False), 1, progress=False)
    kept = pq.read_table(out / "translations.parquet")["translations"].to_pylist()
    assert all([c["semantic"] is None for c in row] == [False, False, True] for row in kept)
    summary = running.judge(out, out, Steady(name="j", failing=False), progress=False)
    assert (summary["candidates"], summary["stored"], summary["asked"], summary["candidates without a score"]) == (3000, 2000, 1000, 0)


@pytest.fixture(scope="module")
def translated(tmp_path_factory):
    """A small data set of two languages, translated and judged into one output folder."""
    from lira_hf.catalogue import build

    place = tmp_path_factory.mktemp("translated")
    data = build(place / "laz", languages=["th", "id"], progress=False)
    running.translate(data, place / "out", Steady(name="steady"), 2, progress=False)
    running.judge(place / "out", place / "out", Steady(name="critic"), progress=False)
    return data, place / "out" / "data"


def test_the_result_loads_as_the_data_set_did(translated):
    from datasets import load_dataset

    from lira_hf.collation import read

    data, result = translated
    for code, split in (("th", "test"), ("id", "train")):
        before, after = read(data, code, split), read(result, code, split)
        assert [query.id for query in after.queries] == [query.id for query in before.queries]
        assert list(after.products) == list(before.products)
        for item in (*after.queries, *after.products.values()):
            key = key_of(code, item.row.text)
            failed = number(key, "fails") % 20 == 0
            assert item.row.translations == ([] if failed else [f"steady {i}: {item.row.text}" for i in range(2)])
            expected = [tuple(float(1 + number(axis, key, text) % 10) for axis in Marks._fields) for text in item.row.translations]
            assert item.row.scores == expected
    rows = load_dataset(str(result), "th", split="validation")
    assert rows.features == load_dataset(str(data), "th", split="validation").features
    assert {candidate["source"] for row in rows for candidate in row["translations"]} == {"steady"}
    assert load_dataset(str(result), "th-qrels", split="test").num_rows == load_dataset(str(data), "th-qrels", split="test").num_rows


def test_record_and_card_fit_the_result(translated):
    import hashlib

    _, result = translated
    record = json.loads((result / "build.json").read_text())
    files = {path.relative_to(result).as_posix(): path for path in result.rglob("*") if path.is_file() and path.name != "build.json"}
    assert record["sha256"] == {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in sorted(files.items())}
    found = Counter(
        c["source"]
        for path in files.values()
        if path.parent.name in ("th", "th-corpus")
        for r in pq.read_table(path).to_pylist()
        for c in r["translations"]
    )
    assert record["translations"]["th"] == {"candidates": dict(found), "judges": ["critic"]}
    assert f"- th: {found['steady']:,} by `steady`; scored by `critic`" in (result / "README.md").read_text()
    assert len(Store(result.parent / "store").view(SCORES)) == len(Store(result.parent / "store").view(TRANSLATIONS)) * 2 - 2 * sum(
        record["failure"] is not None for record in Store(result.parent / "store").view(TRANSLATIONS)
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"candidates": 0}, "candidates: 0 is not allowed"),
        ({"shard": (2, 2)}, "shard: 2/2 is not allowed"),
        ({"price": (-1.0, 0.0)}, "price: "),
        ({"languages": ["vi"]}, "languages: 'vi'"),
        ({"merge": ["/nowhere"]}, "merge: '/nowhere' holds no store"),
    ],
)
def test_wrong_arguments_are_named(tmp_path, texts, arguments, message):
    with pytest.raises(ValueError, match=message):
        running.translate(texts, tmp_path / "out", Steady(), progress=False, **arguments)


def test_an_output_in_the_input_or_on_a_file_is_refused(translated, tmp_path, texts):
    data, _ = translated
    for output in (data, data / "deeper"):
        with pytest.raises(ValueError, match="is inside the input"):
            running.translate(data, output, Steady(), progress=False)
    assert not (data / "store").exists()
    with pytest.raises(ValueError, match="is a file"):
        running.translate(texts, texts, Steady(), progress=False)
    with pytest.raises(ValueError, match="holds no candidate translations"):
        running.judge(texts, tmp_path / "out", Steady(), progress=False)
    with pytest.raises(ValueError, match="rounds: 0 is not allowed"):
        running.judge(texts, tmp_path / "out", Steady(), rounds=0, progress=False)


@pytest.mark.parametrize(
    ("text", "candidate", "brands", "found"),
    [
        ("เสื้อNikeสีแดง", "red nike shirt", (), (1, 1)),  # Thai writes without spaces
        ("เสื้อ Nike", "Nikeshirt", (), (1, 0)),
        ("টিভি Samsung QLED", "Samsung TV", (), (2, 1)),
        ("جوتے H&M", "shoes by H&M", (), (1, 1)),
        ("เสื้อ polyester", "shirt", (), (0, 0)),  # no capital: a word, not a brand
        ("Sepatu Nike", "shoes", (), (0, 0)),  # in Latin script a capital tells nothing
        ("Sepatu NIKE air  max", "Nike Air Max", ("Nike", "Nike Air"), (1, 1)),  # the longest name, once
        ("baju NIKE dan nike", "one Nike", ("Nike",), (2, 1)),
        ("shirt", "shirt", (" ", "", "--"), (0, 0)),
    ],
)
def test_brands_that_survive(text, candidate, brands, found):
    assert Survival(brands).count(text, [candidate])["brands"] == found


@pytest.mark.parametrize(
    ("text", "alike", "unlike"),
    [
        ("ทีวี ๕๕ นิ้ว", "55 inch", "56 inch"),  # Thai
        ("চাল ৫ কেজি", "5 kg", "50 kg"),  # Bengali
        ("চাল ১,০০,০০০", "100000", "1,000"),  # grouped as in South Asia
        ("فون ۱۲۸ جی بی", "128 GB", "182 GB"),  # Urdu
        ("٣٫٥ لیٹر", "3.5 L", "35 L"),  # Arabic digits and decimal separator
        ("1.500 gram", "1,500 g", "1.5 g"),
        ("1,5 liter", "1.50 L", "15 L"),
        ("2 x 3", "3 by 2", "2 by 2"),
        ("10 pcs", "10 pieces", "ten pieces"),
    ],
)
def test_numbers_that_survive(text, alike, unlike):
    wanted = numbers(text).total()
    survival = Survival()
    assert survival.count(text, [alike])["numbers"] == (wanted, wanted)
    given, kept = survival.count(text, [unlike])["numbers"]
    assert kept < given == wanted
    assert survival.count(text, [alike, unlike])["numbers"] == (2 * wanted, wanted + kept)
