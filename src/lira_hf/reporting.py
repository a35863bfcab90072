"""Tables and plots, rendered from results and never typed."""

from __future__ import annotations

import functools
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from statistics import mean, stdev

LABELS = {
    "multilingual_only": "multilingual encoder, frozen",
    "english_only": "English encoder, first translation",
    "english_best": "English encoder, critic's best",
    "concat": "concatenation, frozen",
    "multilingual_trained": "multilingual path, trained",
    "english_trained": "English path, trained",
    "pooled_head": "both paths, simplest head",
    "lira": "LiRA",
}

SHORT = {"encoding": "encod\ning", "romanised": "roman\nised"}  # headers of narrow columns


def results(systems: dict, *, benchmark: str, model: str, seeds: list[int], revision: str | None = None, **more) -> dict:
    """The content of a results.json."""
    environment = {name: version(name) for name in ("torch", "transformers", "datasets", "lira-hf")}
    environment |= {"python": platform.python_version(), "machine": platform.machine(), "cores": os.cpu_count()}
    head = {"benchmark": benchmark, "metric": "ndcg@10", "model": model, "revision": revision, "seeds": seeds}
    return {**head, "systems": systems, "environment": environment, **more}


def write_json(path: Path, value: dict) -> None:
    """Writes value whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(part, path)


def cell(system: dict, *place: str) -> str:
    """A score as shown: one decimal, with the spread over seeds where there is one."""
    value, spread = system, system.get("spread")
    for key in place:
        value, spread = value.get(key) if value else None, spread.get(key) if spread else None
    if value is None:
        return "–"
    return f"{value:.1f} ±{spread:.1f}" if spread else f"{value:.1f}"  # frozen systems are the same with every seed


def rows(found: dict, slices: bool = False) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table by language, or by query slice."""
    systems = found["systems"]
    columns = list(next(iter(systems.values()))["slices" if slices else "languages"])
    body = []
    for name, system in systems.items():
        cells = [cell(system, "slices" if slices else "languages", column) for column in columns]
        body.append([LABELS.get(name, name), cell(system, "average"), *cells])
    return ["nDCG@10", "average", *columns], body


