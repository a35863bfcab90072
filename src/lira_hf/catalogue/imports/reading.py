"""Files of a shop as frames: the recognised columns, named as in `FIELDS`, every cell a text, the index the row in the file."""

from __future__ import annotations

import csv
import functools
import gzip
import io
import itertools
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lira_hf.catalogue.imports.report import Report

# What is read, to the column names under which it is looked for, in this order; case, spaces and hyphens do not count.
FIELDS: dict[str, dict[str, str]] = {
    "products": {
        "id": "product_id product_uid _id id sku item_id asin",
        "title": "product_title product_name title name item_name",
        "description": "product_description description text",
        "bullets": "product_bullet_point bullet_points bullet_point",
        "brand": "product_brand brand vendor",
        "category": "category_hierarchy category_path category product_category google_product_category product_type product_class",
        "family": "family_id family item_group_id parent_id parent_sku parent_asin",
        "colour": "product_color color colour",
        "features": "product_features features attributes",
        "locale": "product_locale locale",
    },
    "queries": {
        "id": "query_id qid _id id",
        "text": "query query_text search_term search_query keyword text",
        "split": "split",
        "locale": "product_locale query_locale locale",
    },
    "judgements": {
        "query": "query_id qid",
        "text": "query query_text search_term search_query keyword",
        "product": "product_id product_uid corpus_id sku item_id asin doc_id",
        "grade": "esci_label label grade relevance score",
        "clicks": "clicks click_count",
        "impressions": "impressions impression_count views",
        "purchases": "purchases purchase_count orders",
        "split": "split",
        "locale": "product_locale query_locale locale",
    },
}
REQUIRED = {  # of each group, one at least
    "products": (("id",), ("title",)),
    "queries": (("text",),),
    "judgements": (("query", "text"), ("product",), ("grade", "clicks", "purchases")),
}
AS_JUDGEMENTS = {"id": "query"}  # fields of queries that go by another name where judgements hold them
CELL = 1 << 20  # characters of a CSV cell, at most: what is longer is a quote that nobody closed
NOT_UTF8 = "not UTF-8; save the file as UTF-8"

Choose = Callable[[Sequence[str]], dict[str, str]]  # the columns of a file → field → column
Refuse = Callable[[str, list[dict[str, Any]]], None]
Rows = tuple[dict[str, str], dict[int, list[str]]]  # field → column, and row in the file → the cells of the fields


def own_columns(columns: Mapping[str, str] | None, alone: bool) -> dict[str, dict[str, str]]:
    """Kind → field → the column that the caller named. With `alone`, what is named for queries is meant for the judgements' file."""
    named: dict[str, dict[str, str]] = {kind: {} for kind in FIELDS}
    for place, column in (columns or {}).items():
        kind, _, name = place.partition(".")
        if name not in FIELDS.get(kind, ()):
            allowed = ", ".join(f"{kind}.{name}" for kind, fields in FIELDS.items() for name in fields)
            raise ValueError(f"columns: {place!r} is not known; allowed: {allowed}")
        if kind == "queries" and alone:
            kind, name = "judgements", AS_JUDGEMENTS.get(name, name)
        named[kind][name] = column
    return named


def read(path: str | Path, kind: str, named: Mapping[str, str], report: Report) -> pd.DataFrame:
    """The frame of a file of products, queries or judgements. Raises ValueError for a wrong file, or one without the columns."""
    path = Path(path)
    name = path.name.lower().removesuffix(".gz")
    reader = next((reader for suffix, reader in READERS.items() if name.endswith(suffix)), None)
    if not path.is_file():
        raise ValueError(f"{kind}: there is no file {str(path)!r}")
    if not reader or path.name.lower().endswith(".parquet.gz"):
        raise ValueError(f"{kind}: {path.name!r} cannot be read; allowed are .csv, .tsv, .jsonl, each also with .gz, and .parquet")
    try:
        taken, rows = reader(path, functools.partial(_taken, kind, named), functools.partial(report.refuse, kind))
    except (ValueError, OSError, EOFError, csv.Error) as error:  # what pyarrow raises is one of the first two; EOFError: a cut .gz
        raise ValueError(f"{kind}: {path.name!r}: {error}") from error
    report.notes.append(f"{kind}: {len(rows):,} rows of {path.name}; {', '.join(f'{name} from {column!r}' for name, column in taken.items())}")
    return pd.DataFrame(list(rows.values()), index=pd.Index(rows, dtype="int64"), columns=list(taken), dtype=object)


