"""What the commands say at the end: counts, tokens and their price, failures, what survived, how far critics agree with themselves."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from tqdm import tqdm

from lira_hf.translation.records import Marks
from lira_hf.translation.store import SCORES, TRANSLATIONS, Record, Store
from lira_hf.translation.survival import Survival

AXES = Marks._fields

Price = tuple[float, float]  # of a million tokens read, and of a million written


def render_summary(summary: dict[str, Any]) -> list[str]:
    """The lines of a summary for people."""
    lines = [", ".join(f"{count:,} {name}" for name, count in summary.items() if isinstance(count, int))]
    everyone = {**summary.get("sources", {}), **summary.get("judges", {})}
    for name, of in everyone.items():
        parts = [f"{of[kind]:,} {kind}" for kind in ("candidates", "scored", "unscored") if kind in of]
        parts.append(
            f"{of['prompt_tokens']:,} tokens read and {of['completion_tokens']:,} written" + (f" for {of['price']:.2f}" if "price" in of else "")
        )
        parts += [f"failed: {count:,} {kind}" for kind, count in of["failures"].items()]
        for kind in ("brands", "numbers"):
            if of.get(kind, {}).get("in_source"):
                parts.append(f"{100 * of[kind]['survived'] / of[kind]['in_source']:.1f} % of {of[kind]['in_source']:,} {kind} survived")
        if of.get("agreement"):
            equal = ", ".join(f"{100 * of['agreement']['equal'][axis]:.0f} % {axis}" for axis in AXES)
            parts.append(f"equal marks over {of['agreement']['pairs']:,} pairs of rounds: {equal}")
        lines.append(f"{name}: {'; '.join(parts)}")
    return lines + (["what failed is asked again with --retry-failed"] if any(of["failures"] for of in everyone.values()) else [])


def translation_summary(store: Store, survival: Survival, name: str, price: Price | None, progress: bool) -> dict[str, Any]:
    """Of every source in the store: candidates, tokens, failures by kind, and what survived; the price of the source `name`."""
    sources: dict[str, dict[str, Any]] = {}
    for record in _walk(store, TRANSLATIONS, progress):
        of = sources.setdefault(record["source"], {**_nothing(), "candidates": 0, "brands": Counter(), "numbers": Counter()})
        _add(of, record)
        of["candidates"] += len(record["candidates"])
        for kind, counted in survival.count(record["text"], record["candidates"]).items():
            of[kind].update(in_source=counted[0], survived=counted[1])
    return {"sources": {source: _priced(of, price if source == name else None) for source, of in sorted(sources.items())}}


def score_summary(store: Store, name: str, price: Price | None, progress: bool) -> dict[str, Any]:
    """Of every judge in the store: scored and unscored candidates, tokens, failures by kind, mean marks, and agreement over rounds."""
    from lira_hf.translation.critic import agreement

    judges: dict[str, dict[str, Any]] = {}
    looks: dict[str, list[list[Marks]]] = defaultdict(list)  # of candidates that were scored more than once
    same = lambda record: (record["judge"], record["key"], record["candidate"])  # noqa: E731
    for (judge, _, _), records in itertools.groupby(_walk(store, SCORES, progress), same):
        of = judges.setdefault(judge, {**_nothing(), "scored": 0, "unscored": 0, "sums": Counter()})
        marks = []
        for record in records:
            _add(of, record)
            if record["semantic"] is not None:
                marks.append(Marks(*(record[axis] for axis in AXES)))
                of["sums"].update(marks[-1]._asdict())
            of["scored" if record["semantic"] is not None else "unscored"] += 1
        if len(marks) > 1:
            looks[judge].append(marks)
    for judge, of in judges.items():
        sums = of.pop("sums")
        of["mean"] = {axis: round(sums[axis] / of["scored"], 3) for axis in AXES} if of["scored"] else None
        if looks[judge]:
            of["agreement"] = asdict(agreement(looks[judge]))
    return {"judges": {judge: _priced(of, price if judge == name else None) for judge, of in sorted(judges.items())}}


def _walk(store: Store, kind: str, progress: bool) -> Iterator[Record]:
    with tqdm(unit=" records", desc="summary", disable=not progress) as bar:
        for language in store.languages():
            for record in store.view(kind, language):
                yield record
                bar.update()


def _nothing() -> dict[str, Any]:
    return {"prompt_tokens": 0, "completion_tokens": 0, "failures": Counter()}


def _add(of: dict[str, Any], record: Record) -> None:
    of["prompt_tokens"] += record["prompt_tokens"]
    of["completion_tokens"] += record["completion_tokens"]
    if record["failure"]:
        of["failures"][record["failure"]] += 1


def _priced(of: dict[str, Any], price: Price | None) -> dict[str, Any]:
    if price is None:
        return of
    return {**of, "price": round((of["prompt_tokens"] * price[0] + of["completion_tokens"] * price[1]) / 1e6, 6)}
