"""The whole import: files to frames, frames to queries, products and grades, and those to a folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from lira_hf.catalogue.imports.grading import graded, known_labels
from lira_hf.catalogue.imports.reading import of_locale, own_columns, read
from lira_hf.catalogue.imports.report import Report
from lira_hf.catalogue.imports.splitting import share_products as shared
from lira_hf.catalogue.imports.splitting import split_products, split_queries, spread_unjudged
from lira_hf.catalogue.imports.tidying import products_of, queries_of
from lira_hf.catalogue.imports.writing import write_folder
from lira_hf.languages import check_languages


def import_shop(
    products: str | Path,
    queries: str | Path | None,
    judgements: str | Path,
    language: str,
    output: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    grades: Mapping[str, int] | None = None,
    locale: str | None = None,
    validation: float = 0.1,
    test: float = 0.1,
    share_products: bool = False,
    seed: int = 0,
    progress: bool = True,
) -> Report:
    """Write the folder `output` from three files by the rules of this package; returns what was written and refused.

    `queries`: None, or the same file as `judgements`, where that one holds the queries' text too (ESCI). `columns`: {"products.title":
    "ten_san_pham"}, for names that `FIELDS` lacks. `grades`: {label: 0 to 3}, for labels that `GRADES` lacks. `locale`: the one ESCI
    locale to keep. `validation`, `test`: shares of the queries, from 0, together below 1, for splits that are not given. `share_products`
    leaves a product in the corpus of every split that judges it. Rows are numbered as in a spreadsheet: the header is row 1. The folder
    appears when all is written, or not at all. Raises ValueError for a wrong
    argument, file or column, an `output` that exists, and where no query is left.
    """
    output = Path(output)
    _check_arguments(language, output, {"validation": validation, "test": test}, seed)
    labels = known_labels(grades)
    alone = queries is None or Path(queries).absolute() == Path(judgements).absolute()
    named = own_columns(columns, alone)
    report = Report(output)

    files = {"products": products, "judgements": judgements} | ({} if alone else {"queries": queries})
    frames = {kind: read(path, kind, named[kind], report) for kind, path in files.items()}
    frames = of_locale(frames, locale, report)

    shelf = products_of(frames["products"], Path(products).absolute() == Path(judgements).absolute(), report, progress)
    asked, judged = queries_of(frames.get("queries"), frames["judgements"], report, progress)
    judged = report.without("judgements", judged, ~judged["query"].isin(asked["id"]), "its query is missing or was refused")
    judged = report.without("judgements", judged, ~judged["product"].isin(shelf["id"]), "its product is missing or was refused")
    judged = graded(judged, labels, report)
    asked = _answered(asked, judged, "no relevant product", report)
    asked = split_queries(asked, {"validation": validation, "test": test}, seed, report)
    judged = _of_queries(judged, asked, report)
    if share_products:
        shelf = shared(shelf, asked, judged, report)
    else:
        shelf, judged = split_products(shelf, asked, judged, report)
    asked = _answered(asked, judged, "its relevant products are in the corpus of another split", report)
    judged = _of_queries(judged, asked, report)
    if asked.empty:
        reasons = [f"{kind}: {found['count']} {reason}" for kind, of_kind in report.refused.items() for reason, found in of_kind.items()]
        raise ValueError(f"judgements: no query with a relevant product is left ({'; '.join(reasons) or 'the files hold no rows'})")
    shelf = spread_unjudged(shelf, asked, seed, report)
    write_folder(language, seed, [Path(path).name for path in files.values()], shelf, asked, judged, report, progress, share_products)
    return report


def _check_arguments(language: str, output: Path, shares: Mapping[str, float], seed: int) -> None:
    check_languages([language])
    if output.exists():
        raise ValueError(f"output: {str(output)!r} exists; give a new folder")
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise ValueError(f"seed: {seed!r} is not allowed; give an integer")
    for name, share in shares.items():
        if not 0 <= share < 1:
            raise ValueError(f"{name}: {share!r} is not allowed; a share is at least 0 and below 1")
    if sum(shares.values()) >= 1:
        raise ValueError(f"{' and '.join(shares)}: {' and '.join(map(repr, shares.values()))} are not allowed; train needs a share too")


def _answered(asked: pd.DataFrame, judged: pd.DataFrame, reason: str, report: Report) -> pd.DataFrame:
    """The queries with a relevant product."""
    return report.without("queries", asked, ~asked["id"].isin(judged.loc[judged["score"] > 0, "query"]), reason)


def _of_queries(judged: pd.DataFrame, asked: pd.DataFrame, report: Report) -> pd.DataFrame:
    """The judgements of the queries that are left."""
    return report.without("judgements", judged, ~judged["query"].isin(asked["id"]), "its query was refused")
