"""`lira-hf evaluate --benchmark laz`: a trained model beside its own frozen backbones on a LazRetrieval folder."""

from __future__ import annotations

import json
from pathlib import Path

from tqdm.auto import tqdm

from lira_hf.collation import SPLITS, read
from lira_hf.evaluation.retrieval import FROZEN_SYSTEMS, Scoreboard, build_frozen, score, summary
from lira_hf.languages import check_languages
from lira_hf.modeling import LiraForRetrieval, LiraProcessor
from lira_hf.reporting import keep, print_table, results, write_json


def load_model(folder: str | Path) -> tuple[LiraForRetrieval, LiraProcessor]:
    """Model and processor of a LiRA folder. Raises ValueError for any other folder."""
    config = Path(folder) / "config.json"
    if not config.exists() or json.loads(config.read_text()).get("model_type") != "lira":
        raise ValueError(f"model: {str(folder)!r} is no LiRA model (it has no config.json with model_type lira)")
    return LiraForRetrieval.from_pretrained(folder), LiraProcessor.from_pretrained(folder)


def evaluate_folder(
    model_folder: str | Path,
    data_folder: str | Path,
    output: str | Path,
    benchmark: str = "laz",
    split: str = "test",
    languages: list[str] | None = None,
    show_progress_bar: bool = True,
) -> dict:
    """Writes OUTPUT/results.json, prints its table and returns it. What was measured on the test split is also left in the model's
    folder, where its card is rendered from.

    Systems: the model as `lira`, and the frozen ones of DESIGN around its backbones. Texts are encoded anew for each system."""
    if benchmark != "laz":
        raise ValueError(f"benchmark: {benchmark!r} is not known; allowed: laz")
    if split not in SPLITS:
        raise ValueError(f"split: {split!r} is not known; allowed: {', '.join(SPLITS)}")
    codes = check_languages(languages)
    model, processor = load_model(model_folder)
    data = [read(data_folder, code, split) for code in codes]
    board = Scoreboard()
    for system in tqdm([*FROZEN_SYSTEMS, "lira"], desc="evaluate", disable=not show_progress_bar):
        each = model if system == "lira" else build_frozen(model, system)
        board.add(system, summary(score(each, processor, data), data))
    found = results(board.systems(), benchmark=_benchmark(data_folder, split), model=str(model_folder), seeds=[], split=split)
    write_json(Path(output) / "results.json", found)
    if split == "test":
        keep(found, model_folder, benchmark)
    print_table(found)
    return found


def _benchmark(data_folder: str | Path, split: str) -> str:
    """What the table is called: a built data set is LazRetrieval, an imported one is known by its folder."""
    record = Path(data_folder) / "build.json"
    size = json.loads(record.read_text())["size"] if record.exists() else None
    if size == "imported":
        return f"{Path(data_folder).name} ({split}, imported)"
    return f"LazRetrieval{f' {size}' if size else ''} ({split}, synthetic)"
