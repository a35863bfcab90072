"""Translation noise: the same rows with the candidates of translators that err, made by the catalogue's own code, their scores included."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from lira_hf.catalogue.candidates import TRANSLATORS, Candidate, Desk
from lira_hf.catalogue.rows import SIZES, Part, corpus_columns, market, query_columns
from lira_hf.collation import RetrievalData
from lira_hf.evaluation.metrics import ndcg, top_k
from lira_hf.evaluation.retrieval import embed
from lira_hf.modeling import LiraForRetrieval
from lira_hf.modeling.processing_lira import Row

MIXED = "mixed"  # a kind of its own for each row, at random
CLEAN = "clean"


def desk_of(errors: Mapping[str, float]) -> Desk:
    """The usual translators and critic, but every translator has these probabilities of its errors."""
    return Desk(translators=tuple(replace(translator, **errors) for translator in TRANSLATORS))


def corrupted(data: RetrievalData, folder: str | Path, split: str, errors: Mapping[str, float]) -> RetrievalData:
    """A language's split with the candidates that other translators make of the same texts, and what the critic says of those.

    Raises ValueError where the folder was not built by this code, which alone knows what a text was made from."""
    record = Path(folder) / "build.json"
    built = json.loads(record.read_text()) if record.exists() else {}
    if built.get("size") not in SIZES:
        raise ValueError(f"data: {str(folder)!r} was not made by `lira-hf data build`, and only its rows can be translated anew with known errors")
    part = Part(data.language, split, SIZES[built["size"]], built["seed"], desk_of(errors))
    queries = query_columns(part, 0, part.extent.queries)
    products = corpus_columns(part, 0, len(market(part).products))
    texts = [" ".join(filter(None, pair)) for pair in zip(products["title"], products["text"], strict=True)]
    if list(queries["query"]) != [query.row.text for query in data.queries] or texts != [product.row.text for product in data.products.values()]:
        raise ValueError(f"data: {str(folder)!r} was built by other code or words than these; build it anew")
    return RetrievalData(
        data.language,
        [replace(query, row=_translated(query.row, made)) for query, made in zip(data.queries, queries["translations"], strict=True)],
        {
            name: replace(product, row=_translated(product.row, made))
            for (name, product), made in zip(data.products.items(), products["translations"], strict=True)
        },
    )


def _translated(row: Row, candidates: list[Candidate]) -> Row:
    scores = [tuple(map(float, (each.semantic, each.emotional, each.pragmatic))) for each in candidates]
    return replace(row, translations=[each.text for each in candidates], scores=scores)


def affected(count: int, percent: float, name: str) -> list[int]:
    """Places of round(percent of count) rows, in the order of a shuffle that goes by name: fewer are a part of more."""
    order = list(range(count))
    random.Random(name).shuffle(order)
    return order[: round(count * percent / 100)]


@dataclass(frozen=True)
class Embedded:
    """A system's embeddings of a language's queries [Q, D] and products [C, D], as they are and by kind of corruption."""

    data: RetrievalData
    queries: dict[str, torch.Tensor]
    products: dict[str, torch.Tensor]

    def scores(self, kind: str, percent: float, seed: int) -> dict[str, float]:
        """nDCG@10 by query id with that share of the queries and that of the products corrupted; the rows go by seed, kind and language.

        A row's embedding depends on its own texts alone, so what was embedded once serves every share."""
        sides = [self._mixed(getattr(self, side), kind, percent, f"{seed}/{kind}/{self.data.language}/{side}") for side in ("queries", "products")]
        ids = list(self.data.products)
        ranked = top_k(sides[0] @ sides[1].T, ids, 10)
        runs = {query.id: run for query, run in zip(self.data.queries, ranked, strict=True)}
        return ndcg({query.id: query.judged for query in self.data.queries}, runs)

    def _mixed(self, embeddings: dict[str, torch.Tensor], kind: str, percent: float, name: str) -> torch.Tensor:
        found, kinds = embeddings[CLEAN].clone(), [each for each in embeddings if each != CLEAN]
        rng = random.Random(f"{name}/kinds")
        drawn = [rng.choice(kinds) if kind == MIXED else kind for _ in range(len(found))]  # not by the share: a row keeps its kind
        for place in affected(len(found), percent, name):
            found[place] = embeddings[drawn[place]][place]
        return found


def embed_all(model: LiraForRetrieval, encoder: Any, versions: Mapping[str, list[RetrievalData]]) -> list[Embedded]:
    """Each language's queries and products as versions have them: CLEAN, and the kinds of corruption."""
    found = []
    for each in zip(*versions.values(), strict=True):
        by_kind = dict(zip(versions, each, strict=True))
        queries = {kind: embed(model, encoder, [query.row for query in part.queries]) for kind, part in by_kind.items()}
        products = {kind: embed(model, encoder, [product.row for product in part.products.values()]) for kind, part in by_kind.items()}
        found.append(Embedded(by_kind[CLEAN], queries, products))
    return found
