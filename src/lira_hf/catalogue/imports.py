"""A shop's own products, queries and judgements, from its files into the layout of a built data set.

Files: CSV, TSV, JSONL (each also as .gz) and Parquet. Columns are found by name (`FIELDS`: Amazon ESCI, WANDS, BEIR, plain names) or
named by the caller. The rules, in the order in which they are applied:

Text: HTML entities and tags, control and invisible characters are removed, white space is collapsed, the rest is NFC.

Grades: E/Exact 3, S/Substitute and Partial 2, C/Complement 1, I/Irrelevant 0, whole numbers 0 to 3 as they are. A column of means (2.33)
is refused as a whole: only the shop knows where its scale starts. `grades` maps any other label.

Clicks, where no grade is given; the counts of one query and product are summed:
- the signal is clicks / impressions, smoothed by `PRIOR` impressions at the rate of the whole file, or log(1 + clicks) without impressions;
- a signal of at least 2/3 of the query's best is 3, of at least 1/3 is 2, any other above no click is 1; shown and never clicked is 0;
- purchases beat clicks: a product bought for the query is 3, and beside one that was bought, a product only clicked is 2 at most.
Without clicks, purchases take their place.

Splits: the given ones, if any, and what they lack is cut from train; else by a hash of the query without case, marks and spaces, so
that one query, however typed, is in one split, also when the files grow.

Products: every family (own id, where none is given) is in one split: the first of test, validation, train that has a query to which it is
relevant; else the first that judges it at all. Judgements that cross are dropped, so test keeps every relevant product and train pays; the
report says how many it lost. Unjudged families are spread by hash (`SPREAD`), as distractors. A split without queries is not written.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import html
import itertools
import json
import math
import os
import re
import shutil
import tempfile
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from tqdm import tqdm

from lira_hf.catalogue.card import configs
from lira_hf.catalogue.letters import drop_marks, script_of
from lira_hf.catalogue.splits import SPLITS, digest
from lira_hf.catalogue.tables import COLUMNS, table_path, write_table
from lira_hf.languages import LANGUAGES, check_languages

# What is read, to the column names under which it is looked for, in this order; case, spaces and hyphens do not count.
FIELDS: dict[str, dict[str, tuple[str, ...]]] = {
    "products": {
        "id": ("product_id", "product_uid", "_id", "id", "sku", "item_id", "asin"),
        "title": ("product_title", "product_name", "title", "name", "item_name"),
        "description": ("product_description", "description", "text"),
        "bullets": ("product_bullet_point", "bullet_points", "bullet_point"),
        "brand": ("product_brand", "brand", "vendor"),
        "category": (
            "category_hierarchy",
            "category_path",
            "category",
            "product_category",
            "google_product_category",
            "product_type",
            "product_class",
        ),
        "family": ("family_id", "family", "item_group_id", "parent_id", "parent_sku", "parent_asin"),
        "colour": ("product_color", "color", "colour"),
        "features": ("product_features", "features", "attributes"),
        "locale": ("product_locale", "locale"),
    },
    "queries": {
        "id": ("query_id", "qid", "_id", "id"),
        "text": ("query", "query_text", "search_term", "search_query", "keyword", "text"),
        "split": ("split",),
        "locale": ("product_locale", "query_locale", "locale"),
    },
    "judgements": {
        "query": ("query_id", "qid"),
        "text": ("query", "query_text", "search_term", "search_query", "keyword"),
        "product": ("product_id", "product_uid", "corpus_id", "sku", "item_id", "asin", "doc_id"),
        "grade": ("esci_label", "label", "grade", "relevance", "score"),
        "clicks": ("clicks", "click_count"),
        "impressions": ("impressions", "impression_count", "views"),
        "purchases": ("purchases", "purchase_count", "orders"),
        "split": ("split",),
        "locale": ("product_locale", "query_locale", "locale"),
    },
}
REQUIRED = {  # of each group, one at least
    "products": (("id",), ("title",)),
    "queries": (("text",),),
    "judgements": (("query", "text"), ("product",), ("grade", "clicks", "purchases")),
}
AS_JUDGEMENTS = {"id": "query", "text": "text", "split": "split", "locale": "locale"}  # fields of queries, where judgements hold them
GRADES = {"exact": 3, "substitute": 2, "partial": 2, "complement": 1, "irrelevant": 0}
GRADES |= {name[0]: grade for name, grade in GRADES.items() if name != "partial"} | {str(grade): grade for grade in range(4)}
PRIOR = 10  # impressions: so much must a click-through rate be based on to count more than the rate of the file
GIVEN_SPLITS = {"train": "train", "training": "train", "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation"}
GIVEN_SPLITS |= {"test": "test"}
FIRST = ("test", "validation", "train")  # who gets a query or a family that several splits claim
SPREAD = {"train": 0.5, "validation": 0.1, "test": 0.4}  # of the unjudged families: validation is read often, so its corpus is small
TEXT_FILES = (".csv", ".tsv", ".jsonl")  # each also as .gz
BLOCK = 1 << 26  # bytes that one CSV row may take
LISTED, SHOWN = 1000, 3  # refused rows of one reason in refused.jsonl, and in import.json and on the screen

TAGS = (
    "o:p|abbr|acronym|address|article|aside|audio|blockquote|body|br|button|caption|center|cite|code|col|colgroup|dd|del|details|div|dl|dt|figcaption"
)
TAGS += "|figure|footer|form|h[1-6]|head|header|hr|html|iframe|img|input|ins|label|li|link|main|meta|nav|ol|option|p|picture|pre|section|select"
TAGS += "|source|summary|svg|table|tbody|td|template|tfoot|th|thead|title|tr|ul|video"
# Named ones only, so that "size <XL>" stays.
HIDDEN_HTML = re.compile(r"<!--.*?-->|<!doctype[^>]*>|<(script|style)\b.*?</\1\s*>", re.IGNORECASE | re.DOTALL)
INLINE_HTML = re.compile(r"</?(?:a|b|i|u|s|em|strong|span|font|small|big|sub|sup|mark)(?:\s[^<>]*)?/?>", re.IGNORECASE)
BLOCK_HTML = re.compile(rf"</?(?:{TAGS})(?:\s[^<>]*)?/?>", re.IGNORECASE)
# Controls but white space, soft hyphen, zero-width space, direction marks, byte order mark. The joiners stay: Bengali and Urdu need them.
INVISIBLE = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]")

CARD = """---
{front}---

