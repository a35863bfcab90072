"""What a run was made with: the versions of its libraries, the commit of this one, the machine."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

from lira_hf import __version__


def environment() -> dict[str, str | int | None]:
    """Versions by package, `commit` (None where nobody knows it), python, machine, cores."""
    versions = {name: version(name) for name in ("torch", "transformers", "datasets")}
    return versions | {
        "lira-hf": __version__,
        "commit": commit(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
    }


def together_made_with(environments: list[dict]) -> dict:
    """What several runs were made with; where they differ, all that there was, with commas."""
    found = {}
    for name in environments[0]:
        values = list(dict.fromkeys(each.get(name) for each in environments))
        found[name] = values[0] if len(values) == 1 else ", ".join(map(str, values))
    return found


def commit() -> str | None:
    """The commit of lira-hf, as pip recorded it or as git knows it, "-dirty" where files have changed since; None for a plain wheel."""
    try:
        record = json.loads(distribution("lira-hf").read_text("direct_url.json") or "{}")
    except PackageNotFoundError:
        record = {}
    if "vcs_info" in record:
        return record["vcs_info"]["commit_id"][:12]
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        # A site-packages folder may lie in somebody else's repository, which does not track this file.
        subprocess.run([*git, "ls-files", "--error-unmatch", Path(__file__).name], check=True, capture_output=True, timeout=10)
        done = subprocess.run(
            [*git, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"], check=True, capture_output=True, timeout=10, text=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
