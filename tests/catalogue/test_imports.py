"""Imports of small files in the forms in which shops and public sets hold their data."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import random
from pathlib import Path

import pandas as pd
import pytest
from datasets import load_dataset

from lira_hf.catalogue.imports import import_shop
from lira_hf.catalogue.imports.reading import CELL
from lira_hf.catalogue.imports.report import LISTED
from lira_hf.catalogue.imports.splitting import spelling
from lira_hf.catalogue.imports.tidying import attributes, tidy
from lira_hf.catalogue.splits import SPLITS
from lira_hf.catalogue.tables import COLUMNS
from lira_hf.catalogue.validation import render_report, validate
from lira_hf.collation import RetrievalData, read
from lira_hf.hub.datasets import check_folder

COLOURS = ("แดง", "ดำ", "ขาว", "ฟ้า", "เขียว", "ชมพู")
THINGS = ("เสื้อ", "รองเท้า", "กระเป๋า", "หมวก", "กางเกง", "ผ้าห่ม", "แก้ว", "จาน", "โคมไฟ", "นาฬิกา")


def shop(output: Path, *files, **options):
    return import_shop(*files, options.pop("language", "th"), output, progress=False, **options)


def table(path: Path, rows: list[dict], delimiter: str = ",") -> Path:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path.write_bytes(gzip.compress(text.getvalue().encode()) if path.suffix == ".gz" else text.getvalue().encode())
    return path


def lines(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def plain(queries: int = 60, products: int = 150, judged: int = 5) -> tuple[list[dict], list[dict], list[dict]]:
    """Products, queries and judgements of a shop, the first judgement of each query 3; some products are judged for many queries."""
    rng = random.Random(3)
    goods = [{"id": f"p{i}", "title": f"{THINGS[i % 10]} สี{COLOURS[i % 6]} {i}"} for i in range(products)]
    asked = [{"id": f"q{i}", "text": f"{THINGS[i % 10]} {COLOURS[i // 10]}"} for i in range(queries)]
    graded = [
        {"query_id": query["id"], "product_id": f"p{product}", "grade": 3 if not place else rng.randrange(4)}
        for query in asked
        for place, product in enumerate(rng.sample(range(products // 2), judged))
    ]
    return goods, asked, graded


def plain_files(folder: Path, queries: list[dict] = (), products: list[dict] = (), judgements: list[dict] = ()) -> tuple[Path, Path, Path]:
    """The plain shop as JSONL files, with more rows at the end of each."""
    goods, asked, graded = plain()
    return (
        lines(folder / "products.jsonl", [*goods, *products]),
        lines(folder / "queries.jsonl", [*asked, *queries]),
        lines(folder / "judgements.jsonl", [*graded, *judgements]),
    )


def opened(output: Path, language: str = "th") -> dict[str, RetrievalData]:
    return {split: read(output, language, split) for split in SPLITS if (output / language / f"{split}-00000-of-00001.parquet").exists()}


def grades(output: Path, language: str = "th") -> dict[tuple[str, str], int]:
    parts = opened(output, language).values()
    return {(query.id, product): grade for part in parts for query in part.queries for product, grade in query.judged.items()}


def counts(report) -> dict[str, dict[str, int]]:
    return {kind: {reason: found["count"] for reason, found in reasons.items()} for kind, reasons in report.refused.items()}


CROSSED = "its product is in the corpus of another split"


def without_crossed(report) -> dict[str, dict[str, int]]:
    """Refusals, but for those that the split of the products causes."""
    found = counts(report)
    found.get("judgements", {}).pop(CROSSED, None)
    found.get("judgements", {}).pop("its query was refused", None)
    found.get("queries", {}).pop("its relevant products are in the corpus of another split", None)
    return {kind: reasons for kind, reasons in found.items() if reasons}


@pytest.fixture(scope="module")
def esci(tmp_path_factory) -> tuple[Path, Path]:
    """products.parquet and examples.parquet with ESCI's columns: two locales, and trouble in one row each."""
    folder = tmp_path_factory.mktemp("esci")
    products, examples = [], []
    for locale in ("th", "us"):
        for i in range(80):
            products.append(
                {
                    "product_id": f"B{i:03d}",
                    "product_title": f"<b>{THINGS[i % 10]}</b>ผ้า &amp; {i}" if locale == "th" else f"thing {i}",
                    "product_description": None if i % 2 else "<p>นุ่ม</p><p>เบา</p>",
                    "product_bullet_point": "ซักง่าย\nแห้งไว",
                    "product_brand": "Velunta",
                    "product_color": COLOURS[i % 6] if i % 3 else None,
                    "product_locale": locale,
                }
            )
        for q in range(40):
            for k, label in enumerate(("E", "Substitute", "C", "I")):
                examples.append(
                    {
                        "example_id": len(examples),
                        "query": f"{THINGS[q % 10]} {q // 10}",
                        "query_id": q,
                        "product_id": f"B{(2 * q + k * 7) % 80:03d}",
                        "product_locale": locale,
                        "esci_label": label,
                        "small_version": 1,
                        "large_version": 1,
                        "split": "test" if q % 4 == 0 else "train",
                    }
                )
    extra = {"example_id": 9000, "product_locale": "th", "small_version": 0, "large_version": 1, "split": "train"}
    examples += [
        {**extra, "query": "หมวก 9", "query_id": 900, "product_id": "B001", "esci_label": "X"},  # an unknown label
        {**extra, "query": "", "query_id": 901, "product_id": "B001", "esci_label": "E"},
        {**extra, "query": "จาน 9", "query_id": 902, "product_id": "GONE", "esci_label": "E"},
        {**extra, "query": "แก้ว 9", "query_id": 903, "product_id": "B002", "esci_label": "I"},  # nothing relevant
    ]
    products += [{**products[0], "product_title": "อีกครั้ง"}, {**products[0], "product_id": "EMPTY", "product_title": "<br>"}]
    pd.DataFrame(products).to_parquet(folder / "products.parquet")
    pd.DataFrame(examples).to_parquet(folder / "examples.parquet")
    return folder / "products.parquet", folder / "examples.parquet"