# {name} product search, imported

The person who made this folder imported it from their own files ({files}) with `lira-hf data import`; it is not LazRetrieval.
**The licence is theirs to state**: replace `unknown` in the first lines before the folder is passed on, and say here where the data is from.

| split | queries | products | judgements | of these above 0 |
|---|---|---|---|---|
{counts}

{notes}

What was refused, and why, is counted in `import.json` and listed in `refused.jsonl`.
"""


@dataclass
class Report:
    """What an import wrote and what it refused.

    `counts`: split → what → how many. `refused`: kind ("products", "queries", "judgements") → reason → {"count", "examples"}.
    `notes`: the columns and rules that were used, one sentence each. str() of it is for the screen.
    """

    output: Path
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    refused: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"imported {self.output}"]
        for split, counted in self.counts.items():
            lines.append(f"  {split}: {counted['queries']:,} queries, {counted['products']:,} products, {counted['judgements']:,} judgements")
        lines += [f"  {note}" for note in self.notes]
        for kind, reasons in self.refused.items():
            for reason, found in reasons.items():
                lines.append(f"  refused {kind}: {found['count']:,} × {reason}")
                lines += [f"    {json.dumps(example, ensure_ascii=False)}" for example in found["examples"]]
        return "\n".join(lines)


class Refusals:
    """Counts of refused rows by kind and reason, and the first `LISTED` of each."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, str], int] = {}
        self.rows: dict[tuple[str, str], list[dict[str, Any]]] = {}

    def add(self, kind: str, reason: str, rows: Iterable[Mapping[str, Any]], count: int) -> None:
        key = (kind, reason)
        self.counts[key] = self.counts.get(key, 0) + count
        listed = self.rows.setdefault(key, [])
        for row in rows:
            if len(listed) == LISTED:
                break
            listed.append({name: value[:100] if isinstance(value, str) else value for name, value in row.items()})

    def without(self, kind: str, frame: pd.DataFrame, bad: pd.Series, reason: str) -> pd.DataFrame:
        """`frame` without its `bad` rows, which are refused."""
        if not bad.any():
            return frame
        refused = frame[bad]
        head = refused.head(LISTED)[[name for name in refused if name in FIELDS[kind]]]
        self.add(kind, reason, ({"row": int(row), **cells} for row, cells in zip(head.index, head.to_dict("records"), strict=True)), len(refused))
        return frame[~bad]

    def summary(self) -> dict[str, dict[str, dict[str, Any]]]:
        found: dict[str, dict[str, dict[str, Any]]] = {}
        for (kind, reason), count in self.counts.items():
            found.setdefault(kind, {})[reason] = {"count": count, "examples": self.rows[kind, reason][:SHOWN]}
        return found

    def listed(self) -> Iterator[dict[str, Any]]:
        for (kind, reason), rows in self.rows.items():
            for row in rows:
                yield {"kind": kind, "reason": reason, **row}


