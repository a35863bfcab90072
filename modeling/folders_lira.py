"""Folders of weights, on disk or of the Hub: where they are, and whether their files are whole. Only safetensors is ever read."""

import importlib.util
import json
import sys
from pathlib import Path

from transformers.utils import TRANSFORMERS_DYNAMIC_MODULE_NAME

from .hub_lira import below, check_files, fetch, write

LOCATION = ("cache_dir", "token", "local_files_only", "force_download")  # how the Hub is reached
WEIGHTS = "model.safetensors"
WEIGHT_FILES = ("config.json", "generation_config.json", "model*.safetensors", "model*.safetensors.index.json")
ADAPTER = "adapter_model.safetensors"
ADAPTER_FILES = ("adapter_config.json", ADAPTER)
REMOTE = __name__.partition(".")[0] == TRANSFORMERS_DYNAMIC_MODULE_NAME  # whether this is the code beside the weights, not the installed package
CODE = ("*_lira.py",) if REMOTE else ()


def located(name: str, patterns: tuple[str, ...], revision: str | None = None, subfolder: str = "", **where) -> tuple[Path, str | None]:
    """The folder of a model and, if it is one of the Hub, its commit. `where`: some of LOCATION.

    A repository of the Hub is fetched first, the files that match patterns; a folder's checksums are checked, where it has some. Code that
    runs from there is opened, and checked, like them.
    Raises OSError for a repository that cannot be had and for code that was not whole, ValueError for a file with a wrong checksum."""
    folder, opened = Path(name), [*below(subfolder, list(patterns)), *CODE]
    if folder.is_dir():
        check_files(folder, opened)
        return folder, None
    folder = fetch(str(name), revision=getattr(revision, "resolved", revision), patterns=opened, **where)  # transformers has resolved some
    check_code(folder)
    return folder, folder.name


def check_code(snapshot: Path) -> None:
    """Compares the code that runs, transformers' copy of a commit's, with the checked files of that commit.

    transformers has downloaded it unchecked, and never again looks at a copy. Each copy that differs is made right; where it was imported
    before, all modules beside it are forgotten, so that the next call reads them anew, and an OSError names it."""
    folder, package, spoiled = Path(__file__).parent, __name__.rpartition(".")[0], []
    if not REMOTE or folder.name != snapshot.name:  # transformers names the folder by the commit
        return
    for right in sorted(snapshot.glob(CODE[0])):
        copy = folder / right.name
        if not copy.is_file() or copy.read_bytes() == right.read_bytes():
            continue
        write(copy, right.read_bytes().decode("utf-8"))
        Path(importlib.util.cache_from_source(copy)).unlink(missing_ok=True)  # of the same length and second, it would pass for the right one's
        if f"{package}.{copy.stem}" in sys.modules:
            spoiled.append(copy)
    if spoiled:
        for name in [name for name in sys.modules if name.startswith(f"{package}.")]:
            del sys.modules[name]
        raise OSError(f"{spoiled[0]}: not whole when it was imported; it is now, so open the model again")


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
