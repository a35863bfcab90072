"""Damage in a data set folder: what is missing, what does not fit together, what leaks, what the card says wrongly.

Works on built sets and on imported ones (no intents, no translations, other slices) of any size: tables are read in
batches, and only of the language at hand are kept the ids and a few 64-bit numbers per row (a million queries with 20
million judgements: less than 1 GB). It imports pyarrow, so import it where it is needed. Read from `validate` down: the
folder, the tables, one language, then the card and the build record, which are compared with what was counted.
"""

from __future__ import annotations

import fnmatch
import hashlib
import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml
from tqdm import tqdm

from lira_hf.catalogue.composition import Intent, Product
from lira_hf.catalogue.letters import SCRIPTS
from lira_hf.catalogue.lexicon import load_catalogue
from lira_hf.catalogue.relevance import IRRELEVANT, JUDGED, grade
from lira_hf.catalogue.rows import SIZES, UNSEEN
from lira_hf.catalogue.splits import SPLITS
from lira_hf.catalogue.tables import COLUMNS
from lira_hf.languages import LANGUAGES

KINDS = {  # in the order of the report: what breaks reading first
    "missing-config": "a table folder of a language is not there",
    "missing-split": "a table has no shard of a split",
    "missing-shard": "the shards of a split do not count from 0 to n-1 of n",
    "stray-file": "a Parquet file that no split reads, or too many of them",
    "unreadable-shard": "a shard is no Parquet, is cut off, or holds text that is not UTF-8",
    "missing-column": "a column is not there",
    "extra-column": "a column that the layout does not know",
    "column-type": "a column has another type than the layout",
    "empty-split": "a table of a split has no rows",
    "empty-id": "a row has no id",
    "duplicate-query": "a query id stands twice in a language",
    "duplicate-product": "a product id stands twice in a language",
    "dangling-product": "a judged product is not in the corpus of the split",
    "dangling-query": "a judged query is not among the queries of the split",
    "missing-query": "a query of the rows is not in the queries table",
    "extra-query": "a query of the queries table is not in the rows",
    "query-text-differs": "the rows and the queries table word a query differently",
    "unpaired-judgements": "product_ids and relevances differ in length",
    "judgements-differ": "the rows and the qrels table judge a query differently",
    "judged-twice": "a query judges the same product twice",
    "grade-range": "a grade is not 0, 1, 2 or 3",
    "no-relevant": "a query has no product with a grade above 0",
    "few-judgements": f"a built query has fewer than {JUDGED} judgements",
    "wrong-grade": "a grade is not what the intent and the product's attributes give",
    "empty-query": "a query has no text",
    "empty-title": "a product has no title",
    "empty-english": "a built row has no English text",
    "wrong-language": "the language column names another language",
    "wrong-script": "the script column does not fit the query, or the query is in neither the language's script nor Latin",
    "bad-character": "a replacement or control character, a byte order mark or a noncharacter",
    "untidy-space": "space around a text or doubled, a tab, a line break or an unusual space",
    "no-slice": "a query has no slice",
    "bad-slice": "a slice name is no identifier, or unknown to the build record",
    "bad-intent": "an intent is not JSON of a type and wanted values",
    "bad-attributes": "attributes are not a JSON object",
    "empty-category": "a product has no category_path",
    "empty-family": "a product has no family_id",
    "empty-candidate": "a candidate translation has no text",
    "repeated-candidate": "two candidate translations of a row have the same text",
    "score-range": "a critic's score is not from 1 to 10",
    "leaked-family": "two splits share a product family",
    "leaked-intent": "two splits share a query intent",
    "leaked-query": "two splits share a query without an intent",
    "missing-readme": "there is no README.md",
    "readme-configs": "README.md has no readable list of configs",
    "readme-unknown-config": "README.md names a config that is not there",
    "readme-missing-config": "README.md lacks a config that is there",
    "readme-files": "the paths of README.md match no shard, or not all of a split",
    "readme-info": "dataset_info of README.md counts differently",
    "card-counts": "a table of README.md counts differently",
    "missing-record": "a built set has no build.json",
    "bad-record": "build.json is not readable",
    "record-counts": "build.json counts differently",
    "checksum": "a file is not what build.json says it was",
    "missing-file": "build.json lists a file that is not there",
    "unlisted-file": "build.json does not list a file that is there",
}
GRADES_CHECKED = 1000  # judgements of a set whose grade is computed again
BATCH, QRELS_BATCH = 1 << 15, 1 << 19  # rows held at once; every batch builds a lookup of all ids, so not too few
SHARD = re.compile(rf"({'|'.join(SPLITS)})-(\d{{5}})-of-(\d{{5}})\.parquet")
BAD_CHARACTER = r"[\x{0}-\x{8}\x{e}-\x{1f}\x{7f}-\x{9f}\x{feff}\x{fff9}-\x{fffd}\x{fffe}\x{ffff}]"
# A single no-break space is what phones type, and a slice of the builder; any other unusual space is a mistake.
UNTIDY_SPACE = r"^[\s\p{Z}]|[\s\p{Z}]$|[\s\p{Z}]{2}|[\t-\r\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]"
SLICE_NAME = r"^[a-z][a-z0-9_]*$"
OPTIONAL = {"clean"}  # columns that an imported set may lack
CARD_COLUMNS = {"of these above 0": "relevant", "queries of unseen types": "unseen"}  # other headings are the counts' own names

