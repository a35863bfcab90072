"""What is to be translated or judged, and where it goes afterwards: a data set folder, or a table file.

Both are read in batches of rows. Written is the same data set, or one table, with the `translations` column filled in.
"""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from lira_hf.catalogue.tables import GROUP_ROWS, TRANSLATION
from lira_hf.translation.placing import describe, recover, replacing

if TYPE_CHECKING:
    import pyarrow as pa

# The tables with translations, and the columns that make up their text. A product's title and text are read as one, as in training.
TEXT = {"": ("query",), "-corpus": ("title", "text")}
BATCH_ROWS = 2_000
DATA, SHEET = "data", "translations.parquet"  # in an output folder
SHEET_COLUMNS = ("id", "text", "language", "translations")
CELL = 1 << 20  # characters of a CSV cell, at most: what is longer is a quote that nobody closed


@dataclass(frozen=True)
class Source:
    """A row of the input. `candidates` are the translations that stand there, each with the fields of `tables.TRANSLATION`."""

    text: str  # may be empty: such a row is carried along and never asked for
    language: str
    candidates: tuple[Mapping[str, Any], ...] = ()


class Result(Protocol):
    """What is written into the `translations` of rows, and what the card says of it in the end; see `placing.describe`."""

    def __call__(self, rows: Sequence[Source]) -> list[list[dict[str, Any]]]: ...

    def note(self) -> dict[str, Any]: ...


