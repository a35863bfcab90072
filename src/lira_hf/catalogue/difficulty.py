"""How hard a built data set is: what its test queries look like, and how far three systems without any model get on them.

The systems rank the whole test corpus of a language by title and text: at random, by BM25 over words and by BM25 over
character 3-grams. A slice where BM25 over words does well asks for no understanding; one where it is near random asks
for nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

from tqdm import tqdm

from lira_hf.catalogue.tables import read_rows
from lira_hf.languages import LANGUAGES

ROWS = 1000  # test queries of a language that are measured, from the first on
CUT = 10  # of nDCG
DRAWS = 10  # rankings at random that are averaged
ALL = "all"  # beside the slices: every measured row
SYSTEMS = {"random": "random", "words": "BM25, words", "trigrams": "BM25, 3-grams"}
DECIMALS = 6  # of BM25: rounding errors differ between machines and would order equal products differently


def measure(folder: str | Path, progress: bool = True) -> dict[str, Any]:
    """The difficulty of the test split in `folder`, a data set of `build`.

    Returns {"split", "metric", "basis", "languages": {code: {"queries", "measured", "products", "slices"}}}: `basis`
    says in words which rows were measured, `queries` counts the split and `measured` the rows used, and `slices` maps
    "all" and each slice to {"rows", "characters" (mean code points of a query), "latin" (share of Latin letters among
    the letters, 0 to 1; None without letters), "random", "words", "trigrams" (mean nDCG@10, 0 to 100, as trec_eval
    computes it; None where no row has a relevant product)}. Equal folders give equal numbers on every machine. Raises
    ValueError where `folder` holds no language with a test split.
    """
    folder = Path(folder)
    codes = [code for code in LANGUAGES if (folder / code).is_dir()]
    if not codes:
        raise ValueError(f"folder: {str(folder)!r} holds no language; give a folder of `lira-hf data build`")
    languages = {}
    with tqdm(codes, unit="language", disable=not progress) as bar:
        for code in bar:
            bar.set_description(f"difficulty {code}")
            languages[code] = _measure_language(folder, code)
    cut = any(found["measured"] < found["queries"] for found in languages.values())
    basis = f"the first {ROWS:,} test queries of each language" if cut else "all test queries"
    return {"split": "test", "metric": f"nDCG@{CUT}", "basis": basis, "languages": languages}


def rows_of_table(found: Mapping[str, Any]) -> list[str]:
    """The lines of a Markdown table of what `measure` found, one row for each slice of each language."""
    head = ["language", "slice", "queries", "characters", "Latin letters", *SYSTEMS.values()]
    lines = [f"| {' | '.join(head)} |", "|---|---" + "|--:" * (len(head) - 2) + "|"]
    for code, of_language in found["languages"].items():
        for name, of_slice in of_language["slices"].items():
            latin = "–" if of_slice["latin"] is None else f"{100 * of_slice['latin']:.0f} %"
            scores = ["–" if of_slice[system] is None else f"{of_slice[system]:.1f}" for system in SYSTEMS]
            cells = [LANGUAGES[code].name, name, f"{of_slice['rows']:,}", f"{of_slice['characters']:.0f}", latin, *scores]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def _measure_language(folder: Path, code: str) -> dict[str, Any]:
    """The entry of one language in the result of `measure`."""
    total, rows = read_rows(folder, code, "", "test", ["query_id", "query", "slice", "product_ids", "relevances"], ROWS)
    size, corpus = read_rows(folder, code, "-corpus", "test", ["_id", "title", "text"])
    corpus.sort(key=lambda product: product["_id"], reverse=True)  # trec_eval breaks ties so
    ids = [product["_id"] for product in corpus]
    texts = [f"{product['title']} {product['text']}" for product in corpus]
    queries = {row["query_id"]: row["query"] for row in rows}
    judged = {row["query_id"]: dict(zip(row["product_ids"], row["relevances"], strict=True)) for row in rows}
    draws = [_ndcg(judged, _at_random(queries, ids, draw)) for draw in range(DRAWS)]
    scores = {
        "random": {query: fmean(draw[query] for draw in draws) for query in draws[0]},
        "words": _ndcg(judged, _bm25(queries, ids, texts, words)),
        "trigrams": _ndcg(judged, _bm25(queries, ids, texts, trigrams)),
    }
    tags = [ALL, *sorted({tag for row in rows for tag in row["slice"]})]
    slices = {tag: _summary([row for row in rows if tag in (ALL, *row["slice"])], scores) for tag in tags}
    return {"queries": total, "measured": len(rows), "products": size, "slices": slices}


def words(text: str) -> list[str]:
    """The words of a shop's plain search: runs of letters, marks and digits, letter case folded; Thai is not segmented."""
    import regex  # the \w of `re` leaves out combining marks, and would cut every Thai and Bengali word to pieces

    return regex.findall(r"\w+", text.casefold())


