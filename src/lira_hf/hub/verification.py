"""A published model, opened as a stranger opens it: whole, by every Auto class, with the vectors that its publisher got."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from lira_hf.hub.access import check_repo_id
from lira_hf.modeling import hub_lira

TOLERANCE = 1e-5  # largest absolute difference of a number in float32
CACHES = ("HF_HUB_CACHE", "HF_MODULES_CACHE", "HF_ASSETS_CACHE", "HF_XET_CACHE", "HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_CACHE", "TORCH_HOME")


@dataclass(frozen=True)
class Row:
    """One thing that was looked at. `difference`: the largest one to the published vectors, None where there is nothing to compare."""

    what: str
    found: str
    difference: float | None
    failure: str | None

    @property
    def right(self) -> bool:
        return self.failure is None and (self.difference is None or self.difference <= TOLERANCE)  # nan is not right


@dataclass(frozen=True)
class Verification:
    """What `verify` found; `right` where all of it is as published."""

    repo_id: str
    commit: str | None
    versions: dict[str, str]
    rows: list[Row]

    @property
    def right(self) -> bool:
        return all(row.right for row in self.rows)

    def __str__(self) -> str:
        lines = [[row.what, row.found or "–", "" if row.difference is None else f"{row.difference:.1e}", verdict(row)] for row in self.rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        table = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
        head = f"{self.repo_id} at {self.commit or 'no commit'}, with " + ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return "\n".join([head, *table])


def verdict(row: Row) -> str:
    if row.failure is not None:
        return row.failure
    return "right" if row.right else f"differs by more than {TOLERANCE:.0e}"


def verify(repo_id: str, revision: str | None = None, *, token: str | None = None, venv: bool = False) -> Verification:
    """Download a published model and open it by AutoConfig, AutoProcessor and each Auto class, all with trust_remote_code, in another process.

    Compared are its files with its checksums.json, and its embeddings with its vectors.json, as each class computes them in float32 on the CPU.

    What the other process does not share with this one: its caches of files and of remote code are new, empty and thrown away; `python -I`
    keeps out PYTHONPATH, the working directory and packages of the user; importing lira_hf fails. It does share this Python's other
    packages, and HF_ENDPOINT, proxies and the token. With `venv` it shares no package: it runs in a virtual environment into which pip has put torch
    and transformers, of the versions that are installed here, and what these two require.

    revision: branch, tag or commit; None is main. token: None takes what `hf auth login` or HF_TOKEN left.
    Raises ValueError where the Hub knows no such repository or revision, or does not show it."""
    from huggingface_hub import get_token

    check_repo_id(repo_id)
    with tempfile.TemporaryDirectory(prefix="lira-verify-") as workplace:
        home, report = Path(workplace) / "home", Path(workplace) / "report.json"
        python = environment_of_two(Path(workplace) / "venv") if venv else sys.executable
        variables = {name: value for name, value in os.environ.items() if name not in CACHES and not name.startswith("PYTHON")}
        variables |= {"HF_HOME": str(home), "HF_HUB_DISABLE_PROGRESS_BARS": "1", "CUDA_VISIBLE_DEVICES": ""}
        if token or get_token():
            variables["HF_TOKEN"] = token or get_token()
        script = Path(__file__).with_name("clean_room.py")
        command = [python, "-I", script, hub_lira.__file__, repo_id, revision or "", report]
        done = subprocess.run(list(map(str, command)), cwd=workplace, env=variables, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if not report.is_file():
            raise RuntimeError(f"the process that opens {repo_id} ended with {done.returncode}: {done.stderr[-2000:]}")
        found = json.loads(report.read_text(encoding="utf-8"))
    if found["refused"]:
        raise ValueError(f"repo_id: {found['refused']}")
    return Verification(repo_id, found["commit"], found["versions"], [Row(*row) for row in found["rows"]])


def environment_of_two(folder: Path) -> Path:
    """The Python of a new virtual environment with torch and transformers of the versions that are installed here."""
    from importlib.metadata import version

    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    wanted = [f"{name}=={version(name).partition('+')[0]}" for name in ("torch", "transformers")]  # without +cpu: pip's index has no such file
    for command in ([sys.executable, "-m", "venv", folder], [python, "-m", "pip", "install", "--quiet", *wanted]):
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        if done.returncode:
            raise ValueError(f"venv: {' '.join(map(str, command))} failed ({done.stderr.strip().splitlines()[-1:]})")
    return python
