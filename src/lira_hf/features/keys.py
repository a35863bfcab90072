"""What features depend on: the text, and everything that names the folder they lie in."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path

import torch

from lira_hf.modeling import LiraModel, LiraProcessor

PATHS = ("multilingual", "english")
DTYPES = ("float32", "float16", "bfloat16")
# What a configuration says of its origin, not of its features.
ORIGIN = {"_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype"}


def check_dtype(dtype: str) -> None:
    if dtype not in DTYPES:
        raise ValueError(f"dtype: {dtype!r} is not allowed; choose one of {', '.join(DTYPES)}")


def text_key(text: str) -> int:
    """64-bit hash of a text; two of a million texts share one with probability 3e-8."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest(), "little", signed=True)


def cache_key(model: LiraModel, processor: LiraProcessor, path: str, dtype: str) -> dict:
    """What the features of a path depend on, beside the text.

    The backbone's weights and configuration stand for its commit, which transformers does not keep: a commit that changes neither
    changes no feature, and a saved LiRA finds the features that its backbones were trained on. Hashes about a gigabyte a second."""
    backbone = getattr(model, path)
    config = {name: value for name, value in backbone.config.to_dict().items() if name not in ORIGIN}
    return {
        "path": path,
        "weights": weights_digest(backbone),
        "config": hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode()).hexdigest(),
        "tokenizer": tokenizer_digest(processor.tokenizer if path == "multilingual" else processor.english_tokenizer),
        "num_bins": model.config.num_bins,
        "pooling": getattr(model.config, f"{path}_pooling"),
        "max_length": processor.max_length,
        "hidden_size": backbone.config.hidden_size,
        "dtype": dtype,
    }


def weights_digest(module: torch.nn.Module) -> str:
    """A hash of a module's weights, their names and types."""
    weights = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        weights.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        weights.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return weights.hexdigest()


def tokenizer_digest(tokenizer) -> str:
    """A hash of how a tokenizer reads text; the padding and truncation of its last call leave no trace."""
    if getattr(tokenizer, "backend_tokenizer", None) is not None:
        state = json.loads(tokenizer.backend_tokenizer.to_str()) | {"padding": None, "truncation": None}
        content = json.dumps(state, sort_keys=True).encode()
    else:  # written in Python: its vocabulary and the files that it would save
        settings = {name: str(value) for name, value in tokenizer.init_kwargs.items() if not name.endswith(("_file", "name_or_path"))}
        content = json.dumps([type(tokenizer).__name__, sorted(tokenizer.get_vocab().items()), settings], sort_keys=True).encode()
        with tempfile.TemporaryDirectory() as scratch:
            content += b"".join(Path(file).read_bytes() for file in tokenizer.save_vocabulary(scratch))
    return hashlib.sha256(content + tokenizer.truncation_side.encode()).hexdigest()


def key_folder(folder: str | Path, key: dict) -> Path:
    return Path(folder) / f"{key['path']}-{hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]}"


def differences(theirs: dict, ours: dict) -> str:
    """In what two keys differ, for messages; "" where they are the same."""
    return ", ".join(f"{name} {shown(theirs.get(name))}, not {shown(ours[name])}" for name in ours if theirs.get(name) != ours[name])


def other_fillings(folder: str | Path, key: dict) -> str:
    """In what the same path's other folders differ from key, for messages; "" where there are none."""
    files = sorted(Path(folder).glob(f"{key['path']}-*/key.json"))
    found = [(file.parent.name, differences(json.loads(file.read_text()), key)) for file in files]
    return "; ".join(f"{name} has {different}" for name, different in found if different)


def shown(value) -> str:
    return value[:12] if isinstance(value, str) else str(value)
