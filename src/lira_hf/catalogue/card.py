"""The README of a built data set: rendered from what was written and measured, so that no number is typed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from string import Template
from typing import Any

import yaml

from lira_hf.catalogue.difficulty import rows_of_table
from lira_hf.catalogue.lexicon import load_catalogue
from lira_hf.catalogue.splits import SPLITS
from lira_hf.catalogue.tables import COLUMNS
from lira_hf.languages import LANGUAGES

Counts = Mapping[str, Mapping[str, Mapping[str, int]]]  # language → split → what is counted → how many
COUNTED = ("queries", "products", "judgements", "relevant")


def render_card(size: str, seed: int, counts: Counts, difficulty: Mapping[str, Any], content: str) -> str:
    """The README text, YAML front matter included.

    `difficulty` is what `measure` found, `content` a digest of the tables.
    """
    template = Template((files("lira_hf.dataset_cards") / "laz-retrieval" / "README.md").read_text(encoding="utf-8"))
    catalogue = load_catalogue()
    front = {
        "pretty_name": "LazRetrieval (synthetic)",
        "license": "apache-2.0",
        "language": list(counts),
        "task_categories": ["text-retrieval"],
        "tags": ["synthetic", "product-search", "query-translation"],
        "size_categories": [size_category(sum(of["queries"] for splits in counts.values() for of in splits.values()))],
        "configs": configs(list(counts), SPLITS, content),
    }
    return template.substitute(
        front=yaml.safe_dump(front, sort_keys=False, allow_unicode=True).strip(),
        size=size,
        seed=seed,
        types=len(catalogue.types),
        departments=len(catalogue.departments),
        categories=len({(type_.department, type_.category) for type_ in catalogue.types.values()}),
        values=sum(len(values) for axis, values in catalogue.values.items() if axis != "measure"),
        brands=len({brand for brands in catalogue.brands.values() for brand in brands}),
        counts="\n".join(count_rows(counts)),
        slices="\n".join(_slice_rows(counts)),
        basis=difficulty["basis"],
        difficulty="\n".join(rows_of_table(difficulty)),
        first=next(iter(counts)),
    )


def configs(languages: Sequence[str], splits: Iterable[str], content: str, suffixes: Iterable[str] = tuple(COLUMNS)) -> list[dict[str, Any]]:
    """The configurations that `datasets` finds in the front matter; the rows of the first language are the default.

    `content`, a digest, stands in each, because `datasets` caches a local folder by its name and its configurations, not
    by its files: without it, a data set built anew in a folder of the same name would be read as the old one.
    """
    found = []
    for language in languages:
        for suffix in suffixes:
            name = f"{language}{suffix}"
            paths = [{"split": split, "path": f"{name}/{split}-*.parquet"} for split in splits]
            default = {"default": True} if name == languages[0] else {}
            found.append({"config_name": name, **default, "description": f"content {content}", "data_files": paths})
    return found


def count_rows(counts: Counts) -> list[str]:
    """The lines of a Markdown table, one row for each split of each language."""
    head = f"| language | split | {' | '.join(COUNTED[:3])} | of these above 0 |"
    rows = [
        f"| {LANGUAGES[language].name} | {split} | {' | '.join(f'{of_split[kind]:,}' for kind in COUNTED)} |"
        for language, splits in counts.items()
        for split, of_split in splits.items()
    ]
    return [head, "|---|---" + "|--:" * len(COUNTED) + "|", *rows]


def _slice_rows(counts: Counts) -> list[str]:
    totals: dict[str, dict[str, int]] = {}
    for language, splits in counts.items():
        for of_split in splits.values():
            for name, number in of_split.items():
                if name.startswith("slice:"):
                    row = totals.setdefault(name.removeprefix("slice:"), {})
                    row[language] = row.get(language, 0) + number
    head = f"| slice | {' | '.join(counts)} |"
    rows = [[name, *(f"{row.get(code, 0):,}" for code in counts)] for name, row in sorted(totals.items())]
    return [head, "|---" + "|--:" * len(counts) + "|", *(f"| {' | '.join(cells)} |" for cells in rows)]


def size_category(rows: int) -> str:
    """How the Hub names a size: "10K<n<100K"."""
    steps = {10**3: "1K", 10**4: "10K", 10**5: "100K", 10**6: "1M", 10**7: "10M"}
    above = next((step for step in steps if rows < step), None)
    if above is None:
        return "n>10M"
    return f"n<{steps[above]}" if above == 10**3 else f"{steps[above // 10]}<n<{steps[above]}"
