"""What the queue of past products costs, and which kind of it helps.

    python benchmarks/queues.py cost     a step of stage 2 on cached features with 65,536 queued embeddings, against the step without; the
                                         memory of a queue of features, embedded anew in chunks
    python benchmarks/queues.py kinds    none, embeddings, ema and features over three seeds, on LazRetrieval small with the tiny backbones

Writes docs/results/queues.json; what was measured already is kept, so that `kinds` goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import torch
from transformers import BertConfig, XLMRobertaConfig

from lira_hf.environment import environment
from lira_hf.evaluation.studies import anchor, build_data, find_backbones, set_up, train_arm
from lira_hf.languages import LANGUAGES
from lira_hf.modeling import LiraConfig, LiraForRetrieval
from lira_hf.reporting import write_json

RESULTS = Path(__file__).parents[1] / "docs" / "results" / "queues.json"
QUERIES, PRODUCTS, RELEVANT, CANDIDATES = 256, 8, 4, 4  # of a step, of a query, of those, of a text
ENTRIES, PAIRS = 65_536, 5


def build_model(**fields) -> LiraForRetrieval:
    """Default LiRA around encoders of width 384, whose layers do not matter: only their cached features are read."""
    size = {"hidden_size": 384, "num_hidden_layers": 1, "num_attention_heads": 6, "intermediate_size": 384, "vocab_size": 100}
    torch.manual_seed(0)
    config = LiraConfig(multilingual_config=XLMRobertaConfig(**size), english_config=BertConfig(**size), **fields)
    return LiraForRetrieval(config).train()


def features(rows: int, config: LiraConfig) -> dict[str, torch.Tensor]:
    bins, width = config.num_bins, 384
    pooled = torch.nn.functional.normalize
    return {
        "multilingual_features": torch.randn(rows, bins, width),
        "multilingual_pooled": pooled(torch.randn(rows, width), dim=-1),
        "english_features": torch.randn(rows, CANDIDATES, bins, width),
        "english_pooled": pooled(torch.randn(rows, CANDIDATES, width), dim=-1),
        "language_ids": torch.randint(1, 8, (rows,)),
    }


def step_batch(config: LiraConfig, first_id: int) -> dict:
    """256 queries, each with 8 products of its own, 4 of them relevant."""
    count = QUERIES * PRODUCTS
    ids = torch.arange(first_id, first_id + count)
    grades = torch.tensor([3, 2, 1, 1, 0, 0, 0, 0]).expand(QUERIES, -1)
    queries = features(QUERIES, config)
    products = features(count, config) | {"language_ids": queries["language_ids"].repeat_interleave(PRODUCTS)}
    judged = ids.view(QUERIES, PRODUCTS)
    return {
        **queries, "products": products, "product_ids": ids, "family_ids": ids, "judged_product_ids": judged, "judged_family_ids": judged,
        "judged_relevances": grades,
    }  # fmt: skip


def seconds(model: LiraForRetrieval, batch: dict) -> float:
    started = time.perf_counter()
    model(**batch).loss.backward()
    taken = time.perf_counter() - started
    model.zero_grad(set_to_none=True)
    return taken


def cost() -> dict:
    """A step's seconds with and without the queue, in turn, and the floor: the operations that the queue adds at least."""
    plain, queued = build_model(queue="none"), build_model(queue="embeddings", queue_size=ENTRIES)
    past = torch.nn.functional.normalize(torch.randn(ENTRIES, 768), dim=-1)
    ids = torch.arange(10**9, 10**9 + ENTRIES)
    queued.queue.push({"embedding": past, "product": ids, "family": ids, "language": torch.randint(1, 8, (ENTRIES,))})
    batch = step_batch(plain.config, 0)
    left, right = torch.randn(QUERIES, 768), past.T
    ratios, times, floors = [], [], []
    for turn in range(PAIRS + 1):
        without, with_queue = seconds(plain, batch), seconds(queued, batch)
        started = time.perf_counter()
        left @ right
        floors.append(time.perf_counter() - started)
        if turn:  # the first warms up
            ratios.append(with_queue / without - 1)
            times.append((without, with_queue))
            print(f"without {without:.2f} s, with {with_queue:.2f} s, adds {100 * ratios[-1]:.1f} %", flush=True)
    return {
        "entries": ENTRIES, "queries": QUERIES, "products": QUERIES * PRODUCTS, "dimensions": 768, "hardest": queued.config.queue_hardest,
        "step_seconds": statistics.median(time for time, _ in times), "added_percent": 100 * statistics.median(ratios),
        "added_percent_lowest": 100 * min(ratios), "added_percent_highest": 100 * max(ratios),
        "floor_percent": 100 * statistics.median(floors) / statistics.median(time for time, _ in times), "pairs": PAIRS,
        "environment": {"torch": torch.__version__, "threads": torch.get_num_threads(), "machine": platform.machine()},
    }  # fmt: skip