def import_shop(
    products: str | Path,
    queries: str | Path | None,
    judgements: str | Path,
    language: str,
    output: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    grades: Mapping[str, int] | None = None,
    locale: str | None = None,
    validation: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
    progress: bool = True,
) -> Report:
    """Write the folder `output` from three files by the rules of this module; returns what was written and refused.

    `queries`: None, or the same file as `judgements`, where that one holds the queries' text too (ESCI). `columns`: {"products.title":
    "ten_san_pham"}, for names that `FIELDS` lacks. `grades`: {label: 0 to 3}, for labels that `GRADES` lacks. `locale`: the one ESCI
    locale to keep. `validation`, `test`: shares of the queries, from 0, together below 1, for splits that are not given. Rows are numbered
    as in a spreadsheet: the header is row 1. The folder appears when all is written, or not at all. Raises ValueError for a wrong
    argument, file or column, an `output` that exists, and where no query is left.
    """
    check_languages([language])
    output = Path(output)
    if output.exists():
        raise ValueError(f"output: {str(output)!r} exists; give a new folder")
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise ValueError(f"seed: {seed!r} is not allowed; give an integer")
    for name, share in (("validation", validation), ("test", test)):
        if not 0 <= share < 1:
            raise ValueError(f"{name}: {share!r} is not allowed; a share is at least 0 and below 1")
    if validation + test >= 1:
        raise ValueError(f"validation and test: {validation!r} and {test!r} are not allowed; train needs a share too")
    labels = _labels(grades)
    alone = queries is None or Path(queries).absolute() == Path(judgements).absolute()
    named = _named(columns, alone)
    report, refusals = Report(output), Refusals()

    goods = _read(products, "products", named, refusals, report)
    judged = _read(judgements, "judgements", named, refusals, report)
    asked = None if alone else _read(queries, "queries", named, refusals, report)
    goods, judged, asked = _one_locale({"products": goods, "judgements": judged, "queries": asked}, locale, refusals)

    shelf = _products(goods, Path(products).absolute() == Path(judgements).absolute(), refusals, progress)
    asked, judged = _queries(asked, judged, refusals, progress)
    judged = _known(judged, asked, shelf, refusals)
    judged = _graded(judged, labels, refusals, report)
    asked = _without_unanswered(asked, judged, "no relevant product", refusals)
    asked = _split_queries(asked, {"validation": validation, "test": test}, seed, refusals, report)
    judged = refusals.without("judgements", judged, ~judged["query"].isin(asked["id"]), "its query was refused")
    shelf, judged = _split_products(shelf, asked, judged, refusals, report)
    asked = _without_unanswered(asked, judged, "its relevant products are in the corpus of another split", refusals)
    judged = refusals.without("judgements", judged, ~judged["query"].isin(asked["id"]), "its query was refused")
    report.refused = refusals.summary()
    if asked.empty:
        reasons = [f"{kind}: {found['count']} {reason}" for kind, of_kind in report.refused.items() for reason, found in of_kind.items()]
        raise ValueError(f"judgements: no query with a relevant product is left ({'; '.join(reasons) or 'the files hold no rows'})")
    shelf = _spread_unjudged(shelf, [split for split in SPLITS if (asked["split"] == split).any()], seed, report)
    _write(
        output, language, seed, [products, judgements] if alone else [products, queries, judgements], shelf, asked, judged, refusals, report, progress
    )
    return report


def _labels(grades: Mapping[str, int] | None) -> dict[str, int]:
    """Label as `_label` spells it to its grade."""
    for label, grade in (grades or {}).items():
        if isinstance(grade, bool) or grade not in range(4):
            raise ValueError(f"grades: {label!r} cannot be {grade!r}; a grade is 0, 1, 2 or 3")
    return GRADES | {_label(str(label)): int(grade) for label, grade in (grades or {}).items()}


def _label(text: str) -> str:
    """One spelling for "Exact" and "exact", and for "2" and "2.0"."""
    try:
        return f"{float(text):g}"
    except ValueError:
        return text.strip().casefold()


def _named(columns: Mapping[str, str] | None, alone: bool) -> dict[str, dict[str, str]]:
    """Kind → field → the column that the caller named. With `alone`, what is named for queries is meant for the judgements' file."""
    named: dict[str, dict[str, str]] = {kind: {} for kind in FIELDS}
    for place, column in (columns or {}).items():
        kind, _, name = place.partition(".")
        if kind not in FIELDS or name not in FIELDS[kind]:
            allowed = ", ".join(f"{kind}.{name}" for kind, fields in FIELDS.items() for name in fields)
            raise ValueError(f"columns: {place!r} is not known; allowed: {allowed}")
        if kind == "queries" and alone:
            kind, name = "judgements", AS_JUDGEMENTS[name]
        named[kind][name] = column
    return named


def _read(path: str | Path, kind: str, named: Mapping[str, Mapping[str, str]], refusals: Refusals, report: Report) -> pd.DataFrame:
    """The recognised columns of a file, named as in `FIELDS[kind]`, every cell a text; the index is the row in the file."""
    path = Path(path)
    zipped = path.suffix.lower() == ".gz"
    suffix = (path.with_suffix("") if zipped else path).suffix.lower()
    if not path.is_file():
        raise ValueError(f"{kind}: there is no file {str(path)!r}")
    if suffix not in TEXT_FILES and (zipped or suffix != ".parquet"):
        raise ValueError(f"{kind}: {path.name!r} cannot be read; allowed are {', '.join(TEXT_FILES)}, each also with .gz, and .parquet")
    read = {".csv": _read_csv, ".tsv": _read_csv, ".jsonl": _read_jsonl, ".parquet": _read_parquet}[suffix]
    try:
        frame = read(path, kind, named[kind], refusals)
    except (ValueError, OSError, EOFError) as error:  # what pyarrow raises is one of the first two; EOFError: a cut .gz
        raise ValueError(f"{kind}: {path.name!r}: {error}") from error
    taken = ", ".join(f"{name} from {column!r}" for name, column in frame.attrs.pop("taken").items())
    report.notes.append(f"{kind}: {len(frame):,} rows of {path.name}; {taken}")
    return frame


