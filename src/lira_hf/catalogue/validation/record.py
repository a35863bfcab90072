"""build.json, compared with what was counted and with the files."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import pydantic
from tqdm import tqdm

from lira_hf.catalogue.rows import SIZES
from lira_hf.catalogue.validation.findings import Findings
from lira_hf.languages import LANGUAGES

UNLISTED = {"build.json", "README.md", "import.json", "refused.jsonl"}  # an imported set does not list them, and people edit its card
Code = Literal[tuple(LANGUAGES)]
Counts = Mapping[str, Mapping[str, Counter[str]]]  # language → split → what is counted → how many, as in build.json


class Record(pydantic.BaseModel):
    """What validation needs of build.json. `counts`, `sha256`: None where there are none to compare with."""

    size: str = ""
    shared_products: bool = False  # an import may leave a product in the corpus of every split that judges it
    languages: list[Code] = []
    counts: dict[Code, dict[str, dict[str, int]]] | None = None
    sha256: dict[str, str] | None = None

    @property
    def built(self) -> bool:
        """Whether the builder made the set; else it was imported."""
        return self.size in SIZES

    def recorded(self, code: str) -> dict[str, dict[str, int]]:
        """The counts of a language, by split."""
        return (self.counts or {}).get(code, {})


def read_record(folder: Path, found: Findings) -> Record:
    """build.json; an empty record where it is missing or broken."""
    path = folder / "build.json"
    try:
        return Record.model_validate_json(path.read_bytes() if path.is_file() else "{}", strict=True)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        found.add("bad-record", path.name, f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": "))
        return Record()


def check_counts(record: Record, counts: Counts, found: Findings) -> None:
    """Compares the counts with what was counted."""
    for code, of_language in counts.items() if record.counts is not None else ():
        for split, actual in of_language.items():
            said = record.recorded(code).get(split)
            if said is None:
                found.add("record-counts", "build.json", f"nothing is counted for {code}/{split}")
                continue
            by_slice = any(name.startswith("slice:") for name in said)
            slices = {name: 0 for name in actual if by_slice and name.startswith("slice:")}
            for name, number in (slices | said).items():
                if is_counted(name, actual) and number != actual[name]:
                    found.add("record-counts", "build.json", f"{name} of {code}/{split}: {number}, the files have {actual[name]}")


def check_files(folder: Path, record: Record, progress: bool, found: Findings) -> None:
    """Compares the checksums with the files."""
    if record.sha256 is None:
        return
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    for name in record.sha256.keys() - files.keys():
        found.add("missing-file", name, "build.json lists it")
    for name, path in tqdm(files.items(), desc="checksums", unit="file", disable=not progress):
        hidden = any(part.startswith(".") for part in Path(name).parts)  # .git, .cache, .gitattributes: a checkout's own
        if name not in record.sha256:
            if name not in UNLISTED and not hidden:
                found.add("unlisted-file", name, "build.json does not list it")
            continue
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != record.sha256[name]:
                found.add("checksum", name, "its SHA-256 is not the one of build.json")


def is_counted(name: str, actual: Counter[str]) -> bool:
    """Whether the tables that `name` counts could be read; a slice without a query is counted too, as 0."""
    return name in actual or (name.startswith("slice:") and "queries" in actual)
