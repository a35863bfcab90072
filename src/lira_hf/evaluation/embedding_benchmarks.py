"""BelebeleRetrieval, MLQARetrieval and STS22.v2 by mteb's own task classes, with the translations of a table."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import mteb
import typer
from datasets.exceptions import DatasetNotFoundError
from mteb.abstasks import AbsTask
from mteb.abstasks.sts import AbsTaskSTS
from mteb.cache import ResultCache
from mteb.results import TaskResult

from lira_hf.evaluation.finished import data_digest, digest_of, own_cache, quiet
from lira_hf.evaluation.mteb_encoder import Listener, SystemEncoder, languages_of
from lira_hf.evaluation.systems import LiraSystem, System
from lira_hf.evaluation.translations import Translations
from lira_hf.features import fill
from lira_hf.languages import LANGUAGES
from lira_hf.modeling.processing_lira import Row

SPLIT = "test"  # of MLQA too, whose validation split reads ten points higher


@dataclass(frozen=True)
class Benchmark:
    """A task of mteb: the subset of each of our languages (none where it has none of them), and the metrics to report, the main one first,
    by the names that mteb has for them."""

    task: str
    subsets: dict[str, str]
    metrics: dict[str, str]


RETRIEVAL = {"ndcg@10": "ndcg_at_10", "mrr@10": "mrr_at_10", "recall@10": "recall_at_10"}
CORRELATION = {"pearson": "cosine_pearson", "spearman": "cosine_spearman"}  # mteb's main score is the second
BENCHMARKS = {
    "belebele": Benchmark("BelebeleRetrieval", {code: f"{each.flores}-{each.flores}" for code, each in LANGUAGES.items()}, RETRIEVAL),
    "mlqa": Benchmark("MLQARetrieval", {"vi": "vie-vie"}, RETRIEVAL),
    "sts22": Benchmark("STS22.v2", {}, CORRELATION),
}


def open_task(
    name: str, languages: Sequence[str] | None = None, every: bool = False, data: str | Path | None = None
) -> tuple[AbsTask, dict[str, str]]:
    """mteb's task of a benchmark with its data loaded, and what its subsets are called in a table: a language's code, or their own name.

    languages: of ours, None for those that the benchmark has; every: all subsets, as public leaderboards average them, which is also what
    a benchmark without any of our languages runs on. data: a folder with the schema of the Hub's data set, instead of it. Raises ValueError
    for a language that the benchmark lacks, and for data that cannot be read."""
    benchmark = BENCHMARKS[name]
    for code in languages or ():
        if code not in benchmark.subsets:
            raise ValueError(f"languages: {benchmark.task} has no {code!r}; it has {', '.join(benchmark.subsets) or 'none of ours, leave it out'}")
    chosen = {} if every else {benchmark.subsets[code]: code for code in languages or benchmark.subsets}
    task = mteb.get_task(benchmark.task, hf_subsets=list(chosen) or None, eval_splits=[SPLIT])
    digest = None
    if data is not None:
        digest = data_digest(data)
        local = {"path": str(Path(data).absolute()), "revision": digest}
        task.metadata = task.metadata.model_copy(update={"dataset": local})  # of this task alone, the class keeps the Hub's
    try:
        with quiet(), own_cache(digest):
            task.load_data()
    except (DatasetNotFoundError, OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"data: {task.metadata.dataset['path']!r} cannot be read as {benchmark.task} ({type(error).__name__}: {reason})") from error
    return task, chosen or {subset: subset for subset in task.hf_subsets}


def sides_of(task: AbsTask) -> dict[tuple[str, str], str | None]:
    """(subset, sentence) -> code, for the sentences of pairs in two languages, which mteb hands over without saying which is which."""
    found = {}
    if isinstance(task, AbsTaskSTS):
        for subset in task.hf_subsets:
            languages = languages_of(task.metadata, subset)
            if len(set(languages)) > 1:
                for column, code in zip(task.column_names, languages, strict=True):
                    found |= {(subset, text): code for text in task.dataset[subset][SPLIT][column]}
    return found


def listen(task: AbsTask, translations: Translations) -> list[Row]:
    """What the task's texts are, as a system meets them."""
    listener = Listener()
    run(task, SystemEncoder(listener, "lira-hf/listener", translations, sides_of(task)), None)
    return listener.rows


