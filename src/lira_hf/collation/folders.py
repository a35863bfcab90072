"""What a data set is for shows in its columns; each kind is read into a class of its own."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path

from datasets import Dataset, IterableDataset, load_dataset

from lira_hf.collation.ranking import PairData, pair_data
from lira_hf.collation.reasoning import ProblemData, problem_data
from lira_hf.collation.retrieval import RetrievalData, query_of, retrieval_data
from lira_hf.collation.streaming import Catalogue, Reread, RetrievalStream, Streamed, count_rows
from lira_hf.modeling.processing_lira import Row

Data = RetrievalData | PairData | ProblemData

SPLITS = ("train", "validation", "test")


def read(folder: str | Path, language: str, split: str) -> Data:
    """One language's split of a folder or Hub repository. Raises ValueError where there is none, or its columns are of no known kind."""
    rows = load_config(folder, language, split)
    if "product_ids" in rows.column_names:
        return retrieval_data(rows, load_config(folder, f"{language}-corpus", split), language)
    if "query_pair" in rows.column_names:
        return pair_data(rows, language)
    if "question" in rows.column_names:
        return problem_data(rows, language)
    kinds = "product_ids (retrieval), query_pair (ranking) or question (reasoning) is needed"
    raise ValueError(f"data: {str(folder)!r} has the columns {', '.join(rows.column_names)}; {kinds}")


def stream(folder: str | Path, language: str, split: str) -> RetrievalStream:
    """As read, but rows stay where they are until they are needed, and products in Arrow files on the disk. Raises ValueError too where the
    data is of a kind that is not streamed."""
    rows = load_config(folder, language, split, streaming=True)
    if "product_ids" not in (rows.column_names or next(iter(rows))):
        raise ValueError(f"streaming: {str(folder)!r} has no column product_ids, and only data for retrieval is streamed; set streaming: false")
    queries = Streamed(rows, count_rows(folder, language, split), partial(query_of, language=language))
    return RetrievalStream(language, queries, Catalogue(load_config(folder, f"{language}-corpus", split), language))


def load_config(folder: str | Path, config: str, split: str, streaming: bool = False) -> Dataset | IterableDataset:
    """A table of a folder or Hub repository. Raises ValueError where there is none."""
    files = [str(file) for file in sorted((Path(folder) / config).glob(f"{split}-*.parquet"))]
    try:
        if files:  # asked for by its folder, a table would come from the cache of any folder of that name
            return load_dataset("parquet", data_files={split: files}, split=split, streaming=streaming)
        return load_dataset(str(folder), config, split=split, streaming=streaming)
    except (FileNotFoundError, ValueError) as error:
        raise ValueError(f"data: {str(folder)!r} has no configuration {config!r} with a split {split!r} ({str(error).splitlines()[0]})") from error


def every_row(data: list[Data] | list[Data | RetrievalStream], references: bool = False) -> Iterable[Row]:
    """All rows that training or evaluation will read, for filling a FeatureStore; they can be read again. A list, but for streams."""
    if any(isinstance(part, RetrievalStream) for part in data):
        return Reread(lambda: (row for part in data for row in part.rows(references)))
    return [row for part in data for row in part.rows(references)]
