"""What an evaluation has finished, on disk, named by everything that it depends on: a result is never that of other weights."""

from __future__ import annotations

import hashlib
import json
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import torch
import typer
from scipy.stats import ConstantInputWarning
from torch import nn

from lira_hf.features.keys import tokenizer_digest
from lira_hf.reporting import write_json


def digest_of(*values: Any) -> str:
    """16 hexadecimal digits of values that JSON can hold."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, ensure_ascii=False, default=str).encode()).hexdigest()[:16]


def weights_digest(modules: Iterable[nn.Module], tokenizers: Iterable = (), *settings: Any) -> str:
    """16 hexadecimal digits of all weights, of how the tokenizers read, and of settings. About a gigabyte a second."""
    digest = hashlib.sha256(digest_of([tokenizer_digest(each) for each in tokenizers], settings).encode())
    for module in modules:
        for name, tensor in sorted(module.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def settings_of(config) -> dict:
    """A configuration without what says nothing of its model: where it came from, and with which version it was saved."""
    return {key: value for key, value in config.to_dict().items() if key not in ("_name_or_path", "transformers_version")}


def check_folder(folder: str | Path) -> None:
    if not Path(folder).is_dir():
        raise ValueError(f"data: {str(folder)!r} is no folder; give one with the schema of the benchmark's data set on the Hub")


def data_digest(folder: str | Path) -> str:
    """16 hexadecimal digits of the files in a folder: their names and their bytes. Raises ValueError where there is no such folder."""
    check_folder(folder)
    digest = hashlib.sha256()
    for path in sorted(path for path in Path(folder).rglob("*") if path.is_file()):
        name = path.relative_to(folder)
        if not any(part.startswith(".") for part in name.parts):
            with path.open("rb") as file:
                digest.update(f"{name.as_posix()} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()[:16]


class Finished:
    """Results in a folder, each in a file of its own that is there whole or not at all."""

    def __init__(self, folder: str | Path):
        self.folder, self.asked, self.used = Path(folder), 0, 0

    def has(self, key: dict) -> bool:
        return self._path(key).exists()

    def get(self, key: dict, work: Callable[[], Any]) -> Any:
        """The result that is stored under key, or that of work, which is stored."""
        path = self._path(key)
        self.asked += 1
        if path.exists():
            self.used += 1
            return json.loads(path.read_text(encoding="utf-8"))["value"]
        value = work()
        write_json(path, {"key": key, "value": value})
        return value

    def say(self) -> None:
        """A line on how many results were there already, if any."""
        if self.used:
            typer.echo(f"{self.used} of {self.asked} results are from {self.folder}")

    def _path(self, key: dict) -> Path:
        return self.folder / f"{digest_of(key)}.json"


@contextmanager
def quiet() -> Iterator[None]:
    """Without the bars of `datasets`, several for each language, the harness's notes, and scipy's warning of a system that says the same of
    every pair."""
    hidden, harness = datasets.are_progress_bars_disabled(), logging.getLogger("lm_eval")
    level = harness.level
    datasets.disable_progress_bars()
    harness.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConstantInputWarning)
            yield
    finally:
        harness.setLevel(level)
        if not hidden:
            datasets.enable_progress_bars()


@contextmanager
def own_cache(digest: str | None) -> Iterator[None]:
    """Data that is loaded in here is cached under its digest. `datasets` knows a folder by its name and its card alone, and would give what
    another folder of that name held, or this one before it changed. None: as always."""
    shared = datasets.config.HF_DATASETS_CACHE
    if digest is not None:
        datasets.config.HF_DATASETS_CACHE = Path(shared) / "lira-hf" / digest
    try:
        yield
    finally:
        datasets.config.HF_DATASETS_CACHE = shared
