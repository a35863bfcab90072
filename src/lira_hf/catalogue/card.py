"""The README of a built data set: rendered from what was written, so that no number is typed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lira_hf.catalogue.splits import SPLITS
from lira_hf.catalogue.tables import COLUMNS
from lira_hf.languages import LANGUAGES

Counts = Mapping[str, Mapping[str, Mapping[str, int]]]  # language → split → what is counted → how many

TEMPLATE = """---
pretty_name: LazRetrieval (synthetic)
license: apache-2.0
language:
{languages}
task_categories:
- text-retrieval
tags:
- synthetic
- product-search
configs:
{configs}
---

# LazRetrieval, synthetic

**This data is synthetic.** A program composed every query, product and translation from hand-written words; no shop,
no shopper and no real brand is behind any of it. The LazRetrieval of the LiRA paper (arXiv 2510.14466) is not public,
and this is not it: numbers measured here cannot be compared with the paper's.

Built by `lira_hf.catalogue` with size `{size}` and seed {seed}.

## What is in it

| language | split | queries | products | judgements | of these above 0 | queries of unseen types |
|---|---|---|---|---|---|---|
{counts}

Queries by slice, all splits together:

{slices}

## How to read it

```python
from datasets import load_dataset
rows = load_dataset("<this folder or repository>", "{first}")  # queries with translations and judgements
corpus = load_dataset("<this folder or repository>", "{first}-corpus")  # products; also "-queries" and "-qrels"
```

Relevance is set by rule: 3 the wanted type with every wanted value, 2 the type with exactly one value wrong, 1 a
complement (what people buy with it) that matches where it can, as a red bag does a red dress, 0 irrelevant. A query is
judged against the corpus of its own split, and every product with a grade above 0 is listed. Splits share no product
family and no query intent; queries of the slice `unseen` ask for product types that no training row names.
`translations` are simulated, with errors, and scored by a simulated critic from 1 to 10; `english` is the correct
translation.
"""


def render_card(size: str, seed: int, counts: Counts) -> str:
    """The README text, YAML front matter included, for the languages and numbers in `counts`."""
    return TEMPLATE.format(
        languages="\n".join(f"- {code}" for code in counts),
        configs="\n".join(_configs(list(counts))),
        size=size,
        seed=seed,
        counts="\n".join(_count_rows(counts)),
        slices="\n".join(_slice_rows(counts)),
        first=next(iter(counts)),
    )


def _configs(languages: Sequence[str]) -> list[str]:
    lines = []
    for language in languages:
        for suffix in COLUMNS:
            name = f"{language}{suffix}"
            lines.append(f"- config_name: {name}")
            lines += ["  default: true"] if name == languages[0] else []
            lines.append("  data_files:")
            for split in SPLITS:
                lines += [f"  - split: {split}", f"    path: {name}/{split}-*.parquet"]
    return lines


def _count_rows(counts: Counts) -> list[str]:
    kinds = ("queries", "products", "judgements", "relevant", "unseen")
    return [
        f"| {LANGUAGES[language].name} | {split} | {' | '.join(f'{of_split.get(kind, 0):,}' for kind in kinds)} |"
        for language, splits in counts.items()
        for split, of_split in splits.items()
    ]


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
    return [head, "|---" * (len(counts) + 1) + "|", *(f"| {' | '.join(cells)} |" for cells in rows)]