def _taken(kind: str, found: list[str], named: Mapping[str, str]) -> dict[str, str]:
    """Field → column of the file. Raises ValueError where a column is missing."""
    plain = {re.sub(r"[\s-]+", "_", name.strip().casefold()): name for name in reversed(found)}
    plain = {key: name for key, name in plain.items() if name not in named.values()}
    taken = {}
    for name, accepted in FIELDS[kind].items():
        if name in named:
            if named[name] not in found:
                raise ValueError(f"no column {named[name]!r}; found {', '.join(map(repr, found))}")
            taken[name] = named[name]
        elif known := next((key for key in accepted if key in plain), None):
            taken[name] = plain[known]
    for group in REQUIRED[kind]:
        if not any(name in taken for name in group):
            accepted = ", ".join(key for name in group for key in FIELDS[kind][name])
            raise ValueError(
                f"no column for {' or '.join(group)}; found {', '.join(map(repr, found)) or 'none'}; "
                f"accepted are {accepted}, or name yours as {kind}.{group[0]}"
            )
    return taken


def _frame(cells: Mapping[str, list[str]], rows: Iterable[int], taken: Mapping[str, str]) -> pd.DataFrame:
    frame = pd.DataFrame(cells, index=pd.Index(rows, dtype="int64"), dtype=object)
    frame.attrs["taken"] = dict(taken)
    return frame


def _read_csv(path: Path, kind: str, named: Mapping[str, str], refusals: Refusals) -> pd.DataFrame:
    import pyarrow as pa
    import pyarrow.csv as pc

    with (gzip.open if path.suffix.lower() == ".gz" else open)(path, "rb") as stream:
        head = stream.readline()
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ValueError("it is UTF-16; save it as UTF-8")
    line = head.decode("utf-8-sig", "replace").rstrip("\r\n")
    delimiter = "\t" if path.name.lower().endswith((".tsv", ".tsv.gz")) else max(",\t;", key=line.count)
    found = next(csv.reader([line], delimiter=delimiter), [])
    if len(set(found)) != len(found):
        raise ValueError(f"two columns have the same name: {', '.join(found)}")
    taken = _taken(kind, found, named)
    refused = []

    def refuse(row: pc.InvalidRow) -> str:
        refused.append((row.number, f"{row.actual_columns} fields instead of {row.expected_columns}", row.text))
        return "skip"

    table = pc.read_csv(
        path,
        # One thread: only so are refused rows numbered. Cells as bytes: one bad byte costs its row, not the file.
        read_options=pc.ReadOptions(use_threads=False, block_size=BLOCK),
        parse_options=pc.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=refuse),
        convert_options=pc.ConvertOptions(
            column_types=dict.fromkeys(found, pa.binary()), include_columns=sorted(set(taken.values())), check_utf8=False
        ),
    )
    for number, reason, text in refused:
        refusals.add(kind, reason, [{"row": number, "text": text}], 1)
    skipped = {number for number, _, _ in refused}
    rows = [row for row in range(2, 2 + table.num_rows + len(refused)) if row not in skipped]
    cells, garbled = {}, set()
    for name, column in taken.items():
        try:
            cells[name] = table[column].cast(pa.string()).to_pylist()
        except pa.ArrowInvalid:  # not all UTF-8: look at each
            cells[name] = [value.decode("utf-8", "replace") for value in table[column].to_pylist()]
            garbled |= {place for place, value in enumerate(table[column].to_pylist()) if value.decode("utf-8", "ignore").encode() != value}
    frame = _frame({name: [value.strip() for value in values] for name, values in cells.items()}, rows, taken)
    bad = pd.Series([place in garbled for place in range(len(frame))], index=frame.index, dtype=bool)
    return refusals.without(kind, frame, bad, "not UTF-8; save the file as UTF-8")


def _read_jsonl(path: Path, kind: str, named: Mapping[str, str], refusals: Refusals) -> pd.DataFrame:
    objects: dict[int, dict[str, Any]] = {}
    with (gzip.open if path.suffix.lower() == ".gz" else open)(path, "rb") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                value = json.loads(line.decode("utf-8-sig"))
            except UnicodeDecodeError:
                reason = "not UTF-8; save the file as UTF-8"
            except json.JSONDecodeError:
                reason = "not JSON"
            else:
                if isinstance(value, dict):
                    objects[number] = value
                    continue
                reason = "no JSON object"
            refusals.add(kind, reason, [{"row": number, "text": line[:400].decode("utf-8", "replace").strip()}], 1)
    taken = _taken(kind, list(dict.fromkeys(name for value in objects.values() for name in value)), named)
    return _frame({name: [as_text(value.get(column), name) for value in objects.values()] for name, column in taken.items()}, objects, taken)


