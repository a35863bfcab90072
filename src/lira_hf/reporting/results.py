"""The one format of measuring commands, and where it is written."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from lira_hf.environment import environment
from lira_hf.modeling.hub_lira import CHECKSUMS, digest, state_of


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


def weights_of(folder: str | Path) -> str | None:
    """sha256, in hexadecimal, of the names and bytes of a model folder's safetensors, read once in a process; None where it has none."""
    files = sorted(Path(folder).glob("model*.safetensors"))
    lines = [f"{file.name} {digest(str(file), *state_of(file))}\n" for file in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest() if files else None


def keep(found: dict, model_folder: str | Path, benchmark: str) -> None:
    """Leaves a measurement of a model in its folder, MODEL/results/BENCHMARK.json, where its card is rendered from. `weights` says of
    which weights it is: `lira-hf push` refuses it with others."""
    weights = weights_of(model_folder)
    path = f"results/{benchmark}.json"
    write_json(Path(model_folder) / path, found if weights is None else found | {"weights": weights})
    unlist(model_folder, path)


def unlist(folder: str | Path, path: str) -> None:
    """Takes a file that was made anew, or all of a directory, out of the checksums of a downloaded folder, which would no longer open."""
    file = Path(folder) / CHECKSUMS
    if not file.is_file():
        return
    try:
        sums = dict(json.loads(file.read_text(encoding="utf-8"))["sha256"])
    except (ValueError, KeyError, TypeError):
        return  # whoever opens the folder is told
    write_json(file, {"sha256": {name: value for name, value in sums.items() if name != path and not name.startswith(f"{path}/")}})
