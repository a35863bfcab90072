"""Publishes and downloads under random faults; run as a file, with the folder of a staged model, a workplace and the number of rounds.

Each round has a repository, a cache and weights of its own. It publishes a first version in peace, a second one under faults, downloads
under faults, and then once more in peace. The rounds run in threads, because the Hub's client sleeps between its own attempts."""

import contextlib
import hashlib
import json
import os
import random
import shutil
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from loopback_hub import LoopbackHub

KEPT = ("README.md", "checksums.json", "config.json", "english_tokenizer", "model.safetensors", "modeling_lira.py", "tokenizer.json")
UNCHECKED = ("README.md", "checksums.json")
PLACES = {
    "all": "/{0}(/|[.]git|$)", "api": "/api/models/{0}(/|$)", "preupload": "/{0}/preupload/", "commit": "/{0}/commit/", "upload": "/_lfs/{1}",
    "file": "/{0}/resolve/", "weights": "/{0}/resolve/.*safetensors",
}  # fmt: skip
SENDING = [  # kind, method, place
    ("status", "POST", "preupload"), ("status", "POST", "commit"), ("drop", "POST", "commit"), ("reset", "POST", "commit"), ("mute", "POST", "commit"),
    ("corrupt", "POST", "commit"), ("drop", "POST", "all"), ("reset", "POST", "all"), ("status", "GET", "api"), ("drop", "GET", "api"), ("delay", None, "all"),
    ("status", "PUT", "upload"), ("drop", "PUT", "upload"), ("reset", "PUT", "upload"), ("mute", "PUT", "upload"), ("corrupt", "PUT", "upload"),
]  # fmt: skip
FETCHING = [
    ("status", "GET", "file"), ("drop", "GET", "file"), ("reset", "GET", "file"), ("truncate", "GET", "file"), ("corrupt", "GET", "file"),
    ("corrupt", "GET", "weights"), ("reset", "GET", "weights"), ("truncate", "GET", "weights"), ("status", "HEAD", "file"), ("drop", "HEAD", "file"),
    ("delay", None, "all"), ("status", "GET", "api"), ("reset", "GET", "api"),
]  # fmt: skip
# These may have no end. In others the client itself tries again, for half a minute and in vain, before it lets us.
LASTING = {(kind, place) for kind in ("status", "reset", "corrupt", "truncate", "mute") for place in ("commit", "file", "weights")}


def main(staged: str, workplace: str, rounds: int) -> None:
    place = Path(workplace)
    with LoopbackHub(place / "hub") as hub:
        os.environ.update(hub.env(place / "home"))  # before the client is imported, which reads it once
        from lira_hf.modeling import hub_lira

        hub_lira.PAUSE, hub_lira.WORKERS = 0.02, 2
        start = time.time()
        with ThreadPoolExecutor(24) as pool:
            found = Counter(
                outcome for outcomes in pool.map(lambda n: round_of(n, hub, Path(staged), place / str(n)), range(rounds)) for outcome in outcomes
            )
        hit = Counter(f"{fault.kind} {fault.method or 'all'}" for fault in hub.met)
        print("ANSWER" + json.dumps({"outcomes": found, "hit": hit, "seconds": time.time() - start}))  # noqa: T201


def version(staged: Path, target: Path, seed: int) -> dict[str, str]:
    """A copy of the staged folder with other weights, and without most of the small files, to be quick; its hashes."""
    shutil.copytree(staged, target, ignore=lambda _, names: [name for name in names if name not in KEPT])
    weights = target / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-4096:] = random.Random(seed).randbytes(4096)
    weights.write_bytes(data)
    hashes = hashes_of(target)
    (target / "checksums.json").write_text(json.dumps({"sha256": {path: hashes[path] for path in hashes if path not in UNCHECKED}}))
    return hashes_of(target)


def hashes_of(target: Path) -> dict[str, str]:
    return {path.relative_to(target).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in target.rglob("*") if path.is_file()}


def stored(hub: LoopbackHub, repo_id: str, commit: str) -> dict[str, str]:
    return {path: file["sha256"] for path, file in hub.store.manifest("models", repo_id, commit)["files"].items()}