@pytest.fixture(scope="module")
def imported(esci, tmp_path_factory):
    """The report of the ESCI-like files."""
    return shop(tmp_path_factory.mktemp("imported") / "shop", esci[0], esci[1], esci[1], locale="th")


def test_esci_labels_become_grades(imported):
    found = grades(imported.output)
    expected = {(str(q), f"B{(2 * q + k * 7) % 80:03d}"): 3 - k for q in range(40) for k in range(4)}
    assert found.items() <= expected.items()
    # What is missing crossed from one split to another, or went with a query that lost all its relevant products so.
    gone = counts(imported)["judgements"]
    assert len(expected) - len(found) == gone[CROSSED] + gone.get("its query was refused", 0) - 1  # the one of query 903


def test_esci_rows_are_cleaned(imported):
    products = {key: product for part in opened(imported.output).values() for key, product in part.products.items()}
    assert len(products) == 80
    assert products["B000"].title == "เสื้อผ้า & 0"
    assert products["B000"].row.text == "เสื้อผ้า & 0 นุ่ม เบา ซักง่าย แห้งไว"
    corpus = {row["_id"]: row for split in SPLITS for row in load_dataset(str(imported.output), "th-corpus", split=split)}
    assert corpus["B001"]["brand"] == "Velunta"
    assert json.loads(corpus["B001"]["attributes"]) == {"colour": "ดำ"}
    assert json.loads(corpus["B000"]["attributes"]) == {}


def test_esci_refusals_are_counted_and_shown(imported):
    assert without_crossed(imported) == {
        "products": {"another locale": 80, "empty title": 1, "id used before (the first is kept)": 1},
        "judgements": {
            "another locale": 160,
            "its query is missing or was refused": 1,
            "its product is missing or was refused": 1,
            "unknown grade": 1,
        },
        "queries": {"empty query": 1, "no relevant product": 3},
    }
    assert imported.refused["judgements"]["unknown grade"]["examples"][0]["grade"] == "X"
    assert "1 × unknown grade" in str(imported)


def test_the_given_test_split_is_kept_and_validation_is_cut_from_train(imported):
    parts = opened(imported.output)
    assert {int(query.id) for query in parts["test"].queries} == set(range(0, 40, 4))
    assert parts["validation"].queries
    assert any("validation cut from train" in note for note in imported.notes)


def test_the_report_in_the_folder_says_the_same(imported):
    record = json.loads((imported.output / "import.json").read_text())
    assert record["refused"] == imported.refused
    assert record["counts"] == imported.counts
    listed = [json.loads(line) for line in (imported.output / "refused.jsonl").read_text().splitlines()]
    sizes = {(kind, reason): count for kind, reasons in counts(imported).items() for reason, count in reasons.items()}
    assert {key: sum((row["kind"], row["reason"]) == key for row in listed) for key in sizes} == {key: min(LISTED, n) for key, n in sizes.items()}
    build = json.loads((imported.output / "build.json").read_text())
    assert (build["size"], build["languages"], build["counts"]) == ("imported", ["th"], {"th": imported.counts})
    files = {path.relative_to(imported.output).as_posix(): path for path in imported.output.rglob("*.parquet")}  # the card may be edited
    assert build["sha256"] == {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}


def test_datasets_reads_every_config(imported):
    for suffix, columns in COLUMNS.items():
        loaded = load_dataset(str(imported.output), f"th{suffix}")
        assert {split: part.column_names for split, part in loaded.items()} == dict.fromkeys(SPLITS, list(columns))
    rows = load_dataset(str(imported.output), split="train")  # the default config
    assert rows[0]["slice"] == ["imported"] and rows[0]["script"] == "Thai" and rows[0]["clean"] == rows[0]["query"]
    assert (rows[0]["translations"], rows[0]["english"], rows[0]["intent"]) == ([], "", "")
    card = (imported.output / "README.md").read_text()
    assert "license: unknown" in card and "products.parquet" in card


