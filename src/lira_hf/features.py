"""The frozen half of LiRA, computed once: token bins and sentence vectors of texts, in memory-mapped files.

Only Arca and LaSR are trained, so a text's features never change during training. One folder per path holds `keys.npy` (sorted
64-bit hashes of the prefixed texts), `bins.npy` [N, S, h], `pooled.npy` [N, h] and `meta.json`, whose fingerprint covers the backbone's
weights, the tokenizer, S, pooling and max length: a folder that does not fit is filled anew, never used."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from lira_hf.modeling import LiraModel, LiraProcessor
from lira_hf.modeling.processing_lira import Row

PATHS = ("multilingual", "english")


def text_key(text: str) -> int:
    """64-bit hash of a text; two of a million texts share one with probability 3e-8."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest(), "little")


def fingerprint(model: LiraModel, processor: LiraProcessor, path: str) -> str:
    """What the features of a path depend on, beside the text."""
    digest = hashlib.sha256()
    tokenizer = processor.tokenizer if path == "multilingual" else processor.english_tokenizer
    digest.update(tokenizer.backend_tokenizer.to_str().encode())
    digest.update(f"{model.config.num_bins}/{getattr(model.config, path + '_pooling')}/{processor.max_length}".encode())
    for name, tensor in sorted(getattr(model, path).state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


class FeatureStore:
    """Features of the texts it was filled with; stands in for a LiraProcessor wherever rows become a batch.

    Example: `store = fill(folder, model.lira, processor, rows); model(**store.batch(rows))`."""

    def __init__(self, folder: str | Path, processor: LiraProcessor):
        self.processor = processor
        self.arrays = {
            path: {name: np.load(Path(folder) / path / f"{name}.npy", mmap_mode="r") for name in ("keys", "bins", "pooled")} for path in PATHS
        }

    def _look_up(self, path: str, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        arrays = self.arrays[path]
        keys = np.array([text_key(text) for text in texts], dtype=np.uint64)
        place = np.minimum(np.searchsorted(arrays["keys"], keys), max(len(arrays["keys"]) - 1, 0))
        if len(arrays["keys"]) == 0 or (missing := arrays["keys"][place] != keys).any():
            text = texts[0] if len(arrays["keys"]) == 0 else texts[int(np.argmax(missing))]
            raise ValueError(f"features: the {path} path was not filled with {text!r}; fill the store with every row that is read")
        return torch.from_numpy(arrays["bins"][place]), torch.from_numpy(arrays["pooled"][place])

    def batch(self, rows: list[Row], prompt_name: str | None = None) -> dict[str, torch.Tensor]:
        """The batch of LiraProcessor.batch, with features in place of ids."""
        prompts = [prompt_name or row.prompt for row in rows]
        batch = {"text_mask": torch.tensor([row.text is not None for row in rows]), **self.processor.beside_text(rows)}
        texts = {
            "multilingual": [self.processor.prefixed("multilingual", r.text, p) for r, p in zip(rows, prompts, strict=True) if r.text is not None],
            "english": [self.processor.prefixed("english", text, p) for r, p in zip(rows, prompts, strict=True) for text in r.translations],
        }
        for path, mask in (("multilingual", batch["text_mask"]), ("english", batch["candidate_mask"])):
            bins, pooled = (self.arrays[path][name] for name in ("bins", "pooled"))
            batch[f"{path}_features"] = torch.zeros(*mask.shape, *bins.shape[1:])
            batch[f"{path}_pooled"] = torch.zeros(*mask.shape, pooled.shape[1])
            if texts[path]:
                found = self._look_up(path, texts[path])
                batch[f"{path}_features"][mask], batch[f"{path}_pooled"][mask] = found[0].float(), found[1].float()
        return batch


def fill(
    folder: str | Path, model: LiraModel, processor: LiraProcessor, rows: list[Row], batch_size: int = 256, show_progress_bar: bool = True
) -> FeatureStore:
    """Encodes every text of rows that the folder does not hold yet, and opens it.

    Each path is written under a temporary name and renamed when it is whole. float32; N * (S + 1) * h * 4 bytes per path."""
    folder = Path(folder)
    for path in PATHS:
        texts: dict[int, str] = {}
        for row in rows:
            for text in [row.text] if path == "multilingual" else row.translations:
                if text is not None:
                    text = processor.prefixed(path, text, row.prompt)
                    texts[text_key(text)] = text
        meta = {"fingerprint": fingerprint(model, processor, path), "texts": hashlib.sha256(np.array(sorted(texts), np.uint64).tobytes()).hexdigest()}
        target = folder / path
        if (target / "meta.json").exists() and json.loads((target / "meta.json").read_text()) == meta:
            continue
        _encode(target, model, processor, path, texts, batch_size, show_progress_bar)
        (target.with_suffix(".part") / "meta.json").write_text(json.dumps(meta))
        shutil.rmtree(target, ignore_errors=True)
        target.with_suffix(".part").rename(target)
    return FeatureStore(folder, processor)


def _encode(target: Path, model: LiraModel, processor: LiraProcessor, path: str, texts: dict[int, str], batch_size: int, progress: bool) -> None:
    part = target.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    keys, hidden = sorted(texts), getattr(model, path).config.hidden_size
    np.save(part / "keys.npy", np.array(keys, dtype=np.uint64))
    shapes = {"bins": (len(keys), model.config.num_bins, hidden), "pooled": (len(keys), hidden)}
    arrays = {name: np.lib.format.open_memmap(part / f"{name}.npy", "w+", np.float32, shape) for name, shape in shapes.items()}
    order = sorted(range(len(keys)), key=lambda i: len(texts[keys[i]]))  # texts of like length together: little padding
    device = next(model.parameters()).device
    for start in tqdm(range(0, len(keys), batch_size), desc=f"features, {path}", disable=not progress, unit="batch"):
        index = order[start : start + batch_size]
        tokens = processor.tokens(path, [texts[keys[i]] for i in index])
        bins, pooled = model.encode_path(path, *(tensor.to(device) for tensor in tokens))
        arrays["bins"][index], arrays["pooled"][index] = bins.cpu().numpy(), pooled.cpu().numpy()
    for array in arrays.values():
        array.flush()
