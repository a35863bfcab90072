"""The tokenizers of a saved processor: what tells one from another, and whether those in a folder are those that were saved.

transformers reads the tokenizer of the root where a subfolder is missing, with no more than a warning: every vector would be wrong.
"""

import hashlib
from pathlib import Path

from .configuration_lira import LiraConfig

FOLDERS = {"multilingual": "", "english": "english_tokenizer", "llm": "llm_tokenizer"}  # within a saved processor
FILES = (
    "config.json", "processor_config.json", "config_sentence_transformers.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "bpe.codes", "tokenizer.model", "spiece.model", "spm.model",
    "sentencepiece.bpe.model", "chat_template.jinja", "chat_template.json", *(f"{folder}/*" for folder in FOLDERS.values() if folder),
)  # fmt: skip
PROBES = (
    "TV 55 inch, 4K!", "Áo thun nữ màu đen cỡ 42", "ทีวี ๕๕ นิ้ว สีดำ", "sepatu biru Rp1.250.000", "لال سوتی لباس ۴۲", "লাল সুতির জামা ৪২", "pulang damit",
)  # fmt: skip


def fingerprint(tokenizer) -> str:
    """sha256, in hexadecimal, of a tokenizer's vocabulary and of how it reads a few texts: what decides which rows of a backbone's
    embedding it asks for, and nothing else."""
    digest = hashlib.sha256()
    for token, number in sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[::-1]):
        digest.update(f"{number} {token}\0".encode("utf-8", "surrogatepass"))
    for text in PROBES:
        digest.update(f"{[int(number) for number in tokenizer(text)['input_ids']]}\0".encode())
    return digest.hexdigest()


def check_there(folder: Path, names: list[str]) -> None:
    """Raises ValueError for a tokenizer of FOLDERS whose files are missing."""
    for name in names:
        if not any((folder / FOLDERS[name] / file).exists() for file in ("tokenizer.json", "tokenizer_config.json")):
            raise ValueError(f"{name} tokenizer: missing; {folder / FOLDERS[name]} holds none; save the processor again")


def check_same(folder: Path, tokenizers: dict, saved: dict[str, str]) -> None:
    """Raises ValueError for a tokenizer that is not the one that was saved, by the fingerprints of then."""
    for name, tokenizer in tokenizers.items():
        found = fingerprint(tokenizer)
        if found != saved.get(name):
            known = next((f"; it is the {other} one" for other, each in saved.items() if each == found), "")
            raise ValueError(
                f"{name} tokenizer: the one in {folder / FOLDERS[name]} is not the one that was saved with this processor (another "
                f"vocabulary, or other tokens for the same text){known}; restore it, or save the processor again"
            )


def check_vocabularies(folder: Path, tokenizers: dict) -> None:
    """Raises ValueError for a tokenizer with more tokens than its backbone's embedding has rows, where a model lies beside the processor."""
    stored = LiraConfig.get_config_dict(folder)[0] if (folder / "config.json").exists() else {}
    if stored.get("model_type") != LiraConfig.model_type:
        return
    config = LiraConfig.from_dict(stored)
    for name, tokenizer in tokenizers.items():
        backbone = getattr(config, f"{name}_config")
        rows = getattr(backbone and backbone.get_text_config(), "vocab_size", None)
        if rows is not None and len(tokenizer) > rows:
            raise ValueError(
                f"{name} tokenizer: {len(tokenizer)} tokens in {folder / FOLDERS[name]}, but the backbone beside it has {rows}; "
                "model and processor do not belong together"
            )