def _taken(kind: str, named: Mapping[str, str], found: Sequence[str]) -> dict[str, str]:
    """Field → column of the file. Raises ValueError where a column is missing."""
    plain = {re.sub(r"[\s-]+", "_", name.strip().casefold()): name for name in reversed(found) if name not in named.values()}
    taken = {}
    for name, accepted in FIELDS[kind].items():
        if name in named:
            if named[name] not in found:
                raise ValueError(f"no column {named[name]!r}; found {', '.join(map(repr, found))}")
            taken[name] = named[name]
        elif known := next((key for key in accepted.split() if key in plain), None):
            taken[name] = plain[known]
    for group in REQUIRED[kind]:
        if not any(name in taken for name in group):
            accepted = ", ".join(key for name in group for key in FIELDS[kind][name].split())
            raise ValueError(
                f"no column for {' or '.join(group)}; found {', '.join(map(repr, found)) or 'none'}; "
                f"accepted are {accepted}, or name yours as {kind}.{group[0]}"
            )
    return taken


def _opened(path: Path) -> Any:
    return (gzip.open if path.suffix.lower() == ".gz" else open)(path, "rb")


def _read_csv(path: Path, choose: Choose, refuse: Refuse) -> Rows:
    """A row is counted as a spreadsheet counts it: the header is 1, and a cell may have several lines."""
    rows = {}
    csv.field_size_limit(CELL)
    # Bytes that are no UTF-8 are escaped: they cost their row, not the file.
    with _opened(path) as stream, io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline="") as text:
        head = text.readline()
        if head.startswith(("\udcff\udcfe", "\udcfe\udcff")):
            raise ValueError("it is UTF-16; save it as UTF-8")
        delimiter = "\t" if path.name.lower().endswith((".tsv", ".tsv.gz")) else max(",\t;", key=head.count)
        lines = csv.reader(itertools.chain([head], text), delimiter=delimiter)
        found = next(lines, [])
        if len(set(found)) != len(found):
            raise ValueError(f"two columns have the same name: {', '.join(found)}")
        taken = choose(found)
        places = [found.index(column) for column in taken.values()]
        for number, cells in enumerate(lines, start=2):
            if len(cells) == len(found) and _is_utf8(*(cells[place] for place in places)):
                rows[number] = [cells[place].strip() for place in places]
            elif cells:
                raw = delimiter.join(cells).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
                reason = NOT_UTF8 if len(cells) == len(found) else f"{len(cells)} fields instead of {len(found)}"
                refuse(reason, [{"row": number, "text": raw}])
    return taken, rows


def _is_utf8(*cells: str) -> bool:
    try:
        "".join(cells).encode()
    except UnicodeEncodeError:
        return False
    return True


def _read_jsonl(path: Path, choose: Choose, refuse: Refuse) -> Rows:
    objects: dict[int, dict[str, Any]] = {}
    with _opened(path) as stream:
        for number, line in enumerate(stream, start=1):
            reason, value = "no JSON object", None
            try:
                value = json.loads(line.decode("utf-8-sig")) if line.strip() else None
            except UnicodeDecodeError:
                reason = NOT_UTF8
            except json.JSONDecodeError:
                reason = "not JSON"
            if isinstance(value, dict):
                objects[number] = value
            elif line.strip():
                refuse(reason, [{"row": number, "text": line[:400].decode("utf-8", "replace").strip()}])
    taken = choose(list(dict.fromkeys(name for value in objects.values() for name in value)))
    return taken, {number: [as_text(value.get(column), name) for name, column in taken.items()] for number, value in objects.items()}


def _read_parquet(path: Path, choose: Choose, refuse: Refuse) -> Rows:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    taken = choose(file.schema_arrow.names)
    table = file.read(columns=sorted(set(taken.values())))
    cells = [[as_text(value, name) for value in table[column].to_pylist()] for name, column in taken.items()]
    return taken, dict(enumerate(map(list, zip(*cells, strict=True)), start=1))


READERS = {".csv": _read_csv, ".tsv": _read_csv, ".jsonl": _read_jsonl, ".parquet": _read_parquet}


def as_text(value: Any, name: str = "") -> str:
    """A typed cell of the field `name` as a CSV file would hold it: nothing as "", 12.0 as "12", features as JSON."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, dict):
        return json.dumps({str(key): as_text(inner) for key, inner in value.items()}, ensure_ascii=False)
    if isinstance(value, list):
        return {"features": "|", "category": "/"}.get(name, " ").join(map(as_text, value))
    return str(value).encode("utf-8", "ignore").decode().strip()  # half a surrogate pair, which JSON may hold, is no text


def of_locale(frames: Mapping[str, pd.DataFrame], locale: str | None, report: Report) -> dict[str, pd.DataFrame]:
    """The frames, of one locale. Raises ValueError where there are several to choose from, or none."""
    found = sorted({value for frame in frames.values() if "locale" in frame for value in frame["locale"].unique()})
    if locale is None and len(found) > 1:
        raise ValueError(f"locale: the files hold {', '.join(found)}; name the one to import")
    if locale is not None and locale not in found:
        raise ValueError(f"locale: {locale!r} is in no file; found: {', '.join(found) or 'no column of locales'}")
    return {
        kind: frame if locale is None or "locale" not in frame else report.without(kind, frame, frame["locale"] != locale, "another locale")
        for kind, frame in frames.items()
    }