def test_several_locales_need_a_choice(esci, tmp_path):
    with pytest.raises(ValueError, match="locale: the files hold th, us; name the one"):
        shop(tmp_path / "out", esci[0], esci[1], esci[1])
    with pytest.raises(ValueError, match="locale: 'jp' is in no file; found: th, us"):
        shop(tmp_path / "out", esci[0], None, esci[1], locale="jp")
    assert not list(tmp_path.iterdir())


def assert_sound(output: Path, language: str = "th") -> None:
    """No query, product or family is in two splits; judgements stay in theirs; every query has a relevant product."""
    parts = opened(output, language)
    for kind in (
        lambda part: {spelling(query.row.text) for query in part.queries},
        lambda part: {query.id for query in part.queries},
        lambda part: set(part.products),
        lambda part: {product.family for product in part.products.values()},
    ):
        together = [kind(part) for part in parts.values()]
        assert sum(map(len, together)) == len(set().union(*together))
    for part in parts.values():
        for query in part.queries:
            assert set(query.judged) <= set(part.products)
            assert max(query.judged.values()) > 0


def test_splits_share_nothing(imported, tmp_path):
    assert_sound(imported.output)
    goods, _, _ = plain()
    files = plain_files(tmp_path)
    lines(files[0], [{**good, "family_id": f"f{i // 3}" if i % 4 else ""} for i, good in enumerate(goods)])
    shop(tmp_path / "out", *files)
    assert_sound(tmp_path / "out")


def test_test_keeps_its_relevant_products_and_train_pays(tmp_path):
    report = shop(tmp_path / "out", *plain_files(tmp_path))
    parts, (_, _, graded) = opened(tmp_path / "out"), plain()
    ids = {query.id for query in parts["test"].queries}
    kept = {(q.id, product) for q in parts["test"].queries for product, grade in q.judged.items() if grade}
    assert kept == {(row["query_id"], row["product_id"]) for row in graded if row["query_id"] in ids and row["grade"]}
    lost = counts(report)["judgements"][CROSSED]
    assert sum(counted["judgements"] for counted in report.counts.values()) == len(graded) - lost - counts(report)["judgements"].get(
        "its query was refused", 0
    )
    assert any(note.startswith("splits: train lost ") for note in report.notes)


@pytest.mark.parametrize("options", [{}, {"validation": 0}, {"validation": 0, "test": 0}])
def test_validation_finds_nothing_and_publishing_takes_it(tmp_path, options):
    odd = ("коробка", "?!", "😀 หมวก", "หมวก \ufffd", "a\u00a0\u00a0b", "\ue000", "１２３", "ｶﾞﾗｽ")
    files = plain_files(
        tmp_path,
        queries=[{"id": f"o{i}", "text": text} for i, text in enumerate(odd)],
        products=[{"id": f"op{i}", "title": text, "description": f"<p>{text}\x85", "brand": text} for i, text in enumerate(odd)],
        judgements=[{"query_id": f"o{i}", "product_id": f"op{i}", "grade": 2} for i in range(len(odd))],
    )
    report = shop(tmp_path / "out", *files, **options)
    assert without_crossed(report) == {}
    assert render_report(validate(tmp_path / "out", progress=False)) == ["no damage found"]
    paths = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert set(check_folder(tmp_path / "out", progress=False)) == paths - {"import.json", "refused.jsonl"}
    card = (tmp_path / "out" / "README.md").read_text()
    counted = report.counts["train"]["queries"]
    (tmp_path / "out" / "README.md").write_text(card.replace(f"| Thai | train | {counted} |", f"| Thai | train | {counted + 1} |"))
    assert {damage.kind for damage in validate(tmp_path / "out", progress=False)} == {"card-counts"}


def test_unjudged_products_are_distractors_in_every_split(tmp_path):
    shop(tmp_path / "out", *plain_files(tmp_path))
    _, _, graded = plain()
    judged = {row["product_id"] for row in graded}
    for part in opened(tmp_path / "out").values():
        assert set(part.products) - judged


def test_spellings_of_one_query_stay_together(tmp_path):
    variants = ("áo Khoác ĐỎ", "ao khoac do", "ＡＯ　ＫＨＯＡＣ　ＤＯ", "a\u0301o khoác đỏ")
    goods = [{"sku": f"p{i}", "name": f"áo {i}"} for i in range(200)]
    asked = [{"qid": f"q{i}-{k}", "query": f"{text} {i}"} for i in range(25) for k, text in enumerate(variants)]
    graded = [{"qid": row["qid"], "sku": f"p{place}", "label": "Exact"} for place, row in enumerate(asked)]
    for row, split in zip(asked, ("train", "test", "train", "validation") * 25, strict=True):
        row["split"] = split
    files = [table(tmp_path / f"{name}.csv", rows) for name, rows in (("p", goods), ("q", asked), ("j", graded))]
    report = shop(tmp_path / "given", *files, language="vi")
    assert_sound(tmp_path / "given", "vi")
    assert len(opened(tmp_path / "given", "vi")["test"].queries) == 100  # each is test in one of its spellings
    assert any("75 queries that read like one of another split" in note for note in report.notes)
    table(files[1], [{key: row[key] for key in ("qid", "query")} for row in asked])
    shop(tmp_path / "hashed", *files, language="vi", test=0.3, validation=0.3)
    assert_sound(tmp_path / "hashed", "vi")
    parts = opened(tmp_path / "hashed", "vi")
    assert len(parts) == 3 and all(len(part.queries) % 4 == 0 for part in parts.values())


