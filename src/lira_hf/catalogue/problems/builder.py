"""The data set of problems on disk: Parquet for each language and split, and a card that says what was written."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template

import yaml

from lira_hf.catalogue.card import size_category
from lira_hf.catalogue.folder import new_folder
from lira_hf.catalogue.problems.arithmetic import CHOICES, KINDS
from lira_hf.catalogue.problems.rows import COLUMNS, MOST_ROWS, Kept, problem_rows, row_count
from lira_hf.catalogue.problems.words import SPLIT_OF, load_english, load_wording
from lira_hf.catalogue.splits import SPLITS
from lira_hf.catalogue.tables import arrow_schema, table_path
from lira_hf.languages import ENGLISH, LANGUAGES, check_languages

GROUP_ROWS = 2_000  # a stream gives its first row when a whole group has come


def build_problems(output: str | Path, rows: int = 2000, languages: Sequence[str] | None = None, seed: int = 0) -> Path:
    """Write the data set in the folder `output`, which appears whole or not at all, and return its path.

    `rows` are the training rows of each of `languages` (codes; None: all seven); English has `ENGLISH_SHARE` times as
    many. The same arguments give the same bytes. Raises ValueError for a wrong argument and for an `output` that is
    not new or empty.
    """
    codes = check_languages(None if languages is None else list(languages))
    if isinstance(rows, bool) or not isinstance(rows, int) or not 1 <= rows <= MOST_ROWS:
        raise ValueError(f"rows: {rows!r} is not allowed; give an integer from 1 to {MOST_ROWS}")
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise ValueError(f"seed: {seed!r} is not allowed; give an integer")
    for code in codes:
        load_wording(code)  # a mistake in a word shows before anything is written
    output = Path(output)
    with new_folder(output) as root:
        kept: dict[str, dict[str, Kept]] = {}
        content = hashlib.sha256()
        for code in (*codes, ENGLISH.code):
            for split in SPLITS:
                found, of_split = problem_rows(code, split, row_count(code, split, rows), seed)
                kept.setdefault(code, {})[split] = of_split
                path = table_path(root, code, "", split)
                write_rows(path, found)
                content.update(path.read_bytes())
        (root / "README.md").write_text(render_card(kept, seed, content.hexdigest()[:16]), encoding="utf-8")
    return output


def write_rows(path: Path, rows: Sequence[Mapping]) -> None:
    """Write `rows` with the columns of `COLUMNS`."""
    import pyarrow as pa  # only here: the package stays cheap to import
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows), schema=arrow_schema(COLUMNS)), path, compression="zstd", row_group_size=GROUP_ROWS)


def render_card(kept: Mapping[str, Mapping[str, Kept]], seed: int, content: str) -> str:
    """The README text, YAML front matter included; `kept` maps language and split to what was counted, `content` is a digest of the tables."""
    template = Template((files("lira_hf.dataset_cards") / "word-problems" / "README.md").read_text(encoding="utf-8"))
    configs = [
        {
            "config_name": code,
            **({"default": True} if code == next(iter(kept)) else {}),
            "description": f"content {content}",  # `datasets` caches a local folder by its name and its configurations, not by its files
            "data_files": [{"split": split, "path": f"{code}/{split}-*.parquet"} for split in SPLITS],
        }
        for code in kept
    ]
    front = {
        "pretty_name": "Shop word problems (synthetic)",
        "license": "apache-2.0",
        "language": list(kept),
        "task_categories": ["question-answering", "multiple-choice"],
        "tags": ["synthetic", "math-word-problems"],
        "size_categories": [size_category(sum(of.rows for splits in kept.values() for of in splits.values()))],
        "configs": configs,
    }
    return template.substitute(
        front=yaml.safe_dump(front, sort_keys=False, allow_unicode=True).strip(),
        seed=seed,
        kinds=len(KINDS),
        templates=len(KINDS) * len(SPLIT_OF),
        per_kind=len(SPLIT_OF),
        items=len(load_english().forms),
        choices=CHOICES,
        counts="\n".join(_count_rows(kept)),
        first=next(iter(kept)),
    )


def _count_rows(kept: Mapping[str, Mapping[str, Kept]]) -> list[str]:
    head = ["| language | split | rows | answer in the best candidate | in any candidate |", "|---|---|--:|--:|--:|"]
    lines = []
    for code, splits in kept.items():
        name = LANGUAGES.get(code, ENGLISH).name
        for split, of in splits.items():
            shares = ["–", "–"] if code == ENGLISH.code else [f"{100 * number / of.rows:.1f} %" for number in (of.best, of.any)]
            lines.append(f"| {name} | {split} | {of.rows:,} | {' | '.join(shares)} |")
    return head + lines
