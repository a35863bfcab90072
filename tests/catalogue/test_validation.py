"""Every kind of damage, planted alone in a copy of one small sound set: the report names it, and nothing beside it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from lira_hf.catalogue import build
from lira_hf.catalogue.rows import SIZES, Extent, Size
from lira_hf.catalogue.tables import COLUMNS, write_table
from lira_hf.catalogue.validation import KINDS, Damage, render_report, validate

ONE = "00000-of-00001.parquet"
SPLITS = ("train", "validation", "test")


class Set:
    """A data set folder that a test may damage."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, where: str) -> Path:
        return self.root / f"{where}-{ONE}"

    def table(self, where: str, change: Callable[[pa.Table], pa.Table]) -> None:
        pq.write_table(change(pq.read_table(self.path(where), partitioning=None)), self.path(where))

    def rows(self, where: str, change: Callable[[list[dict[str, Any]]], Any]) -> None:
        """Rewrites a table after change(its rows), with the columns and types it should have."""
        rows = pq.read_table(self.path(where), partitioning=None).to_pylist()
        change(rows)
        config = where.split("/")[0]
        write_table(self.path(where), config[config.index("-") :] if "-" in config else "", rows)

    def value(self, where: str, column: str, value: Any, row: int = 3) -> None:
        self.rows(where, lambda rows: rows[row].update({column: value(rows[row][column]) if callable(value) else value}))

    def text(self, name: str, old: str, new: str) -> None:
        text = (self.root / name).read_text(encoding="utf-8")
        assert old in text
        (self.root / name).write_text(text.replace(old, new, 1), encoding="utf-8")

    def record(self, change: Callable[[dict[str, Any]], Any]) -> None:
        record = json.loads((self.root / "build.json").read_text())
        change(record)
        (self.root / "build.json").write_text(json.dumps(record))

    def seal(self) -> None:
        """Makes the checksums right again, so that damage is found by its own check."""
        files = [path for path in self.root.rglob("*") if path.is_file() and path.name != "build.json"]
        hashes = {path.relative_to(self.root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
        self.record(lambda record: record.update(sha256=hashes))


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A set of two languages, smaller than any that users build."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "tiny", Size(Extent(40, 1, 2), Extent(12, 1, 2), Extent(20, 1, 2), types=60))
        yield build(tmp_path_factory.mktemp("laz") / "tiny", "tiny", ["th", "id"], progress=False)


@pytest.fixture
def copy(sound: Path, tmp_path: Path) -> Set:
    return Set(Path(shutil.copytree(sound, tmp_path / "set")))


def kinds(damages: list[Damage]) -> set[str]:
    return {damage.kind for damage in damages}


def imported(data: Set) -> None:
    """Makes of a built set what an import gives: no record, no intents, no translations, no clean text."""
    (data.root / "build.json").unlink()
    (data.root / "README.md").write_text((data.root / "README.md").read_text(encoding="utf-8").split("\n# LazRetrieval")[0], encoding="utf-8")
    for code in ("th", "id"):
        for split in SPLITS:
            data.rows(f"{code}-corpus/{split}", lambda rows: [row.update(english="", translations=[], family_id=row["_id"]) for row in rows])
            blank = {"english": "", "translations": [], "intent": "" if code == "th" else None, "slice": ["imported"]}
            data.rows(f"{code}/{split}", lambda rows, blank=blank: [row.update(blank) for row in rows])
            data.table(f"{code}/{split}", lambda table: table.drop_columns(["clean"]))


def resharded(data: Set, where: str, count: int) -> None:
    table = pq.read_table(data.path(where), partitioning=None)
    size = -(-table.num_rows // count)
    data.path(where).unlink()
    for number in range(count):
        pq.write_table(table.slice(number * size, size), data.root / f"{where}-{number:05d}-of-{count:05d}.parquet", row_group_size=7)


def test_a_sound_set_has_no_damage(sound):
    assert validate(sound, progress=False) == []


def test_shards_and_row_groups_make_no_difference(copy):
    for suffix in COLUMNS:
        resharded(copy, f"th{suffix}/train", 3)
    copy.seal()
    assert validate(copy.root, progress=False) == []


def test_an_imported_set_may_lack_what_only_the_builder_knows(copy):
    imported(copy)
    assert validate(copy.root, progress=False) == []


def test_an_imported_set_may_lack_a_split_that_its_record_does_not_count(copy):
    imported(copy)
    for suffix in COLUMNS:
        copy.path(f"id{suffix}/validation").unlink()
    copy.text("README.md", "  - split: validation\n    path: id/validation-*.parquet\n", "")
    for suffix in ("-corpus", "-queries", "-qrels"):
        copy.text("README.md", f"  - split: validation\n    path: id{suffix}/validation-*.parquet\n", "")
    assert kinds(validate(copy.root, progress=False)) == {"missing-split"}  # nothing says that it may be missing
    counts = {code: {split: {} for split in SPLITS} for code in ("th", "id")}
    (copy.root / "build.json").write_text(json.dumps({"size": "imported", "counts": counts}))
    assert kinds(validate(copy.root, progress=False)) == {"missing-split"}
    copy.record(lambda record: record["counts"]["id"].pop("validation"))
    assert validate(copy.root, progress=False) == []
    copy.path("id-qrels/test").rename(copy.path("id-qrels/validation"))  # one table of the split is there, so all must be
    assert {(damage.kind, damage.where) for damage in validate(copy.root, progress=False) if damage.kind == "missing-split"} == {
        ("missing-split", f"id{place}") for place in ("/validation", "-corpus/validation", "-queries/validation", "-qrels/test")
    }


def test_the_order_of_columns_and_of_judgements_makes_no_difference(copy):
    for suffix, columns in COLUMNS.items():
        copy.table(f"th{suffix}/test", lambda table, columns=columns: table.select(list(reversed(columns))))
    copy.table("th-qrels/test", lambda table: table.take(list(reversed(range(table.num_rows)))))
    copy.seal()
    assert validate(copy.root, progress=False) == []


@pytest.mark.parametrize("name", ["nothing", "empty", "file"])
def test_what_is_no_data_set_is_refused(tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("th")
    with pytest.raises(ValueError, match="folder: .* is no data set"):
        validate(tmp_path / name, progress=False)


# --- planted damage: each function plants one, and stands beside the kinds that the report must name ------------------


def both(data: Set, change: Callable[[list[str], list[int]], Any], split: str = "test", row: int = 3) -> None:
    """Changes the judgements of one query in the rows and in the qrels alike."""
    judged: dict[str, Any] = {}

    def in_rows(rows: list[dict[str, Any]]) -> None:
        change(rows[row]["product_ids"], rows[row]["relevances"])
        judged.update(rows[row])

    def in_qrels(rows: list[dict[str, Any]]) -> None:
        rows[:] = [one for one in rows if one["query-id"] != judged["query_id"]]
        pairs = zip(judged["product_ids"], judged["relevances"], strict=True)
        rows += [{"query-id": judged["query_id"], "corpus-id": product, "score": score} for product, score in pairs]

    data.rows(f"th/{split}", in_rows)
    data.rows(f"th-qrels/{split}", in_qrels)


def query(data: Set, text: str, script: str = "Thai") -> None:
    data.value("th/test", "query", text)
    data.value("th/test", "script", script)
    data.value("th-queries/test", "text", text)


def candidate(data: Set, where: str, **values: Any) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        next(row for row in rows if len(row["translations"]) > 1)["translations"][0].update(values)

    data.rows(where, change)


def not_utf8(table: pa.Table) -> pa.Table:
    texts = [value.encode() for value in table["brand"].to_pylist()]
    damaged = pa.array([b"\xff\xfe", *texts[1:]], pa.binary())
    return table.set_column(table.column_names.index("brand"), "brand", pa.Array.from_buffers(pa.string(), len(damaged), damaged.buffers()))


def twice_in_rows(rows: list[dict[str, Any]]) -> None:
    rows[5]["product_ids"][0] = rows[5]["product_ids"][1]


def repeated(rows: list[dict[str, Any]]) -> None:
    translations = next(row for row in rows if len(row["translations"]) > 1)["translations"]
    translations[0]["text"] = translations[1]["text"].upper()


def first_of(data: Set, where: str, column: str) -> Any:
    return pq.read_table(data.path(where), partitioning=None)[column][0].as_py()


def reordered(intent: str) -> str:
    value = json.loads(intent)
    return json.dumps({**dict(reversed(value.items())), "wanted": dict(reversed(value["wanted"].items()))}, indent=1)


def leaked_query(data: Set) -> None:
    imported(data)
    text = first_of(data, "th/train", "query")
    for where, column in (("th/test", "query"), ("th-queries/test", "text")):
        data.value(where, column, text.replace(" ", " ").swapcase())
    data.value("th/test", "script", first_of(data, "th/train", "script"))


def leaked_clean(data: Set) -> None:
    """The same wish typed in two ways: only the clean text, of one split, equals the typed one of another."""
    for split in SPLITS:
        data.rows(f"id/{split}", lambda rows: [row.update(intent=None) for row in rows])
    data.value("id/test", "clean", first_of(data, "id/train", "query"))
    (data.root / "build.json").unlink()
    (data.root / "README.md").write_text((data.root / "README.md").read_text(encoding="utf-8").split("\n# LazRetrieval")[0], encoding="utf-8")


def graded(data: Set) -> None:
    for row in range(20):
        both(data, lambda ids, grades: grades.__setitem__(slice(None), [{3: 2, 2: 3}.get(grade, grade) for grade in grades]), row=row)


def few(data: Set) -> None:
    both(data, lambda ids, grades: (ids.__delitem__(slice(19, None)), grades.__delitem__(slice(19, None))))


def numbered(data: Set, number: str) -> None:
    data.path("th/train").rename(data.root / f"th/train-{number}.parquet")


def leftover(data: Set) -> None:
    resharded(data, "th/train", 2)
    shutil.copy(data.root / "th/train-00000-of-00002.parquet", data.path("th/train"))


def with_info(data: Set) -> None:
    info = "dataset_info:\n- config_name: th\n  splits:\n  - name: train\n    num_examples: 41\nconfigs:\n"
    data.text("README.md", "configs:\n", info)


def add_column(table: pa.Table) -> pa.Table:
    return table.append_column("note", pa.array(["x"] * table.num_rows))


def cast(column: str, type_: pa.DataType) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.set_column(table.column_names.index(column), column, pc.cast(table[column], type_))


COUNTED = {"record-counts", "card-counts"}  # what also differs where the number of something changes
PLANTS: dict[str, tuple[Callable[[Set], Any], set[str]]] = {
    # files
    "folder gone": (lambda data: shutil.rmtree(data.root / "th-queries"), {"missing-config", "readme-unknown-config"}),
    "language gone": (
        lambda data: [shutil.rmtree(data.root / f"th{suffix}") for suffix in COLUMNS],
        {"missing-config", "readme-unknown-config"},
    ),
    "split gone": (lambda data: data.path("th-qrels/validation").unlink(), {"missing-split"}),
    "shard gone": (lambda data: (resharded(data, "th/train", 3), (data.root / "th/train-00001-of-00003.parquet").unlink()), {"missing-shard"}),
    "shard numbered past the end": (lambda data: numbered(data, "00001-of-00001"), {"missing-shard", "stray-file"}),
    "shards of an earlier write": (leftover, {"stray-file"}),
    "shard of no split": (lambda data: shutil.copy(data.path("th/test"), data.root / "th" / "dev.parquet"), {"stray-file"}),
    "shard of another name": (lambda data: numbered(data, "all"), {"stray-file", "missing-split"}),
    "not Parquet": (lambda data: data.path("th/test").write_bytes(b"PAR1 but not really"), {"unreadable-shard"}),
    "cut off": (lambda data: data.path("th/test").write_bytes(data.path("th/test").read_bytes()[:-200]), {"unreadable-shard"}),
    "pages overwritten": (
        lambda data: data.path("th-corpus/test").write_bytes(b"PAR1" + b"\0" * 400 + data.path("th-corpus/test").read_bytes()[404:]),
        {"unreadable-shard"},
    ),
    "not UTF-8": (lambda data: data.table("th-corpus/test", not_utf8), {"unreadable-shard"}),
    "no rows": (
        lambda data: [data.table(f"th{suffix}/validation", lambda table: table.slice(0, 0)) for suffix in COLUMNS],
        {"empty-split", *COUNTED},
    ),
    # columns
    "column gone": (lambda data: data.table("th/test", lambda table: table.drop_columns(["english"])), {"missing-column"}),
    "optional column gone from a built set": (lambda data: data.table("th/test", lambda table: table.drop_columns(["clean"])), {"missing-column"}),
    "column too many": (lambda data: data.table("th-corpus/test", add_column), {"extra-column"}),
    "column twice": (lambda data: data.table("th-queries/test", lambda table: table.append_column("text", table["_id"])), {"extra-column"}),
    "column of another type": (lambda data: data.table("th-qrels/test", cast("score", pa.float64())), {"column-type"}),
    "list of another type": (lambda data: data.table("th/test", cast("relevances", pa.list_(pa.string()))), {"column-type"}),
    # ids
    "no product id": (lambda data: data.value("th-corpus/test", "_id", ""), {"empty-id", "dangling-product"}),
    "query id twice": (
        lambda data: data.rows("th/test", lambda rows: rows.append(rows[0])),
        {"duplicate-query", "judgements-differ", *COUNTED},
    ),
    "query id in two splits": (
        lambda data: data.value("th/test", "query_id", "th-q-train-000001"),
        {"duplicate-query", "extra-query", "missing-query", "dangling-query", "judgements-differ"},
    ),
    "query id twice in the queries table": (lambda data: data.rows("th-queries/test", lambda rows: rows.append(rows[0])), {"duplicate-query"}),
    "product id twice": (
        lambda data: data.rows("th-corpus/test", lambda rows: rows.append(rows[0])),
        {"duplicate-product", *COUNTED},
    ),
    "product id in two splits": (
        lambda data: data.value("th-corpus/test", "_id", "th-p-train-000001"),
        {"duplicate-product", "dangling-product"},
    ),
    "product gone": (lambda data: data.rows("th-corpus/test", lambda rows: rows.pop(2)), {"dangling-product", *COUNTED}),
    "product of the rows unknown": (
        lambda data: data.value("th/test", "product_ids", lambda ids: ["nothing", *ids[1:]]),
        {"dangling-product", "judgements-differ"},
    ),
    "product of the qrels unknown": (lambda data: data.value("th-qrels/test", "corpus-id", "nothing"), {"dangling-product", "judgements-differ"}),
    "query of the qrels unknown": (lambda data: data.value("th-qrels/test", "query-id", "nothing"), {"dangling-query", "judgements-differ"}),
    "query of the rows not listed": (lambda data: data.rows("th-queries/test", lambda rows: rows.pop()), {"missing-query"}),
    "query listed without a row": (
        lambda data: data.rows("th-queries/test", lambda rows: rows.append({"_id": "th-q-test-more", "text": "กล่อง"})),
        {"extra-query"},
    ),
    "query worded differently": (lambda data: data.value("th-queries/test", "text", "กล่อง"), {"query-text-differs"}),
    # judgements
    "more products than grades": (
        lambda data: data.value("th/test", "relevances", lambda grades: grades[:-1]),
        {"unpaired-judgements", "judgements-differ", *COUNTED},
    ),
    "grade differs from the qrels": (lambda data: data.value("th-qrels/test", "score", lambda score: 3 - score), {"judgements-differ"}),
    "judgement missing from the qrels": (lambda data: data.rows("th-qrels/test", lambda rows: rows.pop()), {"judgements-differ"}),
    "products of two grades swapped in the qrels": (
        lambda data: data.rows(
            "th-qrels/test", lambda rows: (rows[0].update({"corpus-id": rows[19]["corpus-id"]}), rows[19].update({"corpus-id": rows[0]["corpus-id"]}))
        ),
        {"judgements-differ"},
    ),
    "product judged twice": (lambda data: data.rows("th/test", twice_in_rows), {"judged-twice", "judgements-differ"}),
    "grade of 4": (lambda data: both(data, lambda ids, grades: grades.__setitem__(0, 4)), {"grade-range"}),
    "grade below 0 in the qrels": (lambda data: data.value("th-qrels/test", "score", -1), {"grade-range", "judgements-differ"}),
    "no grade above 0": (lambda data: both(data, lambda ids, grades: grades.__setitem__(slice(None), [0] * len(grades))), {"no-relevant", *COUNTED}),
    "few judgements": (few, {"few-judgements", *COUNTED}),
    "grades against the rule": (graded, {"wrong-grade"}),
    "attributes without an axis": (
        lambda data: data.rows("th-corpus/test", lambda rows: [row.update(attributes="{}") for row in rows]),
        {"wrong-grade"},
    ),
    # texts
    "query empty": (lambda data: query(data, "  "), {"empty-query", "untidy-space"}),
    "query null": (lambda data: data.value("th/test", "query", None), {"empty-query", "query-text-differs"}),
    "title empty": (lambda data: data.value("th-corpus/test", "title", ""), {"empty-title"}),
    "English empty in a built set": (lambda data: data.value("th-corpus/test", "english", ""), {"empty-english"}),
    "language of another": (lambda data: data.value("th/test", "language", "vi"), {"wrong-language"}),
    "script does not fit": (lambda data: query(data, "กล่อง", "Latn"), {"wrong-script"}),
    "script of no letter there": (lambda data: query(data, "klong", "Thai"), {"wrong-script"}),
    "letters of a third script": (lambda data: query(data, "коробка", "Latn"), {"wrong-script"}),
    "no letter and no digit": (lambda data: query(data, "?!", "Latn"), {"wrong-script"}),
    "replacement character": (lambda data: data.value("th-corpus/test", "title", "กล่อง \ufffd"), {"bad-character"}),
    "control character": (lambda data: candidate(data, "th/test", text="a \x07 box"), {"bad-character"}),
    "byte order mark": (lambda data: data.value("th/test", "english", "\ufeffbox"), {"bad-character"}),
    "space doubled": (lambda data: data.value("th-corpus/test", "text", "กล่อง  ใหญ่"), {"untidy-space"}),
    "line break": (lambda data: data.value("th/test", "clean", "กล่อง\nใหญ่"), {"untidy-space"}),
    "space at the end": (lambda data: candidate(data, "th-corpus/test", text="a box\u00a0"), {"untidy-space"}),
    # labels
    "slice empty": (lambda data: data.value("th/test", "slice", []), {"no-slice", *COUNTED}),
    "slice unknown": (lambda data: data.value("th/test", "slice", ["cleen"]), {"bad-slice", *COUNTED}),
    "slice no name in an imported set": (lambda data: (imported(data), data.value("id/test", "slice", ["Not a name"])), {"bad-slice"}),
    "intent not JSON": (lambda data: data.value("th/test", "intent", "{'type': 'box'}"), {"bad-intent"}),
    "intent of an unknown kind": (lambda data: data.value("th/test", "intent", '{"kind": "wish", "type": "box", "wanted": {}}'), {"bad-intent"}),
    "intent without a type": (lambda data: data.value("th/test", "intent", '{"kind": "type", "wanted": {}}'), {"bad-intent"}),
    "intent empty in a built set": (lambda data: data.value("th/test", "intent", ""), {"bad-intent"}),
    "attributes not JSON": (lambda data: data.value("th-corpus/test", "attributes", "colour=red"), {"bad-attributes"}),
    "attributes a list": (lambda data: data.value("th-corpus/test", "attributes", "[]"), {"bad-attributes"}),
    "category empty": (lambda data: data.value("th-corpus/test", "category_path", ""), {"empty-category"}),
    "family empty": (lambda data: data.value("th-corpus/test", "family_id", None), {"empty-family"}),
    "candidate empty": (lambda data: candidate(data, "th/test", text=""), {"empty-candidate"}),
    "candidates alike": (lambda data: data.rows("th/test", repeated), {"repeated-candidate"}),
    "critic's score of 11": (lambda data: candidate(data, "th-corpus/test", emotional=11), {"score-range"}),
    "critic's score missing": (lambda data: candidate(data, "th/test", semantic=None), {"score-range"}),
    # leaks
    "families empty in two splits": (
        lambda data: [data.value(f"th-corpus/{split}", "family_id", "") for split in SPLITS],
        {"empty-family"},
    ),
    "family in two splits": (
        lambda data: data.value("th-corpus/test", "family_id", first_of(data, "th-corpus/train", "family_id")),
        {"leaked-family"},
    ),
    "intent in two splits": (lambda data: data.value("th/test", "intent", reordered(first_of(data, "th/train", "intent"))), {"leaked-intent"}),
    "query in two splits": (leaked_query, {"leaked-query"}),
    "clean text in two splits": (leaked_clean, {"leaked-query"}),
    # README.md
    "README gone": (lambda data: (data.root / "README.md").unlink(), {"missing-readme"}),
    "no configs": (lambda data: data.text("README.md", "configs:", "settings:"), {"readme-configs"}),
    "front matter not YAML": (lambda data: data.text("README.md", "pretty_name: ", "pretty_name: ]"), {"readme-configs"}),
    "front matter with a date that is none": (
        lambda data: data.text("README.md", "pretty_name: ", "made: 2026-02-30\npretty_name: "),
        {"readme-configs"},
    ),
    "config unknown": (
        lambda data: data.text("README.md", "config_name: th-corpus", "config_name: th-korpus"),
        {"readme-unknown-config", "readme-missing-config"},
    ),
    "paths of another split": (lambda data: data.text("README.md", "path: th/test-*.parquet", "path: th/train-*.parquet"), {"readme-files"}),
    "paths of no file": (lambda data: data.text("README.md", "path: th/test-*.parquet", "path: data/th/test-*.parquet"), {"readme-files"}),
    "split not in the config": (
        lambda data: data.text("README.md", "  - split: test\n    path: th/test-*.parquet\n", ""),
        {"readme-files"},
    ),
    "split of the config not there": (
        lambda data: data.text(
            "README.md", "  - split: test\n    path: th/", "  - split: dev\n    path: th/dev-*.parquet\n  - split: test\n    path: th/"
        ),
        {"readme-files"},
    ),
    "README not UTF-8": (
        lambda data: (data.root / "README.md").write_bytes((data.root / "README.md").read_bytes() + b"\xff"),
        {"bad-character"},
    ),
    "dataset_info counts": (with_info, {"readme-info"}),
    "card counts": (lambda data: data.text("README.md", "| Thai | train | 40 |", "| Thai | train | 41 |"), {"card-counts"}),
    "card counts a slice": (lambda data: data.text("README.md", "\n| clean | ", "\n| clean | 9"), {"card-counts"}),
    "card counts what was measured": (lambda data: data.text("README.md", "| Thai | all | 20 |", "| Thai | all | 21 |"), {"card-counts"}),
    "card counts what was measured of a slice": (lambda data: data.text("README.md", "\n| Thai | clean | ", "\n| Thai | clean | 1"), {"card-counts"}),
    # build.json
    "record counts": (lambda data: data.record(lambda record: record["counts"]["th"]["test"].update(queries=21)), {"record-counts"}),
    "record counts no such split": (lambda data: data.record(lambda record: record["counts"]["id"].pop("test")), {"record-counts"}),
}
UNSEALED: dict[str, tuple[Callable[[Set], Any], set[str]]] = {
    "record gone": (lambda data: (data.root / "build.json").unlink(), {"missing-record"}),
    "record not JSON": (lambda data: (data.root / "build.json").write_text("{"), {"bad-record"}),
    "record of another shape": (lambda data: data.record(lambda record: record.update(sha256=[])), {"bad-record"}),
    "record of an unknown language": (lambda data: data.record(lambda record: record["languages"].append("xx")), {"bad-record"}),
    "file changed": (lambda data: data.text("README.md", "# LazRetrieval", "# LazRetrieval!"), {"checksum"}),
    "file listed and gone": (lambda data: data.record(lambda record: record["sha256"].update({"LICENSE": "0" * 64})), {"missing-file"}),
    "file not listed": (lambda data: (data.root / "notes.txt").write_text("x"), {"unlisted-file"}),
}


@pytest.mark.parametrize("name", PLANTS)
def test_planted_damage_is_found_by_its_own_check(copy, name):
    plant, expected = PLANTS[name]
    plant(copy)
    if (copy.root / "build.json").exists():
        copy.seal()
    beside = {"wrong-grade"} - expected  # a judgement or an intent that was changed may break the rule too
    assert kinds(validate(copy.root, progress=False)) - beside == expected


@pytest.mark.parametrize("name", UNSEALED)
def test_damage_of_the_record_is_found(copy, name):
    plant, expected = UNSEALED[name]
    plant(copy)
    assert kinds(validate(copy.root, progress=False)) == expected


def test_every_kind_of_damage_is_planted():
    assert set().union(*(expected for _, expected in (PLANTS | UNSEALED).values())) == set(KINDS)


def test_an_unchanged_list_of_files_does_not_hide_a_change_in_one(copy):
    copy.value("th/test", "english", "a box")
    assert [(damage.kind, damage.where) for damage in validate(copy.root, progress=False)] == [("checksum", f"th/test-{ONE}")]


def test_the_report_says_where_how_often_and_names_an_example(copy):
    copy.rows("th/test", lambda rows: [row.update(language="vi") for row in rows])
    copy.value("id-corpus/train", "title", "", row=2)
    copy.seal()
    damages = validate(copy.root, progress=False)
    assert [(damage.kind, damage.where) for damage in damages] == [("empty-title", "id-corpus/train"), ("wrong-language", "th/test")]
    assert render_report(damages) == [
        f"empty-title: {KINDS['empty-title']}",
        "  id-corpus/train: id-p-train-000002",
        f"wrong-language: {KINDS['wrong-language']}",
        "  th/test: 20 times, such as th-q-test-000000: 'vi'",
        "2 damages of 2 kinds",
    ]
    assert render_report([]) == ["no damage found"]


def test_damage_in_a_later_shard_is_found_and_named(copy):
    copy.value("th/train", "query_id", "th-q-train-000001", row=30)
    resharded(copy, "th/train", 3)
    copy.seal()
    damages = {damage.kind: damage for damage in validate(copy.root, progress=False)}
    assert damages["duplicate-query"] == Damage("duplicate-query", "th", "'th-q-train-000001' stands 2 times")
    assert damages["extra-query"].detail == "th-q-train-000030"
