"""The Parquet tables: two ways to write them that agree, and what is read back is what was written."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lira_hf.catalogue import tables
from lira_hf.catalogue.candidates import AXES, Candidate
from lira_hf.catalogue.tables import COLUMNS, TRANSLATION, by_column, named, qrels_of, read_rows, table_path, write_columns, write_table

SUFFIXES = list(COLUMNS)
TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
CANDIDATES = st.lists(st.builds(Candidate, TEXT, TEXT, *[st.integers(1, 10)] * 3), max_size=4)


def _values(kind):
    """Values of a column as `write_columns` takes them."""
    if kind == [TRANSLATION]:
        return CANDIDATES
    if isinstance(kind, list):
        return st.lists(_values(kind[0]), max_size=4)
    return {"string": TEXT, "int32": st.integers(0, 3)}[kind]


def _as_dicts(suffix, rows):
    """The same rows as `write_table` takes them and `read_rows` gives them."""
    found = [dict(zip(COLUMNS[suffix], row, strict=True)) for row in rows]
    for row in found:
        if "translations" in row:
            row["translations"] = [candidate._asdict() for candidate in row["translations"]]
    return found


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_columns_and_rows_give_the_same_file(suffix, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    by_rows, by_columns = (table_path(folder / name, "th", suffix, "test") for name in ("rows", "columns"))

    @settings(max_examples=60, deadline=None)
    @given(rows=st.lists(st.tuples(*map(_values, COLUMNS[suffix].values())), max_size=6))
    def check(rows):
        dicts = _as_dicts(suffix, rows)
        assert write_table(by_rows, suffix, dicts) == write_columns(by_columns, suffix, by_column(suffix, rows)) == len(rows)
        one, other = pq.read_table(by_rows), pq.read_table(by_columns)
        assert one.equals(other) and one.schema.equals(other.schema, check_metadata=True)
        assert by_rows.read_bytes() == by_columns.read_bytes()
        assert other.to_pylist() == dicts
        if rows:
            assert read_rows(folder / "columns", "th", suffix, "test") == (len(rows), dicts)

    check()


def test_a_candidate_has_the_fields_of_the_column():
    assert tuple(TRANSLATION) == Candidate._fields == ("text", "source", *AXES)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_table_without_rows_has_its_columns(suffix, tmp_path):
    path = table_path(tmp_path, "th", suffix, "test")
    assert write_columns(path, suffix, by_column(suffix, [])) == 0
    assert pq.read_schema(path).names == list(COLUMNS[suffix])


def test_paths_are_those_that_datasets_and_mteb_look_for(tmp_path):
    assert table_path(tmp_path, "th", "", "train") == tmp_path / "th" / "train-00000-of-00001.parquet"
    assert table_path(tmp_path, "th", "-corpus", "test", 2, 13) == tmp_path / "th-corpus" / "test-00002-of-00013.parquet"


def test_columns_must_be_of_one_length():
    with pytest.raises(ValueError, match="zip"):
        by_column("-queries", [("q0", "text"), ("q1",)])


@given(lists=st.lists(st.lists(st.integers(0, 4), max_size=4), max_size=6))
def test_numbers_get_their_names(lists):
    ids = ["a", "b", "c", "d", "ß"]
    found = named(ids, lists)
    assert found.to_pylist() == [[ids[number] for number in numbers] for numbers in lists]
    assert found.type == pa.list_(pa.string())


@given(judged=st.lists(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), max_size=4), max_size=6))
def test_qrels_say_what_the_rows_say(judged):
    columns = {
        "query_id": [f"q{place}" for place in range(len(judged))],
        "product_ids": named(list("abcde"), [[number for number, _ in row] for row in judged]),
        "relevances": [[score for _, score in row] for row in judged],
    }
    found = qrels_of(columns)
    assert list(found) == list(COLUMNS["-qrels"])
    rows = list(zip(*(found[name].to_pylist() for name in COLUMNS["-qrels"]), strict=True))
    assert rows == [(f"q{place}", "abcde"[number], score) for place, row in enumerate(judged) for number, score in row]


def _write_shards(folder, sizes):
    """Queries q0, q1, ... in shards of these sizes."""
    numbers = iter(range(sum(sizes)))
    for shard, size in enumerate(sizes):
        rows = [(f"q{number}", f"text {number}") for _, number in zip(range(size), numbers, strict=False)]
        write_columns(table_path(folder, "th", "-queries", "test", shard, len(sizes)), "-queries", by_column("-queries", rows))


def test_shards_are_read_in_order_as_one_table(tmp_path):
    _write_shards(tmp_path, [3, 0, *[1] * 10, 4])
    total, rows = read_rows(tmp_path, "th", "-queries", "test")
    assert total == 17 and [row["_id"] for row in rows] == [f"q{number}" for number in range(17)]
    assert all(row["text"] == f"text {row['_id'][1:]}" for row in rows)


@pytest.mark.parametrize("limit", [1, 3, 4, 7, 100])
def test_only_so_many_rows_are_read(limit, tmp_path):
    _write_shards(tmp_path, [3, 4])
    total, rows = read_rows(tmp_path, "th", "-queries", "test", ["_id"], limit)
    assert total == 7 and rows == [{"_id": f"q{number}"} for number in range(min(limit, 7))]


def test_a_folder_without_rows_is_named(tmp_path):
    for sizes in ([], [0, 0]):
        _write_shards(tmp_path, sizes)
        with pytest.raises(ValueError, match=r"folder: .* has no rows in th-queries/test-\*\.parquet; give a folder of `lira-hf data build`"):
            read_rows(tmp_path, "th", "-queries", "test")


def test_a_table_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    _write_shards(tmp_path, [3])
    path = table_path(tmp_path, "th", "-queries", "test")
    before = path.read_bytes()

    def fail(table, where, **options):
        where.write_bytes(b"half a ta")
        raise OSError("the disk is full")

    monkeypatch.setattr(pq, "write_table", fail)
    with pytest.raises(OSError, match="the disk is full"):
        _write_shards(tmp_path, [4])
    assert path.read_bytes() == before and not list(tmp_path.rglob("*.part*"))[1:]
    monkeypatch.undo()
    _write_shards(tmp_path, [4])  # and what is left of the failure is in nobody's way
    assert read_rows(tmp_path, "th", "-queries", "test")[0] == 4
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_row_groups_are_small_enough_to_stream(tmp_path, monkeypatch):
    monkeypatch.setitem(tables.GROUP_ROWS, "-queries", 4)
    _write_shards(tmp_path, [10])
    metadata = pq.read_metadata(table_path(tmp_path, "th", "-queries", "test"))
    assert [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)] == [4, 4, 2]
    assert tables.GROUP_ROWS.keys() == COLUMNS.keys() and tables.GROUP_ROWS[""] <= 5000
