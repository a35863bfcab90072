"""Which split a query and a product belong to.

Queries: the given splits, if any, and what they lack is cut from train; else by a hash of the query without case, marks and spaces,
so that one query, however typed, is in one split, also when the files grow.

Products: every family (own id, where none is given) is in one split: the first of test, validation, train that has a query to which it
is relevant; else the first that judges it at all. Judgements that cross are dropped, so test keeps every relevant product and train pays;
the report says how many it lost. Where train would lose most of its own, the import stops: then queries ask for the same few products, and
`share_products` leaves a product in the corpus of every split that judges it, as the public sets do. Unjudged families are spread by
hash (`SPREAD`), as distractors. A split without queries is not written.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_left
from collections.abc import Mapping
from itertools import accumulate

import pandas as pd

from lira_hf.catalogue.imports.report import Report
from lira_hf.catalogue.letters import drop_marks
from lira_hf.catalogue.splits import SPLITS, digest

GIVEN = {"train": "train training", "validation": "validation valid val dev", "test": "test"}  # the names of given splits
FIRST = dict(enumerate(("test", "validation", "train")))  # who gets a query or a family that several splits claim
RANK = {split: rank for rank, split in FIRST.items()}
MOST = 0.7  # of train's judgements above 0: an import that would lose more is of no use
SPREAD = {"train": 0.5, "validation": 0.1, "test": 0.4}  # of the unjudged families: validation is read often, so its corpus is small


def spelling(query: str) -> str:
    """`query` without compatibility forms, case, marks and spaces: what is the same here is one query."""
    return "".join(drop_marks(unicodedata.normalize("NFKC", query).casefold()).split()) or query


def split_queries(asked: pd.DataFrame, shares: Mapping[str, float], seed: int, report: Report) -> pd.DataFrame:
    """`asked` with the column split. `shares` of validation and test are for splits that are not given."""
    key = asked["text"].map(spelling)
    place = key.map(lambda text: _place(seed, text)).astype("float64")
    by_hash = pd.Series("train", index=asked.index, dtype=object)
    by_hash = by_hash.mask(place < shares["test"] + shares["validation"], "validation").mask(place < shares["test"], "test")
    if "split" not in asked:
        report.notes.append(f"splits: by hash, {shares['validation']:g} of the queries for validation and {shares['test']:g} for test")
        return asked.assign(split=by_hash)
    given = asked["split"].str.casefold().map({name: split for split, names in GIVEN.items() for name in names.split()})
    asked = report.without("queries", asked, given.isna(), "unknown split")
    given = given[asked.index]
    missing = [split for split in ("validation", "test") if split not in set(given)]
    report.notes.append("splits: as given" + (f"; {' and '.join(missing)} cut from train by hash" if missing else ""))
    cut = given.mask((given == "train") & by_hash[asked.index].isin(missing), by_hash)
    final = cut.map(RANK).groupby(key).transform("min").map(FIRST)
    if moved := int((final != cut).sum()):
        report.notes.append(f"splits: {moved:,} queries that read like one of another split were moved to it (test first, then validation)")
    return asked.assign(split=final.astype(object))


def split_products(shelf: pd.DataFrame, asked: pd.DataFrame, judged: pd.DataFrame, report: Report) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`shelf` with the column split (none for unjudged families), and the judgements whose query and product are in one split."""
    families = judged["product"].map(shelf.set_index("id")["family_id"])
    wanted = judged["query"].map(asked.set_index("id")["split"])
    rank, relevant = wanted.map(RANK), judged["score"] > 0
    claims = rank[relevant].groupby(families[relevant]).min().combine_first(rank.groupby(families).min()).map(FIRST)
    shelf = shelf.assign(split=shelf["family_id"].map(claims))
    crossing = judged["product"].map(shelf.set_index("id")["split"]) != wanted
    lost, of_train = crossing & relevant & (wanted == "train"), relevant & (wanted == "train")
    if lost.sum() > MOST * of_train.sum():
        raise ValueError(
            f"share_products: the queries share so many products that train would lose {int(lost.sum()):,} of {int(of_train.sum()):,} judgements "
            "above 0 to the other splits; share them between the splits (--share-products), or make validation and test smaller"
        )
    for split in SPLITS:
        there = wanted == split
        if (lost := there & crossing).any():
            report.notes.append(
                f"splits: {split} lost {int(lost.sum()):,} of {int(there.sum()):,} judgements "
                f"({int((lost & relevant).sum()):,} of {int((there & relevant).sum()):,} above 0), whose products are in another split"
            )
    return shelf, report.without("judgements", judged, crossing, "its product is in the corpus of another split")


def share_products(shelf: pd.DataFrame, asked: pd.DataFrame, judged: pd.DataFrame, report: Report) -> pd.DataFrame:
    """`shelf` with the column split and a row for every split that judges a product; unjudged products have no split yet."""
    wanted = judged["query"].map(asked.set_index("id")["split"])
    pairs = pd.DataFrame({"id": judged["product"], "split": wanted}).drop_duplicates()
    shared = int(pairs["id"].duplicated().sum())
    report.notes.append(f"splits: products may be in several, and {shared:,} times one is in another split's corpus too")
    return shelf.merge(pairs, on="id", how="left")


def spread_unjudged(shelf: pd.DataFrame, asked: pd.DataFrame, seed: int, report: Report) -> pd.DataFrame:
    """`shelf` with every family in a split with queries: one that has none yet, or one without queries, goes by hash."""
    splits = [split for split in SPLITS if (asked["split"] == split).any()]
    report.notes += [f"splits: {split} has no query and is left out" for split in SPLITS if split not in splits]
    ends = list(accumulate(SPREAD[split] for split in splits))
    by_hash = shelf["family_id"].map(lambda family: splits[bisect_left(ends, _place(seed, family) * ends[-1])])
    return shelf.assign(split=shelf["split"].where(shelf["split"].isin(splits), by_hash))


def _place(seed: int, text: str) -> float:
    """A number from 0 to below 1 that depends on nothing else."""
    return digest(f"{seed}/{text}") / 2**64
