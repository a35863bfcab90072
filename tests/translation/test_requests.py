"""Inputs: data sets and table files; and results that take their place whole."""

import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lira_hf.translation.placing import recover, replacing
from lira_hf.translation.records import key_of
from lira_hf.translation.requests import DataFolder, TableFile, open_input

ROWS = [("7", "ทีวี 55 นิ้ว", "th"), ("8", 'two\nlines, "quoted"', "bn"), ("9", "", "th")]


class Marked:
    """A result that says of each text that it was here."""

    def __call__(self, rows):
        scores = dict.fromkeys(("semantic", "emotional", "pragmatic"))
        return [[{"text": f"was here: {row.text}", "source": "me", **scores}] for row in rows]

    def note(self):
        return {"th": {"candidates": {"me": 3}, "judges": []}}


def rows_of(source):
    return [row for part in source.parts for batch in source.batches(part) for row in batch]


def write(path, rows=ROWS, header=("id", "text", "language")):
    """A table file of the kind that the name of `path` says."""
    if path.name.endswith(".parquet"):
        pq.write_table(pa.table({name: [row[i] for row in rows] for i, name in enumerate(header)}), path)
        return path
    if ".jsonl" in path.name:
        text = "".join(json.dumps(dict(zip(header, row, strict=True))) + "\n" for row in rows)
    else:
        quoted = lambda cell: '"' + cell.replace('"', '""') + '"'  # noqa: E731
        delimiter = "\t" if ".tsv" in path.name else ","
        text = "".join(delimiter.join(map(quoted, row)) + "\r\n" for row in (header, *rows))
    content = b"\xef\xbb\xbf" + text.encode()
    path.write_bytes(gzip.compress(content) if path.name.endswith(".gz") else content)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small data set of two languages; tests only read it."""
    from lira_hf.catalogue import build

    return build(tmp_path_factory.mktemp("laz") / "small", languages=["th", "id"], progress=False)


def test_keys_are_addresses_of_content():
    assert key_of("th", "ทีวี") == hashlib.sha256("th\nทีวี".encode()).hexdigest()
    assert key_of("th", "a") != key_of("bn", "a")


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.jsonl", "t.csv.gz", "t.tsv.gz", "t.jsonl.gz", "t.parquet"])
def test_every_kind_of_table_says_the_same(tmp_path, name):
    source = open_input(write(tmp_path / name))
    assert isinstance(source, TableFile)
    assert source.count() == 3
    assert [(row.text, row.language) for row in rows_of(source)] == [row[1:] for row in ROWS]
    written = pq.read_table(source.write(tmp_path / "out", Marked())).to_pylist()
    assert [(row["id"], row["text"], row["language"]) for row in written] == ROWS
    assert written[0]["translations"] == [{"text": "was here: ทีวี 55 นิ้ว", "source": "me", "semantic": None, "emotional": None, "pragmatic": None}]


def test_rows_without_an_id_are_numbered_and_chosen_languages_alone_are_filled(tmp_path):
    source = open_input(write(tmp_path / "t.csv", [row[1:] for row in ROWS], ("text", "language")), ["bn"])
    assert source.count() == 1
    written = pq.read_table(source.write(tmp_path / "out", Marked())).to_pylist()
    assert [row["id"] for row in written] == ["1", "2", "3"]
    assert [len(row["translations"]) for row in written] == [0, 1, 0]


def test_translations_of_a_table_are_read_as_texts_or_objects(tmp_path):
    lines = [{"text": "x", "language": "th", "translations": ["a", {"text": "b", "source": "s"}]}, {"text": "y", "language": "th"}]
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    first, second = rows_of(open_input(path))
    assert [(c["text"], c["source"], c["semantic"]) for c in first.candidates] == [("a", "", None), ("b", "s", None)]
    assert second.candidates == ()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "text,language\nx,th\ny\n", "row 2 has 1 cells, the header has 2"),
        ("t.csv", "text,lang\nx,th\n", "row 1 has no 'language', only text, lang"),
        ("t.csv", "text,language\nx,\n", "row 1 has an empty language"),
        ("t.csv", "text,language\n", "has no rows"),
        ("t.csv", b"text,language\n\xff,th\n", "utf-8"),
        ("t.csv", 'text,language\n"x,th\n', "unexpected end of data"),
        ("t.jsonl", '{"text": "x", "language": "th"}\n{"text"\n', "line 2: not JSON"),
        ("t.jsonl", "[1]\n", "line 1: no JSON object"),
        ("t.jsonl", '{"text": "x", "language": "th", "translations": [3]}', r"row 1 has translations \[3\]"),
        ("t.parquet", "no such thing", "t.parquet"),
        ("t.csv.gz", b"\x1f\x8b\x08\x00", "end-of-stream"),
        ("t.xlsx", "x", "allowed are .csv"),
    ],
)
def test_a_wrong_table_is_named_at_once(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message) as caught:
        open_input(path)
    assert str(path) in str(caught.value) or path.name in str(caught.value)


def test_inputs_that_are_not_there_are_named(tmp_path, folder):
    with pytest.raises(ValueError, match="no file or folder"):
        open_input(tmp_path / "nothing")
    with pytest.raises(ValueError, match="holds no tables"):
        open_input(tmp_path)
    with pytest.raises(ValueError, match="languages: 'bn' is not in .*; there are id, th"):
        open_input(folder, ["bn"])
    with pytest.raises(ValueError, match="languages: 'vi' is in no row"):
        open_input(write(tmp_path / "t.csv"), ["vi"])


def test_a_data_set_gives_queries_and_products_of_every_split(folder):
    source = open_input(folder)
    assert isinstance(source, DataFolder)
    assert source.parts == ["id", "th"]
    rows = rows_of(source)
    expected = []
    for code in source.parts:
        for suffix in ("", "-corpus"):
            for path in sorted((folder / f"{code}{suffix}").glob("*")):
                for row in pq.read_table(path).to_pylist():
                    expected.append((row["query"] if not suffix else " ".join(filter(None, (row["title"], row["text"]))), code, row["translations"]))
    assert [(row.text, row.language, list(row.candidates)) for row in rows] == expected
    assert source.count() == len(rows)
    products = [row for code in source.parts for path in (folder / f"{code}-corpus").glob("*") for row in pq.read_table(path).to_pylist()]
    assert source.brands() == {row["brand"] for row in products}


def test_the_result_differs_from_the_data_set_in_its_translations_alone(folder, tmp_path):
    data = open_input(folder, ["th"]).write(tmp_path, Marked())
    for path in sorted(folder.rglob("*.parquet")):
        before, after = pq.read_table(path), pq.read_table(data / path.relative_to(folder))
        assert before.drop_columns("translations" if "translations" in before.column_names else []).equals(
            after.drop_columns("translations" if "translations" in after.column_names else [])
        )
        assert before.schema.equals(after.schema)
        if path.parent.name in ("th", "th-corpus"):
            assert all(len(row) == 1 and row[0]["source"] == "me" for row in after["translations"].to_pylist())
        else:
            assert before.equals(after)
    record = json.loads((data / "build.json").read_text())
    assert record["translations"] == Marked().note()
    assert "desk" not in record
    card = (data / "README.md").read_text()
    assert "- th: 3 by `me`; scored by nobody" in card
    again = open_input(tmp_path, ["th"]).write(tmp_path, Marked())
    assert (again / "README.md").read_text() == card


def test_shards_of_any_number_keep_their_names(folder, tmp_path):
    several = tmp_path / "several"
    shutil.copytree(folder, several)
    path = several / "th" / "train-00000-of-00001.parquet"
    table = pq.read_table(path)
    path.unlink()
    for number in range(3):
        pq.write_table(table.slice(number * 400, 400), several / "th" / f"train-{number:05d}-of-00003.parquet")
    data = open_input(several).write(tmp_path / "out", Marked())
    assert sorted(p.name for p in (data / "th").glob("train*")) == [f"train-{number:05d}-of-00003.parquet" for number in range(3)]


def killed_while_replacing(target, renames):
    """A process that put a new folder in the place of `target` and was killed after so many renames."""
    program = """
