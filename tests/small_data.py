"""A LazRetrieval folder of a few dozen rows, cut from a built one: training on it takes a second or two."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from lira_hf.catalogue import build


def cut(source: Path, target: Path, languages: list[str], rows: int = 40, shards: int = 2) -> str:
    """The first rows of every split and the products that they judge; several shards of the training rows."""
    for language in languages:
        for split in ("train", "validation", "test"):
            table = pq.read_table(source / language / f"{split}-00000-of-00001.parquet").slice(0, rows if split == "train" else 8)
            corpus = pq.read_table(source / f"{language}-corpus" / f"{split}-00000-of-00001.parquet")
            judged = pc.unique(pc.list_flatten(table["product_ids"]))
            corpus = corpus.filter(pc.is_in(corpus["_id"], judged.cast(corpus["_id"].type)))
            for name, each, count in ((language, table, shards if split == "train" else 1), (f"{language}-corpus", corpus, 1)):
                (target / name).mkdir(parents=True, exist_ok=True)
                step = -(-each.num_rows // count)
                for index in range(count):
                    file = target / name / f"{split}-{index:05d}-of-{count:05d}.parquet"
                    pq.write_table(each.slice(index * step, step), file)
    card = (source / "README.md").read_text()
    (target / "README.md").write_text(card)
    for language in languages:  # the card names these tables too
        for table in ("queries", "qrels"):
            shutil.copytree(source / f"{language}-{table}", target / f"{language}-{table}")
    return str(target)


def small_data(folder: Path, languages: list[str], **options) -> str:
    return cut(build(folder / "built", "small", languages, 0, progress=False), folder / "cut", languages, **options)
