"""Ranking metrics: exact search, and nDCG, recall and reciprocal rank as trec_eval computes them, ties included."""

from __future__ import annotations

import numpy as np
import pytrec_eval
import torch


def top_k(scores: torch.Tensor, ids: list[str], k: int) -> list[list[tuple[str, float]]]:
    """The k best of each row of scores [Q, C], best first; equal scores by descending id, as trec_eval breaks ties."""
    scores = scores.float().numpy()
    by_id = np.argsort(np.array(ids))[::-1]  # descending ids first; a stable sort by score then keeps that order among equals
    ranked = []
    for row in scores:
        order = by_id[np.argsort(-row[by_id], kind="stable")][:k]
        ranked.append([(ids[i], float(row[i])) for i in order])
    return ranked


def ndcg(judgements: dict[str, dict[str, int]], runs: dict[str, list[tuple[str, float]]], k: int = 10) -> dict[str, float]:
    """nDCG@k in 0..100 per query id: linear gains, log2 discount, the ideal over all of the query's judgements (trec_eval).

    A query without a relevant judgement has no nDCG and is left out."""
    return _trec(judgements, runs, "ndcg_cut", k)


def recall(judgements: dict[str, dict[str, int]], runs: dict[str, list[tuple[str, float]]], k: int = 10) -> dict[str, float]:
    """Share of a query's relevant documents among its first k, 0..100 per query id; otherwise as ndcg."""
    return _trec(judgements, runs, "recall", k)


def mrr(judgements: dict[str, dict[str, int]], runs: dict[str, list[tuple[str, float]]], k: int = 10) -> dict[str, float]:
    """100 / rank of the first relevant document among the first k, 0 where there is none, per query id; otherwise as ndcg."""
    return _trec(judgements, {query: run[:k] for query, run in runs.items()}, "recip_rank", None)  # trec_eval's own does not cut


def _trec(judgements: dict[str, dict[str, int]], runs: dict[str, list[tuple[str, float]]], measure: str, k: int | None) -> dict[str, float]:
    """A measure of trec_eval in 0..100. Ranks are handed over as descending scores, so that its own sort, in 32-bit, cannot change the order of
    close ones."""
    judgements = {query: {d: int(g) for d, g in grades.items()} for query, grades in judgements.items() if any(g > 0 for g in grades.values())}
    run = {query: {d: float(-rank) for rank, (d, _) in enumerate(runs.get(query, []))} for query in judgements}
    evaluator = pytrec_eval.RelevanceEvaluator(judgements, {measure if k is None else f"{measure}.{k}"})
    found = evaluator.evaluate({query: documents for query, documents in run.items() if documents})
    return {query: 100 * found.get(query, {}).get(measure if k is None else f"{measure}_{k}", 0.0) for query in judgements}
