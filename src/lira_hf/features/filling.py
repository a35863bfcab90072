"""Filling the cache: what is missing, whether it fits on the disk, and its encoding, shard by shard, by one process or several."""

from __future__ import annotations

import itertools
import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from lira_hf.features.keys import PATHS, cache_key, check_dtype, key_folder, other_fillings, text_key
from lira_hf.features.store import FeatureStore, Shards, shard_files, shard_keys, write_shard
from lira_hf.modeling import LiraModel, LiraProcessor
from lira_hf.modeling.processing_lira import Row

logger = logging.getLogger(__name__)


@dataclass
class Plan:
    """What a path still needs: `missing` marks, in the stream of texts, the first occurrence of each text that is not stored."""

    path: str
    key: dict
    folder: Path
    stored: list[Path]
    missing: np.ndarray
    bytes: int


def fill(
    folder: str | Path,
    model: LiraModel,
    processor: LiraProcessor,
    rows: Iterable[Row],
    dtype: str = "float32",
    batch_tokens: int = 16384,
    shard_rows: int = 4096,
    limit: int | None = None,
    show_progress_bar: bool = True,
) -> FeatureStore:
    """Encodes every text of rows that the folder does not hold yet, and opens it.

    Under `accelerate launch`, or `torchrun` where there are only CPUs, each process takes its share of the shards. There is one fill at
    a time: a second one waits and finds the work done.

    Args:
        rows: anything that can be read twice; it is never held whole. dtype: float32, float16 or bfloat16.
        batch_tokens: tokens with padding that a forward pass reads. shard_rows: texts of a shard, what a killed fill loses at most.
        limit: bytes that the fill may add, beside what is free on the disk.
    Raises ValueError before anything is encoded where the disk or the limit is too small."""
    check_dtype(dtype)
    for name, value in (("batch_tokens", batch_tokens), ("shard_rows", shard_rows)):
        if value < 1:
            raise ValueError(f"{name}: {value} is not allowed; at least 1 is")
    if iter(rows) is rows:
        raise ValueError(f"rows: {type(rows).__name__} can be read once only; give a list, or something else that can be read twice")
    # Without cpu=True, accelerate takes the processes that torchrun started on CPUs for so many fills of one process each.
    folder, state = Path(folder).absolute(), PartialState(cpu=not torch.accelerator.is_available())
    keys = [cache_key(model, processor, path, dtype) for path in PATHS]
    plans = [plan(folder, key, processor, rows) for key in keys]
    check_room(folder, plans, limit)
    with only_fill(folder, state):
        plans = [each if each.stored == shard_files(each.folder) else plan(folder, each.key, processor, rows) for each in plans]
        if state.is_main_process:
            for each in plans:
                open_folder(folder, each)
        state.wait_for_everyone()  # nobody adds a shard before everybody has planned
        for each in plans:
            encode(each, model, processor, rows, batch_tokens, shard_rows, state, show_progress_bar)
        state.wait_for_everyone()
        if state.is_main_process:
            [Shards(each.folder) for each in plans]  # makes the index
        state.wait_for_everyone()
    return FeatureStore({each.path: Shards(each.folder) for each in plans}, processor)


def texts_of(path: str, rows: Iterable[Row], processor: LiraProcessor) -> Iterator[str]:
    """The prefixed texts of a path, in the order of rows, repetitions included."""
    for row in rows:
        for text in [row.text] if path == "multilingual" else row.translations:
            if text is not None:
                yield processor.prefixed(path, text, row.prompt)


def plan(folder: Path, key: dict, processor: LiraProcessor, rows: Iterable[Row]) -> Plan:
    target = key_folder(folder, key)
    stored = shard_files(target)
    held = np.concatenate([np.empty(0, np.int64), *map(shard_keys, stored)])
    seen = np.fromiter(map(text_key, texts_of(key["path"], rows, processor)), np.int64)
    unique, first = np.unique(seen, return_index=True)
    missing = np.zeros(len(seen), bool)
    missing[first[~np.isin(unique, held)]] = True
    added = int(missing.sum())
    row_bytes = (key["num_bins"] + 1) * key["hidden_size"] * getattr(torch, key["dtype"]).itemsize
    size = added * (row_bytes + 8) + (16 * (added + len(held)) if added else 0)  # rows and keys, and a new index
    return Plan(key["path"], key, target, stored, missing, size)


