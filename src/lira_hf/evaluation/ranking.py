"""How well predicted scores of pairs go with the gold ones: Pearson's and Spearman's correlation, by language."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from statistics import mean

import torch
from scipy.stats import ConstantInputWarning, pearsonr, spearmanr

from lira_hf.collation import Pair, PairData, RankingCollator
from lira_hf.modeling import LiraForSequenceClassification

METRICS = {"pearson": pearsonr, "spearman": spearmanr}


def correlations(predictions: Sequence[float], gold: Sequence[float]) -> dict[str, float]:
    """Both correlations, -100 to 100, of two lists of at least two numbers; 0 where either is constant: it orders nothing."""
    if len(predictions) != len(gold) or len(gold) < 2:
        raise ValueError(f"predictions: {len(predictions)} for {len(gold)} gold scores; as many, and two at least, are needed")
    constant = len(set(predictions)) == 1 or len(set(gold)) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConstantInputWarning)
        return {name: 0.0 if constant else 100 * float(metric(predictions, gold).statistic) for name, metric in METRICS.items()}


@torch.no_grad()
def predictions(model: LiraForSequenceClassification, encoder, pairs: list[Pair], batch_size: int = 256) -> list[float]:
    """The model's scores of pairs, on the scale of the labels."""
    was_training, device, collate = model.training, model.lira.lasr.path_weight.device, RankingCollator(encoder)
    model.eval()
    found = []
    for start in range(0, len(pairs), batch_size):
        batch = {name: tensor.to(device) for name, tensor in collate(pairs[start : start + batch_size]).items() if name != "labels"}
        found += model(**batch).logits[:, 0].float().tolist()
    model.train(was_training)
    return found


def score(model: LiraForSequenceClassification, encoder, data: list[PairData]) -> dict[str, dict[str, float]]:
    """Both correlations by language."""
    return {part.language: correlations(predictions(model, encoder, part.pairs), [pair.score for pair in part.pairs]) for part in data}


def summary(found: dict[str, dict[str, float]]) -> dict[str, dict]:
    """{metric: {"languages": {code: value}, "average": mean over languages}}."""
    tables = {name: {code: values[name] for code, values in found.items()} for name in METRICS}
    return {name: {"languages": table, "average": mean(table.values())} for name, table in tables.items()}
