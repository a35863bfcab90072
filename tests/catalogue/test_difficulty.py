"""The difficulty of a data set: three systems without a model, each checked against a second way to the same number."""

import json
import math
import os
import subprocess
import sys
from collections import Counter

import pyarrow.parquet as pq
import pytest

from lira_hf.catalogue import difficulty
from lira_hf.catalogue.difficulty import measure, rows_of_table, trigrams, words
from lira_hf.catalogue.tables import table_path, write_table
from lira_hf.evaluation.metrics import ndcg

_TITLES = {
    "p0": "red shirt cotton",
    "p1": "red shirt",
    "p2": "blue shirt",
    "p3": "red mug",
    "p4": "blue mug mug",
    "p5": "green lamp",
    "p6": "lamp red big lamp",
    "p7": "big mug of clay",
    "p8": "clay pot",
    "p9": "shirt blue cotton",
    "pa": "mugs",
    "pb": "red shirt",
}
_QUERIES = {
    "q0": ("Red SHIRT", ["clean"], {"p1": 3, "pb": 3, "p0": 2, "p2": 1, "p5": 0}),
    "q1": ("blue mug", ["clean", "unseen"], {"p4": 3, "p7": 1}),
    "q2": ("shrit", ["typo"], {"p1": 3, "p9": 2}),
    "q3": ("নীল", ["typo"], {"p4": 0}),
}


def _row(id_, query, tags, judged):
    texts = dict.fromkeys(("language", "script", "english", "clean", "intent"), "")
    return {
        **texts,
        "query_id": id_,
        "query": query,
        "slice": tags,
        "translations": [],
        "product_ids": list(judged),
        "relevances": list(judged.values()),
    }


def _product(id_, title):
    texts = dict.fromkeys(("brand", "category_path", "family_id", "attributes", "english"), "")
    return {**texts, "_id": id_, "title": title, "text": "shop", "translations": []}


@pytest.fixture
def folder(tmp_path):
    """Twelve products and four queries in Indonesian; the rows in two shards."""
    rows = [_row(id_, *rest) for id_, rest in _QUERIES.items()]
    for number, shard in enumerate((rows[:3], rows[3:])):
        write_table(tmp_path / "id" / f"test-{number:05d}-of-00002.parquet", "", shard)
    write_table(table_path(tmp_path, "id", "-corpus", "test"), "-corpus", [_product(*item) for item in _TITLES.items()])
    return tmp_path


def _bm25_by_hand(query, split):
    """Every product with a score above 0, best first, equal ones by descending id: the formula as it is printed."""
    documents = {id_: Counter(split(f"{title} shop")) for id_, title in _TITLES.items()}
    mean_length = sum(sum(d.values()) for d in documents.values()) / len(documents)
    found = {}
    for id_, document in documents.items():
        for token in split(query):
            holders = sum(token in d for d in documents.values())
            weight = math.log(1 + (len(documents) - holders + 0.5) / (holders + 0.5))
            norm = 1.5 * (1 - 0.75 + 0.75 * sum(document.values()) / mean_length)
            found[id_] = found.get(id_, 0) + weight * document[token] / (document[token] + norm)
    ranked = sorted(((round(score, 6), id_) for id_, score in found.items() if score > 0), reverse=True)
    return [(id_, score) for score, id_ in ranked[:10]]


@pytest.mark.parametrize(("system", "split"), [("words", words), ("trigrams", trigrams)])
def test_bm25_agrees_with_its_formula_and_our_own_ndcg(folder, system, split):
    slices = measure(folder, progress=False)["languages"]["id"]["slices"]
    judged = {id_: grades for id_, (_, _, grades) in _QUERIES.items()}
    expected = ndcg(judged, {id_: _bm25_by_hand(query, split) for id_, (query, _, _) in _QUERIES.items()})
    assert set(expected) == {"q0", "q1", "q2"}  # q3 has no relevant product, so no nDCG
    assert slices["clean"][system] == pytest.approx((expected["q0"] + expected["q1"]) / 2, abs=0.006)
    assert slices["typo"][system] == pytest.approx(expected["q2"], abs=0.006)
    assert slices["unseen"][system] == pytest.approx(expected["q1"], abs=0.006)
    assert slices["all"][system] == pytest.approx(sum(expected.values()) / 3, abs=0.006)
    assert 0 < slices["clean"][system] < 100


