"""Pairs of queries as a data set on disk, with a card that says how the scores are made, how they lie, and how far one gets without a model."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import yaml
from tqdm import tqdm

from lira_hf.catalogue.candidates import AXES
from lira_hf.catalogue.card import configs, size_category
from lira_hf.catalogue.difficulty import trigrams
from lira_hf.catalogue.folder import new_folder
from lira_hf.catalogue.lexicon import load_words
from lira_hf.catalogue.rows import SIZES, Part
from lira_hf.catalogue.similarity import COLUMNS, HIGHEST, KINSHIP, WANTED, WEIGHTS, pair_rows
from lira_hf.catalogue.splits import SPLITS
from lira_hf.catalogue.tables import GROUP_ROWS, arrow_schema, table_path
from lira_hf.languages import ENGLISH, LANGUAGES, check_languages

SHARES = {"validation": 0.15, "test": 0.25}  # of the rows of a language; the others are for training
FEWEST = 20  # rows of a language
SYSTEMS = {"query": "the queries as typed", "critic": "the critic's best translations", "english": "the correct translations"}
Rows = Sequence[Mapping[str, Any]]


def build_similarity(output: str | Path, rows: int = 2000, languages: Sequence[str] | None = None, seed: int = 0, progress: bool = True) -> Path:
    """Build the data set in the folder `output` and return its path: `rows` pairs of each language, over all splits.

    `languages` are codes (None: all seven). Equal arguments give equal bytes. The folder appears when all is written, or
    not at all. Raises ValueError for a wrong argument, for an `output` that is not new or empty, and for a lexicon with mistakes.
    """
    if isinstance(rows, bool) or not isinstance(rows, int) or rows < FEWEST:
        raise ValueError(f"rows: {rows!r} is not allowed; give an integer of at least {FEWEST}")
    codes = check_languages(None if languages is None else list(languages))
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise ValueError(f"seed: {seed!r} is not allowed; give an integer")
    output = Path(output)
    for code in (ENGLISH.code, *codes):
        load_words(code)  # a mistake in a word shows now
    with new_folder(output) as root:
        made, content = {}, hashlib.sha256()
        for code, split in tqdm(list(itertools.product(codes, SPLITS)), unit="table", disable=not progress):
            made[code, split] = pair_rows(Part(code, split, SIZES["standard"], seed), split_sizes(rows)[split])
            content.update(_write(table_path(root, code, "", split), made[code, split]))
        (root / "README.md").write_text(_card(made, seed, content.hexdigest()[:16]), encoding="utf-8")
    return output


def split_sizes(rows: int) -> dict[str, int]:
    """How many of the `rows` of a language each split gets."""
    held = {split: round(rows * share) for split, share in SHARES.items()}
    return {split: held.get(split, rows - sum(held.values())) for split in SPLITS}


def measure_similarity(rows: Rows) -> dict[str, tuple[float, float]]:
    """System to (Pearson, Spearman), -1 to 1, of the gold scores with the character 3-grams that the texts of a pair share.

    The systems are `SYSTEMS`; shared 3-grams are counted as Jaccard's index, equal ranks as their mean. nan where every score is the same.
    """
    import pandas as pd  # only here: the package stays cheap to import

    found = pd.DataFrame(
        {
            "gold": row["score"],
            "query": jaccard(row["query"], row["query_pair"]),
            "critic": jaccard(*(_best(row[name]) for name in ("translations", "translations_pair"))),
            "english": jaccard(row["english"], row["english_pair"]),
        }
        for row in rows
    )
    linear, ranked = (table.corr()["gold"] for table in (found, found.rank()))
    return {system: (float(linear[system]), float(ranked[system])) for system in SYSTEMS}


def jaccard(first: str, second: str) -> float:
    """The share of the 3-grams of two texts that both have, 0 to 1."""
    one, other = set(trigrams(first)), set(trigrams(second))
    return len(one & other) / len(one | other)


def _best(candidates: Sequence[Mapping[str, Any]]) -> str:
    return max(candidates, key=lambda candidate: sum(candidate[axis] for axis in AXES))["text"]


def _write(path: Path, rows: Rows) -> bytes:
    """Write a table; returns its sha256."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows), schema=arrow_schema(COLUMNS)), path, compression="zstd", row_group_size=GROUP_ROWS[""])
    return hashlib.sha256(path.read_bytes()).digest()


def _card(made: Mapping[tuple[str, str], Rows], seed: int, content: str) -> str:
    """The README; `made` maps language and split to rows, `content` is a digest of the tables."""
    codes = list(dict.fromkeys(code for code, _ in made))
    front = {
        "pretty_name": "LazSimilarity (synthetic)",
        "license": "apache-2.0",
        "language": codes,
        "task_categories": ["sentence-similarity"],
        "tags": ["synthetic", "product-search", "semantic-textual-similarity"],
        "size_categories": [size_category(sum(map(len, made.values())))],
        "configs": configs(codes, SPLITS, content, suffixes=[""]),
    }
    everything = [row["score"] for rows in made.values() for row in rows]
    return Template((files("lira_hf.dataset_cards") / "laz-similarity" / "README.md").read_text(encoding="utf-8")).substitute(
        front=yaml.safe_dump(front, sort_keys=False, allow_unicode=True).strip(),
        seed=seed,
        first=codes[0],
        kinship=_table(["the two product types", "kinship"], KINSHIP.items()),
        wanted=WANTED,
        weights=_table(["slot", "share"], WEIGHTS.items()),
        levels=len(set(everything)),
        counts=_table(["pairs", *(f"score {band}" for band in _bands()), "all"], _count_rows(codes, made)),
        difficulty=_table(["language", "pairs", *SYSTEMS.values()], _difficulty_rows(codes, made)),
    )


def _bands() -> list[str]:
    """The names of the columns in which scores are counted: the two ends, and what lies between two whole numbers."""
    return ["0", *(f"{low} to {low + 1}" for low in range(int(HIGHEST))), f"{HIGHEST:.0f}"]


def _count_rows(codes: Sequence[str], made: Mapping[tuple[str, str], Rows]) -> list[list[str]]:
    lines = []
    for split in SPLITS:
        # A whole number between the ends counts to the band below it, so that the first band starts above 0.
        counts = Counter(
            0 if not row["score"] else math.ceil(row["score"]) + (row["score"] == HIGHEST) for code in codes for row in made[code, split]
        )
        lines.append([split, *(f"{counts[band]:,}" for band in range(len(_bands()))), f"{counts.total():,}"])
    return lines


def _difficulty_rows(codes: Sequence[str], made: Mapping[tuple[str, str], Rows]) -> list[list[str]]:
    lines = []
    for code in codes:
        found = measure_similarity(made[code, "test"])
        cells = ["–" if math.isnan(of[0]) else " / ".join(f"{100 * value:.1f}" for value in of) for of in found.values()]
        lines.append([LANGUAGES[code].name, f"{len(made[code, 'test']):,}", *cells])
    return lines


def _table(head: Sequence[str], rows: Any) -> str:
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in lines)