Counts = dict[str, dict[str, Counter[str]]]  # language → split → what is counted → how many, as in build.json


@dataclass(frozen=True)
class Damage:
    """One kind of damage in one place. `kind` is a key of `KINDS`; `where` a file, a config or config/split."""

    kind: str
    where: str
    detail: str


def validate(folder: str | Path, progress: bool = True) -> list[Damage]:
    """Every damage of the data set in `folder`, in the order of `KINDS`; an empty list for a sound one.

    A table that is missing, unreadable or without a column is reported as that, and not compared with the others.
    Raises ValueError for a folder that is no data set: one without a single config folder of a known language.
    """
    folder = Path(folder)
    codes = [code for code in LANGUAGES if any((folder / f"{code}{suffix}").is_dir() for suffix in COLUMNS)]
    if not codes:
        raise ValueError(f"folder: {str(folder)!r} is no data set; give one with folders such as th, th-corpus, th-queries and th-qrels")
    found = _Findings()
    record = _read_record(folder, found)
    codes += [code for code in record.get("languages", ()) if code in LANGUAGES and code not in codes]
    built = record.get("size") in SIZES and isinstance(record.get("seed"), int)
    tables = {key: _survey(folder, *key, built, found) for key in itertools.product(codes, COLUMNS, SPLITS)}
    counts: Counts = {}
    sample = math.ceil(GRADES_CHECKED / (len(codes) * len(SPLITS)))
    with tqdm(total=sum(table.rows for table in tables.values()), unit="row", unit_scale=True, disable=not progress) as bar:
        for code in codes:
            bar.set_description(code)
            of_language = {key[1:]: _Reader(table, found, bar) for key, table in tables.items() if key[0] == code}
            counts[code] = _Language(code, of_language, record if built else {}, sample, found).check()
    _check_card(folder, codes, tables, counts, found)
    _check_record(folder, record, codes, counts, progress, found)
    return found.damages()


def render_report(damages: Sequence[Damage]) -> list[str]:
    """The lines of the report: a heading for each kind, a line for each place, and a last line that sums up."""
    lines = []
    for kind, group in itertools.groupby(damages, key=lambda damage: damage.kind):
        lines.append(f"{kind}: {KINDS[kind]}")
        lines += [f"  {damage.where}: {damage.detail}" for damage in group]
    kinds = len({damage.kind for damage in damages})
    return [*lines, f"{len(damages)} damages of {kinds} kinds" if damages else "no damage found"]


class _Findings:
    """Counts what is found by kind and place, and keeps the first example."""

    def __init__(self) -> None:
        self.counted: dict[tuple[str, str], tuple[int, str]] = {}

    def add(self, kind: str, where: str, example: str, count: int = 1) -> None:
        before, first = self.counted.get((kind, where), (0, example))
        self.counted[kind, where] = (before + count, first)

    def flag(self, kind: str, where: str, mask: Any, example: Callable[[int], str]) -> None:
        """Adds every True of `mask`, a boolean array of Arrow or numpy; `example` words the one at a position."""
        places = np.flatnonzero(np.asarray(mask))
        if len(places):
            self.add(kind, where, example(int(places[0])), len(places))

    def damages(self) -> list[Damage]:
        order = list(KINDS)
        ranked = sorted(self.counted.items(), key=lambda item: (order.index(item[0][0]), item[0][1]))
        return [Damage(kind, where, example if count == 1 else f"{count:,} times, such as {example}") for (kind, where), (count, example) in ranked]


# --- tables: which files they are, whether they can be read, and their batches --------------------------------------


@dataclass(frozen=True)
class _Table:
    """One split of one config. `rows` counts what the files say; `usable`: all shards are there, with all columns."""

    code: str
    suffix: str
    split: str
    shards: tuple[Path, ...]
    rows: int
    usable: bool

    @property
    def config(self) -> str:
        return f"{self.code}{self.suffix}"

    @property
    def where(self) -> str:
        return f"{self.config}/{self.split}"


def _survey(folder: Path, code: str, suffix: str, split: str, built: bool, found: _Findings) -> _Table:
    """Finds the shards of a table and looks at their schemas; reports what is wrong with either."""
    config = f"{code}{suffix}"
    files = sorted((folder / config).glob("*.parquet"))
    named = [(path, SHARD.fullmatch(path.name)) for path in files]
    shards = tuple(path for path, match in named if match and match[1] == split)
    if not (folder / config).is_dir():
        if split == SPLITS[0]:  # once for the folder
            found.add("missing-config", config, "there is no such folder")
        return _Table(code, suffix, split, (), 0, False)
    for path, match in named:
        if not match and split == SPLITS[0]:
            found.add("stray-file", f"{config}/{path.name}", f"allowed: {'|'.join(SPLITS)}-00000-of-00001.parquet and so on")
    if not shards:
        found.add("missing-split", f"{config}/{split}", f"there is no {split}-*.parquet")
        return _Table(code, suffix, split, (), 0, False)
    usable = _check_numbering(f"{config}/{split}", [SHARD.fullmatch(path.name) for path in shards], found)
    rows = 0
    for path in shards:
        try:
            with pq.ParquetFile(path) as file:
                rows += file.metadata.num_rows
                schema = [(column.name, _kind(column.type)) for column in file.schema_arrow]
        except (OSError, pa.ArrowException) as error:
            found.add("unreadable-shard", f"{config}/{path.name}", _one_line(error))
            usable = False
        else:
            usable &= _check_schema(f"{config}/{path.name}", schema, COLUMNS[suffix], set() if built else OPTIONAL, found)
    if usable and not rows:
        found.add("empty-split", f"{config}/{split}", "0 rows")
    return _Table(code, suffix, split, shards, rows, usable)