def run(task: AbsTask, encoder: SystemEncoder, cache: ResultCache | None, batch_size: int = 64) -> TaskResult:
    """mteb's result of an encoder."""
    options = {"encode_kwargs": {"batch_size": batch_size, "show_progress_bar": False}, "show_progress_bar": False, "co2_tracker": False}
    with quiet():
        return mteb.evaluate(encoder, task, cache=cache, **options).task_results[0]


def percentage(score: float) -> float:
    """0 to 100, to 4 digits; a correlation that is not defined, of a constant, is 0: it orders nothing."""
    return 0.0 if math.isnan(score) else round(100 * float(score), 4)


def evaluate_systems(
    name: str, task: AbsTask, columns: dict[str, str], systems: dict[str, System], translations: Translations, heard: Sequence[Row],
    output: str | Path, model: str = "model", batch_size: int = 64, features: bool = True,
) -> dict[str, dict]:  # fmt: skip
    """The `systems` of results.json, 0 to 100; of each metric beside the main one too, under "metrics".

    heard: what listen() gave. Results of single subsets are kept in OUTPUT/cache, by weights, data and translations, and a run that was killed
    goes on with the next one. With features, all LiRA systems share what the backbones make of the texts, in OUTPUT/features."""
    benchmark, sides = BENCHMARKS[name], sides_of(task)
    folder = Path(output) / "cache" / f"mteb-{digest_of(task.metadata.dataset, translations.digest, mteb.__version__)}"
    cache, adapted = ResultCache(cache_path=folder), model if "/" in model and not Path(model).exists() else None
    named = Path(model).name or "model"
    encoders = {each: SystemEncoder(system, f"lira-hf/{named}-{each}", translations, sides, adapted) for each, system in systems.items()}
    missing = {each: missing_subsets(task, encoder, cache) for each, encoder in encoders.items()}
    filled = [each for each in encoders if missing[each] and isinstance(systems[each], LiraSystem)]
    if features and len(filled) > 1:
        rows = [row for each in filled for row in systems[each].read(heard)]
        store = fill(Path(output) / "features", systems[filled[0]].model.lira, systems[filled[0]].processor, rows)
        for each in filled:
            systems[each].store = store
    there = sum(len(columns) - len(each) for each in missing.values())
    if there:
        typer.echo(f"{there} of {len(columns) * len(systems)} results are from {folder}")
    board = {}
    for each, encoder in encoders.items():
        found = {row["hf_subset"]: row for row in run(task, encoder, cache, batch_size).scores[SPLIT]}
        metrics = {}
        for metric, key in benchmark.metrics.items():
            scores = {column: percentage(found[subset][key]) for subset, column in columns.items()}
            metrics[metric] = {"languages": scores, "average": round(mean(scores.values()), 4)}
        main = next(iter(benchmark.metrics))
        board[each] = {**metrics[main], "metrics": {metric: value for metric, value in metrics.items() if metric != main}}
    return board


def missing_subsets(task: AbsTask, encoder: SystemEncoder, cache: ResultCache) -> list[str]:
    """The subsets that the cache lacks. Files that a kill left half written are removed with the rest of their system's."""
    meta = encoder.mteb_model_meta
    path = cache.get_task_result_path(task.metadata.name, meta)
    try:
        for file in path.parent.glob("*.json"):
            json.loads(file.read_text(encoding="utf-8"))
        for file in path.parent.glob("*.jsonl"):
            for line in file.read_text(encoding="utf-8").splitlines():
                json.loads(line)
    except ValueError:
        shutil.rmtree(path.parent)
    found = cache.load_task_result(task.metadata.name, meta)
    return list(task.hf_subsets) if found is None else found.get_missing_evaluations(task).get(SPLIT, [])