def test_given_splits_by_their_usual_names_and_no_others(tmp_path):
    files, (_, asked, graded) = plain_files(tmp_path), plain()
    names = ("Train", "training", "dev", "test", "holdout", "")
    lines(files[1], [{**row, "split": names[i % 6]} for i, row in enumerate(asked)])
    report = shop(tmp_path / "out", *files)
    assert counts(report)["queries"]["unknown split"] == 20
    assert report.refused["queries"]["unknown split"]["examples"][0]["split"] == "holdout"
    assert "its query was refused" in counts(report)["judgements"]
    found = {int(q.id[1:]): split for split, part in opened(tmp_path / "out").items() for q in part.queries}
    assert set(found) <= {i for i in range(60) if i % 6 < 4}
    assert all(split == ("train", "train", "validation", "test")[i % 6] for i, split in found.items())
    # The same, given with the judgements.
    by_id = {row["id"]: names[i % 6] for i, row in enumerate(asked)}
    lines(files[2], [{**row, "split": by_id[row["query_id"]]} for row in graded])
    lines(files[1], asked)
    shop(tmp_path / "judged", *files)
    assert grades(tmp_path / "judged") == grades(tmp_path / "out")


def test_splits_of_a_query_survive_more_data(tmp_path):
    files = plain_files(tmp_path)
    shop(tmp_path / "before", *files)
    more = [{"id": f"n{i}", "text": f"ใหม่ {i}"} for i in range(30)]
    files = plain_files(
        tmp_path,
        more,
        [{"id": f"np{i}", "title": f"ใหม่ {i}"} for i in range(30)],
        [{"query_id": f"n{i}", "product_id": f"np{i}", "grade": 3} for i in range(30)],
    )
    shop(tmp_path / "after", *files)
    before, after = ({q.id: split for split, part in opened(tmp_path / name).items() for q in part.queries} for name in ("before", "after"))
    assert len(after) == len(before) + 30
    assert {id_: after[id_] for id_ in before} == before


def test_wands(tmp_path):
    """Tab-separated .csv files, a header with a space, inch marks, features with a bar, ids that are numbers."""
    goods = [
        {
            "product_id": i,
            "product_name": f'sofa {i} 24" wide',
            "product_class": "Sofas",
            "category hierarchy": "Furniture / Living Room / Sofas",
            "product_description": "soft,\nwide",
            "product_features": "colour:grey|legs:4|colour:blue|note",
            "rating_count": "4.0",
        }
        for i in range(90)
    ]
    asked = [{"query_id": i, "query": f"salon chair {i}", "query_class": "Chairs"} for i in range(30)]
    labels = ("Exact", "Partial", "Irrelevant")
    graded = [{"id": 3 * i + k, "query_id": i, "product_id": 3 * i + k, "label": labels[k]} for i in range(30) for k in range(3)]
    files = [table(tmp_path / name, rows, "\t") for name, rows in (("product.csv", goods), ("query.csv", asked), ("label.csv.gz", graded))]
    report = shop(tmp_path / "out", *files, language="id", validation=0.2, test=0.2)
    assert counts(report) == {}
    assert grades(tmp_path / "out", "id") == {(str(i), str(3 * i + k)): (3, 2, 0)[k] for i in range(30) for k in range(3)}
    row = next(row for row in load_dataset(str(tmp_path / "out"), "id-corpus", split="train"))
    assert row["title"].startswith("sofa ") and row["title"].endswith(' 24" wide')
    assert (row["text"], row["category_path"]) == ("soft, wide", "Furniture/Living Room/Sofas")
    assert json.loads(row["attributes"]) == {"colour": "grey, blue", "legs": "4"}


def clicked(tmp_path: Path, rows: list[dict]) -> tuple[dict[tuple[str, str], int], dict]:
    """Grades (all in train) and refusals of a click log of query "หมวก"; a second query keeps the folder from being empty."""
    log = [{"query": "หมวก", **row} for row in rows]
    goods = [{"sku": sku, "title": sku} for sku in sorted({row["sku"] for row in log})]
    products, judgements = table(tmp_path / "goods.tsv", goods, "\t"), table(tmp_path / "clicks.csv", log)
    report = shop(tmp_path / "out", products, None, judgements, validation=0, test=0)
    return {product: grade for (_, product), grade in grades(tmp_path / "out").items()}, counts(report)


