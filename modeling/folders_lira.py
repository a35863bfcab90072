"""Folders of weights, on disk or of the Hub: where they are, and whether their files are whole. Only safetensors is ever read."""

import json
from pathlib import Path

from .hub_lira import CODE, below, check_code, check_files, fetch

WEIGHTS = "model.safetensors"
WEIGHT_FILES = ("config.json", "generation_config.json", "model*.safetensors", "model*.safetensors.index.json")
ADAPTER = "adapter_model.safetensors"
ADAPTER_FILES = ("adapter_config.json", ADAPTER)


def located(name: str, patterns: tuple[str, ...], revision: str | None = None, subfolder: str = "", **where) -> tuple[Path, str | None]:
    """The folder of a model and, if it is one of the Hub, its commit. `where`: some of LOCATION.

    A repository of the Hub is fetched first, the files that match patterns; a folder's checksums are checked, where it has some. Code that
    runs from there is opened, and checked, like them.
    Raises OSError for a repository that cannot be had and for code that was not whole, ValueError for a file with a wrong checksum."""
    folder, opened = Path(name), [*below(subfolder, list(patterns)), *CODE]
    if folder.is_dir():
        check_files(folder, opened)
        return folder, None
    folder = fetch(str(name), revision=revision, patterns=opened, **where)
    check_code(folder)
    return folder, folder.name


def tensor_files(folder: Path, variant: str | None = None) -> dict[str, Path]:
    """The tensors in a folder's weights, by name, and the file of each. Raises OSError for a file that is missing or not whole, naming it."""
    single = folder / (WEIGHTS if variant is None else f"model.{variant}.safetensors")
    index = folder / (f"{WEIGHTS}.index.json" if variant is None else f"{WEIGHTS}.index.{variant}.json")
    if single.exists():
        return dict.fromkeys(tensors(single), single)
    if not index.exists():
        raise OSError(f"{single}: missing, and so is {index.name}; weights are read from safetensors only, never from a pickle such as a .bin")
    found = {}
    try:
        named = dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
    except (ValueError, TypeError, LookupError):
        raise OSError(f"{index}: not whole; it names no shards") from None
    for shard in sorted(set(named.values())):
        if not (folder / shard).exists():
            raise OSError(f"{folder / shard}: missing, though {index.name} names it")
        found |= dict.fromkeys(tensors(folder / shard), folder / shard)
    for name, shard in named.items():
        if found.get(name) != folder / shard:
            raise OSError(f"{folder / shard}: {name} is missing in it, though {index.name} says that it is there")
    return found


def tensors(file: Path) -> list[str]:
    """Names of the tensors in a safetensors file, which is as long as its header says; else OSError. Nothing but the header is read."""
    size = file.stat().st_size
    with open(file, "rb") as stream:
        length = int.from_bytes(stream.read(8), "little")  # of the header, a JSON object, which the data follow
        if size < 8 or length > size - 8:
            raise OSError(f"{file}: not whole; it ends after {size} bytes, within its header")
        try:
            header = json.loads(stream.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, TypeError, LookupError, AttributeError):
            raise OSError(f"{file}: no safetensors file; its header cannot be read") from None
    whole = 8 + length + max(ends, default=0)
    if size != whole:
        raise OSError(f"{file}: not whole; it has {size} bytes, and its header says {whole}")
    return [name for name in header if name != "__metadata__"]
