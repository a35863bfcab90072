"""One language: its tables checked one by one, then against each other, then the splits against each other.

Only of one language are ids and texts kept, and one number per judgement: a million queries with 20 million judgements
take about 1.5 GB.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from lira_hf.catalogue.composition import Intent, Product
from lira_hf.catalogue.demand import KINDS as INTENT_KINDS
from lira_hf.catalogue.letters import SCRIPTS
from lira_hf.catalogue.lexicon import load_catalogue
from lira_hf.catalogue.relevance import IRRELEVANT, JUDGED, grade
from lira_hf.catalogue.validation.findings import Findings
from lira_hf.catalogue.validation.sheets import NONE, Sheet, blank, mask, matching, places_in
from lira_hf.catalogue.validation.tables import Table, Unreadable
from lira_hf.languages import LANGUAGES

GRADED_ROWS = 50  # of each table of rows, evenly spread: their grades are computed again
SLICE_NAME = r"^[a-z][a-z0-9_]*$"
GRADES = 256  # the numbers a grade may take in the number of a judgement


@dataclass(frozen=True)
class Corpus:
    """What is kept of a corpus, row by row; `products` by id, of built sets, to compute grades again."""

    ids: pa.Array
    families: pa.Array
    products: Mapping[str, Product]


@dataclass(frozen=True)
class Rows:
    """What is kept of the training rows. `judged` has a number per judgement, ascending (see `_numbers`).

    `ids`, `texts` and `intents` ("" for none) go row by row; `wordings` are texts of rows without an intent, whose ids are `alone`.
    """

    judged: np.ndarray
    ids: pa.Array
    texts: pa.Array
    intents: pa.Array
    wordings: pa.Array
    alone: pa.Array


@dataclass
class Language:
    """The twelve tables of a language. `built`: by the builder, which promises more than an import; `shared_products`: an import that
    left products in the corpora of several splits."""

    code: str
    tables: Mapping[tuple[str, str], Table]
    built: bool
    shared_products: bool
    recorded: Mapping[str, Mapping[str, int]]  # what build.json counts, by split
    found: Findings
    bar: tqdm
    counts: dict[str, Counter[str]] = field(default_factory=dict)

    def check(self) -> dict[str, Counter[str]]:
        """Reports the damage of the language; returns the counts of each split, those that could be counted."""
        corpora, rows = {}, {}
        for split in dict.fromkeys(split for _, split in self.tables):
            self.counts[split] = Counter()
            corpus = corpora[split] = self._read("-corpus", split, self._corpus)
            of_split = rows[split] = self._read("", split, self._rows, corpus)
            listed = self._read("-queries", split, self._queries, of_split)
            self._read("-qrels", split, self._qrels, of_split.ids if of_split else listed, of_split, corpus)
        corpora, rows = ({split: one for split, one in found.items() if one} for found in (corpora, rows))
        each = [[corpus.ids] for corpus in corpora.values()] if self.shared_products else [[corpus.ids for corpus in corpora.values()]]
        for ids in each:
            self._twice("duplicate-product", f"{self.code}-corpus", ids)
        self._twice("duplicate-query", self.code, [one.ids for one in rows.values()])
        if not self.shared_products:
            self._leaks("leaked-family", f"{self.code}-corpus", {split: (corpus.families, corpus.ids) for split, corpus in corpora.items()})
        self._leaks("leaked-intent", self.code, {split: (one.intents, one.ids) for split, one in rows.items()})
        self._leaks("leaked-query", self.code, {split: (one.wordings, one.alone) for split, one in rows.items()})
        return self.counts

    def _read(self, suffix: str, split: str, check: Callable[..., Any], *others: Any) -> Any:
        """What `check` makes of a table, or None where the table cannot be read."""
        table = self.tables[suffix, split]
        try:
            return check(table, *others) if table.usable else None
        except Unreadable as broken:
            self.found.add("unreadable-shard", *broken.args)
            return None

    def _sheets(self, table: Table) -> Iterator[Sheet]:
        start = 0
        for batch in table.batches(self.bar):
            sheet = Sheet(table, batch, start, self.found)
            start += len(sheet)
            yield sheet

    def _corpus(self, table: Table) -> Corpus:
        ids, families, products = [NONE], [NONE], {}
        for sheet in self._sheets(table):
            sheet.flag("empty-id", blank(sheet.ids))
            sheet.flag("empty-title", blank(sheet.texts("title")))
            sheet.flag("empty-family", blank(sheet.texts("family_id")))
            for column in ("title", "text", "brand", "english"):
                sheet.check_text(column, sheet.texts(column))
            sheet.check_translations()
            attributes = [_parsed(text) if text or self.built else {} for text in sheet.texts("attributes").to_pylist()]
            sheet.flag("bad-attributes", np.array([not isinstance(value, dict) for value in attributes]), sheet.texts("attributes"))
            if self.built:
                sheet.flag("empty-category", blank(sheet.texts("category_path")))
                sheet.flag("empty-english", blank(sheet.texts("english")))
                cells = (sheet.texts(column).to_pylist() for column in ("_id", "category_path", "brand"))
                for id_, path, brand, values in zip(*cells, attributes, strict=True):
                    products[id_] = Product(id_, "", path.rpartition("/")[2], brand, values)
            ids.append(sheet.ids)
            families.append(sheet.texts("family_id"))
        self.counts[table.split]["products"] = sum(map(len, ids))
        return Corpus(pa.concat_arrays(ids), pa.concat_arrays(families), products)

    def _rows(self, table: Table, corpus: Corpus | None) -> Rows:
        parts, judged = [(NONE,) * 5], [np.zeros(0, np.int64)]
        counted = Counter(queries=0, judgements=0, relevant=0)
        step = max(1, table.rows // GRADED_ROWS)
        for sheet in self._sheets(table):
            sheet.flag("empty-id", blank(sheet.ids))
            self._wording(sheet)
            self._slices(sheet, table.split, counted)
            sheet.check_translations()
            judged.append(self._judgements(sheet, corpus, counted))
            intents = self._intents(sheet)
            if self.built and corpus:
                for place in range(-sheet.start % step, len(sheet), step):
                    self._grades(sheet, place, intents[place], corpus.products)
            keys = pa.array([_key(intent) for intent in intents], pa.string())
            parts.append((sheet.ids, sheet.texts("query"), keys, *_alone(sheet, keys)))
            counted["queries"] += len(sheet)
        self.counts[table.split].update(counted)
        numbers = np.concatenate(judged)
        numbers.sort()
        return Rows(numbers, *map(pa.concat_arrays, zip(*parts, strict=True)))

    def _wording(self, sheet: Sheet) -> None:
        """The texts of the rows, their language and script."""
        query, script, language = (sheet.texts(column) for column in ("query", "script", "language"))
        for column in ("query", "english", "clean"):
            if column in sheet.names:
                sheet.check_text(column, sheet.texts(column))
        empty = blank(query)
        sheet.flag("empty-query", empty)
        if self.built:
            sheet.flag("empty-english", blank(sheet.texts("english")))
        sheet.flag("wrong-language", mask(pc.not_equal(language, self.code)), language)
        own, latin = LANGUAGES[self.code].script, matching(query, r"\p{Latin}")
        native = matching(query, SCRIPTS[own].pattern) if own in SCRIPTS else latin
        # As the builder names it: the language's script if one letter is in it, else Latin; a bare number is Latin.
        wrong = mask(pc.not_equal(script, pa.array(np.where(native, own, "Latn").tolist())))
        if self.built:
            wrong |= (matching(query, r"\p{L}") & ~native & ~latin) | ~matching(query, r"[\p{L}\p{N}]")
        sheet.flag("wrong-script", wrong & ~empty, query)

    def _slices(self, sheet: Sheet, split: str, counted: Counter[str]) -> None:
        lengths, rows, names = sheet.lists("slice")
        names = names.fill_null("")
        sheet.flag("no-slice", lengths == 0)
        counted.update(f"slice:{name}" for name in names.to_pylist())
        known = [name.removeprefix("slice:") for name in self.recorded.get(split, {}) if name.startswith("slice:")]
        right = mask(pc.is_in(names, pa.array(known))) if known else matching(names, SLICE_NAME)
        sheet.flag("bad-slice", ~right, names, rows)

    def _judgements(self, sheet: Sheet, corpus: Corpus | None, counted: Counter[str]) -> np.ndarray:
        """The numbers of the judgements whose product is in the corpus."""
        products, of_products, ids = sheet.lists("product_ids")
        lengths, of_grades, scores = sheet.lists("relevances")
        grades = scores.fill_null(-1).to_numpy(zero_copy_only=False)
        paired = products == lengths
        sheet.flag("unpaired-judgements", ~paired)
        sheet.flag("grade-range", (grades < 0) | (grades > 3), scores, of_grades)
        relevant = np.bincount(of_grades[grades > IRRELEVANT], minlength=len(sheet))
        sheet.flag("no-relevant", relevant == 0)
        counted.update(judgements=int(lengths.sum()), relevant=int(relevant.sum()))
        if corpus is None:
            return np.zeros(0, np.int64)
        if self.built:
            sheet.flag("few-judgements", products < min(JUDGED, len(corpus.ids)))
        places = places_in(corpus.ids, ids)
        sheet.flag("dangling-product", places < 0, ids, of_products)
        pairs = np.sort((of_products * len(corpus.ids) + places)[places >= 0])
        again = pairs[1:][pairs[1:] == pairs[:-1]] // max(1, len(corpus.ids))
        sheet.flag("judged-twice", np.bincount(again, minlength=len(sheet)) > 0)
        whole = paired[of_products]
        of_products, places, grades = of_products[whole], places[whole], grades[paired[of_grades]]
        inside = places >= 0
        return _numbers(sheet.start + of_products[inside], places[inside], grades[inside], len(corpus.ids))

    def _intents(self, sheet: Sheet) -> list[Intent | None]:
        texts = sheet.texts("intent")
        wanted = [_intent(text) for text in texts.to_pylist()]
        none = np.array([intent is None for intent in wanted])
        sheet.flag("bad-intent", none if self.built else none & ~blank(texts), texts)
        return wanted

    def _grades(self, sheet: Sheet, place: int, intent: Intent | None, products: Mapping[str, Product]) -> None:
        """Computes the grades of one row again, those whose types the catalogue still knows."""
        catalogue, row = load_catalogue(), sheet.batch.slice(place, 1).to_pylist()[0]
        for id_, score in zip(row["product_ids"] or (), row["relevances"] or (), strict=False):
            product = products.get(id_)
            if not intent or not product or not isinstance(product.attributes, dict) or not {intent.type, product.type} <= catalogue.types.keys():
                continue
            try:
                right: Any = grade(intent, product, catalogue)
            except KeyError as error:
                right = f"unknown, for the product has no {error}"
            if score != right:
                self.found.add("wrong-grade", sheet.where, f"{row['query_id']} judges {id_} as {score}, the rule says {right}")

    def _queries(self, table: Table, rows: Rows | None) -> pa.Array:
        """Compares the queries table with the rows; returns its ids."""
        ids = [NONE]
        for sheet in self._sheets(table):
            texts = sheet.texts("text")
            sheet.flag("empty-id", blank(sheet.ids))
            ids.append(sheet.ids)
            if rows is None:
                sheet.flag("empty-query", blank(texts))
                continue
            places = places_in(rows.ids, sheet.ids)
            sheet.flag("extra-query", places < 0)
            said = rows.texts.take(pa.array(places, mask=places < 0))
            sheet.flag("query-text-differs", mask(pc.not_equal(said, texts)), texts, label="here")
        listed = pa.concat_arrays(ids)
        self._twice("duplicate-query", table.where, [listed])
        if rows is not None and len(missing := rows.ids.filter(pc.invert(pc.is_in(rows.ids, listed)))):
            self.found.add("missing-query", table.where, missing[0].as_py(), len(missing))
        return listed

    def _qrels(self, table: Table, ids: pa.Array | None, rows: Rows | None, corpus: Corpus | None) -> None:
        """Checks the qrels against the ids of queries and products, and against the judgements of the rows."""
        listed = np.full(table.rows, -1, np.int64)
        for sheet in self._sheets(table):
            product_ids, scores = sheet.texts("corpus-id"), sheet.batch["score"]
            grades = scores.fill_null(-1).to_numpy(zero_copy_only=False)
            sheet.flag("grade-range", (grades < 0) | (grades > 3), scores)
            if ids is not None:
                queries = places_in(ids, sheet.ids)
                sheet.flag("dangling-query", queries < 0, product_ids, label="judges")
            if corpus is not None:
                products = places_in(corpus.ids, product_ids)
                sheet.flag("dangling-product", products < 0, product_ids)
            if ids is not None and corpus is not None:
                inside = (queries >= 0) & (products >= 0)
                numbers = _numbers(queries[inside], products[inside], grades[inside], len(corpus.ids))
                listed[sheet.start : sheet.start + len(sheet)][inside] = numbers
        if rows is None or corpus is None:
            return
        listed.sort()
        listed = listed[np.searchsorted(listed, 0) :]
        if not np.array_equal(listed, rows.judged):
            stride = GRADES * max(1, len(corpus.ids))
            here, there = (np.bincount(numbers // stride, minlength=len(rows.ids)) for numbers in (listed, rows.judged))
            differs = here != there
            differs[np.setxor1d(listed, rows.judged) // stride] = True
            first = int(np.flatnonzero(differs)[0])
            said = f"{rows.ids[first].as_py()}: {here[first]} judgements here, {there[first]} in the rows"
            self.found.add("judgements-differ", table.where, said, int(differs.sum()))

    def _twice(self, kind: str, where: str, ids: list[pa.Array]) -> None:
        counted = pc.value_counts(pa.concat_arrays([NONE, *ids]))
        again = counted.filter(pc.greater(counted.field("counts"), 1))
        if len(again):
            self.found.add(kind, where, f"{again[0]['values'].as_py()!r} stands {again[0]['counts'].as_py()} times", len(again))

    def _leaks(self, kind: str, where: str, of_splits: Mapping[str, tuple[pa.Array, pa.Array]]) -> None:
        """Keys that two splits share; `of_splits` has keys and the ids they belong to. An empty key is none."""
        for (one, (left, left_ids)), (other, (right, right_ids)) in itertools.combinations(of_splits.items(), 2):
            common = pc.unique(left.filter(pc.and_(pc.is_in(left, right), pc.not_equal(left, ""))))
            if len(common):
                first, second = (ids[keys.index(common[0]).as_py()].as_py() for keys, ids in ((left, left_ids), (right, right_ids)))
                self.found.add(kind, where, f"{first} of {one} and {second} of {other}", len(common))


def _numbers(queries: np.ndarray, products: np.ndarray, grades: np.ndarray, size: int) -> np.ndarray:
    """A 64-bit number for each judgement, from the places of query and product (of `size`) and the grade."""
    return (queries * size + products) * GRADES + (grades & (GRADES - 1))


def _alone(sheet: Sheet, intents: pa.Array) -> tuple[pa.Array, pa.Array]:
    """The wordings of the rows without an intent (as typed, and clean), case and space aside, and the ids of their rows."""
    alone = pc.equal(intents, "")
    ids, columns = sheet.ids.filter(alone), [sheet.texts(column).filter(alone) for column in ("query", "clean") if column in sheet.names]
    keys = [" ".join(text.casefold().split()) for column in columns for text in column.to_pylist()]
    return pa.array(keys, pa.string()), pa.concat_arrays([ids] * len(columns))


def _parsed(text: str) -> Any:
    """What JSON says; None where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _intent(text: str) -> Intent | None:
    value = _parsed(text)
    if not isinstance(value, dict) or value.get("kind") not in tuple(INTENT_KINDS):
        return None
    type_, wanted = value.get("type"), value.get("wanted")
    return Intent(type_, wanted) if isinstance(type_, str) and isinstance(wanted, dict) else None


def _key(intent: Intent | None) -> str:
    """The same for intents that want the same, in whatever order; "" for none."""
    return json.dumps([intent.type, intent.wanted], sort_keys=True) if intent else ""