def _read_parquet(path: Path, kind: str, named: Mapping[str, str], refusals: Refusals) -> pd.DataFrame:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    taken = _taken(kind, file.schema_arrow.names, named)
    table = file.read(columns=sorted(set(taken.values())))
    cells = {name: [as_text(value, name) for value in table[column].to_pylist()] for name, column in taken.items()}
    return _frame(cells, range(1, table.num_rows + 1), taken)


def as_text(value: Any, name: str) -> str:
    """A typed cell of the field `name` as a CSV file would hold it: nothing as "", 12.0 as "12", features as JSON."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, dict):
        return json.dumps({str(key): as_text(inner, "") for key, inner in value.items()}, ensure_ascii=False)
    if isinstance(value, list):
        return {"features": "|", "category": "/"}.get(name, " ").join(as_text(inner, "") for inner in value)
    return str(value).encode("utf-8", "ignore").decode().strip()  # half a surrogate pair, which JSON may hold, is no text


def _one_locale(frames: dict[str, pd.DataFrame | None], locale: str | None, refusals: Refusals) -> list[pd.DataFrame | None]:
    """The frames, of one locale. Raises ValueError where there are several to choose from, or none."""
    found = sorted({value for frame in frames.values() if frame is not None and "locale" in frame for value in frame["locale"].unique()})
    if locale is None and len(found) > 1:
        raise ValueError(f"locale: the files hold {', '.join(found)}; name the one to import")
    if locale is not None and locale not in found:
        raise ValueError(f"locale: {locale!r} is in no file; found: {', '.join(found) or 'no column of locales'}")
    for kind, frame in frames.items():
        if locale is not None and frame is not None and "locale" in frame:
            frames[kind] = refusals.without(kind, frame, frame["locale"] != locale, "another locale")
    return list(frames.values())


def tidy(text: str) -> str:
    """`text` without HTML, control and invisible characters, its white space collapsed, in NFC."""
    if "&" in text:
        text = html.unescape(text)
    if "<" in text:
        text = BLOCK_HTML.sub(" ", INLINE_HTML.sub("", HIDDEN_HTML.sub(" ", text)))
    if "&" in text:  # shops escape twice: &amp;nbsp;
        text = html.unescape(text)
    return unicodedata.normalize("NFC", " ".join(INVISIBLE.sub("", text).split()))


def _tidied(frame: pd.DataFrame, name: str, progress: bool) -> pd.Series:
    """The column `name` tidied, or empty texts where it is missing; equal texts are tidied once."""
    if name not in frame:
        return pd.Series("", index=frame.index, dtype=object)
    texts = tqdm(frame[name].unique(), desc=f"tidying {name}", unit="text", leave=False, disable=not progress)
    return frame[name].map({text: tidy(text) for text in texts}).astype(object)


def attributes(features: str, colour: str) -> str:
    """JSON {axis: value} of features, either JSON or "axis:value|axis:value", and of a colour; values of one axis are joined."""
    found: dict[str, str] = {}
    pairs: list[tuple[str, Any]] = []
    if features.startswith("{"):
        try:
            pairs = list(json.loads(features).items())
        except json.JSONDecodeError:
            features = features.strip("{}")
    for axis, value in pairs or [part.partition(":")[::2] for part in features.split("|")]:
        axis, value = tidy(str(axis)), tidy(as_text(value, ""))
        if axis and value:
            found[axis] = f"{found[axis]}, {value}" if axis in found else value
    if colour:
        found.setdefault("colour", colour)
    return json.dumps(found, ensure_ascii=False)


def _products(frame: pd.DataFrame, shared: bool, refusals: Refusals, progress: bool) -> pd.DataFrame:
    """Rows of the corpus table and their family. In a file `shared` with the judgements, a product has many rows, and that is no mistake."""
    frame = frame.assign(title=_tidied(frame, "title", progress))
    frame = refusals.without("products", frame, frame["id"] == "", "no id")
    frame = refusals.without("products", frame, frame["title"] == "", "empty title")
    twice = frame.duplicated("id")
    frame = frame[~twice] if shared else refusals.without("products", frame, twice, "id used before (the first is kept)")
    text = (_tidied(frame, "description", progress) + " " + _tidied(frame, "bullets", progress)).str.strip()
    category = _tidied(frame, "category", progress).str.replace(r"\s*>\s*|\s+/\s+", "/", regex=True)
    family = frame["family"].where(frame["family"] != "", frame["id"]) if "family" in frame else frame["id"]
    features = frame["features"] if "features" in frame else pd.Series("", index=frame.index)
    pairs = zip(features, _tidied(frame, "colour", progress), strict=True)
    shelf = {"id": frame["id"], "title": frame["title"], "text": text, "brand": _tidied(frame, "brand", progress), "category_path": category}
    return pd.DataFrame({**shelf, "family_id": family, "attributes": [attributes(*pair) for pair in pairs]}, index=frame.index)


def _queries(asked: pd.DataFrame | None, judged: pd.DataFrame, refusals: Refusals, progress: bool) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Queries (id, text, and split if given) and judgements that name them by id."""
    alone = asked is None
    if "text" in judged:
        judged = judged.assign(text=_tidied(judged, "text", progress))
    elif alone:
        raise ValueError("queries: the judgements hold no text of queries; give the file that does")
    if alone:
        if "query" not in judged:
            judged = judged.assign(query=judged["text"].map(_text_id))
        asked = judged.drop_duplicates("query")
        first = judged["query"].map(asked.set_index("query")["text"])
        judged = refusals.without("judgements", judged, judged["text"] != first, "its query id has another text before")
        asked = asked.assign(id=asked["query"])
    else:
        asked = asked.assign(text=_tidied(asked, "text", progress))
        by_text = "id" not in asked or "query" not in judged
        if by_text and "text" not in judged:
            raise ValueError("judgements: no column names the query in a way that the queries do; both need a query_id, or both the text")
        if "id" not in asked:
            asked = asked.assign(id=asked["text"].map(_text_id))
        if by_text:
            ids = asked.drop_duplicates("text").set_index("text")["id"].to_dict()
            judged = judged.assign(query=[ids.get(text, "") for text in judged["text"]])
    asked = refusals.without("queries", asked, asked["id"] == "", "no id")
    asked = refusals.without("queries", asked, asked["text"] == "", "empty query")
    asked = refusals.without("queries", asked, asked.duplicated("id"), "id used before (the first is kept)")
    if "split" not in asked and "split" in judged:
        splits = judged.drop_duplicates("query").set_index("query")["split"].to_dict()
        asked = asked.assign(split=[splits.get(id_, "") for id_ in asked["id"]])
    return asked[[name for name in ("id", "text", "split") if name in asked]], judged


