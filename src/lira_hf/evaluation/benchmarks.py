"""`lira-hf evaluate`: a model, beside frozen systems with the same translations, on one of six benchmarks."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import typer

from lira_hf.evaluation.finished import check_folder, data_digest
from lira_hf.evaluation.systems import open_systems
from lira_hf.evaluation.translations import Translations, write_texts
from lira_hf.reporting import keep, print_table, results, write_json

EMBEDDING, REASONING = ("belebele", "mlqa", "sts22"), ("mgsm", "xcsqa")
NAMES = ("laz", *EMBEDDING, *REASONING)
NARROW = 8  # columns of a table in a terminal, at most; the file has them all


def evaluate(
    model: str | Path,
    benchmark: str = "laz",
    *,
    data: str | Path | None = None,
    translations: str | Path | None = None,
    languages: Sequence[str] | None = None,
    systems: Sequence[str] | None = None,
    output: str | Path = "lira-results",
    split: str = "test",
    batch_size: int | None = None,
    features: bool = True,
    texts: str | Path | None = None,
) -> dict:
    """Writes OUTPUT/results.json (see DESIGN) and, beside a LiRA folder's weights, where all of our languages of a test split
    were measured, MODEL/results/BENCHMARK.json; prints its table, returns it.

    What is finished is kept in OUTPUT/cache by weights, data and translations: a run that was killed, started again, repeats none of it.

    Args:
        model: a LiRA folder or Hub id; or any encoder, or for mgsm and xcsqa any causal language model, to be measured as a baseline.
        benchmark: one of NAMES. data: the folder of laz; for the others a folder with the schema of the Hub's data set, instead of it.
        translations: see Translations.open; laz has its own. systems: None for all that the model allows.
        languages: our codes, None for those that the benchmark has; ["all"] for all of the benchmark's own, as public leaderboards average.
        split: of laz. features: whether systems share what the backbones make of a text, in OUTPUT/features.
        texts: write the benchmark's texts to this file, for `lira-hf translate`, and measure nothing.
    Raises ValueError that names a wrong argument."""
    if benchmark not in NAMES:
        raise ValueError(f"benchmark: {benchmark!r} is not known; allowed: {', '.join(NAMES)}")
    every = languages is not None and list(languages) == ["all"]
    languages = None if every else languages
    options = {
        "languages": languages,
        "systems": systems,
        "output": output,
        "batch_size": batch_size or (16 if benchmark in REASONING else 64),
        "features": features,
    }
    if benchmark == "laz":
        if every:
            raise ValueError("languages: 'all' is not for laz; leave it out, and all that the folder holds are measured")
        for name, given in (("translations", translations), ("texts", texts)):
            if given is not None:
                raise ValueError(f"{name}: {str(given)!r} is not for laz, whose data hold candidate translations")
        if data is None:
            raise ValueError("data: missing; laz is measured on a folder of `lira-hf data build`")
        from lira_hf.evaluation.laz import evaluate_folder

        found = evaluate_folder(model, data, split=split, **options)
    else:
        if split != "test":
            raise ValueError(f"split: {split!r} is for laz; {benchmark} is measured on the split that its task names")
        if data is not None:
            check_folder(data)
        table = Translations.open(translations)
        run = _embeddings if benchmark in EMBEDDING else _answers
        found = run(str(model), benchmark, data, table, every, texts, **options)
        if texts is not None:
            return found
        found["translations"] = None if translations is None else {"from": Path(translations).name, "digest": table.digest, **table.coverage()}
        if translations is not None and table.lacking:
            typer.echo(f"translations: {len(table.lacking):,} of {len(table.asked):,} texts have none, such as {next(iter(table.lacking))[1]!r}")
    write_json(Path(output) / "results.json", found)
    whole = languages is None and not every and split == "test"  # a part of it must not take the place of the whole in the card
    if whole and (Path(model) / "config.json").is_file() and "lira" in found["systems"]:
        keep(found, model, benchmark)
    if benchmark == "laz":
        print_table(found)
    else:
        show(found)
    return found


def _embeddings(model, benchmark, data, table, every, texts, *, languages, systems, output, batch_size, features) -> dict:
    stage = stage_of("embedding_benchmarks")
    task, columns = stage.open_task(benchmark, languages, every, data)
    heard = stage.listen(task, table)
    if texts is not None:
        return written(texts, [(row.language, row.text) for row in heard if row.text is not None])
    opened = open_systems(model, systems, translated=any(row.translations for row in heard if row.text is not None))
    board = stage.evaluate_systems(benchmark, task, columns, opened, table, heard, output, model, batch_size, features)
    return results(
        board, benchmark=f"{task.metadata.name} ({stage.SPLIT}{', all subsets' if every else ''})", model=model, seeds=[],
        metric=next(iter(stage.BENCHMARKS[benchmark].metrics)), revision=main_of(opened).digest, data=source_of(data, dict(task.metadata.dataset)),
        measured_by=f"mteb {version('mteb')}",
    )  # fmt: skip


def _answers(model, benchmark, data, table, every, texts, *, languages, systems, output, batch_size, features) -> dict:
    stage = stage_of("reasoning_benchmarks")
    columns, of = stage.columns_of(benchmark, languages, every), stage.BENCHMARKS[benchmark]
    asked = stage.questions_of(benchmark, columns, table, data)
    if texts is not None:
        return written(texts, [(question["language"], question["source"]) for question in asked])
    speakers = stage.open_speakers(model, systems, batch_size, translated=any(question["candidates"] != "[]" for question in asked))
    board = stage.evaluate_speakers(benchmark, columns, speakers, table, output, data)
    return results(
        board, benchmark=f"{of.name} ({of.split}{', all languages' if every else ''})", model=model, seeds=[], metric=f"accuracy, {of.main}",
        revision=main_of(speakers).digest, prompt=main_of(speakers).prompt or "the task's",
        data=source_of(data, {"path": stage.hub_path(benchmark), "revision": "main"}),
        measured_by=f"lm_eval {version('lm_eval')}",
    )  # fmt: skip


def source_of(data: str | Path | None, hub: dict) -> dict[str, str]:
    """What results say of the data: of a folder its name and its digest, not where on this machine it lies."""
    return hub if data is None else {"path": Path(data).name, "revision": data_digest(data)}


def main_of(opened: dict):
    """The system that the results are about."""
    return opened.get("lira") or next(iter(opened.values()))


def written(path: str | Path, texts: list[tuple[str, str]]) -> dict:
    """What `evaluate` returns where it only writes the texts."""
    count = write_texts(path, texts)
    typer.echo(f"wrote {count:,} texts to {path}: `lira-hf translate` and `lira-hf judge` make an OUTPUT of it that --translations takes")
    return {"texts": count}


def stage_of(name: str) -> ModuleType:
    """A module whose libraries are extras. Raises ValueError with the line that installs them."""
    try:
        return importlib.import_module(f"lira_hf.evaluation.{name}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("mteb", "lm_eval"):
            raise
        raise ValueError(f"{error.name} is not installed: pip install 'lira-hf[eval]'") from None


def show(found: dict) -> None:
    """Prints the table of the main metric, and the averages of the others."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    systems = found["systems"]
    columns = list(next(iter(systems.values()))["languages"])
    table = Table(title=f"{found['benchmark']}, {found['metric']}", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    columns = columns if len(columns) <= NARROW else []
    others = list(next(iter(systems.values()))["metrics"])
    if len("".join(["multilingual_only", "average", *columns, *others])) + len(columns) * 4 + len(others) * 2 > 80:
        others = []
    for index, column in enumerate(["system", "average", *columns, *others]):
        table.add_column(column, justify="right" if index else "left", no_wrap=index <= len(columns) + 1)
    for name, system in systems.items():
        cells = [system["average"], *(system["languages"][column] for column in columns), *(system["metrics"][other]["average"] for other in others)]
        table.add_row(name, *(f"{cell:.1f}" for cell in cells), style="bold" if name == "lira" else None)
    Console().print(table)
