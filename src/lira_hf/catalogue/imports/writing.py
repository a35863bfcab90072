"""The folder of an imported set: the tables and the card of a built one, import.json and refused.jsonl."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from tqdm import tqdm

from lira_hf.catalogue.card import configs, count_rows
from lira_hf.catalogue.folder import new_folder
from lira_hf.catalogue.imports.report import Report
from lira_hf.catalogue.letters import script_of
from lira_hf.catalogue.rows import counted
from lira_hf.catalogue.splits import SPLITS
from lira_hf.catalogue.tables import qrels_of, table_path, write_columns
from lira_hf.languages import LANGUAGES

CARD = """---
{front}---

# {name} product search, imported

The person who made this folder imported it from their own files ({files}) with `lira-hf data import`; it is not LazRetrieval.
**The licence is theirs to state**: replace `unknown` in the first lines before the folder is passed on, and say here where the data is from.

{counts}

{notes}

What was refused, and why, is counted in `import.json` and listed in `refused.jsonl`; these two are not published.
"""


def write_folder(
    language: str,
    seed: int,
    files: Sequence[str],
    shelf: pd.DataFrame,
    asked: pd.DataFrame,
    judged: pd.DataFrame,
    report: Report,
    progress: bool,
    shared_products: bool = False,
) -> None:
    """Write `report.output` and put it in place at once; fills `report.counts`. `files`: the names of those that were read."""
    with new_folder(report.output) as root:
        answers = judged.groupby("query", sort=False).agg(product_ids=("product", list), relevances=("score", list))
        asked = asked.join(answers, on="id")
        splits = [split for split in SPLITS if (asked["split"] == split).any()]  # `datasets` cannot read a table without rows
        for split in tqdm(splits, unit="split", disable=not progress):
            tables = _tables(language, shelf[shelf["split"] == split], asked[asked["split"] == split])
            for suffix, columns in tables.items():
                write_columns(table_path(root, language, suffix, split), suffix, columns)
            report.counts[split] = {**counted(tables[""]), "products": len(tables["-corpus"]["_id"])}
        record = {"files": files, "language": language, "seed": seed, "notes": report.notes, "counts": report.counts, "refused": report.refused}
        (root / "import.json").write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        (root / "refused.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in report.listed), encoding="utf-8")
        content = hashlib.sha256(json.dumps(_hashes(root)).encode()).hexdigest()
        (root / "README.md").write_text(_card(language, files, report, content[:16]), encoding="utf-8")
        shared = {"shared_products": True} if shared_products else {}  # validation would else take them for a leak
        build = {"size": "imported", "seed": seed, **shared, "languages": [language], "counts": {language: report.counts}, "sha256": _hashes(root)}
        (root / "build.json").write_text(json.dumps(build, indent=2) + "\n", encoding="utf-8")


def _tables(language: str, shelf: pd.DataFrame, asked: pd.DataFrame) -> dict[str, Mapping[str, Sequence[Any]]]:
    """The columns of the four tables of one split."""
    import pyarrow as pa

    ids, texts, count = asked["id"].tolist(), asked["text"].tolist(), len(asked)
    rows = {
        "query_id": ids,
        "query": texts,
        "language": [language] * count,
        "script": [script_of(text, language) for text in texts],
        "slice": [["imported"]] * count,
        "english": [""] * count,
        "translations": [[]] * count,
        "product_ids": pa.array(asked["product_ids"].tolist(), pa.list_(pa.string())),
        "relevances": asked["relevances"].tolist(),
        "clean": texts,
        "intent": [""] * count,
    }
    corpus = {name: column.tolist() for name, column in shelf.rename(columns={"id": "_id"}).items()}
    corpus |= {"english": [""] * len(shelf), "translations": [[]] * len(shelf)}
    return {"": rows, "-corpus": corpus, "-queries": {"_id": ids, "text": texts}, "-qrels": qrels_of(rows)}


def _hashes(root: Path) -> dict[str, str]:
    """Relative path → sha256 of every table under `root`; the card is left to be edited, and the other files stay at home."""
    paths = sorted(root.rglob("*.parquet"))
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def _card(language: str, files: Sequence[str], report: Report, content: str) -> str:
    """The README: the front matter that `datasets` reads, and what is in the folder; `content` is a digest of the tables."""
    front = {
        "license": "unknown",
        "language": [language],
        "task_categories": ["text-retrieval"],
        "tags": ["product-search"],
        "configs": configs([language], report.counts, content),
    }
    return CARD.format(
        front=yaml.safe_dump(front, sort_keys=False, allow_unicode=True),
        name=LANGUAGES[language].name,
        files=", ".join(files),
        counts="\n".join(count_rows({language: report.counts})),
        notes="\n".join(f"- {note}" for note in report.notes),
    )