def _text_id(text: str) -> str:
    return f"q-{digest(text):016x}"


def _known(judged: pd.DataFrame, asked: pd.DataFrame, shelf: pd.DataFrame, refusals: Refusals) -> pd.DataFrame:
    """Judgements of queries and products that are there."""
    judged = refusals.without("judgements", judged, ~judged["query"].isin(asked["id"]), "its query is missing or was refused")
    return refusals.without("judgements", judged, ~judged["product"].isin(shelf["id"]), "its product is missing or was refused")


def _graded(judged: pd.DataFrame, labels: Mapping[str, int], refusals: Refusals, report: Report) -> pd.DataFrame:
    """Columns query, product, score: one row for each pair."""
    if "grade" not in judged:
        judged = _clicked(judged, refusals, report)
        return judged[["query", "product", "score"]]
    scores = {}
    for text in judged["grade"].unique():
        label = _label(text)
        scores[text] = labels.get(label, -1)
        if scores[text] < 0 and re.fullmatch(r"-?\d+\.\d+", label):
            raise ValueError(f"grade: {text!r} is no grade but a mean; give whole grades, 0 for irrelevant to 3 for exact, or map each: {text}=2")
    judged = judged.assign(score=judged["grade"].map(scores).astype("int64"))
    judged = refusals.without("judgements", judged, judged["score"] < 0, "unknown grade")
    pairs = judged.groupby(["query", "product"], sort=False)["score"]
    judged = refusals.without("judgements", judged, pairs.transform("nunique") > 1, "graded twice, differently (none is kept)")
    judged = refusals.without("judgements", judged, judged.duplicated(["query", "product"]), "graded twice (the first is kept)")
    report.notes.append("grades: as given" + (", so clicks and purchases were not read" if {"clicks", "purchases"} & set(judged) else ""))
    return judged[["query", "product", "score"]]


def _clicked(judged: pd.DataFrame, refusals: Refusals, report: Report) -> pd.DataFrame:
    """Scores from counts; the rule is at the top of the module."""
    kinds = [kind for kind in ("clicks", "impressions", "purchases") if kind in judged]
    for kind in kinds:
        counts = pd.to_numeric(judged[kind], errors="coerce")
        bad = ~(counts >= 0) | (counts % 1 != 0)  # not a number is neither
        judged = refusals.without("judgements", judged, bad, f"{kind} is no count")
    judged = judged.astype(dict.fromkeys(kinds, "float64"))
    signal = "clicks" if "clicks" in kinds else "purchases"
    if "impressions" in kinds:
        judged = refusals.without("judgements", judged, judged["impressions"] == 0, "never shown")
        judged = refusals.without("judgements", judged, judged[signal] > judged["impressions"], f"more {signal} than impressions")
    groups = judged.assign(row=judged.index).groupby(["query", "product"], sort=False, as_index=False)
    pairs = groups.agg({**dict.fromkeys(kinds, "sum"), "row": "first"}).set_index("row")
    strength = pairs[signal].map(math.log1p)
    if "impressions" in kinds:
        rate = pairs[signal].sum() / max(1, pairs["impressions"].sum())
        strength = (pairs[signal] + PRIOR * rate) / (pairs["impressions"] + PRIOR)
    strength = strength.where(pairs[signal] > 0, 0.0)
    best = strength.groupby(pairs["query"]).transform("max").clip(lower=1e-12)
    score = 1 + (strength / best >= 1 / 3).astype("int64") + (strength / best >= 2 / 3)
    score = score.where(pairs[signal] > 0, 0)
    if signal == "clicks" and "purchases" in kinds:
        bought = pairs["purchases"] > 0
        score = score.where(~bought.groupby(pairs["query"]).transform("any"), score.clip(upper=2)).where(~bought, 3)
    report.notes.append(f"grades: from {', '.join(kinds)}")
    return pairs.assign(score=score)


