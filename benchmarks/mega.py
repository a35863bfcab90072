"""The rate of the mega build, per worker, and whether its memory grows: shards of all languages in turn, in one process.

Writes docs/results/mega.json and mega.png. A row is a training row with its judgements and translations; the time
includes the Parquet files (rows, queries, qrels), their checksums and the corpora that the rows are judged against.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path

import psutil
from tqdm import tqdm

from lira_hf.catalogue.builder import CORPUS, SHARD_ROWS, Unit, write_unit
from lira_hf.catalogue.rows import SIZES, Part, market
from lira_hf.languages import LANGUAGES

RESULTS = Path(__file__).parents[1] / "docs" / "results"


def measure(rows: int) -> dict:
    """Rate and memory of every shard, until `rows` training rows are written."""
    process, shards = psutil.Process(), []
    per_language = -(-rows // (SHARD_ROWS * len(LANGUAGES)))
    with tempfile.TemporaryDirectory() as scratch, tqdm(total=per_language * len(LANGUAGES), unit="shard") as bar:
        root, records = Path(scratch) / "data", Path(scratch) / "records"
        records.mkdir()
        for code in LANGUAGES:
            part = Part(code, "train", SIZES["mega"], 0)
            started = time.perf_counter()
            size = len(market(part).products)
            write_unit(root, records, Unit(part, CORPUS, 0, 1, 0, size))
            share = (time.perf_counter() - started) / (SIZES["mega"].train.queries / SHARD_ROWS)  # a shard's part of the cost of its corpus
            for shard in range(per_language):
                started = time.perf_counter()
                write_unit(root, records, Unit(part, "queries", shard, per_language, shard * SHARD_ROWS, (shard + 1) * SHARD_ROWS))
                seconds = time.perf_counter() - started + share
                shards.append({"language": code, "rows_per_second": SHARD_ROWS / seconds, "megabytes": process.memory_info().rss / 1e6})
                bar.update()
        size_on_disk = sum(path.stat().st_size for path in root.rglob("*.parquet"))
    rates = [shard["rows_per_second"] for shard in shards]
    return {
        "rows": len(shards) * SHARD_ROWS,
        "rows_per_second": statistics.harmonic_mean(rates),
        "slowest_shard": min(rates),
        "fastest_shard": max(rates),
        "megabytes_first": max(shard["megabytes"] for shard in shards[:per_language]),
        "megabytes_last": max(shard["megabytes"] for shard in shards[-per_language:]),
        "bytes_per_row": size_on_disk / (len(shards) * SHARD_ROWS),
        "python": platform.python_version(),
        "cores": psutil.cpu_count(),
        "shards": shards,
    }


def plot(found: dict, path: Path) -> None:
    """Rate above, memory below, shard by shard."""
    import matplotlib.pyplot as plt

    figure, (above, below) = plt.subplots(2, 1, figsize=(8, 5), sharex=True, layout="constrained")
    rows = [(number + 1) * SHARD_ROWS / 1000 for number in range(len(found["shards"]))]
    above.plot(rows, [shard["rows_per_second"] for shard in found["shards"]], marker="o", markersize=3)
    above.axhline(8000, linestyle="--", color="grey", linewidth=1)
    above.annotate("8,000", (rows[0], 8000), textcoords="offset points", xytext=(0, 3), color="grey")
    above.set(
        ylabel="rows per second, one worker",
        ylim=(0, 1.15 * max(found["fastest_shard"], 8000)),
        title=f"LazRetrieval mega: {found['rows']:,} rows, seven languages in turn",
    )
    below.plot(rows, [shard["megabytes"] for shard in found["shards"]], marker="o", markersize=3, color="tab:orange")
    below.set(xlabel="thousand training rows written", ylabel="resident memory, MB", ylim=(0, 1.3 * found["megabytes_last"]))
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=560_000)
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    found = measure(arguments.rows)
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "mega.json").write_text(json.dumps(found, indent=2) + "\n")
    plot(found, arguments.output / "mega.png")
    print(
        f"{found['rows']:,} rows, {found['rows_per_second']:,.0f} a second ({found['slowest_shard']:,.0f} to {found['fastest_shard']:,.0f} by shard);"
    )
    print(f"memory {found['megabytes_first']:.0f} MB in the first language, {found['megabytes_last']:.0f} MB in the last")


if __name__ == "__main__":
    main()