def test_clicks_without_impressions_are_thirds_of_the_logarithm(tmp_path):
    found, refused = clicked(
        tmp_path,
        [
            {"sku": "a", "clicks": 600},
            {"sku": "a", "clicks": "399.0"},  # another day: the counts are summed to 999, whose thirds are 9 and 99
            {"sku": "b", "clicks": 99},
            {"sku": "c", "clicks": 98},
            {"sku": "d", "clicks": 9},
            {"sku": "e", "clicks": 8},
            {"sku": "f", "clicks": 0},
            {"sku": "g", "clicks": -1},
            {"sku": "h", "clicks": "nan"},
            {"sku": "i", "clicks": 1.5},
        ],
    )
    assert found == {"a": 3, "b": 3, "c": 2, "d": 2, "e": 1, "f": 0}
    assert refused == {"judgements": {"clicks is no count": 3}}


def test_clicks_with_impressions_are_smoothed_rates(tmp_path):
    found, refused = clicked(
        tmp_path,
        [
            {"sku": "a", "clicks": 300, "impressions": 1000},
            {"sku": "b", "clicks": 120, "impressions": 1000},
            {"sku": "c", "clicks": 20, "impressions": 1000},
            {"sku": "d", "clicks": 1, "impressions": 1},  # one click of one: smoothed, it is not the best of the query
            {"sku": "e", "clicks": 0, "impressions": 40},
            {"sku": "f", "clicks": 0, "impressions": 0},
            {"sku": "g", "clicks": 5, "impressions": 4},
        ],
    )
    # The rate of the file is 441 / 3041 = 0.145; smoothed: a 0.298, b 0.120 (a 0.40), c 0.021, d (1 + 1.45) / 11 = 0.223 (a 0.75).
    assert found == {"a": 3, "b": 2, "c": 1, "d": 3, "e": 0}
    assert refused == {"judgements": {"never shown": 1, "more clicks than impressions": 1}}


def test_purchases_beat_clicks(tmp_path):
    found, _ = clicked(
        tmp_path,
        [
            {"sku": "a", "clicks": 1000, "purchases": 0},
            {"sku": "b", "clicks": 2, "purchases": 1},
            {"sku": "c", "clicks": 2, "purchases": 0},
            {"sku": "d", "clicks": 0, "purchases": 0},
        ],
    )
    assert found == {"a": 2, "b": 3, "c": 1, "d": 0}


def test_purchases_alone_are_read_like_clicks(tmp_path):
    found, _ = clicked(tmp_path, [{"sku": "a", "orders": 999}, {"sku": "b", "orders": 9}, {"sku": "c", "orders": 8}, {"sku": "d", "orders": 0}])
    assert found == {"a": 3, "b": 2, "c": 1, "d": 0}


def test_queries_without_ids_are_joined_by_their_text(tmp_path):
    goods, asked, graded = plain()
    text = {row["id"]: row["text"] for row in asked}
    products = table(tmp_path / "products.csv", goods)
    queries = table(tmp_path / "queries.csv", [{"keyword": f"  {row['text']}\u200b "} for row in asked])
    judgements = table(
        tmp_path / "judgements.csv", [{"search_term": text[row["query_id"]], "sku": row["product_id"], "score": row["grade"]} for row in graded]
    )
    shop(tmp_path / "two", products, queries, judgements)
    shop(tmp_path / "one", products, judgements, judgements)
    shop(tmp_path / "ids", *plain_files(tmp_path))
    by_text = {
        name: {(q.row.text, p): g for part in opened(tmp_path / name).values() for q in part.queries for p, g in q.judged.items()}
        for name in ("two", "one", "ids")
    }
    assert by_text["two"] == by_text["one"] == by_text["ids"]
    assert len(by_text["two"]) > 150


def test_own_column_names(tmp_path):
    goods, asked, graded = plain()
    products = lines(tmp_path / "p.jsonl", [{"ma": row["id"], "ten_san_pham": row["title"], "title": "không phải"} for row in goods])
    queries = lines(tmp_path / "q.jsonl", [{"id": row["id"], "tu_khoa": row["text"]} for row in asked])
    judgements = lines(tmp_path / "j.jsonl", graded)
    columns = {"products.id": "ma", "products.title": "ten_san_pham", "queries.text": "tu_khoa"}
    shop(tmp_path / "out", products, queries, judgements, columns=columns)
    titles = {product.title for part in opened(tmp_path / "out").values() for product in part.products.values()}
    assert titles == {row["title"] for row in goods}
    with pytest.raises(ValueError, match=r"columns: 'products.naam' is not known; allowed: products.id, products.title"):
        shop(tmp_path / "no", products, queries, judgements, columns={"products.naam": "x"})
    with pytest.raises(ValueError, match=r"products: 'p.jsonl': no column 'x'; found 'ma', 'ten_san_pham', 'title'"):
        shop(tmp_path / "no", products, queries, judgements, columns={"products.title": "x", "products.id": "ma"})
    with pytest.raises(
        ValueError, match=r"products: 'p.jsonl': no column for id; found 'ma', .*; accepted are product_id, .*, or name yours as products.id"
    ):
        shop(tmp_path / "no", products, queries, judgements)


