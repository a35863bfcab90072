"""A batch of rows: its columns, nulls counting as empty, and what is wrong with its texts.

Masks are boolean arrays of numpy, one value for each row, or for each element of a list column.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lira_hf.catalogue.tables import COLUMNS
from lira_hf.catalogue.validation.findings import Findings
from lira_hf.catalogue.validation.tables import Table

ASPECTS = ("semantic", "emotional", "pragmatic")
BAD_CHARACTER = r"[\x{0}-\x{8}\x{e}-\x{1f}\x{7f}-\x{9f}\x{feff}\x{fff9}-\x{fffd}\x{fffe}\x{ffff}]"
# A single no-break space is what phones type, and a slice of the builder; any other unusual space is a mistake.
UNTIDY_SPACE = r"^[\s\p{Z}]|[\s\p{Z}]$|[\s\p{Z}]{2}|[\t-\r\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]"
NONE = pa.array([], pa.string())
SHOWN = 100  # characters of a value in an example


class Sheet:
    """A batch of a table; in the report, a row goes by its id. `start` is the number of its first row."""

    def __init__(self, table: Table, batch: pa.RecordBatch, start: int, found: Findings) -> None:
        self.where, self.batch, self.start, self.found = table.where, batch, start, found
        self.names = batch.schema.names
        self.ids = self.texts(next(iter(COLUMNS[table.suffix])))

    def __len__(self) -> int:
        return self.batch.num_rows

    def texts(self, column: str) -> pa.Array:
        """A column of texts."""
        return self.batch[column].fill_null("")

    def lists(self, column: str) -> tuple[np.ndarray, np.ndarray, pa.Array]:
        """A list column: the length of each list, the row of each element, and the elements."""
        lengths = pc.list_value_length(self.batch[column]).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
        return lengths, np.repeat(np.arange(len(self)), lengths), pc.list_flatten(self.batch[column])

    def flag(self, kind: str, mask: np.ndarray, values: pa.Array | None = None, rows: np.ndarray | None = None, label: str = "") -> None:
        """Reports every True of `mask`; the first is told by its id, `label` and value. `rows`: the row of each element."""
        places = np.flatnonzero(mask)
        if len(places):
            first = int(places[0])
            row = first if rows is None else int(rows[first])
            value = "" if values is None else repr(values[first].as_py())[:SHOWN]
            name = self.ids[row].as_py() or f"row {self.start + row:,}"
            said = " ".join(part for part in (label, value) if part)
            self.found.add(kind, self.where, f"{name}: {said}" if said else name, len(places))

    def check_text(self, label: str, texts: pa.Array, rows: np.ndarray | None = None) -> None:
        """Reports characters and spaces that no text should have."""
        for kind, pattern in (("bad-character", BAD_CHARACTER), ("untidy-space", UNTIDY_SPACE)):
            self.flag(kind, matching(texts, pattern), texts, rows, label)

    def check_translations(self) -> None:
        """The candidate translations, which may be none."""
        _, rows, candidates = self.lists("translations")
        texts = candidates.field("text").fill_null("")
        self.check_text("a translation", texts, rows)
        self.flag("empty-candidate", blank(texts), rows=rows)
        for aspect in ASPECTS:
            scores = candidates.field(aspect).fill_null(0)
            self.flag("score-range", mask(pc.less(scores, 1), pc.greater(scores, 10)), scores, rows, aspect)
        of_row = pa.table({"row": rows, "text": pc.utf8_lower(texts)}).group_by(["row", "text"]).aggregate([([], "count_all")])
        repeated = of_row.filter(pc.greater(of_row["count_all"], 1)).combine_chunks()
        self.flag("repeated-candidate", np.ones(len(repeated), bool), repeated["text"], repeated["row"].to_numpy())


def mask(*either: pa.Array) -> np.ndarray:
    """Where one of some boolean arrays is true; null is false."""
    return np.logical_or.reduce([one.fill_null(False).to_numpy(zero_copy_only=False) for one in either])


def matching(texts: pa.Array, pattern: str) -> np.ndarray:
    """Where `pattern` is found in a text."""
    return mask(pc.match_substring_regex(texts, pattern))


def blank(texts: pa.Array) -> np.ndarray:
    """Where a text is empty or white space."""
    return mask(pc.equal(pc.utf8_trim_whitespace(texts), ""))


def places_in(ids: pa.Array, values: pa.Array) -> np.ndarray:
    """Where each of `values` stands in `ids`; -1 where it does not."""
    return pc.index_in(values, ids).fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
