"""Ranking metrics: exact search, and nDCG as trec_eval computes it, ties included."""

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

    A query without a relevant judgement has no nDCG and is left out. Ranks are handed over as descending scores, so that
    trec_eval's own sort, in 32-bit, cannot change the order of close ones."""
    judgements = {query: {d: int(g) for d, g in grades.items()} for query, grades in judgements.items() if any(g > 0 for g in grades.values())}
    run = {query: {d: float(-rank) for rank, (d, _) in enumerate(runs.get(query, []))} for query in judgements}
    evaluator = pytrec_eval.RelevanceEvaluator(judgements, {f"ndcg_cut.{k}"})
    found = evaluator.evaluate({query: documents for query, documents in run.items() if documents})
    return {query: 100 * found.get(query, {}).get(f"ndcg_cut_{k}", 0.0) for query in judgements}
