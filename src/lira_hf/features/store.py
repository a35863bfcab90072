"""Shards on disk, and the batches made from them."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save

from lira_hf.features.keys import PATHS, cache_key, check_dtype, differences, key_folder, other_fillings, text_key
from lira_hf.modeling import LiraModel, LiraProcessor
from lira_hf.modeling.processing_lira import Row


def write_shard(folder: Path, keys: torch.Tensor, rows: torch.Tensor, writer: int = 0) -> Path:
    """Adds a shard to a path's folder, whole or not at all: keys [n] int64, rows [n, S + 1, h].

    writer: a number that no other process writes under."""
    part = folder / "shards" / f"{writer}.part"
    target = part.with_name(f"{hashlib.sha256(keys.numpy().tobytes()).hexdigest()[:32]}.safetensors")
    write_whole(part, target, {"keys": keys, "rows": rows}, {"folder": folder.name})
    return target


def write_whole(part: Path, target: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> None:
    with open(part, "wb") as file:  # save_file would make a file that only its owner may read
        file.write(save(tensors, metadata))
        file.flush()
        os.fsync(file.fileno())  # else a power cut could leave the name without the content
    os.replace(part, target)


def shard_files(folder: Path) -> list[Path]:
    return sorted((folder / "shards").glob("*.safetensors"))


@contextmanager
def opened(file: Path) -> Iterator[safe_open]:
    """A shard that is whole and in its own folder."""
    try:
        with safe_open(file, "pt") as shard:
            home, folder = (shard.metadata() or {}).get("folder"), file.parents[1].name
            if home != folder:
                raise ValueError(f"features: {file} is a shard of {home}, where texts were encoded otherwise; delete it and fill again")
            yield shard
    except SafetensorError as error:
        raise ValueError(f"features: {file} is damaged ({error}); delete it and fill again") from None


def shard_keys(file: Path) -> np.ndarray:
    with opened(file) as shard:
        return shard.get_tensor("keys").numpy()


def rows_start(file: Path) -> int:
    """The byte of a shard at which its rows begin."""
    with open(file, "rb") as shard:
        size = int.from_bytes(shard.read(8), "little")
        return 8 + size + json.loads(shard.read(size))["rows"]["data_offsets"][0]


class Shards:
    """The rows of one path, by key.

    Only the index is memory-mapped, 16 bytes a row. Rows are read from their place: a mapping costs as much time, and where the page
    cache lies in large folios a batch of a thousand rows would make gigabytes of it resident."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.key = json.loads((self.folder / "key.json").read_text())
        self.shape = self.key["num_bins"] + 1, self.key["hidden_size"]
        self.dtype = getattr(torch, self.key["dtype"])
        self.row_bytes = self.shape[0] * self.shape[1] * self.dtype.itemsize
        self.files = shard_files(self.folder)
        for file in self.files:
            with opened(file):
                pass
        index = load_file(self._index())
        self.keys, self.shard, self.row, self.start = (index[name].numpy() for name in ("keys", "shard", "row", "start"))

    def __reduce__(self):  # a data loader's worker opens the files itself
        return Shards, (self.folder,)

    def __len__(self) -> int:
        return len(self.keys)

    def _index(self) -> Path:
        """The index of the shards that are there; made if it is missing."""
        names = "".join(f"{file.name} {file.stat().st_size}\n" for file in self.files)
        target = self.folder / f"index-{hashlib.sha256(names.encode()).hexdigest()[:16]}.safetensors"
        if not target.exists():
            keys = [shard_keys(file) for file in self.files]
            sizes = np.array([len(each) for each in keys], dtype=np.int64)
            keys, first = np.unique(np.concatenate([np.empty(0, np.int64), *keys]), return_index=True)
            shard = np.searchsorted(sizes.cumsum(), first, side="right")
            start = np.array([rows_start(file) for file in self.files], dtype=np.int64)
            row = first - (sizes.cumsum() - sizes)[shard]
            arrays = {"keys": keys, "shard": shard.astype(np.int32), "row": row.astype(np.int32), "start": start}
            write_whole(target.with_suffix(f".{os.getpid()}.part"), target, {name: torch.from_numpy(array) for name, array in arrays.items()})
            for old in set(self.folder.glob("index-*.safetensors")) - {target}:
                old.unlink(missing_ok=True)
        return target

    def find(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Places of keys [n] int64 in the index, and which of them are really there [n]."""
        if not len(self):
            return np.zeros(len(keys), np.int64), np.zeros(len(keys), bool)
        places = np.minimum(np.searchsorted(self.keys, keys), len(self) - 1)
        return places, self.keys[places] == keys

    def read(self, places: np.ndarray) -> torch.Tensor:
        """Rows [n, S + 1, h] at places of the index [n], in the cache's own number format."""
        size, shard = self.row_bytes, self.shard[places]
        offsets = (self.start[shard] + self.row[places].astype(np.int64) * size).tolist()
        found = torch.empty(len(places) * size, dtype=torch.uint8)
        space = memoryview(found.numpy())
        order = np.lexsort((offsets, shard)).tolist()  # each file is opened once, and read from front to back
        for number, group in itertools.groupby(order, key=shard.tolist().__getitem__):
            with open(self.files[number], "rb", buffering=0) as file:
                for i in group:
                    file.seek(offsets[i])
                    if file.readinto(space[i * size : (i + 1) * size]) != size:
                        raise ValueError(f"features: {self.files[number]} has been cut short; delete it and fill again")
        return found.view(self.dtype).view(len(places), *self.shape)


class FeatureStore:
    """Features of the texts it was filled with; stands in for a LiraProcessor wherever rows become a batch.

    Example: `store = fill(folder, model.lira, processor, rows); model(**store.batch(rows))`."""

    def __init__(self, shards: dict[str, Shards], processor: LiraProcessor):
        self.shards, self.processor = shards, processor

    @classmethod
    def open(cls, folder: str | Path, model: LiraModel, processor: LiraProcessor, dtype: str = "float32") -> FeatureStore:
        """What fill left in folder for these backbones, this processor and dtype. Raises ValueError where that is nothing."""
        check_dtype(dtype)
        shards = {}
        for path in PATHS:
            key = cache_key(model, processor, path, dtype)
            if not (key_folder(folder, key) / "key.json").exists():
                others = other_fillings(folder, key)
                raise ValueError(f"features: {str(folder)!r} holds nothing that fits the {path} path; fill it first{others and f' ({others})'}")
            shards[path] = Shards(key_folder(folder, key))
        return cls(shards, processor)

    def check(self, model: LiraModel) -> None:
        """Raises ValueError where the features are not those of this model's backbones."""
        for path, shards in self.shards.items():
            if different := differences(shards.key, cache_key(model, self.processor, path, shards.key["dtype"])):
                raise ValueError(f"features: {shards.folder} was not filled by this model's {path} backbone (it has {different})")

    def batch(self, rows: list[Row], prompt_name: str | None = None) -> dict[str, torch.Tensor]:
        """The batch of LiraProcessor.batch, with features in place of ids, in the cache's number format.

        Raises ValueError that names the first text the store was not filled with."""
        prompts = [prompt_name or row.prompt for row in rows]
        batch = {"text_mask": torch.tensor([row.text is not None for row in rows]), **self.processor.beside_text(rows)}
        texts = {
            "multilingual": [self.processor.prefixed("multilingual", r.text, p) for r, p in zip(rows, prompts, strict=True) if r.text is not None],
            "english": [self.processor.prefixed("english", text, p) for r, p in zip(rows, prompts, strict=True) for text in r.translations],
        }
        for path, mask in (("multilingual", batch["text_mask"]), ("english", batch["candidate_mask"])):
            found = self._look_up(path, texts[path])  # [N, S + 1, h]
            if mask.all():
                found = found.view(*mask.shape, *found.shape[1:])
            else:
                found = found.new_zeros(*mask.shape, *found.shape[1:]).index_put((mask,), found)
            batch[f"{path}_features"], batch[f"{path}_pooled"] = found[..., :-1, :], found[..., -1, :]
        batch["text_mask"] = batch["multilingual_pooled"].any(-1)  # a text without a token has no path, as when it is read from text
        return batch

    def _look_up(self, path: str, texts: list[str]) -> torch.Tensor:
        places, there = self.shards[path].find(np.array([text_key(text) for text in texts], dtype=np.int64))
        if not there.all():
            text = texts[int(np.argmin(there))]
            raise ValueError(f"features: the {path} path was not filled with {text!r}; fill the store with every row that is read")
        return self.shards[path].read(places)