def print_table(found: dict) -> None:
    """Prints both tables to the terminal, narrow enough for 80 columns: spreads stand in the file and with the averages."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for slices, title in ((False, "by language"), (True, "by query slice")):
        table = Table(title=f"{found['benchmark']}, {title}", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
        columns = list(next(iter(found["systems"].values()))["slices" if slices else "languages"])
        for index, column in enumerate(["nDCG@10", *([] if slices else ["average"]), *columns]):
            table.add_column(SHORT.get(column, column.replace("_", "\n")), justify="left" if index == 0 else "right", no_wrap=True)
        for name, system in found["systems"].items():
            values = system["slices" if slices else "languages"]
            averages = [] if slices else [cell(system, "average")]
            table.add_row(name, *averages, *(f"{values[column]:.1f}" for column in columns), style="bold" if name == "lira" else None)
        console.print(table)


def markdown(found: dict, slices: bool = False) -> str:
    """One of the tables in Markdown."""
    header, body = rows(found, slices)
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(f"**{c}**" if row[0] == LABELS["lira"] else c for c in row) + " |" for row in body])


def fill_between(text: str, name: str, content: str) -> str:
    """text with what stands between `<!-- NAME -->` and `<!-- /NAME -->` replaced."""
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    if start not in text or end not in text:
        raise ValueError(f"{name}: no place marked {start} ... {end} in the text")
    return text[: text.index(start) + len(start)] + "\n" + content + "\n" + text[text.index(end) :]


def plot(found: dict, path: Path) -> None:
    """Bars of the averages, and LiRA against the frozen concatenation and the best single path by language and slice."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    systems = found["systems"]
    figure, (left, middle, right) = pyplot.subplots(1, 3, figsize=(15, 4.8), width_ratios=(1.25, 1, 1.1), layout="constrained")
    names = list(systems)[::-1]
    spread = [systems[name].get("spread", {}).get("average", 0) for name in names]
    values = [systems[name]["average"] for name in names]
    bars = left.barh(
        [LABELS.get(name, name) for name in names], values, xerr=spread, color=["#1b6ca8" if name == "lira" else "#b9c4cc" for name in names]
    )
    left.bar_label(bars, fmt="%.1f", padding=4)
    left.set_xlim(0, 100)
    left.set_title("average over languages", loc="left")
    left.set_xlabel("nDCG@10")
    single = max(("multilingual_trained", "english_trained"), key=lambda name: systems.get(name, {}).get("average", 0))
    shown = [(single, "#8d99a6", "s"), ("concat", "#d08a2e", "D"), ("lira", "#1b6ca8", "o")]
    for axis, key, title in ((middle, "languages", "by language"), (right, "slices", "by query slice")):
        for name, colour, marker in shown:
            if name in systems:
                points = systems[name][key]
                axis.plot(list(points.values()), list(points), marker, color=colour, markersize=8, label=LABELS[name])
        axis.set_title(title, loc="left")
        axis.set_xlabel("nDCG@10")
        axis.grid(axis="x", color="#e3e7ea")
        axis.set_axisbelow(True)
        axis.margins(y=0.08)
    handles, labels = right.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower right", ncols=3, frameon=False)
    for axis in (left, middle, right):
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{found['benchmark']}; {len(found['seeds'])} seed{'s' if len(found['seeds']) != 1 else ''}", x=0.01, ha="left", fontsize=11)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def rate(found: dict) -> str:
    """A sentence from the results of benchmarks/mega.py."""
    return (
        f"{found['rows_per_second']:,.0f} rows a second per worker ({found['slowest_shard']:,.0f} to {found['fastest_shard']:,.0f} by shard, "
        f"{found['rows']:,} rows measured on {found['cores']} cores), memory {found['megabytes_first']:.0f} MB at first and "
        f"{found['megabytes_last']:.0f} MB at last ([plot](docs/results/mega.png))."
    )


def gain(found: dict) -> str:
    """A sentence from the results of benchmarks/features.py."""
    cases = found["epoch"]["cases"].items()
    ratios = "; ".join(
        f"{name}, {case['ratio']['median']:.0f} times ({case['ratio']['lowest']:.0f} to {case['ratio']['highest']:.0f})" for name, case in cases
    )
    return (
        f"An epoch of stage 2 from the cache is faster than the same from text: {ratios}. Where LiRA's own pass takes the time, no cache can do more."
    )


def over_seeds(values: list[float], digits: int = 1) -> str:
    """Mean ± sample standard deviation."""
    return f"{mean(values):.{digits}f}" + (f" ±{stdev(values):.{digits}f}" if len(values) > 1 else "")


def table(header: list[str], body: list[list[str]]) -> str:
    """A table in Markdown."""
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *body])


def queues(found: dict) -> str:
    """A table and a sentence from the results of benchmarks/queues.py."""
    columns = ["validation", "test", "long_tail", "unseen"]
    kinds = found["kinds"]["kinds"].items()
    body = [[kind, *(over_seeds([one[column] for one in runs]) for column in columns)] for kind, runs in kinds]
    cost, low, high = found["cost"], found["cost"]["added_percent_lowest"], found["cost"]["added_percent_highest"]
    small, large = cost["memory"]["1024"], cost["memory"]["16384"]
    return table(["queue, nDCG@10", *columns], body) + (
        f"\n\n{found['kinds']['queue_size']:,} entries, {found['kinds']['seeds']} seeds. A queue of {cost['entries']:,} embeddings of "
        f"{cost['dimensions']} numbers adds {cost['added_percent']:.0f} % ({low:.0f} to {high:.0f}) "
        f"to a step of {cost['queries']} queries and {cost['products']:,} products on cached features. A step with 1,024 queued features takes "
        f"{small['chunks of 256']:,.0f} MB, with 16,384 {large['chunks of 256']:,.0f} MB; embedded in one piece {large['one piece']:,.0f} MB."
    )


