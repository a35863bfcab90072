"""Systems on LazRetrieval: embed a split's queries and products, search exactly, score by language and slice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import mean, stdev

import torch

from lira_hf.collation import RetrievalData
from lira_hf.evaluation.metrics import ndcg, top_k
from lira_hf.modeling import LiraForRetrieval

# Frozen systems are LiRA without its correction; what differs is which path and which candidate it reads.
FROZEN_SYSTEMS = {
    "multilingual_only": {"paths": "multilingual", "selection": "first"},
    "english_only": {"paths": "english", "selection": "first"},
    "english_best": {"paths": "english", "selection": "critic"},
    "concat": {"paths": "both", "selection": "critic"},
}
TRAINED_SYSTEMS = {
    "multilingual_trained": {"paths": "multilingual", "selection": "critic"},
    "english_trained": {"paths": "english", "selection": "critic"},
    "pooled_head": {"fusion": "pooled", "selection": "critic"},
    "lira": {},
}
SYSTEMS = (*FROZEN_SYSTEMS, *TRAINED_SYSTEMS)


@torch.no_grad()
def embed(model: LiraForRetrieval, encoder, rows: list, batch_size: int = 256) -> torch.Tensor:
    """Embeddings [N, d_out] of rows by an encoder (see lira_hf.collation), on the CPU."""
    was_training = model.training
    model.eval()
    parts = []
    for start in range(0, len(rows), batch_size):
        batch = {name: tensor.to(model.device) for name, tensor in encoder.batch(rows[start : start + batch_size]).items()}
        parts.append(model(**batch).embeddings.float().cpu())
    model.train(was_training)
    return torch.cat(parts)


def score(model: LiraForRetrieval, encoder, data: list[RetrievalData], k: int = 10) -> dict[str, dict[str, float]]:
    """nDCG@k in 0..100 by language and query id; each language is searched in its own products."""
    return {part.language: score_vectors(lambda rows: embed(model, encoder, rows), part, k) for part in data}


def score_vectors(vectors: Callable[[list], torch.Tensor], part: RetrievalData, k: int = 10) -> dict[str, float]:
    """nDCG@k in 0..100 by query id of what makes vectors [N, d] of rows."""
    ids = list(part.products)
    products = vectors([part.products[i].row for i in ids])
    queries = vectors([query.row for query in part.queries])
    ranked = top_k(queries @ products.T, ids, k)
    runs = {query.id: run for query, run in zip(part.queries, ranked, strict=True)}
    return ndcg({query.id: query.judged for query in part.queries}, runs, k)


def summary(found: dict[str, dict[str, float]], data: list[RetrievalData]) -> dict:
    """Scores of one run: {"languages": {code: mean over queries}, "average": mean over languages, "slices": {slice: mean over the
    languages that have it}, "language_slices": {code: {slice: mean}}}."""
    by_slice: dict[str, dict[str, float]] = {}
    for part in data:
        rows: dict[str, list[float]] = {}
        for query in part.queries:
            if query.id in found[part.language]:
                for name in query.slices:
                    rows.setdefault(name, []).append(found[part.language][query.id])
        by_slice[part.language] = {name: mean(values) for name, values in sorted(rows.items())}
    languages = {code: mean(values.values()) for code, values in found.items()}
    slices = {name: mean(s[name] for s in by_slice.values() if name in s) for name in sorted({n for s in by_slice.values() for n in s})}
    return {"languages": languages, "average": mean(languages.values()), "slices": slices, "language_slices": by_slice}


@dataclass
class Scoreboard:
    """Summaries of each system over seeds."""

    runs: dict[str, list[dict]] = field(default_factory=dict)

    def add(self, system: str, one: dict) -> None:
        self.runs.setdefault(system, []).append(one)

    def systems(self) -> dict[str, dict]:
        """The `systems` of results.json: means over seeds, 0..100, rounded to 4 decimals; with several seeds `spread` holds the sample
        standard deviations in the same shape and `seeds` each seed's average."""
        board = {}
        for system, runs in self.runs.items():
            board[system] = merged(runs, mean)
            if len(runs) > 1:
                board[system]["spread"] = merged(runs, stdev)
                board[system]["seeds"] = [round(run["average"], 4) for run in runs]
        return board


def merged(runs: list, reduce):
    """One nested dict whose leaves are reduce() of the runs' leaves."""
    if isinstance(runs[0], dict):
        return {key: merged([run[key] for run in runs], reduce) for key in runs[0]}
    return round(reduce(runs), 4)


def build_frozen(model: LiraForRetrieval, system: str) -> LiraForRetrieval:
    """The frozen system around the backbones of model, sharing them; its own part stays as initialised and has no effect."""
    return variant(model, {"correction_scale": 0.0, "fusion": "transformer", **FROZEN_SYSTEMS[system]})


def variant(model: LiraForRetrieval, fields: dict, seed: int = 0) -> LiraForRetrieval:
    """A new model with other configuration fields around the same backbones (shared, not copied); Arca is copied where it fits."""
    config = type(model.config).from_dict({**model.config.to_dict(), **fields})
    with torch.device("meta"):
        new = LiraForRetrieval(config)
    new.lira.multilingual, new.lira.english = model.lira.multilingual, model.lira.english
    torch.manual_seed(seed)
    for part in (new.lira.arca, new.lira.lasr):
        part.to_empty(device="cpu")
        part.apply(new._init_weights)
    new.lira.arca.load_state_dict(model.lira.arca.state_dict())
    return new.to(model.lira.lasr.path_weight.device).eval()