def test_own_labels(tmp_path):
    goods, asked, graded = plain()
    words = {3: "Tốt", 2: "2.33", 1: "kém", 0: "1.0"}
    files = plain_files(tmp_path)
    lines(files[2], [{**row, "grade": words[row["grade"]]} for row in graded])
    shop(tmp_path / "words", *files, grades={"tốt": 3, "2.33": 2, "Kém": 1, "1": 0})
    shop(tmp_path / "numbers", *plain_files(tmp_path))
    assert grades(tmp_path / "words") == grades(tmp_path / "numbers")
    with pytest.raises(ValueError, match="grades: 'good' cannot be 4; a grade is 0, 1, 2 or 3"):
        shop(tmp_path / "no", *files, grades={"good": 4})


def test_means_of_raters_are_refused_as_a_whole(tmp_path):
    goods, _, graded = plain()
    products = table(tmp_path / "attributes.csv", [{"product_uid": row["id"], "title": row["title"]} for row in goods])
    rows = [{"id": i, "product_uid": row["product_id"], "search_term": "หมวก", "relevance": ("1.00", "2.33")[i % 2]} for i, row in enumerate(graded)]
    with pytest.raises(ValueError, match="grade: '2.33' is no grade but a mean; .* or map each: 2.33=2"):
        shop(tmp_path / "out", products, None, table(tmp_path / "train.csv", rows))
    assert not (tmp_path / "out").exists()


def test_trouble_in_rows_costs_these_rows_only(tmp_path):
    files = plain_files(
        tmp_path,
        queries=[{"id": "q0", "text": "อีกครั้ง"}, {"id": "q900", "text": " \u200b"}, {"id": "", "text": "หมวก"}, {"id": "q901", "text": "ไม่มีใครตัดสิน"}],
        products=[{"id": "p0", "title": "อีกครั้ง"}, {"id": "p900", "title": "&nbsp;"}, {"id": None, "title": "หมวก"}, {"title": "หมวก"}],
        judgements=[
            {"query_id": "q0", "product_id": "none", "grade": 3},
            {"query_id": "none", "product_id": "p0", "grade": 3},
            {"query_id": "q0", "product_id": "p140", "grade": 5},
            {"query_id": "q0", "product_id": "p141", "grade": None},
            {"query_id": "q0", "product_id": "p142", "grade": 3},
            {"query_id": "q0", "product_id": "p142", "grade": 1},
            {"query_id": "q0", "product_id": "p143", "grade": 2},
            {"query_id": "q0", "product_id": "p143", "grade": "2"},
        ],
    )
    with files[0].open("ab") as stream:
        stream.write(
            '{"id": "p901", "title": "ปิดไม่ครบ"\n[1, 2]\n\n{"id": "p902", "title": "half \\ud83d pair"}\n'.encode()
            + '{"id": "p903", "title": "หมวก"}\n'.encode("cp874")
        )
    report = shop(tmp_path / "out", *files)
    assert without_crossed(report) == {
        "products": {
            "not JSON": 1,
            "no JSON object": 1,
            "not UTF-8; save the file as UTF-8": 1,
            "no id": 2,
            "empty title": 1,
            "id used before (the first is kept)": 1,
        },
        "queries": {"no id": 1, "empty query": 1, "id used before (the first is kept)": 1, "no relevant product": 1},
        "judgements": {
            "its product is missing or was refused": 1,
            "its query is missing or was refused": 1,
            "unknown grade": 2,
            "graded twice, differently (none is kept)": 2,
            "graded twice (the first is kept)": 1,
        },
    }
    products = {key: product.title for part in opened(tmp_path / "out").values() for key, product in part.products.items()}
    assert products["p902"] == "half pair" and products["p0"] == f"{THINGS[0]} สี{COLOURS[0]} 0"
    assert report.refused["products"]["not JSON"]["examples"] == [{"row": 155, "text": '{"id": "p901", "title": "ปิดไม่ครบ"'}]
    assert report.refused["queries"]["empty query"]["examples"] == [{"row": 62, "id": "q900", "text": ""}]
    assert not any(key in {"p142"} for _, key in grades(tmp_path / "out"))


