"""The rows of a LazRetrieval folder, and the batches of the retrieval stage."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from datasets import Dataset

from lira_hf.modeling.processing_lira import Row


def id_number(identifier: str) -> int:
    """A product or family id as a non-negative 63-bit number, the same in every process."""
    return int.from_bytes(hashlib.blake2b(identifier.encode(), digest_size=8).digest(), "little") >> 1


def candidates(translations: list[dict]) -> tuple[list[str], list[tuple[float, float, float] | None]]:
    """Texts and score triples of a row's `translations`; None where the critic gave no score."""
    triples = [(t["semantic"], t["emotional"], t["pragmatic"]) for t in translations]
    return [t["text"] for t in translations], [None if None in triple else tuple(map(float, triple)) for triple in triples]


@dataclass
class Query:
    """A query with its judgements: product id -> grade 0..3. `draw` is the number of the epoch it is read in."""

    id: str
    row: Row
    slices: list[str]
    judged: dict[str, int]
    english: str
    draw: int = 0


@dataclass
class Product:
    """A product; title and text are read as one."""

    id: str
    family: str
    row: Row
    title: str
    english: str


@dataclass
class RetrievalData:
    """One language's rows and products of one split."""

    language: str
    queries: list[Query]
    products: dict[str, Product]

    def rows(self, references: bool = False) -> list[Row]:
        """Every row of it; with references, the perfect translations too."""
        items = [*self.queries, *self.products.values()]
        return [item.row for item in items] + [reference(item) for item in items if references]


def retrieval_data(rows: Dataset, corpus: Dataset, language: str) -> RetrievalData:
    """A language's split from its rows and its corpus."""
    return RetrievalData(language, [query_of(q, language) for q in rows], {p["_id"]: product_of(p, language) for p in corpus})


def query_of(q: dict, language: str) -> Query:
    texts, scores = candidates(q["translations"])
    judged = dict(zip(q["product_ids"], q["relevances"], strict=True))
    return Query(q["query_id"], Row(q["query"], texts, scores, language, "query"), q["slice"], judged, q["english"])


def product_of(p: dict, language: str) -> Product:
    texts, scores = candidates(p["translations"])
    row = Row(" ".join(part for part in (p["title"], p["text"]) if part), texts, scores, language, "document")
    return Product(p["_id"], p["family_id"], row, p["title"], p["english"])


def reference(item: Query | Product) -> Row:
    """The perfect translation on both paths (METHOD 2.5)."""
    return Row(item.english, [item.english], [None], item.row.language, item.row.prompt)


class RetrievalCollator:
    """Queries -> a batch of LiraForRetrieval: their inputs, the products drawn for them, grades and ids.

    Args:
        encoder: see the module. products: all products that judgements may name, by id.
        products_per_query: how many judged products are drawn for each query: one of the best grade, then at random from the relevant
            and the judged irrelevant ones in equal parts.
        references: whether to give perfect translations for the consistency term.
    The draw depends on the query and its epoch alone: a resumed run repeats it, and it is the same in whichever process the query is."""

    def __init__(self, encoder, products: Mapping[str, Product], products_per_query: int = 8, references: bool = True):
        if products_per_query < 2:
            raise ValueError(f"products_per_query: {products_per_query} is not allowed; at least 2 is")
        self.encoder, self.products, self.products_per_query, self.references = encoder, products, products_per_query, references

    def __call__(self, queries: list[Query]) -> dict:
        # Products may lie on the disk: each is read once.
        found = {product: self.products[product] for product in {p for query in queries for p in query.judged} if product in self.products}
        drawn = [p for query in queries for p in self._draw(query, found, random.Random(f"{query.id}/{query.draw}"))]
        drawn = list(dict.fromkeys(drawn))
        relevances = torch.tensor([[query.judged.get(product, -1) for product in drawn] for query in queries])  # [Q, C]
        judged = [list(query.judged) for query in queries]
        families = [sorted({found[product].family for product in ids if product in found}) for ids in judged]
        batch = dict(self.encoder.batch([query.row for query in queries]))
        batch |= {
            "products": dict(self.encoder.batch([found[product].row for product in drawn])),
            "relevances": relevances,
            "product_ids": torch.tensor([id_number(product) for product in drawn]),
            "family_ids": torch.tensor([id_number(found[product].family) for product in drawn]),
            "judged_product_ids": padded([[id_number(product) for product in ids] for ids in judged]),
            "judged_relevances": padded([list(query.judged.values()) for query in queries]),
            "judged_family_ids": padded([[id_number(family) for family in ids] for ids in families]),
        }
        if self.references:
            batch["references"] = dict(self.encoder.batch([reference(query) for query in queries]))
            batch["product_references"] = dict(self.encoder.batch([reference(found[product]) for product in drawn]))
        return batch

    def _draw(self, query: Query, known: Mapping[str, Product], rng: random.Random) -> list[str]:
        judged = sorted(product for product in query.judged if product in known)
        best = max((query.judged[product] for product in judged), default=0)
        first = [rng.choice([product for product in judged if query.judged[product] == best])] if judged else []
        relevant = [product for product in judged if query.judged[product] > 0 and product not in first]
        irrelevant = [product for product in judged if query.judged[product] == 0]
        left = self.products_per_query - len(first)
        take = max(left // 2, left - len(irrelevant))
        chosen = rng.sample(relevant, min(take, len(relevant)))
        return first + chosen + rng.sample(irrelevant, min(left - len(chosen), len(irrelevant)))


def padded(rows: list[list[int]]) -> torch.Tensor:
    """Rows of unequal length as one tensor, filled with -1."""
    width = max(1, max(map(len, rows)))
    return torch.tensor([row + [-1] * (width - len(row)) for row in rows])
