"""From words to a data set on disk: shard by shard, hashed, measured, described, and put in place at once.

The unit of work is a shard of one split of one language. A row depends on nothing but its own random stream, so the
same seed gives the same bytes whatever the number of workers. Finished shards wait in a hidden folder beside the
output; a build that was killed finds them there and goes on.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import gc
import hashlib
import json
import multiprocessing
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lira_hf.catalogue.candidates import Desk
from lira_hf.catalogue.card import render_card
from lira_hf.catalogue.difficulty import measure
from lira_hf.catalogue.lexicon import load_words
from lira_hf.catalogue.rows import BLOCK, SIZES, Part, corpus_columns, counted, market, query_columns
from lira_hf.catalogue.splits import SPLITS
from lira_hf.catalogue.tables import qrels_of, table_path, write_columns
from lira_hf.languages import ENGLISH, check_languages

SHARD_ROWS = 80 * BLOCK  # a few seconds of work, and about 5 MB
QUERIES, CORPUS = "queries", "corpus"


@dataclass(frozen=True)
class Unit:
    """A shard: the rows number `start` to `stop` of one table, with what goes with them."""

    part: Part
    kind: str
    shard: int
    shards: int
    start: int
    stop: int

    @property
    def name(self) -> str:
        """A name for the record of the finished shard."""
        return f"{self.part.language}-{self.part.split}-{self.kind}-{self.shard:05d}"


def build(
    output: str | Path,
    size: str = "small",
    languages: Sequence[str] | None = None,
    seed: int = 0,
    workers: int = 1,
    progress: bool = True,
    desk: Desk | None = None,
) -> Path:
    """Build the data set in the folder `output` and return its path; where it stands already, return at once.

    `size` is a key of `SIZES`, `languages` codes (None: all seven), `workers` processes (more than one start anew, so
    a script that asks for them needs its `if __name__ == "__main__"`), `desk` the simulated translators and their
    critic. The folder appears when all is written, or not at all; a build that stopped goes on when it is called
    again. Raises ValueError for a wrong argument, for an `output` that holds something else or is being built, and
    for a lexicon with mistakes.
    """
    if size not in SIZES:
        raise ValueError(f"size: {size!r} is not known; allowed: {', '.join(SIZES)}")
    codes = check_languages(None if languages is None else list(languages))
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise ValueError(f"seed: {seed!r} is not allowed; give an integer")
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise ValueError(f"workers: {workers!r} is not allowed; give an integer of at least 1")
    output = Path(output)
    desk = desk or Desk()
    identity = {
        "size": size,
        "seed": seed,
        "languages": codes,
        "desk": json.loads(json.dumps(asdict(desk))),
        "words and code": _fingerprint(),
    }
    if _stands_already(output, identity):
        return output
    for code in (ENGLISH.code, *codes):
        load_words(code)  # a mistake in a word shows now, not after minutes
    parts = [Part(code, split, SIZES[size], seed, desk) for code in codes for split in SPLITS]
    with _workplace(output, identity) as place:
        if _stands_already(output, identity):  # somebody finished it while we came to the lock
            return output
        root, records = place / "data", place / "records"
        units = [unit for part in parts for unit in _units(part)]
        done = _write_units(root, records, units, workers, progress)
        hashes = {file: hash_ for record in done for file, hash_ in record["sha256"].items()}
        counts = _sum_up(units, done)
        difficulty = measure(root, progress)
        content = hashlib.sha256(json.dumps(sorted(hashes.items())).encode()).hexdigest()
        (root / "README.md").write_text(render_card(size, seed, counts, difficulty, content[:16]), encoding="utf-8")
        hashes["README.md"] = _hash(root / "README.md")
        record = {**identity, "counts": counts, "difficulty": difficulty, "sha256": dict(sorted(hashes.items()))}
        (root / "build.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        if output.exists():
            output.rmdir()  # empty, as checked above; not every system can rename onto it
        os.replace(root, output)
    return output


def _stands_already(output: Path, identity: Mapping[str, Any]) -> bool:
    """Whether `output` holds what is asked for; False where it is missing or empty. Raises ValueError otherwise."""
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return False
    try:
        record = json.loads((output / "build.json").read_text(encoding="utf-8"))
        found = {key: record[key] for key in identity}
    except (OSError, ValueError, KeyError, TypeError):
        raise ValueError(f"output: {str(output)!r} exists and is no data set of this program; give a new or empty folder") from None
    differing = [f"{key} {found[key]!r}, not {identity[key]!r}" for key in ("size", "seed", "languages") if found[key] != identity[key]]
    differing += [f"other {key}" for key in ("desk", "words and code") if found[key] != identity[key]]
    if differing:
        raise ValueError(f"output: {str(output)!r} holds {'; '.join(differing)}; give a new or empty folder")
    return True


@contextlib.contextmanager
def _workplace(output: Path, plan: Mapping[str, Any]) -> Iterator[Path]:
    """The hidden folder where the build of `plan` grows: as an earlier one left it, or new; it goes when all is done.

    Raises ValueError where somebody else is building there now.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    place = output.parent / f".{output.name}.partial"
    place.mkdir(exist_ok=True)
    with (place / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(f"output: {str(output)!r} is being built by another process; wait for it, or give another folder") from None
        if _plan_of(place) != plan:  # another size or seed, or other words
            (place / "plan.json").unlink(missing_ok=True)  # first, so that a build killed here leaves no plan to believe
            for old in ("records", "data"):
                shutil.rmtree(place / old, ignore_errors=True)
            (place / "records").mkdir()
            (place / "plan.json").write_text(json.dumps(plan))
        yield place
        shutil.rmtree(place)


def _plan_of(place: Path) -> Any:
    """The plan that an earlier build left; None where there is none, or half of one."""
    try:
        return json.loads((place / "plan.json").read_text())
    except (OSError, ValueError):
        return None


@functools.cache
def _fingerprint() -> str:
    """A digest of the words and the code of this package: a data set made by others is not what would be built now."""
    folder = Path(__file__).parent
    files = sorted([*folder.glob("*.py"), *folder.glob("lexicon/*.yaml")])
    return hashlib.sha256("".join(map(_hash, files)).encode()).hexdigest()[:16]


def _units(part: Part) -> Iterator[Unit]:
    """The shards of a part: of its corpus, and of its queries."""
    for kind, rows in ((CORPUS, len(market(part).products)), (QUERIES, part.extent.queries)):
        starts = range(0, rows, SHARD_ROWS)
        for shard, start in enumerate(starts):
            yield Unit(part, kind, shard, len(starts), start, min(start + SHARD_ROWS, rows))


def _write_units(root: Path, records: Path, units: Sequence[Unit], workers: int, progress: bool) -> list[dict[str, Any]]:
    """The records of all `units`, in order; those that have none yet are written now. One bar counts rows."""
    done = {unit: json.loads(path.read_text()) for unit in units if (path := records / f"{unit.name}.json").exists()}
    open_units = [unit for unit in units if unit not in done]
    total, before = (sum(unit.stop - unit.start for unit in some) for some in (units, done))
    write = functools.partial(write_unit, root, records)
    with tqdm(total=total, initial=before, unit=" rows", unit_scale=True, disable=not progress) as bar:

        def finish(unit: Unit, record: dict[str, Any]) -> None:
            done[unit] = record
            bar.set_description(f"{unit.part.language} {unit.part.split}")
            bar.update(unit.stop - unit.start)

        if workers == 1:
            for unit in open_units:
                finish(unit, write(unit))
        elif open_units:
            # Spawned, not forked: the caller may have threads of torch or arrow running.
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(min(workers, len(open_units)), mp_context=context) as pool:
                running = {pool.submit(write, unit): unit for unit in open_units}
                try:
                    for future in as_completed(running):
                        finish(running[future], future.result())
                finally:
                    pool.shutdown(wait=True, cancel_futures=True)  # after a failure nobody needs the other shards
    return [done[unit] for unit in units]


def write_unit(root: Path, records: Path, unit: Unit) -> dict[str, Any]:
    """Write the tables of a shard under `root`, then its record: {"counts", "sha256"}, which is returned."""
    part = unit.part
    path = functools.partial(table_path, root, part.language, split=part.split, shard=unit.shard, shards=unit.shards)
    gc.disable()  # millions of tuples and not one cycle: looking for some takes a third of the time
    try:
        if unit.kind == CORPUS:
            columns = corpus_columns(part, unit.start, unit.stop)
            tables, counts = {"-corpus": columns}, {"products": len(columns["_id"])}
        else:
            columns = query_columns(part, unit.start, unit.stop)
            queries = {"_id": columns["query_id"], "text": columns["query"]}
            tables, counts = {"": columns, "-queries": queries, "-qrels": qrels_of(columns)}, counted(columns)
        for suffix, of_table in tables.items():
            write_columns(path(suffix=suffix), suffix, of_table)
    finally:
        gc.enable()
    hashes = {path(suffix=suffix).relative_to(root).as_posix(): _hash(path(suffix=suffix)) for suffix in tables}
    record = {"counts": counts, "sha256": hashes}
    part_file = records / f"{unit.name}.part"
    part_file.write_text(json.dumps(record))
    os.replace(part_file, records / f"{unit.name}.json")
    return record


def _sum_up(units: Sequence[Unit], records: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, int]]]:
    """The counts of all shards: language → split → what is counted → how many."""
    sums: dict[str, dict[str, Counter[str]]] = {}
    for unit, record in zip(units, records, strict=True):
        sums.setdefault(unit.part.language, {}).setdefault(unit.part.split, Counter()).update(record["counts"])
    return {code: {split: dict(sorted(counts.items())) for split, counts in of.items()} for code, of in sums.items()}


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
