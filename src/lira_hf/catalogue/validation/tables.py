"""The tables of a folder: which files they are, whether they can be read, and their batches."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from lira_hf.catalogue.splits import SPLITS
from lira_hf.catalogue.tables import COLUMNS
from lira_hf.catalogue.validation.findings import Findings

BATCHES = {"": 1 << 15, "-corpus": 1 << 15, "-queries": 1 << 15, "-qrels": 1 << 19}  # rows held at once
SHARD = re.compile(rf"({'|'.join(SPLITS)})-(\d{{5}})-of-(\d{{5}})\.parquet")
OPTIONAL = {"clean"}  # columns that an imported set may lack


@dataclass(frozen=True)
class Table:
    """One split of one config. `rows` counts what the files say; `usable`: all shards are there, with all columns."""

    code: str
    suffix: str
    split: str
    shards: tuple[Path, ...] = ()
    rows: int = 0
    usable: bool = False

    @property
    def config(self) -> str:
        """The config, as README.md names it."""
        return f"{self.code}{self.suffix}"

    @property
    def where(self) -> str:
        """The place, as the report names it."""
        return f"{self.config}/{self.split}"

    def batches(self, bar: tqdm) -> Iterator[pa.RecordBatch]:
        """The rows, whose content is sound UTF-8; moves `bar` by them. Raises Unreadable."""
        for path in self.shards:
            try:
                with pq.ParquetFile(path) as file:
                    present = [name for name in COLUMNS[self.suffix] if name in file.schema_arrow.names]
                    for batch in file.iter_batches(BATCHES[self.suffix], columns=present):
                        batch.validate(full=True)  # reading checks neither UTF-8 nor offsets
                        yield batch
                        bar.update(batch.num_rows)
            except (OSError, pa.ArrowException) as error:
                raise Unreadable(f"{self.config}/{path.name}", one_line(error)) from error


class Unreadable(Exception):
    """A shard whose content is broken: where it is, and what is wrong."""


def one_line(error: Exception) -> str:
    """The message of `error`, short."""
    return " ".join(str(error).split())[:200]


def survey(folder: Path, code: str, splits: Sequence[str], built: bool, found: Findings) -> dict[tuple[str, str], Table]:
    """(suffix, split) → table of one language, for `splits` and whatever else is there of `SPLITS`.

    Reports what is wrong with files and schemas. A built set may not lack the columns that an imported one may.
    """
    files = {suffix: sorted((folder / f"{code}{suffix}").glob("*.parquet")) for suffix in COLUMNS}
    names = {path: SHARD.fullmatch(path.name) for paths in files.values() for path in paths}
    wanted = {*splits, *(name[1] for name in names.values() if name)}
    tables = {}
    for suffix, paths in files.items():
        config = f"{code}{suffix}"
        if not (folder / config).is_dir():
            found.add("missing-config", config, "there is no such folder")
        for path in paths:
            if not names[path]:
                found.add("stray-file", f"{config}/{path.name}", f"allowed: {'|'.join(SPLITS)}-00000-of-00001.parquet and so on")
        for split in SPLITS:
            shards = {path: name for path in paths if (name := names[path]) and name[1] == split}
            if shards:
                tables[suffix, split] = _table(code, suffix, split, shards, built, found)
            elif split in wanted:
                tables[suffix, split] = Table(code, suffix, split)
                if (folder / config).is_dir():
                    found.add("missing-split", f"{config}/{split}", f"there is no {split}-*.parquet")
    return tables


def _table(code: str, suffix: str, split: str, shards: Mapping[Path, re.Match[str]], built: bool, found: Findings) -> Table:
    rows, usable = 0, _numbered(f"{code}{suffix}/{split}", list(shards.values()), found)
    for path in shards:
        where = f"{code}{suffix}/{path.name}"
        try:
            with pq.ParquetFile(path) as file:
                rows += file.metadata.num_rows
                usable &= _has_columns(where, file.schema_arrow, COLUMNS[suffix], set() if built else OPTIONAL, found)
        except (OSError, pa.ArrowException) as error:
            found.add("unreadable-shard", where, one_line(error))
            usable = False
    if usable and not rows:
        found.add("empty-split", f"{code}{suffix}/{split}", "0 rows")
    return Table(code, suffix, split, tuple(shards), rows, usable)


def _numbered(where: str, names: Sequence[re.Match[str]], found: Findings) -> bool:
    """Whether the shards count from 0 to n-1 of n."""
    totals, numbers = sorted({int(name[3]) for name in names}), {int(name[2]) for name in names}
    if len(totals) > 1:
        found.add("stray-file", where, f"shards of {' and of '.join(map(str, totals))}; one set of them is left over")
        return False
    wanted = set(range(totals[0]))
    for kind, wrong in (("missing-shard", wanted - numbers), ("stray-file", numbers - wanted)):
        if wrong:
            found.add(kind, where, f"number {min(wrong)} of {totals[0]}, which count from 0", len(wrong))
    return numbers == wanted


def _has_columns(where: str, schema: pa.Schema, wanted: Mapping[str, Any], optional: set[str], found: Findings) -> bool:
    """Whether a shard can be read; a column that the layout does not know does not hinder that."""
    kinds, times = {column.name: _kind(column.type) for column in schema}, Counter(schema.names)
    wrong = {name: ("missing-column", repr(name)) for name in wanted if name not in kinds and name not in optional}
    wrong |= {name: ("column-type", f"{name!r} is {kinds[name]}, not {kind}") for name, kind in wanted.items() if kinds.get(name, kind) != kind}
    wrong |= {name: ("extra-column", f"{name!r} a second time") for name in wanted if times[name] > 1}
    for kind, detail in [*wrong.values(), *(("extra-column", repr(name)) for name in kinds if name not in wanted)]:
        found.add(kind, where, detail)
    return not wrong


def _kind(type_: pa.DataType) -> Any:
    """An Arrow type in the notation of `COLUMNS`."""
    if pa.types.is_list(type_):
        return [_kind(type_.value_type)]
    if pa.types.is_struct(type_):
        return {inner.name: _kind(inner.type) for inner in type_}
    return str(type_)
