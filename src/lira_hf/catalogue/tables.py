"""The four Parquet tables of a language: their columns, where they lie, and how they are written and read."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

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
        "intent": "string",  # JSON: {"kind": ..., "type": ..., "wanted": {axis or "brand": value}}
    },
    "-corpus": {
        "_id": "string",
        "title": "string",
        "text": "string",
        "brand": "string",
        "category_path": "string",  # department/category/type
        "family_id": "string",
        "attributes": "string",  # JSON: {axis: value}
        "english": "string",
        "translations": [TRANSLATION],
    },
    "-queries": {"_id": "string", "text": "string"},
    "-qrels": {"query-id": "string", "corpus-id": "string", "score": "int32"},
}
# Leaf columns whose values come again and again, as Parquet names them; to look for repetitions in the others only costs time.
REPEATED = {
    "": ["language", "script", "slice.list.element", "translations.list.element.source", "product_ids.list.element"],
    "-corpus": ["brand", "category_path", "family_id", "translations.list.element.source"],
    "-queries": [],
    "-qrels": ["query-id", "corpus-id"],
}
# A stream gives its first row when a whole group has come, so groups of the wide tables are small.
GROUP_ROWS = {"": 2_000, "-corpus": 2_000, "-queries": 20_000, "-qrels": 100_000}


def table_path(root: Path, language: str, suffix: str, split: str, shard: int = 0, shards: int = 1) -> Path:
    """Where `datasets` and mteb look for a table: th/train-00000-of-00001.parquet, th-corpus/..."""
    return root / f"{language}{suffix}" / f"{split}-{shard:05d}-of-{shards:05d}.parquet"


def by_column(suffix: str, rows: Sequence[tuple[Any, ...]]) -> dict[str, Sequence[Any]]:
    """The columns of `COLUMNS[suffix]` from rows that hold them in that order."""
    return dict(zip(COLUMNS[suffix], zip(*rows, strict=True) if rows else [()] * len(COLUMNS[suffix]), strict=True))


def write_table(path: Path, suffix: str, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write `rows` with the columns of `COLUMNS[suffix]`; returns how many there were. Equal rows give equal bytes."""
    import pyarrow as pa  # only here and below: the package stays cheap to import

    return _write(path, suffix, pa.Table.from_pylist(list(rows), schema=arrow_schema(COLUMNS[suffix])))


def write_columns(path: Path, suffix: str, columns: Mapping[str, Sequence[Any]]) -> int:
    """The same from columns, several times faster; `translations` may be tuples in the order of `TRANSLATION`."""
    import pyarrow as pa

    schema = arrow_schema(COLUMNS[suffix])
    return _write(path, suffix, pa.Table.from_arrays([_array(columns[field.name], field.type) for field in schema], schema=schema))


def read_rows(
    folder: Path, language: str, suffix: str, split: str, columns: Sequence[str] | None = None, limit: int | None = None
) -> tuple[int, list[dict[str, Any]]]:
    """How many rows a table has, and the first `limit` of them (None: all), over all of its shards in order.

    Raises ValueError where there are none.
    """
    import pyarrow.parquet as pq

    shards = sorted((folder / f"{language}{suffix}").glob(f"{split}-*.parquet"))
    total = sum(pq.read_metadata(shard).num_rows for shard in shards)
    if not total:
        raise ValueError(f"folder: {str(folder)!r} has no rows in {language}{suffix}/{split}-*.parquet; give a folder of `lira-hf data build`")
    rows: list[dict[str, Any]] = []
    for shard in shards:
        for batch in pq.ParquetFile(shard).iter_batches(columns=columns):
            rows += batch.to_pylist()
            if limit is not None and len(rows) >= limit:
                return total, rows[:limit]
    return total, rows


def named(ids: Sequence[str], numbers: Sequence[Sequence[int]]) -> pa.ListArray:
    """A list column of ids, from lists of their numbers."""
    import pyarrow as pa

    flat = pa.array(itertools.chain.from_iterable(numbers), pa.int32(), size=sum(map(len, numbers)))
    return pa.ListArray.from_arrays(_offsets(numbers), pa.array(ids).take(flat))


def qrels_of(columns: Mapping[str, Any]) -> dict[str, pa.Array]:
    """The columns of the `-qrels` table that say the same as training rows."""
    import numpy as np
    import pyarrow as pa

    products: pa.ListArray = columns["product_ids"]
    rows = np.repeat(np.arange(len(products)), products.value_lengths().to_numpy())
    scores = pa.array(itertools.chain.from_iterable(columns["relevances"]), pa.int32(), size=len(rows))
    return {"query-id": pa.array(columns["query_id"]).take(pa.array(rows)), "corpus-id": products.flatten(), "score": scores}


def arrow_schema(columns: Mapping[str, Any]) -> pa.Schema:
    """The schema of columns that are written down as in `COLUMNS`."""
    import pyarrow as pa

    def arrow_type(kind: Any) -> pa.DataType:
        if isinstance(kind, list):
            return pa.list_(arrow_type(kind[0]))
        if isinstance(kind, dict):
            return pa.struct([(name, arrow_type(inner)) for name, inner in kind.items()])
        return pa.type_for_alias(kind)

    return pa.schema([(name, arrow_type(kind)) for name, kind in columns.items()])


def _array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    import pyarrow as pa

    if isinstance(values, pa.Array):
        return values
    if pa.types.is_list(kind):
        return pa.ListArray.from_arrays(_offsets(values), _array(list(itertools.chain.from_iterable(values)), kind.value_type))
    if pa.types.is_struct(kind):
        fields = zip(*values, strict=True) if values else [()] * kind.num_fields
        return pa.StructArray.from_arrays([_array(of, field.type) for of, field in zip(fields, kind, strict=True)], fields=list(kind))
    return pa.array(values, kind)


def _offsets(lists: Sequence[Sequence[Any]]) -> pa.Array:
    import pyarrow as pa

    return pa.array(itertools.accumulate(map(len, lists), initial=0), pa.int32(), size=len(lists) + 1)


def _write(path: Path, suffix: str, table: pa.Table) -> int:
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    pq.write_table(table, part, compression="zstd", row_group_size=GROUP_ROWS[suffix], use_dictionary=REPEATED[suffix])
    os.replace(part, path)  # a killed build must not take half a shard for a whole one
    return table.num_rows