def check_room(folder: Path, plans: list[Plan], limit: int | None) -> None:
    needed = sum(each.bytes for each in plans)
    free = shutil.disk_usage(next(place for place in (folder, *folder.parents) if place.exists())).free
    room, where = (free, "are free there") if limit is None or free < limit else (limit, "is the limit")
    if needed > room:
        texts = ", ".join(f"{each.missing.sum():,} {each.path}" for each in plans)
        raise ValueError(
            f"features: {str(folder)!r} would grow by {needed / 1e6:,.1f} MB ({texts} texts in {plans[0].key['dtype']}), and "
            f"{room / 1e6:,.1f} MB {where}; give a folder on a larger disk, half precision or fewer bins"
        )


@contextmanager
def only_fill(folder: Path, state: PartialState) -> Iterator[None]:
    """Keeps other fills of the folder waiting; the lock ends with its process, however that ends."""
    lock = FileLock(folder / ".lock")
    if state.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            logger.warning("features: waiting for another process that fills %s", folder)
            lock.acquire()
    state.wait_for_everyone()
    try:
        yield
    finally:
        lock.release()


def open_folder(folder: Path, plan: Plan) -> None:
    """Makes a plan's folder, or clears it of what a killed fill left half written."""
    for part in plan.folder.glob("shards/*.part"):
        part.unlink()
    if not (plan.folder / "key.json").exists():
        if others := other_fillings(folder, plan.key):
            logger.warning("features: nothing in %s fits the %s path, so every text is encoded anew (%s)", folder, plan.path, others)
        (plan.folder / "shards").mkdir(parents=True, exist_ok=True)
        part = plan.folder / "key.json.part"
        part.write_text(json.dumps(plan.key, indent=1) + "\n")
        os.replace(part, plan.folder / "key.json")


def encode(
    plan: Plan,
    model: LiraModel,
    processor: LiraProcessor,
    rows: Iterable[Row],
    batch_tokens: int,
    shard_rows: int,
    state: PartialState,
    progress: bool,
) -> None:
    """Adds this process's share of a plan's shards. Shards are cut from the texts in the order of rows, so a fill that goes on cuts as
    the killed one did; only the last may be short."""
    missing = np.flatnonzero(plan.missing)
    mine = np.zeros_like(plan.missing)
    mine[missing[np.arange(len(missing)) // shard_rows % state.num_processes == state.process_index]] = True
    backbone, dtype = getattr(model, plan.path), getattr(torch, plan.key["dtype"])
    home = next(backbone.parameters()).device
    # The pooling sums in double precision, which mps lacks.
    backbone.to(state.device if home.type == "cpu" and state.device.type != "mps" else home)
    bar = tqdm(
        desc=f"features, {plan.path}, {plan.bytes / 1e6:,.1f} MB",
        total=int(mine.sum()),
        unit="text",
        disable=not progress or not state.is_main_process or not mine.any(),
    )
    stream = itertools.compress(texts_of(plan.path, rows, processor), mine.tolist())
    with bar:
        try:
            while texts := list(itertools.islice(stream, shard_rows)):
                found = encode_texts(model, processor, plan.path, texts, dtype, batch_tokens, bar)
                write_shard(plan.folder, torch.tensor([text_key(text) for text in texts]), found, state.process_index)
        finally:
            backbone.to(home)


def encode_texts(model: LiraModel, processor: LiraProcessor, path: str, texts: list[str], dtype: torch.dtype, batch_tokens: int, bar) -> torch.Tensor:
    """Rows [n, S + 1, h] of prefixed texts."""
    ids, mask = processor.tokens(path, texts)  # padded on the right
    lengths, device = mask.sum(-1), next(getattr(model, path).parameters()).device
    rows = torch.empty(len(texts), model.config.num_bins + 1, getattr(model, path).config.hidden_size, dtype=dtype)
    for index in token_batches(lengths, batch_tokens):
        width = int(lengths[index].max())
        bins, pooled = model.encode_path(path, ids[index, :width].to(device), mask[index, :width].to(device))
        rows[index] = torch.cat([bins, pooled[:, None]], 1).cpu().to(dtype)
        bar.update(len(index))
    if not (finite := rows.isfinite().flatten(1).all(-1)).all():
        text = texts[int(finite.int().argmin())]
        held = str(dtype).removeprefix("torch.")
        raise ValueError(f"dtype: the {path} features of {text!r} are not finite in {held}; bfloat16 and float32 hold larger numbers")
    return rows


def token_batches(lengths: torch.Tensor, batch_tokens: int) -> Iterator[torch.Tensor]:
    """Indices of texts of like length, longest first, as many as batch_tokens hold with their padding, and one at least."""
    order = lengths.argsort(descending=True, stable=True)
    while len(order):
        count = max(1, batch_tokens // max(1, int(lengths[order[0]])))
        yield order[:count]
        order = order[count:]
