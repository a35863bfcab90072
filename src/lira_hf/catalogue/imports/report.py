"""What an import wrote, what it refused and why."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

LISTED, SHOWN = 1000, 3  # refused rows of one reason in refused.jsonl, and in import.json and on the screen


@dataclass
class Report:
    """What an import wrote and what it refused. str() of it is for the screen.

    `counts`: split → what → how many. `refused`: kind ("products", "queries", "judgements") → reason → {"count", "examples"}.
    `notes`: the columns and rules that were used, one sentence each. `listed`: the first refused rows of each reason.
    """

    output: Path
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    refused: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    listed: list[dict[str, Any]] = field(default_factory=list, repr=False)

    def refuse(self, kind: str, reason: str, rows: Iterable[Mapping[str, Any]], count: int = 1) -> None:
        """Counts `count` refused rows, and lists the first of them, which are in `rows`."""
        found = self.refused.setdefault(kind, {}).setdefault(reason, {"count": 0, "examples": []})
        for row, _ in zip(rows, range(LISTED - found["count"]), strict=False):
            cells = {name: value[:100] if isinstance(value, str) else value for name, value in row.items()}
            self.listed.append({"kind": kind, "reason": reason, **cells})
            found["examples"] += [cells] if len(found["examples"]) < SHOWN else []
        found["count"] += count

    def without(self, kind: str, frame: pd.DataFrame, bad: pd.Series, reason: str) -> pd.DataFrame:
        """`frame` without its `bad` rows, which are refused."""
        head = frame[bad].head(LISTED)
        if not head.empty:
            cells = zip(head.index.tolist(), head.to_dict("records"), strict=True)
            self.refuse(kind, reason, ({"row": row, **values} for row, values in cells), int(bad.sum()))
        return frame[~bad]

    def __str__(self) -> str:
        lines = [f"imported {self.output}"]
        for split, counted in self.counts.items():
            lines.append(f"  {split}: {counted['queries']:,} queries, {counted['products']:,} products, {counted['judgements']:,} judgements")
        lines += [f"  {note}" for note in self.notes]
        for kind, reasons in self.refused.items():
            for reason, found in reasons.items():
                lines.append(f"  refused {kind}: {found['count']:,} × {reason}")
                lines += [f"    {json.dumps(example, ensure_ascii=False)}" for example in found["examples"]]
        return "\n".join(lines)