def test_trouble_in_csv_rows(tmp_path):
    goods, asked, graded = plain()
    products, queries, judgements = (table(tmp_path / f"{name}.csv", rows) for name, rows in (("p", goods), ("q", asked), ("j", graded)))
    text = products.read_bytes().split(b"\n")
    text[1:1] = [b""]  # a spreadsheet counts it
    text[4:4] = [b"lonely", b'p900,"two\nlines, ""quoted"""', b"p901,one,two", b"p902,\xa1\xa2"]
    products.write_bytes(b"\xef\xbb\xbf" + b"\n".join(text).replace(b",", b";"))  # as spreadsheets save it in many countries
    report = shop(tmp_path / "out", products, queries, judgements)
    assert counts(report)["products"] == {"1 fields instead of 2": 1, "3 fields instead of 2": 1, "not UTF-8; save the file as UTF-8": 1}
    examples = {reason: found["examples"][0] for reason, found in report.refused["products"].items()}
    assert examples["1 fields instead of 2"] == {"row": 5, "text": "lonely"}
    assert examples["not UTF-8; save the file as UTF-8"] == {"row": 8, "text": "p902;\ufffd\ufffd"}
    titles = {key: product.title for part in opened(tmp_path / "out").values() for key, product in part.products.items()}
    assert titles["p900"] == 'two lines; "quoted"' and len(titles) == 151


def test_a_query_id_with_two_texts_keeps_the_first(tmp_path):
    goods, asked, graded = plain()
    text = {row["id"]: row["text"] for row in asked}
    rows = [{**row, "query": text[row["query_id"]]} for row in graded] + [{"query_id": "q0", "product_id": "p149", "grade": 3, "query": "อื่น"}]
    report = shop(tmp_path / "out", lines(tmp_path / "p.jsonl", goods), None, lines(tmp_path / "j.jsonl", rows))
    assert counts(report)["judgements"]["its query id has another text before"] == 1
    assert "p149" not in {product for _, product in grades(tmp_path / "out")}


def test_one_file_may_hold_everything(tmp_path):
    goods, asked, graded = plain()
    title, text = ({row["id"]: row[name] for row in rows} for rows, name in ((goods, "title"), (asked, "text")))
    rows = [
        {"query": text[r["query_id"]], "product_id": r["product_id"], "product_title": title[r["product_id"]], "grade": float(r["grade"])}
        for r in graded
    ]
    pd.DataFrame(rows).to_parquet(tmp_path / "all.parquet")
    report = shop(tmp_path / "out", *[tmp_path / "all.parquet"] * 3)
    assert without_crossed(report) == {}
    assert_sound(tmp_path / "out")


def test_wrong_files(tmp_path):
    files = plain_files(tmp_path)
    (tmp_path / "empty.csv").write_bytes(b"")
    (tmp_path / "wide.csv").write_bytes("id,title\n1,หมวก\n".encode("utf-16"))
    (tmp_path / "twice.csv").write_text("id,title,id\n1,a,2\n")
    (tmp_path / "false.parquet").write_bytes(b"no parquet")
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(files[0].read_bytes())[:-20])
    (tmp_path / "sheet.xlsx").write_bytes(b"PK")
    (tmp_path / "quote.csv").write_text(f'id,title\np1,"a\n{"p2,b" * (CELL // 4)}')
    (tmp_path / "p.parquet.gz").write_bytes(gzip.compress(b"PAR1"))
    for name, message in {
        "none.csv": "products: there is no file",
        "empty.csv": "products: 'empty.csv': no column for id; found none",
        "wide.csv": "products: 'wide.csv': it is UTF-16; save it as UTF-8",
        "twice.csv": "products: 'twice.csv': two columns have the same name",
        "false.parquet": "products: 'false.parquet': ",
        "cut.jsonl.gz": "products: 'cut.jsonl.gz': ",
        "quote.csv": "products: 'quote.csv': field larger than field limit",
        "p.parquet.gz": "products: 'p.parquet.gz' cannot be read",
        "sheet.xlsx": r"products: 'sheet.xlsx' cannot be read; allowed are .csv, .tsv, .jsonl, each also with .gz, and .parquet",
    }.items():
        with pytest.raises(ValueError, match=message):
            shop(tmp_path / "out", tmp_path / name, *files[1:])
    assert not (tmp_path / "out").exists()


def test_wrong_arguments(tmp_path):
    files = plain_files(tmp_path)
    (tmp_path / "there").mkdir()
    for output, options, message in (
        ("there", {}, "output: .* exists; give a new folder"),
        ("out", {"language": "xx"}, "languages: 'xx' is not known"),
        ("out", {"seed": "0"}, "seed: '0' is not allowed"),
        ("out", {"test": 1.0}, "test: 1.0 is not allowed"),
        ("out", {"validation": -0.1}, "validation: -0.1 is not allowed"),
        ("out", {"validation": 0.5, "test": 0.5}, "validation and test: 0.5 and 0.5 are not allowed"),
    ):
        with pytest.raises(ValueError, match=message):
            shop(tmp_path / output, *files, **options)
    with pytest.raises(ValueError, match="judgements: no column names the query in a way that the queries do"):
        shop(tmp_path / "out", files[0], table(tmp_path / "q.csv", [{"query": "หมวก"}]), files[2])
    with pytest.raises(ValueError, match="queries: the judgements hold no text of queries"):
        shop(tmp_path / "out", files[0], None, files[2])