def trigrams(text: str) -> list[str]:
    """All runs of three characters, letter case folded, blanks as one, with a blank before and after the text."""
    text = f" {' '.join(text.casefold().split())} "
    return [text[start : start + 3] for start in range(len(text) - 2)]


def _at_random(queries: Mapping[str, str], ids: Sequence[str], draw: int) -> dict[str, list[str]]:
    """Query id to `CUT` products drawn by a random stream of its own."""
    return {query: Random(f"difficulty/{draw}/{query}").sample(ids, min(CUT, len(ids))) for query in queries}


def _bm25(queries: Mapping[str, str], ids: Sequence[str], texts: Sequence[str], split: Callable[[str], list[str]]) -> dict[str, list[str]]:
    """Query id to the best `CUT` of `ids`, equal ones in their order; what shares no token with the query is not found."""
    import bm25s
    import numpy as np

    vocabulary: dict[str, int] = {}
    tokens = [[vocabulary.setdefault(token, len(vocabulary)) for token in split(text)] for text in texts]
    index = bm25s.BM25(dtype="float64")  # Lucene's formula with k1 1.5 and b 0.75, the library's defaults
    index.index((tokens, vocabulary), show_progress=False)
    runs = {}
    for query, text in queries.items():
        known = [vocabulary[token] for token in split(text) if token in vocabulary]
        scores = index.get_scores_from_ids(known).round(DECIMALS)
        last = np.partition(scores, -CUT)[-CUT] if len(scores) > CUT else 0.0
        kept = np.flatnonzero((scores > 0) & (scores >= last))
        best = kept[np.argsort(-scores[kept], kind="stable")][:CUT]
        runs[query] = [ids[place] for place in best]
    return runs


def _ndcg(judged: Mapping[str, Mapping[str, int]], runs: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """nDCG@10, 0 to 100, of each query that has a relevant product; one for which nothing was found gets 0."""
    import pytrec_eval

    judged = {query: dict(grades) for query, grades in judged.items() if any(grade > 0 for grade in grades.values())}
    ranked = {query: {product: float(-rank) for rank, product in enumerate(runs[query])} for query in judged if runs[query]}
    found = pytrec_eval.RelevanceEvaluator(judged, {f"ndcg_cut.{CUT}"}).evaluate(ranked)
    return {query: 100 * found[query][f"ndcg_cut_{CUT}"] if query in found else 0.0 for query in judged}


def _summary(rows: Sequence[Mapping[str, Any]], scores: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """What `measure` says about these rows; `scores` maps a system to the nDCG of each query."""
    import regex

    letters = regex.findall(r"\p{L}", "".join(row["query"] for row in rows))
    latin = sum(regex.match(r"\p{Latin}", letter) is not None for letter in letters)
    of_rows = {system: [each[row["query_id"]] for row in rows if row["query_id"] in each] for system, each in scores.items()}
    return {
        "rows": len(rows),
        "characters": round(fmean(len(row["query"]) for row in rows), 2),
        "latin": round(latin / len(letters), 4) if letters else None,
        **{system: round(fmean(values), 2) if values else None for system, values in of_rows.items()},
    }
