"""The one format of measuring commands, and where it is written."""

from __future__ import annotations

import json
import os
from pathlib import Path

from lira_hf.environment import environment


def results(systems: dict, *, benchmark: str, model: str, seeds: list[int], revision: str | None = None, **more) -> dict:
    """The content of a results.json."""
    head = {"benchmark": benchmark, "metric": "ndcg@10", "model": model, "revision": revision, "seeds": seeds}
    return {**head, "systems": systems, "environment": environment(), **more}


def write_json(path: Path, value: dict | list) -> None:
    """Writes value whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(part, path)


def keep(found: dict, model_folder: str | Path, benchmark: str) -> None:
    """Leaves a measurement of a model in its folder, MODEL/results/BENCHMARK.json, where its card is rendered from."""
    write_json(Path(model_folder) / "results" / f"{benchmark}.json", found)
