"""Grades 0 to 3 of judgements.

Labels: E/Exact 3, S/Substitute and Partial 2, C/Complement 1, I/Irrelevant 0, whole numbers 0 to 3 as they are. A column of means
(2.33) is refused as a whole: only the shop knows where its scale starts. The caller may map any other label.

Clicks, where no grade is given; the counts of one query and product are summed:
- the signal is clicks / impressions, smoothed by `PRIOR` impressions at the rate of the whole file, or log(1 + clicks) without impressions;
- a signal of at least 2/3 of the query's best is 3, of at least 1/3 is 2, any other above no click is 1; shown and never clicked is 0;
- purchases beat clicks: a product bought for the query is 3, and beside one that was bought, a product only clicked is 2 at most.
Without clicks, purchases take their place.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import pandas as pd

from lira_hf.catalogue.imports.report import Report

GRADES = {"exact": 3, "e": 3, "substitute": 2, "s": 2, "partial": 2, "complement": 1, "c": 1, "irrelevant": 0, "i": 0}
GRADES |= {str(grade): grade for grade in range(4)}
PRIOR = 10  # impressions: so much must a click-through rate be based on to count more than the rate of the file


def known_labels(own: Mapping[str, int] | None) -> dict[str, int]:
    """Label, as `_label` spells it, to its grade: `GRADES`, and those of the caller."""
    for label, grade in (own or {}).items():
        if isinstance(grade, bool) or grade not in range(4):
            raise ValueError(f"grades: {label!r} cannot be {grade!r}; a grade is 0, 1, 2 or 3")
    return GRADES | {_label(str(label)): int(grade) for label, grade in (own or {}).items()}


def _label(text: str) -> str:
    """One spelling for "Exact" and "exact", and for "2" and "2.0"."""
    try:
        return f"{float(text):g}"
    except ValueError:
        return text.strip().casefold()


def graded(judged: pd.DataFrame, labels: Mapping[str, int], report: Report) -> pd.DataFrame:
    """Columns query, product, score: one row for each pair. Raises ValueError for means."""
    if "grade" not in judged:
        return _clicked(judged, report)[["query", "product", "score"]]
    scores = {}
    for text in judged["grade"].unique():
        scores[text] = labels.get(_label(text), -1)
        if scores[text] < 0 and re.fullmatch(r"-?\d+\.\d+", _label(text)):
            raise ValueError(f"grade: {text!r} is no grade but a mean; give whole grades, 0 for irrelevant to 3 for exact, or map each: {text}=2")
    judged = judged.assign(score=judged["grade"].map(scores).astype("int64"))
    judged = report.without("judgements", judged, judged["score"] < 0, "unknown grade")
    different = judged.groupby(["query", "product"], sort=False)["score"].transform("nunique") > 1
    judged = report.without("judgements", judged, different, "graded twice, differently (none is kept)")
    judged = report.without("judgements", judged, judged.duplicated(["query", "product"]), "graded twice (the first is kept)")
    report.notes.append("grades: as given" + (", so clicks and purchases were not read" if {"clicks", "purchases"} & set(judged) else ""))
    return judged[["query", "product", "score"]]


def _clicked(judged: pd.DataFrame, report: Report) -> pd.DataFrame:
    """The same from counts."""
    kinds = [kind for kind in ("clicks", "impressions", "purchases") if kind in judged]
    for kind in kinds:
        counts = pd.to_numeric(judged[kind], errors="coerce")
        judged = report.without("judgements", judged, ~(counts >= 0) | (counts % 1 != 0), f"{kind} is no count")  # not a number is neither
    judged = judged.astype(dict.fromkeys(kinds, "float64"))
    signal = "clicks" if "clicks" in kinds else "purchases"
    if "impressions" in kinds:
        judged = report.without("judgements", judged, judged["impressions"] == 0, "never shown")
        judged = report.without("judgements", judged, judged[signal] > judged["impressions"], f"more {signal} than impressions")
    groups = judged.assign(row=judged.index).groupby(["query", "product"], sort=False, as_index=False)
    pairs = groups.agg({**dict.fromkeys(kinds, "sum"), "row": "first"}).set_index("row")
    strength = pairs[signal].map(math.log1p)
    if "impressions" in kinds:
        rate = pairs[signal].sum() / max(1, pairs["impressions"].sum())
        strength = (pairs[signal] + PRIOR * rate) / (pairs["impressions"] + PRIOR)
    met = pairs[signal] > 0
    strength = strength.where(met, 0.0)
    share = strength / strength.groupby(pairs["query"]).transform("max").clip(lower=1e-12)
    score = (1 + (share >= 1 / 3).astype("int64") + (share >= 2 / 3)).where(met, 0)
    if signal == "clicks" and "purchases" in kinds:
        bought = pairs["purchases"] > 0
        score = score.where(~bought.groupby(pairs["query"]).transform("any"), score.clip(upper=2)).where(~bought, 3)
    report.notes.append(f"grades: from {', '.join(kinds)}")
    return pairs.assign(score=score)