def _check_numbering(where: str, names: Sequence[re.Match[str]], found: _Findings) -> bool:
    totals, numbers = sorted({int(name[3]) for name in names}), {int(name[2]) for name in names}
    if len(totals) > 1:
        found.add("stray-file", where, f"shards of {' and of '.join(map(str, totals))}; one set of them is left over")
        return False
    gaps = sorted(set(range(totals[0])) - numbers)
    surplus = sorted(numbers - set(range(totals[0])))
    if gaps:
        found.add("missing-shard", where, f"number {gaps[0]} of {totals[0]}", len(gaps))
    if surplus:
        found.add("stray-file", where, f"number {surplus[0]} of {totals[0]}, which count from 0", len(surplus))
    return not gaps and not surplus


def _kind(type_: pa.DataType) -> Any:
    """An Arrow type in the notation of `COLUMNS`."""
    if pa.types.is_list(type_):
        return [_kind(type_.value_type)]
    if pa.types.is_struct(type_):
        return {inner.name: _kind(inner.type) for inner in type_}
    return str(type_)


def _check_schema(where: str, schema: Sequence[tuple[str, Any]], wanted: Mapping[str, Any], optional: set[str], found: _Findings) -> bool:
    """Whether the table can be read; a column that the layout does not know does not hinder that."""
    kinds, times = dict(schema), Counter(name for name, _ in schema)
    missing = [name for name in wanted if name not in kinds and name not in optional]
    wrong = [name for name in wanted if name in kinds and kinds[name] != wanted[name]]
    twice = [name for name in wanted if times[name] > 1]
    for name in missing:
        found.add("missing-column", where, repr(name))
    for name in wrong:
        found.add("column-type", where, f"{name!r} is {kinds[name]}, not {wanted[name]}")
    for name in [*twice, *(name for name in kinds if name not in wanted)]:
        found.add("extra-column", where, f"{name!r} a second time" if name in twice else repr(name))
    return not (missing or wrong or twice)


class _Unreadable(Exception):
    """A shard broke off while it was read; what is wrong is already among the findings."""


@dataclass
class _Reader:
    """Reads a table in batches, moves the bar, and reports a shard whose content is broken."""

    table: _Table
    found: _Findings
    bar: tqdm
    broken: bool = False

    @property
    def usable(self) -> bool:
        return self.table.usable and not self.broken

    def batches(self, columns: Sequence[str] | None = None, size: int = BATCH) -> Iterator[pa.RecordBatch]:
        for path in self.table.shards:
            try:
                with pq.ParquetFile(path) as file:
                    present = [name for name in columns or COLUMNS[self.table.suffix] if name in file.schema_arrow.names]
                    source = file.iter_batches(size, columns=present)
                    while (batch := next(source, None)) is not None:
                        batch.validate(full=True)  # reading checks neither UTF-8 nor offsets
                        yield batch
                        self.bar.update(batch.num_rows if columns is None else 0)
            except (OSError, pa.ArrowException) as error:
                self.broken = True
                self.found.add("unreadable-shard", f"{self.table.config}/{path.name}", _one_line(error))
                raise _Unreadable from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


# --- one language: its tables checked one by one, then against each other --------------------------------------------


@dataclass
class _Corpus:
    """What is kept of a corpus: ids in the order of the table, and a 64-bit number per family."""

    ids: pa.Array
    families: np.ndarray


@dataclass
class _Queries:
    """What is kept of the training rows, in their order; `judged` sums a 64-bit number per judgement."""

    ids: pa.Array
    texts: np.ndarray
    judged: np.ndarray
    judgements: np.ndarray
    intents: tuple[np.ndarray, np.ndarray]  # 64-bit numbers, and the places of their rows
    without_intent: tuple[np.ndarray, np.ndarray]


