"""The four Parquet tables of a language: their columns, and the one way they are written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

TRANSLATION = {"text": "string", "source": "string", "semantic": "int32", "emotional": "int32", "pragmatic": "int32"}
# Column to type; a list of one type is a list column, a mapping a struct. The empty suffix holds the training rows.
COLUMNS: dict[str, dict[str, Any]] = {
    "": {
        "query_id": "string",
        "query": "string",
        "language": "string",
        "script": "string",  # ISO 15924, of the query as typed: "Latn" for a romanised one
        "slice": ["string"],
        "english": "string",
        "translations": [TRANSLATION],
        "product_ids": ["string"],
        "relevances": ["int32"],  # 0 to 3, one for each product id
        "clean": "string",  # the query before noise
        "intent": "string",  # JSON: {"type": ..., "wanted": {axis or "brand": value}}
    },
    "-corpus": {
        "_id": "string",
        "title": "string",
        "text": "string",
        "brand": "string",
        "category_path": "string",
        "family_id": "string",
        "attributes": "string",  # JSON: {axis: value}
        "english": "string",
        "translations": [TRANSLATION],
    },
    "-queries": {"_id": "string", "text": "string"},
    "-qrels": {"query-id": "string", "corpus-id": "string", "score": "int32"},
}


def table_path(root: Path, language: str, suffix: str, split: str) -> Path:
    """Where `datasets` and mteb look for a table: th/train-00000-of-00001.parquet, th-corpus/..."""
    return root / f"{language}{suffix}" / f"{split}-00000-of-00001.parquet"


def write_table(path: Path, suffix: str, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write `rows` with the columns of `COLUMNS[suffix]`; returns how many there were. Equal rows give equal bytes."""
    import pyarrow as pa  # only here: the package stays cheap to import
    import pyarrow.parquet as pq

    def arrow_type(kind: Any) -> pa.DataType:
        if isinstance(kind, list):
            return pa.list_(arrow_type(kind[0]))
        if isinstance(kind, dict):
            return pa.struct([(name, arrow_type(inner)) for name, inner in kind.items()])
        return pa.type_for_alias(kind)

    schema = pa.schema([(name, arrow_type(kind)) for name, kind in COLUMNS[suffix].items()])
    table = pa.Table.from_pylist(list(rows), schema=schema)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="zstd")
    return table.num_rows
