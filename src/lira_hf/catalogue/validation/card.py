"""README.md, compared with the files and with what was counted."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from lira_hf.catalogue.difficulty import ALL, ROWS
from lira_hf.catalogue.validation.findings import Findings
from lira_hf.catalogue.validation.record import Counts, is_counted
from lira_hf.catalogue.validation.tables import Table, one_line
from lira_hf.languages import LANGUAGES

COUNTED = {"queries": "queries", "products": "products", "judgements": "judgements", "of these above 0": "relevant"}  # heading → count


def check_card(folder: Path, tables: Sequence[Table], counts: Counts, found: Findings) -> None:
    """The front matter, by which `datasets` finds the configs, and the tables of the text."""
    path = folder / "README.md"
    if not path.is_file():
        found.add("missing-readme", path.name, "load_dataset finds the configs by it")
        return
    text = path.read_text(encoding="utf-8", errors="replace")
    if "Built by `lira_hf.catalogue`" in text and not (folder / "build.json").is_file():
        found.add("missing-record", "build.json", "README.md says who built the set, so there was one")
    if "\ufffd" in text:
        found.add("bad-character", path.name, "a replacement character, or bytes that are not UTF-8", text.count("\ufffd"))
    _check_count_tables(text, counts, found)
    try:
        configs, said = _front_matter(text)
    except (yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError) as error:
        found.add("readme-configs", path.name, f"the front matter cannot be read ({type(error).__name__}: {one_line(error)})")
        return
    _check_configs(folder, configs, tables, found)
    for table in tables:
        number = said.get((table.config, table.split), table.rows)
        if table.usable and number != table.rows:
            found.add("readme-info", path.name, f"{table.where} has {table.rows:,} rows, not {number}")


def _front_matter(text: str) -> tuple[dict[str, dict[str, list[str]]], dict[tuple[str, str], int]]:
    """Config → split → patterns of files; and (config, split) → rows, where dataset_info says it."""
    front = re.match(r"---\r?\n(.*?)\r?\n---\s", text, re.DOTALL)
    header = yaml.safe_load(front[1]) if front else None
    configs: dict[str, dict[str, list[str]]] = {}
    for config in header["configs"]:
        paths = {entry["split"]: entry["path"] for entry in config["data_files"]}
        configs[config["config_name"]] = {split: [path] if isinstance(path, str) else list(map(str, path)) for split, path in paths.items()}
    infos = header.get("dataset_info") or []
    infos = [infos] if isinstance(infos, dict) else infos
    return configs, {(info.get("config_name"), split["name"]): split["num_examples"] for info in infos for split in info.get("splits") or ()}


def _check_configs(folder: Path, configs: Mapping[Any, Mapping[Any, list[str]]], tables: Sequence[Table], found: Findings) -> None:
    there = dict.fromkeys(table.config for table in tables if (folder / table.config).is_dir())
    for name in configs:
        if name not in there:
            found.add("readme-unknown-config", "README.md", repr(name))
    for name in there:
        if name not in configs:
            found.add("readme-missing-config", "README.md", repr(name))
    shards = {(table.config, table.split): [f"{table.config}/{path.name}" for path in table.shards] for table in tables}
    for name in (name for name in there if name in configs):
        files = [f"{name}/{path.name}" for path in sorted((folder / name).glob("*.parquet"))]
        for split in dict.fromkeys([*configs[name], *(split for config, split in shards if config == name)]):
            patterns, wanted = configs[name].get(split, []), shards.get((name, split))
            read = [file for file in files if any(fnmatchcase(file, pattern) for pattern in patterns)]
            if wanted is None or (wanted and read != wanted):  # no shard at all is another damage
                found.add("readme-files", "README.md", f"{name}/{split}: {', '.join(patterns) or 'no path'} is not {', '.join(wanted or ['there'])}")


def _check_count_tables(text: str, counts: Counts, found: Findings) -> None:
    """The Markdown tables of counts by language and split, of slices by language, and of difficulty by language and slice."""
    codes = {LANGUAGES[code].name: code for code in counts}
    for row in _table_rows(text):
        code, split, slice_ = codes.get(row.get("language", "")), row.get("split"), row.get("slice")
        if code and split in counts[code]:
            for heading, name in COUNTED.items():
                _compare(f"{heading} of {code} {split}", row.get(heading), name, [counts[code][split]], found)
        elif code and slice_:
            test = counts[code].get("test", Counter())
            if test["queries"] <= ROWS:  # else only the first were measured
                _compare(f"measured, {slice_} of {code}", row.get("queries"), "queries" if slice_ == ALL else f"slice:{slice_}", [test], found)
        elif slice_:
            for code, of_language in counts.items():
                _compare(f"slice {slice_} of {code}", row.get(code), f"slice:{slice_}", list(of_language.values()), found)


def _table_rows(text: str) -> Iterator[dict[str, str]]:
    """Every row of every Markdown table, heading → cell."""
    heading: list[str] = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []
        if not cells or not heading:
            heading = cells
        elif len(cells) == len(heading) and any(cell.strip(":-") for cell in cells):
            yield dict(zip(heading, cells, strict=True))


def _compare(title: str, said: str | None, name: str, actual: Sequence[Counter[str]], found: Findings) -> None:
    total = sum(of_split[name] for of_split in actual)
    if all(is_counted(name, of_split) for of_split in actual) and said not in (None, f"{total:,}"):
        found.add("card-counts", "README.md", f"{title}: {said}, the files have {total:,}")