def test_nothing_left_is_an_error_that_says_why(tmp_path):
    files = plain_files(tmp_path)
    _, _, graded = plain()
    lines(files[2], [{**row, "grade": "good"} for row in graded])
    with pytest.raises(ValueError, match="no query with a relevant product is left .*judgements: 300 unknown grade"):
        shop(tmp_path / "out", *files)
    table(files[0].with_suffix(".csv"), [{"id": "", "title": ""}])
    (tmp_path / "headers.csv").write_text("query_id,product_id,grade\n")
    with pytest.raises(ValueError, match="no query with a relevant product is left"):
        shop(tmp_path / "out", files[0].with_suffix(".csv"), files[1], tmp_path / "headers.csv")
    assert not (tmp_path / "out").exists()


def test_a_split_without_queries_is_left_out(tmp_path):
    report = shop(tmp_path / "out", *plain_files(tmp_path), validation=0)
    assert list(report.counts) == ["train", "test"] and "splits: validation has no query and is left out" in report.notes
    assert sum(counted["products"] for counted in report.counts.values()) == 150
    assert set(load_dataset(str(tmp_path / "out"), "th-corpus")) == {"train", "test"}
    with pytest.raises(ValueError, match="no configuration 'th' with a split 'validation'"):
        read(tmp_path / "out", "th", "validation")


def test_equal_files_give_equal_bytes_and_another_seed_other_splits(tmp_path):
    files = plain_files(tmp_path)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        shop(tmp_path / name, *files, seed=seed)
    read_all = {name: {p.relative_to(tmp_path / name): p.read_bytes() for p in (tmp_path / name).rglob("*") if p.is_file()} for name in "abc"}
    assert read_all["a"] == read_all["b"]
    queries = {name: {q.id for q in read(tmp_path / name, "th", "test").queries} for name in "ac"}
    assert queries["a"] != queries["c"]
    assert str(tmp_path).encode() not in b"".join(read_all["a"].values())


def test_a_new_import_under_an_old_name_is_not_read_from_the_cache(tmp_path):
    files = plain_files(tmp_path)
    shop(tmp_path / "one" / "shop", *files)
    old = {q.id for q in read(tmp_path / "one" / "shop", "th", "test").queries}
    shop(tmp_path / "two" / "shop", *files, seed=1)
    assert {q.id for q in read(tmp_path / "two" / "shop", "th", "test").queries} != old


def test_a_failure_while_writing_leaves_nothing(tmp_path, monkeypatch):
    files = plain_files(tmp_path)
    before = set(tmp_path.iterdir())

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lira_hf.catalogue.imports.writing._card", full)
    with pytest.raises(OSError, match="No space"):
        shop(tmp_path / "out", *files)
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("<p>เสื้อ<b>ยืด</b></p><ul><li>นุ่ม<li>เบา</ul>", "เสื้อยืด นุ่ม เบา"),
        ("a<script>if (a < b) {}</script>b<!-- c -->d", "a b d"),
        ("size <XL> 5 &lt; 6 &amp;nbsp;M&amp;S", "size <XL> 5 < 6 M&S"),
        ("&lt;br&gt;x<br/>y <img src='a.png'>z", "x y z"),
        ("a\u0301o\x00\u200b \t\r\n khoa\u0301c\ufeff", "áo khoác"),
        ("ক্\u200dষ", "ক্\u200dষ"),  # the joiner stays
        ("\u202bاردو\u202c", "اردو"),
    ],
)
def test_tidy(raw, clean):
    assert tidy(raw) == clean


def test_attributes_in_every_form():
    assert json.loads(attributes('{"size": "M", "legs": 4, "parts": ["a", "b"]}', "")) == {"size": "M", "legs": "4", "parts": "a b"}
    assert json.loads(attributes("size : M|colour:red:dark", "blue")) == {"size": "M", "colour": "red:dark"}
    assert json.loads(attributes("{broken", "blue")) == {"colour": "blue"}
    assert json.loads(attributes("", "")) == {}


def test_a_shop_whose_queries_share_their_products(tmp_path):
    """Sixty queries for twenty products: to give each product to one split would leave train with nothing."""
    judged = [f"kaos murah {n},p{m},{3 if m == n % 20 else 2}" for n in range(60) for m in range(20)]
    (tmp_path / "judged.csv").write_text("\n".join(["query,product_id,grade", *judged]))
    (tmp_path / "products.csv").write_text("\n".join(["id,title", *(f"p{n},kaos {n}" for n in range(20))]))
    files = (tmp_path / "products.csv", None, tmp_path / "judged.csv", "id")
    with pytest.raises(ValueError, match="share_products: the queries share so many products that train would lose"):
        import_shop(*files, tmp_path / "none", progress=False)
    report = import_shop(*files, tmp_path / "out", share_products=True, progress=False)
    assert report.refused == {} and sum(counted["judgements"] for counted in report.counts.values()) == 1200
    assert all(counted["products"] == 20 for counted in report.counts.values()) and set(report.counts) == set(SPLITS)
    assert render_report(validate(tmp_path / "out", progress=False)) == ["no damage found"]