def test_rows_are_counted_and_described_by_slice(folder):
    found = measure(folder, progress=False)
    language = found["languages"]["id"]
    assert (language["queries"], language["measured"], language["products"]) == (4, 4, 12)
    assert found["basis"] == "all test queries"
    assert {name: of["rows"] for name, of in language["slices"].items()} == {"all": 4, "clean": 2, "typo": 2, "unseen": 1}
    assert language["slices"]["clean"]["characters"] == (9 + 8) / 2
    assert language["slices"]["typo"]["latin"] == pytest.approx(5 / 7, abs=1e-4)  # two Bengali letters; the vowel sign is none


def test_only_the_first_rows_are_measured_and_the_result_says_so(folder, monkeypatch):
    monkeypatch.setattr(difficulty, "ROWS", 2)
    found = measure(folder, progress=False)
    assert found["basis"] == "the first 2 test queries of each language"
    assert (found["languages"]["id"]["queries"], found["languages"]["id"]["measured"]) == (4, 2)
    assert set(found["languages"]["id"]["slices"]) == {"all", "clean", "unseen"}


def test_a_slice_without_relevant_products_has_no_score(tmp_path, folder):
    write_table(folder / "id" / "test-00000-of-00002.parquet", "", [])
    found = measure(folder, progress=False)
    assert found["languages"]["id"]["slices"]["all"]["words"] is None
    assert rows_of_table(found)[2] == "| Indonesian | all | 1 | 3 | 0 % | – | – | – |"


def test_random_is_near_what_chance_gives(built, read):
    """Expected gain of a place is the mean grade over the corpus."""
    found, expected = [], []
    for code, language in measure(built, progress=False)["languages"].items():
        of_language = []
        for row in read(code, "", "test"):
            ideal = sorted(row["relevances"], reverse=True)[:10]
            discounts = [1 / math.log2(place + 2) for place in range(10)]
            best = sum(grade * discount for grade, discount in zip(ideal, discounts, strict=True))
            of_language.append(100 * sum(row["relevances"]) / language["products"] * sum(discounts) / best)
        found.append(language["slices"]["all"]["random"])
        expected.append(sum(of_language) / len(of_language))
        assert found[-1] == pytest.approx(expected[-1], rel=0.5)  # 2,400 rankings, most of which find nothing
    assert sum(found) == pytest.approx(sum(expected), rel=0.15)


def test_the_small_data_set_is_neither_trivial_nor_hopeless(built):
    found = {code: language["slices"] for code, language in measure(built, progress=False)["languages"].items()}
    for slices in found.values():
        every = slices["all"]
        assert every["random"] < 5 < 15 < every["words"] < 90
        assert every["trigrams"] > 15
    thai = found["th"]
    assert thai["romanised"]["latin"] == 1.0 and thai["romanised"]["words"] < thai["clean"]["words"]
    assert thai["clean"]["latin"] < 0.3


def test_numbers_do_not_depend_on_the_process(folder):
    code = f"import json; from lira_hf.catalogue.difficulty import measure; print(json.dumps(measure({str(folder)!r}, progress=False)))"
    done = [
        subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True).stdout
        for seed in ("1", "2")
    ]
    assert done[0] == done[1] and json.loads(done[0]) == measure(folder, progress=False)


def test_words_keep_their_marks_and_fold_case():
    assert words("เสื้อยืด สีแดง, XL") == ["เสื้อยืด", "สีแดง", "xl"]
    assert words("লাল জামা!") == ["লাল", "জামা"]


def test_trigrams_fold_case_and_blanks():
    assert trigrams("TV  4k") == [" tv", "tv ", "v 4", " 4k", "4k "]


def test_table_has_a_row_for_each_slice(folder):
    found = measure(folder, progress=False)
    lines = rows_of_table(found)
    assert lines[0] == "| language | slice | queries | characters | Latin letters | random | BM25, words | BM25, 3-grams |"
    assert len(lines) == 2 + 4 and len({line.count("|") for line in lines}) == 1
    assert lines[2].startswith("| Indonesian | all | 4 | ")


def test_a_folder_without_data_is_refused_by_name(tmp_path, folder):
    with pytest.raises(ValueError, match="folder: .*nowhere.* holds no language"):
        measure(tmp_path / "nowhere", progress=False)
    table_path(folder, "id", "-corpus", "test").unlink()
    with pytest.raises(ValueError, match="folder: .* has no rows in id-corpus/test-"):
        measure(folder, progress=False)
    write_table(table_path(folder, "id", "-corpus", "test"), "-corpus", [])
    with pytest.raises(ValueError, match="folder: .* has no rows in id-corpus/test-"):
        measure(folder, progress=False)
    assert pq.read_metadata(table_path(folder, "id", "-corpus", "test")).num_rows == 0
