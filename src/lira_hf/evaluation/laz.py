"""`lira-hf evaluate --benchmark laz`: a model beside frozen systems on a LazRetrieval folder, by language and query slice."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from lira_hf.collation import SPLITS, every_row, read
from lira_hf.evaluation.finished import Finished, data_digest
from lira_hf.evaluation.retrieval import Scoreboard, score_vectors, summary
from lira_hf.evaluation.systems import LiraSystem, open_systems
from lira_hf.features import fill
from lira_hf.languages import check_languages
from lira_hf.reporting import results


def evaluate_folder(
    model: str | Path,
    data_folder: str | Path,
    output: str | Path,
    split: str = "test",
    languages: Sequence[str] | None = None,
    systems: Sequence[str] | None = None,
    batch_size: int = 64,
    features: bool = True,
) -> dict:
    """The content of results.json, nDCG@10: the systems of open_systems with the folder's own translations.

    Scores of single languages are kept in OUTPUT/cache; with features, LiRA systems share what the backbones make of a text, in OUTPUT/features."""
    if split not in SPLITS:
        raise ValueError(f"split: {split!r} is not known; allowed: {', '.join(SPLITS)}")
    codes = check_languages(None if languages is None else list(languages))
    opened = open_systems(model, systems)
    data, finished = [read(data_folder, code, split) for code in codes], Finished(Path(output) / "cache" / "laz")
    where = {"split": split, "data": data_digest(data_folder)}
    keys = {
        (name, part.language): {"system": name, "part": part.language, "weights": system.digest, **where}
        for name, system in opened.items()
        for part in data
    }
    missing = [part for part in data if not all(finished.has(keys[name, part.language]) for name in opened)]
    shared = [system for system in opened.values() if isinstance(system, LiraSystem)]
    if features and missing and len(shared) > 1:
        rows = [row for system in shared for row in system.read(every_row(missing))]
        store = fill(Path(output) / "features", shared[0].model.lira, shared[0].processor, rows)
        for system in shared:
            system.store = store
    board = Scoreboard()
    for name, system in opened.items():
        vectors = partial(system.embed, batch_size=batch_size)
        found = {part.language: finished.get(keys[name, part.language], partial(score_vectors, vectors, part)) for part in data}
        board.add(name, summary(found, data))
    finished.say()
    revision = (opened.get("lira") or next(iter(opened.values()))).digest
    return results(board.systems(), benchmark=benchmark_name(data_folder, split), model=str(model), seeds=[], revision=revision, split=split)


def benchmark_name(data_folder: str | Path, split: str) -> str:
    """What the table is called: a built data set is LazRetrieval, an imported one is known by its folder."""
    record = Path(data_folder) / "build.json"
    size = json.loads(record.read_text())["size"] if record.exists() else None
    if size == "imported":
        return f"{Path(data_folder).name} ({split}, imported)"
    return f"LazRetrieval{f' {size}' if size else ''} ({split}, synthetic)"
