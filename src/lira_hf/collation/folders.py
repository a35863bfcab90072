"""What a data set is for shows in its columns; each kind is read into a class of its own."""

from __future__ import annotations

from pathlib import Path

from datasets import Dataset, load_dataset

from lira_hf.collation.ranking import PairData, pair_data
from lira_hf.collation.retrieval import RetrievalData, retrieval_data
from lira_hf.modeling.processing_lira import Row

SPLITS = ("train", "validation", "test")


def read(folder: str | Path, language: str, split: str) -> RetrievalData | PairData:
    """One language's split of a folder or Hub repository. Raises ValueError where there is none, or its columns are of no known kind."""
    rows = load_config(folder, language, split)
    if "product_ids" in rows.column_names:
        return retrieval_data(rows, load_config(folder, f"{language}-corpus", split), language)
    if "query_pair" in rows.column_names:
        return pair_data(rows, language)
    kinds = "product_ids (retrieval) or query_pair (ranking) is needed"
    raise ValueError(f"data: {str(folder)!r} has the columns {', '.join(rows.column_names)}; {kinds}")


def load_config(folder: str | Path, config: str, split: str) -> Dataset:
    try:
        return load_dataset(str(folder), config, split=split)
    except (FileNotFoundError, ValueError) as error:
        raise ValueError(f"data: {str(folder)!r} has no configuration {config!r} with a split {split!r} ({str(error).splitlines()[0]})") from error


def every_row(data: list[RetrievalData | PairData], references: bool = False) -> list[Row]:
    """All rows that training or evaluation will read, for filling a FeatureStore."""
    return [row for part in data for row in part.rows(references)]
