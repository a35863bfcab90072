"""Intervals of scores and of differences between systems, from resampled seeds and queries."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np

RESAMPLES = 2_000
PERCENTILES = (2.5, 97.5)


def bootstrap(values: Mapping[str, np.ndarray], clusters: Mapping[str, np.ndarray] | None = None, resamples: int = RESAMPLES) -> dict:
    """The mean of values and its 95 % percentile bootstrap interval.

    Args:
        values: by language, [seeds, queries], where two systems are compared their differences query by query (paired). A system without
            seeds has one. The same number of seeds in each language.
        clusters: by language, the cluster [queries] of each query, numbered from 0: queries that share a product are drawn together, as they
            tell the same. None: each query is a cluster.
    Each resample draws as many seeds as there are, the same ones for all languages, and of each language as many clusters as it has, all
    with replacement: the interval holds for other seeds and other queries alike. What is drawn of the seeds is spread by sqrt(n / (n - 1)), as
    n of n seeds vary too little by that factor (ours). Still, three seeds are few: where they alone vary, only some four of five intervals hold the
    truth. A language counts as much as any other.
    Returns {"mean", "interval": [low, high], "languages": {code: {"mean", "interval"}}}."""
    counts = {table.shape[0] for table in values.values()}
    if len(counts) != 1 or 0 in counts or any(table.shape[1] == 0 for table in values.values()):
        raise ValueError(
            f"values: {[table.shape for table in values.values()]} are no [seeds, queries] with equally many seeds, at least one of each"
        )
    count = counts.pop()
    seeds = 1 / count + (_weights(count, resamples, 0) - 1 / count) * (np.sqrt(count / (count - 1)) if count > 1 else 1)  # [R, seeds]
    languages, drawn = {}, []
    for number, (code, table) in enumerate(values.items(), 1):
        cluster = np.arange(table.shape[1]) if clusters is None else clusters[code]
        queries = _weights(cluster.max() + 1, resamples, number)[:, cluster]  # [R, queries]
        queries = queries / queries.sum(1, keepdims=True)
        drawn.append(((seeds @ table) * queries).sum(-1))  # [R]
        languages[code] = _summed_up(table.mean(), drawn[-1])
    mean = np.mean([table.mean() for table in values.values()])
    return _summed_up(mean, np.mean(drawn, axis=0)) | {"languages": languages}


@functools.lru_cache(maxsize=64)  # every comparison asks for the same few
def _weights(count: int, resamples: int, stream: int) -> np.ndarray:
    """How often each of count things is drawn in each resample, as shares [resamples, count]."""
    return np.random.default_rng([stream, count]).multinomial(count, np.full(count, 1 / count), size=resamples) / count


def _summed_up(mean: float, drawn: np.ndarray) -> dict:
    return {"mean": round(float(mean), 4), "interval": [round(float(value), 4) for value in np.percentile(drawn, PERCENTILES)]}