@dataclass
class _Language:
    """The twelve tables of a language. `record` is build.json for a built set, empty for others."""

    code: str
    tables: Mapping[tuple[str, str], _Reader]
    record: Mapping[str, Any]
    sample: int  # judgements of each split whose grade is computed again
    found: _Findings
    counts: dict[str, Counter[str]] = field(default_factory=dict)

    def check(self) -> dict[str, Counter[str]]:
        """Reports the damage of the language; returns the counts of each split, those that could be counted."""
        corpora, queries = {}, {}
        for split in SPLITS:
            self.counts[split] = Counter()
            corpora[split] = corpus = self._read("-corpus", split, self._corpus)
            drawn: list[tuple[str, str, str, int]] = []
            queries[split] = rows = self._read("", split, lambda reader, corpus=corpus, drawn=drawn: self._rows(reader, corpus, drawn))
            listed = self._read("-queries", split, lambda reader, rows=rows: self._listed(reader, rows))
            known = rows.ids if rows else listed
            self._read("-qrels", split, lambda reader, known=known, rows=rows, corpus=corpus: self._qrels(reader, known, rows, corpus))
            if corpus and rows and drawn:
                self._read("-corpus", split, lambda reader, drawn=drawn: self._grades(reader, drawn))
        corpora, queries = ({split: one for split, one in found.items() if one} for found in (corpora, queries))
        self._twice("duplicate-product", f"{self.code}-corpus", [corpus.ids for corpus in corpora.values()])
        self._twice("duplicate-query", self.code, [rows.ids for rows in queries.values()])
        of_family = {split: np.flatnonzero(corpus.families != hash("")) for split, corpus in corpora.items()}
        families = {split: (corpora[split].families[places], places) for split, places in of_family.items()}
        self._leaks("leaked-family", f"{self.code}-corpus", families, corpora)
        self._leaks("leaked-intent", self.code, {split: rows.intents for split, rows in queries.items()}, queries)
        self._leaks("leaked-query", self.code, {split: rows.without_intent for split, rows in queries.items()}, queries)
        return self.counts

    def _read(self, suffix: str, split: str, read: Callable[[_Reader], Any]) -> Any:
        """What `read` makes of a table, or None where the table cannot be read."""
        reader = self.tables[suffix, split]
        try:
            return read(reader) if reader.usable else None
        except _Unreadable:
            return None

    def _corpus(self, reader: _Reader) -> _Corpus:
        ids, families, where = [], [], reader.table.where
        for batch in reader.batches():
            name = self._ids(batch["_id"], where, ids)
            title, family = _filled(batch["title"]), _filled(batch["family_id"])
            self.found.flag("empty-title", where, _blank(title), name)
            self.found.flag("empty-category", where, _blank(_filled(batch["category_path"])), name)
            self.found.flag("empty-family", where, _blank(family), name)
            for column in ("title", "text", "brand", "english"):
                self._text(where, column, batch[column], name)
            self._translations(where, batch, name)
            self._attributes(where, batch["attributes"].to_pylist(), name)
            families.append(_hashes(family))
        self.counts[reader.table.split]["products"] = sum(map(len, ids))
        return _Corpus(_joined(ids), _concatenated(families, np.int64))

    def _attributes(self, where: str, texts: Sequence[str | None], name: Callable[[int], str]) -> None:
        bad = [bool(text or self.record) and not isinstance(_parsed(text), dict) for text in texts]
        self.found.flag("bad-attributes", where, bad, lambda at: f"{name(at)}: {texts[at]!r}")

    def _rows(self, reader: _Reader, corpus: _Corpus | None, drawn: list[tuple[str, str, str, int]]) -> _Queries:
        """Checks the training rows, and draws (query id, intent, product id, grade) to compute again into `drawn`."""
        split, where = reader.table.split, reader.table.where
        rng = Random(0)
        picks = Counter(rng.randrange(reader.table.rows) for _ in range(self.sample if self.record and reader.table.rows else 0))
        ids: list[pa.Array] = []
        kept: dict[str, list[np.ndarray]] = {
            key: [] for key in ("texts", "judged", "judgements", "intents", "intent places", "alone", "alone places")
        }
        counted: Counter[str] = Counter()
        start = 0
        for batch in reader.batches():
            name = self._ids(batch["query_id"], where, ids)
            self._wording(where, batch, name)
            self._slices(where, split, batch, name, counted)
            self._translations(where, batch, name)
            judged, judgements = self._judged(where, batch, name, corpus, counted)
            intents, has_intent = self._intents(where, batch, name)
            alone, alone_places = _without_intent(batch, ~has_intent)
            kept["texts"].append(_hashes(_filled(batch["query"])))
            kept["judged"].append(judged)
            kept["judgements"].append(judgements)
            kept["intents"].append(intents[has_intent])
            kept["intent places"].append(start + np.flatnonzero(has_intent))
            kept["alone"].append(alone)
            kept["alone places"].append(start + alone_places)
            for place in [place for place in picks if start <= place < start + batch.num_rows]:
                row = batch.slice(place - start, 1).to_pylist()[0]
                pairs = list(zip(row["product_ids"] or (), row["relevances"] or (), strict=False))
                drawn += [(row["query_id"], row["intent"], *rng.choice(pairs)) for _ in range(picks[place]) if pairs]
            start += batch.num_rows
        self.counts[split].update(counted, queries=start, **{UNSEEN: counted[f"slice:{UNSEEN}"]})
        joined = {key: _concatenated(parts, np.uint64 if key == "judged" else np.int64) for key, parts in kept.items()}
        return _Queries(
            _joined(ids),
            joined["texts"],
            joined["judged"],
            joined["judgements"],
            (joined["intents"], joined["intent places"]),
            (joined["alone"], joined["alone places"]),
        )

    def _wording(self, where: str, batch: pa.RecordBatch, name: Callable[[int], str]) -> None:
        """The query's text, its language and its script."""
        query, script, language = (_filled(batch[column]) for column in ("query", "script", "language"))
        empty = _blank(query)
        self.found.flag("empty-query", where, empty, name)
        for column in ("query", "english", "clean"):
            if column in batch.schema.names:
                self._text(where, column, batch[column], name)
        self.found.flag("wrong-language", where, _mask(pc.not_equal(language, self.code)), lambda at: f"{name(at)}: {language[at].as_py()!r}")
        own = LANGUAGES[self.code].script
        low, high = SCRIPTS.get(own, ("", ""))
        latin = _mask(pc.match_substring_regex(query, r"\p{Latin}"))
        native = _mask(pc.match_substring_regex(query, f"[{low}-{high}]")) if low else latin
        foreign = _mask(pc.match_substring_regex(query, r"\p{L}")) & ~native & ~latin
        wordless = ~_mask(pc.match_substring_regex(query, r"[\p{L}\p{N}]"))
        # As the builder names it: the language's script if one letter is in it, else Latin; a bare number is Latin.
        right = np.where(native, own, "Latn")
        wrong = (right != np.asarray(script.to_pylist(), dtype=str)) | foreign | wordless
        self.found.flag("wrong-script", where, wrong & ~empty, lambda at: f"{name(at)}: {query[at].as_py()!r} as {script[at].as_py()!r}")

    def _slices(self, where: str, split: str, batch: pa.RecordBatch, name: Callable[[int], str], counted: Counter[str]) -> None:
        lengths, parents, names = _flattened(batch["slice"])
        self.found.flag("no-slice", where, lengths == 0, name)
        names = _filled(names)
        tags = Counter(names.to_pylist())
        counted.update({f"slice:{tag}": number for tag, number in tags.items()})
        recorded = {key.removeprefix("slice:") for key in self._recorded(split) if key.startswith("slice:")}
        known = pc.match_substring_regex(names, SLICE_NAME) if not recorded else pc.is_in(names, pa.array(sorted(recorded), pa.string()))
        self.found.flag("bad-slice", where, ~_mask(known), lambda at: f"{name(parents[at])}: {names[at].as_py()!r}")

    def _recorded(self, split: str) -> Mapping[str, int]:
        return self.record.get("counts", {}).get(self.code, {}).get(split, {})

    def _judged(
        self, where: str, batch: pa.RecordBatch, name: Callable[[int], str], corpus: _Corpus | None, counted: Counter[str]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Checks the judgements of a batch; returns their sum by row, as in `_judgement_numbers`, and their count."""
        products, parents, ids = _flattened(batch["product_ids"])
        lengths, graded, scores = _flattened(batch["relevances"])
        grades = scores.fill_null(-1).to_numpy(zero_copy_only=False)
        paired = products == lengths
        unequal = lambda at: f"{name(at)}: {products[at]} products, {lengths[at]} grades"  # noqa: E731
        self.found.flag("unpaired-judgements", where, ~paired, unequal)
        outside = (grades < 0) | (grades > 3)
        self.found.flag("grade-range", where, outside, lambda at: f"{name(graded[at])}: {scores[at].as_py()}")
        relevant = np.bincount(graded[grades > IRRELEVANT], minlength=batch.num_rows)
        self.found.flag("no-relevant", where, relevant == 0, name)
        counted.update(judgements=int(lengths.sum()), relevant=int(relevant.sum()))
        sums = np.zeros(batch.num_rows, np.uint64)
        if corpus is None:
            return sums, products
        if self.record:
            few = products < min(JUDGED, len(corpus.ids))
            self.found.flag("few-judgements", where, few, lambda at: f"{name(at)}: {products[at]} of a corpus of {len(corpus.ids):,}")
        places = _places(ids, corpus.ids)
        self.found.flag("dangling-product", where, places < 0, lambda at: f"{name(parents[at])} judges {ids[at].as_py()!r}")
        keys = parents * (len(corpus.ids) + 1) + places
        keys = np.sort(keys[places >= 0])
        twice = keys[1:][keys[1:] == keys[:-1]] // (len(corpus.ids) + 1)
        self.found.flag("judged-twice", where, np.isin(np.arange(batch.num_rows), twice), name)
        inside, of_grades = paired[parents] & (places >= 0), paired[graded]
        numbers = _judgement_numbers(places[inside], grades[of_grades][(places >= 0)[paired[parents]]])
        np.add.at(sums, parents[inside], numbers)
        return sums, products

    def _intents(self, where: str, batch: pa.RecordBatch, name: Callable[[int], str]) -> tuple[np.ndarray, np.ndarray]:
        """A 64-bit number per row, and whether the row has an intent it stands for."""
        texts = batch["intent"].to_pylist()
        keys = [_intent_key(text) if text else "" for text in texts]
        bad = [key is None or (bool(self.record) and not key) for key in keys]
        self.found.flag("bad-intent", where, bad, lambda at: f"{name(at)}: {texts[at]!r}")
        return np.fromiter(map(hash, keys), np.int64, len(keys)), np.asarray([bool(key) for key in keys], bool)

    def _listed(self, reader: _Reader, rows: _Queries | None) -> pa.Array:
        """Compares the queries table with the rows; returns its ids."""
        ids: list[pa.Array] = []
        where = reader.table.where
        for batch in reader.batches():
            name = self._ids(batch["_id"], where, ids)
            text = _filled(batch["text"])
            if rows is None:
                self.found.flag("empty-query", where, _blank(text), name)
                continue
            places = _places(ids[-1], rows.ids)
            self.found.flag("extra-query", where, places < 0, name)
            differs = (places >= 0) & (rows.texts[places] != _hashes(text)) if len(rows.ids) else np.zeros(len(places), bool)
            self.found.flag("query-text-differs", where, differs, lambda at, name=name, text=text: f"{name(at)}: {text[at].as_py()!r} here")
        listed = _joined(ids)
        self._twice("duplicate-query", where, [listed])
        if rows is not None:
            self.found.flag("missing-query", where, _places(rows.ids, listed) < 0, lambda at: rows.ids[at].as_py())
        return listed

    def _qrels(self, reader: _Reader, known: pa.Array | None, rows: _Queries | None, corpus: _Corpus | None) -> None:
        """Checks the qrels against the ids of queries and products, and against the judgements of the rows."""
        where = reader.table.where
        sums = np.zeros(0 if known is None else len(known), np.uint64)
        judgements = np.zeros(len(sums), np.int64)
        for batch in reader.batches(size=QRELS_BATCH):
            query_ids, product_ids = _filled(batch["query-id"]), _filled(batch["corpus-id"])
            grades = batch["score"].fill_null(-1).to_numpy(zero_copy_only=False)
            of = lambda at, a=query_ids, b=product_ids, c=grades: f"{a[at].as_py()!r} judges {b[at].as_py()!r} as {c[at]}"  # noqa: E731
            self.found.flag("grade-range", where, (grades < 0) | (grades > 3), of)
            queries = products = np.zeros(len(grades), np.int64)
            if known is not None:
                queries = _places(query_ids, known)
                self.found.flag("dangling-query", where, queries < 0, of)
            if corpus is not None:
                products = _places(product_ids, corpus.ids)
                self.found.flag("dangling-product", where, products < 0, of)
            if known is not None:
                inside = (queries >= 0) & (products >= 0)
                np.add.at(sums, queries[inside], _judgement_numbers(products[inside], grades[inside]))
                np.add.at(judgements, queries[queries >= 0], 1)
        if rows is not None and corpus is not None:
            differs = (sums != rows.judged) | (judgements != rows.judgements)
            found = lambda at: f"{rows.ids[at].as_py()}: {judgements[at]} judgements here, {rows.judgements[at]} in the rows"  # noqa: E731
            self.found.flag("judgements-differ", where, differs, found)

    def _grades(self, reader: _Reader, drawn: Sequence[tuple[str, str, str, int]]) -> None:
        """Computes the drawn judgements again, those whose types the catalogue still knows."""
        catalogue, where = load_catalogue(), f"{self.code}/{reader.table.split}"
        wanted = pa.array(sorted({product_id for _, _, product_id, _ in drawn if product_id}), pa.string())
        products: dict[str, Product] = {}
        for batch in reader.batches(["_id", "brand", "category_path", "attributes"]):
            for row in batch.filter(pc.is_in(batch["_id"], wanted)).to_pylist():
                attributes, type_ = _parsed(row["attributes"]), (row["category_path"] or "").rpartition("/")[2]
                if isinstance(attributes, dict) and type_ in catalogue.types:
                    products[row["_id"]] = Product(row["_id"], "", type_, row["brand"], attributes)
        for query_id, text, product_id, score in drawn:
            intent = _intent(text)
            if intent is None or intent.type not in catalogue.types or product_id not in products:
                continue
            try:
                right: Any = grade(intent, products[product_id], catalogue)
            except KeyError as error:
                right = f"unknown, for the product has no {error}"
            if score != right:
                self.found.add("wrong-grade", where, f"{query_id} judges {product_id} as {score}, the rule says {right}")

    def _ids(self, column: pa.Array, where: str, ids: list[pa.Array]) -> Callable[[int], str]:
        """Appends a column of ids to `ids`; returns what names a row in an example."""
        filled = _filled(column)
        self.found.flag("empty-id", where, _blank(filled), lambda at: f"row {sum(map(len, ids)) + at:,}")
        ids.append(filled)
        return lambda at: filled[int(at)].as_py()

    def _text(self, where: str, column: str, texts: pa.Array, name: Callable[[int], str]) -> None:
        if self.record and column == "english":
            self.found.flag("empty-english", where, _blank(_filled(texts)), name)
        for kind, pattern in (("bad-character", BAD_CHARACTER), ("untidy-space", UNTIDY_SPACE)):
            matches = _mask(pc.match_substring_regex(texts, pattern))
            self.found.flag(kind, where, matches, lambda at: f"{column} of {name(at)}: {texts[at].as_py()[:80]!r}")

    def _translations(self, where: str, batch: pa.RecordBatch, name: Callable[[int], str]) -> None:
        _, parents, candidates = _flattened(batch["translations"])
        texts = _filled(candidates.field("text"))
        of = lambda at: name(parents[at])  # noqa: E731
        self._text(where, "a translation", texts, of)
        self.found.flag("empty-candidate", where, _blank(texts), of)
        for aspect in ("semantic", "emotional", "pragmatic"):
            scores = candidates.field(aspect).fill_null(0).to_numpy(zero_copy_only=False)
            said = lambda at, aspect=aspect, scores=scores: f"{aspect} {scores[at]} in {of(at)}"  # noqa: E731
            self.found.flag("score-range", where, (scores < 1) | (scores > 10), said)
        plain = pa.table({"parent": parents, "text": pc.utf8_lower(texts)}).group_by(["parent", "text"]).aggregate([([], "count_all")])
        repeated = plain.filter(pc.greater(plain["count_all"], 1)).combine_chunks()
        same = lambda at: f"{name(repeated['parent'][at].as_py())}: {repeated['text'][at].as_py()!r}"  # noqa: E731
        self.found.flag("repeated-candidate", where, np.ones(len(repeated), bool), same)

    def _twice(self, kind: str, where: str, ids: Sequence[pa.Array]) -> None:
        counted = pc.value_counts(_joined(ids))
        again = counted.filter(pc.greater(counted.field("counts"), 1))
        self.found.flag(
            kind, where, np.ones(len(again), bool), lambda at: f"{again[at]['values'].as_py()!r} stands {again[at]['counts'].as_py()} times"
        )

    def _leaks(self, kind: str, where: str, keys: Mapping[str, tuple[np.ndarray, np.ndarray]], tables: Mapping[str, Any]) -> None:
        for (one, (left, left_places)), (other, (right, right_places)) in itertools.combinations(keys.items(), 2):
            common, at_left, at_right = np.intersect1d(left, right, return_indices=True)
            if len(common):
                first = tables[one].ids[int(left_places[at_left[0]])].as_py()
                second = tables[other].ids[int(right_places[at_right[0]])].as_py()
                self.found.add(kind, where, f"{first} of {one} and {second} of {other}", len(common))


# --- columns: nulls count as empty, a batch becomes masks and 64-bit numbers -----------------------------------------


def _filled(texts: pa.Array) -> pa.Array:
    return texts.fill_null("")


def _mask(values: pa.Array) -> np.ndarray:
    return values.fill_null(False).to_numpy(zero_copy_only=False)


def _blank(texts: pa.Array) -> np.ndarray:
    return _mask(pc.equal(pc.utf8_trim_whitespace(texts), ""))


def _flattened(lists: pa.ListArray) -> tuple[np.ndarray, np.ndarray, pa.Array]:
    """The length of each list, the row of each element, and the elements of all lists."""
    lengths = pc.list_value_length(lists).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    return lengths, np.repeat(np.arange(len(lists)), lengths), pc.list_flatten(lists)


def _hashes(texts: pa.Array) -> np.ndarray:
    """A 64-bit number per text, the same within one process."""
    return np.fromiter(map(hash, texts.to_pylist()), np.int64, len(texts))


def _joined(ids: Sequence[pa.Array]) -> pa.Array:
    return pa.concat_arrays(ids) if ids else pa.array([], pa.string())


def _concatenated(parts: Sequence[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0, dtype)


def _places(values: pa.Array, ids: pa.Array) -> np.ndarray:
    """Where each value stands in `ids`; -1 where it does not."""
    return pc.index_in(values, ids).fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)


def _judgement_numbers(products: np.ndarray, grades: np.ndarray) -> np.ndarray:
    """A well-mixed 64-bit number per judgement (splitmix64), so that sums differ where any judgement does."""
    mixed = ((products.astype(np.uint64) << np.uint64(8)) | (grades.astype(np.uint64) & np.uint64(255))) + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _without_intent(batch: pa.RecordBatch, alone: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For the rows of `alone`, the numbers of their wordings (as typed, and clean) without case and space; their places."""
    places = np.flatnonzero(alone)
    columns = [batch[column].to_pylist() for column in ("query", "clean") if column in batch.schema.names]
    keys = {(" ".join(text.casefold().split()), place) for column in columns for place in places if (text := column[place])}
    pairs = sorted((hash(text), place) for text, place in keys if text)
    return np.asarray([key for key, _ in pairs], np.int64), np.asarray([place for _, place in pairs], np.int64)


def _parsed(text: str | None) -> Any:
    """What JSON says; None where it is none."""
    try:
        return json.loads(text or "")
    except (ValueError, RecursionError):
        return None


def _intent(text: str | None) -> Intent | None:
    value = _parsed(text)
    if not isinstance(value, dict) or not isinstance(value.get("type"), str) or not isinstance(value.get("wanted"), dict):
        return None
    return Intent(value["type"], value["wanted"])


def _intent_key(text: str) -> str | None:
    """The same for intents that want the same, in whatever order; None where the text is no intent."""
    intent = _intent(text)
    return None if intent is None else json.dumps([intent.type, intent.wanted], sort_keys=True)


# --- what describes the set: README.md and build.json, compared with what was counted --------------------------------


def _check_card(folder: Path, codes: Sequence[str], tables: Mapping[Any, _Table], counts: Counts, found: _Findings) -> None:
    path = folder / "README.md"
    if not path.is_file():
        found.add("missing-readme", path.name, "load_dataset finds the configs by it")
        return
    text = path.read_text(encoding="utf-8", errors="replace")
    if "Built by `lira_hf.catalogue`" in text and not (folder / "build.json").is_file():
        found.add("missing-record", "build.json", "README.md says who built the set, so there was one")
    if "\ufffd" in text:
        found.add("bad-character", path.name, "a replacement character, or bytes that are not UTF-8", text.count("\ufffd"))
    _check_count_tables(text, counts, found)
    front = re.match(r"---\r?\n(.*?)\r?\n---\s", text, re.DOTALL)
    try:
        header = yaml.safe_load(front[1]) if front else None
        configs = {config["config_name"]: _paths(config["data_files"]) for config in header["configs"]}
        infos = header.get("dataset_info") or []
        info_splits = {
            (info.get("config_name"), split["name"]): split["num_examples"]
            for info in ([infos] if isinstance(infos, dict) else infos)
            for split in info.get("splits") or ()
        }
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        found.add("readme-configs", path.name, f"the front matter cannot be read ({type(error).__name__}: {_one_line(error)})")
        return
    _check_configs(folder, configs, codes, tables, found)
    rows = {(table.config, table.split): table.rows for table in tables.values() if table.usable}
    for (config, split), number in info_splits.items():
        if (config, split) in rows and number != rows[config, split]:
            found.add("readme-info", path.name, f"{config}/{split} has {rows[config, split]:,} rows, not {number}")


def _paths(data_files: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Split to its glob patterns."""
    return {entry["split"]: [entry["path"]] if isinstance(entry["path"], str) else list(entry["path"]) for entry in data_files}


def _check_configs(
    folder: Path, configs: Mapping[str, Mapping[str, list[str]]], codes: Sequence[str], tables: Mapping[Any, _Table], found: _Findings
) -> None:
    there = [name for code in codes for suffix in COLUMNS if (folder / (name := f"{code}{suffix}")).is_dir()]
    for name in configs:
        if name not in there:
            found.add("readme-unknown-config", "README.md", repr(name))
    for name in there:
        if name not in configs:
            found.add("readme-missing-config", "README.md", repr(name))
    for table in tables.values():
        if table.config not in configs or not table.shards:
            continue
        files = [f"{table.config}/{path.name}" for path in sorted((folder / table.config).glob("*.parquet"))]
        shards = [f"{table.config}/{path.name}" for path in table.shards]
        patterns = configs[table.config].get(table.split, [])
        if [name for name in files if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)] != shards:
            found.add("readme-files", "README.md", f"{table.where}: {', '.join(patterns) or 'no path'} is not {', '.join(shards[:3])}")


def _check_count_tables(text: str, counts: Counts, found: _Findings) -> None:
    """Compares the two Markdown tables of a built set's card: by language and split, and by slice and language."""
    codes = {LANGUAGES[code].name: code for code in counts}
    heading: list[str] = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []
        if len(cells) != len(heading):
            heading = cells  # the first line of a table, or none
        elif heading[:2] == ["language", "split"] and cells[0] in codes and cells[1] in SPLITS:
            for column, said in zip(heading[2:], cells[2:], strict=True):
                name = CARD_COLUMNS.get(column, column)
                _compare_cell(f"{name} of {cells[0]} {cells[1]}", said, name, [counts[codes[cells[0]]][cells[1]]], found)
        elif heading[:1] == ["slice"]:
            for code, said in zip(heading[1:], cells[1:], strict=True):
                _compare_cell(f"slice {cells[0]} of {code}", said, f"slice:{cells[0]}", list(counts.get(code, {}).values()), found)


def _compare_cell(title: str, said: str, name: str, actual: Sequence[Counter[str]], found: _Findings) -> None:
    total = sum(of_split[name] for of_split in actual)
    if actual and all(_is_counted(name, of_split) for of_split in actual) and said != f"{total:,}" and set(said) != {"-"}:
        found.add("card-counts", "README.md", f"{title}: {said}, the files have {total:,}")


def _read_record(folder: Path, found: _Findings) -> dict[str, Any]:
    """build.json with at least `languages`, `counts` and `sha256` of the right shape; empty where it is missing or broken."""
    path = folder / "build.json"
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        languages, counts, hashes = record.get("languages", []), record.get("counts", {}), record.get("sha256", {})
        unknown = [code for code in [*languages, *counts] if code not in LANGUAGES]
        shapes = [
            isinstance(languages, list),
            isinstance(hashes, dict),
            all(isinstance(of_split, dict) for of in counts.values() for of_split in of.values()),
        ]
    except (OSError, ValueError, TypeError, AttributeError) as error:
        found.add("bad-record", path.name, _one_line(error))
        return {}
    if unknown or not all(shapes):
        found.add("bad-record", path.name, f"unknown language {unknown[0]!r}" if unknown else "languages, counts or sha256 has another shape")
        return {}
    return record


def _check_record(folder: Path, record: Mapping[str, Any], codes: Sequence[str], counts: Counts, progress: bool, found: _Findings) -> None:
    for code, split in itertools.product(codes if "counts" in record else (), SPLITS):
        _check_recorded(f"{code}/{split}", record["counts"].get(code, {}).get(split), counts[code][split], found)
    if "sha256" not in record:
        return
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    for name in record["sha256"].keys() - files.keys():
        found.add("missing-file", name, "build.json lists it")
    for name, path in tqdm(files.items(), desc="checksums", unit="file", disable=not progress):
        hidden = any(part.startswith(".") for part in Path(name).parts)  # .git, .cache, .gitattributes: a checkout's own
        if name not in record["sha256"] and name != "build.json" and not hidden:
            found.add("unlisted-file", name, "build.json does not list it")
        elif name in record["sha256"] and _sha256(path) != record["sha256"][name]:
            found.add("checksum", name, "its SHA-256 is not the one of build.json")


def _check_recorded(where: str, recorded: Mapping[str, Any] | None, actual: Counter[str], found: _Findings) -> None:
    if recorded is None:
        found.add("record-counts", "build.json", f"nothing is counted for {where}")
        return
    if any(name.startswith("slice:") for name in recorded):
        recorded = {**dict.fromkeys((name for name in actual if name.startswith("slice:")), 0), **recorded}
    for name, number in recorded.items():
        if _is_counted(name, actual) and number != actual[name]:
            found.add("record-counts", "build.json", f"{name} of {where}: {number}, the files have {actual[name]}")


def _is_counted(name: str, actual: Counter[str]) -> bool:
    """Whether the tables that `name` counts could be read; a slice without a query is counted too, as 0."""
    return name in actual or (name.startswith("slice:") and "queries" in actual)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