import os, pathlib, signal, sys
from lira_hf.translation import placing
left, rename, replace = [int(sys.argv[2])], os.rename, os.replace
def counting(call):
    def counted(*paths):
        if not left[0]: os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        call(*paths)
    return counted
os.rename, os.replace = counting(rename), counting(replace)
with placing.replacing(pathlib.Path(sys.argv[1]), folder=True) as part:
    (part / "content").write_text("new")
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", program, str(target), str(renames)]).returncode == -9


@pytest.mark.parametrize(("renames", "expected"), [(0, "old"), (1, "new"), (2, "new"), (3, "new")])
def test_a_kill_while_a_folder_is_replaced_leaves_the_old_or_the_new(tmp_path, renames, expected, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    target = tmp_path / "data"
    target.mkdir()
    (target / "content").write_text("old")
    killed_while_replacing(target, renames)
    recover(target)
    assert (target / "content").read_text() == expected
    with replacing(target, folder=True) as part:
        (part / "content").write_text("newest")
    assert (target / "content").read_text() == "newest"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "data"]


def test_a_failure_while_a_folder_is_written_leaves_the_old(tmp_path):
    (tmp_path / "data").mkdir()
    with pytest.raises(RuntimeError), replacing(tmp_path / "data", folder=True):
        raise RuntimeError
    assert (tmp_path / "data").is_dir()
