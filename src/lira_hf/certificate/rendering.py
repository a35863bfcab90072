"""A certificate as it is shown: rows for a card, a table on the terminal, a plot; all rendered from the figures."""

from __future__ import annotations

from pathlib import Path

COLUMNS = {
    "rows": ("rows",), "ε₁ p50": ("epsilon1", "p50"), "ε₁ p95": ("epsilon1", "p95"), "ε₁ max": ("epsilon1", "max"), "ε₂ mean": ("epsilon2", "mean"),
    "L": ("lipschitz", "at_q"), "‖z−z*‖ p95": ("deviation", "p95"), "bound p95": ("bound_blind", "p95"), "inside %": ("bound_blind", "coverage"),
    "bound / ‖z−z*‖": ("bound_blind", "looseness", "p50"), "vacuous %": ("bound_blind", "vacuous"),
}  # fmt: skip

LEGEND = (
    "ε₁ and ε₂: distance and divergence of a text and its chosen translation; L: how far the embedding moves for an edit; ‖z−z*‖: deviation "
    "from the perfect translation, really observed; bound: what limits it by ε₁ and ε₂ alone, `inside` the share of rows within it, `vacuous` "
    "the share where it is beyond the largest possible distance; order: Spearman's correlation of bound and deviation; stable, same: queries "
    "whose best products cannot change by the bound, and do not change, when the translation becomes perfect."
)


def cell(value: float | int, column: str) -> str:
    """Counts whole, percentages with one decimal, large numbers short."""
    if isinstance(value, int):
        return f"{value:,}"
    return f"{100 * value:.1f}" if "%" in column else f"{value:.2f}" if value < 1000 else f"{value:.1e}"


def card(certificate: dict) -> dict:
    """{"title", "header", "rows", "notes"}: a table of strings, a row for all, each language and each slice, and the lines below it."""
    columns = dict(COLUMNS)
    columns["order"] = ("signal",)
    for k in certificate["overall"]["stability"]:
        columns |= {f"top {k} stable %": ("stability", k, "empirical"), f"top {k} same %": ("stability", k, "unchanged")}
    groups = {"all": certificate["overall"]} | certificate["languages"] | certificate["slices"]
    rows = []
    for name, figures in groups.items():
        cells = [name]
        for column, path in columns.items():
            value = figures
            for key in path:
                value = value[key]
            cells.append(cell(value, column) if value is not None else "–")
        rows.append(cells)
    notes = [LEGEND, *certificate["verdicts"], *certificate["violations"]]
    return {
        "title": f"Certificate, {certificate['word']}: {certificate['data']}, {certificate['split']}",
        "header": ["", *columns],
        "rows": rows,
        "notes": notes,
    }


def print_certificate(certificate: dict) -> None:
    """The table in two halves, and the lines below it."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    shown, console = certificate["card"], Console()
    middle = shown["header"].index("inside %")
    console.print(shown["title"], highlight=False, soft_wrap=True, style="bold")
    for columns in (range(1, middle), range(middle, len(shown["header"]))):  # two tables of 80 columns
        table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
        for index in (0, *columns):
            table.add_column(shown["header"][index].replace(" ", "\n"), justify="right" if index else "left", no_wrap=True)
        for row in shown["rows"]:
            table.add_row(*(row[index] for index in (0, *columns)), style="bold" if row[0] == "all" else None)
        console.print(table)
    for line in shown["notes"]:
        console.print(line, highlight=False, soft_wrap=True)


def plot(certificate: dict, rows: dict[str, list[tuple[float, float]]], path: Path) -> None:
    """Left: epsilon1 by language and slice. Right: each row's deviation against its bound, with the diagonal; rows are (bound, observed) by
    language. Readable without colour: quantiles and languages differ by marker."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(13, 5.6), layout="constrained")
    groups = certificate["languages"] | certificate["slices"]
    names = [*groups][::-1]
    for quantile, marker, fill in (("p50", "o", "white"), ("p95", "s", "#8d99a6"), ("max", "^", "black")):
        left.plot([groups[name]["epsilon1"][quantile] for name in names], names, marker, color="black", markerfacecolor=fill, label=f"ε₁ {quantile}")
    left.plot([groups[name]["unrelated"]["p50"] for name in names], names, "|", color="black", markersize=14, label="unrelated rows, p50")
    left.set_title("ε₁: distance of a text to its chosen translation", loc="left")
    left.set_xlabel("Euclidean distance of normalised vectors, 0 to 2")
    left.set_xlim(left=0)
    left.axhline(len(certificate["slices"]) - 0.5, color="#8d99a6", linewidth=0.8)
    left.grid(axis="x", color="#e3e7ea")
    for (name, points), marker in zip(rows.items(), "osD^v<>PhX", strict=False):
        right.plot(
            *zip(*points, strict=True), marker, markersize=4, markerfacecolor="none", markeredgewidth=0.7, color="#333333", alpha=0.6, label=name
        )
    furthest = max(value for points in rows.values() for pair in points for value in pair) * 1.03
    right.plot([0, furthest], [0, furthest], color="black", linewidth=1.2, label="observed = bound")
    largest = 2 * 2**0.5
    if furthest > largest:
        right.axvline(largest, color="black", linestyle="--", linewidth=1, label="vacuous to the right")
    right.set(xlim=(0, furthest), ylim=(0, None), xlabel="bound of the row (blind)", ylabel="observed ‖z − z*‖")
    right.set_title(f"observed deviation against the {certificate['word']} bound", loc="left")
    for axis in (left, right):
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name("." + path.name)
    figure.savefig(part, dpi=120, format="png")
    part.replace(path)
    pyplot.close(figure)
