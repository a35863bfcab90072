"""From words to a data set on disk: every split of every language written, hashed, described, and put in place at once.

The unit of work is one split of one language; a row depends on nothing but its own random stream, so the same seed
gives the same bytes whatever the number of workers.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import multiprocessing
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lira_hf.catalogue.card import render_card
from lira_hf.catalogue.lexicon import load_words
from lira_hf.catalogue.rows import SIZES, UNSEEN, Part
from lira_hf.catalogue.splits import SPLITS
from lira_hf.catalogue.tables import COLUMNS, table_path, write_table
from lira_hf.languages import ENGLISH, check_languages


def build(
    output: str | Path,
    size: str = "small",
    languages: Sequence[str] | None = None,
    seed: int = 0,
    workers: int = 1,
    progress: bool = True,
) -> Path:
    """Build the data set in the folder `output` and return its path; where it stands already, return at once.

    `size` is a key of `SIZES`, `languages` codes (None: all seven), `workers` processes (more than one start anew, so
    a script that asks for them needs its `if __name__ == "__main__"`). The folder appears when all is written, or
    not at all. Raises ValueError for a wrong argument, for an `output` that holds something else, and for a lexicon
    with mistakes.
    """
    if size not in SIZES:
        raise ValueError(f"size: {size!r} is not known; allowed: {', '.join(SIZES)}")
    codes = check_languages(None if languages is None else list(languages))
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise ValueError(f"seed: {seed!r} is not allowed; give an integer")
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise ValueError(f"workers: {workers!r} is not allowed; give an integer of at least 1")
    output = Path(output)
    identity = {"size": size, "seed": seed, "languages": codes}
    if _stands_already(output, identity):
        return output
    for code in (ENGLISH.code, *codes):
        load_words(code)  # a mistake in a word shows now, not after minutes
    output.parent.mkdir(parents=True, exist_ok=True)
    root = Path(tempfile.mkdtemp(prefix=f".{output.name}.", suffix=".partial", dir=output.parent))
    try:
        parts = [Part(code, split, SIZES[size], seed) for code in codes for split in SPLITS]
        counts: dict[str, dict[str, dict[str, int]]] = {code: {} for code in codes}
        with contextlib.closing(_write_parts(root, parts, workers, progress)) as results:
            for part, counted in zip(parts, results, strict=True):
                counts[part.language][part.split] = counted
        (root / "README.md").write_text(render_card(size, seed, counts), encoding="utf-8")
        files = sorted(path for path in root.rglob("*") if path.is_file())
        hashes = {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
        record = {**identity, "counts": counts, "sha256": hashes}
        (root / "build.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        root.chmod(0o755)  # mkdtemp makes folders that only their owner may read
        if output.exists():
            output.rmdir()  # empty, as checked above; not every system can rename onto it
        os.replace(root, output)
    except BaseException:  # an interrupt too: nothing half-made stays
        shutil.rmtree(root, ignore_errors=True)
        raise
    return output


def _stands_already(output: Path, identity: Mapping[str, Any]) -> bool:
    """Whether `output` holds what is asked for; False where it is missing or empty. Raises ValueError otherwise."""
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return False
    try:
        record = json.loads((output / "build.json").read_text(encoding="utf-8"))
        found = {key: record[key] for key in identity}
    except (OSError, ValueError, KeyError, TypeError):
        raise ValueError(f"output: {str(output)!r} exists and is no data set; give a new or empty folder") from None
    if found != identity:
        raise ValueError(f"output: {str(output)!r} holds {found}, not {identity}; give a new or empty folder")
    return True


def _write_parts(root: Path, parts: Sequence[Part], workers: int, progress: bool) -> Generator[dict[str, int], None, None]:
    """The counts of each part, in order; one bar over all of them."""
    write = functools.partial(write_part, root)
    with tqdm(total=len(parts), unit="split", disable=not progress) as bar:

        def watched(results: Iterator[dict[str, int]]) -> Iterator[dict[str, int]]:
            for part in parts:
                bar.set_description(f"{part.language} {part.split}")
                yield next(results)
                bar.update()

        if workers == 1:
            yield from watched(map(write, parts))
            return
        # Spawned, not forked: the caller may have threads of torch or arrow running.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(workers, len(parts)), mp_context=context) as pool:
            try:
                yield from watched(pool.map(write, parts))
            finally:
                pool.shutdown(wait=True, cancel_futures=True)  # after a failure nobody needs the other parts


def write_part(root: Path, part: Part) -> dict[str, int]:
    """Write the four tables of one split of one language under `root`; returns what the card counts."""
    products = stock(part)
    rows = query_rows(part, products)
    judged = [
        {"query-id": row["query_id"], "corpus-id": product_id, "score": score}
        for row in rows
        for product_id, score in zip(row["product_ids"], row["relevances"], strict=True)
    ]
    tables = {
        "": rows,
        "-corpus": corpus_rows(part, products),
        "-queries": [{"_id": row["query_id"], "text": row["query"]} for row in rows],
        "-qrels": judged,
    }
    for suffix in COLUMNS:
        write_table(table_path(root, part.language, suffix, part.split), suffix, tables[suffix])
    slices = Counter(tag for row in rows for tag in row["slice"])
    return {
        "queries": len(rows),
        "products": len(products),
        "judgements": len(judged),
        "relevant": sum(row["score"] > 0 for row in judged),
        "unseen": slices[UNSEEN],
        **{f"slice:{tag}": number for tag, number in sorted(slices.items())},
    }
