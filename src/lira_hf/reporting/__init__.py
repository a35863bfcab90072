"""Tables, plots, cards: rendered from results and never typed."""

from lira_hf.reporting.card import model_card
from lira_hf.reporting.plots import plot
from lira_hf.reporting.readme import RENDERED, fill_between, render
from lira_hf.reporting.results import keep, results, unlist, weights_of, write_json
from lira_hf.reporting.tables import LABELS, cell, markdown, over_seeds, print_table, rows, table

__all__ = [
    "LABELS", "RENDERED", "cell", "fill_between", "keep", "markdown", "model_card", "over_seeds", "plot", "print_table", "render", "results", "rows",
    "table", "unlist", "weights_of", "write_json",
]  # fmt: skip