class DataFolder:
    """A data set in the layout of `lira-hf data build`. Its parts are its languages, of which `languages` chooses some."""

    def __init__(self, folder: Path, languages: Sequence[str] | None = None):
        self.folder = folder
        found = {path.parent.name.removesuffix("-corpus") for path in folder.glob("*/*.parquet")}
        there = sorted(code for code in found if not code.startswith(".") and not code.endswith(("-queries", "-qrels")))
        if not there:
            raise ValueError(f"input: {str(folder)!r} holds no tables such as th/train-*.parquet; give a folder of `lira-hf data build`")
        unknown = [code for code in languages or () if code not in there]
        if unknown:
            raise ValueError(f"languages: {unknown[0]!r} is not in {str(folder)!r}; there are {', '.join(there)}")
        self.parts: Sequence[str | None] = [code for code in there if languages is None or code in languages]
        self._tables = [
            (path, code, suffix) for code in self.parts for suffix in TEXT for path in sorted((folder / f"{code}{suffix}").glob("*.parquet"))
        ]
        for path, _, suffix in self._tables:
            _check_columns(path, (*TEXT[suffix], "translations"))

    def count(self) -> int:
        """How many rows the chosen languages have."""
        import pyarrow.parquet as pq

        return sum(pq.read_metadata(path).num_rows for path, _, _ in self._tables)

    def batches(self, part: str | None) -> Iterator[list[Source]]:
        """The rows of a language."""
        for path, code, suffix in self._tables:
            if code == part:
                for batch in _read(path, [*TEXT[suffix], "translations"]):
                    yield _sources(batch, code, suffix)

    def brands(self) -> set[str]:
        """The brands of the products, for those languages whose letters do not tell a brand from a word."""
        import pyarrow.parquet as pq

        corpora = [path for path, _, suffix in self._tables if suffix == "-corpus" and "brand" in pq.read_schema(path).names]
        return {brand for path in corpora for brand in pq.read_table(path, columns=["brand"])["brand"].unique().to_pylist() if brand}

    def write(self, output: Path, result: Result) -> Path:
        """The data set with the translations of `result` as `output`/data, and its note in the card and in build.json.

        Languages that were not chosen are carried along as they are. What stood there goes when the new one is whole.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        filled = {path: (code, suffix) for path, code, suffix in self._tables}
        others = [path for path in self.folder.rglob("*") if path.is_file() and path not in filled]
        with replacing(output / DATA, folder=True) as root:
            for path in (*filled, *sorted(others)):
                name = path.relative_to(self.folder)
                if any(part.startswith(".") for part in name.parts):
                    continue
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                if path not in filled:
                    shutil.copyfile(path, root / name)
                    continue
                code, suffix = filled[path]
                schema = pq.read_schema(path).remove_metadata()
                place, kind = schema.get_field_index("translations"), translations_type()
                schema = schema.set(place, pa.field("translations", kind))
                with pq.ParquetWriter(root / name, schema, compression="zstd") as writer:
                    for batch in _read(path):
                        column = pa.array(result(_sources(batch, code, suffix)), kind)
                        columns = [*batch.columns[:place], column, *batch.columns[place + 1 :]]
                        writer.write_batch(pa.record_batch(columns, schema), GROUP_ROWS[suffix])
            describe(root, result.note())
        return output / DATA


class TableFile:
    """A CSV, TSV, JSONL (each also .gz) or Parquet file with columns text and language, perhaps also id and translations."""

    parts: Sequence[str | None] = (None,)  # its languages may be mixed: it is read in one go

    def __init__(self, path: Path, languages: Sequence[str] | None = None):
        self.path, self.languages = path, languages
        found = [source.language for batch in self.batches(None) for source in batch]  # a mistake in the last row shows now, not after a night
        self._rows = len(found)
        unknown = [code for code in languages or () if code not in found]
        if unknown or not found:
            raise ValueError(f"languages: {unknown[0]!r} is in no row of {str(path)!r}" if unknown else f"input: {str(path)!r} has no rows")

    def count(self) -> int:
        """How many rows there are in the chosen languages."""
        return self._rows

    def batches(self, part: str | None) -> Iterator[list[Source]]:
        """The rows of the chosen languages, in the order of the file."""
        for _, sources in self._read():
            yield [source for source in sources if self._is_chosen(source)]

    def brands(self) -> set[str]:
        """None: a table of texts does not name them."""
        return set()

    def write(self, output: Path, result: Result) -> Path:
        """Each row as id, text, language and translations in `output`/translations.parquet."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        types = (pa.string(), pa.string(), pa.string(), translations_type())
        schema = pa.schema(list(zip(SHEET_COLUMNS, types, strict=True)))
        with replacing(output / SHEET, folder=False) as part, pq.ParquetWriter(part, schema, compression="zstd") as writer:
            for ids, sources in self._read():
                composed = iter(result([source for source in sources if self._is_chosen(source)]))
                translations = [next(composed) if self._is_chosen(source) else list(source.candidates) for source in sources]
                columns = (ids, [source.text for source in sources], [source.language for source in sources], translations)
                writer.write_batch(pa.record_batch([pa.array(column, kind) for column, kind in zip(columns, types, strict=True)], schema))
        return output / SHEET

    def _is_chosen(self, source: Source) -> bool:
        return self.languages is None or source.language in self.languages

    def _read(self) -> Iterator[tuple[list[str], list[Source]]]:
        """Ids and rows, some thousand at a time. Raises ValueError for a wrong file."""
        import pyarrow as pa

        reader = next(reader for suffix, reader in READERS.items() if self.path.name.removesuffix(".gz").endswith(suffix))
        try:
            rows = ((number, _source(row, number), as_text(row.get("id")) or str(number)) for number, row in enumerate(reader(self.path), start=1))
            while some := list(itertools.islice(rows, BATCH_ROWS)):
                yield [id_ for _, _, id_ in some], [source for _, source, _ in some]
        except (pa.ArrowException, csv.Error, ValueError, OSError, EOFError) as error:  # EOFError: a cut .gz
            raise ValueError(f"input: {str(self.path)!r}: {' '.join(str(error).split())}") from error


def open_input(path: str | Path, languages: Sequence[str] | None = None) -> DataFolder | TableFile:
    """The input at `path`: a data set, a table file, or the output folder of an earlier run, whose result is meant.

    Raises ValueError where there is none of these, or something is missing in it.
    """
    path = Path(path)
    recover(path / DATA if path.is_dir() else path)  # what a killed run was about to put there
    if path.is_dir():
        if (path / SHEET).is_file():
            return TableFile(path / SHEET, languages)
        return DataFolder(path / DATA if (path / DATA).is_dir() else path, languages)
    if not path.is_file():
        raise ValueError(f"input: there is no file or folder {str(path)!r}")
    if not path.name.removesuffix(".gz").endswith(tuple(READERS)) or path.name.endswith(".parquet.gz"):
        raise ValueError(f"input: {path.name!r} cannot be read; allowed are .csv, .tsv, .jsonl, each also with .gz, .parquet, and data set folders")
    return TableFile(path, languages)