def memory(size: int, chunk: int) -> float:
    """MB that a step takes at its peak beyond what was there before, with so many queued features; a copy of the ring is part of it."""
    model = build_model(queue="features", queue_size=size, queue_chunk=chunk, num_bins=4, width=128, fusion_layers=1)
    rows = {name: tensor for name, tensor in features(size, model.config).items() if name != "language_ids"}
    rows |= {name: rows[name][:, :1].clone() for name in ("english_features", "english_pooled")}
    rows |= {"candidate_mask": torch.ones(size, 1, dtype=torch.bool), "text_mask": torch.ones(size, dtype=torch.bool)}
    rows |= {"translation_scores": torch.full((size, 1, 3), torch.nan)}
    ids = torch.arange(10**9, 10**9 + size)
    model.queue.push(rows | {"product": ids, "family": ids, "language": torch.randint(1, 8, (size,))})
    batch, process, peak, done = step_batch(model.config, 0), psutil.Process(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            peak[0] = max(peak[0], process.memory_info().rss)

    before = process.memory_info().rss
    watcher = threading.Thread(target=watch)
    watcher.start()
    seconds(model, batch)
    done.set()
    watcher.join()
    return (peak[0] - before) / 2**20


# ---- which kind helps ----------------------------------------------------------------------------------------------------


def kinds(output: Path, seeds: int, size: int) -> dict:
    """Validation and test nDCG@10 of each kind, by seed: the same data, backbones, stage 1, steps and batches."""
    rig = set_up(output, list(LANGUAGES), build_data(output, list(LANGUAGES)), *find_backbones(output, list(LANGUAGES)))
    found: dict[str, list[dict]] = {}
    for seed in range(seeds):
        anchored = anchor(rig, seed, say=show)
        for kind in ("none", "embeddings", "ema", "features"):
            one = train_arm(rig, seed, f"queue-{kind}", {"queue": kind, "queue_size": size}, anchored, {}, show)
            slices = {name: one["test"]["slices"][name] for name in ("long_tail", "unseen")}
            found.setdefault(kind, []).append({"validation": one["validation"]["average"], "test": one["test"]["average"], **slices})
            print(f"seed {seed} {kind:12s}" + "  ".join(f"{name} {value:.1f}" for name, value in found[kind][-1].items()), flush=True)
    return {"queue_size": size, "seeds": seeds, "kinds": found}


def show(name: str, log: list[dict]) -> None:
    last = {figure: value for entry in log for figure, value in entry.items()}
    figures = ("loss", "effective_negatives", "queue_age", "queue_drift", "dropped_negatives", "train_runtime")
    print(f"  {name}: " + "  ".join(f"{figure} {last[figure]:.3g}" for figure in figures if figure in last), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("cost", "kinds"))
    parser.add_argument("--output", type=Path, default=Path("lira-queues"), help="data, backbones, features and finished arms of `kinds`")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--size", type=int, default=2048, help="entries of the queue of `kinds`")
    given = parser.parse_args()
    torch.manual_seed(0)
    found = cost() | {"memory": memory_of_sizes()} if given.part == "cost" else kinds(given.output, given.seeds, given.size)
    print(json.dumps(found, indent=1))
    before = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    write_json(RESULTS, before | {given.part: {"environment": environment()} | found})


def memory_of_sizes() -> dict[str, dict[str, float]]:
    """By entries: embedded in chunks of 256, and in one piece. Each in a process of its own, whose memory is not yet fragmented."""
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import queues; print(queues.memory(*map(int, sys.argv[1:])))"

    def run(size: int, chunk: int) -> float:
        return float(subprocess.run([sys.executable, "-c", code, str(size), str(chunk)], check=True, capture_output=True, text=True).stdout)

    return {str(size): {"chunks of 256": run(size, 256), "one piece": run(size, size)} for size in (1024, 4096, 16384)}


if __name__ == "__main__":
    main()