def history(hub: LoopbackHub, repo_id: str) -> list[str]:
    commits = [hub.store.resolve("models", repo_id, "main")]
    while parent := hub.store.manifest("models", repo_id, commits[-1])["parent"]:
        commits.append(parent)
    return commits


def add_faults(hub: LoopbackHub, choices: list, chance: random.Random, repo_id: str, weights: str) -> list:
    """One to three faults that only this round's requests meet; a few never stop."""
    added = []
    for kind, method, place in chance.sample(choices, chance.randint(1, 3)):
        lasts = method != "HEAD" and (kind, place) in LASTING and chance.random() < 0.2
        options = {
            "status": chance.choice([500, 502, 503, 504]),
            "seconds": 0.1,
            "skip": chance.randint(0, 2),
            "times": -1 if lasts else chance.randint(1, 2),
        }
        cut = chance.choice([1, 700]) if place in ("file", "weights") else 0
        added.append(hub.add_fault(kind, match=PLACES[place].format(repo_id, weights), method=method, after_bytes=cut, **options))
    return added


def remove_faults(hub: LoopbackHub, added: list) -> list:
    with hub._lock:
        hub.met.extend(fault for fault in added if fault.hits)
        hub.faults[:] = [fault for fault in hub.faults if all(fault is not each for each in added)]
    return [fault for fault in added if fault.hits]


def round_of(number: int, hub: LoopbackHub, staged: Path, place: Path) -> list[str]:
    from filelock import FileLock

    from lira_hf.hub.access import refusals_as_value_errors
    from lira_hf.hub.models import send
    from lira_hf.modeling.hub_lira import fetch

    chance, repo_id, cache = random.Random(number), f"org/round{number}", place / "cache"
    old, new = version(staged, place / "old", 2 * number), version(staged, place / "new", 2 * number + 1)
    send(place / "old", repo_id)
    before = hub.store.resolve("models", repo_id, "main")
    assert stored(hub, repo_id, before) == old

    added = add_faults(hub, SENDING, chance, repo_id, new["model.safetensors"])
    try:
        with refusals_as_value_errors(repo_id, hub.token):
            publication = send(place / "new", repo_id)
        published, said = True, None
    except ValueError as error:
        published, said = False, str(error)
    met = remove_faults(hub, added)
    commits = history(hub, repo_id)
    if published:
        assert publication.commit == commits[0] and stored(hub, repo_id, commits[0]) == new, (number, met)
    else:
        assert "\n" not in said and repo_id in said and met, (number, said)
    if not any(fault.kind == "corrupt" and fault.method == "POST" for fault in met):
        for commit in commits:  # none between the first, empty one, the old and the new version
            assert stored(hub, repo_id, commit) in ({}, old, new), (number, met)
        assert len(commits) <= 3
    if not published and not any(fault.kind in ("mute", "corrupt") for fault in met):
        assert stored(hub, repo_id, commits[0]) in (old, new)
    head = stored(hub, repo_id, commits[0])

    added = add_faults(hub, FETCHING, chance, repo_id, new["model.safetensors"])
    try:
        assert_same(fetch(repo_id, cache_dir=cache), head)
        fetched = True
    except OSError as error:
        fetched, said = False, str(error)
        assert "\n" not in said and said.startswith(repo_id), (number, said)
    met = remove_faults(hub, added)
    assert fetched or met, (number, said)
    assert_same(fetch(repo_id, cache_dir=cache), head)
    assert_same(fetch(repo_id, cache_dir=cache, local_files_only=True), head)
    for path in filter(Path.is_file, cache.rglob("*")):
        assert not path.name.endswith((".incomplete", ".part", ".tmp")) and not path.name.startswith("."), path
        if path.suffix == ".lock":  # the client leaves the empty file; what must not be left is a lock that is held
            with FileLock(path, timeout=0):
                assert path.stat().st_size == 0
    shutil.rmtree(place)
    return [f"publish: {'whole' if published else 'error'}", f"download: {'whole' if fetched else 'error'}"]


def assert_same(snapshot: Path, expected: dict[str, str]) -> None:
    found = hashes_of(snapshot)
    assert found == expected, {path for path in {*found, *expected} if found.get(path) != expected.get(path)}


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