def _without_unanswered(asked: pd.DataFrame, judged: pd.DataFrame, reason: str, refusals: Refusals) -> pd.DataFrame:
    return refusals.without("queries", asked, ~asked["id"].isin(judged.loc[judged["score"] > 0, "query"]), reason)


def spelling(query: str) -> str:
    """`query` without compatibility forms, case, marks and spaces: what is the same here is one query."""
    return "".join(drop_marks(unicodedata.normalize("NFKC", query).casefold()).split()) or query


def _split_queries(asked: pd.DataFrame, shares: Mapping[str, float], seed: int, refusals: Refusals, report: Report) -> pd.DataFrame:
    """`asked` with the column split."""
    key = asked["text"].map(spelling)
    place = key.map(lambda text: digest(f"{seed}/{text}") / 2**64).astype("float64")
    by_hash = pd.Series("train", index=asked.index, dtype=object)
    by_hash = by_hash.mask(place < shares["test"] + shares["validation"], "validation").mask(place < shares["test"], "test")
    if "split" not in asked:
        report.notes.append(f"splits: by hash, {shares['validation']:g} of the queries for validation and {shares['test']:g} for test")
        return asked.assign(split=by_hash)
    known = asked["split"].str.casefold().map(GIVEN_SPLITS)
    kept = refusals.without("queries", asked, known.isna(), "unknown split")
    given, by_hash, key = known[kept.index], by_hash[kept.index], key[kept.index]
    cut = by_hash.where(~by_hash.isin(given.unique()), given).where(given == "train", given)  # cut from train what was not given
    rank = cut.map({split: place for place, split in enumerate(FIRST)})
    final = rank.groupby(key).transform("min").map(dict(enumerate(FIRST)))
    missing = [split for split in ("validation", "test") if split not in set(given)]
    report.notes.append("splits: as given" + (f"; {' and '.join(missing)} cut from train by hash" if missing else ""))
    if moved := int((final != cut).sum()):
        report.notes.append(f"splits: {moved:,} queries that read like one of another split were moved to it (test first, then validation)")
    return kept.assign(split=final.astype(object))


