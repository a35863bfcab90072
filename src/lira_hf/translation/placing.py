"""How a result takes its place: whole or not at all, with a card and checksums that fit it."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

NOTE = ("<!-- translations -->", "<!-- /translations -->")  # around what a card says of the translations


@contextlib.contextmanager
def replacing(target: Path, folder: bool) -> Iterator[Path]:
    """A hidden path to write a file to, or a hidden folder to write into; it takes the place of `target` when all went well.

    No call swaps two folders on every system, so the old one steps aside first; `recover` mends a kill in between.
    """
    part, following = (target.with_name(f".{target.name}.{state}") for state in ("part", "next"))
    with _alone(target):  # another process that writes the same waits, and writes the same again
        _put_in_place(target)
        shutil.rmtree(part, ignore_errors=True)
        if folder:
            part.mkdir()
        yield part
        os.rename(part, following)
        _put_in_place(target)


def recover(target: Path) -> None:
    """Finishes what `replacing` was killed in, where it was."""
    if any(target.with_name(f".{target.name}.{state}").exists() for state in ("next", "last")):
        with _alone(target):
            _put_in_place(target)


@contextlib.contextmanager
def _alone(target: Path) -> Iterator[None]:
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.with_name(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _put_in_place(target: Path) -> None:
    following, last = (target.with_name(f".{target.name}.{state}") for state in ("next", "last"))
    if following.exists():
        if target.is_dir():
            shutil.rmtree(last, ignore_errors=True)
            os.rename(target, last)
        os.replace(following, target)
    shutil.rmtree(last, ignore_errors=True)


def describe(root: Path, note: Mapping[str, Any]) -> None:
    """Brings checksums and card of the data set in `root` up to its new tables.

    `note` has for each language that changed {"candidates": {source: how many}, "judges": [name, ...]}.
    """
    import yaml

    card, record_file = root / "README.md", root / "build.json"
    hashes = {
        path.relative_to(root).as_posix(): _hash(path) for path in sorted(root.rglob("*")) if path.is_file() and path not in (card, record_file)
    }
    record = json.loads(record_file.read_text(encoding="utf-8")) if record_file.is_file() else {}
    whole = {**record.get("translations", {}), **note}  # with the languages that an earlier run filled
    if card.is_file():
        _, front, text = re.split(r"^---$", card.read_text(encoding="utf-8"), maxsplit=2, flags=re.MULTILINE)
        head = yaml.safe_load(front)
        content = hashlib.sha256(json.dumps(sorted(hashes.items())).encode()).hexdigest()
        for config in head.get("configs") or []:
            config["description"] = f"content {content[:16]}"  # `datasets` caches a folder by its configurations, see catalogue/card.py
        text = re.sub(rf"{NOTE[0]}.*?{NOTE[1]}\n\n", "", text, flags=re.DOTALL)
        first, *rest = re.split(r"(?=^## )", text, maxsplit=1, flags=re.MULTILINE)
        text = "\n".join([first.rstrip(), "", NOTE[0], *_lines(whole), NOTE[1], "", "".join(rest)])
        card.write_text(f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---{text}", encoding="utf-8")
        hashes[card.name] = _hash(card)
    if record:
        record.pop("desk", None)  # its simulated translators are not in here any more, and the builder must not take this for its own
        record |= {"translations": whole, "sha256": dict(sorted(hashes.items()))}
        record_file.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _lines(note: Mapping[str, Any]) -> Iterator[str]:
    yield "**Candidate translations** of these languages are not those of the simulated translators and critic of which this card speaks:"
    yield ""
    for language, of in sorted(note.items()):
        sources = ", ".join(f"{count:,} by `{name}`" for name, count in of["candidates"].items()) or "none yet"
        yield f"- {language}: {sources}; scored by {', '.join(f'`{name}`' for name in of['judges']) or 'nobody'}"


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
