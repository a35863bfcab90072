"""Where answers and scores live: shards named by their content, and journals that lose nothing which was said.

A process writes each answer as one line of its own journal, at once. A journal becomes Parquet shards when it is long,
when its process closes the store, and, after a kill, when the next process opens it. A shard is named by the SHA-256 of
its bytes, so a store is merged with another by copying shards, and folding a journal twice does no harm.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import itertools
import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

TRANSLATIONS, SCORES = "translations", "scores"
COLUMNS: dict[str, dict[str, Any]] = {
    TRANSLATIONS: {
        "key": "string",  # records.key_of(language, text)
        "language": "string",
        "text": "string",
        "source": "string",  # the name of the translator
        "asked": "int32",  # how many candidates were asked for
        "candidates": ["string"],  # none where the request failed
        "prompt_tokens": "int64",
        "completion_tokens": "int64",
        "failure": "string",  # null where it did not
    },
    SCORES: {
        "key": "string",
        "language": "string",
        "candidate": "string",
        "judge": "string",  # the name of the critic
        "round": "int32",
        "semantic": "int32",  # 1 to 10; all three are null for a candidate that was left unscored
        "emotional": "int32",
        "pragmatic": "int32",
        "prompt_tokens": "int64",  # of the whole request, in the record of its first candidate; 0 in the others
        "completion_tokens": "int64",
        "failure": "string",
    },
}
IDENTITY = {TRANSLATIONS: ("key", "source"), SCORES: ("key", "candidate", "judge", "round")}
FOLD_LINES = 50_000  # of a journal; about 10 MB as a shard
GROUP_ROWS = 10_000

Record = dict[str, Any]


class Store:
    """The answers and scores in a folder, which is made where it is missing. Use it in a `with`, or call `close`.

    Any number of processes may write at once. Of records with the same `IDENTITY` one counts, whatever the order in
    which they came: one that did not fail goes before one that did, then more asked candidates, then the smaller text.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._journal: Path | None = None
        self._lines = 0
        for path in sorted(self.folder.glob("journal-*.jsonl")):
            self._adopt(path)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- writing -------------------------------------------------------------------------------------------------------

    def append(self, kind: str, records: Sequence[Record]) -> None:
        """Add the records of one request, all or none of them; they survive a kill from the moment this returns."""
        if self._journal is None:
            self._open_journal()
        line = json.dumps({"kind": kind, "records": list(records)}, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        if os.write(self._descriptor, line) != len(line):
            raise OSError(f"{str(self._journal)!r} took only a part of a line; is the disk full?")
        self._lines += 1
        if self._lines >= FOLD_LINES:
            self.close()

    def close(self) -> None:
        """Turn this process's journal into shards. The store stays usable."""
        if self._journal is not None:
            journal, self._journal = self._journal, None
            self._fold(journal)
            os.close(self._descriptor)  # and with it the lock: only now may another process look for a remainder

    def _open_journal(self) -> None:
        name = f"journal-{uuid.uuid4().hex}.jsonl"
        hidden = self.folder / f".{name}"
        self._descriptor = os.open(hidden, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o644)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)  # before others can see it, who would take it for an orphan
        self._journal, self._lines = self.folder / name, 0
        os.rename(hidden, self._journal)

    def _adopt(self, journal: Path) -> None:
        """Fold the journal of a process that is gone; leave that of a living one, which holds its lock."""
        with contextlib.suppress(FileNotFoundError, BlockingIOError), journal.open("r+b") as file:  # NFS locks only what may be written
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(file.fileno()).st_nlink:  # else somebody adopted it between our two lines
                self._fold(journal)

    def _fold(self, journal: Path) -> None:
        lines = list(_read_journal(journal))
        for kind in COLUMNS:
            records = [record for of, some in lines if of == kind for record in some]
            if records:
                self._write_shard(kind, records)
        journal.unlink()

    def _write_shard(self, kind: str, records: Iterable[Record]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        ordered = sorted(records, key=lambda record: (record["language"], *(record[name] for name in IDENTITY[kind]), _canonical(record)))
        sink = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(ordered, schema=_schema(kind)), sink, compression="zstd", row_group_size=GROUP_ROWS)
        content = sink.getvalue()
        _put(self.folder / f"{kind}-{hashlib.sha256(content).hexdigest()}.parquet", content)

    def merge(self, other: str | Path) -> int:
        """Take in the shards of the store in `other`; returns how many were new.

        Raises ValueError where `other` is no store, is in use, or holds a shard that is not what its name says.
        """
        other = Path(other)
        if not other.is_dir() or not any(other.glob("journal-*.jsonl")) and not any(_shards(other)):
            raise ValueError(f"merge: {str(other)!r} holds no store; give the folder `store` of another output")
        with Store(other) as theirs:  # folds what a killed run left there
            if any(theirs.folder.glob("journal-*.jsonl")):
                raise ValueError(f"merge: {str(other)!r} is in use by another process; wait for it")
            new = [path for path in _shards(other) if not (self.folder / path.name).exists()]
            for path in new:
                content = path.read_bytes()
                if hashlib.sha256(content).hexdigest() != path.stem.rpartition("-")[2]:
                    raise ValueError(f"merge: {str(path)!r} is damaged, its SHA-256 is not its name; copy it again")
                _put(self.folder / path.name, content)
        return len(new)

    # -- reading -------------------------------------------------------------------------------------------------------

    def translated(self, source: str, count: int, language: str | None = None, failed: bool = True) -> set[str]:
        """Keys of the texts for which `source` was asked for at least `count` candidates; with or without those that `failed`."""
        import pyarrow.compute as pc

        found: set[str] = set()
        for table in self._tables(TRANSLATIONS, language, ("key", "source", "asked", "failure")):
            counts = pc.and_(pc.equal(table["source"], source), pc.greater_equal(table["asked"], count))
            counts = counts if failed else pc.and_(counts, pc.is_null(table["failure"]))
            found.update(table["key"].filter(counts).to_pylist())
        return found

    def judged(self, judge: str, language: str | None = None, failed: bool = True) -> set[bytes]:
        """`score_id` of what `judge` was asked to score; with or without what is unscored."""
        import pyarrow.compute as pc

        found: set[bytes] = set()
        for table in self._tables(SCORES, language, ("key", "candidate", "judge", "round", "semantic")):
            counts = pc.equal(table["judge"], judge)
            chosen = table.filter(counts if failed else pc.and_(counts, pc.is_valid(table["semantic"])))
            found.update(map(score_id, *(chosen[name].to_pylist() for name in ("key", "candidate", "round"))))
        return found

    def view(self, kind: str, language: str | None = None, texts: bool = True) -> View:
        """The records that count, of one language or all, sorted by `IDENTITY`; holds them in memory, as Arrow.

        Without `texts`, those of translations lack their source text, which is half of them.
        """
        import pyarrow as pa

        columns = [name for name in COLUMNS[kind] if texts or name != "text"]
        table = pa.concat_tables([_schema(kind).empty_table().select(columns), *self._tables(kind, language, columns)])
        return View(_without_doubles(table, kind))

    def languages(self) -> list[str]:
        """The codes of all languages in the store."""
        return sorted(
            {code for kind in COLUMNS for table in self._tables(kind, None, ("language",)) for code in table["language"].unique().to_pylist()}
        )

    def digest(self) -> str:
        """A SHA-256 of the records that count: equal stores say equal things, however they came to be."""
        digest = hashlib.sha256()
        for language, kind in itertools.product(self.languages(), COLUMNS):
            for record in self.view(kind, language):
                digest.update(f"{kind}\n{_canonical(record)}\n".encode())
        return digest.hexdigest()

    def _tables(self, kind: str, language: str | None, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """All records of journals and shards, doubles among them. Journals first: one that is folded meanwhile is seen twice, not never."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        names = list(columns or COLUMNS[kind])
        journals = [list(_read_journal(path)) for path in sorted(self.folder.glob("journal-*.jsonl"))]
        records = [record for lines in journals for of, some in lines if of == kind for record in some if language in (None, record["language"])]
        yield pa.Table.from_pylist(records, schema=_schema(kind)).select(names)
        for path in sorted(self.folder.glob(f"{kind}-*.parquet")):
            try:
                yield pq.read_table(path, columns=names, filters=None if language is None else [("language", "=", language)], schema=_schema(kind))
            except (pa.ArrowException, OSError) as error:
                raise ValueError(
                    f"store: {str(path)!r} cannot be read ({str(error).splitlines()[0]}); remove it, and what it held is asked anew"
                ) from error


class View:
    """Records in the order of their keys, to be walked through or looked up."""

    def __init__(self, table: pa.Table):
        import numpy as np

        self.table = table
        self._keys = np.asarray(table["key"].to_numpy(zero_copy_only=False), dtype="S64")

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[Record]:
        for batch in self.table.to_batches(max_chunksize=GROUP_ROWS):
            yield from _records(batch)

    def look_up(self, keys: Sequence[str]) -> list[list[Record]]:
        """The records of each key, in the order of the view; [] for one that is not there."""
        import numpy as np

        wanted = np.array(keys, dtype="S64")
        first, last = (np.searchsorted(self._keys, wanted, side) for side in ("left", "right"))
        rows = np.concatenate([np.arange(a, b) for a, b in zip(first, last, strict=True)]) if len(keys) else np.array([], np.int64)
        found = iter(_records(self.table.take(rows)))
        return [list(itertools.islice(found, int(b - a))) for a, b in zip(first, last, strict=True)]


def score_id(key: str, candidate: str, round_: int) -> bytes:
    """16 bytes that stand for a look at a candidate of a text."""
    return hashlib.blake2b(f"{key}\n{round_}\n{candidate}".encode(), digest_size=16).digest()


def _shards(folder: Path) -> list[Path]:
    return sorted(path for kind in COLUMNS for path in folder.glob(f"{kind}-*.parquet"))


def _read_journal(path: Path) -> Iterator[tuple[str, list[Record]]]:
    """Kind and records of each line. A line without an end was being written when its process was killed: nobody was told of it."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:  # a living process may just have folded it
        for line in file:
            if line.endswith(b"\n"):
                entry = json.loads(line)
                yield entry["kind"], entry["records"]


def _put(path: Path, content: bytes) -> None:
    """Write a file that is there whole or not at all, even after a power cut."""
    part = path.with_name(f".{uuid.uuid4().hex}.part")
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def _without_doubles(table: pa.Table, kind: str) -> pa.Table:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    table = table.sort_by([(name, "ascending") for name in IDENTITY[kind]]).combine_chunks()
    same = np.ones(max(len(table) - 1, 0), dtype=bool)  # as the row before
    for name in IDENTITY[kind]:
        same &= pc.equal(table[name].slice(1), table[name].slice(0, len(same))).to_numpy()
    if not same.any():
        return table
    starts = np.flatnonzero(np.concatenate([[True], ~same]))
    ends = np.append(starts[1:], len(table))
    chosen = starts.copy()
    for group in np.flatnonzero(ends - starts > 1):
        records = _records(table.slice(starts[group], ends[group] - starts[group]))
        chosen[group] += min(range(len(records)), key=lambda number: _rank(records[number]))
    return table.take(pa.array(chosen))


def _rank(record: Mapping[str, Any]) -> tuple[bool, int, str]:
    failed = record["semantic"] is None if "semantic" in record else record["failure"] is not None
    return failed, -record.get("asked", 0), _canonical(record)


def _canonical(record: Mapping[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False, sort_keys=True)


def _records(table: pa.Table | pa.RecordBatch) -> list[Record]:
    return table.to_pylist()


def _schema(kind: str) -> pa.Schema:
    import pyarrow as pa

    return pa.schema(
        [(name, pa.list_(pa.type_for_alias(of[0])) if isinstance(of, list) else pa.type_for_alias(of)) for name, of in COLUMNS[kind].items()]
    )