def as_text(value: Any) -> str:
    """A cell as text: nothing as "", without surrounding white space and without half surrogate pairs, which JSON may hold."""
    return "" if value is None else str(value).encode("utf-8", "ignore").decode().strip()


def translations_type() -> pa.DataType:
    """The Arrow type of the column `translations`."""
    import pyarrow as pa

    return pa.list_(pa.struct([(name, pa.type_for_alias(kind)) for name, kind in TRANSLATION.items()]))


def _check_columns(path: Path, names: Sequence[str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        missing = [name for name in names if name not in pq.read_schema(path).names]
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"input: {str(path)!r} cannot be read ({str(error).splitlines()[0]})") from error
    if missing:
        raise ValueError(f"input: {str(path)!r} has no column {missing[0]!r}; see `lira-hf data validate`")


def _read(path: Path, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        yield from file.iter_batches(BATCH_ROWS, columns=columns)


def _sources(batch: pa.RecordBatch, language: str, suffix: str) -> list[Source]:
    columns = [batch[name].to_pylist() for name in TEXT[suffix]]
    texts = [as_text(" ".join(part for part in parts if part)) for parts in zip(*columns, strict=True)]
    return [Source(text, language, tuple(given or ())) for text, given in zip(texts, batch["translations"].to_pylist(), strict=True)]


def _source(row: Mapping[str, Any], number: int) -> Source:
    """A row of a table file, which is row `number` of it. Raises ValueError where something is missing."""
    missing = [name for name in ("text", "language") if name not in row]
    if missing:
        raise ValueError(f"row {number} has no {missing[0]!r}, only {', '.join(row) or 'nothing'}; columns text and language are needed, id may be")
    language = as_text(row["language"])
    if not language:
        raise ValueError(f"row {number} has an empty language; give a code such as th")
    given = [{"text": one, "source": ""} if isinstance(one, str) else one for one in row.get("translations") or ()]
    if not all(isinstance(one, dict) and isinstance(one.get("text"), str) for one in given):
        raise ValueError(f"row {number} has translations {given!r}; allowed is a list of texts, or of objects with text and source")
    return Source(as_text(row["text"]), language, tuple({name: one.get(name) for name in TRANSLATION} for one in given))


def _opened(path: Path) -> TextIO:
    stream = (gzip.open if path.name.endswith(".gz") else open)(path, "rb")
    return io.TextIOWrapper(stream, "utf-8-sig", newline="")


def _read_csv(path: Path) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(CELL)
    with _opened(path) as text:
        head = text.readline()
        delimiter = "\t" if ".tsv" in path.suffixes else max(",\t;", key=head.count)
        lines = csv.reader(itertools.chain([head], text), delimiter=delimiter, strict=True)
        names = [name.strip() for name in next(lines, [])]
        for number, cells in enumerate(filter(None, lines), start=1):
            if len(cells) != len(names):
                raise ValueError(f"row {number} has {len(cells)} cells, the header has {len(names)}")
            row = dict(zip(names, cells, strict=True))
            if row.get("translations"):
                row["translations"] = _json(row["translations"], list, f"translations of row {number}")
            yield row


def _read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    with _opened(path) as text:
        for number, line in enumerate(text, start=1):
            if line.strip():
                yield _json(line, dict, f"line {number}")


def _json(text: str, kind: type, what: str) -> Any:
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{what}: not JSON ({error.msg})") from None
    if not isinstance(found, kind):
        raise ValueError(f"{what}: no JSON {'object' if kind is dict else 'list'}")
    return found


def _read_parquet(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as pq

    names = [name for name in SHEET_COLUMNS if name in pq.read_schema(path).names]
    for batch in _read(path, names):
        yield from batch.to_pylist()


READERS = {".csv": _read_csv, ".tsv": _read_csv, ".jsonl": _read_jsonl, ".parquet": _read_parquet}
