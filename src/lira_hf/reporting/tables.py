"""Tables of results, for the terminal and in Markdown."""

from __future__ import annotations

import re
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
    "onnx": "LiRA, ONNX",
    "onnx_int8": "LiRA, ONNX, 8 bits",
    "without_llm_critic": "without the LLM critic",
    "without_embedding_critic": "without the embedding critic",
    "without_translation": "without translation",
    "without_multilingual_encoder": "without the multilingual encoder",
    "without_queues": "without the queue",
    "without_stage1": "without stage 1",
    "without_contrast": "without the contrastive term",
}

METRICS = {"ndcg@10": "nDCG@10"}  # as a table calls them
SHORT = {"encoding": "encod\ning", "romanised": "roman\nised"}  # headers of narrow columns


def label(name: str) -> str:
    """What a table or drawing calls a system."""
    return LABELS.get(name, name.replace("_", " "))


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
        body.append([label(name), cell(system, "average"), *cells])
    return [METRICS.get(found["metric"], found["metric"]), "average", *columns], body


def print_table(found: dict) -> None:
    """Prints both tables to the terminal, narrow enough for 80 columns: spreads stand in the file and with the averages."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for slices, title in ((False, "by language"), (True, "by query slice")):
        table = Table(title=f"{found['benchmark']}, {title}", title_justify="left", box=SIMPLE_HEAD, padding=0, pad_edge=False)
        columns = list(next(iter(found["systems"].values()))["slices" if slices else "languages"])
        for index, column in enumerate([METRICS.get(found["metric"], found["metric"]), *([] if slices else ["average"]), *columns]):
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


def over_seeds(values: list[float], digits: int = 1) -> str:
    """Mean ± sample standard deviation."""
    return f"{mean(values):.{digits}f}" + (f" ±{stdev(values):.{digits}f}" if len(values) > 1 else "")


def table(header: list[str], body: list[list[str]]) -> str:
    """A table in Markdown."""
    return "\n".join("| " + " | ".join(text.replace("|", r"\|") for text in row) + " |" for row in [header, ["---"] * len(header), *body])


def plain(text: str) -> str:
    """A text from elsewhere as Markdown that shows it as it is."""
    return re.sub(r"([\\`*_<>\[\]])", r"\\\1", text)


def with_interval(one: dict, sign: bool = True) -> str:
    """A mean and its interval, with their signs where it is a difference."""
    low, high = one["interval"]
    return f"{one['mean']:+.1f} ({low:+.1f} to {high:+.1f})" if sign else f"{one['mean']:.1f} ({low:.1f} to {high:.1f})"


def kinds_of_query(differences: dict, other: str) -> str:
    """LiRA minus another system by kind of query, in words."""
    above = [kind for kind, one in differences.items() if one["interval"][0] > 0]
    below = [f"{kind} {with_interval(one)}" for kind, one in differences.items() if one["interval"][1] < 0]
    undecided = [kind for kind, one in differences.items() if one["interval"][0] <= 0 <= one["interval"][1]]
    parts = [f"above {other} on {', '.join(above)}"] if above else []
    parts += [f"not surely above or below on {', '.join(undecided)}"] if undecided else []
    parts += [f"**below on {', '.join(below)}**"] if below else []
    return f"LiRA is {'; '.join(parts)}."