def readings(found: dict) -> str:
    """A table from the results of benchmarks/anchoring.py."""
    columns = {
        "chosen candidate's score": ("chosen_score", 2), "ε₁ p95": ("epsilon1_p95", 2), "effective rank": ("collapse_rank", 1),
        "own translation first, %": ("own_translation_first", 1), "then nDCG@10, test": ("test", 1), "unseen": ("unseen", 1),
    }  # fmt: skip
    body = [[arm, *(over_seeds([one[key] for one in runs], digits) for key, digits in columns.values())] for arm, runs in found["arms"].items()]
    return table(["stage 1", *columns], body)


def correlations(found: dict) -> str:
    """A table from the results of benchmarks/ranking.py."""
    body, systems = [], found["systems"]
    for name, system in systems.items():
        own = system["pearson"]["seeds"]
        above = []
        for other in ("mse of the cosine", "mse"):
            pairs = zip(own, systems[other]["pearson"]["seeds"], strict=False)
            above.append("" if name in (other, "concat") else ", ".join(f"{one - two:+.2f}" for one, two in pairs))
        body.append([LABELS.get(name, name), over_seeds(own, 2), over_seeds(system["spearman"]["seeds"], 2), *above])
    return table(["test", "Pearson", "Spearman", "Pearson above mse of the cosine, by seed", "above mse, by seed"], body)


def accuracies(found: dict) -> str:
    """A table and a sentence from the results of benchmarks/reasoning.py."""
    codes = list(next(iter(found["systems"].values()))["languages"])
    parts = {"kept": "candidate_gives_answer", "lost": "candidate_does_not"}
    body = []
    for name, system in found["systems"].items():
        cells = [over_seeds(system["seeds"]), *(f"{system[key]:.1f}" for key in parts.values())]
        body.append([f"`{name}`", *cells, *(f"{system['languages'][code]:.1f}" for code in codes)])
    above = "; ".join(
        f"above `{name}` by {one['average']:.1f} (95 % of paired bootstraps: {one['interval'][0]:.1f} to {one['interval'][1]:.1f})"
        for name, one in found["lira_above"].items()
    )
    return table(["accuracy, %", "average", *parts, *codes], body) + f"\n\n`lira` is {above}."


def first_accuracies(found: dict) -> str:
    """A sentence from what benchmarks/reasoning.py measured with an earlier language model."""

    def right(flags: dict[str, str]) -> float:
        every = "".join(flags.values())
        return 100 * every.count("1") / len(every)

    alone = {name: right(found["alone"][name]) for name in ("english_best", "perfect")}
    trained = {}
    for name, rates in found["runs"].items():
        best = max(rates, key=lambda rate: right(rates[rate]["0"]["validation"]))
        trained[name] = right(rates[best]["0"]["test"])
    return ", ".join(f"`{name}` {value:.1f}" for name, value in (alone | trained).items()) + "."


RENDERED = {  # place in the document: the file it is rendered from, and how
    "results": ("quickstart", markdown), "slices": ("quickstart", functools.partial(markdown, slices=True)), "mega": ("mega", rate),
    "features": ("features", gain), "queues": ("queues", queues), "anchoring": ("anchoring", readings), "ranking": ("ranking", correlations),
    "reasoning": ("reasoning", accuracies), "reasoning-first": ("reasoning_first", first_accuracies),
}  # fmt: skip


def render(document: Path, folder: Path) -> str:
    """The document with its results rendered from the files of `folder`."""
    text = document.read_text(encoding="utf-8")
    for place, (name, how) in RENDERED.items():
        text = fill_between(text, place, how(json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))))
    return text


if __name__ == "__main__":
    import sys

    readme, results_folder = map(Path, sys.argv[1:3])
    readme.write_text(render(readme, results_folder), encoding="utf-8")
