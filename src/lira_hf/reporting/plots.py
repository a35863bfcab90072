"""Plots of results."""

from __future__ import annotations

import contextlib
import io
import itertools
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

from lira_hf.reporting.tables import LABELS


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


# ---- drawings of the report: narrow, so that they can be read on a phone, and told apart without colour ------------------------

STYLES = ((("-", "o"), "#000000"), (("--", "s"), "#5a5a5a"), ((":", "D"), "#1b6ca8"), (("-.", "^"), "#8d5a00"), ((" ", "x"), "#777777"))
Point = tuple[float, float, float | None, float | None]  # x, mean, and the ends of its interval where it has one


@contextlib.contextmanager
def drawing(name: str, height: float, panels: int = 1) -> Iterator[tuple[list, list[str]]]:
    """Axes one below another, and a list that holds the SVG afterwards. Text stays text; nothing depends on when or where it is drawn."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    looks = {
        "font.size": 11,
        "axes.titlesize": 11,
        "axes.titleweight": "bold",
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "font.family": "sans-serif",
    }
    with matplotlib.rc_context(looks):
        figure, axes = pyplot.subplots(panels, 1, figsize=(5.2, height), layout="constrained", squeeze=False)
        drawn: list[str] = []
        try:
            yield list(axes[:, 0]), drawn
            for axis in axes[:, 0]:
                axis.spines[["top", "right"]].set_visible(False)
                axis.set_axisbelow(True)
            content = io.StringIO()
            figure.savefig(content, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
        finally:
            pyplot.close(figure)
    svg = content.getvalue()
    # Drawings share a page: what one calls `axes_1` must not be another's.
    drawn.append(re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{name}-", svg[svg.index("<svg") :]).strip())


def bars(name: str, xlabel: str, values: dict[str, Point | tuple], marked: str | None = None) -> str:
    """SVG of a bar for each label: (mean, low, high); low and high None where there is no interval. The marked one is dark."""
    with drawing(name, 1.1 + 0.42 * len(values)) as ((axis,), drawn):
        labels = [*values][::-1]
        for place, label in enumerate(labels):
            value, low, high = values[label]
            error = None if low is None else [[value - low], [high - value]]
            dark = label == marked
            axis.barh(
                place,
                value,
                xerr=error,
                capsize=3,
                color="#444444" if dark else "#ffffff",
                edgecolor="#000000",
                hatch="" if dark else "///",
                ecolor="#000000",
            )
        axis.set_yticks(range(len(labels)), [textwrap.fill(label, 24) for label in labels])
        axis.axvline(0, color="#000000", linewidth=0.8)
        axis.set_xlabel(xlabel)
        axis.grid(axis="x", color="#dddddd")
    return drawn[0]


def curves(name: str, xlabel: str, ylabel: str, lines: dict[str, list[Point]], logarithmic: bool = False) -> str:
    """SVG of a line for each label, with intervals where points have them."""
    with drawing(name, 3.6 + 0.22 * len(lines)) as ((axis,), drawn):
        for (label, points), ((dash, marker), colour) in zip(lines.items(), itertools.cycle(STYLES), strict=False):
            xs, means = [point[0] for point in points], [point[1] for point in points]
            axis.plot(xs, means, linestyle=dash, marker=marker, markersize=6, color=colour, label=label)
            for x, _, low, high in points:
                if low is not None:
                    axis.plot([x, x], [low, high], color=colour, linewidth=1)
        if logarithmic:
            ticks = sorted({point[0] for points in lines.values() for point in points})
            axis.set_xscale("log")
            axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axis.minorticks_off()
        axis.set(xlabel=xlabel, ylabel=ylabel)
        axis.grid(color="#dddddd")
        axis.legend(loc="upper left", bbox_to_anchor=(0, -0.2), frameon=False)
    return drawn[0]


def dots(name: str, xlabel: str, rows: dict[str, dict[str, float]]) -> str:
    """SVG of a line for each place with a marker for each label; rows: label → place → value."""
    places = list(dict.fromkeys(place for values in rows.values() for place in values))[::-1]
    with drawing(name, 1.2 + 0.32 * len(places) + 0.22 * len(rows)) as ((axis,), drawn):
        for (label, values), ((_, marker), colour) in zip(rows.items(), STYLES, strict=False):
            hollow = marker in "sD"
            axis.plot(
                [values.get(place) for place in places], range(len(places)), marker, markersize=8, color=colour, label=label,
                markerfacecolor="white" if hollow else colour,
            )  # fmt: skip
        axis.set_yticks(range(len(places)), places)
        axis.set_xlabel(xlabel)
        axis.grid(color="#dddddd")
        axis.legend(loc="upper left", bbox_to_anchor=(0, -0.16 - 0.8 / len(places)), frameon=False)
        axis.margins(y=0.08)
    return drawn[0]


def histories(name: str, titles: dict[str, dict[str, list[tuple[float, float]]]]) -> str:
    """SVG of a panel for each title with a line for each label: (step, value)."""
    with drawing(name, 1.9 * len(titles) + 0.5, len(titles)) as (axes, drawn):
        for axis, (title, lines) in zip(axes, titles.items(), strict=True):
            for (label, points), ((dash, marker), colour) in zip(lines.items(), itertools.cycle(STYLES), strict=False):
                axis.plot(*zip(*points, strict=True), linestyle=dash, marker=marker, markersize=4, color=colour, label=label)
            axis.set_title(title, loc="left")
            axis.grid(color="#dddddd")
        axes[-1].set_xlabel("step")
        if len(next(iter(titles.values()))) > 1:
            axes[0].legend(frameon=False, fontsize=9)
    return drawn[0]