def _split_products(
    shelf: pd.DataFrame, asked: pd.DataFrame, judged: pd.DataFrame, refusals: Refusals, report: Report
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`shelf` with the column split ("" for unjudged families), and the judgements whose query and product are in one split."""
    families = judged["product"].map(shelf.set_index("id")["family_id"])
    wanted = judged["query"].map(asked.set_index("id")["split"])
    rank = wanted.map({split: place for place, split in enumerate(FIRST)})
    relevant = judged["score"] > 0
    claims = rank[relevant].groupby(families[relevant]).min()
    claims = claims.combine_first(rank.groupby(families).min()).map(dict(enumerate(FIRST)))
    claimed = claims.to_dict()
    shelf = shelf.assign(split=[claimed.get(family, "") for family in shelf["family_id"]])
    home = judged["product"].map(shelf.set_index("id")["split"])
    for split in SPLITS:
        asked_there = wanted == split
        crossing = asked_there & (home != split)
        if crossing.any():
            report.notes.append(
                f"splits: {split} lost {int(crossing.sum()):,} of {int(asked_there.sum()):,} judgements "
                f"({int((crossing & relevant).sum()):,} of {int((asked_there & relevant).sum()):,} above 0), whose products are in another split"
            )
    return shelf, refusals.without("judgements", judged, wanted != home, "its product is in the corpus of another split")


def _spread_unjudged(shelf: pd.DataFrame, splits: list[str], seed: int, report: Report) -> pd.DataFrame:
    """`shelf` with every family in one of `splits`: one that has none yet, or one without queries, goes by hash."""
    ends = list(itertools.accumulate(SPREAD[split] for split in splits))
    loose = shelf.loc[~shelf["split"].isin(splits), "family_id"].unique()
    places = {family: digest(f"{seed}/{family}") / 2**64 * ends[-1] for family in loose}
    homes = {family: next(split for split, end in zip(splits, ends, strict=True) if place <= end) for family, place in places.items()}
    report.notes += [f"splits: {split} has no query and is left out" for split in SPLITS if split not in splits]
    return shelf.assign(split=[homes.get(family, split) for family, split in zip(shelf["family_id"], shelf["split"], strict=True)])


def _write(
    output: Path,
    language: str,
    seed: int,
    files: list[str | Path],
    shelf: pd.DataFrame,
    asked: pd.DataFrame,
    judged: pd.DataFrame,
    refusals: Refusals,
    report: Report,
    progress: bool,
) -> None:
    """Write the folder and put it in place at once; fills `report.counts`."""
    names = [Path(path).name for path in files]
    output.parent.mkdir(parents=True, exist_ok=True)
    root = Path(tempfile.mkdtemp(prefix=f".{output.name}.", suffix=".partial", dir=output.parent))
    try:
        home = judged["query"].map(asked.set_index("id")["split"])
        splits = [split for split in SPLITS if (asked["split"] == split).any()]  # `datasets` cannot read a table without rows
        with tqdm(total=len(splits) * len(COLUMNS), unit="table", disable=not progress) as bar:
            for split in splits:
                tables = _tables(language, shelf[shelf["split"] == split], asked[asked["split"] == split], judged[home == split])
                for suffix, rows in tables.items():
                    bar.set_description(f"{language}{suffix} {split}")
                    write_table(table_path(root, language, suffix, split), suffix, rows)
                    bar.update()
                report.counts[split] = {
                    "queries": len(tables[""]),
                    "products": len(tables["-corpus"]),
                    "judgements": len(tables["-qrels"]),
                    "relevant": sum(row["score"] > 0 for row in tables["-qrels"]),
                    "slice:imported": len(tables[""]),
                }
        record = {"files": names, "language": language, "seed": seed, "notes": report.notes, "counts": report.counts, "refused": report.refused}
        (root / "import.json").write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        with (root / "refused.jsonl").open("w", encoding="utf-8") as stream:
            stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in refusals.listed())
        tables_digest = hashlib.sha256(json.dumps(_hashes(root)).encode()).hexdigest()
        (root / "README.md").write_text(_card(language, names, report, tables_digest[:16]), encoding="utf-8")
        hashes = _hashes(root)
        build = {"size": "imported", "seed": seed, "languages": [language], "counts": {language: report.counts}, "sha256": hashes}
        (root / "build.json").write_text(json.dumps(build, indent=2) + "\n", encoding="utf-8")
        root.chmod(0o755)  # mkdtemp makes folders that only their owner may read
        os.replace(root, output)
    except BaseException:  # an interrupt too: nothing half-made stays
        shutil.rmtree(root, ignore_errors=True)
        raise


def _tables(language: str, shelf: pd.DataFrame, asked: pd.DataFrame, judged: pd.DataFrame) -> dict[str, list[dict[str, Any]]]:
    """The rows of the four tables of one split."""
    answers: dict[str, tuple[list[str], list[int]]] = {id_: ([], []) for id_ in asked["id"]}
    for query, product, score in zip(judged["query"], judged["product"], judged["score"].tolist(), strict=True):
        answers[query][0].append(product)
        answers[query][1].append(score)
    rows = [
        {
            "query_id": id_,
            "query": text,
            "language": language,
            "script": script_of(text, language),
            "slice": ["imported"],
            "english": "",
            "translations": [],
            "product_ids": answers[id_][0],
            "relevances": answers[id_][1],
            "clean": text,
            "intent": "",
        }
        for id_, text in zip(asked["id"], asked["text"], strict=True)
    ]
    corpus = shelf.rename(columns={"id": "_id"}).drop(columns="split").assign(english="").to_dict("records")
    return {
        "": rows,
        "-corpus": [{**product, "translations": []} for product in corpus],
        "-queries": [{"_id": row["query_id"], "text": row["query"]} for row in rows],
        "-qrels": [
            {"query-id": row["query_id"], "corpus-id": product, "score": score}
            for row in rows
            for product, score in zip(row["product_ids"], row["relevances"], strict=True)
        ],
    }


def _hashes(root: Path) -> dict[str, str]:
    """Relative path → sha256 of every file under `root`."""
    paths = sorted(path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def _card(language: str, files: list[str], report: Report, content: str) -> str:
    """The README: the front matter that `datasets` reads, and what is in the folder; `content` is a digest of the tables."""
    front = {
        "license": "unknown",
        "language": [language],
        "task_categories": ["text-retrieval"],
        "tags": ["product-search"],
        "configs": configs([language], report.counts, content),
    }
    kinds = ("queries", "products", "judgements", "relevant")
    rows = [f"| {split} | {' | '.join(f'{counted[kind]:,}' for kind in kinds)} |" for split, counted in report.counts.items()]
    return CARD.format(
        front=yaml.safe_dump(front, sort_keys=False, allow_unicode=True),
        name=LANGUAGES[language].name,
        files=", ".join(files),
        counts="\n".join(rows),
        notes="\n".join(f"- {note}" for note in report.notes),
    )
