"""Candidates looked up by text, and what an evaluation keeps on disk."""

import json

import pytest
import torch

from lira_hf.evaluation.finished import Finished, data_digest, weights_digest
from lira_hf.evaluation.translations import Translations, given_candidates, row_of, write_texts
from lira_hf.modeling.processing_lira import Row

MARKS = {"semantic": 9, "emotional": 8, "pragmatic": 7}


def table(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def test_candidates_are_found_by_text_and_language(tmp_path):
    rows = [
        {"text": " ทีวี ", "language": "th", "translations": [{"text": "TV", "source": "a", **MARKS}, "television"]},
        {"text": "ทีวี", "language": "th", "translations": ["TV", "telly"]},
        {"text": "baju", "language": "ms", "translations": ["shirt"]},
        {"text": "baju", "language": "id", "translations": ["clothes"]},
    ]
    found = Translations.open(table(tmp_path / "table.jsonl", rows))
    assert [each["text"] for each in found.of("ทีวี", "th")] == ["TV", "television", "telly"]
    assert found.of("ทีวี", "th")[0]["semantic"] == 9 and found.of("ทีวี", "th")[1]["semantic"] is None
    assert [each["text"] for each in found.of("baju", "id")] == ["clothes"] and found.of("baju", "vi") == []
    assert [each["text"] for each in found.of("ทีวี", None)] == ["TV", "television", "telly"]  # in one language only
    assert found.of("TV", "en") == [] and found.coverage() == {"texts": 4, "translated": 3}  # English needs none
    assert found.lacking == {("vi", "baju")}
    other = Translations.open(table(tmp_path / "other.jsonl", rows[:3]))
    assert found.digest == Translations.open(tmp_path / "table.jsonl").digest != other.digest


def test_a_table_without_candidates_is_refused(tmp_path):
    with pytest.raises(ValueError, match="translations: .* holds no candidate translations"):
        Translations.open(table(tmp_path / "empty.jsonl", [{"text": "ทีวี", "language": "th"}]))
    with pytest.raises(ValueError, match="input: there is no file or folder"):
        Translations.open(tmp_path / "nowhere")
    assert Translations.open(None).of("ทีวี", "th") == []


def test_columns_of_a_data_set_say_one_candidate_or_several():
    assert given_candidates(None) is None and given_candidates("") is None
    assert [each["text"] for each in given_candidates("a red dress")] == ["a red dress"]
    assert given_candidates(json.dumps(["a", {"text": "b", **MARKS}])) == [dict.fromkeys(MARKS) | {"text": "a"}, {"text": "b", **MARKS}]
    with pytest.raises(ValueError, match="translations: .* is not JSON"):
        given_candidates("[1, ")


def test_rows_are_those_of_the_processor(processor):
    given = [{"text": "TV", **MARKS}, {"text": "telly"}]
    assert [row_of("ทีวี", "th", given)] == processor.check(["ทีวี"], [["TV", "telly"]], [[(9, 8, 7), None]], "th")
    assert [row_of("TV", "en", [])] == processor.check(["TV"], None, None, "en") == [Row(None, ["TV"], [None], "en")]
    assert [row_of("baju", None, [])] == processor.check(["baju"])
    with pytest.raises(ValueError, match="scores"):
        row_of("ทีวี", "th", [{"text": "TV", **MARKS, "semantic": 99}])


def test_texts_are_written_once_and_english_ones_not_at_all(tmp_path):
    assert write_texts(tmp_path / "texts.jsonl", [("th", "ทีวี"), ("en", "TV"), ("th", "ทีวี"), ("ms", " "), ("ms", "baju")]) == 2
    lines = [json.loads(line) for line in (tmp_path / "texts.jsonl").read_text().splitlines()]
    assert lines == [{"text": "ทีวี", "language": "th"}, {"text": "baju", "language": "ms"}]


def test_results_are_found_again_under_the_same_key_only(tmp_path, capsys):
    finished = Finished(tmp_path)
    key = {"system": "lira", "part": "th", "weights": "abc"}
    assert finished.get(key, lambda: {"q": 1.5}) == {"q": 1.5} and not finished.used
    finished.say()
    assert capsys.readouterr().out == ""
    assert finished.has(key) and finished.get(key, lambda: pytest.fail("worked twice")) == {"q": 1.5}
    assert finished.get({**key, "weights": "abd"}, lambda: 2) == 2
    finished.say()
    assert capsys.readouterr().out.startswith("1 of 3 results are from")


def test_digests_follow_weights_settings_and_files(tmp_path):
    layer = torch.nn.Linear(2, 2)
    before = weights_digest([layer], (), "setting")
    assert before == weights_digest([layer], (), "setting") != weights_digest([layer], (), "other")
    with torch.no_grad():
        layer.weight[0, 0] += 1e-6 + layer.weight[0, 0].abs() * 1e-6
    assert weights_digest([layer], (), "setting") != before
    (tmp_path / "a").write_text("x")
    first = data_digest(tmp_path)
    (tmp_path / "a").write_text("y")
    second = data_digest(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    assert len({first, second, data_digest(tmp_path)}) == 3
