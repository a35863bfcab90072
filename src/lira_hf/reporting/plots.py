"""Plots of results."""

from __future__ import annotations

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
