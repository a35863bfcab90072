"""The one format of measuring commands, and the way to write it."""

from __future__ import annotations

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path


def results(systems: dict, *, benchmark: str, model: str, seeds: list[int], revision: str | None = None, **more) -> dict:
    """The content of a results.json."""
    environment = {name: version(name) for name in ("torch", "transformers", "datasets", "lira-hf")}
    environment |= {"python": platform.python_version(), "machine": platform.machine(), "cores": os.cpu_count()}
    head = {"benchmark": benchmark, "metric": "ndcg@10", "model": model, "revision": revision, "seeds": seeds}
    return {**head, "systems": systems, "environment": environment, **more}


def write_json(path: Path, value: dict) -> None:
    """Writes value whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(part, path)
