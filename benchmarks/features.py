"""An epoch of stage 2 from cached features against the same epoch from text, and the memory of reading ten thousand to a million rows.

Writes docs/results/features.json. The backbones have the layers of multilingual-e5 and bge-en-v1.5, small (12 of width 384) or base (12 of
768), with random weights, which take the same time. LiRA's own part has the sizes of configs/tiny.yaml, or those of LiraConfig: it is
trained in both epochs, without a queue, and is what an epoch from the cache spends its time on.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import functools
import json
import multiprocessing
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import torch
from tqdm import tqdm, trange
from transformers import AutoModel, BertConfig, ProgressCallback, Trainer, XLMRobertaConfig

from lira_hf import LiraForRetrieval, LiraProcessor
from lira_hf.backbones import build as build_tokenizer
from lira_hf.catalogue import build
from lira_hf.collation import RetrievalCollator, RetrievalData, read
from lira_hf.features import FeatureStore, fill
from lira_hf.features.keys import text_key
from lira_hf.features.store import Shards, write_shard
from lira_hf.modeling.processing_lira import Row
from lira_hf.training import arguments

RESULTS = Path(__file__).parents[1] / "docs" / "results"
SMALL = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 1536}
BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
TINY = {"num_bins": 4, "width": 128, "fusion_layers": 1}
CASES = {  # the backbones, LiRA's own fields, the share of the queries
    "tiny LiRA, small backbones": (SMALL, TINY, 1.0),
    "default LiRA, small backbones": (SMALL, {}, 1.0),
    "default LiRA, base backbones": (BASE, {}, 0.5),
}
MAX_LENGTH, BATCH, PRODUCTS = 64, 32, 4
LANGUAGES = ["th", "id"]


# ---- an epoch ---------------------------------------------------------------------------------------------------------------


def read_data(scratch: Path) -> list[RetrievalData]:
    if not (scratch / "data").exists():
        build(scratch / "data", "small", LANGUAGES, 0, progress=False)
    return [read(scratch / "data", code, "train") for code in LANGUAGES]


def backbones(folder: Path, shape: dict, data: list[RetrievalData]) -> tuple[str, str]:
    """Two 12-layer encoders with tokenizers trained on the data."""
    paths = []
    for path in ("multilingual", "english"):
        items = [item.row for part in data for item in (*part.queries, *part.products.values())]
        tokenizer, _ = build_tokenizer(path, [text for row in items for text in ([row.text] if path == "multilingual" else row.translations)], 0)
        torch.manual_seed(0)
        if path == "multilingual":
            config = XLMRobertaConfig(vocab_size=len(tokenizer), pad_token_id=1, bos_token_id=0, eos_token_id=2, max_position_embeddings=260, **shape)
        else:
            config = BertConfig(vocab_size=len(tokenizer), **shape)
        AutoModel.from_config(config).save_pretrained(folder / path)
        tokenizer.save_pretrained(folder / path)
        paths.append(str(folder / path))
    return tuple(paths)


def epoch(model: LiraForRetrieval, encoder, part: RetrievalData, scratch: Path) -> float:
    """Seconds of one epoch of stage 2 by the plain Trainer."""
    values = {"num_train_epochs": 1, "per_device_train_batch_size": BATCH, "learning_rate": 1e-4, "save_strategy": "no", "disable_tqdm": True}
    trainer = Trainer(
        model=model,
        args=arguments(scratch / "trainer", 0, {**values, "logging_strategy": "no"}),
        train_dataset=part.queries,
        data_collator=RetrievalCollator(encoder, part.products, PRODUCTS, references=False),
    )
    trainer.remove_callback(ProgressCallback)
    started = time.perf_counter()
    trainer.train()
    return time.perf_counter() - started


class Watched:
    """A store whose batches are counted and timed."""

    def __init__(self, store: FeatureStore):
        self.store, self.seconds, self.bytes = store, 0.0, 0

    def batch(self, rows: list[Row], prompt_name: str | None = None) -> dict[str, torch.Tensor]:
        started = time.perf_counter()
        found = self.store.batch(rows, prompt_name)
        self.seconds += time.perf_counter() - started
        texts = {"multilingual": sum(row.text is not None for row in rows), "english": sum(len(row.translations) for row in rows)}
        self.bytes += sum(count * self.store.shards[path].row_bytes for path, count in texts.items())
        return found


def bandwidth() -> float:
    """Bytes a second that one process copies in memory, the best of five."""
    source = np.ones(32 * 2**20)
    target, seconds = np.zeros_like(source), []
    for _ in range(5):
        started = time.perf_counter()
        target[:] = source
        seconds.append(time.perf_counter() - started)
    return source.nbytes / min(seconds)


def measure_epochs(repetitions: int, queries: int, scratch: Path) -> dict:
    """Pairs of epochs, one from text and one from the cache, in turn; every ratio is of one pair."""
    data = read_data(scratch)
    chosen = [query for queries_of in zip(*(part.queries for part in data), strict=True) for query in queries_of][:queries]
    products = {identifier: product for each in data for identifier, product in each.products.items()}
    found = {}
    for name, (shape, fields, share) in CASES.items():
        part = RetrievalData("th", chosen[: max(1, int(share * len(chosen)))], products)
        paths = backbones(scratch / f"backbones-{shape['hidden_size']}", shape, data)
        processor = LiraProcessor.from_backbones(*paths, max_length=MAX_LENGTH)
        torch.manual_seed(0)
        model = LiraForRetrieval.from_backbones(*paths, consistency_weight=0.0, queue="none", **fields)
        read_rows = [query.row for query in part.queries]
        read_rows += [products[identifier].row for query in part.queries for identifier in query.judged if identifier in products]
        started = time.perf_counter()
        store = fill(scratch / "features", model.lira, processor, read_rows)
        filling = time.perf_counter() - started
        pairs, floors, watched = [], [], Watched(store)
        epoch(model, watched, part, scratch)  # not counted: the first epoch finds cold files and cold code
        watched.seconds = watched.bytes = 0
        for _ in trange(repetitions, desc=f"epochs, {name}", unit="pair"):
            pairs.append({"text": epoch(model, processor, part, scratch), "cache": epoch(model, watched, part, scratch)})
            floors.append(watched.bytes / (len(floors) + 1) / bandwidth())
        cache = [pair["cache"] for pair in pairs]
        reading = watched.seconds / repetitions
        found[name] = {
            "backbones": shape,
            "lira": {field: getattr(model.config, field) for field in TINY},
            "queries": len(part.queries),
            "texts": {path: len(shards) for path, shards in store.shards.items()},
            "fill_seconds": filling,
            "text_seconds": spread([pair["text"] for pair in pairs]),
            "cache_seconds": spread(cache),
            "ratio": spread([pair["text"] / pair["cache"] for pair in pairs]),
            "reading_seconds": reading,
            "ratio_without_reading": statistics.median(pair["text"] for pair in pairs) / (statistics.median(cache) - reading),
            "bytes": watched.bytes // repetitions,
            "floor_seconds": spread(floors),
            "pairs": pairs,
        }
    return {"batch": BATCH, "products_per_query": PRODUCTS, "max_length": MAX_LENGTH, "cases": found}


def spread(values: list[float]) -> dict:
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}


# ---- memory -----------------------------------------------------------------------------------------------------------------


def read_all(folder: Path, processor_folders: tuple[str, str], rows: int, batch: int = 512) -> dict:
    """In a process of its own: every row once, in random order, as training reads them."""
    processor, process = LiraProcessor.from_backbones(*processor_folders), psutil.Process()
    order = np.random.default_rng(0).permutation(rows)
    before = process.memory_info().rss
    shards = Shards(folder)
    store, highest = FeatureStore({"multilingual": shards, "english": shards}, processor), 0
    started = time.perf_counter()
    for start in trange(0, rows, batch, desc=f"reading {rows:,} rows", unit="batch"):
        store.batch([Row(f"text {i}", [f"text {i}"], [None], "th") for i in order[start : start + batch]])
        highest = max(highest, process.memory_info().rss)
    seconds = time.perf_counter() - started
    size = sum(file.stat().st_size for file in shards.files)
    return {
        "rows": rows,
        "megabytes_on_disk": size / 1e6,
        "megabytes_before": before / 1e6,
        "megabytes_highest": highest / 1e6,
        "microseconds_per_text": seconds / rows / 2 * 1e6,
        "index_megabytes": 16 * rows / 1e6,
    }


def measure_memory(sizes: list[int], scratch: Path, num_bins: int = 4, hidden: int = 128, shard_rows: int = 4096) -> list[dict]:
    """Random features, written by the cache's own writer, and the memory of a process that reads them all."""
    paths = backbones(scratch / "backbones-384", SMALL, read_data(scratch))
    folder, written, found = scratch / "many", 0, []
    (folder / "shards").mkdir(parents=True)
    (folder / "key.json").write_text(json.dumps({"num_bins": num_bins, "hidden_size": hidden, "dtype": "float32"}))
    for size in sizes:
        for start in tqdm(range(written, size, shard_rows), desc=f"writing {size:,} rows", unit="shard"):
            keys = torch.tensor([text_key(f"text {i}") for i in range(start, min(start + shard_rows, size))])
            write_shard(folder, keys, torch.rand(len(keys), num_bins + 1, hidden))
        written = size
        Shards(folder)  # makes the index, as a fill does at its end
        with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            task = functools.partial(read_all, folder, paths, size)
            found.append(pool.submit(task).result())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--parts", nargs="+", choices=["epoch", "memory"], default=["epoch", "memory"], help="the other stays as it was")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--queries", type=int, default=128)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--threads", type=int, default=1, help="of torch; on a busy machine a second one makes small steps many times slower")
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    file = arguments.output / "features.json"
    found = json.loads(file.read_text()) if file.exists() else {}
    machine = {"python": platform.python_version(), "torch": torch.__version__, "cores": os.cpu_count(), "threads": torch.get_num_threads()}
    with tempfile.TemporaryDirectory() as scratch:
        if "epoch" in arguments.parts:
            found["epoch"] = measure_epochs(arguments.repetitions, arguments.queries, Path(scratch))
            found["epoch"] |= machine | {"load": os.getloadavg()[2]}  # other work on the machine; a ratio is of two epochs in turn
        if "memory" in arguments.parts:
            found["memory"] = machine | {"sizes": measure_memory(sorted(arguments.rows), Path(scratch))}
    arguments.output.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(found, indent=2) + "\n")
    show(found)


def show(found: dict) -> None:
    for name, one in found.get("epoch", {"cases": {}})["cases"].items():
        ratio, floor, cache = one["ratio"], one["floor_seconds"]["median"], one["cache_seconds"]["median"]
        print(
            f"{name}: an epoch from text {one['text_seconds']['median']:.1f} s, from the cache {cache:.2f} s, of which reading "
            f"{one['reading_seconds']:.3f} s: {ratio['median']:.1f} times faster ({ratio['lowest']:.1f} to {ratio['highest']:.1f}), "
            f"{one['ratio_without_reading']:.1f} if reading took no time; "
            f"floor {floor:.4f} s ({one['bytes'] / 1e6:.0f} MB at the speed of memory)"
        )
    for one in found.get("memory", {"sizes": []})["sizes"]:
        grown = one["megabytes_highest"] - one["megabytes_before"]
        print(
            f"{one['rows']:,} rows, {one['megabytes_on_disk']:,.0f} MB on disk: {grown:.1f} MB more resident while reading "
            f"(index {one['index_megabytes']:.1f} MB), {one['microseconds_per_text']:.1f} microseconds a text"
        )


if __name__ == "__main__":
    main()
