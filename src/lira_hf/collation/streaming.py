"""Training data that never lies in memory: rows from a stream, products from the disk by id.

Beside the weights, what stays in memory is a buffer of SHUFFLED rows for each table that is read, and 16 bytes for each product."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow.parquet as pq
from datasets import Dataset, IterableDataset, load_dataset_builder
from torch.utils.data import IterableDataset as TorchIterableDataset
from torch.utils.data import get_worker_info

from lira_hf.collation.mixture import shares
from lira_hf.collation.retrieval import Product, Query, id_number, product_of, query_of, reference
from lira_hf.modeling.processing_lira import Row

SHUFFLED = 1000  # rows among which the next one is drawn
CHUNK = 256  # rows that are read at once


class Streamed:
    """The items of a table, each made when it is its turn. It can be read any number of times; len() is the number of rows.

    Args:
        rows: the table's rows. make: an item from a row."""

    def __init__(self, rows: IterableDataset, count: int, make: Callable[[dict], Any]):
        self.rows, self.count, self.make = rows, count, make

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Any]:
        return map(self.make, dicts(self.rows))

    def passes(self, seed: int, keep: Callable[[Any], bool]) -> Iterator[Any]:
        """The items to keep without end, each pass in another order; a field `draw` of an item gets the number of the pass. It ends
        after a pass that found none to keep."""
        shuffled, found = self.rows.shuffle(seed=seed, buffer_size=SHUFFLED), True
        for number in itertools.count():
            if not found:
                return
            found = False
            shuffled.set_epoch(number)
            for item in filter(keep, map(self.make, dicts(shuffled))):
                found = True
                yield replace(item, draw=number) if hasattr(item, "draw") else item


def dicts(rows: IterableDataset) -> Iterator[dict]:
    """Rows one by one. In a data loader's worker, iterating over the rows themselves would give it only its own shards."""
    for chunk in rows.iter(CHUNK):
        for values in zip(*chunk.values(), strict=True):
            yield dict(zip(chunk, values, strict=True))


class Catalogue(Mapping[str, Product]):
    """A language's products by id, read from the disk one by one."""

    def __init__(self, corpus: Dataset, language: str):
        self.corpus, self.language = corpus, language
        ids = (identifier for chunk in corpus.select_columns(["_id"]).iter(CHUNK) for identifier in chunk["_id"])
        numbers = np.fromiter(map(id_number, ids), np.int64, len(corpus))
        self.places = numbers.argsort(kind="stable")
        self.numbers = numbers[self.places]

    def __getitem__(self, identifier: str) -> Product:
        place = int(np.searchsorted(self.numbers, id_number(identifier)))
        if place < len(self.numbers) and self.numbers[place] == id_number(identifier):
            return product_of(self.corpus[int(self.places[place])], self.language)
        raise KeyError(identifier)

    def __contains__(self, identifier: object) -> bool:
        place = int(np.searchsorted(self.numbers, id_number(identifier)))
        return place < len(self.numbers) and bool(self.numbers[place] == id_number(identifier))

    def __iter__(self) -> Iterator[str]:
        return (row["_id"] for row in self.corpus.select_columns(["_id"]))

    def __len__(self) -> int:
        return len(self.corpus)


@dataclass
class RetrievalStream:
    """One language's rows and products of one split, as RetrievalData has them, but read when they are needed."""

    language: str
    queries: Streamed
    products: Catalogue

    def row_streams(self) -> list[Streamed]:
        """The rows of queries and of products."""
        corpus = self.products.corpus
        product_rows = Streamed(corpus.to_iterable_dataset(), len(corpus), partial(row_of, product_of, language=self.language))
        return [Streamed(self.queries.rows, len(self.queries), partial(row_of, query_of, language=self.language)), product_rows]

    def rows(self, references: bool = False) -> Iterator[Row]:
        """Every row of it; with references, the perfect translations too."""
        products = map(partial(product_of, language=self.language), self.products.corpus)
        for item in itertools.chain(self.queries, products):
            yield item.row
            if references:
                yield reference(item)


def row_of(item_of: Callable[..., Query | Product], values: dict, language: str) -> Row:
    return item_of(values, language).row


class Reread(Iterable):
    """What a function yields, as often as it is wanted."""

    def __init__(self, read: Callable[[], Iterator[Any]]):
        self.read = read

    def __iter__(self) -> Iterator[Any]:
        return self.read()


class Stream(TorchIterableDataset):
    """Items of several languages without end, in a random order that the seed fixes, whatever process or worker asks.

    Args:
        parts: the streams of each language. temperature: as of Mixture, where a language's count is that of its rows; within a language each
            stream gets as much as it has rows. keep: which items there are at all.
    All processes draw alike and each keeps its own part of every batch (accelerate's IterableDatasetShard): together they read what one
    process with the batch of all would read. Workers take turns by batches. What a resumed run has had is drawn again, but comes as None."""

    def __init__(self, parts: Sequence[Sequence[Streamed]], temperature: float = 1.0, seed: int = 0, keep: Callable[[Any], bool] = lambda item: True):
        if not temperature > 0:
            raise ValueError(f"temperature: {temperature!r} is not allowed; a number above 0 is")
        counts = [sum(map(len, part)) for part in parts]
        if not any(counts):
            raise ValueError("data: no rows to train on")
        self.streams = [stream for part in parts for stream in part]
        self.weights = [
            share * len(stream) / max(1, count)
            for part, share, count in zip(parts, shares(counts, temperature), counts, strict=True)
            for stream in part
        ]
        self.seed, self.keep, self.batch, self.begin = seed, keep, 1, 0

    def divide(self, batch: int, begin: int) -> None:
        """Sets the items of a batch over all processes, and how many items earlier runs have had."""
        self.batch, self.begin = batch, begin

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        workers, own = (worker.num_workers, worker.id) if worker else (1, 0)
        for place, item in enumerate(self.draws()):
            if place // self.batch % workers == own:
                yield item if place >= self.begin else None

    def draws(self) -> Iterator[Any]:
        rng = random.Random(self.seed)
        passes, weights = [stream.passes(self.seed, self.keep) for stream in self.streams], list(self.weights)
        while any(weights):
            index = rng.choices(range(len(passes)), weights)[0]
            item = next(passes[index], None)
            if item is None:  # such as the rows of queries, where only products have translations
                weights[index] = 0
            else:
                yield item
        raise ValueError("data: no row is of use to this stage; stage 1 needs rows with a text and a translation")


class LateCollator:
    """A collator for a Stream, which makes nothing of a batch that a resumed run has had."""

    def __init__(self, collator: Callable[[list], dict]):
        self.collator = collator

    def __call__(self, items: list) -> dict:
        return {} if items[0] is None else self.collator(items)


def count_rows(folder: str | Path, config: str, split: str) -> int:
    """The rows of a table, by what its Parquet files say of themselves."""
    files = load_dataset_builder(str(folder), config).config.data_files[split]
    if other := next((file for file in files if not str(file).endswith(".parquet")), None):
        raise ValueError(f"streaming: {other} is no Parquet file, and its rows cannot be counted without reading it; set streaming: false")
    total = 0
    for path in files:
        with fsspec.open(str(path)) as file:
            total += pq.read_metadata(file).num_rows
    return total
