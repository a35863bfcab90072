"""Pairs of texts with a gold score, and the batches of the ranking stage."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from datasets import Dataset

from lira_hf.collation.retrieval import candidates
from lira_hf.modeling.processing_lira import Row, paired


@dataclass
class Pair:
    """Two texts and how alike they are, on whatever scale the data set has."""

    id: str
    first: Row
    second: Row
    score: float


@dataclass
class PairData:
    """One language's pairs of one split."""

    language: str
    pairs: list[Pair]

    def rows(self, references: bool = False) -> list[Row]:
        """Every row of it; the stage has no consistency term, and so no references."""
        return [row for pair in self.pairs for row in (pair.first, pair.second)]


def pair_data(rows: Dataset, language: str) -> PairData:
    """A language's split from its rows."""
    pairs = []
    for row in rows:
        sides = [Row(row[f"query{side}"], *candidates(row[f"translations{side}"]), language, "query") for side in ("", "_pair")]
        pairs.append(Pair(row["pair_id"], *sides, row["score"]))
    return PairData(language, pairs)


class RankingCollator:
    """Pairs -> a batch of LiraForSequenceClassification, of ids or of cached features, by the encoder (see lira_hf.collation)."""

    def __init__(self, encoder):
        self.encoder = encoder

    def __call__(self, pairs: list[Pair]) -> dict[str, torch.Tensor]:
        first, second = self.encoder.batch([pair.first for pair in pairs]), self.encoder.batch([pair.second for pair in pairs])
        return {**first, **paired(second), "labels": torch.tensor([pair.score for pair in pairs])}
